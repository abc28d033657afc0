"""Where each block of a statistics vector begins and ends. Knows how many features there are, and of which kind; no rows.

Where values may be missing, each pair of features has sums of its own over the rows that have both: a mean over the rows of
one feature says nothing about the rows of a pair. The numbers of a pair would otherwise be of different rows, and a correlation
computed from them can be 11.

Source: docs/spec/federation.md 1.9.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

#: Of vectors without and with missing values. 1 with missing values had counts and products of pairs and no sums; it is no
#: longer read.
LAYOUT: Final = 1
LAYOUT_WITH_MISSING: Final = 2


@dataclass(frozen=True, slots=True)
class StatisticsLayout:
    """The slices of a vector, in the order of spec 1.9 (rows are kept apart).

    Pairs are those with i < j in rising order of i, then j; all but the products exist only where values may be missing.
    Conditional squares are continuous x binary, row by row.

    Attributes:
        pairs_left_out: how many peers left a pair out of what they shared.
        length: of the whole vector.
    """

    counts: slice
    sums: slice
    squares: slice
    cubes: slice
    fourths: slice
    products: slice
    pair_counts: slice
    pair_first_sums: slice
    pair_second_sums: slice
    pair_first_squares: slice
    pair_second_squares: slice
    pairs_left_out: slice
    conditional_squares: slice
    histograms: tuple[slice, ...]
    length: int

    @property
    def pair_blocks(self) -> tuple[slice, ...]:
        """The sums over the rows of each pair."""
        sums, squares = (self.pair_first_sums, self.pair_second_sums), (self.pair_first_squares, self.pair_second_squares)
        return (self.products, self.pair_counts, *sums, *squares)

    @property
    def even_blocks(self) -> tuple[slice, ...]:
        """Sums of even powers, which are never negative."""
        pairs = (self.pair_first_squares, self.pair_second_squares)
        return (self.squares, self.fourths, *pairs, self.conditional_squares)

    @classmethod
    def of(cls, features: int, continuous: int, *, bins: Iterable[int], has_missing: bool) -> Self:
        """Lay out a vector.

        Args:
            features: how many there are, of either kind.
            continuous: how many of them are continuous.
            bins: of the histogram of each feature; 0 without one.
            has_missing: whether values may be missing.
        """
        pairs = features * (features - 1) // 2
        own_pairs = pairs if has_missing else 0
        start = 0

        def block(length: int) -> slice:
            nonlocal start
            start += length
            return slice(start - length, start)

        return cls(
            counts=block(features),
            sums=block(features),
            squares=block(features),
            cubes=block(continuous),
            fourths=block(continuous),
            products=block(pairs),
            pair_counts=block(own_pairs),
            pair_first_sums=block(own_pairs),
            pair_second_sums=block(own_pairs),
            pair_first_squares=block(own_pairs),
            pair_second_squares=block(own_pairs),
            pairs_left_out=block(own_pairs),
            conditional_squares=block(continuous * (features - continuous)),
            histograms=tuple(block(count) for count in bins),
            length=start,
        )
