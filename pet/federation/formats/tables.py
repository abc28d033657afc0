"""Tables from wherever they are, read in one way: CSV and Parquet files, mappings of columns, pandas, NumPy and Arrow.

The library, the client, the REST interface and `--schema-from` all read through `opened`. A table has named columns of doubles
and hands them on in blocks of rows; nothing is known of schemas, requests and servers.

Source: docs/spec/federation.md 9.
"""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError, MissingExtraError, RowError
from pet.federation.formats.csv_reader import CsvReader
from pet.federation.formats.csv_table import CsvTable
from pet.federation.formats.numbers import require_columns, to_floats

#: Rows that are worked on at a time: with 1000 features 32 MiB, few enough to stream and enough for the matrix products.
BLOCK_ROWS: Final = 4096
_PARQUET: Final = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class TableBlock:
    """Consecutive rows of a table.

    Attributes:
        values: float64, shape (rows, columns); NaN is missing.
        lines: where each row begins in its file, int64, shape (rows,), from 1; None if it comes from none.
        places: number of each column in its file, from 1; as `lines`.
    """

    values: NDArray[np.float64]
    lines: NDArray[np.int64] | None = None
    places: tuple[int, ...] = ()

    def error(self, row: int, column: int, name: str, problem: str, first_row: int) -> RowError:
        """Return the error of one value: its row in the block, its column there, the rows of the table before the block."""
        if self.lines is None:
            return RowError(first_row + row, name, problem)
        return RowError(first_row + row, name, problem, int(self.lines[row]), self.places[column])


class Table(ABC):
    """An open table.

    Args:
        names: of its columns, all different.

    Attributes:
        names: as given.
    """

    def __init__(self, names: Sequence[str]) -> None:
        _require_different(names)
        self.names: Final = tuple(names)
        self._others: Final[dict[str, hashlib.blake2b]] = {}

    @property
    def named(self) -> tuple[str, ...]:
        """The names that are not empty; R and pandas write row numbers under an empty one.

        Raises:
            FederationValueError: there are none.
        """
        found = tuple(name for name in self.names if name)
        if not found:
            raise FederationValueError("table: expected columns with names, got none")
        return found

    def blocks(self, names: Sequence[str], block_rows: int = BLOCK_ROWS) -> Iterator[TableBlock]:
        """Yield all rows of some columns, in the order of `names`, which are columns of the table.

        Raises:
            RowError: a value is no finite number, or a row is malformed.
        """
        first_row = 0
        for block in _reblocked(self._parts(names, block_rows), block_rows):
            if (is_infinite := np.isinf(block.values)).any():
                row, column = map(int, np.argwhere(is_infinite)[0])
                raise block.error(row, column, names[column], "expected a finite number, got an infinity", first_row)
            yield block
            first_row += len(block.values)

    def others_digest(self) -> bytes:
        """Return a digest of the columns that `blocks` was not asked for, once all rows were read; empty if there are none.

        It tells tables apart that differ in other columns alone, whatever their line ends and blocks are.
        """
        parts = [part for name in sorted(self._others) for part in (name.encode(), self._others[name].digest())]
        return hashlib.blake2b(b"\0".join(parts), digest_size=32).digest() if parts else b""

    def _note_other(self, name: str, values: Any) -> None:
        """Add some rows of a column that nobody asked for to its digest."""
        array = np.asarray(values)
        data = "".join(f"{value}\0" for value in array.ravel().tolist()) if array.dtype.kind in "OUSV" else array.tobytes()
        digest = self._others.setdefault(name, hashlib.blake2b(digest_size=32))
        digest.update(data.encode(errors="surrogatepass") if isinstance(data, str) else data)

    @abstractmethod
    def _parts(self, names: Sequence[str], block_rows: int) -> Iterator[TableBlock]:
        """Yield the rows in parts of any size."""


@contextmanager
def opened(source: Any, names: Sequence[str] | None = None) -> Iterator[Table]:
    """Yield a table.

    Args:
        source: the path of a CSV or Parquet file, a `CsvTable`, an open CSV file; a mapping from names to columns, a pandas or
            polars table, a structured array; an array with one or two dimensions, with `names`; an Arrow table or batch.
        names: of the columns of an array that has none.

    Raises:
        FederationValueError: it is no table, or a column's name is there twice.
        RowError: the heading of a CSV file is malformed.
        MissingExtraError: a Parquet file, and pyarrow is not installed.
        OSError: the file cannot be read.
    """
    if isinstance(source, str | Path) and is_parquet(source):
        with _parquet(Path(source)) as table:
            yield table
    elif isinstance(source, str | Path | CsvTable | bytes | io.IOBase):
        reader = CsvReader(source if isinstance(source, CsvTable) else CsvTable(source))
        try:
            yield _CsvFile(reader)
        finally:
            reader.close()
    else:
        yield _in_memory(source, names)


def is_parquet(path: str | Path) -> bool:
    """Return whether a path is read as a Parquet file."""
    return Path(path).suffix.lower() in _PARQUET


def is_table(source: Any) -> bool:
    """Return whether `opened` takes a source, rather than an iterable of such."""
    is_file = isinstance(source, str | Path | CsvTable | bytes | io.IOBase)
    return is_file or isinstance(source, Table | Mapping | np.ndarray) or hasattr(source, "columns") or _is_arrow(source)


def with_names(values: NDArray[Any], names: Sequence[str] | str | None) -> dict[str, NDArray[Any]]:
    """Return the columns of an array by name; views, masks included.

    Args:
        values: shape (rows,) or (rows, columns).
        names: one for each column, in their order.

    Raises:
        FederationValueError: another number of names or of dimensions.
    """
    if values.ndim not in (1, 2):
        raise FederationValueError(f"rows: expected an array with one or two dimensions, got the shape {values.shape}")
    matrix = values.reshape(len(values), -1) if len(values) else values.reshape(0, 1 if values.ndim == 1 else values.shape[1])
    names = [names] if isinstance(names, str) else names
    if names is None or len(names) != matrix.shape[1]:
        got = "none" if names is None else f"{len(names)}"
        raise FederationValueError(f"names: expected one for each of the array's {matrix.shape[1]} columns, got {got}")
    _require_different(names)
    return {name: matrix[:, i] for i, name in enumerate(names)}


def read_columns(source: Any, wanted: Sequence[str] | None = None) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return columns of a table.

    Args:
        source: as `opened` takes it.
        wanted: their names; all that have one if not given.

    Returns:
        The names, and the values, shape (rows, columns).

    Raises:
        RowError, FederationValueError: a column is not there, or it does not hold numbers; and as `opened`.
    """
    with opened(source) as table:
        named = table.named if wanted is None else tuple(wanted)
        require_columns(table.names, named)
        blocks = [block.values for block in table.blocks(named)]
    return named, np.concatenate(blocks) if blocks else np.empty((0, len(named)))


class _CsvFile(Table):
    def __init__(self, reader: CsvReader) -> None:
        super().__init__(reader.names)
        self._reader: Final = reader

    def _parts(self, names: Sequence[str], block_rows: int) -> Iterator[TableBlock]:  # noqa: ARG002 - the interface's
        places = tuple(self.names.index(name) + 1 for name in names)
        for block in self._reader.blocks(names, self._note_texts):
            yield TableBlock(block.values, block.lines, places)

    def _note_texts(self, name: str, texts: Sequence[str]) -> None:
        self._others.setdefault(name, hashlib.blake2b(digest_size=32)).update("\0".join([*texts, ""]).encode())


class _Columns(Table):
    """Columns that are in memory, by name."""

    def __init__(self, columns: Mapping[Any, Any]) -> None:
        super().__init__([str(name).strip() for name in columns])
        self._columns: Final = dict(zip(self.names, columns.values(), strict=True))

    def _parts(self, names: Sequence[str], block_rows: int) -> Iterator[TableBlock]:
        columns = [to_floats(self._columns[name], name) for name in names]
        if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
            raise FederationValueError("table: expected columns of one length, got others")
        for start in range(0, len(columns[0]), block_rows):
            yield TableBlock(np.column_stack([column[start : start + block_rows] for column in columns]))
        for name in self.names:
            if name not in names:
                self._note_other(name, self._columns[name])


class _Batches(Table):
    """Record batches of Arrow; one at a time is in memory."""

    def __init__(self, names: Sequence[str], batches: Iterator[Any]) -> None:
        super().__init__(names)
        self._batches: Final = batches

    def _parts(self, names: Sequence[str], block_rows: int) -> Iterator[TableBlock]:
        row = 0
        for batch in self._batches:
            columns = _Columns({name: _arrow_column(batch.column(self.names.index(name))) for name in names})
            try:
                yield from columns._parts(names, block_rows)
            except RowError as error:
                raise RowError(row + error.row, error.feature, error.problem) from None
            row += batch.num_rows
            for place, name in enumerate(self.names):
                if name not in names:
                    self._note_other(name, _arrow_column(batch.column(place)))


def _arrow_column(column: Any) -> NDArray[Any]:
    """Return a column as NumPy has it: nulls are None or NaN, dictionaries are their values."""
    if hasattr(column, "dictionary_decode"):
        column = column.dictionary_decode()
    return np.asarray(column.to_numpy(zero_copy_only=False))


@contextmanager
def _parquet(path: Path) -> Iterator[Table]:
    with MissingExtraError.naming("parquet"):
        import pyarrow as pa
        import pyarrow.parquet
    try:
        with pa.parquet.ParquetFile(path) as file:
            yield _Batches(file.schema_arrow.names, _decoded(path, file.iter_batches(BLOCK_ROWS)))
    except pa.ArrowException as error:
        raise _not_parquet(path, error) from None


def _decoded(path: Path, batches: Iterator[Any]) -> Iterator[Any]:
    import pyarrow as pa

    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from None


def _not_parquet(path: Path, error: Exception) -> FederationValueError:
    return FederationValueError(f"{path.name}: expected a Parquet file, got one that cannot be read ({type(error).__name__})")


def _in_memory(source: Any, names: Sequence[str] | None) -> Table:
    if isinstance(source, Table):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype.names:
            return _Columns({name: source[name] for name in source.dtype.names})
        return _Columns(with_names(source, names))
    if _is_arrow(source):
        return _Batches(source.schema.names, iter([source] if hasattr(source, "serialize") else _batches_of(source)))
    if isinstance(source, Mapping):
        return _Columns(source)
    if hasattr(source, "columns"):
        labels = [str(label).strip() for label in source.columns]
        _require_different(labels)
        return _Columns({label: source[label] for label in source.columns})
    raise FederationValueError(
        f"rows: expected a table with named columns, or the path of a file, got a {type(source).__name__}"
    )


def _batches_of(source: Any) -> Any:
    return source.to_batches(max_chunksize=BLOCK_ROWS) if hasattr(source, "to_batches") else source


def _is_arrow(source: Any) -> bool:
    return type(source).__module__.partition(".")[0] == "pyarrow" and hasattr(source, "schema")


def _require_different(names: Sequence[str]) -> None:
    if repeated := sorted({name for name in names if list(names).count(name) > 1}):
        shown = ", ".join(map(repr, repeated[:5]))
        raise FederationValueError(f"table: expected columns with different names, got {shown} more than once")


def _reblocked(parts: Iterator[TableBlock], block_rows: int) -> Iterator[TableBlock]:
    """Yield blocks of exactly `block_rows` rows, the last one apart: the last bits of sums then do not depend on the source."""
    held: list[TableBlock] = []
    count = 0
    for part in parts:
        while len(part.values) >= block_rows - count:
            take = block_rows - count
            yield _joined([*held, _sliced(part, 0, take)])
            part, held, count = _sliced(part, take, None), [], 0
        if len(part.values):
            held.append(part)
            count += len(part.values)
    if held:
        yield _joined(held)


def _sliced(block: TableBlock, start: int, end: int | None) -> TableBlock:
    lines = None if block.lines is None else block.lines[start:end]
    return TableBlock(block.values[start:end], lines, block.places)


def _joined(blocks: list[TableBlock]) -> TableBlock:
    if len(blocks) == 1:
        return blocks[0]
    lines = [block.lines for block in blocks if block.lines is not None]
    values = np.concatenate([block.values for block in blocks])
    return TableBlock(values, np.concatenate(lines) if lines else None, blocks[0].places)
