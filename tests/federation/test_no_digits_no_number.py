"""Numbers that the sums have no digits for are NaN or refused, with the reason; those that they have are right."""

import math
import pickle

import numpy as np
import pytest

from pet.errors import StatisticsError
from pet.federation import Feature, Kind, Schema, Statistics, correlation, covariance, linear_regression, univariate
from pet.federation.statistics.contract_functions import FUNCTIONS
from pet.federation.statistics.figures import Figures


def of_one(values, *, centre=0.0, scale=1.0):
    return Statistics.of({"x": values}, Schema((Feature(name="x", centre=centre, scale=scale),)))


def normal(count=1000, seed=0):
    return np.random.default_rng(seed).normal(size=count)


@pytest.mark.parametrize("value", [0.1, 7.7, -9.99])
def test_a_constant_off_the_centre_has_a_mean_and_no_spread(value):
    found = univariate(of_one(np.full(1000, value)), "x")
    assert found.mean == pytest.approx(value, rel=1e-12)
    assert abs(found.mean - value) <= found.bounds["mean"] < 1e-11
    for name in ("variance", "standard_deviation", "variance_unbiased", "skewness", "kurtosis"):
        assert math.isnan(getattr(found, name))
        assert "no digits" in found.reasons[name], name
        assert not found.bounds.get(name, math.inf) < 1e-15


def test_a_constant_at_the_centre_varies_by_exactly_nothing():
    found = univariate(of_one(np.full(1000, 7.7), centre=7.7), "x")
    assert (found.mean, found.variance, found.standard_deviation) == (7.7, 0.0, 0.0)
    assert found.reasons["skewness"] == "a feature does not vary"


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_one_level_does_not_vary(level):
    schema = Schema((Feature(name="b", kind=Kind.BINARY), Feature(name="x")))
    statistics = Statistics.of({"b": np.full(999, level), "x": normal(999)}, schema)
    found = univariate(statistics, "b")
    assert (found.mean, found.variance) == (level, 0.0)
    assert math.isnan(correlation(statistics)[0, 1])
    assert correlation(statistics).reasons["b", "x"] == "a feature does not vary"
    assert (covariance(statistics)[0, 1], covariance(statistics).bounds[0, 1]) == (0, 0)
    with pytest.raises(StatisticsError, match="'b', constant"):
        linear_regression(statistics, "x", ["b"])


def test_a_spread_far_below_the_scale_is_right_or_nan():
    for spread in 10.0 ** -np.arange(0, 16):
        values = 5e6 + normal() * spread
        found = univariate(of_one(values, scale=1e6), "x")
        assert math.isnan(found.variance) or found.variance == pytest.approx(values.var(), rel=1e-3)
        assert math.isnan(found.kurtosis) or found.kurtosis >= 1
        assert math.isnan(found.variance) == (spread < 10), spread


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_an_offset_of_1e12_is_right_with_a_centre_near_it_and_nan_with_one_far_off(spread):
    values = 1e12 + np.round(normal() * spread * 2**13) / 2**13
    near = univariate(of_one(values, centre=1e12, scale=4 * spread), "x")
    assert near.variance == pytest.approx((values - 1e12).var(), rel=1e-9)
    assert math.isnan(near.mean) == (spread < 0.1)  # a double of 10^12 has steps of 10^-4
    far = univariate(of_one(values, scale=1e12), "x")
    assert math.isnan(far.variance)


def test_dependent_features_are_refused():
    x, y = normal(), normal(seed=1)
    schema = Schema(tuple(Feature(name=name, scale=4) for name in "abcy"))
    for third in (x, -3 * x, x + 1e-9 * y, (x + y) / 2, np.full(1000, 0.1)):
        statistics = Statistics.of({"a": x, "b": y, "c": third, "y": x + y}, schema)
        with pytest.raises(StatisticsError, match=r"independent features|constant"):
            linear_regression(statistics, "y", ["a", "b", "c"])


def test_a_fit_without_residuals_has_coefficients_and_no_standard_errors():
    x, y = normal(), normal(seed=1)
    schema = Schema(tuple(Feature(name=name, scale=4) for name in "abc"))
    fit = linear_regression(Statistics.of({"a": x, "b": y, "c": 2 * x - y + 3}, schema), "c")
    np.testing.assert_allclose([*fit.coefficients, fit.intercept, fit.r_squared], [2, -1, 3, 1], rtol=1e-9)
    assert np.isnan([*fit.standard_errors, fit.residual_variance]).all()
    assert "no digits" in fit.reasons["standard_errors.a"]
    assert fit.bounds["coefficients.a"] < 1e-9


def test_a_fit_of_what_does_not_vary_has_no_share_explained():
    schema = Schema((Feature(name="a", scale=4), Feature(name="c", centre=3)))
    fit = linear_regression(Statistics.of({"a": normal(), "c": np.full(1000, 3.0)}, schema), "c")
    assert (fit.coefficients[0], fit.intercept) == (0, 3)
    assert math.isnan(fit.r_squared)
    assert fit.reasons["r_squared"] == "a feature does not vary"


def test_missing_values_give_the_figures_of_the_joint_rows_whatever_the_centre():
    """c01: a correlation of 11, and a covariance that followed the schema's centre."""
    x, y = [0, 0, 10, 10.0], [np.nan, np.nan, 5, 6.0]
    for centre in (0.0, 5.0, -70.0):
        schema = Schema((Feature(name="x", scale=20, centre=centre), Feature(name="y", scale=2)), has_missing=True)
        statistics = Statistics.of({"x": x, "y": y}, schema)
        assert math.isnan(correlation(statistics)[0, 1])
        assert math.isnan(c := covariance(statistics)[0, 1]) or abs(c) < 1e-9
        assert math.isnan(FUNCTIONS["LINCORR"].evaluate(statistics, ("x", "y")))


def test_what_a_matrix_says_of_its_numbers():
    schema = Schema(tuple(Feature(name=name, scale=4) for name in "abc"), has_missing=True)
    x = normal(30)
    statistics = Statistics.of({"a": x, "b": np.where(x > 0, x, np.nan), "c": np.where(x > 0, np.nan, x)}, schema)
    found = covariance(statistics)
    assert found.names == ("a", "b", "c")
    assert (found.counts[0, 1], found.counts[1, 2]) == ((x > 0).sum(), 0)
    assert found.reasons == {("b", "c"): "expected at least 1 rows with both, got 0"}
    assert (np.isfinite(found) == (found.counts > 0)).all()
    assert found.figure(0, 1).bound < 1e-12
    assert found.figure(2, 1).reason == "expected at least 1 rows with both, got 0"
    assert type(found * 2) is type(found[0]) is np.ndarray
    assert type(np.abs(found).max()) is np.float64


def test_figures_keep_what_they_say_of_themselves_in_another_process():
    schema = Schema(tuple(Feature(name=name, scale=4) for name in "ab"))
    matrix = covariance(Statistics.of({"a": normal(30), "b": np.full(30, 0.1)}, schema))
    again = pickle.loads(pickle.dumps(matrix))
    np.testing.assert_array_equal(again, matrix)
    np.testing.assert_array_equal(again.bounds, matrix.bounds)
    assert again.reasons == matrix.reasons != {}
    figure = pickle.loads(pickle.dumps(matrix.figure(0, 1)))
    assert (math.isnan(figure), figure.reason) == (True, matrix.reasons["a", "b"])
    figures = pickle.loads(pickle.dumps(Figures({"mean": 1.0}, bounds={"mean": 0.1}, reasons={"variance": "why"})))
    assert (figures, figures.bounds, figures.reasons) == ({"mean": 1.0}, {"mean": 0.1}, {"variance": "why"})


def test_a_contract_has_no_opinion_on_what_has_no_digits():
    statistics = of_one(np.full(100, 7.7))
    assert math.isnan(FUNCTIONS["VARIANCE"].evaluate(statistics, ("x",)))
    assert FUNCTIONS["MEAN"].evaluate(statistics, ("x",)) == pytest.approx(7.7)


def test_units_so_small_that_products_underflow_are_right_or_nan():
    x = normal(40)
    for size in (1e-140, 1e-154, 1e-157, 1e-160, 1e-162, 1e-170):
        schema = Schema((Feature(name="a", scale=4 * size), Feature(name="b", scale=4 * size)))
        statistics = Statistics.of({"a": x * size, "b": (x + normal(40, 1) / 9) * size}, schema)
        found = covariance(statistics)
        is_number = ~np.isnan(found)
        true = np.cov([x, x + normal(40, 1) / 9], bias=True) * size * size
        assert (np.abs(found - true)[is_number] <= 1e-3 * np.abs(true)[is_number]).all()
        assert is_number.all() == (size >= 1e-160), size
        assert correlation(statistics)[0, 1] == pytest.approx(np.corrcoef(x, x + normal(40, 1) / 9)[0, 1])
