"""The header of statistics as bytes: whose features, how many rows, and what their numbers went through. No numbers.

Version 1 is 52 bytes. Version 2 has 8 bytes more for the rows that were forgotten, and where version 1 has a zero, the number
of peers of a round of release 0.2 or before, which kept decimal places; it is written only where one of the two is not 0, so
what needs neither is read by older versions of pet too. Version 3 is of totals of a round of pet/1, which are exact: it has the
number of its peers there, and the other one behind the forgotten rows.

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
_DECIMAL: Final = struct.Struct(">H")
#: What follows in each version.
_REST_BYTES: Final = {1: 0, 2: _FORGOTTEN.size, 3: _FORGOTTEN.size + _DECIMAL.size}
_MAX_MASKED_PEERS: Final = (1 << 16) - 1
_MAX_FORGOTTEN_ROWS: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsHeader:
    """What stands before the numbers.

    Attributes:
        digest: of the schema, 32 bytes.
        rows: below 0 in a difference.
        length: how many numbers a vector has.
        has_residues: whether the lower halves follow; of totals of a round those of all but counts always do.
        masked_peers: of the round that the numbers came from, cut off at 65535; 0 for none.
        decimal_peers: the same of a round of release 0.2 or before.
        forgotten_rows: that were taken off again.
    """

    digest: bytes
    rows: int
    length: int
    has_residues: bool
    masked_peers: int = 0
    decimal_peers: int = 0
    forgotten_rows: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the header."""
        return _FIXED.size + _REST_BYTES[self._version]

    @property
    def _version(self) -> int:
        if self.masked_peers > 0:
            return 3
        return 2 if self.decimal_peers > 0 or self.forgotten_rows > 0 else 1

    def to_bytes(self) -> bytes:
        """Return the header as bytes."""
        masked, decimal = (min(count, _MAX_MASKED_PEERS) for count in (self.masked_peers, self.decimal_peers))
        version, residues, peers = self._version, int(self.has_residues), masked or decimal
        fixed = _FIXED.pack(_MAGIC, version, residues, peers, self.digest, self.rows, self.length)
        forgotten = _FORGOTTEN.pack(min(max(self.forgotten_rows, 0), _MAX_FORGOTTEN_ROWS))  # below 0 in some differences
        return (fixed + forgotten + _DECIMAL.pack(decimal))[: self.size_bytes]

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the header at the start of bytes.

        Raises:
            RemoteProtocolError: there is none (reason "malformed_statistics"), or of another version ("unknown_version").
        """
        if len(data) < _FIXED.size or data[: len(_MAGIC)] != _MAGIC:
            raise RemoteProtocolError("malformed_statistics", f"statistics: expected a header, got {len(data)} other bytes")
        _, version, flags, peers, digest, rows, length = _FIXED.unpack_from(data)
        if version not in _REST_BYTES:
            raise RemoteProtocolError(
                "unknown_version", f"statistics: expected format version 1, 2 or 3, got {version}, of another version of pet"
            )
        if flags & ~_HAS_RESIDUES or (version == 1 and peers) or len(data) < _FIXED.size + _REST_BYTES[version]:
            raise RemoteProtocolError("malformed_statistics", "statistics: expected the header of their version, got another")
        forgotten = _FORGOTTEN.unpack_from(data, _FIXED.size)[0] if version > 1 else 0
        header = cls(
            digest=digest,
            rows=rows,
            length=length,
            has_residues=bool(flags),
            masked_peers=peers if version == 3 else 0,
            decimal_peers=_DECIMAL.unpack_from(data, _FIXED.size + _FORGOTTEN.size)[0] if version == 3 else peers,
            forgotten_rows=forgotten,
        )
        if header._version != version or forgotten > _MAX_FORGOTTEN_ROWS:
            raise RemoteProtocolError("malformed_statistics", "statistics: expected the header of their version, got another")
        return header
