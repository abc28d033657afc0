"""Coordinators that run for a benchmark: started by any command with a settings file of their own, watched through /proc.

Used by beside_another_coordinator.py, whose documentation says what a command is. Linux only.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pet.messages import RoundParameters

#: Understood by xaynet as well; what is left out there, it needs.
SETTINGS = """
[log]
filter = "warn"
[api]
bind_address = "127.0.0.1:{port}"
[pet.sum]
prob = 0.5
count = {{ min = {sums}, max = {sums} }}
time = {{ min = 0, max = 3600 }}
[pet.update]
prob = 1.0
count = {{ min = {updates}, max = {updates} }}
time = {{ min = 0, max = 3600 }}
[pet.sum2]
count = {{ min = {masks}, max = {masks} }}
time = {{ min = 0, max = 3600 }}
[mask]
group_type = "Prime"
data_type = "F32"
bound_type = "B0"
model_type = "M6"
[model]
length = {length}
[restore]
enable = false
[metrics.influxdb]
url = "http://127.0.0.1:8086"
db = "metrics"
"""
REDIS = '\n[redis]\nurl = "redis://127.0.0.1:{port}/0"\n'
ENVIRONMENT = {"PET__SERVICE__MAX_REQUESTS_PER_SECOND": "1000000000"}
#: How long a coordinator may take for anything at all.
PATIENCE_SECONDS = 600
POLL_SECONDS = 0.005


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """Return what a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_megabytes(pid: int) -> float:
    """Return the most memory that a process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


class Coordinator:
    """One coordinator that runs, and a connection to ask it what is not measured."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, log: Path, redis_pid: int | None) -> None:
        self.name, self.port = name, port
        self.redis_pid = redis_pid
        self._process, self._log = process, log
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        self.last_parameters = b""

    def cpu(self) -> tuple[float, float]:
        """Return the CPU seconds of the coordinator, and of its redis-server."""
        return cpu_seconds(self._process.pid), 0.0 if self.redis_pid is None else cpu_seconds(self.redis_pid)

    def peak_megabytes(self) -> float:
        """Return the most memory that the coordinator ever had resident."""
        return peak_megabytes(self._process.pid)

    def get(self, path: str) -> bytes | None:
        """Return a body; None for any answer but 200, and while nobody answers."""
        try:
            self._connection.request("GET", path)
            answer = self._connection.getresponse()
            body = answer.read()
            return body if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            self._connection.close()
            if self._process.poll() is not None:
                raise SystemExit(f"{self.name}: ended\n{self._log.read_text()[-2000:]}") from None
            return None

    def wait_for(self, path: str, is_wanted: Any = bool) -> bytes:
        """Ask until there is an answer that is wanted."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            body = self.get(path)
            if body is not None and is_wanted(body):
                return body
            time.sleep(POLL_SECONDS)
        raise SystemExit(f"{self.name}: GET {path} did not answer with what was waited for\n{self._log.read_text()[-2000:]}")

    def next_round(self) -> RoundParameters:
        """Wait for another round than the last one, and return its parameters."""
        self.last_parameters = self.wait_for("/params", lambda body: body != self.last_parameters)
        return RoundParameters.from_bytes(self.last_parameters)


@contextlib.contextmanager
def started(commands: list[str], numbers: dict[str, int], redis_options: str, folder: Path) -> Iterator[list[Coordinator]]:
    """Start all coordinators, and the redis-servers of those that want one.

    Args:
        commands: NAME=COMMAND of each.
        numbers: what the settings say: sums, updates, masks and length.
        redis_options: more arguments for redis-server.
        folder: where everything lies.
    """
    processes: list[subprocess.Popen[bytes]] = []
    coordinators: list[Coordinator] = []
    try:
        for argument in commands:
            name, _, command = argument.partition("=")
            own, port, redis_pid = folder / name, free_port(), None
            own.mkdir()
            settings, log = own / "settings.toml", own / "log.txt"
            text = SETTINGS.format(port=port, **numbers)
            if "{redis_settings}" in command:
                redis_port, options = free_port(), shlex.split(redis_options)
                redis = ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(own), "--save", ""]
                processes.append(subprocess.Popen([*redis, *options], stdout=subprocess.DEVNULL))
                redis_pid, text = processes[-1].pid, text + REDIS.format(port=redis_port)
                wait_for_port(redis_port)
            settings.write_text(text)
            command = command.replace("{redis_settings}", str(settings)).replace("{settings}", str(settings))
            with log.open("wb") as output:
                processes.append(start(command, own, output))
            coordinators.append(Coordinator(name, processes[-1], port, log, redis_pid))
        yield coordinators
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()


def start(command: str, folder: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a coordinator in a folder of its own."""
    words = shlex.split(command)
    words[0] = str(Path(words[0]).absolute()) if "/" in words[0] else words[0]
    return subprocess.Popen(
        words, cwd=folder, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    )


def wait_for_port(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise SystemExit(f"port {port}: expected a redis-server, got none")
