"""The functions of contracts: which kinds of features each takes, and its value from statistics alone.

Values are in the features' own units; where no rows define a value it is NaN. Each formula is a line of the table in
docs/spec/federation.md 1.6. With missing values, what is asked over the rows where a binary feature is 0 is defined only if
that feature was seen wherever the other was: sums over such rows are differences.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pet.errors import FederationValueError
from pet.federation.schema import Kind, Schema
from pet.federation.statistics import Statistics

_ANY: Final = frozenset(Kind)
_CONTINUOUS: Final = frozenset({Kind.CONTINUOUS})
_BINARY: Final = frozenset({Kind.BINARY})


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a contract.

    Attributes:
        name: as it is written.
        kinds: which kinds each of its features may be of.
        compute: takes statistics and the places of the features.
    """

    name: str
    kinds: tuple[frozenset[Kind], ...]
    compute: Callable[..., float]

    def validate(self, schema: Schema, features: tuple[str, ...]) -> None:
        """Check features against a schema.

        Raises:
            FederationValueError: one is not there, or of another kind.
        """
        for feature, kinds in zip(features, self.kinds, strict=True):
            kind = schema.features[schema.index(feature)].kind
            if kind not in kinds:
                expected = " or ".join(sorted(one.value for one in kinds))
                raise FederationValueError(f"feature {feature}: expected a {expected} feature, got a {kind.value} one")

    def evaluate(self, statistics: Statistics, features: tuple[str, ...]) -> float:
        """Return the value; NaN where it is undefined.

        Raises:
            FederationValueError: a feature is not in the schema, or of another kind.
        """
        self.validate(statistics.schema, features)
        return self.compute(Moments(statistics), *(statistics.schema.index(feature) for feature in features))


@dataclass(frozen=True, slots=True)
class Sums:
    """Count, sum and sum of squares of z over some rows."""

    count: float
    first: float
    second: float

    @property
    def mean(self) -> float:
        """The mean of z."""
        return self.first / self.count if self.count > 0 else math.nan

    @property
    def variance(self) -> float:
        """The population variance of z."""
        return max(self.second / self.count - self.mean**2, 0.0) if self.count > 0 else math.nan

    @property
    def variance_unbiased(self) -> float:
        """The variance of z, divided by count - 1."""
        return self.variance * self.count / (self.count - 1) if self.count > 1 else math.nan


class Moments:
    """Statistics, by feature and by pair."""

    def __init__(self, statistics: Statistics) -> None:
        self.schema: Final = statistics.schema
        self._values: Final = statistics.values

    def all_rows(self, place: int) -> Sums:
        """Sum over all rows where a feature was seen."""
        layout, values = self.schema.layout, self._values
        return Sums(*(float(values[block][place]) for block in (layout.counts, layout.sums, layout.squares)))

    def pair(self, first: int, second: int) -> tuple[float, float]:
        """Return the count and the sum of products of two features."""
        if first == second:
            sums = self.all_rows(first)
            return sums.count, sums.second
        low, high, size = min(first, second), max(first, second), len(self.schema)
        at = low * size - low * (low + 1) // 2 + high - low - 1
        products = float(self._values[self.schema.layout.products][at])
        if not self.schema.has_missing:
            return self.all_rows(low).count, products
        return float(self._values[self.schema.layout.pair_counts][at]), products

    def where(self, place: int, binary: int, *, is_one: bool) -> Sums:
        """Sum over the rows where a binary feature is 1, or 0; the sums are NaN where they cannot be known."""
        both_seen, products = self.pair(place, binary)
        if self.schema.features[place].kind is Kind.BINARY:
            squares = products
        else:
            row = int(np.searchsorted(self.schema.continuous, place))
            column = int(np.searchsorted(self.schema.binary, binary))
            squares = float(self._values[self.schema.layout.conditional_squares][row * len(self.schema.binary) + column])
        everything, ones = self.all_rows(place), self.all_rows(binary)
        if is_one:
            # The sums show how many rows with b = 1 have x only where x is never missing beside b.
            return Sums(ones.first if both_seen == ones.count else math.nan, products, squares)
        if both_seen != everything.count or both_seen != ones.count:
            return Sums(math.nan, math.nan, math.nan)
        return Sums(everything.count - ones.first, everything.first - products, everything.second - squares)

    def scale(self, place: int) -> float:
        """Return the scale of a feature."""
        return float(self.schema.scales[place])

    def mean(self, place: int, sums: Sums) -> float:
        """Return a mean in the feature's own unit."""
        return float(self.schema.centres[place]) + self.scale(place) * sums.mean


def _count(moments: Moments, place: int) -> float:
    return moments.all_rows(place).count


def _mean(moments: Moments, place: int) -> float:
    return moments.mean(place, moments.all_rows(place))


def _spread(moments: Moments, place: int, *binary: int, rows: str, is_root: bool, is_unbiased: bool) -> float:
    """Return a variance or its root over all rows, those with b = 1 or those with b = 0."""
    sums = moments.all_rows(place) if rows == "all" else moments.where(place, *binary, is_one=rows == "one")
    variance = (sums.variance_unbiased if is_unbiased else sums.variance) * moments.scale(place) ** 2
    return math.sqrt(variance) if is_root else variance


def _covariance(moments: Moments, first: int, second: int) -> float:
    count, products = moments.pair(first, second)
    if not count > 0:
        return math.nan
    central = products / count - moments.all_rows(first).mean * moments.all_rows(second).mean
    return central * moments.scale(first) * moments.scale(second)


def _correlation(moments: Moments, first: int, second: int) -> float:
    deviations = [_spread(moments, place, rows="all", is_root=True, is_unbiased=False) for place in (first, second)]
    product = deviations[0] * deviations[1]
    return _covariance(moments, first, second) / product if product > 0 else math.nan


def _conditional_count(moments: Moments, place: int, binary: int) -> float:
    return moments.where(place, binary, is_one=True).count


def _conditional_mean(moments: Moments, place: int, binary: int, *, is_one: bool = True) -> float:
    return moments.mean(place, moments.where(place, binary, is_one=is_one))


def _occurrences(moments: Moments, place: int, binary: int, *, is_one: bool) -> float:
    return moments.where(place, binary, is_one=is_one).first


def _percentage(moments: Moments, place: int, binary: int, *, is_one: bool) -> float:
    return 100 * moments.where(place, binary, is_one=is_one).mean


def _build() -> dict[str, Function]:
    one, pair, given = (_ANY,), (_ANY, _ANY), (_ANY, _BINARY)
    functions = [
        Function("COUNT", one, _count),
        Function("MEAN", one, _mean),
        Function("COVAR", pair, _covariance),
        Function("LINCORR", pair, _correlation),
        Function("COND_COUNT", given, _conditional_count),
        Function("COND_MEAN", given, _conditional_mean),
    ]
    for prefix, kinds, rows in (("", one, "all"), ("COND_", given, "one"), ("COMPL_COND_", given, "zero")):
        for word, is_root in (("VARIANCE", False), ("STDDEV", True)):
            for suffix, is_unbiased in (("", False), ("_UNBIASED", True)):
                compute = functools.partial(_spread, rows=rows, is_root=is_root, is_unbiased=is_unbiased)
                functions.append(Function(f"{prefix}{word}{suffix}", kinds, compute))
    for suffix, is_one in (("TRUE", True), ("FALSE", False)):
        binaries = (_BINARY, _BINARY)
        functions.append(Function(f"PCT_OF_{suffix}", binaries, functools.partial(_percentage, is_one=is_one)))
        functions.append(Function(f"NUM_OCCURENCE_WHEN_{suffix}", binaries, functools.partial(_occurrences, is_one=is_one)))
        functions.append(
            Function(f"MEAN_WHEN_{suffix}", (_CONTINUOUS, _BINARY), functools.partial(_conditional_mean, is_one=is_one))
        )
    return {function.name: function for function in functions}


#: Every function by its name; the parser also knows the spelling OCCURRENCE.
FUNCTIONS: Final = _build()
