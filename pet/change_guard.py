"""A note beside a database of how many changes were made to it, which tells a log that lost some from one that never had them.

SQLite takes the first frame with a wrong checksum for the end of its log. It has to, as a crash leaves half a frame behind,
but a flipped bit or a truncation looks the same: acknowledged changes are gone without a word. The note is written after each
change is durable and before anybody hears of it, so a database whose last change is older than the note has lost data.

The note is not synchronised: that would cost as much as the change itself. It survives the process at once, and a loss of power
as soon as the system has written it back. It reaches the disk after the change that it names, so after a loss of power it may
be too old, which hides damage and is harmless otherwise, and never too new. A crash between a change and its note is the same.

It has two places, on pages of their own, used in turn: a write that a loss of power tears leaves the other one. Damage to both
is no crash. Coordinators and federation servers have one each. It does not know what changes say.

Layout of each place: "pet-note", the number of the last change (8 bytes, little-endian), CRC-32 of both.
"""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Final

from pet.errors import StateError
from pet.files import open_private, replace_file

_MAGIC: Final = b"pet-note"
_SEQUENCE_BYTES: Final = 8
_RECORD_BYTES: Final = len(_MAGIC) + _SEQUENCE_BYTES + 4
#: No page of a file system or sector of a disk holds both places.
_PLACE_BYTES: Final = 4096


class Guard:
    """The note, in a file of its own; made if there is none. For the one who has locked the database.

    Args:
        path: the file.

    Attributes:
        sequence: number of the last change that was noted; 0 for none.

    Raises:
        StateError: neither place holds a note.
        OSError: the file cannot be made or read.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        if not path.exists():  # also beside databases of versions that had none
            replace_file(path, [_encode(0).ljust(_PLACE_BYTES, b"\0"), _encode(0)])
        self._file: Final = io.FileIO(open_private(path, os.O_RDWR), "r+")
        try:
            data = self._file.read(2 * _PLACE_BYTES)
            notes = [note for start in (0, _PLACE_BYTES) if (note := _decode(data[start:])) is not None]
            if not notes:
                raise StateError(f"{path}: expected the number of the last change, got damaged bytes")
            self.sequence = max(notes)
        except BaseException:
            self._file.close()
            raise

    def require(self, last: int, database: Path, lost: str) -> None:
        """Check that a database has not lost changes.

        Args:
            last: the number of its last change.
            database: its file, for the error.
            lost: what changes are made of, for the error.

        Raises:
            StateError: the database is older than the note.
        """
        if last < self.sequence:
            raise StateError(
                f"{database}: expected change {self.sequence} to be the last, as {self._path.name} says, got {last}: "
                f"the database or its -wal was damaged, and {lost} are lost"
            )

    def note(self, sequence: int) -> None:
        """Note that a change is durable.

        Raises:
            OSError: it could not be noted.
        """
        if sequence == self.sequence:
            return
        self._file.seek(sequence % 2 * _PLACE_BYTES)
        if self._file.write(_encode(sequence)) != _RECORD_BYTES:
            raise OSError(f"expected to write {_RECORD_BYTES} bytes, wrote fewer")
        self.sequence = sequence

    def close(self) -> None:
        """Close the file. Calling it twice does no harm."""
        self._file.close()


def _encode(sequence: int) -> bytes:
    note = _MAGIC + sequence.to_bytes(_SEQUENCE_BYTES, "little")
    return note + zlib.crc32(note).to_bytes(4, "little")


def _decode(data: bytes) -> int | None:
    """Return the number in a place; None for damaged bytes."""
    sequence = int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + _SEQUENCE_BYTES], "little")
    return sequence if data[:_RECORD_BYTES] == _encode(sequence) else None
