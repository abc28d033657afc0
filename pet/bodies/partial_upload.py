"""An upload that comes in numbered chunks, in any order and again after a break, and where its bytes lie meanwhile.

Every chunk is written once, whatever comes how often and in which order. Calls may block and belong into a worker thread.
Where uploads lie, and the room that they take, is for upload_folder.py.

What an upload is, and how it came, is not known here: `UploadPlan` is all that is asked of it.

Source: docs/spec/federation.md 5.4.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from pet.bodies.body import MemoryBody, SealedBody
from pet.bodies.spool import Spool, write_all
from pet.files import open_private

_DIGEST_STEP_BYTES: Final = 2**20
#: The plan in a note, padded; the bitmap follows.
NOTE_BYTES: Final = 1024


class UploadPlan(Protocol):
    """What an upload is, and how it is divided."""

    @property
    def upload_id(self) -> bytes:
        """The same again for the same upload."""
        ...

    @property
    def size_bytes(self) -> int:
        """Of the whole."""
        ...

    @property
    def chunk_bytes(self) -> int:
        """In each chunk but the last."""
        ...

    @property
    def chunk_count(self) -> int:
        """At least one."""
        ...

    @property
    def sha256(self) -> bytes:
        """Digest of the whole; empty if it is not known yet."""
        ...

    def chunk_size(self, index: int) -> int:
        """Return the bytes in one chunk."""
        ...

    def to_bytes(self) -> bytes:
        """Return it in at most 1024 bytes without trailing spaces."""
        ...


Plan = TypeVar("Plan", bound=UploadPlan)


def has_bit(bitmap: bytes | bytearray, index: int) -> bool:
    """Return whether a chunk is there; chunks beyond the bitmap are not."""
    return index // 8 < len(bitmap) and bool(bitmap[index // 8] & (0x80 >> index % 8))


def set_bit(bitmap: bytearray, index: int) -> None:
    """Note that a chunk is there."""
    bitmap[index // 8] |= 0x80 >> index % 8


class PartialUpload(Generic[Plan]):
    """The chunks of one upload that are there so far.

    Attributes:
        plan: what the upload is.
        bitmap: which chunks are there.
    """

    def __init__(self, plan: Plan, store: UploadMemory | UploadFile, bitmap: bytearray) -> None:
        self.plan: Final = plan
        self.bitmap: Final = bitmap
        self._store: Final = store
        self._missing = plan.chunk_count - sum(byte.bit_count() for byte in bitmap)
        self._digest: Final = hashlib.sha256()
        self._digested = 0

    @property
    def is_whole(self) -> bool:
        """Whether every chunk is there."""
        return self._missing == 0

    def write(self, chunks: Iterable[tuple[int, memoryview]]) -> list[tuple[int, memoryview]]:
        """Put chunks, each with its index, in their places; one that is there already stays as it is.

        Returns:
            Those that are new.

        Raises:
            OSError: they cannot be written.
        """
        bitmap, new = bytearray(self.bitmap), []
        for index, data in chunks:
            if not has_bit(bitmap, index):
                self._store.write(index * self.plan.chunk_bytes, data)
                set_bit(bitmap, index)
                new.append((index, data))
        # After the data: a bit that is set must never promise more than there is.
        self._store.keep_bitmap(bitmap)
        self.bitmap[:] = bitmap
        self._missing -= len(new)
        return new

    def digest_more(self, index: int = -1, data: memoryview | None = None) -> None:
        """Digest what is there without a gap, so that little is left to do at the end.

        Args:
            index: of a chunk that was just written.
            data: its bytes, which then need not be read again.
        """
        if data is not None and index == self._digested:
            self._digest.update(data)
            self._digested += 1
        while self._digested < self.plan.chunk_count and has_bit(self.bitmap, self._digested):
            start = self._digested * self.plan.chunk_bytes
            end = start + self.plan.chunk_size(self._digested)
            for step in range(start, end, _DIGEST_STEP_BYTES):
                self._digest.update(self._store.read(step, min(_DIGEST_STEP_BYTES, end - step)))
            self._digested += 1

    def take(self, sha256: bytes) -> SealedBody | None:
        """Return the whole upload, or None if it has another digest. Closing the body discards the upload."""
        self.digest_more()
        if not hmac.compare_digest(self._digest.digest(), sha256):
            return None
        return self._store.to_body()

    def close(self) -> None:
        """Stop using it. A file that outlives the process stays, for when the sender goes on."""
        self._store.close()

    def discard(self) -> None:
        """Give back memory, or delete the file."""
        self._store.discard()


class UploadMemory:
    """A buffer, made with the first chunk."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes: Final = size_bytes
        self._data = bytearray()

    def write(self, start: int, data: memoryview) -> None:
        """Put bytes where they belong."""
        if not self._data:
            self._data = bytearray(self._size_bytes)
        self._data[start : start + len(data)] = data

    def read(self, start: int, size: int) -> memoryview:
        """Return bytes that are there."""
        return memoryview(self._data)[start : start + size]

    def keep_bitmap(self, bitmap: bytearray) -> None:
        """Do nothing: it is in memory."""

    def to_body(self) -> SealedBody:
        """Return all bytes; closing the body discards them."""
        return MemoryBody(self._data)

    def close(self) -> None:
        """Give the memory back."""
        self._data = bytearray()

    discard = close


class UploadFile:
    """The data in a file of the spool; if that has a name, plan and bitmap are in a note beside it."""

    def __init__(self, spool: Spool, size_bytes: int, path: Path | None) -> None:
        self._spool: Final = spool
        self._size_bytes: Final = size_bytes
        self._path: Final = path
        self._body: Final = spool.open_upload(size_bytes, None if path is None else (path, note_of(path)))
        self._note = None if path is None else io.FileIO(open_private(note_of(path), os.O_WRONLY), "w")

    def write(self, start: int, data: memoryview) -> None:
        """Put bytes where they belong."""
        self._body.write_at(start, data)

    def read(self, start: int, size: int) -> bytearray:
        """Return bytes that are there."""
        return self._body.read_at(start, size)

    def keep_bitmap(self, bitmap: bytearray) -> None:
        """Write down which chunks are there."""
        if self._note is not None:
            self._note.seek(NOTE_BYTES)
            write_all(self._note, memoryview(bitmap))

    def to_body(self) -> SealedBody:
        """Return all bytes; closing the body discards them."""
        self._close_note()
        return self._body

    def close(self) -> None:
        """Stop using it; a file with a name stays, and counts until room is needed."""
        self._close_note()
        if self._path is not None and self._path.exists():
            self._spool.leave(self._path, note_of(self._path), self._size_bytes)
        self._body.stop_using()

    def discard(self) -> None:
        """Delete everything."""
        self._close_note()
        self._body.close()

    def _close_note(self) -> None:
        if self._note is not None:
            self._note.close()


def note_of(path: Path) -> Path:
    """Return the note beside the file of an upload."""
    return path.with_suffix(".note")
