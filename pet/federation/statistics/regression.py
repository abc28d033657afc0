"""Linear regression from moments, with a bound of the error of every coefficient.

The normal equations are solved for the correlation matrix R of the features, through Cholesky's factor. Each entry of R has a
bound E of its error from the sums; to first order the solution is off by at most |R^-1| (E |b| + e), which a factor
1 / (1 - |R^-1| E) makes a bound. Where that product reaches one half, the sums cannot tell the features from dependent ones,
and the fit is refused as collinear.

Source: docs/spec/federation.md 1.6, 1.9; docs/statistics.md, "How exact".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError, StatisticsError
from pet.federation.formats.numbers import columns_by_name, to_floats
from pet.federation.statistics.bounded import UNIT_ROUNDOFF, Bounded
from pet.federation.statistics.figures import CONSTANT, Figure, figure, finite_bounds
from pet.federation.statistics.moments import Moments
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

#: Beyond this, fewer than four digits of a coefficient would be right.
MAX_CONDITION_NUMBER: Final = 1e12
#: From here on |R^-1| E says nothing of the inverse.
_MAX_DISTURBANCE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRegression:
    """A least-squares fit of one feature by others. A number without digits is NaN.

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
        bounds: of the absolute errors, by name: "intercept", "r_squared" and so on; "coefficients.x" and "standard_errors.x"
            of feature x.
        reasons: why a number is NaN, by the same names.
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
    bounds: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def predict(self, rows: Any) -> NDArray[np.float64]:
        """Predict the target.

        Args:
            rows: a matrix with one column per feature, in the order of `features`; or a mapping or DataFrame with columns of
                these names.

        Raises:
            FederationValueError: another number of columns, or some that are missing: names them.
        """
        if isinstance(rows, Mapping) or hasattr(rows, "columns"):
            matrix = columns_by_name(rows, self.features)
        else:
            matrix = np.atleast_2d(to_floats(rows, "rows"))
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise FederationValueError(f"rows: expected {len(self.features)} columns, got an array of shape {matrix.shape}")
        prediction: NDArray[np.float64] = matrix @ self.coefficients + self.intercept
        return prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A fit in z.

    Attributes:
        slopes: of the target's z by the features', length k.
        spread: covariance matrix of the slopes, k x k.
        explained: variance of the target's z that the fit explains.
        total: all of it.
        residual_variance: unbiased.
        means: of z, the target's last.
    """

    slopes: Bounded
    spread: Bounded
    explained: Bounded
    total: Bounded
    residual_variance: Bounded
    means: Bounded


def linear_regression(statistics: Statistics, target: str, features: Sequence[str] | None = None) -> LinearRegression:
    """Fit one feature by others.

    Args:
        statistics: of the rows.
        target: what to predict.
        features: by what; None means by all others.

    Raises:
        FederationValueError: a feature that is not there, named twice, or the target itself; none at all.
        StatisticsError: not more rows than coefficients, missing values or pairs left out (a fit needs whole rows), or
            features that do not vary or depend on each other, as far as the sums can tell.
    """
    schema = statistics.schema
    names = tuple(features) if features is not None else tuple(name for name in schema.names if name != target)
    if not names or len({*names, target}) != len(names) + 1:
        raise FederationValueError(f"regression: expected different features beside the target {target!r}, got {list(names)}")
    places = np.array([schema.index(name) for name in (*names, target)], dtype=np.intp)
    rows, size = statistics.rows, len(names)
    if rows <= size + 1:
        raise StatisticsError(f"regression: expected more than {size + 1} rows for {size + 1} coefficients, got {rows}")
    fit = _fitted(Moments(statistics), places, names, rows)
    return _in_own_units(fit, schema, places, (names, target), rows)


def _fitted(moments: Moments, places: NDArray[np.intp], names: tuple[str, ...], rows: int) -> _Fit:
    pairs, size = moments.pairs(places), len(names)
    if pairs.left_out.any():
        raise StatisticsError(
            f"regression: expected all peers to share these features together, got {pairs.left_out.max()} that left a pair "
            "out, as a few of their rows miss a value"
        )
    if (pairs.sums.count.value != rows).any():
        raise StatisticsError("regression: expected rows without missing values, got some with")
    matrix = pairs.covariance
    variances = Bounded(np.diagonal(matrix.value), np.diagonal(matrix.error))
    if (constant := np.flatnonzero(variances.may_be_zero[:size])).size:
        raise StatisticsError(
            f"regression: expected features that vary, got {names[constant[0]]!r}, constant as far as its sums can tell"
        )
    deviations = variances[:size].root()
    inverse, disturbance = _inverted(matrix[:size, :size] / (deviations[:, None] * deviations[None, :]))
    right = matrix[:size, size] / deviations
    standardised = inverse.value @ right.value
    growth = 1 / (1 - _norm(np.abs(inverse.value) @ disturbance))
    error = growth * np.abs(inverse.value) @ (disturbance @ np.abs(standardised) + right.error)
    explained = _explained(standardised, right, inverse, disturbance, growth)
    total = variances[size]
    residual = total - explained
    residual = Bounded(np.maximum(residual.value, 0.0), residual.error)
    residual_variance = residual.times(rows) / Bounded.exact(rows - size - 1)
    per_row = residual_variance / Bounded.exact(rows)
    return _Fit(
        slopes=Bounded(standardised, error) / deviations,
        spread=inverse / (deviations[:, None] * deviations[None, :]) * per_row,
        explained=explained,
        total=total,
        residual_variance=residual_variance,
        means=Bounded(np.diagonal(pairs.sums.mean.value), np.diagonal(pairs.sums.mean.error)),
    )


def _explained(
    slopes: NDArray[np.float64], right: Bounded, inverse: Bounded, disturbance: NDArray[np.float64], growth: float
) -> Bounded:
    """Return the variance that standardised slopes explain.

    As the fit is where that is greatest, an error of R counts only with the slopes on both sides of it. The rounding of the
    solution does not go through the equations; it counts in full.
    """
    size, absolute = len(slopes), np.abs(slopes)
    of_sums = 2 * absolute @ right.error + absolute @ disturbance @ absolute
    of_solution = _rounding(size) * float(absolute.sum()) * float((np.abs(right.value) @ np.abs(inverse.value)).sum())
    error = growth * (of_sums + of_solution) + 4 * size * UNIT_ROUNDOFF * (absolute @ np.abs(right.value))
    return Bounded(np.asarray(slopes @ right.value), np.asarray(error))


def _rounding(size: int) -> float:
    """Return the bound of what the factorisation and two products add to each entry of R, all of which are at most 1."""
    return 8 * (size + 1) * UNIT_ROUNDOFF


def _inverted(matrix: Bounded) -> tuple[Bounded, NDArray[np.float64]]:
    """Return the inverse of a correlation matrix, and bounds of the errors that it was computed from.

    Raises:
        StatisticsError: a feature depends on the others, as far as the sums can tell.
    """
    size = len(matrix.value)
    scaled = matrix.value.copy()
    scaled[np.diag_indices(size)] = 1.0
    condition = float(np.linalg.cond(scaled))
    try:
        if not condition < MAX_CONDITION_NUMBER:
            raise np.linalg.LinAlgError
        root = np.linalg.inv(np.linalg.cholesky(scaled))
    except np.linalg.LinAlgError:
        raise StatisticsError(f"regression: expected independent features, got a condition number of {condition:.1e}") from None
    inverse = root.T @ root
    disturbance = matrix.error + _rounding(size)
    np.fill_diagonal(disturbance, _rounding(size))
    disturbed = _norm(np.abs(inverse) @ disturbance)
    if not disturbed < _MAX_DISTURBANCE:
        raise StatisticsError(
            f"regression: expected independent features, got some that depend on each other as far as their sums can tell "
            f"(condition number {condition:.1e})"
        )
    return Bounded(inverse, np.abs(inverse) @ disturbance @ np.abs(inverse) / (1 - disturbed)), disturbance


def _norm(matrix: NDArray[np.float64]) -> float:
    """Return the largest sum of a row."""
    return float(matrix.sum(axis=1).max())


def _in_own_units(
    fit: _Fit, schema: Schema, places: NDArray[np.intp], names: tuple[tuple[str, ...], str], rows: int
) -> LinearRegression:
    """Carry a fit in z back to the features' own units, and put NaN where there are no digits."""
    scales, centres = schema.scales[places], schema.centres[places]
    coefficients = fit.slopes.times(scales[-1]) / Bounded.exact(scales[:-1])
    spread = fit.spread.times(scales[-1]).times(scales[-1]) / Bounded.exact(scales[:-1, None])
    spread = spread / Bounded.exact(scales[None, :-1])
    standard_errors = Bounded(np.diagonal(spread.value), np.diagonal(spread.error)).root()
    residual_variance = fit.residual_variance.times(scales[-1]).times(scales[-1])
    means = fit.means.times(scales) + Bounded.exact(centres)
    # In z first: where the centres are far off, the products with the means would lose what the slopes have.
    in_z = fit.means[-1] - fit.slopes.matmul(fit.means[:-1])
    intercept = Bounded.exact(centres[-1]) + in_z.times(scales[-1]) - coefficients.matmul(Bounded.exact(centres[:-1]))
    variance = residual_variance / Bounded.exact(rows) + means[:-1].matmul(spread.matmul(means[:-1]))
    intercept_error = variance.root()
    r_squared = fit.explained / fit.total
    r_squared = Bounded(np.clip(r_squared.value, 0.0, 1.0), r_squared.error)
    is_total_known = bool(fit.total.is_resolved) and not fit.total.may_be_zero
    constant = CONSTANT if fit.total.value == 0 and fit.total.error == 0 else None
    figures: dict[str, Figure] = {
        "intercept": figure(intercept, intercept.is_within_deviation(intercept_error)),
        "intercept_standard_error": figure(intercept_error, intercept_error.is_resolved),
        "r_squared": figure(r_squared, is_total_known and r_squared.is_within(np.asarray(1.0)), constant),
        "residual_variance": figure(residual_variance, residual_variance.is_resolved),
    }
    for place, name in enumerate(names[0]):
        slope, error = coefficients[place], standard_errors[place]
        figures[f"coefficients.{name}"] = figure(slope, slope.is_within_deviation(error))
        figures[f"standard_errors.{name}"] = figure(error, error.is_resolved)
    return _with_figures(figures, names, rows)


def _with_figures(figures: dict[str, Figure], names: tuple[tuple[str, ...], str], rows: int) -> LinearRegression:
    def vector(prefix: str) -> NDArray[np.float64]:
        return np.array([float(figures[f"{prefix}.{name}"]) for name in names[0]])

    return LinearRegression(
        target=names[1],
        features=names[0],
        coefficients=vector("coefficients"),
        intercept=float(figures["intercept"]),
        standard_errors=vector("standard_errors"),
        intercept_standard_error=float(figures["intercept_standard_error"]),
        r_squared=float(figures["r_squared"]),
        residual_variance=float(figures["residual_variance"]),
        rows=rows,
        bounds=finite_bounds(figures),
        reasons={name: found.reason for name, found in figures.items() if found.reason is not None},
    )
