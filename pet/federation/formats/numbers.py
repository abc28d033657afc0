"""Numbers that somebody hands over, as doubles: what is no number is refused, never converted with a warning.

The one place that says which words mean a missing value or a boolean, and how a number is written in text, for tables, CSV
files and REST bodies alike. No schema is known.

Source: docs/spec/federation.md 9.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import numbers
import re
from collections.abc import Container, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError, RowError

#: What a table may have in place of a number: a missing value. Compared without regard to case, outer spaces taken off.
MISSING_WORDS: Final = frozenset({"", ".", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "+nan", "null", "none"})
#: Booleans in text, compared in the same way.
BOOLEAN_WORDS: Final = {"true": 1.0, "false": 0.0}

#: Spellings that need no second look: a column of text is converted by C code as long as it has only these and numbers.
_SPELLINGS: Final[dict[str, float]] = {
    spelling: value
    for words in (dict.fromkeys(MISSING_WORDS, math.nan), BOOLEAN_WORDS)
    for word, value in words.items()
    for spelling in (word, word.upper(), word.title())
} | {"NaN": math.nan, "-NaN": math.nan, "n/a": math.nan}

_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WITH_COMMA: Final = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
#: Characters with which `float` means what a table means. It would also take digits of other scripts, underscores between
#: digits, and control characters around a number.
PLAIN_CHARACTERS: Final = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("_"))

#: Kinds of NumPy types that are read: booleans, integers, floats, objects and texts that may hold numbers. NumPy would also
#: take complex numbers without their imaginary part, and dates as a count of days or nanoseconds.
_KINDS: Final = "biufOUS"
_REFUSED_KINDS: Final = {"c": "complex numbers", "M": "dates", "m": "durations", "V": "records"}
_Types = type | tuple[type, ...]
_REFUSED_TYPES: Final[tuple[tuple[_Types, str], ...]] = (
    ((dt.date, dt.time, np.datetime64), "a date"),
    ((dt.timedelta, np.timedelta64), "a duration"),
    (numbers.Complex, "a complex number"),
)


def to_floats(values: Any, what: str) -> NDArray[np.float64]:
    """Return values of any shape as doubles; a copy, unless they are doubles already.

    Args:
        values: an array, or whatever NumPy makes one of. What a mask covers, None, and the missing values of pandas become NaN;
            texts are read as the fields of a CSV file are.
        what: the name for an error.

    Raises:
        RowError: one value is no number; its place is counted over the first axis.
        FederationValueError: none of them is: dates, complex numbers, records, lists of several lengths.
    """
    try:
        return _converted(values, what)
    except FederationValueError:
        raise
    except (TypeError, ValueError, OverflowError):
        raise FederationValueError(f"{what}: expected numbers, got something else") from None


def to_finite_floats(values: Any, what: str) -> NDArray[np.float64]:
    """Return values as `to_floats` does, if none is NaN or infinite.

    Raises:
        FederationValueError: something is not a finite number.
    """
    numbers = to_floats(values, what)
    if not (is_finite := np.isfinite(numbers)).all():
        raise FederationValueError(f"{what}: expected finite numbers, got {numbers[~is_finite].flat[0]}")
    return numbers


def columns_by_name(table: Any, names: Sequence[str]) -> NDArray[np.float64]:
    """Return columns of a mapping or DataFrame as a matrix, rows x names.

    Raises:
        FederationValueError: columns are missing (all are named, up to five), their lengths differ, or a value is no number.
    """
    require_columns(table, names)
    columns = [np.atleast_1d(to_floats(table[name], name)) for name in names]
    if any(column.ndim != 1 for column in columns) or len({len(column) for column in columns}) != 1:
        raise FederationValueError("table: expected columns of one length")
    return np.column_stack(columns)


def require_columns(table: Container[str], names: Sequence[str]) -> None:
    """Check that a table has columns.

    Raises:
        FederationValueError: some are missing; names up to five.
    """
    if missing := [name for name in names if name not in table]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise FederationValueError(
            f"table: expected a column for every feature, got none for {', '.join(map(repr, missing[:5]))}{more}"
        )


def parse_texts(
    texts: Sequence[str], what: str, start: int = 0, decimal_mark: str = ".", *, is_plain: bool = False
) -> NDArray[np.float64]:
    """Return fields of text as doubles, shape (fields,); missing ones are NaN.

    Args:
        texts: the fields of a column.
        what: the column's name.
        start: the row of the first field, for an error.
        decimal_mark: "." or ",".
        is_plain: whether the fields are known to be of `PLAIN_CHARACTERS`; else it is found out.

    Raises:
        RowError: a field is neither a number nor a word for a missing value or a boolean.
    """
    if not is_plain:
        joined = "".join(texts)
        is_plain = joined.isascii() and not joined.encode().translate(None, PLAIN_CHARACTERS)
    if is_plain and decimal_mark == ".":
        try:
            return np.fromiter(map(float, texts), dtype=np.float64, count=len(texts))
        except ValueError:
            pass
        try:
            return np.fromiter(map(float, map(_SPELLINGS.get, texts, texts)), dtype=np.float64, count=len(texts))
        except ValueError:
            pass  # an unusual spelling, or the field that the loop below refuses
    return np.array([_parse(text, what, start + i, decimal_mark) for i, text in enumerate(texts)], dtype=np.float64)


def _parse(text: str, what: str, row: int, decimal_mark: str) -> float:
    stripped = text.strip(" \t")
    if (word := stripped.lower()) in MISSING_WORDS:
        return math.nan
    if word in BOOLEAN_WORDS:
        return BOOLEAN_WORDS[word]
    number = stripped
    if decimal_mark == ",":
        number = "" if "." in stripped else stripped.replace(",", ".")
    if _NUMBER.fullmatch(number):
        return float(number)
    raise RowError(row, what, _problem(stripped, decimal_mark))


def _problem(text: str, decimal_mark: str) -> str:
    """Return what is wrong with a field. The field itself is somebody's data and stays out of the message."""
    if decimal_mark == "." and _WITH_COMMA.fullmatch(text):
        return "expected a number with a decimal point, got a comma (it can be stated: decimal=',')"
    if decimal_mark == "," and _NUMBER.fullmatch(text):
        return "expected a number with a decimal comma, got a point"
    if any(character.isdigit() and not character.isascii() for character in text):
        return "expected a number, got digits of another script"
    return "expected a number, got other text"


def _converted(values: Any, what: str) -> NDArray[np.float64]:
    if isinstance(values, list | tuple) and any(value is np.ma.masked for value in values):
        # NumPy would make a number of each masked one, with a warning.
        values = [None if value is np.ma.masked else value for value in values]
    if isinstance(values, np.ma.MaskedArray):
        return _unmasked(values, what)
    dtype = getattr(values, "dtype", None)
    if not isinstance(dtype, np.dtype) and getattr(dtype, "kind", "O") in "biuf" and hasattr(values, "to_numpy"):
        # Columns of pandas' own types: as an array they would be objects, with pandas.NA among them.
        return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    array = np.asarray(values)
    if array.dtype.kind not in _KINDS:
        got = _REFUSED_KINDS.get(array.dtype.kind, f"values of type {array.dtype}")
        raise FederationValueError(f"{what}: expected numbers, got {got}")
    if array.dtype.kind in "OUS":
        return _of_objects(array, what)
    # A long double beyond the doubles becomes an infinity, which the check of ranges refuses; NumPy need not warn.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array, dtype=np.float64)


def _unmasked(values: np.ma.MaskedArray[Any, Any], what: str) -> NDArray[np.float64]:
    """Return the values with NaN for each masked one; what lies under the mask is not looked at."""
    is_masked = np.ma.getmaskarray(values)
    floats = np.full(values.shape, np.nan)
    floats[~is_masked] = to_floats(values.data[~is_masked], what)
    return floats


def _of_objects(array: NDArray[Any], what: str) -> NDArray[np.float64]:
    flat = (array.astype(np.str_) if array.dtype.kind == "S" else array).ravel().tolist()
    if set(map(type, flat)) == {str}:
        return parse_texts(flat, what).reshape(array.shape)
    per_row = max(array.size // len(array), 1) if array.ndim and len(array) else 1
    floats = np.array([_of_object(value, what, i // per_row) for i, value in enumerate(flat)], dtype=np.float64)
    return floats.reshape(array.shape)


def _of_object(value: Any, what: str, row: int) -> float:
    if value is None or value is np.ma.masked or type(value).__name__ == "NAType":
        return math.nan
    if isinstance(value, str):
        return _parse(value, what, row, ".")
    if isinstance(value, numbers.Real | decimal.Decimal | np.bool_):
        try:
            return float(value)
        except (OverflowError, ValueError):
            raise RowError(row, what, "expected a number that fits into a double") from None
    got = next((name for types, name in _REFUSED_TYPES if isinstance(value, types)), "something else")
    raise RowError(row, what, f"expected a number, got {got}")
