"""A file that holds a participant's state, so that a restart in the middle of a round goes on with it.

The state is written whenever a step changed it and before the next step, so what was signed is on the disk before it is sent.
It contains **secret keys in clear**: the file is readable by its owner only. A file of the previous state is replaced in one
step, and a lock keeps a second process from signing under the same key. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pet.errors import StateError
from pet.files import FileLock, read_private, remove_unfinished, replace_file, shown_fault


class StateFile:
    """One participant's state on disk.

    Args:
        path: the file; its folder must exist. Beside it lie a lock and, while it is written, the next state.

    Raises:
        StateError: another process uses the file, or it cannot be used.
    """

    def __init__(self, path: Path | str) -> None:
        self.path: Final = Path(path)
        self._last: bytes | None = None
        try:
            self._lock: Final = FileLock(self.path.with_name(f"{self.path.name}.lock"))
        except BlockingIOError:
            raise StateError(f"state file: expected to be its only user, got {self.path}, which another process uses") from None
        except OSError as error:
            raise _fault(error, self.path, "a folder that can be written") from None
        self._remove_unfinished()

    def load(self) -> bytes | None:
        """Return the last state that was saved; None if there is none.

        Raises:
            StateError: the file cannot be read, or others may read it.
        """
        try:
            state = read_private(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault(error, self.path, "to read it") from None
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
            replace_file(self.path, [state])
        except OSError as error:
            raise _fault(error, self.path, "to write it") from None
        self._last = state

    def close(self) -> None:
        """Let others use the file; calling it twice does no harm."""
        self._lock.close()

    def _remove_unfinished(self) -> None:
        """Remove what a crash left: secret keys, which the next states would no longer overwrite."""
        try:
            remove_unfinished(self.path)
            self.path.with_name(f"{self.path.name}.next").unlink(missing_ok=True)  # as version 0.1.0 named it
        except OSError as error:
            self.close()
            raise _fault(error, self.path, "a folder that can be written") from None


def _fault(error: OSError, path: Path, expected: str) -> StateError:
    return StateError(f"state file: {shown_fault(error, path, expected)}")
