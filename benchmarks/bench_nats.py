"""How fast large uploads go from process to process over NATS, beside bare requests, and beside HTTP, in the same run.

Starts a nats-server, one process that receives and one or more that send, for each way, and has the ways used in turn, over and
over, all of them ready before: a machine that others use changes its speed from one half minute to the next.

- bare: requests of 1 MiB with the same window and the library alone, answered with nothing and thrown away: the ceiling.
- direct: PET's transport in mode `direct`, whole: offer, chunks into a file, digest on both sides, verdict.
- stream: the same by way of the broker's storage, until the coordinator has it.
- http: PET over HTTP, whole.

What is received is thrown away unopened; only carrying it is measured, and not the first time: buffers that the first upload of
each sender touched are used again, as in a coordinator at work. All senders map the same file.

    python benchmarks/bench_nats.py [--megabytes 150] [--senders 1 10] [--repeats 10] [--ways bare direct stream http]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import mmap
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.mask_config import MaskConfig
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports.nats import AsyncNatsTransport, NatsServer, NatsSettings, Subjects, connect

FEDERATION = Subjects("benchmark0000000")
WAYS = ("bare", "direct", "stream", "http")
WINDOW = 4
REQUEST_BYTES = 2**20


class Measured(NamedTuple):
    """What one upload of every sender took.

    Attributes:
        rate: megabytes per second over all senders.
        cpu_seconds: for each upload, of its sender, of the broker and of the receiver.
    """

    rate: float
    cpu_seconds: list[float]


class DiscardingService(CoordinatorService):
    """A coordinator that throws messages away, and counts them."""

    taken = 0

    def __init__(self, megabytes: int, expected: int) -> None:
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
        super().__init__(CoordinatorEngine(settings))
        self._expected = expected
        self.is_done = asyncio.Event()

    async def handle_message(self, body: Any) -> None:
        body.close()
        self.taken += 1
        if self.taken % self._expected == 0:
            self.is_done.set()


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
    if way == "bare":
        import nats

        async def answer(message: Any) -> None:
            await message.respond(b"")

        client = await nats.connect(url)
        for number in range(senders):
            await client.subscribe(f"bare.{number}", cb=answer)
        await client.flush()
        say(url)
        await heard("end")
        await client.close()
        return
    service = DiscardingService(megabytes, senders)
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
    if way == "bare":
        import nats

        client = await nats.connect(url)

        async def send_parts(starts: Iterator[int]) -> None:
            for start in starts:
                await client.request(f"bare.{number}", bytes(body[start : start + REQUEST_BYTES]), timeout=60)

        async def send_one(_: memoryview) -> None:
            starts = iter(range(0, len(body), REQUEST_BYTES))
            await asyncio.gather(*(send_parts(starts) for _ in range(WINDOW)))

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
            await send_whenever_told(body, transport.send_message)


async def send_whenever_told(body: memoryview, send_one: Callable[[memoryview], Awaitable[None]]) -> None:
    """Send a body again and again, each time with other ends: no two sealed messages are alike."""
    say("ready")
    while await heard("go", "end") == "go":
        body[:32] = body[-32:] = os.urandom(32)
        await send_one(body)
        say("sent")


@contextlib.contextmanager
def broker() -> Iterator[tuple[str, psutil.Process]]:
    """Run a nats-server with its storage in a temporary folder; yields its URL and process."""
    program = shutil.which("nats-server")
    if program is None:
        raise SystemExit("nats-server: expected it on the PATH (Debian: apt-get install nats-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder], stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.02)
            yield f"nats://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def start(role: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--role", role, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise SystemExit(f"a process ended: {process.args}")
    return line.strip()


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


class Line:
    """One way from senders to a receiver, by a broker of its own, ready to be used.

    What one way leaves in the memory of its broker does not count for another.
    """

    def __init__(self, way: str, megabytes: int, senders: int, path: Path, stack: contextlib.ExitStack) -> None:
        self.way = way
        self._bytes = megabytes * 10**6 * senders
        url, self._broker = stack.enter_context(broker())
        self._receiver = started("receive", way, url, megabytes, senders, stack=stack)
        url = hear(self._receiver)
        self._senders = [started("send", way, url, number, path, stack=stack) for number in range(senders)]
        for process in self._senders:
            hear(process)

    def upload(self) -> Measured:
        """Have every sender send once."""
        roles = [
            [psutil.Process(process.pid) for process in self._senders],
            [self._broker],
            [psutil.Process(self._receiver.pid)],
        ]
        used, begun = [cpu_seconds(role) for role in roles], time.perf_counter()
        for process in self._senders:
            tell(process, "go")
        for process in self._senders:
            hear(process)
        if self.way != "bare":
            hear(self._receiver)
        seconds = time.perf_counter() - begun
        used = [cpu_seconds(role) - before for role, before in zip(roles, used, strict=True)]
        return Measured(self._bytes / 1e6 / seconds, [each / len(self._senders) for each in used])

    def end(self) -> float:
        """Have all processes but the broker end; returns the most memory that this took, in MB."""
        for process in (*self._senders, self._receiver):
            tell(process, "end")
            process.wait(60)
        status = Path(f"/proc/{self._broker.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1000


def started(role: str, *arguments: object, stack: contextlib.ExitStack) -> subprocess.Popen[str]:
    process = start(role, *arguments)
    stack.callback(process.communicate)
    stack.callback(process.kill)
    return process


def compare(ways: list[str], megabytes: int, senders: int, repeats: int) -> list[str]:
    """Use every way in turn, over and over, and return lines of a table."""
    with contextlib.ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "body"
        path.write_bytes(os.urandom(megabytes * 10**6))
        lines = [Line(way, megabytes, senders, path, stack) for way in ways]
        for line in lines:
            line.upload()
        runs: dict[str, list[Measured]] = {way: [] for way in ways}
        for _ in range(repeats):
            for line in lines:
                runs[line.way].append(line.upload())
        memory = {line.way: line.end() for line in lines}
    return [row(way, senders, runs[way], runs.get("bare"), memory[way]) for way in ways]


def row(way: str, senders: int, runs: list[Measured], bare: list[Measured] | None, memory: float) -> str:
    """Return a line of the table."""
    rates = [run.rate for run in runs]
    shares = [run.rate / other.rate for run, other in zip(runs, bare, strict=True)] if bare else []
    share = f"{statistics.median(shares):.2f} ({min(shares):.2f}-{max(shares):.2f})" if shares else ""
    seconds = [statistics.median(run.cpu_seconds[role] for run in runs) for role in range(3)]
    cells = [way, str(senders), f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})", share]
    cells += [" + ".join(f"{each:.2f}" for each in seconds), "" if way == "http" else f"{memory:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Parse and run; --role makes a process the receiver or a sender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=150)
    parser.add_argument("--senders", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        role, way, url, *others = options.role
        if role == "receive":
            asyncio.run(receive(way, url, *map(int, others)))
        else:
            asyncio.run(send(way, url, int(others[0]), Path(others[1])))
        return
    print(
        "| way | senders | MB/s, all senders: median (range) | share of bare: median (range) "
        "| CPU seconds for each upload: sender + broker + receiver | memory of the broker, MB |"
    )
    print("|---|---|---|---|---|---|")
    for senders in options.senders:
        print("\n".join(compare(options.ways, options.megabytes, senders, options.repeats)), flush=True)


if __name__ == "__main__":
    main()
