"""What can be said of rows from their statistics alone: univariate, covariance, correlation, linear regression.

Everything is computed from moments of z = (x - centre) / scale (moments.py) and carried back to the features'
own units at the end, each number with a bound of its error. Where a bound exceeds a thousandth of the scale of its number,
there is NaN in its place, and the reason: "no digits, no number". What comes out is the same, within that, whether rows were
pooled or merged.

Source: docs/spec/federation.md 1.6, 1.9; docs/statistics.md, "How exact".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pet.errors import StatisticsError
from pet.federation.statistics.bounded import Bounded
from pet.federation.statistics.feature import Feature, Kind
from pet.federation.statistics.figures import CONSTANT, NO_ROWS, Figure, figure, finite_bounds
from pet.federation.statistics.moments import Moments, Sums
from pet.federation.statistics.pair_matrix import PairMatrix
from pet.federation.statistics.regression import LinearRegression, linear_regression
from pet.federation.statistics.statistics import Statistics

__all__ = ["LinearRegression", "PairMatrix", "Univariate", "correlation", "covariance", "linear_regression", "univariate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Univariate:
    """One feature. Moments are those of the population (divided by n); what no rows define, or has no digits, is NaN.

    Attributes:
        name: the feature.
        count: rows where it was seen.
        mean: in the feature's unit, as are the next six.
        variance: population variance.
        standard_deviation: its root.
        variance_unbiased: divided by n - 1.
        least: lower edge of the first histogram bin that is not empty; the minimum is not below it.
        greatest: upper edge of the last one.
        median: from the histogram, linear within its bin.
        skewness: third standardised moment.
        kurtosis: fourth standardised moment, 3 for a normal distribution.
        histogram: counts per bin; empty without edges.
        bounds: of the absolute errors of the moments, by name.
        reasons: why a number is NaN, by name.
    """

    name: str
    count: int
    mean: float
    variance: float
    standard_deviation: float
    variance_unbiased: float
    least: float
    greatest: float
    median: float
    skewness: float
    kurtosis: float
    histogram: tuple[int, ...]
    bounds: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


def univariate(statistics: Statistics, name: str) -> Univariate:
    """Describe one feature.

    Raises:
        FederationValueError: there is no such feature.
    """
    schema, moments = statistics.schema, Moments(statistics)
    place = schema.index(name)
    feature, sums = schema.features[place], moments.feature(place)
    figures = location_and_spread(sums, feature) | _shape(moments, place, sums)
    histogram = statistics.values[schema.layout.histograms[place]]
    reasons = {key: found.reason for key, found in figures.items() if found.reason is not None}
    edges = dict(
        zip(("least", "median", "greatest"), _from_histogram(histogram, feature, schema.range_of(feature)), strict=True)
    )
    why = NO_ROWS if feature.edges else "the schema gives it no histogram"
    return Univariate(
        name=name,
        count=int(sums.count.value),
        histogram=tuple(int(number) for number in histogram),
        bounds=finite_bounds(figures),
        reasons=reasons | {key: why for key, value in edges.items() if math.isnan(value)},
        **{key: float(found) for key, found in figures.items()},
        **edges,
    )


def location_and_spread(sums: Sums, feature: Feature) -> dict[str, Figure]:
    """Return mean, variances and deviation of a feature over some rows, in its own unit; scalars."""
    none = None if sums.count.value > 0 else NO_ROWS
    few = None if sums.count.value > 1 else "it takes two rows"
    variance, unbiased = sums.variance, sums.variance_unbiased
    deviation = variance.root().times(feature.scale)
    mean = sums.mean.times(feature.scale) + Bounded.exact(feature.centre)
    if none is None:  # rounded once: near 0 the two terms cancel
        share = sums.first.fraction / sums.count.fraction
        mean = mean.with_value(Fraction(feature.centre) + Fraction(feature.scale) * share)

    def squared(quantity: Bounded) -> Bounded:
        return quantity.times(feature.scale).times(feature.scale)

    return {
        "mean": figure(mean, mean.is_within_deviation(deviation), none),
        "variance": figure(squared(variance), variance.is_resolved & squared(variance).is_resolved, none),
        # A root halves the relative error: where the variance has no digits, one more would be of no use.
        "standard_deviation": figure(deviation, variance.is_resolved & deviation.is_resolved, none),
        "variance_unbiased": figure(squared(unbiased), unbiased.is_resolved & squared(unbiased).is_resolved, few),
    }


def _shape(moments: Moments, place: int, sums: Sums) -> dict[str, Figure]:
    """Return skewness and kurtosis."""
    variance, one = sums.variance, Bounded.exact(1.0)
    if moments.schema.features[place].kind is Kind.BINARY:
        skewness = (one - sums.mean.times(2.0)) / variance.root()
        kurtosis = (one - variance.times(3.0)) / variance
        totals = [sums.first] * 4
    else:
        totals = [sums.first, sums.second, *moments.higher(place)]
        first, second, third, fourth = (total / sums.count for total in totals)
        square = first * first
        central_third = third - (first * second).times(3.0) + (square * first).times(2.0)
        central_fourth = fourth - (first * third).times(4.0) + (square * second).times(6.0) - (square * square).times(3.0)
        skewness = central_third / (variance * variance.root())
        kurtosis = central_fourth / (variance * variance)
    if variance.value > 0:
        skewness, kurtosis = map(Bounded.with_value, (skewness, kurtosis), _standardised(sums.count, totals))
    undefined = NO_ROWS if not sums.count.value > 0 else None
    if undefined is None and variance.value == 0 and variance.error == 0:
        undefined = CONSTANT
    is_known = bool(variance.is_resolved)
    return {
        "skewness": figure(skewness, is_known and bool(skewness.is_within(np.asarray(1.0))), undefined),
        "kurtosis": figure(kurtosis, is_known and bool(kurtosis.is_resolved), undefined),
    }


def _standardised(count: Bounded, totals: Sequence[Bounded]) -> tuple[float, Fraction | float]:
    """Return skewness and kurtosis of what varies, from the sums of z to z^4 exactly: their terms cancel."""
    first, second, third, fourth = (total.fraction / count.fraction for total in totals)
    square = second - first**2
    central_third = third - 3 * first * second + 2 * first**3
    central_fourth = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
    if square <= 0:
        return math.nan, math.nan
    return math.copysign(math.sqrt(central_third**2 / square**3), central_third), central_fourth / square**2


def covariance(statistics: Statistics, names: Sequence[str] | None = None, *, unbiased: bool = False) -> PairMatrix:
    """Return the covariance matrix of some features, or of all in the schema's order.

    Each pair is over the rows that have both features, as in pandas. NaN where there are too few such rows, or no digits.

    Args:
        statistics: of the rows.
        names: the features; None means all.
        unbiased: divide by n - 1 in place of n.

    Raises:
        FederationValueError: there is no such feature.
        StatisticsError: too few rows of all.
    """
    least = 2 if unbiased else 1
    places, moments = _places(statistics, names, least), Moments(statistics)
    scales = statistics.schema.scales[places]
    pairs = moments.pairs(places)
    matrix, deviations = pairs.covariance, pairs.deviations
    if unbiased:
        matrix = matrix * (pairs.sums.count / (pairs.sums.count - Bounded.exact(1.0)))
    own = matrix.times(scales[:, None]).times(scales[None, :])
    # The product of the deviations is at least the covariance itself (Cauchy and Schwarz), also where they have no digits.
    lower = deviations.times(scales[:, None]).least
    is_resolved = own.is_within(np.maximum(lower * lower.T, own.least))
    on_diagonal = np.diag_indices_from(is_resolved)
    is_resolved[on_diagonal] = own.is_resolved[on_diagonal]
    return PairMatrix.of(own, is_resolved, pairs, _names(statistics, places), least_count=least)


def correlation(statistics: Statistics, names: Sequence[str] | None = None) -> PairMatrix:
    """Return the correlation matrix of some features, or of all in the schema's order; from -1 to 1.

    Each pair is over the rows that have both features, deviations included, as in pandas. NaN where one does not vary over
    these, or has no digits.

    Raises:
        FederationValueError: there is no such feature.
        StatisticsError: no rows.
    """
    places, moments = _places(statistics, names, 1), Moments(statistics)
    pairs = moments.pairs(places)
    deviations = pairs.deviations
    found = pairs.covariance / (deviations * deviations.transposed)
    matrix = Bounded(np.clip(found.value, -1.0, 1.0), found.error)
    variances = pairs.sums.variance
    varies = variances.is_resolved & ~variances.may_be_zero
    is_resolved = matrix.is_within(np.ones_like(matrix.value)) & varies & varies.T
    diagonal = np.diag_indices_from(matrix.value)
    matrix.value[diagonal], matrix.error[diagonal] = 1.0, 0.0
    is_resolved[diagonal] = varies[diagonal]
    is_constant = (variances.value == 0) & (variances.error == 0)
    names_of = _names(statistics, places)
    return PairMatrix.of(matrix, is_resolved, pairs, names_of, least_count=1, is_constant=is_constant | is_constant.T)


def _places(statistics: Statistics, names: Sequence[str] | None, least_rows: int) -> NDArray[np.intp]:
    schema = statistics.schema
    places = np.array([schema.index(name) for name in (schema.names if names is None else names)], dtype=np.intp)
    if statistics.rows < least_rows:
        raise StatisticsError(f"statistics: expected at least {least_rows} rows, got {statistics.rows}")
    return places


def _names(statistics: Statistics, places: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(statistics.schema.names[place] for place in places)


def _from_histogram(counts: NDArray[np.float64], feature: Feature, outer: tuple[float, float]) -> tuple[float, float, float]:
    """Return a lower bound of the minimum, the median, and an upper bound of the maximum."""
    if not counts.sum():
        return math.nan, math.nan, math.nan
    edges = (outer[0], *feature.edges, outer[1])
    filled = np.flatnonzero(counts)
    half, reached = counts.sum() / 2, np.cumsum(counts)
    at = int(np.searchsorted(reached, half))
    share = (half - (reached[at] - counts[at])) / counts[at]
    return edges[filled[0]], float(edges[at] + share * (edges[at + 1] - edges[at])), edges[filled[-1] + 1]
