"""A matrix over pairs of features that also says how exact each number is, and over which rows."""

from __future__ import annotations

import functools
import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pet.federation.statistics.bounded import Bounded
from pet.federation.statistics.figures import CONSTANT, Figure, no_digits
from pet.federation.statistics.moments import Pairs


class PairMatrix(np.ndarray[Any, np.dtype[np.float64]]):
    """A symmetric matrix, float64, an ordinary array; what is computed from it or cut out of it is a plain one.

    Attributes:
        names: of the features, in order.
        bounds: of the absolute errors, float64, features x features.
        counts: how many rows each pair is over, int64.
        peers_left_out: how many peers left each pair out of what they shared, int64; the pair is over the rows of the others.
    """

    names: tuple[str, ...] = ()
    bounds: NDArray[np.float64]
    counts: NDArray[np.int64]
    peers_left_out: NDArray[np.int64]
    _is_constant: NDArray[np.bool_]
    _least_count: int

    @classmethod
    def of(
        cls,
        quantity: Bounded,
        is_resolved: NDArray[np.bool_],
        pairs: Pairs,
        names: tuple[str, ...],
        *,
        least_count: int,
        is_constant: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Return numbers with NaN where there are too few rows or no digits."""
        counts = pairs.sums.count.value
        is_number = is_resolved & (counts >= least_count)
        matrix = np.where(is_number, quantity.value, math.nan).view(cls)
        matrix.names, matrix.bounds = names, np.where(np.isnan(quantity.error), math.inf, quantity.error)
        matrix.counts, matrix.peers_left_out = counts.astype(np.int64), pairs.left_out
        matrix._least_count = least_count
        matrix._is_constant = np.zeros(matrix.shape, dtype=np.bool_) if is_constant is None else is_constant
        return matrix

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """Return results of computations as plain arrays and numbers: they are no longer these figures."""
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    def __getitem__(self, place: Any) -> Any:
        return np.asarray(self)[place]

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep what it says of its numbers when it is copied or sent to another process."""
        return _restored, (np.array(self, subok=False), vars(self))

    def figure(self, first: int, second: int) -> Figure:
        """Return one number with its bound, its reason if it is NaN, and how many peers left the pair out."""
        value, bound = float(self[first, second]), float(self.bounds[first, second])
        reason = self._reason(first, second) if math.isnan(value) else None
        return Figure(value, bound=bound, reason=reason, peers_left_out=int(self.peers_left_out[first, second]))

    @functools.cached_property
    def reasons(self) -> dict[tuple[str, str], str]:
        """Why a number is NaN, by the names of its pair, the first not after the second in `names`."""
        holes = np.argwhere(np.triu(np.isnan(np.asarray(self))))
        return {(self.names[i], self.names[j]): self._reason(i, j) for i, j in holes}

    def _reason(self, first: int, second: int) -> str:
        count = int(self.counts[first, second])
        if count < self._least_count:
            left = int(self.peers_left_out[first, second])
            others = f", {left} peers left the pair out" if left else ""
            return f"expected at least {self._least_count} rows with both, got {count}{others}"
        if self._is_constant[first, second]:
            return CONSTANT
        return no_digits(float(self.bounds[first, second]))


def _restored(values: NDArray[np.float64], attributes: dict[str, Any]) -> PairMatrix:
    matrix = values.view(PairMatrix)
    vars(matrix).update(attributes)
    return matrix
