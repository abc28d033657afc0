"""Rows from wherever they are (NumPy, pandas, CSV) as blocks of float64, one column per feature of a schema.

A block is checked against the schema here: columns, missing values, range. Nothing is kept; sums are made elsewhere.

Source: docs/spec/federation.md 1.9 ("a value outside is refused with its row and feature, not clipped").
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError, RowError
from pet.federation.numbers import columns_by_name, to_floats
from pet.federation.schema import Schema

#: Rows that are worked on at a time: with 1000 features 32 MiB, few enough to stream and enough for the matrix products.
BLOCK_ROWS: Final = 4096

#: What a CSV file may have in place of a number, besides nothing at all.
_MISSING_WORDS: Final = frozenset({"", "na", "nan", "null", "none"})


@dataclass(frozen=True, slots=True)
class CsvLines:
    """Lines of CSV text with a header, from wherever they come."""

    lines: Iterable[str]


def read_blocks(source: Any, schema: Schema, *, block_rows: int = BLOCK_ROWS) -> Iterator[NDArray[np.float64]]:
    """Yield the rows of a source as checked blocks of z = (x - centre) / scale, beside the raw values.

    Args:
        source: a matrix with columns in the schema's order; a mapping from feature names to columns; a pandas DataFrame; the
            path of a CSV file with a header; an open text file or `CsvLines` with one; or an iterable of any of these.
        schema: the features. A table may have further columns, which are not looked at.
        block_rows: largest number of rows in a block.

    Yields:
        Raw values, float64, shape (rows, features); a missing one is NaN.

    Raises:
        RowError: a value is no number, missing where none may be, or out of the feature's range; rows count from 0 over the
            whole source.
        FederationValueError: a feature is no column of the table, or a matrix has another width.
    """
    start = 0
    for block in _raw_blocks(source, schema, block_rows):
        _check(block, schema, start)
        yield block
        start += len(block)


def _raw_blocks(source: Any, schema: Schema, block_rows: int) -> Iterator[NDArray[np.float64]]:
    if isinstance(source, str | Path):
        with Path(source).open(newline="", encoding="utf-8-sig") as file:
            yield from _csv_blocks(file, schema, block_rows)
    elif isinstance(source, io.TextIOBase):
        yield from _csv_blocks(source, schema, block_rows)
    elif isinstance(source, CsvLines):
        yield from _csv_blocks(source.lines, schema, block_rows)
    elif isinstance(source, np.ndarray):
        yield from _sliced(_matrix(source, schema), block_rows)
    elif isinstance(source, Mapping) or hasattr(source, "columns"):
        yield from _sliced(_table(source, schema), block_rows)
    else:
        for part in source:
            yield from _raw_blocks(part, schema, block_rows)


def _matrix(values: NDArray[Any], schema: Schema) -> NDArray[np.float64]:
    if values.ndim != 2 or values.shape[1] != len(schema):
        raise FederationValueError(f"rows: expected a matrix with {len(schema)} columns, got an array of shape {values.shape}")
    return to_floats(values, "matrix")


def _table(table: Any, schema: Schema) -> NDArray[np.float64]:
    return columns_by_name(table, schema.names)


def _sliced(values: NDArray[np.float64], block_rows: int) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(values), block_rows):
        yield values[start : start + block_rows]


def _csv_blocks(lines: Iterable[Any], schema: Schema, block_rows: int) -> Iterator[NDArray[np.float64]]:
    reader = _fields(lines)
    header = [name.strip() for name in next(reader, [])]
    if repeated := [name for name in schema.names if header.count(name) != 1]:
        raise FederationValueError(
            f"CSV header: expected every feature once, got {', '.join(map(repr, repeated[:5]))} missing or twice"
        )
    places = [header.index(name) for name in schema.names]
    row = 0
    while table := list(islice((line for line in reader if line), block_rows)):
        block = np.empty((len(table), len(schema)))
        for i, line in enumerate(table):
            if len(line) != len(header):
                raise RowError(row + i, None, f"expected {len(header)} fields, got {len(line)}")
            block[i] = [_number(line[place], row + i, name) for place, name in zip(places, schema.names, strict=True)]
        row += len(table)
        yield block


def _fields(lines: Iterable[Any]) -> Iterator[list[str]]:
    """Yield the fields of each line.

    Raises:
        FederationValueError: a field is larger than the reader takes, or the text is not UTF-8.
    """
    reader = csv.reader(lines)
    try:
        yield from reader
    except csv.Error as error:
        raise FederationValueError(f"CSV, line {reader.line_num}: expected fields that can be read, got: {error}") from None
    except UnicodeDecodeError as error:
        raise FederationValueError(f"CSV, after line {reader.line_num}: expected UTF-8, got: {error.reason}") from None


def _number(text: str, row: int, name: str) -> float:
    text = text.strip()
    if text.lower() in _MISSING_WORDS:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise RowError(row, name, "expected a number, got other text") from None


def _check(block: NDArray[np.float64], schema: Schema, start: int) -> None:
    """Refuse the first value that is out of range; the value itself is somebody's data and stays out of the message."""
    is_missing = np.isnan(block)
    low, high = np.array([schema.range_of(feature) for feature in schema.features]).T
    with np.errstate(invalid="ignore"):
        z = (block - schema.centres) / schema.scales
        is_outside = ~is_missing & ~(np.abs(z) <= schema.z_max)
        is_outside[:, schema.binary] = ~is_missing[:, schema.binary] & ~np.isin(block[:, schema.binary], (0.0, 1.0))
    if not schema.has_missing and is_missing.any():
        row, place = np.argwhere(is_missing)[0]
        raise RowError(start + int(row), schema.names[place], "expected a value, as the schema allows none to be missing")
    if is_outside.any():
        row, place = np.argwhere(is_outside)[0]
        expected = "0 or 1" if place in schema.binary else f"a value from {low[place]:g} to {high[place]:g}"
        raise RowError(start + int(row), schema.names[place], f"expected {expected}, got one outside")
