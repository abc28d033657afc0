"""The chunks of one payload, until all are there. Who sent them, and how much there may be, is for chunk_collector.py.

Source: docs/spec/pet.md 4.7.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pet.errors import RemoteProtocolError
from pet.messages.chunk_store import ChunkPile, Extent
from pet.messages.chunks import Chunk
from pet.messages.header import MessageTag

#: What a collected chunk is counted for beside its data: about an entry of a dictionary and its two objects. Without it,
#: empty chunks would cost nothing.
CHUNK_OVERHEAD_BYTES: Final = 160


@dataclass(slots=True)
class IncompletePayload:
    """The chunks of one payload that have come so far.

    Attributes:
        tag: of their message.
        pile: where they lie.
        extents: where each lies in the pile, by its id.
        size_bytes: what they are counted for.
        grown_seconds: when they last made progress.
        milestone_bytes: what they have to be counted for, to have made progress again.
        is_checked: whether the head was, or need not be.
    """

    tag: MessageTag
    pile: ChunkPile
    extents: dict[int, Extent] = field(default_factory=dict)
    size_bytes: int = 0
    grown_seconds: float = 0.0
    milestone_bytes: int = 0
    is_checked: bool = False
    _highest_id: int = -1
    _last_id: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all chunks are there."""
        # No id above the last is ever taken, so that many different ones are all of them.
        return self._last_id is not None and len(self.extents) == self._last_id + 1

    def require_agreement(self, tag: MessageTag, chunk: Chunk) -> None:
        """Refuse a chunk that contradicts those before it."""
        if tag is not self.tag:
            raise RemoteProtocolError("chunk_conflict", f"chunk: expected tag {self.tag.name} as before, got {tag.name}")
        if self._last_id is None:
            agrees = not chunk.is_last or chunk.chunk_id > self._highest_id
        else:
            agrees = chunk.chunk_id <= self._last_id and chunk.is_last == (chunk.chunk_id == self._last_id)
        if not agrees:
            raise RemoteProtocolError(
                "chunk_conflict",
                f"chunk {chunk.chunk_id} (last: {chunk.is_last}) does not fit what came before: "
                f"highest id {self._highest_id}, last id {self._last_id}",
            )

    def has(self, chunk: Chunk) -> bool:
        """Return whether the very same chunk is there."""
        extent = self.extents.get(chunk.chunk_id)
        return extent is not None and extent[1] == len(chunk.data) and self.pile.read([extent]) == chunk.data

    def first_bytes(self, size_bytes: int) -> bytes | None:
        """Return as many bytes from the beginning; None while there is a gap in them."""
        extents, left_bytes = list[Extent](), size_bytes
        while left_bytes > 0:
            extent = self.extents.get(len(extents))
            if extent is None:
                return None
            extents.append(extent)
            left_bytes -= extent[1]
        return bytes(self.pile.read(extents)[:size_bytes])

    def growth_bytes(self, chunk: Chunk) -> int:
        """Return by how much `size_bytes` grows with a chunk: not at all if it takes the place of one of the same size."""
        known = self.extents.get(chunk.chunk_id)
        if known is None:
            return len(chunk.data) + CHUNK_OVERHEAD_BYTES
        return 0 if known[1] == len(chunk.data) else len(chunk.data)

    def take(self, chunk: Chunk) -> None:
        """Keep a chunk; an earlier one with the same id makes way."""
        start, size = self.extents.get(chunk.chunk_id, (0, None))
        if size == len(chunk.data):
            self.pile.overwrite(start, chunk.data)
        else:
            self.extents[chunk.chunk_id] = self.pile.append(chunk.data), len(chunk.data)
        self._highest_id = max(self._highest_id, chunk.chunk_id)
        if chunk.is_last:
            self._last_id = chunk.chunk_id

    def join(self) -> bytearray:
        """Return the whole payload."""
        return self.pile.read([self.extents[chunk_id] for chunk_id in range(len(self.extents))])

    def close(self) -> None:
        """Forget the chunks; no other call may follow."""
        self.pile.close()
