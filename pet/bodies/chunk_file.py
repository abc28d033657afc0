"""Pieces of unfinished messages in a file: one for all messages, in blocks that are used again.

A file for each message would need a descriptor for each, and there can be ten thousand. The file has no name, so nothing is
left of it when the process ends. Calls come one at a time; knows no message and no phase.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pet.bodies.spool import read_exactly, write_all
from pet.buffers import Buffer
from pet.files import make_folder, open_unnamed
from pet.messages.chunk_store import Extent

#: The unit of allocation: a message wastes half of one on average, and a list of their numbers takes little memory.
BLOCK_BYTES: Final = 16 * 1024


class ChunkFile:
    """A `ChunkStore` on disk; the file is made when the first piece comes, and freed when no message is left.

    Args:
        folder: where the file lies; made if it does not exist. None means the system's temporary folder.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = make_folder(folder)
        self._file: io.FileIO | None = None
        self._free: list[int] = []
        self._block_count = 0
        self._pile_count = 0

    @property
    def size_bytes(self) -> int:
        """How large the file is at most."""
        return self._block_count * BLOCK_BYTES

    def create(self) -> FilePile:
        """Begin a message."""
        self._pile_count += 1
        return FilePile(self)

    def _open(self) -> io.FileIO:
        if self._file is None:
            self._file = open_unnamed(self._folder)
        return self._file

    def _take_block(self) -> int:
        if self._free:
            return self._free.pop()
        self._block_count += 1
        return self._block_count - 1

    def _give_back(self, blocks: list[int]) -> None:
        self._pile_count -= 1
        self._free += blocks
        if self._pile_count == 0 and self._file is not None:
            self._file.close()
            self._file = None
            self._free.clear()
            self._block_count = 0


class FilePile:
    """A `ChunkPile` in blocks of a file."""

    def __init__(self, store: ChunkFile) -> None:
        self._store = store
        self._blocks: list[int] = []
        self._size_bytes = 0

    def append(self, data: Buffer) -> int:
        """Add a piece, and return where it begins; if that fails, nothing has changed."""
        start = self._size_bytes
        while len(self._blocks) * BLOCK_BYTES < start + len(data):
            self._blocks.append(self._store._take_block())
        self.overwrite(start, data)
        self._size_bytes += len(data)
        return start

    def overwrite(self, start: int, data: Buffer) -> None:
        """Put other bytes in the place of as many earlier ones."""
        file = self._store._open()
        with memoryview(data) as rest:
            done = 0
            for position, size in self._runs(start, len(rest)):
                file.seek(position)
                write_all(file, rest[done : done + size])
                done += size

    def read(self, extents: Sequence[Extent]) -> bytearray:
        """Return pieces, one behind the other, in the order they are asked for."""
        file, joined = self._store._open(), bytearray(sum(size for _, size in extents))
        with memoryview(joined) as view:
            done = 0
            for start, size in _merge(extents):
                for position, run_bytes in self._runs(start, size):
                    file.seek(position)
                    read_exactly(file, view[done : done + run_bytes])
                    done += run_bytes
        return joined

    def close(self) -> None:
        """Give the blocks back."""
        self._store._give_back(self._blocks)
        self._blocks = []

    def _runs(self, start: int, size: int) -> Iterator[Extent]:
        """Yield where in the file some bytes of the pile lie, in as few runs as possible."""
        return _merge(self._parts(start, size))

    def _parts(self, start: int, size: int) -> Iterator[Extent]:
        end = start + size
        while start < end:
            block, offset = divmod(start, BLOCK_BYTES)
            part_bytes = min(BLOCK_BYTES - offset, end - start)
            yield self._blocks[block] * BLOCK_BYTES + offset, part_bytes
            start += part_bytes


def _merge(extents: Sequence[Extent] | Iterator[Extent]) -> Iterator[Extent]:
    """Join extents that follow on each other."""
    start, size = 0, 0
    for next_start, next_size in extents:
        if size and next_start == start + size:
            size += next_size
        else:
            if size:
                yield start, size
            start, size = next_start, next_size
    if size:
        yield start, size
