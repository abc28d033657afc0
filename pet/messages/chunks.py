"""Large payloads in pieces: what a chunk is, and splitting a payload into chunks.

Each chunk travels in a signed, sealed message of its own; only the payload of the large message is split. What the payload
says is not known here, nor how chunks are put back together (pet/messages/chunk_collector.py).

Source: docs/spec/pet.md 4.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pet.buffers import Buffer
from pet.crypto import SEAL_BYTES
from pet.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from pet.messages.header import HEADER_BYTES

_LAYOUT: Final = struct.Struct(">HHB3x")
_LAST_FLAG: Final = 0x01

CHUNK_HEADER_BYTES: Final[int] = _LAYOUT.size
MAX_CHUNK_COUNT: Final = 2**16
#: The smallest bound on a sealed message with which a real participant still works; one less crashes it.
MIN_MAX_MESSAGE_SIZE: Final = 194


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
