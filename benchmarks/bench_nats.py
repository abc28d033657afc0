"""How fast large uploads go from process to process over NATS, beside bare requests, and beside HTTP, in the same run.

Starts a nats-server, one process that receives and one or more that send (nats_roles.py), for each way, and has the ways used
in turn, over and over, all of them ready before: a machine that others use changes its speed from one half minute to the next.

- bare: requests of 1 MiB with the same window and the library alone, answered with nothing and thrown away: the ceiling.
- hashed: the same with the requests of pet/1, one leaf each, of which both ends take the SHA-256: the ceiling of pet/1.
- pet1: an update of pet/1, whole: digests of all leaves, the sealed part, leaves that are compared with their digests.
- sent: the same with digests that are there already, as who sends an update has them: what is left is the transport's.
- direct: PET's transport in mode `direct`, whole: offer, chunks into a file, digest on both sides, verdict.
- earlier: the same of the last commit before pet-1, built into a temporary folder (`--build FOLDER` keeps it).
- stream: as direct by way of the broker's storage, until the coordinator has it.
- http: PET over HTTP, whole.

What is received is thrown away unopened; only carrying it is measured, and not the first time: buffers that the first upload of
each sender touched are used again, as in a coordinator at work. All senders map the same file.

    python benchmarks/bench_nats.py [--megabytes 150] [--senders 1 10] [--repeats 10] [--ways bare direct stream http]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from compare_commits import OLD_COMMIT, ROOT, built

WAYS = ("bare", "hashed", "pet1", "sent", "direct", "earlier", "stream", "http")
#: Ways whose receiver says nothing, and those that pet/1 is held against.
SILENT = {"bare", "hashed"}
BESIDE = ("hashed", "earlier", "direct")
PET1 = ("pet1", "sent")
EARLIER_SCRIPT = "bench_nats_of_that_commit.py"
ROLES = Path(__file__).with_name("nats_roles.py")


class Measured(NamedTuple):
    """What one upload of every sender took.

    Attributes:
        rate: megabytes per second over all senders.
        cpu_seconds: for each upload, of its sender, of the broker and of the receiver.
    """

    rate: float
    cpu_seconds: list[float]


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


class Programs:
    """What plays the roles of each way.

    Args:
        earlier: a folder with pet as it was, and its benchmark; None where it is not needed.
    """

    def __init__(self, earlier: Path | None) -> None:
        self._earlier = earlier

    def start(self, role: str, way: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a process that receives or sends."""
        words, environment = [str(ROLES), role, way], dict(os.environ)
        if way == "earlier":
            assert self._earlier is not None, "built before"
            words = [str(self._earlier / EARLIER_SCRIPT), "--role", role, "direct"]
            environment["PYTHONPATH"] = str(self._earlier)
        command = [sys.executable, *words, *map(str, arguments)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


@contextlib.contextmanager
def programs(ways: list[str], folder: Path | None) -> Iterator[Programs]:
    """Give what plays the roles; builds the older commit if it is asked for."""
    if "earlier" not in ways:
        yield Programs(None)
        return
    with built(OLD_COMMIT, folder) as earlier:
        script = subprocess.run(
            ["git", "show", f"{OLD_COMMIT}:benchmarks/bench_nats.py"], cwd=ROOT, check=True, stdout=subprocess.PIPE
        ).stdout
        (earlier / EARLIER_SCRIPT).write_bytes(script)
        yield Programs(earlier)


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

    def __init__(
        self, way: str, megabytes: int, senders: int, path: Path, roles: Programs, stack: contextlib.ExitStack
    ) -> None:
        self.way = way
        self._bytes = megabytes * 10**6 * senders
        url, self._broker = stack.enter_context(broker())
        self._receiver = kept(roles.start("receive", way, url, megabytes, senders), stack)
        url = hear(self._receiver)
        self._senders = [kept(roles.start("send", way, url, number, path), stack) for number in range(senders)]
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
        if self.way not in SILENT:
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


def kept(process: subprocess.Popen[str], stack: contextlib.ExitStack) -> subprocess.Popen[str]:
    stack.callback(process.communicate)
    stack.callback(process.kill)
    return process


def compare(ways: list[str], megabytes: int, senders: int, repeats: int, roles: Programs) -> list[str]:
    """Use every way in turn, over and over; return lines of a table, and what pet/1 is beside others."""
    with contextlib.ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "body"
        path.write_bytes(os.urandom(megabytes * 10**6))
        lines = [Line(way, megabytes, senders, path, roles, stack) for way in ways]
        for line in lines:
            line.upload()
        runs: dict[str, list[Measured]] = {way: [] for way in ways}
        for _ in range(repeats):
            for line in lines:
                runs[line.way].append(line.upload())
        memory = {line.way: line.end() for line in lines}
    rows = [row(way, senders, runs[way], runs.get("bare"), memory[way]) for way in ways]
    pairs = [(way, other) for way in PET1 for other in BESIDE if way in runs and other in runs]
    return [*rows, *(f"{way} to {other}, {senders} senders: {shares_of(runs[way], runs[other])}" for way, other in pairs)]


def shares_of(runs: list[Measured], others: list[Measured]) -> str:
    """Return how fast a way is beside another one that was used in the same turns: median and range."""
    shares = [run.rate / other.rate for run, other in zip(runs, others, strict=True)]
    return f"{statistics.median(shares):.2f} ({min(shares):.2f}-{max(shares):.2f})"


def row(way: str, senders: int, runs: list[Measured], bare: list[Measured] | None, memory: float) -> str:
    """Return a line of the table."""
    rates = [run.rate for run in runs]
    share = shares_of(runs, bare) if bare else ""
    seconds = [statistics.median(run.cpu_seconds[role] for run in runs) for role in range(3)]
    cells = [way, str(senders), f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})", share]
    cells += [" + ".join(f"{each:.2f}" for each in seconds), "" if way == "http" else f"{memory:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=150)
    parser.add_argument("--senders", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[way for way in WAYS if way not in {"sent", "earlier"}])
    parser.add_argument("--build", type=Path, help="where the older commit is built, or lies already")
    options = parser.parse_args()
    print(
        "| way | senders | MB/s, all senders: median (range) | share of bare: median (range) "
        "| CPU seconds for each upload: sender + broker + receiver | memory of the broker, MB |"
    )
    print("|---|---|---|---|---|---|")
    with programs(options.ways, options.build) as roles:
        for senders in options.senders:
            lines = compare(options.ways, options.megabytes, senders, options.repeats, roles)
            print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
