"""Ends a group of processes, and removes a folder, once the process that began them is gone: a SIGKILL lets nobody clean up.

`keeping_orphans` starts this file as a program of its own, in a process group that the others join. Its standard input is a
pipe that the owner alone holds open, so it ends with the owner, however that ends. What the processes are it does not know.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05


@contextlib.contextmanager
def keeping_orphans(folder: Path) -> Iterator[int]:
    """Yield a process group for `subprocess.Popen(process_group=...)`, whose processes end with this one.

    Args:
        folder: what is removed when this process is gone. Who leaves the context removes it, and ends the processes, itself.
    """
    command = [sys.executable, "-I", "-S", __file__, str(folder)]
    with subprocess.Popen(  # noqa: S603  this file
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    ) as keeper:
        try:
            yield keeper.pid
        finally:
            keeper.communicate(b"done")


def _keep(folder: str) -> None:
    """Wait for the end of the owner, and end its processes if it did not say that it has."""
    if sys.stdin.buffer.read():
        return
    group = os.getpgrp()
    if os.fork():
        return  # out of the group, which is empty then when the others are gone
    os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
            deadline = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                os.killpg(group, 0)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _keep(sys.argv[1])
