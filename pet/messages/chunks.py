"""Large payloads in pieces: splitting one into chunks, and putting chunks of many participants back together.

Each chunk travels in a signed, sealed message of its own; only the payload of the large message is split. What the payload
says is not known here, and neither is time: whoever owns a collector clears it when the phase ends.

Source: spec/PET.md 4.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pet.crypto import SEAL_BYTES
from pet.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from pet.messages.header import HEADER_BYTES, Tag
from pet.wire import Buffer

_LAYOUT: Final = struct.Struct(">HHB3x")
_LAST_FLAG: Final = 0x01

CHUNK_HEADER_BYTES: Final[int] = _LAYOUT.size
MAX_CHUNK_COUNT: Final = 2**16
#: The smallest bound on a sealed message with which a real participant still works; one less crashes it.
MIN_MAX_MESSAGE_SIZE: Final = 194
#: What a collected chunk is counted for beside its data: about an entry of a dictionary and its two objects. Without it,
#: empty chunks would cost nothing.
CHUNK_OVERHEAD_BYTES: Final = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One piece of a payload.

    Attributes:
        chunk_id: place among the chunks of its payload, from 0.
        message_id: the same for all chunks of one payload, drawn at random by the sender.
        is_last: no chunk of this payload has a higher id.
        data: the piece; after decoding a view of the message, which must outlive it.
    """

    chunk_id: int
    message_id: int
    is_last: bool
    data: Buffer = field(repr=False)

    def __post_init__(self) -> None:
        for name, value in (("chunk_id", self.chunk_id), ("message_id", self.message_id)):
            if not 0 <= value < MAX_CHUNK_COUNT:
                raise LocalProtocolError(f"{name}: expected 0 to {MAX_CHUNK_COUNT - 1}, got {value}")

    @property
    def size_bytes(self) -> int:
        """Size of the serialised chunk."""
        return CHUNK_HEADER_BYTES + len(self.data)

    def encode_parts(self) -> list[Buffer]:
        """Return the serialised chunk as buffers to be sent one after the other; the data is not copied."""
        return [_LAYOUT.pack(self.chunk_id, self.message_id, _LAST_FLAG if self.is_last else 0), self.data]

    @classmethod
    def decode(cls, data: Buffer) -> Chunk:
        """Read a whole chunk. Flags and reserved bytes without a meaning are ignored, as the reference does.

        Raises:
            RemoteProtocolError: "malformed_chunk".
        """
        view = memoryview(data)
        if len(view) < CHUNK_HEADER_BYTES:
            raise RemoteProtocolError(
                "malformed_chunk", f"chunk: expected at least {CHUNK_HEADER_BYTES} bytes, got {len(view)}"
            )
        chunk_id, message_id, flags = _LAYOUT.unpack_from(view)
        is_last = bool(flags & _LAST_FLAG)
        return cls(chunk_id=chunk_id, message_id=message_id, is_last=is_last, data=view[CHUNK_HEADER_BYTES:])


def max_payload_bytes(max_message_size: int) -> int:
    """Return the largest payload that needs no splitting, for a bound on the sealed message.

    Raises:
        ConfigError: the bound is too small for chunks that real participants can make.
    """
    if max_message_size < MIN_MAX_MESSAGE_SIZE:
        raise ConfigError(f"max_message_size: expected at least {MIN_MAX_MESSAGE_SIZE} bytes, got {max_message_size}")
    return max_message_size - HEADER_BYTES - SEAL_BYTES


def split_payload(parts: Sequence[Buffer], max_message_size: int, message_id: int) -> Iterator[Chunk]:
    """Cut a payload into chunks whose sealed messages are of `max_message_size` bytes, the last one shorter or equal.

    Whether a payload needs splitting is the caller's question (`max_payload_bytes`); one that does not gives a single chunk.

    Args:
        parts: the payload as buffers in order, as `encode_parts` returns them. They must outlive the chunks.
        max_message_size: bound on the sealed message of a chunk, in bytes.
        message_id: 16 random bits.

    Raises:
        ConfigError: `max_message_size` is below 194.
        LocalProtocolError: more than 65 536 chunks would be needed.
    """
    data_bytes = max_payload_bytes(max_message_size) - CHUNK_HEADER_BYTES
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    count = max(1, -(-sum(map(len, views)) // data_bytes))
    if count > MAX_CHUNK_COUNT:
        raise LocalProtocolError(
            f"payload of {sum(map(len, views))} bytes in chunks of {data_bytes}: expected at most {MAX_CHUNK_COUNT} chunks, "
            f"got {count}; raise max_message_size"
        )
    pieces = _cut(views, data_bytes)
    return (
        Chunk(chunk_id=chunk_id, message_id=message_id, is_last=chunk_id == count - 1, data=next(pieces, b""))
        for chunk_id in range(count)
    )


def _cut(views: Sequence[memoryview], size: int) -> Iterator[Buffer]:
    """Yield pieces of `size` bytes: views where one part holds the whole piece, copies where it spans several."""
    pending: list[memoryview] = []
    missing = size
    for view in views:
        while len(view):
            pending.append(view[:missing])
            missing -= len(pending[-1])
            view = view[len(pending[-1]) :]
            if not missing:
                yield pending[0] if len(pending) == 1 else b"".join(pending)
                pending, missing = [], size
    if pending:
        yield b"".join(pending)


class ChunkCollector:
    """Puts the payloads of many participants back together, within bounds (spec 4.7).

    A payload is known by its sender and message id. Its chunks may come in any order; one that comes twice counts once, and
    what came last stays, as in the reference. A refused chunk changes nothing. A participant can only add to its own
    payloads, but many can share the bound for all: clear the collector at the end of each phase.

    Attributes:
        size_bytes: what the collected chunks are counted for: their data, and CHUNK_OVERHEAD_BYTES for each.
    """

    def __init__(self, max_bytes_per_participant: int, max_bytes: int, max_messages: int) -> None:
        """Set the bounds.

        Args:
            max_bytes_per_participant: bound on what one participant's chunks are counted for, overhead included.
            max_bytes: the same for all participants together.
            max_messages: bound on the number of incomplete payloads of all participants.
        """
        self._max_bytes_per_participant = max_bytes_per_participant
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._payloads: dict[tuple[bytes, int], _IncompletePayload] = {}
        self._bytes_by_participant: dict[bytes, int] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        """Return the number of incomplete payloads."""
        return len(self._payloads)

    def add(self, public_key: bytes, tag: Tag, chunk: Chunk) -> bytes | None:
        """Take one chunk of a participant; its data is copied.

        Returns:
            The whole payload if this chunk was the last one missing, else None.

        Raises:
            RemoteProtocolError: "chunk_conflict" (another tag than the first chunk's, a second last chunk, an id above the
                last) or "chunk_limit". Nothing has changed then.
        """
        key = public_key, chunk.message_id
        payload = self._payloads.get(key)
        if payload is None:
            payload = _IncompletePayload(tag)
            self._require_room("incomplete payloads", self._max_messages, len(self._payloads) + 1)
        payload.require_agreement(tag, chunk)
        growth = payload.growth_bytes(chunk)
        participant_bytes = self._bytes_by_participant.get(public_key, 0) + growth
        self._require_room("bytes of one participant", self._max_bytes_per_participant, participant_bytes)
        self._require_room("bytes of all participants", self._max_bytes, self.size_bytes + growth)

        payload.take(chunk)
        self._payloads[key] = payload
        self._bytes_by_participant[public_key] = participant_bytes
        self.size_bytes += growth
        return self._remove(key) if payload.is_complete else None

    def holds(self, public_key: bytes, message_id: int) -> bool:
        """Say whether there are chunks of a payload that is not whole."""
        return (public_key, message_id) in self._payloads

    def clear(self) -> None:
        """Drop all chunks."""
        self._payloads.clear()
        self._bytes_by_participant.clear()
        self.size_bytes = 0

    def _remove(self, key: tuple[bytes, int]) -> bytes:
        payload = self._payloads.pop(key)
        self.size_bytes -= payload.size_bytes
        self._bytes_by_participant[key[0]] -= payload.size_bytes
        if not self._bytes_by_participant[key[0]]:
            del self._bytes_by_participant[key[0]]
        return payload.join()

    def _require_room(self, what: str, limit: int, needed: int) -> None:
        if needed > limit:
            raise RemoteProtocolError("chunk_limit", f"chunks: expected at most {limit} {what}, got {needed}")


class _IncompletePayload:
    """The chunks of one payload that have come so far."""

    def __init__(self, tag: Tag) -> None:
        self._tag = tag
        self._pieces: dict[int, bytes] = {}
        self._highest_id = -1
        self._last_id: int | None = None
        self.size_bytes = 0

    @property
    def is_complete(self) -> bool:
        # No id above the last is ever taken, so that many different ones are all of them.
        return self._last_id is not None and len(self._pieces) == self._last_id + 1

    def require_agreement(self, tag: Tag, chunk: Chunk) -> None:
        """Refuse a chunk that contradicts those before it."""
        if tag is not self._tag:
            raise RemoteProtocolError("chunk_conflict", f"chunk: expected tag {self._tag.name} as before, got {tag.name}")
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
        """Return by how much `size_bytes` grows with a chunk; less than 0 if it replaces a larger one."""
        known = self._pieces.get(chunk.chunk_id)
        return len(chunk.data) + CHUNK_OVERHEAD_BYTES if known is None else len(chunk.data) - len(known)

    def take(self, chunk: Chunk) -> None:
        self.size_bytes += self.growth_bytes(chunk)
        # A copy, so that what is counted is what is held: a view would keep its whole message alive.
        self._pieces[chunk.chunk_id] = bytes(chunk.data)
        self._highest_id = max(self._highest_id, chunk.chunk_id)
        if chunk.is_last:
            self._last_id = chunk.chunk_id

    def join(self) -> bytes:
        return b"".join(self._pieces[chunk_id] for chunk_id in range(len(self._pieces)))
