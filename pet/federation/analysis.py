"""What can be said of rows from their statistics alone: univariate, covariance, correlation, linear regression.

Numerics: everything is computed from moments of z = (x - centre) / scale and carried back to the features' own units at the
end. Moments about the mean are differences of moments about the agreed centre, so they lose the digits of (mean z)^2 over the
variance of z: with a centre within a few standard deviations of the mean that is one or two of sixteen. Regressions solve the
normal equations of the correlation matrix by Cholesky; their relative error is about 10^-16 times its condition number, and a
matrix beyond 10^12 is refused as collinear. What comes out is the same, within that, whether rows were pooled or merged.

Source: docs/spec/federation.md 1.6, 1.9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError, StatisticsError
from pet.federation.numbers import columns_by_name, to_floats
from pet.federation.schema import Kind
from pet.federation.statistics import Statistics

#: Beyond this, fewer than four digits of a coefficient would be right.
MAX_CONDITION_NUMBER: Final = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Univariate:
    """One feature. Moments are those of the population (divided by n); what no rows define is NaN.

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


def univariate(statistics: Statistics, name: str) -> Univariate:
    """Describe one feature.

    Raises:
        FederationValueError: there is no such feature.
    """
    schema, layout = statistics.schema, statistics.schema.layout
    place = schema.index(name)
    feature, values = schema.features[place], statistics.values
    count = int(values[layout.counts][place])
    first, second = (values[block][place] / count if count else math.nan for block in (layout.sums, layout.squares))
    variance = max(second - first**2, 0.0) if count else math.nan
    if feature.kind is Kind.BINARY:
        third = fourth = first
    else:
        at = int(np.searchsorted(schema.continuous, place))
        third, fourth = (values[block][at] / count if count else math.nan for block in (layout.cubes, layout.fourths))
    skewness, kurtosis = _standardised(first, second, third, fourth, variance)
    histogram = values[layout.histograms[place]]
    least, median, greatest = _from_histogram(histogram, feature.edges, schema.range_of(feature))
    return Univariate(
        name=name,
        count=count,
        mean=feature.centre + feature.scale * first,
        variance=variance * feature.scale**2,
        standard_deviation=math.sqrt(variance) * feature.scale,
        variance_unbiased=variance * feature.scale**2 * count / (count - 1) if count > 1 else math.nan,
        least=least,
        greatest=greatest,
        median=median,
        skewness=skewness,
        kurtosis=kurtosis,
        histogram=tuple(int(number) for number in histogram),
    )


def covariance(statistics: Statistics, names: Sequence[str] | None = None, *, unbiased: bool = False) -> NDArray[np.float64]:
    """Return the covariance matrix of some features, or of all in the schema's order.

    With missing values, a product is averaged over the rows where both features were seen, a mean over those where its own was.

    Args:
        statistics: of the rows.
        names: the features; None means all.
        unbiased: divide by n - 1 in place of n.

    Raises:
        FederationValueError: there is no such feature.
        StatisticsError: too few rows.
    """
    places = _places(statistics, names)
    scales = statistics.schema.scales[places]
    matrix, _, counts = _central(statistics, places, least_count=2 if unbiased else 1)
    if unbiased:
        matrix = matrix * counts / (counts - 1)
    return matrix * np.outer(scales, scales)


def correlation(statistics: Statistics, names: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Return the correlation matrix of some features, or of all in the schema's order; NaN for a feature that does not vary.

    Raises:
        FederationValueError: there is no such feature.
        StatisticsError: no rows.
    """
    matrix, _, _ = _central(statistics, _places(statistics, names), least_count=1)
    deviations = np.sqrt(np.diagonal(matrix))
    with np.errstate(invalid="ignore", divide="ignore"):
        result = np.where(np.outer(deviations, deviations) > 0, matrix / np.outer(deviations, deviations), math.nan)
    result[np.diag_indices_from(result)] = np.where(deviations > 0, 1.0, math.nan)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRegression:
    """A least-squares fit of one feature by others.

    Attributes:
        target: what is predicted.
        features: by what.
        coefficients: one per feature, in the features' own units.
        intercept: the constant.
        standard_errors: of the coefficients.
        intercept_standard_error: of the constant.
        r_squared: share of the target's variance that is explained.
        residual_variance: unbiased estimate of the variance around the fit.
        rows: how many rows it was fitted to.
    """

    target: str
    features: tuple[str, ...]
    coefficients: NDArray[np.float64]
    intercept: float
    standard_errors: NDArray[np.float64]
    intercept_standard_error: float
    r_squared: float
    residual_variance: float
    rows: int

    def predict(self, rows: Any) -> NDArray[np.float64]:
        """Predict the target.

        Args:
            rows: a matrix with one column per feature, in the order of `features`; or a mapping or DataFrame with columns of
                these names.

        Raises:
            FederationValueError: another number of columns, or one that is missing.
        """
        if isinstance(rows, Mapping) or hasattr(rows, "columns"):
            matrix = columns_by_name(rows, self.features)
        else:
            matrix = np.atleast_2d(to_floats(rows, "rows"))
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise FederationValueError(f"rows: expected {len(self.features)} columns, got an array of shape {matrix.shape}")
        prediction: NDArray[np.float64] = matrix @ self.coefficients + self.intercept
        return prediction


def linear_regression(statistics: Statistics, target: str, features: Sequence[str] | None = None) -> LinearRegression:
    """Fit one feature by others.

    Args:
        statistics: of the rows.
        target: what to predict.
        features: by what; None means by all others.

    Raises:
        FederationValueError: a feature that is not there, named twice, or the target itself; none at all.
        StatisticsError: not more rows than coefficients, missing values (a fit needs whole rows), or collinear features.
    """
    names = tuple(features) if features is not None else tuple(name for name in statistics.schema.names if name != target)
    if not names or len({*names, target}) != len(names) + 1:
        raise FederationValueError(f"regression: expected different features beside the target {target!r}, got {list(names)}")
    rows, size = statistics.rows, len(names)
    if rows <= size + 1:
        raise StatisticsError(f"regression: expected more than {size + 1} rows for {size + 1} coefficients, got {rows}")
    places = _places(statistics, (*names, target))
    matrix, means, counts = _central(statistics, places, least_count=1)
    if (counts != rows).any():
        raise StatisticsError("regression: expected rows without missing values, got some with")
    inverse, deviations = _invert(matrix[:size, :size])
    with_target = matrix[:size, size]
    slopes = inverse @ (with_target / deviations) / deviations
    explained, total = float(slopes @ with_target), float(matrix[size, size])
    residual_variance = max(total - explained, 0.0) * rows / (rows - size - 1)
    spread = inverse / np.outer(deviations, deviations) * residual_variance / rows
    return _in_own_units(statistics, places, slopes, spread, means, (names, target), total, explained, residual_variance)


def _in_own_units(
    statistics: Statistics,
    places: NDArray[np.intp],
    slopes: NDArray[np.float64],
    spread: NDArray[np.float64],
    means: NDArray[np.float64],
    names: tuple[tuple[str, ...], str],
    total: float,
    explained: float,
    residual_variance: float,
) -> LinearRegression:
    """Carry a fit in z back to the features' own units."""
    schema, rows = statistics.schema, statistics.rows
    scales, centres = schema.scales[places], schema.centres[places]
    own_means = centres + scales * means
    coefficients = slopes * scales[-1] / scales[:-1]
    own_spread = spread * np.outer(scales[-1] / scales[:-1], scales[-1] / scales[:-1])
    own_residual_variance = residual_variance * float(scales[-1]) ** 2
    intercept_variance = own_residual_variance / rows + float(own_means[:-1] @ own_spread @ own_means[:-1])
    return LinearRegression(
        target=names[1],
        features=names[0],
        coefficients=coefficients,
        intercept=float(own_means[-1] - coefficients @ own_means[:-1]),
        standard_errors=np.sqrt(np.diagonal(own_spread)),
        intercept_standard_error=math.sqrt(intercept_variance),
        r_squared=explained / total if total > 0 else math.nan,
        residual_variance=own_residual_variance,
        rows=rows,
    )


def _invert(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the inverse of the correlation matrix and the standard deviations.

    Raises:
        StatisticsError: a feature does not vary, or depends on the others.
    """
    deviations = np.sqrt(np.diagonal(matrix))
    if (deviations <= 0).any():
        raise StatisticsError("regression: expected features that vary, got a constant one")
    scaled = matrix / np.outer(deviations, deviations)
    condition = float(np.linalg.cond(scaled))
    if not condition < MAX_CONDITION_NUMBER:
        raise StatisticsError(f"regression: expected independent features, got a condition number of {condition:.1e}")
    root = np.linalg.inv(np.linalg.cholesky(scaled))
    return root.T @ root, deviations


def _places(statistics: Statistics, names: Sequence[str] | None) -> NDArray[np.intp]:
    schema = statistics.schema
    return np.array([schema.index(name) for name in (schema.names if names is None else names)], dtype=np.intp)


def _central(
    statistics: Statistics, places: NDArray[np.intp], *, least_count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return covariances and means of z, and over how many rows each product was averaged."""
    schema, layout, values = statistics.schema, statistics.schema.layout, statistics.values
    size = len(schema)
    products, counts = np.zeros((size, size)), np.full((size, size), float(statistics.rows))
    products[schema.pairs] = values[layout.products]
    products += products.T
    products[np.diag_indices(size)] = values[layout.squares]
    if schema.has_missing:
        counts[:] = 0
        counts[schema.pairs] = values[layout.pair_counts]
        counts += counts.T
        counts[np.diag_indices(size)] = values[layout.counts]
    products, counts = products[np.ix_(places, places)], counts[np.ix_(places, places)]
    if (counts < least_count).any():
        raise StatisticsError(f"statistics: expected at least {least_count} rows with every two features, got fewer")
    means = values[layout.sums][places] / values[layout.counts][places]
    matrix = products / counts - np.outer(means, means)
    diagonal = np.diag_indices_from(matrix)
    matrix[diagonal] = np.maximum(matrix[diagonal], 0.0)
    return matrix, means, counts


def _standardised(first: float, second: float, third: float, fourth: float, variance: float) -> tuple[float, float]:
    """Return skewness and kurtosis from moments about the centre."""
    if not variance > 0:
        return math.nan, math.nan
    central_third = third - 3 * first * second + 2 * first**3
    central_fourth = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
    return central_third / variance**1.5, central_fourth / variance**2


def _from_histogram(
    counts: NDArray[np.float64], inner: tuple[float, ...], outer: tuple[float, float]
) -> tuple[float, float, float]:
    """Return a lower bound of the minimum, the median, and an upper bound of the maximum."""
    if not counts.sum():
        return math.nan, math.nan, math.nan
    edges = (outer[0], *inner, outer[1])
    filled = np.flatnonzero(counts)
    half, reached = counts.sum() / 2, np.cumsum(counts)
    at = int(np.searchsorted(reached, half))
    share = (half - (reached[at] - counts[at])) / counts[at]
    return edges[filled[0]], float(edges[at] + share * (edges[at + 1] - edges[at])), edges[filled[-1] + 1]
