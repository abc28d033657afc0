"""Rows of a table as blocks of float64, one column per feature of a schema, checked against it: columns, missing values, range.

Where a table comes from is the business of tables.py. Nothing is kept; sums are made elsewhere.

Source: docs/spec/federation.md 1.9 ("a value outside is refused with its row and feature, not clipped").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError
from pet.federation.formats.numbers import require_columns, to_floats
from pet.federation.formats.tables import BLOCK_ROWS, TableBlock, is_table, opened
from pet.federation.statistics.schema import Schema


class Watcher(Protocol):
    """Sees what is read of a source."""

    def update(self, values: NDArray[np.float64]) -> None:
        """See the next rows: raw values, float64, shape (rows, features), in the schema's order."""
        ...

    def update_others(self, digest: bytes) -> None:
        """See the digest of the columns of a table that are no features; after its rows, and only if it has some."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """A source whose rows somebody sees while they are read, once each, after they were checked.

    Attributes:
        source: as `read_blocks` takes it.
        watcher: sees them.
    """

    source: Any
    watcher: Watcher


def read_blocks(source: Any, schema: Schema, *, block_rows: int = BLOCK_ROWS) -> Iterator[NDArray[np.float64]]:
    """Yield the rows of a source as checked blocks of raw values.

    Args:
        source: a matrix with columns in the schema's order, or a vector for a schema of one feature; whatever else
            `pet.federation.formats.tables.opened` takes, which may have further columns, not looked at; or an
            iterable of any of these.
        schema: the features.
        block_rows: largest number of rows in a block.

    Yields:
        Raw values, float64, shape (rows, features); a missing one is NaN.

    Raises:
        RowError: a value is no number, missing where none may be, or out of the feature's range, or a row of a file is
            malformed; rows count from 0 over the whole source, and files give line and column.
        FederationValueError: a feature is no column of the table, or a matrix has another width.
    """
    if isinstance(source, Watched):
        yield from _checked(source.source, schema, block_rows, source.watcher)
    else:
        yield from _checked(source, schema, block_rows, None)


def _checked(source: Any, schema: Schema, block_rows: int, watcher: Watcher | None) -> Iterator[NDArray[np.float64]]:
    start = 0
    for block in _raw_blocks(source, schema, block_rows, watcher):
        _check(block, schema, start)
        if watcher is not None:
            watcher.update(block.values)
        yield block.values
        start += len(block.values)


def _raw_blocks(source: Any, schema: Schema, block_rows: int, watcher: Watcher | None) -> Iterator[TableBlock]:
    if isinstance(source, np.ndarray) and not source.dtype.names:
        values = _matrix(source, schema)
        for start in range(0, len(values), block_rows):
            yield TableBlock(values[start : start + block_rows])
    elif is_table(source):
        with opened(source) as table:
            require_columns(table.names, schema.names)
            yield from table.blocks(schema.names, block_rows)
            if watcher is not None and (digest := table.others_digest()):
                watcher.update_others(digest)
    else:
        for part in source:
            yield from _raw_blocks(part, schema, block_rows, watcher)


def _matrix(values: NDArray[Any], schema: Schema) -> NDArray[np.float64]:
    if values.ndim == 1 and len(schema) == 1:
        values = values.reshape(-1, 1)
    if values.ndim != 2 or values.shape[1] != len(schema):
        raise FederationValueError(f"rows: expected a matrix with {len(schema)} columns, got an array of shape {values.shape}")
    return to_floats(values, "matrix")


def _check(block: TableBlock, schema: Schema, start: int) -> None:
    """Refuse the first value that is out of range; the value itself is somebody's data and stays out of the message."""
    values = block.values
    is_missing = np.isnan(values)
    low, high = np.array([schema.range_of(feature) for feature in schema.features]).T
    with np.errstate(invalid="ignore"):
        z = (values - schema.centres) / schema.scales
        is_outside = ~is_missing & ~(np.abs(z) <= schema.z_max)
        is_outside[:, schema.binary] = ~is_missing[:, schema.binary] & ~np.isin(values[:, schema.binary], (0.0, 1.0))
    if not schema.has_missing and is_missing.any():
        row, place = map(int, np.argwhere(is_missing)[0])
        problem = "expected a value, as the schema allows none to be missing"
        raise block.error(row, place, schema.names[place], problem, start)
    if is_outside.any():
        row, place = map(int, np.argwhere(is_outside)[0])
        expected = "0 or 1" if place in schema.binary else f"a value from {low[place]:g} to {high[place]:g}"
        raise block.error(row, place, schema.names[place], f"expected {expected}, got one outside", start)
