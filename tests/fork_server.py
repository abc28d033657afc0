"""Programs in Python that need not import anything: `python -c` in copies of a process that has imported it already.

To start an interpreter and to import what a command needs takes most of a second of CPU, to copy a process that has done so
some milliseconds. A copy is a process as any other: with arguments, environment, folder, pipes, signals and an exit status of
its own. Only tests of the start itself need a new interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import hashlib
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NoReturn, Self

#: Runs the command `pet`.
PET: Final = "from pet.cli import main; main()"
#: Runs the program that the first argument names, with the others.
PROGRAM: Final = """
import os, runpy, sys
sys.argv.pop(0)
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
#: What commands that serve or take part import before they do anything.
COMMANDS: Final = (
    "pet.commands._table",
    "pet.commands.coordinator",
    "pet.commands.federation_serve",
    "pet.commands.federation_page",
    "pet.commands.member",
    "pet.commands.test_drive",
    "pet.coordinator.storage.sqlite",
    "pet.participant.test_drive",
    "pet.transports.nats",
)
#: Names the folder in which the processes of a session find each other's servers; without it every process starts its own.
FOLDER: Final = "PET_TESTS_PROGRAMS"
#: What needs no extra.
WITHOUT_EXTRAS: Final = ("pet.cli", "pet.files", "pet.messages", "pet.protocol")


class Fork:
    """A running program, with the part of `subprocess.Popen` that tests use.

    Attributes:
        pid: its process.
        stdout: its output, as text.
        stderr: its errors, as text.
        returncode: None until it has ended and somebody asked; below 0, of the signal that ended it.
    """

    def __init__(self, status: int, stdout: int, stderr: int) -> None:
        self._status = open(status)  # noqa: SIM115 - closed with the others
        self.stdout, self.stderr = open(stdout), open(stderr)  # noqa: SIM115
        self.returncode: int | None = None
        self.pid = int(self._status.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.communicate()

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        if self.returncode is None and not self._status.closed and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status.

        Raises:
            subprocess.TimeoutExpired: it runs for longer.
        """
        if self.returncode is None:
            select.select([self._status], [], [], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what is left of output and errors.

        Raises:
            subprocess.TimeoutExpired: it ran for longer, and has been killed.
        """
        if self._status.closed:
            return "", ""
        with self._status, self.stdout, self.stderr, ThreadPoolExecutor(2) as readers:
            texts = [readers.submit(pipe.read) for pipe in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            finally:
                self.kill()  # otherwise the readers would wait for it
            return texts[0].result(), texts[1].result()


def start(
    code: str,
    *arguments: object,
    imports: tuple[str, ...] = COMMANDS,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
) -> Fork:
    """Start what `python -c code arguments` is.

    Args:
        code: Python.
        imports: modules that are imported already.
        environ: instead of this process's.
        folder: instead of the current one.
        stdin: a file descriptor; without it nothing can be read.
        stdout: a file descriptor in place of the pipe.
    """
    request = {
        "code": code,
        "arguments": [str(argument) for argument in arguments],
        "environ": dict(os.environ if environ is None else environ),
        "folder": str(folder or Path.cwd()),
    }
    with Path(os.devnull).open() as nothing:
        status, output, errors = os.pipe(), os.pipe(), os.pipe()
        given = [nothing.fileno() if stdin is None else stdin, output[1] if stdout is None else stdout, errors[1], status[1]]
        socket.send_fds(_server(imports), [json.dumps(request).encode()], given)
    for _, writing in (status, output, errors):
        os.close(writing)
    return Fork(status[0], output[0], errors[0])


def run(code: str, *arguments: object, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -c code arguments` to its end; options as for `start`."""
    with start(code, *arguments, **options) as process:
        output, errors = process.communicate(timeout)
    assert process.returncode is not None
    return subprocess.CompletedProcess([code, *map(str, arguments)], process.returncode, output, errors)


@functools.cache
def _server(imports: tuple[str, ...]) -> socket.socket:
    """Return a connection to the server that has imported these modules: one for all processes of a session."""
    if FOLDER not in os.environ:
        folder = tempfile.mkdtemp(prefix="pet-programs-")  # of this process alone
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    else:
        folder = os.environ[FOLDER]
    place = Path(folder, hashlib.sha256(repr(imports).encode()).hexdigest()[:16])
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection = _connect(place) or _start_server(place, imports)
    atexit.register(connection.close)  # before what was registered earlier: the wait for the server's end
    return connection


def _connect(place: Path) -> socket.socket | None:
    """Return a connection to a server that has answered, or None: there is none, or it has just ended."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(place))
        answer = connection.recv(1)
    except OSError:
        answer = b""
    if not answer:
        connection.close()
        return None
    return connection


def _start_server(place: Path, imports: tuple[str, ...]) -> socket.socket:
    """Start a server, which ends with the last connection."""
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(place))
        listener.listen(64)
        command = [sys.executable, __file__, str(listener.fileno()), *imports]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])

    def wait() -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # others of the session still use it
            process.wait(30)

    atexit.register(wait)
    connection = _connect(place)
    assert connection is not None, f"a server that imports {imports} ended"
    return connection


def _serve() -> dict[str, Any]:
    """Return, in a copy of this process, what a request asks to run there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the tests
    listener = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()
    connections: list[socket.socket] = []
    while True:
        for ready in select.select([listener, *connections], [], [])[0]:
            if ready is listener:
                connections.append(listener.accept()[0])
                connections[-1].send(b".")
                continue
            message, descriptors, _, _ = socket.recv_fds(ready, 2**20, 4)
            if not message:
                connections.remove(ready)
                ready.close()
                if not connections:
                    os._exit(0)
                continue
            if not os.fork():
                for each in (listener, *connections):
                    each.close()
                _fork_and_report(*descriptors)
                _become(request := json.loads(message), descriptors[:-1])
                return request
            for descriptor in descriptors:
                os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _fork_and_report(*descriptors: int) -> None:
    """Return in a copy of this process, whose number and exit status this one writes."""
    child = os.fork()
    *streams, status = descriptors
    if not child:
        os.close(status)
        return
    for descriptor in streams:
        os.close(descriptor)
    os.write(status, f"{child}\n".encode())
    os.write(status, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Be as an interpreter that was started with all of it."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open until the process ends, as the others
    is_unbuffered = bool(request["environ"].get("PYTHONUNBUFFERED"))
    sys.stdout = open(1, "w", closefd=False, buffering=1 if is_unbuffered else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["environ"])
    os.chdir(request["folder"])
    sys.argv = ["-c", *request["arguments"]]
    sys.path[0] = ""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(status: int) -> NoReturn:
    """End as an interpreter does, but take nothing apart: that would copy all the memory, a twentieth of a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    code = _serve()["code"]
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        _end(int(end.code or 0))
    _end(0)
