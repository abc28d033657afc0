"""The two processes of one way of benchmarks/bench_nats.py: one receives, one or more send.

They say on their output when they are ready and when something has come, and read on their input when to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import mmap
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from pet.bodies.body import SealedBody, as_sealed_body
from pet.buffers import Buffer
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.mask_config import MaskConfig
from pet.pet1.answers import OPEN, UpdateAccepted, UpdateOpen, build_piece, read_answer
from pet.pet1.header_batch import HeaderBatch
from pet.pet1.leaves import LEAF_BYTES, derive_leaf_digest, derive_leaf_digests, leaf_count
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports.nats import AsyncNatsTransport, NatsServer, NatsSettings, Subjects, connect
from pet.transports.nats.pet1_client import WINDOW
from pet.transports.nats.receiver import DEFAULT_WINDOW
from pet.transports.pet1 import MAX_CALL_LEAVES, OpenedUpdate, Pet1Document, PublishedDocument, UpdateSizes

FEDERATION: Final = Subjects("benchmark0000000")
REQUEST_BYTES: Final = {"bare": 2**20, "hashed": 36 + LEAF_BYTES}
#: Requests under way, as those of pet are.
WINDOWS: Final = {"bare": DEFAULT_WINDOW, "hashed": WINDOW}
#: What a leaf's digest has in front of the leaf; what is in it costs nothing.
_CONTEXT: Final = bytes(32)


class DiscardingService(CoordinatorService):
    """A coordinator that throws messages away, and counts them."""

    taken = 0

    def __init__(self, way: str, megabytes: int, expected: int) -> None:
        window = PhaseWindow(min_count=3, max_count=10, min_seconds=3600, max_seconds=7200)
        settings = RoundSettings.of(
            MaskConfig.parse("prime-f32-b0-m3"),
            megabytes * 10**6 // 6 + 10_000,
            sum_probability=0.5,
            update_probability=0.5,
            sum=window,
            update=window,
            sum2=window,
        )
        self.is_done = asyncio.Event()
        loop = asyncio.get_running_loop()
        note = functools.partial(loop.call_soon_threadsafe, self.is_done.set)
        is_pet1 = way in {"pet1", "sent"}
        super().__init__(
            DiscardingPet1Engine(settings, megabytes * 10**6, expected, note) if is_pet1 else CoordinatorEngine(settings)
        )
        self._expected = expected

    async def handle_message(self, body: Any) -> None:
        body.close()
        self.taken += 1
        if self.taken % self._expected == 0:
            self.is_done.set()


class DiscardedPiece(NamedTuple):
    """Leaves of one update."""

    engine: DiscardingPet1Engine
    upload: bytes

    def take(self, first: int, leaves: Buffer, *, is_last: bool) -> bytes | None:
        answer = self.engine.take_leaves(self.upload, first, leaves)
        return answer if is_last or answer[0] != OPEN else None

    def finish(self) -> bytes | None:
        return None


class DiscardingPet1Engine(CoordinatorEngine):
    """An endpoint of pet/1 that compares each leaf with its digest, and throws it away.

    The sealed part of an update is 32 bytes that name it, and the digests of its leaves.
    """

    def __init__(self, settings: RoundSettings, vector_bytes: int, expected: int, on_done: Callable[[], None]) -> None:
        super().__init__(settings)
        self._sizes = UpdateSizes(32 + 32 * leaf_count(vector_bytes), vector_bytes)
        self._uploads: dict[bytes, tuple[list[bytes], bytearray]] = {}
        self._expected, self._accepted, self._on_done = expected, 0, on_done
        self._lock = threading.Lock()

    def document(self, document: Pet1Document) -> PublishedDocument | None:
        return PublishedDocument(b"record", bytes(32)) if document is Pet1Document.ROUND else None

    def headers(self, after: int) -> HeaderBatch:
        return HeaderBatch((), after)

    def update_sizes(self) -> UpdateSizes | None:
        return self._sizes

    def open_update(self, sealed: SealedBody | Buffer) -> OpenedUpdate:
        with as_sealed_body(sealed).open() as data:
            name, digests = bytes(data[:32]), [bytes(data[start : start + 32]) for start in range(32, len(data), 32)]
        with self._lock:
            _, have = self._uploads.setdefault(name, (digests, bytearray(len(digests))))
            return OpenedUpdate(UpdateOpen(8, tuple(map(bool, have))).encode(), name)

    def begin_piece(self, upload: bytes) -> DiscardedPiece:
        return DiscardedPiece(self, upload)

    def take_leaves(self, upload: bytes, first: int, leaves: Buffer) -> bytes:
        digests, have = self._uploads[upload]
        if derive_leaf_digest(leaves, first, self._sizes.vector_bytes, _CONTEXT) != digests[first]:
            raise SystemExit(f"leaf {first}: expected another one")
        with self._lock:
            have[first] = True
            if not all(have):
                return UpdateOpen(8, tuple(map(bool, have))).encode()
            del self._uploads[upload]
            self._accepted += 1
            if self._accepted % self._expected == 0:
                self._on_done()
            return UpdateAccepted().encode()


def say(line: str) -> None:
    print(line, flush=True)


async def heard(*words: str) -> str:
    line = await asyncio.to_thread(sys.stdin.readline)
    if line.strip() not in words:
        raise SystemExit(f"expected {' or '.join(words)}, got {line!r}")
    return line.strip()


def nats_settings(url: str, way: str) -> NatsSettings:
    return NatsSettings(hosts=(url,), mode="stream" if way == "stream" else "direct")


async def receive(way: str, url: str, megabytes: int, senders: int) -> None:
    """Be the process that receives: say where and that all is ready, then that all has come."""
    if way in REQUEST_BYTES:
        import nats

        async def answer(message: Any) -> None:
            if way == "hashed":
                hashlib.sha256(message.data).digest()
            await message.respond(b"")

        client = await nats.connect(url)
        for number in range(senders):
            await client.subscribe(f"bare.{number}", cb=answer)
        await client.flush()
        say(url)
        await heard("end")
        await client.close()
        return
    service = DiscardingService(way, megabytes, senders)
    async with contextlib.AsyncExitStack() as stack:
        if way == "http":
            url = await serve_http(service, stack)
        else:
            await stack.enter_async_context(service)
            connection = await stack.enter_async_context(await connect(nats_settings(url, way), "coordinator"))
            await stack.enter_async_context(NatsServer(service, connection, FEDERATION))
        say(url)
        telling = asyncio.create_task(tell_when_done(service))
        await heard("end")
        telling.cancel()


async def tell_when_done(service: DiscardingService) -> None:
    while True:
        await service.is_done.wait()
        service.is_done.clear()
        say("done")


async def serve_http(service: CoordinatorService, stack: contextlib.AsyncExitStack) -> str:
    import uvicorn

    from pet.transports import asgi

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(asgi.create_app(service), http="httptools", ws="none", lifespan="on", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))

    async def stop() -> None:
        server.should_exit = True
        await serving
        listener.close()

    stack.push_async_callback(stop)
    while not server.started:
        await asyncio.sleep(0.01)
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def send(way: str, url: str, number: int, path: Path) -> None:
    """Be a process that sends: say that it is ready, send on request, and say when it is done."""
    with path.open("rb") as file:
        body = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    if way in REQUEST_BYTES:
        import nats

        client, size = await nats.connect(url), REQUEST_BYTES[way]

        async def send_parts(starts: Iterator[int]) -> None:
            for start in starts:
                part = bytes(body[start : start + size])
                if way == "hashed":
                    hashlib.sha256(part).digest()
                await client.request(f"bare.{number}", part, timeout=60)

        async def send_one(_: memoryview) -> None:
            starts = iter(range(0, len(body), size))
            await asyncio.gather(*(send_parts(starts) for _ in range(WINDOWS[way])))

        await send_whenever_told(body, send_one)
        await client.close()
    elif way == "http":
        from pet.transports.http import AsyncHttpTransport

        http = AsyncHttpTransport(url, timeout_seconds=120)
        await http.get_parameters()
        await send_whenever_told(body, http.send_message)
        await http.aclose()
    else:
        async with await connect(nats_settings(url, way), f"sender{number}") as connection:
            transport = AsyncNatsTransport(connection, FEDERATION, patience_seconds=120)
            await transport.get_parameters()
            known = await asyncio.to_thread(derive_leaf_digests, body, _CONTEXT) if way == "sent" else None
            update = functools.partial(send_update, transport, known=known)
            await send_whenever_told(body, update if way in {"pet1", "sent"} else transport.send_message)


async def send_update(transport: AsyncNatsTransport, body: memoryview, *, known: list[bytes] | None) -> None:
    """Send an update as a participant does, the digests of all leaves first: those in the middle may be known already."""
    if known is None:
        digests = await asyncio.to_thread(derive_leaf_digests, body, _CONTEXT)
    else:
        last = (len(known) - 1) * LEAF_BYTES
        first_digest = derive_leaf_digest(body[:LEAF_BYTES], 0, len(body), _CONTEXT)
        digests = [first_digest, *known[1:-1], derive_leaf_digest(body[last:], len(known) - 1, len(body), _CONTEXT)]
    name = bytes(body[:32])
    answer = read_answer(await transport.open_update(name + b"".join(digests)), len(digests))
    while isinstance(answer, UpdateOpen):
        piece = build_piece(name, next(answer.missing(MAX_CALL_LEAVES)), body)
        answer = read_answer(await transport.send_piece(piece), len(digests))
    if answer != UpdateAccepted():
        raise SystemExit(f"expected the update to be accepted, got {answer}")


async def send_whenever_told(body: memoryview, send_one: Callable[[memoryview], Awaitable[None]]) -> None:
    """Send a body again and again, each time with other ends: no two sealed messages are alike."""
    say("ready")
    while await heard("go", "end") == "go":
        body[:32] = body[-32:] = os.urandom(32)
        await send_one(body)
        say("sent")


def main() -> None:
    """Play the role that the command line names."""
    role, way, url, *others = sys.argv[1:]
    if role == "receive":
        asyncio.run(receive(way, url, *map(int, others)))
    else:
        asyncio.run(send(way, url, int(others[0]), Path(others[1])))


if __name__ == "__main__":
    main()
