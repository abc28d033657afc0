"""Files that survive a loss of power, and that only their owner can read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pet.mask_codec import Buffer
from pet.transports.body import sync_folder

__all__ = ["make_private_folder", "sync_folder", "write_durably"]


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can look into; one that is there already becomes so."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def write_durably(path: Path, parts: Iterable[Buffer]) -> int:
    """Write a file and wait until its bytes are on the disk; its name is after `sync_folder`. Returns its size."""
    with open(path, "wb", opener=_open_private) as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
