"""Large bodies in files: written while they arrive, read back into one reused buffer when their turn comes.

The files have no name, so that nothing is left of them whatever happens: the system frees them with the process, also if that
is killed. A body that is to outlive the process gets its name when it is whole and on the disk (`SpooledBody.keep`), without
a copy. The disk space that is out at the same time is bounded, and shared between those who send (pet/bodies/holders.py).
Knows no message and no event loop; any thread may call.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np

from pet.bodies.holders import HolderTable, Holding
from pet.buffers import Buffer
from pet.errors import NoRoomError
from pet.files import make_folder, name_file, open_unnamed, sync_data


class Spool:
    """A folder with room for a fixed number of bytes.

    Args:
        folder: where the files lie; made if it does not exist. None means the system's temporary folder.
        capacity_bytes: the most bytes that may be out at the same time.
        expects_keeping: bodies will mostly be kept, so that writing one to the disk begins when it is opened: what decrypting
            and verifying take is then not lost.
        reserve_bytes: what one sender leaves to others; None means an eighth.
    """

    def __init__(
        self, folder: Path | None, capacity_bytes: int, *, expects_keeping: bool = False, reserve_bytes: int | None = None
    ) -> None:
        self.expects_keeping: Final = expects_keeping
        self.folder: Final = make_folder(folder)
        self.capacity_bytes: Final = capacity_bytes
        self._holders: Final = HolderTable(capacity_bytes, reserve_bytes)
        self._buffers: Final = _Buffers()
        self._lock: Final = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """What is out now."""
        return self._holders.used

    def prepare(self, size_bytes: int) -> None:
        """Get a buffer for bodies of that size ready, so that the first one need not wait for fresh memory."""
        with self._buffers.lend(size_bytes) as buffer:
            np.frombuffer(buffer, dtype=np.uint8).fill(0)

    def has_room(self, size_bytes: int, holder: str = "") -> bool:
        """Return whether a body of that size would be taken now. One that is larger than the spool must have it to itself.

        Args:
            size_bytes: of the body.
            holder: who sends it.
        """
        with self._lock:
            return self._holders.has_room(holder, size_bytes)

    def create(self, most_bytes: int, holder: str = "", evict: Callable[[], None] | None = None) -> SpooledBody:
        """Begin a body; reserves `most_bytes` until it is closed.

        Args:
            most_bytes: its size at most.
            holder: who sends it: as long as others ask for room, those with less get it first.
            evict: called from another call of `create`, when that took the room away: must arrange for the body to be closed
                soon. None for a body that cannot be evicted; nor can one that is whole (`SpooledBody.finish`).

        Raises:
            NoRoomError: that many are not left.
            OSError: the file cannot be made.
        """
        with self._lock:
            holding = self._holders.take(holder, most_bytes, evict)
            if holding is None:
                left_bytes = self._holders.left_for(holder)
                raise NoRoomError(f"spool: expected room for {most_bytes} bytes, got {left_bytes} left")
        try:
            return SpooledBody(self, open_unnamed(self.folder), most_bytes, holding, self._buffers)
        except BaseException:
            self._give_back(holding)
            raise

    def _keep_room(self, holding: Holding) -> None:
        with self._lock:
            self._holders.keep(holding)

    def _give_back(self, holding: Holding) -> None:
        with self._lock:
            self._holders.release(holding)


class SpooledBody:
    """A `SealedBody` in a file without a name; `write` makes it longer.

    Attributes:
        size_bytes: what was written so far.
    """

    def __init__(self, spool: Spool, file: io.FileIO, most_bytes: int, holding: Holding, buffers: _Buffers) -> None:
        self.size_bytes = 0
        self._holding = holding
        self._spool = spool
        self._file = file
        self._most_bytes = most_bytes
        self._buffers = buffers
        # Abandoning a body must not close the file under a thread that is using it.
        self._lock = threading.Lock()
        self._writing: Future[None] | None = None

    def write(self, *pieces: Buffer) -> None:
        """Append bytes, one piece after the other.

        Raises:
            NoRoomError: these are more than was asked room for.
            OSError: they cannot be written.
        """
        size_bytes = self.size_bytes + sum(map(len, pieces))
        if size_bytes > self._most_bytes:
            raise NoRoomError(f"body: expected at most {self._most_bytes} bytes, got {size_bytes}")
        with self._lock:
            for piece in pieces:
                with memoryview(piece) as view:
                    write_all(self._file, view)
        self.size_bytes = size_bytes

    def finish(self) -> None:
        """Say that the body is whole: nobody can evict it any longer."""
        self._spool._keep_room(self._holding)

    @contextmanager
    def open(self) -> Iterator[memoryview]:
        """Read the bytes into a buffer and lend it.

        Raises:
            OSError: they cannot be read, or are not all there.
        """
        with self._buffers.lend(self.size_bytes) as buffer:
            with self._lock:
                self._file.seek(0)
                read_exactly(self._file, buffer)
                if self._spool.expects_keeping and self._writing is None:
                    self._writing = _write_out(os.dup(self._file.fileno()))
            yield buffer

    def keep(self, path: Path) -> None:
        """Write the bytes to the disk and give them a name, durable after `sync_folder`; within a file system without a copy.

        Raises:
            OSError: there is such a file already, or it cannot be made.
        """
        with self._lock:
            if self._writing is None:
                sync_data(self._file.fileno())
            else:
                self._writing.result()  # an error is raised once: here, or never
            name_file(self._file, path)

    def close(self) -> None:
        """Free the file, unless it was kept, and the room it had."""
        with self._lock:
            if not self._file.closed:
                self._file.close()
                self._spool._give_back(self._holding)


class _Buffers:
    """Buffers to open bodies in, used again and again: pages that were never touched cost more than reading into them."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, size_bytes: int) -> Iterator[memoryview]:
        """Lend a buffer of that size; its content is undefined."""
        with self._lock:
            buffer = self._free.pop() if self._free else bytearray()
        if len(buffer) < size_bytes:
            del buffer  # before the larger one is there
            buffer = bytearray(size_bytes)
        with memoryview(buffer) as whole:
            view = whole[:size_bytes]
            try:
                yield view
            finally:
                with suppress(BufferError):
                    view.release()
        self._take_back(buffer)

    def _take_back(self, buffer: bytearray) -> None:
        """Keep one buffer for the next body; one that somebody still looks at belongs to that one from now on."""
        try:
            # A bytearray refuses to change its length while there is a view of it.
            buffer.append(0)
            buffer.pop()
        except BufferError:
            return
        with self._lock:
            if not self._free:
                self._free.append(buffer)


def _write_out(descriptor: int) -> Future[None]:
    """Write a file to the disk in a thread of its own, and close this descriptor of it."""
    written: Future[None] = Future()

    def write() -> None:
        # Closed before the waiter is released, which then finds the descriptor gone.
        try:
            try:
                sync_data(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            written.set_exception(error)
        else:
            written.set_result(None)

    threading.Thread(target=write, name="pet-write-out").start()
    return written


def write_all(file: io.FileIO, data: memoryview) -> None:
    """Write all of a buffer where a file stands.

    Raises:
        OSError: the disk is full, or worse.
    """
    written = 0
    while written < len(data):
        written += file.write(data[written:])


def read_exactly(file: io.FileIO, buffer: memoryview) -> None:
    """Fill a buffer from where a file stands.

    Raises:
        OSError: the file ends before the buffer.
    """
    filled = 0
    while filled < len(buffer):
        count = file.readinto(buffer[filled:])
        if not count:
            raise OSError(f"spooled bytes: expected {len(buffer)}, got {filled}")
        filled += count
