"""Figures against rational arithmetic on the totals that they are computed from, however much of these cancels."""

import math
from fractions import Fraction

import numpy as np
import pytest
from exact_figures import root, solve
from test_analysis import merged_in_a_round

from pet.federation.statistics.analysis import correlation, covariance, linear_regression, univariate
from pet.federation.statistics.contract_functions import FUNCTIONS
from pet.federation.statistics.feature import Feature, Kind
from pet.federation.statistics.schema import Schema

CLOSE = 1e-12
SCHEMA = Schema(
    (
        Feature(name="b", kind=Kind.BINARY),
        Feature(name="far", centre=-7e4, scale=1e4),
        Feature(name="near", centre=1e3, scale=250),
        Feature(name="plain", centre=0.1, scale=1.5),
    )
)


def merged(has_missing, spread):
    """Return what three peers came to: one column has a mean of 7e4 / 1e4 - 3 scales and a deviation far below the scale."""
    random = np.random.default_rng(7)
    plain = random.normal(size=700)
    b = (random.random(700) < 0.3).astype(float)
    near = 1e3 - 250 * 4 + 3 * b + random.normal(size=700) * 40  # a mean near 0, from a centre far from it
    rows = np.column_stack([b, spread * 1e4 * (plain + random.normal(size=700)) / 4 + 1e4, near, plain])
    if has_missing:
        rows[random.random(rows.shape) < 0.1] = np.nan
    return merged_in_a_round(np.split(rows, [50, 400]), Schema(SCHEMA.features, has_missing=has_missing))


class Totals:
    """The totals as fractions, by block of the layout and place in it."""

    def __init__(self, statistics):
        halves = zip(*(half.tolist() for half in statistics.halves), strict=True)
        self.numbers = [Fraction(high) + Fraction(low) for high, low in halves]
        self.schema, self.rows = statistics.schema, statistics.rows
        self.layout = self.schema.layout

    def of(self, block, place):
        return self.numbers[getattr(self.layout, block)][place]

    def central(self, place):
        """Return the mean and the second to the fourth central moments of z."""
        at = int(np.searchsorted(self.schema.continuous, place))
        blocks = (("sums", place), ("squares", place), ("cubes", at), ("fourths", at))
        m1, m2, m3, m4 = (self.of(*block) / self.of("counts", place) for block in blocks)
        return m1, m2 - m1**2, m3 - 3 * m1 * m2 + 2 * m1**3, m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4

    def pair(self, i, j):
        """Return count, covariance and both variances of z over the rows of a pair, i < j."""
        at = int(self.schema.pair_index(np.asarray(i), np.asarray(j)))
        if self.schema.has_missing:
            blocks = ("pair_counts", "pair_first_sums", "pair_second_sums", "pair_first_squares", "pair_second_squares")
            n, a, b, aa, bb = (self.of(block, at) for block in blocks)
        else:
            n, a, b, aa, bb = self.rows, *(self.of(block, k) for block in ("sums", "squares") for k in (i, j))
        return n, self.of("products", at) / n - a * b / n**2, aa / n - a**2 / n**2, bb / n - b**2 / n**2


def close(value, truth, bound=math.inf):
    assert abs(value - truth) <= CLOSE * abs(truth), (float(value), float(truth))
    assert abs(value - truth) <= bound


@pytest.mark.parametrize("has_missing", [False, True])
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_figures_are_those_of_the_totals(has_missing, spread):
    statistics = merged(has_missing, spread)
    totals, schema = Totals(statistics), statistics.schema
    scales = [Fraction(feature.scale) for feature in schema.features]
    for place in schema.continuous.tolist():
        feature, found = schema.features[place], univariate(statistics, schema.names[place])
        mean, second, third, fourth = totals.central(place)
        close(found.mean, Fraction(feature.centre) + scales[place] * mean, found.bounds["mean"])
        close(found.variance, scales[place] ** 2 * second, found.bounds["variance"])
        close(found.standard_deviation, root(scales[place] ** 2 * second))
        if spread == 1 or place != 1:  # of the narrow column the rows' own rounding leaves no digits of these
            close(found.skewness, math.copysign(root(third**2 / second**3), third), found.bounds["skewness"])
            close(found.kurtosis, fourth / second**2, found.bounds["kurtosis"])
    matrix, correlations = covariance(statistics), correlation(statistics)
    for i in range(4):
        for j in range(i + 1, 4):
            _, product, first, second = totals.pair(i, j)
            close(matrix[i, j], product * scales[i] * scales[j], matrix.bounds[i, j])
            close(correlations[i, j], math.copysign(root(product**2 / (first * second)), product), correlations.bounds[i, j])


def test_conditional_figures_are_those_of_the_totals():
    statistics = merged(False, 1e-3)
    totals = Totals(statistics)
    for name, place in (("far", 1), ("near", 2), ("plain", 3)):
        feature, ones = statistics.schema.features[place], totals.of("sums", 0)
        at = int(statistics.schema.pair_index(np.asarray(0), np.asarray(place)))
        n = totals.rows - ones
        first = totals.of("sums", place) - totals.of("products", at)
        row = int(np.searchsorted(statistics.schema.continuous, place))
        second = totals.of("squares", place) - totals.of("conditional_squares", row)
        scale = Fraction(feature.scale)
        value = FUNCTIONS["COMPL_COND_VARIANCE"].evaluate(statistics, (name, "b"))
        close(value, scale**2 * (second / n - first**2 / n**2))
        value = FUNCTIONS["MEAN_WHEN_FALSE"].evaluate(statistics, (name, "b"))
        close(value, Fraction(feature.centre) + scale * first / n)


def test_a_fit_is_that_of_the_totals_within_its_bound():
    statistics = merged(False, 1.0)
    totals, schema = Totals(statistics), statistics.schema
    fit = linear_regression(statistics, "plain")
    size = 3

    def cov(i, j):
        if i == j:
            return totals.of("squares", i) / totals.rows - (totals.of("sums", i) / totals.rows) ** 2
        return totals.pair(min(i, j), max(i, j))[1]

    slopes = solve([[cov(i, j) for j in range(size)] for i in range(size)], [cov(i, size) for i in range(size)])
    for place, slope in enumerate(slopes):
        truth = slope * Fraction(schema.features[size].scale) / Fraction(schema.features[place].scale)
        close(fit.coefficients[place], truth, fit.bounds[f"coefficients.{schema.names[place]}"])
    explained = sum(slope * cov(place, size) for place, slope in enumerate(slopes))
    close(fit.r_squared, explained / cov(size, size), fit.bounds["r_squared"])
    close(fit.residual_variance, (cov(size, size) - explained) * Fraction(1.5) ** 2 * totals.rows / (totals.rows - 4))
