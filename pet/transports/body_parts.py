"""A request's body in parts whose sizes are known before they come: each is asked for, and no more of it is in memory.

Knows sizes, and not what they are of.
"""

from __future__ import annotations

from typing import Final

from pet.transports.body_reader import BodyPieces, Taker

_EMPTY: Final = memoryview(b"")


class BodyParts:
    """Reads a body part by part.

    Args:
        pieces: the body as it arrives, cut anywhere.
        declared_bytes: its size; None if only its end tells.
    """

    def __init__(self, pieces: BodyPieces, declared_bytes: int | None) -> None:
        self._pieces: Final = pieces
        self._declared_bytes: Final = declared_bytes
        self._rest = _EMPTY
        self._is_ended = False

    async def next(self, most_bytes: int) -> memoryview:
        """Return what has arrived, or arrives next, of the next part; empty at the end of the body.

        Args:
            most_bytes: what the part still needs.
        """
        await self._fill()
        part, self._rest = self._rest[:most_bytes], self._rest[most_bytes:]
        return part

    async def fill(self, taker: Taker) -> None:
        """Give a taker what comes next of the body, as far as the server can; `next` returns what it still misses."""
        if not self._rest:
            await self._pieces.fill(taker)

    async def read(self, size_bytes: int) -> bytes:
        """Return a small part; shorter only at the end of the body."""
        data = b""
        while len(data) < size_bytes and (part := await self.next(size_bytes - len(data))):
            data += part
        return data

    async def is_at_end(self) -> bool:
        """Return whether nothing more comes; waits until that is known."""
        if not self.is_whole:
            await self._fill()
        return self.is_whole

    @property
    def is_whole(self) -> bool:
        """Whether it is known that all of the body was taken."""
        return self._is_ended or self._pieces.size_bytes - len(self._rest) == self._declared_bytes

    async def _fill(self) -> None:
        while not self._rest and not self._is_ended:
            piece = await self._pieces.next()
            self._is_ended = piece is None
            self._rest = memoryview(piece or b"")
