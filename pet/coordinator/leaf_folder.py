"""Leaves of updates of pet/1 in files: one for each upload, in a folder of their own.

A leaf lies at its place in the file, and behind it a mark: its size and a checksum. One sync makes both durable, of all leaves
of a piece, so after a loss of power a mark may be there without its leaf. Nobody relies on such a leaf: an update is counted
only once an entry of its round says that all its leaves were synced, and what is found of other updates is compared with the
digests that were signed, when its sender opens it again.

A file is never larger than a vector and 4 KiB for each leaf of it. There is at most one for each participant that the enrolment
lists and the round selects, and in a round that a coordinator was restarted in, one more for each restart. To give the room of
large files back takes the system a while, which nobody waits for: dropped ones are renamed, and removed in a thread.

Any thread may call this, several at a time. It knows no round.

Source: docs/spec/profile.md 7.3, 14.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from pet.errors import StateError, StorageError
from pet.files import FileLock, begin_writing, make_private_folder, open_private, shown_fault, sync_data, sync_folder
from pet.kernels.digests import crc32
from pet.pet1.hashes import DIGEST_BYTES
from pet.pet1.leaves import LEAF_BYTES

#: From one leaf to the next: whole pages, so that no leaf shares one with the mark of another.
_STRIDE: Final = LEAF_BYTES + 4096
_MARK: Final = struct.Struct("<4sII")
_MARK_MAGIC: Final = b"leaf"
_SUFFIX: Final = ".leaves"
#: Of files that are dropped, and not removed yet.
_DROPPED_SUFFIX: Final = ".dropped"
_LOCK_NAME: Final = "lock"
_KNOWN_PATHS: Final = 64


class FolderLeafStore:
    """`LeafStore` in a folder.

    Args:
        folder: made if it does not exist; only its owner can read it.

    Raises:
        StorageError: the folder cannot be used, or another coordinator uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.description: Final = str(folder)
        self._folder: Final = folder
        self._mutex: Final = threading.Lock()
        #: The leaves of each upload, as far as somebody asked for them: of what an earlier process left, only names are read.
        self._held: Final[dict[bytes, set[int] | None]] = {}
        #: The uploads whose files have durable names.
        self._named: Final[set[bytes]] = set()
        # Of the files that leaves are written to now: a path takes longer to make than a file to open.
        self._path_of: Final = lru_cache(_KNOWN_PATHS)(lambda upload: folder / f"{upload.hex()}{_SUFFIX}")
        self._remover: Final = ThreadPoolExecutor(1, thread_name_prefix="pet-leaves")
        try:
            make_private_folder(folder)
            self._lock: Final = FileLock(folder / _LOCK_NAME)
            for path in folder.glob(f"*{_SUFFIX}"):
                if len(path.stem) == 2 * DIGEST_BYTES:
                    self._held[bytes.fromhex(path.stem)] = None
            for path in folder.glob(f"*{_DROPPED_SUFFIX}"):
                self._remover.submit(_remove, path)
        except BlockingIOError:
            raise StorageError(f"{folder}: another coordinator keeps leaves of updates there") from None
        except (OSError, ValueError) as error:
            fault = error if isinstance(error, OSError) else OSError(str(error))
            raise StorageError(shown_fault(fault, folder, "a folder to keep leaves of updates in")) from None

    def put(self, upload: bytes, index: int, leaf: memoryview) -> None:
        """Keep a leaf; it is durable once `sync` has returned."""
        path = self._path_of(upload)
        start, mark = index * _STRIDE, _MARK.pack(_MARK_MAGIC, len(leaf), crc32(leaf))
        with self._reporting(path, "room for a leaf of an update"), _open(path, os.O_RDWR | os.O_CREAT) as descriptor:
            _write_at(descriptor, start, leaf)
            _write_at(descriptor, start + LEAF_BYTES, memoryview(mark))
            begin_writing(descriptor, start, _STRIDE)
        self._read_marks(upload)
        with self._mutex:
            held = self._held.get(upload)
            if held is None:
                held = self._held[upload] = set()
            held.add(index)

    def sync(self, upload: bytes) -> None:
        """Make durable what was put of an upload, by this process or an earlier one."""
        path = self._path_of(upload)
        with self._reporting(path, "leaves of an update"), suppress(FileNotFoundError):  # dropped meanwhile: nobody needs them
            with _open(path, os.O_RDWR) as descriptor:
                sync_data(descriptor)
            if upload not in self._named:
                sync_folder(self._folder)
                self._named.add(upload)

    def get(self, upload: bytes, index: int) -> bytes:
        """Return a leaf that was put.

        Raises:
            StateError: it is damaged, or gone.
            StorageError: it cannot be read.
        """
        path = self._path_of(upload)
        with self._reporting(path, "a leaf of an update"), _open(path, os.O_RDONLY) as descriptor:
            size, checksum = _read_mark(descriptor, index) or (0, 0)
            leaf = _read_at(descriptor, index * _STRIDE, size)
        if not size or len(leaf) != size or crc32(leaf) != checksum:
            raise StateError(f"{path}: expected leaf {index} with its checksum, got something else: it is damaged")
        return leaf

    def held(self, upload: bytes) -> Collection[int]:
        """Return the numbers of the leaves of an upload that are marked."""
        self._read_marks(upload)
        with self._mutex:
            return tuple(self._held.get(upload) or ())

    def uploads(self) -> Collection[bytes]:
        """Return the header digests of all uploads of which there is a file."""
        with self._mutex:
            return tuple(self._held)

    def drop(self, upload: bytes) -> None:
        """Forget all leaves of an upload."""
        path, dropped = self._path_of(upload), self._folder / f"{upload.hex()}{_DROPPED_SUFFIX}"
        with self._mutex, self._reporting(path, "to remove leaves of an update"), suppress(FileNotFoundError):
            self._held.pop(upload, None)
            self._named.discard(upload)
            path.replace(dropped)
            self._remover.submit(_remove, dropped)

    def close(self) -> None:
        """Let others use the folder, who remove what is dropped and still there; calling it twice does no harm."""
        self._remover.shutdown(wait=True, cancel_futures=True)
        self._lock.close()

    def _read_marks(self, upload: bytes) -> None:
        """Find out which leaves an earlier process left of an upload; once."""
        with self._mutex:
            is_unread = self._held.get(upload, ()) is None
        if is_unread:
            path = self._path_of(upload)
            with self._reporting(path, "leaves of an update"), _open(path, os.O_RDONLY) as descriptor:
                places = range(-(-os.fstat(descriptor).st_size // _STRIDE))
                marked = {index for index in places if _read_mark(descriptor, index) is not None}
            with self._mutex:
                if self._held.get(upload, ()) is None:
                    self._held[upload] = marked

    @contextmanager
    def _reporting(self, path: Path, expected: str) -> Iterator[None]:
        """Turn what the system says into our error.

        Raises:
            StorageError: the file cannot be used; a full disk among other reasons.
        """
        try:
            yield
        except OSError as error:
            raise StorageError(shown_fault(error, path, expected)) from None


def _remove(path: Path) -> None:
    with suppress(OSError):  # it is tried again at the next start
        path.unlink()


@contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    descriptor = open_private(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_mark(descriptor: int, index: int) -> tuple[int, int] | None:
    """Return size and checksum of a leaf; None if it has no mark."""
    data = _read_at(descriptor, index * _STRIDE + LEAF_BYTES, _MARK.size)
    if len(data) < _MARK.size:
        return None
    magic, size, checksum = _MARK.unpack(data)
    return (size, checksum) if magic == _MARK_MAGIC and 0 < size <= LEAF_BYTES else None


def _read_at(descriptor: int, start: int, size: int) -> bytes:
    """Read bytes, fewer at the end of the file; each thread has a descriptor of its own."""
    os.lseek(descriptor, start, os.SEEK_SET)
    parts: list[bytes] = []
    while size and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write_at(descriptor: int, start: int, data: memoryview) -> None:
    os.lseek(descriptor, start, os.SEEK_SET)
    while data:
        data = data[os.write(descriptor, data) :]
