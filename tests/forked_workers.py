"""Workers of a session (`pytest -n`) as copies of one process that has imported all tests already.

A worker that starts as an interpreter imports all that any test file imports, ten seconds of CPU and more; a copy collects
what is there. One worker of a session starts as before, beside the process that is copied: values of parameters that depend on
the process, or on its hashes, still differ between two (tests/test_collection.py).

A worker is started as execnet starts any interpreter, with a command of its own: it hands its streams, and the code that it
would run, to the process that is copied, and stays until that copy has ended.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

#: For the worker that imports all tests itself: another process does so too.
HALVES = "PET_TESTS_IMPORTED_IN_HALVES"


def can_copy() -> bool:
    """Return whether this system copies processes, and lets their end be waited for beside other things."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # another system than Linux; an older one, or a sandbox
        return False
    return True


def start_server(place: Path, folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start the process that is copied; it ends when its standard input does, and the last copy.

    Args:
        place: of the socket that it listens at.
        folder: in which the session was started.
        arguments: of the session.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(64)
        command = [sys.executable, __file__, "serve", str(listener.fileno()), *arguments]
        return subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])


def command_of(place: Path) -> tuple[str, ...]:
    """Return the command of a worker, without the code that it is to run."""
    return sys.executable, "-I", "-S", __file__, "ask", str(place)


def ask(place: str, code: str) -> None:
    """Be a worker, by way of a copy; end when it ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(place)
        socket.send_fds(connection, [code.encode()], [0, 1, 2])
        for stream in (0, 1):
            os.close(stream)  # the end of the copy then ends what it writes to
        connection.recv(1)


def serve(listener: socket.socket, arguments: list[str]) -> str:
    """Import all tests; then return, in each copy, the code that it is to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workers
    import_tests(arguments)
    copies: dict[int | socket.socket, Copy] = {}  # by both of what is readable when one of its two processes has ended
    waiting: set[int | socket.socket] = {0, listener}
    while copies or 0 in waiting:
        for ready in select.select([*waiting, *copies], [], [])[0]:
            if ready == 0:
                waiting.clear()
            elif ready is listener:
                connection, _ = listener.accept()
                code, streams, _, _ = socket.recv_fds(connection, 2**16, 3)
                if not (process := os.fork()):
                    become(streams)
                    return code.decode()
                for stream in streams:
                    os.close(stream)
                copy = Copy(process, os.pidfd_open(process), connection)
                copies |= {copy.end: copy, connection: copy}
            elif ended := copies.get(ready):
                del copies[ended.end], copies[ended.connection]
                ended.close()
    os._exit(0)


@dataclass(frozen=True)
class Copy:
    """A worker, and the connection to who asked for it."""

    process: int
    end: int
    connection: socket.socket

    def close(self) -> None:
        """Let neither process outlive the other."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.end)
        self.connection.close()


def import_tests(arguments: list[str]) -> None:
    """Import what a session collects, and show nothing: workers report what cannot be imported, as they try again."""
    import pytest

    shown = [os.dup(1), os.dup(2)]
    with Path(os.devnull).open("w") as nothing:
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)
    pytest.main([*arguments, "-n0", "--collect-only", "-qqq"], plugins=[Copied()])
    sys.stdout.flush()
    for stream, kept in zip((1, 2), shown, strict=True):
        os.dup2(kept, stream)
        os.close(kept)
    if "sources" in sys.modules:  # some test reads syntax trees: here they are parsed for all copies
        sys.modules["sources"].trees()


class Copied:
    """The plugin of the process that is copied: files are imported, and nothing is made of what is in them.

    pytest notes in the marks of a test which names it gave to parameters, and would escape them once more in a copy.
    """

    def pytest_pycollect_makeitem(self, obj: object) -> list[pytest.Item] | None:
        """Return no test but those of properties, unless they have parameters.

        Where there is one hypothesis reads the constants of the whole package, a second of CPU in a fresh clone: here for all
        copies.
        """
        from hypothesis import is_hypothesis_test

        return None if is_hypothesis_test(obj) and not hasattr(obj, "pytestmark") else []


def is_copied(config: pytest.Config) -> bool:
    """Return whether this process only imports tests, to be copied."""
    return any(type(plugin).__name__ == Copied.__name__ for plugin in config.pluginmanager.get_plugins())


def become(streams: list[int]) -> None:
    """Be as an interpreter that was started with these streams."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open until the process ends, as the others
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = ["-c"]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(code: str) -> None:
    """Run what a worker is, and end without taking apart what is shared with other copies: that would copy all of it."""
    status = 0
    try:
        exec(code, vars(sys.modules["__main__"]))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(sys.argv[2], sys.argv[-1])
    else:
        run(serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3:]))
