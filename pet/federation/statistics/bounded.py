"""Numbers with a bound of their error, and arithmetic that propagates it. Scalars, vectors and matrices alike.

A bound holds whatever the rounding was: of the sums that went in, and of each operation here (one unit roundoff of its result).
Bounds are computed in float64 as well; their own rounding is far below what they leave open.

Source: docs/statistics.md, "How exact".
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.federation.statistics.double_double import Halves, added

#: The largest relative error of one rounded operation in float64.
UNIT_ROUNDOFF: Final = 2.0**-53
#: A result is a number if its error is at most this share of its scale.
MAX_ERROR_SHARE: Final = 1e-3
#: Below the smallest normal number, rounding is no longer relative: it is up to the smallest number.
_MIN_NORMAL: Final = float(np.finfo(np.float64).tiny)
SMALLEST: Final = float(np.finfo(np.float64).smallest_subnormal)


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """Values and the bounds of their absolute errors, arrays of one shape.

    Attributes:
        value: float64.
        error: at least the absolute difference from what exact arithmetic on the rows gives; infinite or NaN if unknown.
        low: the lower half of each value, of totals and of their sums and differences; None where it is 0, or no longer known.
    """

    value: NDArray[np.float64]
    error: NDArray[np.float64]
    low: NDArray[np.float64] | None = None

    @classmethod
    def exact(cls, value: Any) -> Bounded:
        """Return values without an error."""
        values = np.asarray(value, dtype=np.float64)
        return cls(values, np.zeros_like(values))

    def __getitem__(self, place: Any) -> Bounded:
        low = None if self.low is None else np.asarray(self.low[place])
        return Bounded(np.asarray(self.value[place]), np.asarray(self.error[place]), low)

    def __add__(self, other: Bounded) -> Bounded:
        with np.errstate(all="ignore"):
            if self.low is None and other.low is None:
                return _rounded(self.value + other.value, self.error + other.error)
            value, low = added(self.halves, other.halves)
            return Bounded(value, self.error + other.error + UNIT_ROUNDOFF * np.abs(value), low)

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error, None if self.low is None else -self.low)

    def __sub__(self, other: Bounded) -> Bounded:
        return self + -other

    @property
    def halves(self) -> Halves:
        """The values as pairs of float64."""
        return self.value, np.zeros_like(self.value) if self.low is None else self.low

    @property
    def fraction(self) -> Fraction:
        """The value of a scalar, finite, exactly."""
        return sum((Fraction(float(half)) for half in self.halves), start=Fraction(0))

    def with_value(self, value: float | Fraction) -> Bounded:
        """Return a scalar that was computed in another way, with the same bound."""
        return Bounded(np.asarray(float(value)), self.error)

    def __mul__(self, other: Bounded) -> Bounded:
        with np.errstate(all="ignore"):
            product = self.value * other.value
            error = np.abs(self.value) * other.error + self.error * np.abs(other.value) + self.error * other.error
            # A product that underflows is not exact, though 0.
            is_lost = (np.abs(product) < _MIN_NORMAL) & (self.value != 0) & (other.value != 0)
            return _rounded(product, error + np.where(is_lost, SMALLEST, 0.0))

    def __truediv__(self, other: Bounded) -> Bounded:
        """Divide; where the divisor may be 0, the bound is infinite."""
        with np.errstate(all="ignore"):
            quotient = self.value / other.value
            least = np.abs(other.value) - other.error
            error = (self.error + np.abs(quotient) * other.error) / least
            return _rounded(quotient, np.where(least > 0, error, np.inf))

    def times(self, factor: Any) -> Bounded:
        """Multiply by a number that is exact."""
        return self * Bounded.exact(factor)

    def root(self) -> Bounded:
        """Return the square root; a value that rounding took below 0 counts as 0."""
        with np.errstate(all="ignore"):
            value = np.sqrt(np.maximum(self.value, 0.0))
            least = np.sqrt(np.maximum(self.value - self.error, 0.0))
            # |sqrt(a) - sqrt(b)| = |a - b| / (sqrt(a) + sqrt(b)), and b is at least a - error, or at most a + error.
            error = np.where(least > 0, self.error / (value + least), np.sqrt(np.maximum(self.value, 0.0) + self.error))
        return _rounded(value, error)

    def matmul(self, other: Bounded) -> Bounded:
        """Return the matrix product."""
        with np.errstate(all="ignore"):
            of_values = np.abs(self.value) @ np.abs(other.value)
            error = np.abs(self.value) @ other.error + self.error @ (np.abs(other.value) + other.error)
            rounding = self.value.shape[-1] * UNIT_ROUNDOFF * of_values
            return Bounded(np.asarray(self.value @ other.value), np.asarray(error + rounding))

    @property
    def transposed(self) -> Bounded:
        """The transpose."""
        return Bounded(self.value.T, self.error.T, None if self.low is None else self.low.T)

    @property
    def is_resolved(self) -> NDArray[np.bool_]:
        """Which values have digits, held against themselves; an exact 0 has."""
        return self.is_within(np.abs(self.value))

    @property
    def may_be_zero(self) -> NDArray[np.bool_]:
        """Which values cannot be distinguished from 0."""
        return ~(np.abs(self.value) > self.error)

    def is_within(self, scale: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which errors are small beside a scale."""
        with np.errstate(all="ignore"):
            return np.asarray(np.isfinite(self.value) & (self.error <= MAX_ERROR_SHARE * scale))

    def is_within_deviation(self, deviation: Bounded) -> NDArray[np.bool_]:
        """Return which signed values have digits beside their deviation.

        Where the deviation itself cannot be distinguished from 0, they are held against themselves: the mean of a constant
        column, and the coefficients of a fit without residuals, have digits though their scale is 0.
        """
        return self.is_within(np.where(deviation.may_be_zero, np.abs(self.value), deviation.least))

    @property
    def least(self) -> NDArray[np.float64]:
        """The least absolute value that they can have."""
        with np.errstate(all="ignore"):
            return np.asarray(np.maximum(np.abs(self.value) - self.error, 0.0))


def _rounded(value: NDArray[np.float64], error: NDArray[np.float64]) -> Bounded:
    """Return the result of one operation, with its own rounding added to the error of its operands."""
    with np.errstate(all="ignore"):
        return Bounded(np.asarray(value), np.asarray(error + UNIT_ROUNDOFF * np.abs(value)))
