"""Reads CSV strictly: what is malformed is refused with its line and column, before a row of that part is handed on.

Text becomes numbers here, piece by piece and in bounded memory, whatever the file is like. No schema and no request is known.

Source: docs/spec/federation.md 9.1.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError, RowError
from pet.federation.formats.csv_table import SEPARATORS, CsvTable, open_text
from pet.federation.formats.numbers import PLAIN_CHARACTERS, parse_texts

#: Characters that one row may have, over all lines of its quoted fields.
MAX_ROW_CHARACTERS: Final = 8 << 20
#: The longest field, which is the csv module's default; longer ones are no numbers, and mostly an open quote.
MAX_FIELD_CHARACTERS: Final = 128 << 10
#: Characters that are split and converted at a time.
_BATCH_CHARACTERS: Final = 256 << 10
_BATCH_ROWS: Final = 4096
#: What fields and their separators and ends may be made of, to be converted without a look at each.
_PLAIN: Final = PLAIN_CHARACTERS + b"\t\r\n"
_QUOTED: Final = re.compile(r'"[^"]*(?:"|$)')


@dataclass(frozen=True, slots=True)
class CsvBlock:
    """Some rows of a CSV file.

    Attributes:
        values: float64, shape (rows, columns); NaN is missing.
        lines: where each row begins, int64, shape (rows,), from 1.
    """

    values: NDArray[np.float64]
    lines: NDArray[np.int64]


class CsvReader:
    """Reads one CSV file from its beginning to its end.

    Args:
        table: the file.

    Attributes:
        names: the columns' names, outer spaces taken off.

    Raises:
        RowError, FederationValueError: the heading is malformed, or it does not show the separator.
        OSError: the file cannot be opened.
    """

    def __init__(self, table: CsvTable) -> None:
        self._table: Final = table
        self._text: Final = open_text(table)
        self._batch: list[str] = []  # the lines that are being split; and those before, where an error may begin
        self._before: list[str] = []
        self._joined = ""  # the text of the batch
        self._position = 0  # how many lines of the batch were taken
        self._lines = 0  # read so far
        self._rows = 0  # handed on
        self._records: list[list[str]] = []
        self._open_characters = 0  # read since a row was complete
        try:
            while self._fill() and not self._batch[self._position].strip("\r\n"):
                self._position += 1
            heading = self._batch[self._position] if self._batch else ""
            self._separator: Final = table.separator or _separator_of(heading, ";" if table.decimal == "," else ",")
            if self._separator == table.decimal:
                raise FederationValueError("decimal: expected another separator than the decimal comma, got ',' in the heading")
            self._reader: Final = csv.reader(self._feed(), delimiter=self._separator, strict=True)
            self.names: Final = self._read_heading()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, if it was opened here."""
        self._text.close()

    def blocks(self, names: Sequence[str], others: Callable[[str, Sequence[str]], None]) -> Iterator[CsvBlock]:
        """Yield the rows of some columns.

        Args:
            names: which ones, in the order that they are wanted in; each is a column of the file.
            others: called with name and fields of each other column, for every block.

        Raises:
            RowError: malformed, with line and column.
            OSError: the file cannot be read.
        """
        places = [self.names.index(name) for name in names]
        for columns, lines, is_plain in self._columns():
            yield CsvBlock(self._values(columns, lines, places, is_plain=is_plain), lines)
            for name, column in zip(self.names, columns, strict=True):
                if name not in names:
                    others(name, column)
            self._rows += len(lines)

    def _values(
        self, columns: Sequence[Sequence[str]], lines: NDArray[np.int64], places: list[int], *, is_plain: bool
    ) -> NDArray[np.float64]:
        values = np.empty((len(lines), len(places)))
        for i, place in enumerate(places):
            name, mark = self.names[place], self._table.decimal
            try:
                values[:, i] = parse_texts(columns[place], name, self._rows, mark, is_plain=is_plain)
            except RowError as error:
                line = int(lines[error.row - self._rows])
                raise RowError(error.row, error.feature, error.problem, line, place + 1) from None
        return values

    def _columns(self) -> Iterator[tuple[Sequence[Sequence[str]], NDArray[np.int64], bool]]:
        """Yield the fields of some rows by column, with the rows' lines, and whether all of them are known to be plain."""
        while self._fill():
            line = self._line_number()
            if (columns := self._split_batch()) is not None:
                is_plain = not self._joined.encode().translate(None, _PLAIN) if self._joined.isascii() else False
                yield columns, np.arange(line, line + len(columns[0]), dtype=np.int64), is_plain
                continue
            records = self._read_records()
            lines = _line_numbers(records, line, self._line_number() - line)
            widths = set(map(len, records))
            if 0 in widths:  # blank lines
                is_row = [bool(record) for record in records]
                records, lines = [record for record in records if record], lines[is_row]
            if widths - {0, len(self.names)}:
                self._refuse_width(records, lines)
            if records:
                yield list(zip(*records, strict=True)), lines, False

    def _split_batch(self) -> list[list[str]] | None:
        """Return the columns of what is left of the batch, if it is as simple as most files are; else take nothing: None.

        Without a quote in it, lines are rows and separators part fields, so that C code can split all rows at once, in half
        the time of the csv module.
        """
        lines, width = self._batch[self._position :], len(self.names)
        text = self._joined if not self._position else "".join(lines)
        if '"' in text or width == 1 or max(map(len, lines)) > MAX_FIELD_CHARACTERS:
            return None
        if set(map(methodcaller("count", self._separator), lines)) != {width - 1}:
            return None  # a blank line, or a row that will be refused
        self._position = len(self._batch)
        self._open_characters = 0
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        fields = text.removesuffix("\n").replace("\n", self._separator).split(self._separator)
        return [fields[place::width] for place in range(width)]

    def _feed(self) -> Iterator[str]:
        """Yield line after line, as the csv module asks for them."""
        while self._fill():
            self._position += 1
            yield self._batch[self._position - 1]

    def _fill(self) -> bool:
        """Read the next batch if all lines were taken; False at the end of the file."""
        if self._position == len(self._batch):
            self._next_batch()
            self._position = 0
        return bool(self._batch)

    def _read_records(self) -> list[list[str]]:
        """Return some records, as far as they are complete; none at the end of the file."""
        records = self._records = []
        line = self._line_number()
        try:
            for record in self._reader:
                records.append(record)
                if len(records) == _BATCH_ROWS or self._position == len(self._batch):
                    break
        except csv.Error as error:
            at = line + int(sum(_line_counts(records)))
            raise self._fault(str(error), self._rows + sum(map(bool, records)), at) from None
        self._open_characters = 0
        return records

    def _read_heading(self) -> tuple[str, ...]:
        line = self._line_number()
        try:
            heading = next(self._reader, None)
        except csv.Error as error:
            raise self._fault(str(error), 0, line) from None
        if heading is None:
            raise FederationValueError("CSV: expected a heading line, got an empty file")
        names = [name.strip() for name in heading]
        for place, name in enumerate(names):
            if (first := names.index(name)) != place:
                problem = f"expected columns with different names, got {name!r} in column {first + 1} too"
                raise FederationValueError(f"line {line}, column {place + 1}: {problem}")
        return tuple(names)

    def _refuse_width(self, records: list[list[str]], lines: NDArray[np.int64]) -> None:
        width = len(self.names)
        row = next(i for i, record in enumerate(records) if len(record) != width)
        got = len(records[row])
        problem = f"expected {width} fields as in the heading, got {got}"
        raise RowError(self._rows + row, None, problem, int(lines[row]), min(got, width) + 1)

    def _line_number(self) -> int:
        """Return the number of the line that was not taken yet."""
        return self._lines - len(self._batch) + self._position + 1

    def _next_batch(self) -> None:
        """Read the next lines, and check that they are text; none at the end of the file."""
        # A row that goes on over several batches is mostly a quote that nobody closed.
        self._open_characters = 0 if self._records else self._open_characters + sum(map(len, self._batch))
        if self._open_characters > MAX_ROW_CHARACTERS:
            raise RowError(self._rows, None, f"expected a row of at most {MAX_ROW_CHARACTERS} characters", self._lines)
        try:
            self._before, self._batch = self._batch, self._text.readlines(_BATCH_CHARACTERS)
        except UnicodeError:  # of a decoder that wants a byte order mark, or of a text file that somebody else opened
            raise RowError(
                self._rows, None, f"expected text in {self._table.encoding}, got other bytes", self._lines + 1
            ) from None
        self._lines += len(self._batch)
        if self._lines == len(self._batch) and self._batch:
            self._batch[0] = self._batch[0].removeprefix("\ufeff")
        joined = self._joined = "".join(self._batch)
        if "\0" in joined:
            self._refuse_character(joined.index("\0"), "expected text, got a NUL character")
        if not joined.isascii():
            try:
                joined.encode()
            except UnicodeEncodeError as error:
                encoding = self._table.encoding
                self._refuse_character(error.start, f"expected text in {encoding}, got other bytes (encoding= names another)")

    def _refuse_character(self, index: int, problem: str) -> None:
        """Refuse the character at an index of the text of the last batch."""
        for i, line in enumerate(self._batch):
            if index < len(line):
                column = _QUOTED.sub("", line[:index]).count(getattr(self, "_separator", self._table.separator or ",")) + 1
                raise RowError(self._rows, None, problem, self._lines - len(self._batch) + i + 1, column)
            index -= len(line)

    def _fault(self, reason: str, row: int, line: int) -> RowError:
        """Return the error of a record that the csv module refuses; the column is found by reading it once more."""
        known = self._before + self._batch
        first = self._lines - len(known) + 1
        problem, line, column = _find_fault("".join(known[max(line - first, 0) :]), max(line, first), self._separator)
        return RowError(row, None, problem or f"expected a row of CSV, got: {reason}", line, column)


def _separator_of(heading: str, single: str) -> str:
    """Return the separator that a heading line shows; `single` where it has a single column."""
    shown = _QUOTED.sub("", heading)
    found = [separator for separator in SEPARATORS if separator in shown]
    if len(found) > 1:
        names = " and ".join("a tab" if separator == "\t" else repr(separator) for separator in found)
        raise FederationValueError(f"line 1: expected one separator in the heading, got {names} (separator= states which)")
    return found[0] if found else single


def _line_counts(records: Sequence[Sequence[str]]) -> list[int]:
    """Return how many lines each record takes: one, and one for each line break inside its fields."""
    return [1 + sum(len(re.findall("\r\n|\r|\n", field)) for field in record) for record in records]


def _line_numbers(records: list[list[str]], first: int, line_count: int) -> NDArray[np.int64]:
    """Return the line that each record begins in."""
    if line_count == len(records):
        return np.arange(first, first + line_count, dtype=np.int64)
    return first + np.cumsum([0, *_line_counts(records)[:-1]], dtype=np.int64)


def _find_fault(text: str, line: int, separator: str) -> tuple[str | None, int, int]:
    """Return what is wrong with the first record of a text, with line and column; None if nothing is found."""
    column, i = 1, 0
    while i < len(text):
        begin, begin_line = i, line
        if text[i] == '"':
            i = _end_of_quotes(text, i + 1)
            line += len(re.findall("\r\n|\r|\n", text[begin:i]))
            if i - begin > MAX_FIELD_CHARACTERS:
                return f"expected a field of at most {MAX_FIELD_CHARACTERS} characters, got a longer one", begin_line, column
            if i > len(text):
                return "expected a closing quote, got the end of the file", begin_line, column
            if i < len(text) and text[i] not in (separator, "\r", "\n"):
                return "expected a separator after the closing quote, got other text", line, column
        else:
            while i < len(text) and text[i] not in (separator, "\r", "\n"):
                i += 1
            if i - begin > MAX_FIELD_CHARACTERS:
                return f"expected a field of at most {MAX_FIELD_CHARACTERS} characters, got a longer one", line, column
        if i >= len(text) or text[i] != separator:
            break
        i, column = i + 1, column + 1
    return None, line, column


def _end_of_quotes(text: str, i: int) -> int:
    """Return the place after a closing quote; beyond the end of the text if there is none."""
    while True:
        i = text.find('"', i)
        if i < 0:
            return len(text) + 1
        if text[i + 1 : i + 2] != '"':
            return i + 1
        i += 2
