"""Moments of z, by feature, by pair, and over the rows where a binary feature is 1 or 0, each with a bound of its error.

What analyses and contracts compute begins here, so both see the same numbers. The bounds of the sums, per number of a vector
of N rows (docs/statistics.md, "How exact"):

- a block of n rows is summed in any order, on any device: n unit roundoffs of the sum of the absolute terms, and a few for the
  terms themselves; n is at most `BLOCK_ROWS`, and sums of blocks lose nothing that matters;
- rows that were forgotten may have been summed in other blocks when they were learned: twice the same of theirs, with terms
  as large as the schema allows;
- a round rounds each peer's numbers once, to steps of round_integers.py, and adds them up exactly: half a step for each peer;
- a round of release 0.2 or before kept 20 decimal places of each peer's vector and scalar: 2 * 10^-20 * peers * max_rows in the
  sum, each for values up to 1.

Sums of absolute terms are not kept; Cauchy and Schwarz bound them by what is. Sums that only binary features make are counts,
and exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pet.federation.formats.tables import BLOCK_ROWS
from pet.federation.statistics.bounded import SMALLEST, UNIT_ROUNDOFF, Bounded
from pet.federation.statistics.double_double import Halves, central_moments
from pet.federation.statistics.feature import Kind
from pet.federation.statistics.round_integers import step_exponents
from pet.federation.statistics.statistics import Statistics

#: Unit roundoffs of one term (z, its powers and products: at most 12) and of the few additions and conversions of sums.
_TERM_ROUNDOFFS: Final = 32
#: What a round of release 0.2 or before lost of each peer's numbers, of the vector and of the scalar together.
_DECIMAL_RESOLUTION: Final = 2e-20


@dataclass(frozen=True, slots=True)
class Sums:
    """Count, sum and sum of squares of z over some rows: numbers, or matrices of pairs.

    Attributes:
        count: rows; exact.
        first: sum of z.
        second: sum of z^2.
        is_binary: whether z is 0 or 1 only.
    """

    count: Bounded
    first: Bounded
    second: Bounded
    is_binary: NDArray[np.bool_]

    @property
    def mean(self) -> Bounded:
        """The mean of z."""
        return self.first / self.count

    @property
    def variance(self) -> Bounded:
        """The population variance of z, 0 at least."""
        mean = self.mean
        general = self.second / self.count - mean * mean
        # p (1 - p) from two counts has every digit, and is 0 exactly where only one level was seen.
        binary = mean * ((self.count - self.first) / self.count)
        is_single = self.count.value == 1  # of which the mean square less the squared mean would show rounding only
        # The two terms of the general one cancel where the mean is far from the centre.
        central = central_moments(self.count.value, self.second.halves, self.first.halves, self.first.halves)
        value = np.where(self.is_binary, binary.value, np.maximum(central, 0.0))
        error = np.where(self.is_binary, binary.error, general.error)
        return Bounded(np.where(is_single, 0.0, value), np.where(is_single, 0.0, error))

    @property
    def variance_unbiased(self) -> Bounded:
        """The variance of z, divided by count - 1."""
        return self.variance * (self.count / (self.count - Bounded.exact(1.0)))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Moments over the joint rows of pairs of features; matrices, the first feature's numbers with its row.

    Attributes:
        sums: of the first feature.
        product: sum of the products of z.
        left_out: how many peers left the pair out of what they shared.
    """

    sums: Sums
    product: Bounded
    left_out: NDArray[np.int64]

    @property
    def covariance(self) -> Bounded:
        """Population covariance of z; symmetric, variances on the diagonal."""
        mean, variance, totals = self.sums.mean, self.sums.variance, self.sums.first
        general = self.product / self.sums.count - mean * mean.transposed
        others = totals.transposed
        matrix = Bounded(
            central_moments(self.sums.count.value, self.product.halves, totals.halves, others.halves), general.error
        )
        is_constant = (variance.value == 0) & (variance.error == 0)  # known, and not only for want of digits
        is_constant = is_constant | is_constant.T
        matrix.value[is_constant], matrix.error[is_constant] = 0.0, 0.0
        places = np.diag_indices(len(matrix.value))
        matrix.value[places], matrix.error[places] = np.diagonal(variance.value), np.diagonal(variance.error)
        return matrix

    @property
    def deviations(self) -> Bounded:
        """Standard deviation of z of the first feature."""
        return self.sums.variance.root()


class Moments:
    """Moments of statistics.

    Args:
        statistics: of the rows.
    """

    def __init__(self, statistics: Statistics) -> None:
        self.statistics: Final = statistics
        self.schema: Final = statistics.schema
        self.rows: Final = statistics.rows
        self._halves: Final = statistics.halves
        self._values: Final = self._halves[0]
        forgotten = max(statistics.forgotten_rows, 0)
        self._relative: Final = (min(abs(self.rows) + forgotten, BLOCK_ROWS) + _TERM_ROUNDOFFS) * UNIT_ROUNDOFF
        self._of_forgotten: Final = 2 * forgotten * self._relative
        self._of_decimals: Final = _DECIMAL_RESOLUTION * statistics.decimal_peers * self.schema.max_rows
        self._is_binary: Final = np.array([feature.kind is Kind.BINARY for feature in self.schema.features])
        self._largest: Final = np.where(self._is_binary, 1.0, self.schema.z_max)

    def feature(self, place: int) -> Sums:
        """Return the sums over all rows where a feature was seen."""
        layout, is_binary = self.schema.layout, self._is_binary[place]
        first, second = self._at(layout.sums, place), self._at(layout.squares, place)
        return self._sums(self._values[layout.counts][place], first, second, np.asarray(is_binary), self._largest[place])

    def higher(self, place: int) -> tuple[Bounded, Bounded]:
        """Return the sums of z^3 and z^4 of a continuous feature."""
        layout, at = self.schema.layout, int(np.searchsorted(self.schema.continuous, place))
        squares = self._at_least(self._values[layout.squares][place], self._values[layout.sums][place])
        third, fourth = self._at(layout.cubes, at), self._at(layout.fourths, at)
        fourths, none = self._at_least(fourth[0], squares), np.zeros((), dtype=np.bool_)
        largest = self.schema.z_max
        return (
            self._sum(third, np.sqrt(squares) * np.sqrt(fourths), none, np.asarray(largest**3)),
            self._sum(fourth, fourths, none, np.asarray(largest**4)),
        )

    def pairs(self, places: NDArray[np.intp]) -> Pairs:
        """Return the moments of all pairs of some features, in their order."""
        rows, columns = np.meshgrid(places, places, indexing="ij")
        is_own, is_first = rows == columns, rows < columns
        at = self.schema.pair_index(rows, columns)
        at = np.where(is_own, 0, at)
        layout, is_binary, largest = self.schema.layout, self._is_binary[rows], self._largest[rows]

        def chosen(numbers: NDArray[np.float64], own: slice, first: slice, second: slice) -> NDArray[np.float64]:
            if first.stop == first.start:  # no pairs at all, or none with rows of their own
                return numbers[own][rows]
            return np.where(is_own, numbers[own][rows], np.where(is_first, numbers[first][at], numbers[second][at]))

        counts = chosen(self._values, layout.counts, layout.pair_counts, layout.pair_counts)
        first, second, product = (
            (chosen(self._values, *blocks), chosen(self._halves[1], *blocks))
            for blocks in (
                (layout.sums, layout.pair_first_sums, layout.pair_second_sums),
                (layout.squares, layout.pair_first_squares, layout.pair_second_squares),
                (layout.squares, layout.products, layout.products),
            )
        )
        left = self._values[layout.pairs_left_out]
        left_out = np.where(is_own, 0.0, left[at]) if left.size else np.zeros(rows.shape)
        roots = np.sqrt(self._at_least(second[0], first[0]))
        products = self._sum(product, roots * roots.T, is_binary & is_binary.T, largest * largest.T)
        sums = self._sums(counts, first, second, is_binary, largest)
        return Pairs(sums, products, left_out.astype(np.int64))

    def where(self, place: int, binary: int, *, is_one: bool) -> Sums:
        """Return the sums over the rows where a binary feature is 1, or 0, and the other was seen."""
        pair = self.pairs(np.array([place, binary]))
        x, ones, products = pair.sums, pair.sums.first[1, 0], pair.product[0, 1]
        count, first, second, is_binary = x.count[0, 1], x.first[0, 1], x.second[0, 1], x.is_binary[0, 1]
        if is_binary:
            squares = products
        else:
            row = int(np.searchsorted(self.schema.continuous, place))
            column = int(np.searchsorted(self.schema.binary, binary))
            found = self._at(self.schema.layout.conditional_squares, row * len(self.schema.binary) + column)
            absolute = self._at_least(found[0], products.value)
            squares = self._sum(found, absolute, is_binary, np.asarray(self.schema.z_max**2))
        if is_one:
            return Sums(ones, products, squares, is_binary)
        return Sums(count - ones, first - products, second - squares, is_binary)

    def _at(self, block: slice, place: int) -> Halves:
        """Return one number of a block, as two."""
        values, lows = (np.asarray(half[block][place]) for half in self._halves)
        return values, lows

    def _sums(
        self,
        count: NDArray[np.float64],
        first: Halves,
        second: Halves,
        is_binary: NDArray[np.bool_],
        largest: NDArray[np.float64],
    ) -> Sums:
        squares = self._at_least(second[0], first[0])
        return Sums(
            Bounded.exact(count),
            self._sum(first, np.sqrt(np.abs(count)) * np.sqrt(squares), is_binary, largest),
            self._sum(second, squares, is_binary, largest**2),
            is_binary,
        )

    def _at_least(self, powers: NDArray[np.float64], lower_powers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return bounds of sums of even powers, which may have underflowed where the sums of lower powers did not."""
        is_nothing = (powers == 0) & (lower_powers == 0)
        return np.asarray(np.abs(powers) + np.where(is_nothing, 0.0, abs(self.rows) * SMALLEST))

    def _sum(
        self,
        halves: Halves,
        absolute: NDArray[np.float64],
        is_exact: NDArray[np.bool_],
        largest: NDArray[np.float64],
    ) -> Bounded:
        """Return sums with their bounds.

        Args:
            halves: the sums.
            absolute: bounds of the sums of the absolute terms.
            is_exact: which are counts.
            largest: absolute value of one term.
        """
        value, low = halves
        share = np.abs(value) / max(abs(self.rows), 1)
        error = self._relative * np.abs(absolute) + self._of_decimals * (1 + share) + self._of_forgotten * largest
        error = error + self.statistics.masked_peers * np.ldexp(0.5, step_exponents(largest))
        error = error + np.where((value == 0) & (absolute == 0), 0.0, abs(self.rows) * SMALLEST)  # terms that underflowed
        return Bounded(value, np.where(is_exact, 0.0, error), low)
