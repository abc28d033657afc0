"""Putting the chunks of many participants back together, within bounds.

What the payload says is not known here, nor where the pieces lie (pet/messages/chunk_store.py). The owner of a collector tells
it the time, and clears it when the phase ends.

Source: docs/spec/pet.md 4.7.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pet.errors import RemoteProtocolError
from pet.messages.chunk_store import ChunkPile, ChunkStore, Extent, MemoryChunkStore
from pet.messages.chunks import Chunk
from pet.messages.header import MessageTag

#: What a collected chunk is counted for beside its data: about an entry of a dictionary and its two objects. Without it,
#: empty chunks would cost nothing.
CHUNK_OVERHEAD_BYTES: Final = 160

_PayloadKey: TypeAlias = tuple[bytes, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLimits:
    """How much unfinished messages may hold.

    Attributes:
        max_bytes_per_participant: bound on what one participant's chunks are counted for, overhead included.
        max_bytes: the same for all participants together.
        max_messages: bound on the number of unfinished messages of all participants.
        patience_seconds: a message idle for this long is dropped if another one needs its room.
    """

    max_bytes_per_participant: int
    max_bytes: int
    max_messages: int
    patience_seconds: float


class ChunkCollector:
    """Puts the payloads of many participants back together (spec 4.7).

    A payload is known by its sender and message id. Its chunks may come in any order; one that comes twice counts once, and
    what came last stays, as in the reference. A refused chunk changes nothing.

    A participant can only add to its own payloads, and to a bounded share. All share one bound: what came first stays as long
    as it grows, so that some get done; stalled ones are evicted, the longest idle first, if somebody needs the room.

    Attributes:
        size_bytes: what the collected chunks are counted for: their data, and CHUNK_OVERHEAD_BYTES for each. A chunk that was
            replaced by one of another size is counted beside it.
        last_dropped: public key and message id of each payload that was evicted for the last chunk.
    """

    def __init__(self, limits: ChunkLimits, store: ChunkStore | None = None) -> None:
        """Set the bounds, and where pieces lie: in memory if no store is given."""
        self._limits = limits
        self._store = MemoryChunkStore() if store is None else store
        #: The one that has not grown for the longest time first.
        self._payloads: dict[_PayloadKey, _IncompletePayload] = {}
        self._bytes_by_participant: dict[bytes, int] = {}
        self.size_bytes = 0
        self.last_dropped: list[tuple[bytes, int]] = []

    def __len__(self) -> int:
        """Return the number of incomplete payloads."""
        return len(self._payloads)

    def add(self, public_key: bytes, tag: MessageTag, chunk: Chunk, now_seconds: float = 0.0) -> bytearray | None:
        """Take one chunk of a participant; its data is copied.

        Returns:
            The whole payload if this chunk was the last one missing, else None.

        Raises:
            RemoteProtocolError: "chunk_conflict" (another tag than the first chunk's, a second last chunk, an id above the
                last) or "chunk_limit". Nothing has changed then.
            OSError: the chunk cannot be stored. It is as if it had not come.
        """
        key = public_key, chunk.message_id
        payload = self._payloads.get(key)
        if payload is not None:
            payload.require_agreement(tag, chunk)
        growth = len(chunk.data) + CHUNK_OVERHEAD_BYTES if payload is None else payload.growth_bytes(chunk)
        participant_bytes = self._bytes_by_participant.get(public_key, 0) + growth
        limit = self._limits.max_bytes_per_participant
        if participant_bytes > limit:
            raise _limit_error("bytes of one participant", limit, participant_bytes)
        self.last_dropped = self._find_room(key, growth, now_seconds)
        for idle in self.last_dropped:
            self._remove(idle).close()
        if payload is None:
            payload = self._begin(tag, chunk)
        else:
            payload.take(chunk)
        self._payloads.pop(key, None)
        self._payloads[key] = payload  # behind all others, as it has grown
        payload.grown_seconds = now_seconds
        payload.size_bytes += growth
        self._bytes_by_participant[public_key] = self._bytes_by_participant.get(public_key, 0) + growth
        self.size_bytes += growth
        return self._take_out(key) if payload.is_complete else None

    def holds(self, public_key: bytes, message_id: int) -> bool:
        """Return whether there are chunks of a payload that is not whole."""
        return (public_key, message_id) in self._payloads

    def clear(self) -> None:
        """Drop all chunks."""
        for key in list(self._payloads):
            self._remove(key).close()

    def _begin(self, tag: MessageTag, chunk: Chunk) -> _IncompletePayload:
        payload = _IncompletePayload(tag, self._store.create())
        try:
            payload.take(chunk)
        except BaseException:
            payload.close()
            raise
        return payload

    def _find_room(self, key: _PayloadKey, growth: int, now_seconds: float) -> list[_PayloadKey]:
        """Return which payloads have to go so that one can grow.

        Raises:
            RemoteProtocolError: "chunk_limit": more than all that stand still.
        """
        limits, idle = self._limits, list[_PayloadKey]()
        size_bytes, count = self.size_bytes + growth, len(self._payloads) + (key not in self._payloads)
        others = iter(self._payloads.items())
        while size_bytes > limits.max_bytes or count > limits.max_messages:
            other, payload = next(others, (key, None))
            if payload is None or now_seconds - payload.grown_seconds < limits.patience_seconds:
                if count > limits.max_messages:
                    raise _limit_error("incomplete payloads", limits.max_messages, count)
                raise _limit_error("bytes of all participants", limits.max_bytes, size_bytes)
            if other != key:
                idle.append(other)
                size_bytes -= payload.size_bytes
                count -= 1
        return idle

    def _take_out(self, key: _PayloadKey) -> bytearray:
        payload = self._remove(key)
        try:
            return payload.join()
        finally:
            payload.close()

    def _remove(self, key: _PayloadKey) -> _IncompletePayload:
        payload = self._payloads.pop(key)
        self.size_bytes -= payload.size_bytes
        self._bytes_by_participant[key[0]] -= payload.size_bytes
        if not self._bytes_by_participant[key[0]]:
            del self._bytes_by_participant[key[0]]
        return payload


@dataclass(slots=True)
class _IncompletePayload:
    """The chunks of one payload that have come so far: where each lies in the pile, by its id."""

    tag: MessageTag
    pile: ChunkPile
    extents: dict[int, Extent] = field(default_factory=dict)
    size_bytes: int = 0
    grown_seconds: float = 0.0
    _highest_id: int = -1
    _last_id: int | None = None

    @property
    def is_complete(self) -> bool:
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

    def growth_bytes(self, chunk: Chunk) -> int:
        """Return by how much `size_bytes` grows with a chunk: not at all if it takes the place of one of the same size."""
        known = self.extents.get(chunk.chunk_id)
        if known is None:
            return len(chunk.data) + CHUNK_OVERHEAD_BYTES
        return 0 if known[1] == len(chunk.data) else len(chunk.data)

    def take(self, chunk: Chunk) -> None:
        start, size = self.extents.get(chunk.chunk_id, (0, None))
        if size == len(chunk.data):
            self.pile.overwrite(start, chunk.data)
        else:
            self.extents[chunk.chunk_id] = self.pile.append(chunk.data), len(chunk.data)
        self._highest_id = max(self._highest_id, chunk.chunk_id)
        if chunk.is_last:
            self._last_id = chunk.chunk_id

    def join(self) -> bytearray:
        return self.pile.read([self.extents[chunk_id] for chunk_id in range(len(self.extents))])

    def close(self) -> None:
        self.pile.close()


def _limit_error(what: str, limit: int, needed: int) -> RemoteProtocolError:
    return RemoteProtocolError("chunk_limit", f"chunks: expected at most {limit} {what}, got {needed}")
