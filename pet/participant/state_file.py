"""A file that holds a participant's state, so that a restart in the middle of a round goes on with it.

The state is written whenever a step changed it and before the next step, so what was signed is on the disk before it is sent.
It contains **secret keys in clear**: the file is readable by its owner only. A file of the previous state is replaced in one
step, and a lock keeps a second process from signing under the same key. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from pet.errors import StateError
from pet.transports.body import create_private, sync_folder


class StateFile:
    """One participant's state on disk.

    Args:
        path: the file; its folder must exist. Beside it lie a lock and, while it is written, the next state.

    Raises:
        StateError: another process uses the file, or it cannot be used.
    """

    def __init__(self, path: Path | str) -> None:
        self.path: Final = Path(path)
        self._next_path: Final = self.path.with_name(self.path.name + ".next")
        self._last: bytes | None = None
        try:
            self._lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"state file: expected a folder that can be written, got {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StateError(f"state file: expected to be its only user, got {self.path}, which another process uses") from None

    def load(self) -> bytes | None:
        """Return the last state that was saved; None if there is none.

        Raises:
            StateError: the file cannot be read, or others may read it.
        """
        try:
            mode = self.path.stat().st_mode
            state = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"state file: expected to read {self.path}: {error.strerror}") from None
        if mode & 0o077:
            raise StateError(f"state file: expected {self.path} to be its owner's only (mode 600), got mode {mode & 0o777:o}")
        self._last = state
        return state

    def save(self, state: bytes) -> None:
        """Replace the state; when this returns, it is on the disk.

        Raises:
            StateError: it cannot be written; the previous one is still there.
        """
        if state == self._last:
            return
        try:
            self._next_path.unlink(missing_ok=True)
            with create_private(self._next_path) as file:
                file.write(state)
                file.flush()
                os.fsync(file.fileno())
            self._next_path.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise StateError(f"state file: expected to write {self.path}: {error.strerror}") from None
        self._last = state

    def close(self) -> None:
        """Let others use the file; calling it twice does no harm."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                os.close(self._lock)
            self._lock = -1
