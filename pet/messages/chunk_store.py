"""Where the pieces of unfinished messages lie: an interface, and the memory behind it.

A coordinator with a disk keeps them in a file instead (pet/bodies/chunk_file.py). What a piece is part of, and how many
there may be, is for pet/messages/chunks.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from pet.buffers import Buffer

#: Where a piece begins within its pile, and how many bytes it has.
Extent: TypeAlias = tuple[int, int]


class ChunkPile(Protocol):
    """The pieces of one message, one behind the other in the order in which they came."""

    def append(self, data: Buffer) -> int:
        """Add a piece, and return where it begins; if that fails, nothing has changed.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def overwrite(self, start: int, data: Buffer) -> None:
        """Put other bytes in the place of as many earlier ones.

        Raises:
            OSError: they cannot be written.
        """
        ...

    def read(self, extents: Sequence[Extent]) -> bytearray:
        """Return pieces, one behind the other, in the order they are asked for.

        Raises:
            OSError: they cannot be read.
        """
        ...

    def close(self) -> None:
        """Forget the pieces. No other call may follow."""
        ...


class ChunkStore(Protocol):
    """What makes piles. Calls of a store and its piles come one at a time."""

    def create(self) -> ChunkPile:
        """Begin a message."""
        ...


@dataclass(slots=True)
class MemoryPile:
    """A `ChunkPile` in memory."""

    _data: bytearray = field(default_factory=bytearray, repr=False)

    def append(self, data: Buffer) -> int:
        """Add a piece, and return where it begins."""
        start = len(self._data)
        self._data += data
        return start

    def overwrite(self, start: int, data: Buffer) -> None:
        """Put other bytes in the place of as many earlier ones."""
        self._data[start : start + len(data)] = data

    def read(self, extents: Sequence[Extent]) -> bytearray:
        """Return pieces, one behind the other, in the order they are asked for."""
        view = memoryview(self._data)
        return bytearray().join(view[start : start + size] for start, size in extents)

    def close(self) -> None:
        """Forget the pieces."""
        self._data = bytearray()


@dataclass(frozen=True, slots=True)
class MemoryChunkStore:
    """A `ChunkStore` in memory."""

    def create(self) -> MemoryPile:
        """Begin a message."""
        return MemoryPile()
