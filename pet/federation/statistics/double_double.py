"""Numbers as unevaluated sums of two float64, about 106 bits: sums without a loss that matters. Arrays of one shape.

Where the two are normalised, the second is at most half a unit in the last place of the first. No statistic is known here.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Halves: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

_SPLITTER: Final = 2.0**27 + 1
#: How many numbers of a matrix are worked on at a time.
_BLOCK: Final = 1 << 14


def two_sum(first: NDArray[np.float64], second: NDArray[np.float64]) -> Halves:
    """Return the sum of two float64 exactly: rounded, and the error of that (Knuth)."""
    total = first + second
    part = total - first
    return total, (first - (total - part)) + (second - part)


def added(first: Halves, second: Halves) -> Halves:
    """Return a sum of two numbers; the error of the large addition goes to the small one."""
    total, error = two_sum(first[0], second[0])
    residue = first[1] + error + second[1]
    high = total + residue
    return high, residue - (high - total)


def two_product(first: NDArray[np.float64], second: NDArray[np.float64]) -> Halves:
    """Return the product of two float64 exactly, unless something underflows: rounded, and the error of that (Dekker)."""
    product = first * second
    (a, b), (c, d) = _split(first), _split(second)
    return product, b * d - (((product - a * c) - b * c) - a * d)


def _split(number: NDArray[np.float64]) -> Halves:
    """Return two numbers of 26 bits each that add up to one."""
    scaled = number * _SPLITTER
    upper = scaled - (scaled - number)
    return upper, number - upper


def multiplied(first: Halves, second: Halves) -> Halves:
    """Return a product of two numbers, but for about 2^-104 of it."""
    product, error = two_product(first[0], second[0])
    error += first[0] * second[1] + first[1] * second[0]
    high = product + error
    return high, error - (high - product)


def central_moments(count: NDArray[np.float64], products: Halves, first: Halves, second: Halves) -> NDArray[np.float64]:
    """Return covariances, rounded after the difference that cancels: (count * products - first * second) / count^2.

    Args:
        count: of rows; scalars, vectors or matrices, as the others.
        products: sums of products.
        first: sums of one factor.
        second: sums of the other.
    """
    numbers: list[NDArray[np.float64]] = [np.atleast_2d(part) for part in (count, *products, *first, *second)]
    result: NDArray[np.float64] = np.empty(numbers[0].shape)
    # By rows, so that what is computed on the way stays in the processor's cache.
    rows = max(_BLOCK // max(result.shape[1], 1), 1)
    for start in range(0, len(result), rows):
        n, p, p_low, a, a_low, b, b_low = (number[start : start + rows] for number in numbers)
        less, less_low = multiplied((a, a_low), (b, b_low))
        high, low = added(multiplied((n, np.zeros_like(n)), (p, p_low)), (-less, -less_low))
        with np.errstate(all="ignore"):
            result[start : start + rows] = (high + low) / (n * n)
    return result.reshape(np.shape(count))
