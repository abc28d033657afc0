"""Putting the chunks of many participants back together, within bounds.

What the payload says is not known here, nor where the pieces lie (pet/messages/chunk_store.py). The owner of a collector tells
it the time, and clears it when the phase ends.

Source: docs/spec/pet.md 4.7.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pet.errors import RemoteProtocolError
from pet.messages.chunk_store import ChunkStore, MemoryChunkStore
from pet.messages.chunks import Chunk
from pet.messages.header import MessageTag
from pet.messages.incomplete_payload import CHUNK_OVERHEAD_BYTES, IncompletePayload

#: A payload makes progress when it has grown by one part of this number: single bytes would keep its place for ever.
PROGRESS_PART: Final = 16

_PayloadKey: TypeAlias = tuple[bytes, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLimits:
    """How much unfinished messages may hold.

    Attributes:
        max_bytes_per_participant: bound on what one participant's chunks are counted for, overhead included.
        max_bytes: the same for all participants together.
        max_messages: bound on the number of unfinished messages of all participants.
        patience_seconds: a message without progress for this long is dropped if another one needs its room.
    """

    max_bytes_per_participant: int
    max_bytes: int
    max_messages: int
    patience_seconds: float


@dataclass(frozen=True, slots=True)
class HeadCheck:
    """What can be checked of a payload from its first bytes, before the rest is kept.

    Attributes:
        size_bytes: how many bytes that takes; a whole payload that is shorter is not checked here.
        check: takes them; raises RemoteProtocolError for a sender that may not send such a payload.
    """

    size_bytes: int
    check: Callable[[bytes], None]


class ChunkCollector:
    """Puts the payloads of many participants back together (spec 4.7).

    A payload is known by its sender and message id. Its chunks may come in any order; one that comes twice counts once, and
    what came last stays, as in the reference. A refused chunk changes nothing.

    A participant can only add to its own payloads, and to a bounded share. All share one bound. If there is too little, these
    go in turn: payloads whose head was not checked yet (for one whose head was), those that made no progress for long, and the
    newest of who holds most, as long as that is more than the one that asks would hold. Progress is a sixteenth more bytes;
    the same bytes again are none.

    Attributes:
        size_bytes: what the collected chunks are counted for: their data, and CHUNK_OVERHEAD_BYTES for each. A chunk that was
            replaced by one of another size is counted beside it.
        last_dropped: public key and message id of each payload that was evicted for the last chunk.
    """

    def __init__(self, limits: ChunkLimits, store: ChunkStore | None = None) -> None:
        """Set the bounds, and where pieces lie: in memory if no store is given."""
        self._limits = limits
        self._store = MemoryChunkStore() if store is None else store
        #: The one without progress for the longest time first.
        self._payloads: dict[_PayloadKey, IncompletePayload] = {}
        #: Those whose head was not checked yet, the oldest first.
        self._unchecked: dict[_PayloadKey, IncompletePayload] = {}
        self._shares: dict[bytes, _Share] = {}
        self.size_bytes = 0
        self.last_dropped: list[tuple[bytes, int]] = []

    def __len__(self) -> int:
        """Return the number of incomplete payloads."""
        return len(self._payloads)

    def add(
        self, public_key: bytes, tag: MessageTag, chunk: Chunk, now_seconds: float = 0.0, head: HeadCheck | None = None
    ) -> bytearray | None:
        """Take one chunk of a participant; its data is copied.

        Args:
            public_key: the participant's.
            tag: of its message.
            chunk: what came.
            now_seconds: the time now.
            head: what is to be checked of the payload as soon as its first bytes are there; None if nothing is.

        Returns:
            The whole payload if this chunk was the last one missing, else None.

        Raises:
            RemoteProtocolError: "chunk_conflict" (another tag than the first chunk's, a second last chunk, an id above the
                last) or "chunk_limit": nothing has changed then. Or what the check of the head raises: no chunk of the payload
                is kept then.
            OSError: the chunk cannot be stored. It is as if it had not come.
        """
        self.last_dropped = []
        key = public_key, chunk.message_id
        payload = self._payloads.get(key)
        if payload is not None:
            payload.require_agreement(tag, chunk)
            if payload.has(chunk):
                return None
        is_checked = head is None if payload is None else payload.is_checked
        if head is not None and not is_checked and chunk.chunk_id == 0 and len(chunk.data) >= head.size_bytes:
            self._check(key, head, bytes(chunk.data[: head.size_bytes]))
            is_checked = True
        growth = len(chunk.data) + CHUNK_OVERHEAD_BYTES if payload is None else payload.growth_bytes(chunk)
        for idle in self._find_room(key, growth, now_seconds, is_checked=is_checked):
            self._remove(idle).close()
            self.last_dropped.append(idle)
        payload = self._take(key, tag, chunk, growth, now_seconds)
        payload.is_checked = is_checked
        if head is not None and not is_checked and (first := payload.first_bytes(head.size_bytes)) is not None:
            self._check(key, head, first)
            payload.is_checked = True
        if payload.is_checked:
            self._unchecked.pop(key, None)
        else:
            self._unchecked[key] = payload
        return self._take_out(key) if payload.is_complete else None

    def holds(self, public_key: bytes, message_id: int) -> bool:
        """Return whether there are chunks of a payload that is not whole."""
        return (public_key, message_id) in self._payloads

    def has(self, public_key: bytes, chunk: Chunk) -> bool:
        """Return whether the very same chunk of a payload that is not whole is there."""
        payload = self._payloads.get((public_key, chunk.message_id))
        return payload is not None and payload.has(chunk)

    def clear(self) -> None:
        """Drop all chunks."""
        for key in list(self._payloads):
            self._remove(key).close()

    def _check(self, key: _PayloadKey, head: HeadCheck, first: bytes) -> None:
        try:
            head.check(first)
        except RemoteProtocolError:
            if key in self._payloads:
                self._remove(key).close()
            raise

    def _take(self, key: _PayloadKey, tag: MessageTag, chunk: Chunk, growth: int, now_seconds: float) -> IncompletePayload:
        payload = self._payloads.get(key)
        if payload is None:
            payload = IncompletePayload(tag, self._store.create())
            try:
                payload.take(chunk)
            except BaseException:
                payload.close()
                raise
            self._payloads[key] = payload
            self._shares.setdefault(key[0], _Share()).payloads[key] = None
        else:
            payload.take(chunk)
        payload.size_bytes += growth
        self._shares[key[0]].size_bytes += growth
        self.size_bytes += growth
        if payload.size_bytes >= payload.milestone_bytes:
            payload.milestone_bytes = payload.size_bytes + payload.size_bytes // PROGRESS_PART
            payload.grown_seconds = now_seconds
            self._payloads[key] = self._payloads.pop(key)  # behind all others
        return payload

    def _find_room(self, key: _PayloadKey, growth: int, now_seconds: float, *, is_checked: bool) -> list[_PayloadKey]:
        """Return which payloads have to go so that one can grow.

        Raises:
            RemoteProtocolError: "chunk_limit": more than all that may be evicted for it.
        """
        limits, own = self._limits, self._shares.get(key[0], _Share())
        if own.size_bytes + growth > limits.max_bytes_per_participant:
            raise _limit_error("bytes of one participant", limits.max_bytes_per_participant, own.size_bytes + growth)
        going = dict[_PayloadKey, IncompletePayload]()
        size_bytes, count = self.size_bytes + growth, len(self._payloads) + (key not in self._payloads)
        others = self._evictable(key, growth, now_seconds, going, is_checked=is_checked)
        while size_bytes > limits.max_bytes or count > limits.max_messages:
            other = next(others, None)
            if other is None:
                if count > limits.max_messages:
                    raise _limit_error("incomplete payloads", limits.max_messages, count)
                raise _limit_error("bytes of all participants", limits.max_bytes, size_bytes)
            going[other] = payload = self._payloads[other]
            size_bytes -= payload.size_bytes
            count -= 1
        return list(going)

    def _evictable(
        self,
        key: _PayloadKey,
        growth: int,
        now_seconds: float,
        going: Mapping[_PayloadKey, IncompletePayload],
        *,
        is_checked: bool,
    ) -> Iterator[_PayloadKey]:
        """Yield what may go for a payload that is to grow, in the order in which it goes; `going` are those that will."""
        if is_checked:
            yield from (other for other in self._unchecked if other != key)
        for other, payload in self._payloads.items():
            if now_seconds - payload.grown_seconds < self._limits.patience_seconds:
                break
            if other != key and other not in going:
                yield other
        while (largest := self._find_largest(key, growth, going, is_checked=is_checked)) is not None:
            yield largest

    def _find_largest(
        self, key: _PayloadKey, growth: int, going: Mapping[_PayloadKey, IncompletePayload], *, is_checked: bool
    ) -> _PayloadKey | None:
        """Return the newest payload of the participant that holds most, if that is more than the one that asks would hold."""
        own = self._shares.get(key[0], _Share())
        most_bytes, most_payloads = own.size_bytes + growth, len(own.payloads) + (key not in own.payloads)
        needs_messages = len(self._payloads) - len(going) + (key not in self._payloads) > self._limits.max_messages
        leaving = Counter(other[0] for other in going)
        leaving_bytes = Counter[bytes]()
        for (public_key, _), payload in going.items():
            leaving_bytes[public_key] += payload.size_bytes
        largest, most = None, most_payloads if needs_messages else most_bytes
        for public_key, share in self._shares.items():
            if needs_messages:
                amount = len(share.payloads) - leaving[public_key]
            else:
                amount = share.size_bytes - leaving_bytes[public_key]
            if public_key != key[0] and amount > most:
                largest, most = public_key, amount
        if largest is None:
            return None
        candidates = (other for other in reversed(self._shares[largest].payloads) if other not in going)
        return next((other for other in candidates if is_checked or other in self._unchecked), None)

    def _take_out(self, key: _PayloadKey) -> bytearray:
        payload = self._remove(key)
        try:
            return payload.join()
        finally:
            payload.close()

    def _remove(self, key: _PayloadKey) -> IncompletePayload:
        payload = self._payloads.pop(key)
        self._unchecked.pop(key, None)
        self.size_bytes -= payload.size_bytes
        share = self._shares[key[0]]
        share.size_bytes -= payload.size_bytes
        del share.payloads[key]
        if not share.payloads:
            del self._shares[key[0]]
        return payload


@dataclass(slots=True)
class _Share:
    """What one participant's unfinished messages hold; the newest last."""

    size_bytes: int = 0
    payloads: dict[_PayloadKey, None] = field(default_factory=dict)


def _limit_error(what: str, limit: int, needed: int) -> RemoteProtocolError:
    return RemoteProtocolError("chunk_limit", f"chunks: expected at most {limit} {what}, got {needed}")
