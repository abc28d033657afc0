"""The header of statistics as bytes: whose features, how many rows, and what their numbers went through. No numbers.

Version 1 is 52 bytes. Version 2 has the number of masked peers where 1 has a zero, and 8 bytes more for the rows that were
forgotten; it is written only where one of the two is not 0, so what needs neither is read by older versions of pet too.

Source: docs/spec/federation.md 1.9.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Self

from pet.errors import RemoteProtocolError

_MAGIC: Final = b"PETS"
_HAS_RESIDUES: Final = 1
_FIXED: Final = struct.Struct(">4sBBH32sqI")
_FORGOTTEN: Final = struct.Struct(">Q")
_MAX_MASKED_PEERS: Final = (1 << 16) - 1
_MAX_FORGOTTEN_ROWS: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsHeader:
    """What stands before the numbers.

    Attributes:
        digest: of the schema, 32 bytes.
        rows: below 0 in a difference.
        length: how many numbers a vector has.
        has_residues: whether the lower halves follow.
        masked_peers: of the round that the numbers came from, cut off at 65535; 0 for none.
        forgotten_rows: that were taken off again.
    """

    digest: bytes
    rows: int
    length: int
    has_residues: bool
    masked_peers: int = 0
    forgotten_rows: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the header."""
        return _FIXED.size + (_FORGOTTEN.size if self._version > 1 else 0)

    @property
    def _version(self) -> int:
        return 2 if self.masked_peers > 0 or self.forgotten_rows > 0 else 1

    def to_bytes(self) -> bytes:
        """Return the header as bytes."""
        peers, residues = min(self.masked_peers, _MAX_MASKED_PEERS), int(self.has_residues)
        fixed = _FIXED.pack(_MAGIC, self._version, residues, peers, self.digest, self.rows, self.length)
        forgotten = min(max(self.forgotten_rows, 0), _MAX_FORGOTTEN_ROWS)  # below 0 in some differences
        return fixed + _FORGOTTEN.pack(forgotten) if self._version > 1 else fixed

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the header at the start of bytes.

        Raises:
            RemoteProtocolError: there is none (reason "malformed_statistics"), or of another version ("unknown_version").
        """
        if len(data) < _FIXED.size or data[: len(_MAGIC)] != _MAGIC:
            raise RemoteProtocolError("malformed_statistics", f"statistics: expected a header, got {len(data)} other bytes")
        _, version, flags, peers, digest, rows, length = _FIXED.unpack_from(data)
        if version not in (1, 2):
            raise RemoteProtocolError(
                "unknown_version", f"statistics: expected format version 1 or 2, got {version}, of another version of pet"
            )
        if flags & ~_HAS_RESIDUES or (version == 1 and peers) or (version > 1 and len(data) < _FIXED.size + _FORGOTTEN.size):
            raise RemoteProtocolError("malformed_statistics", "statistics: expected the header of their version, got another")
        forgotten = _FORGOTTEN.unpack_from(data, _FIXED.size)[0] if version > 1 else 0
        header = cls(
            digest=digest,
            rows=rows,
            length=length,
            has_residues=bool(flags),
            masked_peers=peers,
            forgotten_rows=forgotten,
        )
        if header._version != version or forgotten > _MAX_FORGOTTEN_ROWS:
            raise RemoteProtocolError("malformed_statistics", "statistics: expected the header of their version, got another")
        return header
