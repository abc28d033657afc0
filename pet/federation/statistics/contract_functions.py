"""The functions of contracts: which kinds of features each takes, and its value from statistics alone.

Values are in the features' own units; where no rows define a value, or it has no digits, it is NaN. Each formula is a line of
the table in docs/spec/federation.md 1.6. With missing values, a function of two features is over the rows that have both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pet.errors import FederationValueError
from pet.federation.statistics.analysis import correlation, covariance, location_and_spread
from pet.federation.statistics.feature import Kind
from pet.federation.statistics.moments import Moments, Sums
from pet.federation.statistics.pair_matrix import PairMatrix
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

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


def _count(moments: Moments, place: int) -> float:
    return float(moments.feature(place).count.value)


def _mean(moments: Moments, place: int) -> float:
    return _of_rows(moments, place, moments.feature(place), "mean")


def _of_rows(moments: Moments, place: int, sums: Sums, name: str) -> float:
    """Return mean, variance or deviation over some rows; NaN where there are none, or no digits."""
    return float(location_and_spread(sums, moments.schema.features[place])[name])


def _spread(moments: Moments, place: int, *binary: int, rows: str, is_root: bool, is_unbiased: bool) -> float:
    """Return a variance or its root over all rows, those with b = 1 or those with b = 0."""
    sums = moments.feature(place) if rows == "all" else moments.where(place, *binary, is_one=rows == "one")
    variance = _of_rows(moments, place, sums, "variance_unbiased" if is_unbiased else "variance")
    return math.sqrt(variance) if is_root else variance


def _covariance(moments: Moments, first: int, second: int) -> float:
    return _of_pair(moments, covariance, first, second)


def _correlation(moments: Moments, first: int, second: int) -> float:
    return _of_pair(moments, correlation, first, second)


def _of_pair(moments: Moments, function: Callable[..., PairMatrix], first: int, second: int) -> float:
    if not moments.rows:
        return math.nan
    names = moments.schema.names
    return float(function(moments.statistics, [names[first], names[second]])[0, 1])


def _conditional_count(moments: Moments, place: int, binary: int) -> float:
    return float(moments.where(place, binary, is_one=True).count.value)


def _conditional_mean(moments: Moments, place: int, binary: int, *, is_one: bool = True) -> float:
    return _of_rows(moments, place, moments.where(place, binary, is_one=is_one), "mean")


def _occurrences(moments: Moments, place: int, binary: int, *, is_one: bool) -> float:
    return float(moments.where(place, binary, is_one=is_one).first.value)


def _percentage(moments: Moments, place: int, binary: int, *, is_one: bool) -> float:
    return 100 * _conditional_mean(moments, place, binary, is_one=is_one)


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
