"""What one publishes for all: the streams of a federation, the last value of each event, and large results in chunks.

Readers ask the broker for single messages ("direct get", server 2.9 or later) instead of making consumers: it needs no right
but reading, leaves nothing behind, and a lost or purged chunk is an answer and not a silence (docs/spec/federation.md 5.1,
fact 4). A few requests in flight are as fast as a consumer.

Source: docs/spec/federation.md 5.2, 5.4.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from pet.buffers import Buffer
from pet.errors import (
    AnswerTooLargeError,
    CounterpartOfflineError,
    MissingError,
    RemoteProtocolError,
    TransportConfigError,
    TransportError,
)
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.storage import ask_storage, store_message
from pet.transports.nats.streams import EVENT_STREAM_BYTES, MIN_AGE_SECONDS, Streams
from pet.transports.nats.subjects import Subjects
from pet.transports.nats.subscription import Subscription

MAX_EVENT_BYTES: Final = 2**16
#: Chunks under way to one reader or one writer: with 1 MiB each far below what the broker holds for a connection (fact 2).
_WINDOW: Final = 4
#: More chunks of 1 MiB than any stream holds.
_MAX_CHUNKS: Final = 2**20

OCTET_STREAM: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobReference:
    """Where a large result is, and what it must be. Travels in an event.

    Attributes:
        subject: of its chunks, without their index.
        size_bytes: of the whole.
        chunk_bytes: of every chunk but the last.
        sha256: of the whole, hex.
        media_type: what it is.
    """

    subject: str
    size_bytes: int
    chunk_bytes: int
    sha256: str
    media_type: str = OCTET_STREAM

    @property
    def chunk_count(self) -> int:
        """How many chunks there are."""
        return -(-self.size_bytes // self.chunk_bytes)

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            RemoteProtocolError: it is something else (reason "malformed_reference").
        """
        try:
            record = json.loads(data)
            reference = cls(**record)
            numbers = (reference.size_bytes, reference.chunk_bytes)
            texts = (reference.subject, reference.sha256, reference.media_type)
            is_good = all(type(number) is int for number in numbers) and all(type(text) is str for text in texts)
            is_good = is_good and min(numbers) >= 0 < reference.chunk_bytes and reference.chunk_count <= _MAX_CHUNKS
        except (ValueError, TypeError):
            is_good = False
        if not is_good:
            raise RemoteProtocolError(
                "malformed_reference", f"blob reference: expected size, chunks, digest, got {data[:60]!r}"
            )
        return reference


class Broadcasts:
    """The streams of one federation, as its peers see them.

    Args:
        connection: to the broker.
        subjects: names of the federation.
        max_age_seconds: how long the broker keeps anything; an hour or more.
    """

    def __init__(self, connection: NatsConnection, subjects: Subjects, *, max_age_seconds: float = MIN_AGE_SECONDS) -> None:
        self._connection: Final = connection
        self.subjects: Final = subjects
        self._streams: Final = Streams(connection, subjects, max_age_seconds)

    async def create_streams(self) -> list[str]:
        """Create the streams that are missing; see `Streams.create`."""
        return await self._streams.create()

    async def delete_streams(self, names: Iterable[str] | None = None) -> None:
        """Delete streams and all they hold; see `Streams.delete`."""
        await self._streams.delete(names)

    async def publish_event(self, name: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Make this the last value of an event; headers are kept with it.

        Raises:
            TransportConfigError: it is larger than 64 KiB.
        """
        if len(payload) > MAX_EVENT_BYTES:
            raise TransportConfigError(f"event {name}: expected at most {MAX_EVENT_BYTES} bytes, got {len(payload)}")
        await store_message(self._connection, self.subjects.event(name), payload, headers=headers)

    async def last_event(self, name: str) -> bytes | None:
        """Return the last value of an event, or None if there was none."""
        value = await self.last_event_with_headers(name)
        return None if value is None else value[0]

    async def last_event_with_headers(self, name: str) -> tuple[bytes, dict[str, str]] | None:
        """Return the last value of an event and its headers, or None if there was none.

        Not by direct get: where there is no stream yet, the broker would say nothing at all.
        """
        body = {"last_by_subj": self.subjects.event(name)}
        try:
            record = await ask_storage(self._connection, f"STREAM.MSG.GET.{self.subjects.event_stream}", body)
            message = record["message"]
            headers = parse_headers(base64.b64decode(message.get("hdrs", ""), validate=True))
            return base64.b64decode(message.get("data", ""), validate=True), headers
        except MissingError:
            return None
        except (KeyError, AttributeError, TypeError, ValueError):
            raise TransportError(f"event {name}: expected a stored message, got something else") from None

    async def watch_events(self, handler: Callable[[str, bytes], Awaitable[None]]) -> Subscription:
        """Call `handler(name, payload)` for each event from now on, while the connection stands.

        What was missed in an interruption is not made up for: ask for the last value after it.
        """
        skip = len(self.subjects.event("x")) - 1

        async def handle(message: Any) -> None:
            await handler(message.subject[skip:], bytes(message.data))

        return await self._connection.subscribe(self.subjects.events_all, handle)

    async def publish_blob(
        self,
        subject: str,
        pieces: Buffer | Iterable[bytes],
        *,
        media_type: str = OCTET_STREAM,
    ) -> BlobReference:
        """Store a large result in chunks.

        Args:
            subject: `Subjects.model(...)` or `Subjects.sync(...)`; an earlier blob there is replaced.
            pieces: the bytes, in pieces of any size; made in a worker thread.
            media_type: said in the reference.

        Raises:
            TransportConfigError: it does not fit into the stream together with a second one.
        """
        if isinstance(pieces, bytes | bytearray | memoryview):
            pieces = [bytes(pieces)]
        chunk_bytes = self._connection.max_chunk_bytes
        most = self._connection.settings.stream_max_bytes // 4 - EVENT_STREAM_BYTES
        chunks, digest, size, index = _regroup(pieces, chunk_bytes), hashlib.sha256(), 0, 0
        under_way: set[asyncio.Task[bool]] = set()
        try:
            while (chunk := await asyncio.to_thread(_take, chunks, digest)) is not None:
                size += len(chunk)
                if size > most:
                    raise TransportConfigError(
                        f"{subject}: expected at most {most} bytes, got more; raise nats_stream_max_memory"
                    )
                under_way.add(asyncio.create_task(store_message(self._connection, f"{subject}.{index}", chunk)))
                index += 1
                if len(under_way) >= _WINDOW:
                    under_way = await _settle(under_way, asyncio.FIRST_COMPLETED)
            await _settle(under_way, asyncio.ALL_COMPLETED)
        finally:
            for task in under_way:
                task.cancel()
        return BlobReference(
            subject=subject, size_bytes=size, chunk_bytes=chunk_bytes, sha256=digest.hexdigest(), media_type=media_type
        )

    async def fetch_blob(self, reference: BlobReference, max_bytes: int) -> bytearray:
        """Fetch a large result.

        Raises:
            AnswerTooLargeError: it is larger than `max_bytes`; nothing is read.
            MissingError: a chunk is gone: a newer result took its place. Ask again for the reference.
            TransportError: what came is not what the reference promises.
        """
        if reference.size_bytes > max_bytes:
            raise AnswerTooLargeError(f"{reference.subject}: expected at most {max_bytes} bytes, got {reference.size_bytes}")
        if not reference.subject.startswith(self.subjects.prefix):
            raise TransportError(f"blob: expected a subject of {self.subjects.prefix}, got {reference.subject[:80]!r}")
        blob, indexes = bytearray(reference.size_bytes), iter(range(reference.chunk_count))

        async def fetch_some() -> None:
            for index in indexes:
                chunk = await self._get(self.subjects.broadcast_stream, f"{reference.subject}.{index}")
                start = index * reference.chunk_bytes
                expected = min(reference.chunk_bytes, reference.size_bytes - start)
                if len(chunk) != expected:
                    raise MissingError(f"{reference.subject}.{index}: expected {expected} bytes, got {len(chunk)}")
                blob[start : start + expected] = chunk

        await finish_all([asyncio.create_task(fetch_some()) for _ in range(_WINDOW)])
        if (await asyncio.to_thread(hashlib.sha256, blob)).hexdigest() != reference.sha256:
            raise MissingError(f"{reference.subject}: expected the digest that was announced, got another")
        return blob

    async def last_broadcast(self, subject: str) -> bytes | None:
        """Return what was stored last on a subject of the broadcast stream, or None if there is nothing."""
        try:
            return await self._get(self.subjects.broadcast_stream, subject)
        except MissingError:
            return None

    async def _get(self, stream: str, subject: str) -> bytes:
        """Ask for the last message on a subject.

        Raises:
            MissingError: there is none, or no stream.
        """
        try:
            message = await self._connection.exchange(f"$JS.API.DIRECT.GET.{stream}.{subject}")
        except CounterpartOfflineError:
            raise MissingError(f"{subject}: expected a stream that holds it, got none") from None
        headers = message.headers or {}
        if "Nats-Sequence" not in headers:
            raise MissingError(f"{subject}: expected a message, got {headers.get('Description', 'none')}")
        return bytes(message.data)


async def finish_all(tasks: Sequence[asyncio.Future[None]]) -> None:
    """Wait for tasks; where one fails, end the others and raise its error.

    Not by a task group: where several tasks fail at once, that of Python 3.11 leaves its owner marked as one that is being
    cancelled, and the next request of its would end it.
    """
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def parse_headers(block: bytes) -> dict[str, str]:
    """Read the headers of a stored message; a name that stands twice, or a line that is none, makes all of them void."""
    headers: dict[str, str] = {}
    for line in block.decode("ascii", errors="replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if line and (not colon or name in headers):
            return {}
        if line:
            headers[name] = value.strip()
    return headers


def _regroup(pieces: Iterable[bytes], chunk_bytes: int) -> Iterator[bytes]:
    """Make pieces of any size into chunks of one size."""
    collected = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while len(view):
            taken = min(len(view), chunk_bytes - len(collected))
            collected += view[:taken]
            view = view[taken:]
            if len(collected) == chunk_bytes:
                yield bytes(collected)
                collected.clear()
    if collected:
        yield bytes(collected)


def _take(chunks: Iterator[bytes], digest: Any) -> bytes | None:
    chunk = next(chunks, None)
    if chunk is not None:
        digest.update(chunk)
    return chunk


async def _settle(tasks: set[asyncio.Task[bool]], until: str) -> set[asyncio.Task[bool]]:
    """Wait for tasks, raise the first error, return what still runs."""
    if not tasks:
        return tasks
    done, pending = await asyncio.wait(tasks, return_when=until)
    for task in done:
        if (error := task.exception()) is not None:
            for other in pending:
                other.cancel()
            raise error
    return pending
