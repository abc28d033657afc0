"""A table on its way from a client to a server: pieces of doubles with the columns' names, each complete by itself.

The client reads and checks a table as the library does, so that errors name line and column before they cost a request; what
travels are numbers, whatever the table was. No request is known here.

Source: docs/spec/federation.md 9.2.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError
from pet.federation.formats.encoding import parse_json_object
from pet.federation.formats.tables import BLOCK_ROWS, Table, TableBlock, is_table, opened, with_names
from pet.federation.statistics.rows import Watched, read_blocks
from pet.federation.statistics.schema import Schema

#: The type of a body with rows in this form.
CONTENT_TYPE: Final = "application/vnd.pet.rows"
#: Far below what a server takes, and large enough that a request costs nothing beside its rows.
PIECE_BYTES: Final = 8 << 20
#: The same of a server that speaks the vendor's formats, which takes no more than 1 MiB, with room for names of columns.
COMPAT_PIECE_BYTES: Final = 3 << 18
_MAGIC: Final = b"PETR"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<4sB3xI")
_MAX_HEADING_BYTES: Final = 4 << 20
_DIGEST: Final = re.compile("([0-9a-f]{64})?")


def pieces(rows: Any, names: Sequence[str] | str | None, schema: Schema | None, piece_bytes: int) -> Iterator[bytes]:
    """Yield a table in pieces of whole blocks, or of parts of them where one is too large; a piece without rows if it has none.

    Args:
        rows: as `pet.federation.formats.tables.opened` takes it.
        names: of the columns of an array.
        schema: of the federation: then only its features are read, and checked. Without one all columns that have a name.
        piece_bytes: size of a piece, about; at least one row is in it.

    Raises:
        RowError, FederationValueError: the table is malformed, or its values do not fit the schema.
        OSError: the file cannot be read.
    """
    source, others = _table(rows, names), _Others()
    if schema is not None:
        yield from _grouped(schema.names, read_blocks(Watched(source, others), schema), others, piece_bytes)
        return
    with opened(source) as table:
        yield from _grouped(table.named, _values(table, table.named, others), others, piece_bytes)


def encode_piece(names: Sequence[str], blocks: Sequence[NDArray[np.float64]], others: bytes = b"") -> bytes:
    """Return blocks of rows as one piece: header, heading in JSON, little-endian doubles.

    Args:
        names: of the columns.
        blocks: each of shape (rows, columns).
        others: with the last piece, a digest of the table's further columns, which stay where they are.
    """
    heading = json.dumps({"names": list(names), "others": others.hex()}).encode()
    header = _HEADER.pack(_MAGIC, _VERSION, len(heading))
    return b"".join([header, heading, *(np.ascontiguousarray(block, dtype="<f8").tobytes() for block in blocks)])


def decode_piece(data: bytes) -> Table:
    """Return a piece as a table; its columns are views of its bytes.

    Raises:
        FederationValueError: not a piece.
    """
    if len(data) < _HEADER.size:
        raise FederationValueError(f"rows: expected a header of {_HEADER.size} bytes, got {len(data)} bytes")
    magic, version, length = _HEADER.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION) or data[5:8] != bytes(3):
        raise FederationValueError(f"rows: expected a header of version {_VERSION}, got another")
    names, others = _read_heading(data[_HEADER.size : _HEADER.size + length] if length <= _MAX_HEADING_BYTES else b"")
    body = memoryview(data)[_HEADER.size + length :]
    if len(body) % (8 * len(names)):
        raise FederationValueError(f"rows: expected whole rows of {len(names)} doubles, got {len(body)} bytes")
    return _Piece(names, np.frombuffer(body, dtype="<f8").reshape(-1, len(names)), others)


def _read_heading(data: bytes) -> tuple[list[str], bytes]:
    heading = parse_json_object(data) or {}
    names, others = heading.get("names"), heading.get("others")
    has_names = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    if not has_names or not isinstance(others, str) or not _DIGEST.fullmatch(others):
        raise FederationValueError("rows: expected a heading with names and others, got something else")
    return list(names or []), bytes.fromhex(others)


class _Piece(Table):
    def __init__(self, names: Sequence[str], values: NDArray[np.float64], others: bytes) -> None:
        super().__init__(names)
        self._values: Final = values
        self._others_digest: Final = others

    def _parts(self, names: Sequence[str], block_rows: int) -> Iterator[TableBlock]:
        places = [self.names.index(name) for name in names]
        for start in range(0, len(self._values), block_rows):
            yield TableBlock(self._values[start : start + block_rows, places])

    def others_digest(self) -> bytes:
        return self._others_digest


class _Others:
    """Keeps the digest of a table's further columns until its last piece is sent."""

    def __init__(self) -> None:
        self.digest = b""

    def update(self, values: NDArray[np.float64]) -> None:
        pass  # rows are sent, not kept

    def update_others(self, digest: bytes) -> None:
        self.digest = digest


def _values(table: Table, names: Sequence[str], others: _Others) -> Iterator[NDArray[np.float64]]:
    for block in table.blocks(names):
        yield block.values
    others.update_others(table.others_digest())


def _table(rows: Any, names: Sequence[str] | str | None) -> Any:
    if isinstance(rows, np.ndarray) and not rows.dtype.names:
        return with_names(rows, names)
    if names is not None:
        raise FederationValueError("names: expected none for a table that has its own, got some")
    if not is_table(rows):
        raise FederationValueError(
            f"rows: expected a table with named columns, or the path of a file, got a {type(rows).__name__}"
        )
    return rows


def _of_at_most(blocks: Iterator[NDArray[np.float64]], most_rows: int) -> Iterator[NDArray[np.float64]]:
    """Yield blocks, and parts of those that have more rows."""
    for block in blocks:
        for start in range(0, len(block), most_rows):
            yield block[start : start + most_rows]


def _grouped(names: Sequence[str], blocks: Iterator[NDArray[np.float64]], others: _Others, piece_bytes: int) -> Iterator[bytes]:
    most_rows = max(piece_bytes // (8 * len(names)), 1)
    per_piece = max(most_rows // BLOCK_ROWS, 1)
    held: list[NDArray[np.float64]] = []
    for block in _of_at_most(blocks, most_rows):
        if len(held) == per_piece:
            yield encode_piece(names, held)
            held = []
        held.append(block)
    yield encode_piece(names, held, others.digest)
