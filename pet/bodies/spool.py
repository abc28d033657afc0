"""Large bodies in files: written while they arrive, read back into one reused buffer when their turn comes.

Most files have no name, so that nothing is left of them whatever happens: the system frees them with the process, also if that
is killed. A body that is to outlive the process gets its name when it is whole and on the disk (`SpooledBody.keep`), without
a copy. An upload that may be resumed by another process has a name from the beginning (pet/bodies/partial_upload.py); while
nobody sends it, it is the first to go when room is needed. The disk space that is out at the same time is bounded, and shared
between those who send (pet/bodies/holders.py).
Knows no message and no event loop; any thread may call.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from pet.bodies.holders import HolderTable, Holding
from pet.bodies.lent_buffers import LentBuffers
from pet.buffers import Buffer
from pet.errors import NoRoomError
from pet.files import link_or_copy, make_folder, name_file, open_private, open_unnamed, sync_data


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
        self._buffers: Final = LentBuffers()
        self._lock: Final = threading.Lock()
        #: Files of uploads that nobody sends now, with the note beside each and its size; the longest idle first.
        self._idle: Final[OrderedDict[Path, tuple[Path, int]]] = OrderedDict()
        self._idle_bytes = 0

    @property
    def used_bytes(self) -> int:
        """What is out now."""
        return self._holders.used + self._idle_bytes

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
        holding = self.reserve(most_bytes, holder, evict)
        try:
            return SpooledBody(self, open_unnamed(self.folder), most_bytes, self._buffers, holding=holding)
        except BaseException:
            self.give_back(holding)
            raise

    def reserve(self, size_bytes: int, holder: str = "", evict: Callable[[], None] | None = None) -> Holding:
        """Reserve room until `give_back`; see `create` for the arguments. Uploads that nobody sends now make way.

        Raises:
            NoRoomError: there is not enough.
        """
        with self._lock:
            holding = self._holders.take(holder, size_bytes, evict)
            if holding is None:
                left_bytes = self._holders.left_for(holder)
                raise NoRoomError(f"spool: expected room for {size_bytes} bytes, got {left_bytes} left")
            while self._idle and self.used_bytes > self.capacity_bytes:
                path = next(iter(self._idle))
                note = self._forget_idle(path)
                for each in (note, path):  # no note may promise what is not there
                    each.unlink(missing_ok=True)
            return holding

    def keep_room(self, holding: Holding) -> None:
        """Let nobody evict what was reserved: it is whole."""
        with self._lock:
            self._holders.keep(holding)

    def give_back(self, holding: Holding) -> None:
        """Give room back; calling it twice does no harm."""
        with self._lock:
            self._holders.release(holding)

    def open_upload(self, size_bytes: int, names: tuple[Path, Path] | None) -> SpooledBody:
        """Make the file of an upload of that size, or go on with it; its bytes come in any order, by `write_at`.

        The room for it is reserved and given back by the caller.

        Args:
            size_bytes: of the whole.
            names: where it lies, and the note that goes with it; None makes a file without a name.

        Raises:
            OSError: the file cannot be made.
        """
        file = open_unnamed(self.folder) if names is None else io.FileIO(open_private(names[0], os.O_RDWR | os.O_CREAT), "r+")
        return SpooledBody(self, file, size_bytes, self._buffers, names=names, size_bytes=size_bytes)

    def leave(self, path: Path, note: Path, size_bytes: int) -> None:
        """Count the file of an upload that nobody sends now, and the note beside it: both go when room is needed."""
        with self._lock:
            self._forget_idle(path)
            self._idle[path] = note, size_bytes
            self._idle_bytes += size_bytes

    def resume(self, path: Path) -> None:
        """Stop counting a file that was left: it is sent again, or is gone."""
        with self._lock:
            self._forget_idle(path)

    def _forget_idle(self, path: Path) -> Path:
        note, size_bytes = self._idle.pop(path, (path, 0))
        self._idle_bytes -= size_bytes
        return note


class SpooledBody:
    """A `SealedBody` in a file; `write` makes it longer, or `write_at` fills it.

    Attributes:
        size_bytes: what was written so far; of an upload the whole.
    """

    def __init__(
        self,
        spool: Spool,
        file: io.FileIO,
        most_bytes: int,
        buffers: LentBuffers,
        *,
        holding: Holding | None = None,
        names: tuple[Path, Path] | None = None,
        size_bytes: int = 0,
    ) -> None:
        self.size_bytes = size_bytes
        self._holding = holding
        self._spool = spool
        self._file = file
        self._most_bytes = most_bytes
        self._buffers = buffers
        self._names = names
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
        if self._holding is not None:
            self._spool.keep_room(self._holding)

    def write_at(self, start: int, data: memoryview) -> None:
        """Put bytes where they belong in an upload.

        Raises:
            OSError: they cannot be written.
        """
        with self._lock:
            self._file.seek(start)
            write_all(self._file, data)

    def read_at(self, start: int, size_bytes: int) -> bytearray:
        """Return bytes of an upload that are there.

        Raises:
            OSError: they cannot be read.
        """
        data = bytearray(size_bytes)
        with self._lock, memoryview(data) as view:
            self._file.seek(start)
            read_exactly(self._file, view)
        return data

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
            if self._names is None:
                name_file(self._file, path)
            else:
                link_or_copy(self._names[0], path)

    def stop_using(self) -> None:
        """Close the file; one that has a name stays."""
        with self._lock:
            if not self._file.closed:
                self._file.close()
                if self._holding is not None:
                    self._spool.give_back(self._holding)

    def close(self) -> None:
        """Free the file, unless it was kept, and the room that was reserved for it."""
        self.stop_using()
        for path in reversed(self._names or ()):  # no note may promise what is not there
            path.unlink(missing_ok=True)


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
