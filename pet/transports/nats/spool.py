"""Where the chunks of an upload are put until it is whole: small ones in memory, large ones in a file.

In a folder that was chosen for it, files outlive this process, small ones too: beside the data stands what the upload is, with
one bit for each chunk that is there. Every chunk is written once, whatever comes how often and in which order. Calls may block
and belong into a worker thread.

Source: docs/spec/federation.md 5.4.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

from pet.bodies.body import MemoryBody, SealedBody
from pet.errors import RemoteProtocolError
from pet.files import TemporaryFolder, create_private, link_or_copy, make_folder, open_private
from pet.transports.nats.frames import ChunkHeader, UploadOffer, has_bit, set_bit

#: A file that nobody has written to for this long belongs to a sender that has given up.
ABANDONED_SECONDS: Final = 3600.0
#: Uploads up to this size are kept in memory, unless they have to outlive the process.
SMALL_BYTES: Final = 2**20
#: As many as are received at the same time.
_SPARE_FILES: Final = 8
_DIGEST_STEP_BYTES: Final = 2**20
#: The offer in a note, padded; the bitmap follows.
_NOTE_BYTES: Final = 1024
#: The temporary folders of all processes; what a killed one left is found by it.
_FOLDER_PREFIX: Final = "pet-nats-"


class _Store(Protocol):
    """The bytes of one upload."""

    def write(self, start: int, data: memoryview) -> None: ...
    def read(self, start: int, size: int) -> bytes | memoryview: ...
    def keep_bitmap(self, bitmap: bytearray) -> None: ...
    def to_body(self) -> SealedBody: ...
    def close(self) -> None: ...
    def discard(self) -> None: ...


class UploadSpool:
    """The chunks of one upload that are there so far.

    Attributes:
        offer: what the upload is.
        bitmap: which chunks are there.
    """

    def __init__(self, offer: UploadOffer, store: _Store, bitmap: bytearray) -> None:
        self.offer: Final = offer
        self.bitmap: Final = bitmap
        self._store: Final = store
        self._missing = offer.chunk_count - sum(byte.bit_count() for byte in bitmap)
        self._digest: Final = hashlib.sha256()
        self._digested = 0

    @property
    def is_whole(self) -> bool:
        """Whether every chunk is there."""
        return self._missing == 0

    def end_of(self, index: int) -> int:
        """Return where a chunk ends in the upload, in bytes."""
        return index * self.offer.chunk_bytes + self.offer.chunk_size(index)

    def require_place(self, header: ChunkHeader, data: memoryview) -> None:
        """Check that a chunk belongs here.

        Raises:
            RemoteProtocolError: it belongs to another upload or has another size (reason "foreign_chunk").
        """
        offer = self.offer
        mine = (offer.upload_id, offer.chunk_count, offer.size_bytes)
        if (header.upload_id, header.count, header.size_bytes) != mine or len(data) != offer.chunk_size(header.index):
            raise RemoteProtocolError(
                "foreign_chunk",
                f"chunk {header.index}: expected one of this upload, got {len(data)} of {header.size_bytes} bytes",
            )

    def write(self, chunks: Iterable[tuple[int, memoryview]]) -> list[tuple[int, memoryview]]:
        """Put chunks, each with its index, in their places; one that is there already stays as it is.

        Returns:
            Those that are new.
        """
        bitmap, new = bytearray(self.bitmap), []
        for index, data in chunks:
            if not has_bit(bitmap, index):
                self._store.write(index * self.offer.chunk_bytes, data)
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
        while self._digested < self.offer.chunk_count and has_bit(self.bitmap, self._digested):
            start, end = self._digested * self.offer.chunk_bytes, self.end_of(self._digested)
            for step in range(start, end, _DIGEST_STEP_BYTES):
                self._digest.update(self._store.read(step, min(_DIGEST_STEP_BYTES, end - step)))
            self._digested += 1

    def take(self, sha256: bytes) -> SealedBody | None:
        """Return the whole upload, or None if it has another digest. Closing the body discards the spool."""
        self.digest_more()
        if not hmac.compare_digest(self._digest.digest(), sha256):
            return None
        return self._store.to_body()

    def close(self) -> None:
        """Stop using it. A file stays, for when the sender goes on; memory does not."""
        self._store.close()

    def discard(self) -> None:
        """Give back memory, or delete the file."""
        self._store.discard()


class _Memory:
    """A buffer."""

    def __init__(self, size_bytes: int) -> None:
        self._data = bytearray(size_bytes)

    def write(self, start: int, data: memoryview) -> None:
        self._data[start : start + len(data)] = data

    def read(self, start: int, size: int) -> memoryview:
        return memoryview(self._data)[start : start + size]

    def keep_bitmap(self, bitmap: bytearray) -> None:
        """Do nothing: it is in memory."""

    def to_body(self) -> SealedBody:
        return MemoryBody(self._data)

    def close(self) -> None:
        self._data = bytearray()

    discard = close


class _File:
    """The data in one file, offer and bitmap in a note beside it."""

    def __init__(self, path: Path, size_bytes: int, spares: _Spares) -> None:
        self._path, self._size_bytes, self._spares = path, size_bytes, spares
        flags = os.O_RDWR | os.O_CREAT
        self._file = open_private(path, flags)
        self._note = open_private(_note_of(path), flags)

    def write(self, start: int, data: memoryview) -> None:
        while len(data):
            written = os.pwrite(self._file, data, start)
            start, data = start + written, data[written:]

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self._file, size, start)

    def keep_bitmap(self, bitmap: bytearray) -> None:
        os.pwrite(self._note, bitmap, _NOTE_BYTES)

    def to_body(self) -> SealedBody:
        return _FileBody(self._path, self._size_bytes, self, self._spares)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            os.close(self._note)
            self._file = self._note = -1

    def discard(self) -> None:
        self.close()
        _note_of(self._path).unlink(missing_ok=True)
        self._spares.take_back(self._path)


class _Spares:
    """Files and a buffer that are used again: pages that were never touched cost more than what is done with them."""

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self._lock: Final = threading.Lock()
        self._free: Final[list[Path]] = []
        self._count = 0
        self._buffer = bytearray()
        for left in folder.glob("*.spare"):
            left.unlink(missing_ok=True)

    def lend(self, path: Path) -> None:
        """Put a used file in the place of one that is to be made, if there is one. What is in it does not count."""
        with self._lock:
            if self._free:
                self._free.pop().rename(path)

    def take_back(self, path: Path) -> None:
        """Keep a file for the next upload, unless it has another name too, or there are enough."""
        with self._lock:
            try:
                if len(self._free) < _SPARE_FILES and path.stat().st_nlink == 1:
                    self._count += 1
                    self._free.append(path.rename(self._folder / f"{self._count}.spare"))
                    return
            except FileNotFoundError:
                return
        path.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete the files."""
        with self._lock:
            while self._free:
                self._free.pop().unlink(missing_ok=True)

    def lend_buffer(self, size_bytes: int) -> bytearray:
        """Return a buffer of at least this size, with anything in it."""
        with self._lock:
            buffer, self._buffer = self._buffer, bytearray()
        return buffer if len(buffer) >= size_bytes else bytearray(size_bytes)

    def take_back_buffer(self, buffer: bytearray) -> None:
        """Keep a buffer for the next upload, unless somebody still looks at it."""
        try:
            # A bytearray refuses to change its length while there is a view of it.
            buffer.append(0)
            buffer.pop()
        except BufferError:
            return
        with self._lock:
            self._buffer = buffer


class _FileBody:
    """A `SealedBody` in the file of a spool, which goes away with it."""

    def __init__(self, path: Path, size_bytes: int, store: _File, spares: _Spares) -> None:
        self.size_bytes: Final = size_bytes
        self._path: Final = path
        self._store: Final = store
        self._spares: Final = spares

    @contextlib.contextmanager
    def open(self) -> Iterator[memoryview]:
        """Read the bytes into a buffer and lend it."""
        buffer = self._spares.lend_buffer(self.size_bytes)
        view = memoryview(buffer)[: self.size_bytes]
        with self._path.open("rb", buffering=0) as file:
            filled = 0
            while filled < len(view) and (count := file.readinto(view[filled:])):
                filled += count
        if filled < len(view):
            raise OSError(f"spooled upload: expected {len(view)} bytes, got {filled}")
        try:
            yield view
        finally:
            with contextlib.suppress(BufferError):
                view.release()
        self._spares.take_back_buffer(buffer)

    def keep(self, path: Path) -> None:
        """Write the bytes to the disk and give them another name; within one file system nothing is copied."""
        with self._path.open("r+b") as file:
            file.truncate(self.size_bytes)  # it may have held a larger upload before
            os.fsync(file.fileno())
        link_or_copy(self._path, path)

    def close(self) -> None:
        """Delete the file."""
        self._store.discard()


class SpoolRoom:
    """All spools of a receiver.

    Args:
        folder: for files that outlive this process; made if it is missing. None means a temporary one, for large uploads only.
    """

    def __init__(self, folder: Path | None) -> None:
        self._temporary: TemporaryFolder | None = None
        if folder is None:
            self._temporary = TemporaryFolder(_FOLDER_PREFIX)
            folder = self._temporary.path
        self._folder: Final = folder
        make_folder(self._folder)
        self._spares: Final = _Spares(self._folder)

    @property
    def is_durable(self) -> bool:
        """Whether uploads go on after a restart of this process."""
        return self._temporary is None

    def open(self, peer: str, offer: UploadOffer) -> UploadSpool:
        """Make a spool, or go on with what there is of the very same upload.

        Raises:
            OSError: the file cannot be written.
        """
        empty = bytearray(-(-offer.chunk_count // 8))
        if not self.is_durable and offer.size_bytes <= SMALL_BYTES:
            return UploadSpool(offer, _Memory(offer.size_bytes), empty)
        path = self._folder / f"{peer}-{offer.upload_id.hex()}.upload"
        kept = _read_note(path)
        # The sender may say another chunk size now; what is there decides.
        if kept is not None and (kept[0].size_bytes, kept[0].sha256) == (offer.size_bytes, offer.sha256):
            return UploadSpool(kept[0], _File(path, offer.size_bytes, self._spares), kept[1])
        path.unlink(missing_ok=True)
        self._spares.lend(path)
        _note_of(path).unlink(missing_ok=True)
        with create_private(_note_of(path)) as note:
            note.write(offer.to_bytes().ljust(_NOTE_BYTES) + empty)
        return UploadSpool(offer, _File(path, offer.size_bytes, self._spares), empty)

    def restore(self) -> Iterator[tuple[str, UploadSpool]]:
        """Yield sender and spool of each upload that an earlier process left; removes those that were given up."""
        for path in sorted(self._folder.glob("*.upload")):
            kept = _read_note(path)
            if kept is None or time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                for stale in (_note_of(path), path):
                    stale.unlink(missing_ok=True)
            else:
                yield path.stem.rpartition("-")[0], UploadSpool(kept[0], _File(path, kept[0].size_bytes, self._spares), kept[1])

    def close(self) -> None:
        """Remove the folder, if it is a temporary one, and files that wait to be used again."""
        self._spares.close()
        if self._temporary is not None:
            self._temporary.close()


def _note_of(path: Path) -> Path:
    return path.with_suffix(".note")


def _read_note(path: Path) -> tuple[UploadOffer, bytearray] | None:
    """Read offer and bitmap of an upload; None if there are none that can be used."""
    with contextlib.suppress(OSError, RemoteProtocolError):
        note = _note_of(path).read_bytes()
        offer = UploadOffer.from_bytes(note[:_NOTE_BYTES])
        size = -(-offer.chunk_count // 8)
        if path.exists() and len(note) == _NOTE_BYTES + size:
            return offer, bytearray(note[_NOTE_BYTES:])
    return None
