"""Numbers as unevaluated sums of two float64, about 106 bits: sums without a loss that matters. Arrays of one shape.

Where the two are normalised, the second is at most half a unit in the last place of the first. No statistic is known here.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Halves: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]


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
