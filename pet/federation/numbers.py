"""Numbers that somebody hands over, as doubles: what is no number is refused, never converted with a warning.

No schema and no rows are known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError

#: Kinds of NumPy types that are read: booleans, integers, floats, objects and texts that may hold numbers. NumPy would also
#: take complex numbers without their imaginary part, and dates as a count of days or nanoseconds.
_READ_KINDS = "biufOUS"


def to_floats(values: Any, what: str) -> NDArray[np.float64]:
    """Return values of any shape as doubles; a copy, unless they are doubles already.

    Args:
        values: an array, or whatever NumPy makes one of.
        what: the name for an error.

    Raises:
        FederationValueError: something is not a number.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in _READ_KINDS:
            raise FederationValueError(f"{what}: expected numbers, got values of type {array.dtype}")
        # A long double beyond the doubles becomes an infinity, which the check of ranges refuses; NumPy need not warn.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(array, dtype=np.float64)
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
    if missing := [name for name in names if name not in table]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise FederationValueError(
            f"table: expected a column for every feature, got none for {', '.join(map(repr, missing[:5]))}{more}"
        )
    columns = [np.atleast_1d(to_floats(table[name], name)) for name in names]
    if any(column.ndim != 1 for column in columns) or len({len(column) for column in columns}) != 1:
        raise FederationValueError("table: expected columns of one length")
    return np.column_stack(columns)
