"""A temporary folder that does not outlive its process for long, even if that is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "pet-nats-"


class TemporaryFolder:
    """A folder that goes away when it is closed; what a killed process left goes away when the next one is made.

    Attributes:
        path: of the folder.
    """

    def __init__(self) -> None:
        for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            # One that is somebody else's, is in use or is gone already stays as it is.
            with contextlib.suppress(OSError):
                self._remove_abandoned(left)
        self._folder: Final = tempfile.TemporaryDirectory(prefix=_PREFIX)
        self.path: Final = Path(self._folder.name)
        # Locked before it gets its name, so that nobody can find it unlocked.
        self._lock: Final = os.open(self.path / "unlocked", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.path / "unlocked").rename(self.path / "lock")

    def close(self) -> None:
        """Remove it."""
        self._folder.cleanup()
        os.close(self._lock)

    @staticmethod
    def _remove_abandoned(folder: Path) -> None:
        if folder.lstat().st_uid != os.geteuid():
            return
        lock = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(lock)
