"""Any table, split among any peers: every figure is exact within its bound, or NaN where its bound says so.

Tables have missing values, constants, columns far from their centre or far narrower than their scale, two levels or one, and
columns that depend on others. Truth is exact arithmetic on the pooled rows.
"""

import collections
import math

import numpy as np
import pandas as pd
import pytest
from exact_figures import covariance as exact_covariance
from exact_figures import exact, joint, moments, regression, root
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_analysis import merged_in_a_round

from pet.errors import StatisticsError
from pet.federation import Feature, Kind, Schema, Statistics, correlation, covariance, linear_regression, univariate
from pet.federation.peer.shared_pairs import SharedPairs
from pet.federation.statistics.moments import Moments

#: Relative to the scale of a figure: what a figure must reach, and how large its bound may be.
CLOSE, MAX_SHARE = 1e-9, 1e-3
NAMES = "abcd"
#: How far from the centre, in units of the scale, and how wide in these; what of either is ordinary.
ORDINARY_OFFSETS, ORDINARY_WIDTHS = [0.0, 0.5, -1.5], [1.0, 0.25]
OFFSETS, WIDTHS = [*ORDINARY_OFFSETS, 5.0, -9.0], [*ORDINARY_WIDTHS, 1e-3, 1e-6, 1e-9, 1e-13, 0.0]
UNITS = [(0.0, 1.0), (120.0, 20.0), (-3e5, 7e4), (1e12, 1e6), (1e12, 1.0), (0.0, 1e-150), (7.7, 1e100)]

column_kinds = st.one_of(
    st.tuples(st.just("spread"), st.sampled_from(UNITS), st.sampled_from(OFFSETS), st.sampled_from(WIDTHS)),
    st.tuples(st.just("raw"), st.lists(st.floats(-9.9, 9.9), min_size=1, max_size=12)),
    st.tuples(st.just("levels"), st.sampled_from([0.0, 0.1, 0.5, 1.0])),
    st.tuples(st.just("sum"), st.sampled_from([0.0, 1e-10, 1e-5, 1.0])),
)
ordinary_kinds = st.one_of(
    st.tuples(
        st.just("spread"), st.sampled_from(UNITS[:3]), st.sampled_from(ORDINARY_OFFSETS), st.sampled_from(ORDINARY_WIDTHS)
    ),
    st.tuples(st.just("levels"), st.sampled_from([0.3, 0.5, 0.7])),
)


def table_of(kinds, count, missing_share, seed):
    """Return a schema and its rows: columns as they were drawn."""
    random = np.random.default_rng(seed)
    features, columns = [], {}
    for name, (kind, *given_) in zip(NAMES, kinds, strict=False):
        feature = Feature(name=name)
        if kind == "spread":
            (centre, scale), offset, width = given_
            feature = Feature(name=name, centre=centre, scale=scale)
            z = offset + width * np.clip(random.normal(size=count), -2.5, 2.5) / 2.5
            column = np.clip(centre + scale * z, *(centre + np.array([-9.99, 9.99]) * scale))
        elif kind == "raw":
            column = np.resize(given_[0], count)
        elif kind == "levels":
            feature = Feature(name=name, kind=Kind.BINARY)
            column = (random.random(count) < given_[0]).astype(float)
        else:
            of = [np.nan_to_num((columns[f.name] - f.centre) / f.scale) for f in features] or [np.zeros(count)]
            column = np.mean(of, axis=0) / 2 + given_[0] * random.normal(size=count) / 10
        features.append(feature)
        columns[name] = column
    rows = np.column_stack(list(columns.values()))
    rows[random.random(rows.shape) < missing_share] = np.nan
    return Schema(tuple(features), has_missing=missing_share > 0), rows


tables = st.tuples(st.lists(column_kinds, min_size=2, max_size=4), st.integers(2, 40), st.sampled_from([0.0, 0.2, 0.6]))
ordinary_tables = st.tuples(st.lists(ordinary_kinds, min_size=2, max_size=4), st.integers(25, 60), st.sampled_from([0.0, 0.2]))
seeds, cuts = st.integers(0, 2**32 - 1), st.lists(st.floats(0, 1), max_size=4)


def merged(rows, schema, at, masked):
    """Return the statistics of rows that are split among peers at some shares of them; alone, each also forgets some."""
    parts = [part for part in np.split(rows, sorted(round(share * len(rows)) for share in at)) if len(part)]
    if masked:
        return merged_in_a_round(parts, schema)
    return sum((after_forgetting(part, schema) for part in parts), Statistics(schema))


def after_forgetting(part, schema):
    """Return the statistics of rows that were learned beside others, which were then forgotten in other blocks."""
    ranges = np.array([schema.range_of(feature) for feature in schema.features])
    random = np.random.default_rng(len(part))
    others = random.uniform(*ranges.T, (20, len(schema)))
    is_binary = np.array([feature.kind is Kind.BINARY for feature in schema.features])
    others[:, is_binary] = np.rint(others[:, is_binary])
    statistics = Statistics.of(np.vstack([part, others]), schema)
    if len(part) % 2:
        statistics.forget(others[::-1], block_rows=3)
        return statistics
    return Statistics.of(part, schema)


class Tally:
    """Holds figures against the truth, and counts those that are none."""

    def __init__(self):
        self.numbers = 0
        self.refused = collections.Counter()

    def hold(self, name, value, bound, truth, scale, *, undefined=False, least_share=MAX_SHARE, has_scale=True):
        """Check one figure.

        Args:
            name: of the figure, for the count.
            value: as computed.
            bound: as stated.
            truth: exact.
            scale: what its error is held against.
            undefined: whether no rows define it.
            least_share: a figure that is none must have a bound of about this share of the scale, ...
            has_scale: ... or a scale, or a denominator, that itself has no digits.
        """
        if math.isnan(value):
            if not undefined:
                assert not has_scale or bound >= 0.98 * least_share * scale, (name, bound, truth, scale)
                self.refused[name] += 1
            return
        assert not undefined, (name, value)
        self.numbers += 1
        error = abs(value - truth)
        assert error <= bound * (1 + 1e-9) + 2.0**-52 * abs(truth), (name, value, truth, bound)
        assert error <= CLOSE * scale or bound <= 1.02 * MAX_SHARE * max(scale, abs(truth)), (name, value, truth, bound, scale)


def hold_univariate(tally, statistics, name, column):
    found, values = univariate(statistics, name), exact(column)
    assert found.count == len(values)
    if not values:
        assert math.isnan(found.mean)
        return
    true = moments(values)
    deviation = root(true["m2"])
    bound = collections.defaultdict(lambda: math.inf, found.bounds)
    has = not math.isnan(found.variance)
    tally.hold("mean", found.mean, bound["mean"], float(true["mean"]), deviation, has_scale=has)
    tally.hold("variance", found.variance, bound["variance"], float(true["m2"]), float(true["m2"]))
    tally.hold(
        "standard_deviation",
        found.standard_deviation,
        bound["standard_deviation"],
        deviation,
        deviation,
        least_share=MAX_SHARE / 2.1,
    )
    few, constant = len(values) < 2, not true["m2"]
    unbiased = float(true["m2"] * len(values) / (len(values) - 1)) if not few else 0.0
    tally.hold("variance_unbiased", found.variance_unbiased, bound["variance_unbiased"], unbiased, unbiased, undefined=few)
    if constant:
        assert math.isnan(found.skewness)
        assert math.isnan(found.kurtosis)
    elif not math.isnan(found.variance):
        skewness = math.copysign(root(true["m3"] ** 2 / true["m2"] ** 3), true["m3"])
        tally.hold("skewness", found.skewness, bound["skewness"], skewness, 1.0)
        kurtosis = float(true["m4"] / true["m2"] ** 2)
        tally.hold("kurtosis", found.kurtosis, bound["kurtosis"], kurtosis, kurtosis)


def hold_pairs(tally, statistics, rows):
    names = statistics.schema.names
    covariances, correlations = covariance(statistics), correlation(statistics)
    assert not (np.abs(correlations) > 1).any()
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            first, second = joint(rows[:, i], rows[:, j])
            assert covariances.counts[i, j] == len(first)
            if not first:
                assert covariances.reasons[names[i], names[j]] == "expected at least 1 rows with both, got 0"
                continue
            variances = [moments(values)["m2"] for values in (first, second)]
            true = exact_covariance(first, second)
            scale = root(variances[0] * variances[1])
            bound, has = covariances.bounds[i, j], has_digits(statistics, names, i, j)
            tally.hold("covariance", covariances[i, j], bound, float(true), scale, has_scale=has)
            r = math.copysign(root(true**2 / (variances[0] * variances[1])), true) if scale else 0.0
            bound = correlations.bounds[i, j]
            tally.hold("correlation", correlations[i, j], bound, r, 1.0, undefined=not scale, has_scale=has)


def has_digits(statistics, names, i, j):
    """Return whether both variances over the joint rows of a pair have digits."""
    places = np.array([statistics.schema.index(names[place]) for place in (i, j)])
    variances = Moments(statistics).pairs(places).sums.variance
    return (variances.is_resolved & ~variances.may_be_zero)[[0, 1], [1, 0]].all()


def hold_regression(tally, statistics, rows):
    names = statistics.schema.names
    if np.isnan(rows).any() or len(rows) <= len(names):
        with pytest.raises(StatisticsError):
            linear_regression(statistics, names[-1])
        return
    columns = [exact(column) for column in rows.T]
    true = regression(columns[:-1], columns[-1])
    try:
        fit = linear_regression(statistics, names[-1])
    except StatisticsError:
        tally.refused["regression"] += true is not None
        return
    assert true is not None, "features that depend on each other were fitted"
    coefficients, error_squares, r_squared, residual_variance = true
    bound = collections.defaultdict(lambda: math.inf, fit.bounds)
    keys = [*(f"coefficients.{name}" for name in names[:-1]), "intercept"]
    error_keys = [*(f"standard_errors.{name}" for name in names[:-1]), "intercept_standard_error"]
    found, found_errors = [*fit.coefficients, fit.intercept], [*fit.standard_errors, fit.intercept_standard_error]
    for i, key in enumerate(keys):
        error = root(error_squares[i]) if error_squares[i] else 0.0
        has = not math.isnan(found_errors[i])
        tally.hold("coefficient", found[i], bound[key], float(coefficients[i]), error, has_scale=has)
        tally.hold("standard_error", found_errors[i], bound[error_keys[i]], error, error)
    variance = float(residual_variance)
    tally.hold("residual_variance", fit.residual_variance, bound["residual_variance"], variance, variance)
    if r_squared is not None and not math.isnan(fit.r_squared):
        tally.hold("r_squared", fit.r_squared, bound["r_squared"], float(r_squared), 1.0)


def hold_all(statistics, rows):
    tally = Tally()
    for place, name in enumerate(statistics.schema.names):
        hold_univariate(tally, statistics, name, rows[:, place])
    hold_pairs(tally, statistics, rows)
    hold_regression(tally, statistics, rows)
    return tally


@given(tables, seeds, cuts, st.booleans())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_figure_of_any_table_is_exact_within_its_bound_or_none(table, seed, at, masked):
    schema, rows = table_of(*table, seed)
    hold_all(merged(rows, schema, at, masked), rows)


@given(ordinary_tables, seeds, cuts, st.booleans())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_figure_of_an_ordinary_table_is_a_number_and_that_of_pandas(table, seed, at, masked):
    schema, rows = table_of(*table, seed)
    statistics = merged(rows, schema, at, masked)
    tally = hold_all(statistics, rows)
    assert not tally.refused
    assert tally.numbers > 5
    frame = pd.DataFrame(rows, columns=schema.names)
    deviations = frame.std(ddof=0).to_numpy()
    difference = covariance(statistics, unbiased=True) - frame.cov().to_numpy()
    assert np.nanmax(np.abs(difference) / np.outer(deviations, deviations)) < CLOSE
    assert np.nanmax(np.abs(correlation(statistics) - frame.corr().to_numpy())) < CLOSE


class NoStore:
    """A store that keeps nothing."""

    def save_state(self, name, state):
        pass

    def load_state(self, name):
        return None


def shares(part, i, j, least):
    """Return whether a peer shares a pair: none of its rows, or enough, have one value without the other."""
    first, second = np.isnan(part[:, i]), np.isnan(part[:, j])
    return all(not 0 < alone < least for alone in ((first & ~second).sum(), (second & ~first).sum()))


@given(st.lists(ordinary_kinds, min_size=2, max_size=3), st.integers(25, 120), seeds, cuts, st.sampled_from([0.01, 0.05, 0.4]))
@settings(max_examples=20, deadline=None)
def test_what_peers_share_of_any_split_is_pandas_over_those_that_share_a_pair(kinds, count, seed, at, missing_share):
    schema, rows = table_of(kinds, count, missing_share, seed)
    parts = [part for part in np.split(rows, sorted(round(share * count) for share in at)) if len(part)]
    shared = [SharedPairs(NoStore(), is_masked=True).share(Statistics.of(part, schema), 1) for part in parts]
    statistics = sum(shared, Statistics(schema))
    found, correlations, tally = covariance(statistics), correlation(statistics), Tally()
    for i, j in zip(*schema.pairs, strict=True):
        rest = [part for part in parts if shares(part, i, j, len(schema) + 5)]
        assert found.peers_left_out[i, j] == len(parts) - len(rest)
        first, second = joint(*np.vstack(rest)[:, [i, j]].T) if rest else ([], [])
        assert found.counts[i, j] == len(first)
        if not first or not (scale := root(moments(first)["m2"] * moments(second)["m2"])):
            assert math.isnan(correlations[i, j])
            continue
        true = exact_covariance(first, second)
        tally.hold("covariance", found[i, j], found.bounds[i, j], float(true), scale)
        tally.hold("correlation", correlations[i, j], correlations.bounds[i, j], float(true) / scale, 1.0)
    assert not tally.refused
    for place, name in enumerate(schema.names):
        hold_univariate(tally, statistics, name, rows[:, place])


def test_a_large_table_has_digits_to_spare():
    random = np.random.default_rng(5)
    rows = random.normal(2, 1, (200_000, 2)) @ [[1, 0.5], [0, 1]]
    schema = Schema((Feature(name="a"), Feature(name="b")))
    found = univariate(Statistics.of(rows, schema), "a")
    assert abs(found.variance - rows[:, 0].var()) < 1e-12 < found.bounds["variance"] < 1e-10
    assert correlation(Statistics.of(rows, schema)).bounds.max() < 1e-10
