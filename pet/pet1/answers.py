"""What a coordinator answers to an update that is opened, or to a piece of it; and the bodies that pieces travel in.

Source: docs/spec/profile.md 7.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from pet.buffers import Buffer
from pet.pet1.hashes import DIGEST_BYTES, u16, u32
from pet.pet1.leaves import LEAF_BYTES, MAX_PIECE_LEAVES
from pet.pet1.refusing import require

#: The first byte of an answer.
OPEN: Final = 0
ACCEPTED: Final = 1
REFUSED: Final = 2
#: What a piece begins with: the header digest, and the number of its first leaf.
PIECE_HEAD: Final = struct.Struct(f"<{DIGEST_BYTES}sI")
#: Reasons are short identifiers.
_MAX_REASON_BYTES: Final = 100
_MALFORMED: Final = "malformed_answer"


@dataclass(frozen=True, slots=True)
class UpdateOpen:
    """The update is open: its vector, or the rest of it, may come.

    Attributes:
        pieces_in_flight: how many pieces may be on their way at a time, 1 or more.
        have: for each leaf whether it is there.
    """

    pieces_in_flight: int
    have: tuple[bool, ...]

    def encode(self) -> bytes:
        """Return the answer's bytes."""
        bits = np.packbits(np.frombuffer(bytes(self.have), dtype=np.uint8), bitorder="little")
        return bytes([OPEN]) + u16(self.pieces_in_flight) + bits.tobytes()

    def missing(self, most_leaves: int = MAX_PIECE_LEAVES) -> Iterator[range]:
        """Yield the leaves that are missing, as pieces of at most 16 in a row, or of another number."""
        have, end = self.have, 0
        while (start := _find(have, end, is_there=False)) < len(have):
            end = min(start + most_leaves, _find(have, start, is_there=True))
            yield range(start, end)


def _find(have: tuple[bool, ...], start: int, *, is_there: bool) -> int:
    """Return the number of the first leaf from one on that is there, or is not; behind the last if there is none."""
    try:
        return have.index(is_there, start)
    except ValueError:
        return len(have)


@dataclass(frozen=True, slots=True)
class UpdateAccepted:
    """All leaves are there and durable."""

    def encode(self) -> bytes:
        """Return the answer's bytes."""
        return bytes([ACCEPTED])


@dataclass(frozen=True, slots=True)
class UpdateRefused:
    """The update, or the piece, is refused.

    Attributes:
        reason: as docs/spec/profile.md names it.
    """

    reason: str

    def encode(self) -> bytes:
        """Return the answer's bytes."""
        return bytes([REFUSED]) + self.reason.encode("ascii")


UpdateAnswer: TypeAlias = UpdateOpen | UpdateAccepted | UpdateRefused

#: The answer to a leaf that is not the one that its sender signed.
WRONG_LEAF: Final = UpdateRefused("wrong_leaf").encode()


def read_answer(data: Buffer, leaf_count: int) -> UpdateAnswer:
    """Read an answer about a vector with this number of leaves.

    Raises:
        RemoteProtocolError: "malformed_answer".
    """
    data = bytes(data)
    kind, rest = data[:1], data[1:]
    if kind == bytes([ACCEPTED]) and not rest:
        return UpdateAccepted()
    if kind == bytes([REFUSED]):
        reason = rest.decode("ascii", "replace")
        is_name = 0 < len(rest) <= _MAX_REASON_BYTES and reason.isascii() and reason.isidentifier()
        require(is_name, _MALFORMED, f"answer: expected a reason of at most {_MAX_REASON_BYTES} letters, got something else")
        return UpdateRefused(reason)
    is_sized = kind == bytes([OPEN]) and len(rest) == 2 + -(-leaf_count // 8)
    require(is_sized, _MALFORMED, f"answer: expected open, accepted or refused for {leaf_count} leaves, got {len(data)} bytes")
    pieces_in_flight, bitmap = int.from_bytes(rest[:2], "little"), int.from_bytes(rest[2:], "little")
    is_possible = pieces_in_flight > 0 and bitmap < 1 << leaf_count
    require(is_possible, _MALFORMED, "answer: expected room for a piece or more, and no leaves beyond the last, got others")
    bits = np.unpackbits(np.frombuffer(rest, dtype=np.uint8, offset=2), count=leaf_count, bitorder="little")
    return UpdateOpen(pieces_in_flight, tuple(bits.astype(bool).tolist()))


def build_piece(header_digest: bytes, leaves: range, vector: memoryview) -> list[Buffer]:
    """Return the body of a piece as buffers to be sent one after the other; the leaves are a view of the vector."""
    return [header_digest + u32(leaves.start), vector[leaves.start * LEAF_BYTES : leaves.stop * LEAF_BYTES]]


def read_piece(data: Buffer) -> tuple[bytes, int, memoryview]:
    """Read the body of a piece.

    Returns:
        The header digest, the number of its first leaf, and the leaves, a view of the data.

    Raises:
        RemoteProtocolError: "length_mismatch".
    """
    view = memoryview(data).cast("B")
    require(
        len(view) > PIECE_HEAD.size, "length_mismatch", f"piece: expected more than {PIECE_HEAD.size} bytes, got {len(view)}"
    )
    header_digest, first = PIECE_HEAD.unpack_from(view)
    return header_digest, first, view[PIECE_HEAD.size :]
