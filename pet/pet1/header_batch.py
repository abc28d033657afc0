"""Share headers as members fetch them: in the order of acceptance, each behind its length.

Source: docs/spec/profile.md 15.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pet.buffers import Buffer
from pet.pet1.refusing import require

#: Headers of one answer together, their lengths included; one that is larger by itself travels alone.
MAX_HEADER_BATCH_BYTES: Final = 8 << 20
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class HeaderBatch:
    """Share headers of a round in the order of acceptance.

    Attributes:
        headers: from the one that was asked for on.
        next_number: number of the header behind the last of them: where to go on.
    """

    headers: tuple[bytes, ...] = field(repr=False)
    next_number: int

    def parts(self) -> Iterator[bytes]:
        """Yield the headers, each behind its length."""
        return (part for header in self.headers for part in (_LENGTH.pack(len(header)), header))

    @property
    def size_bytes(self) -> int:
        """What the parts have together."""
        return sum(map(len, self.headers)) + _LENGTH.size * len(self.headers)

    def encode(self) -> bytes:
        """Return the headers, each behind its length."""
        return b"".join(self.parts())

    @classmethod
    def decode(cls, data: Buffer, first: int) -> HeaderBatch:
        """Read what `encode` wrote.

        Args:
            data: the bytes.
            first: number of the first header.

        Raises:
            RemoteProtocolError: "malformed_headers".
        """
        view, headers, start = memoryview(data).cast("B"), [], 0
        while start < len(view):
            body = start + _LENGTH.size
            end = body + _LENGTH.unpack_from(view, start)[0] if body <= len(view) else body
            require(end <= len(view), "malformed_headers", f"share headers: expected the rest of one, got {len(view)} bytes")
            headers.append(bytes(view[body:end]))
            start = end
        return cls(tuple(headers), first + len(headers))
