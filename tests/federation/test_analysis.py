"""What analysis says from statistics against what NumPy says from the rows, pooled and federated."""

import math

import numpy as np
import pandas as pd
import pytest

from pet.errors import FederationValueError, StatisticsError
from pet.federation.peer.local_project import LocalProject
from pet.federation.statistics.analysis import correlation, covariance, linear_regression, univariate
from pet.federation.statistics.feature import Feature, Kind
from pet.federation.statistics.round_integers import RoundIntegers
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics


def diabetes():
    from sklearn.datasets import load_diabetes  # takes a second that collecting the tests need not wait for

    data = load_diabetes(scaled=False)
    names = (*data.feature_names, "progression")
    rows = np.column_stack([data.data, data.target])
    return names, np.where(np.arange(11) == 1, rows - 1, rows)  # sex is 1 or 2


def schema_of(names, rows):
    schema = Schema.propose(names, rows, bins=20)
    order = [names.index(name) for name in schema.names]
    return schema, rows[:, order]


def merged_in_a_round(parts, schema):
    """Statistics of several parts as a round adds them up; masks cancel exactly (test_round_integers.py)."""
    form = RoundIntegers(schema, len(parts))
    return form.decode(sum(form.encode(Statistics.of(part, schema)) for part in parts))


def relative(value, expected):
    return np.max(np.abs(np.asarray(value) - expected) / np.maximum(np.abs(expected), 1e-300))


@pytest.mark.parametrize("federated", [False, True])
def test_the_regression_is_that_of_the_rows(federated):
    names, rows = diabetes()
    schema, ordered = schema_of(list(names), rows)
    parts = [ordered[:20], ordered[20:150], ordered[150:]]
    statistics = merged_in_a_round(parts, schema) if federated else Statistics.of(ordered, schema)
    fit = linear_regression(statistics, "progression", names[:-1])

    design = np.column_stack([rows[:, :-1], np.ones(len(rows))])
    solution = np.linalg.lstsq(design / np.abs(design).max(0), rows[:, -1], rcond=None)[0] / np.abs(design).max(0)
    residuals = rows[:, -1] - design @ solution
    variance = residuals @ residuals / (len(rows) - 11)
    errors = np.sqrt(variance * np.diagonal(np.linalg.inv(design.T @ design)))
    assert relative(fit.coefficients, solution[:-1]) < 1e-9
    assert relative(fit.intercept, solution[-1]) < 1e-9
    assert relative(fit.standard_errors, errors[:-1]) < 1e-9
    assert relative(fit.intercept_standard_error, errors[-1]) < 1e-9
    assert relative(fit.r_squared, 1 - residuals @ residuals / ((rows[:, -1] - rows[:, -1].mean()) ** 2).sum()) < 1e-9
    assert relative(fit.residual_variance, variance) < 1e-9
    assert fit.rows == 442
    predicted = fit.predict(rows[:, :-1])
    assert relative(predicted, design @ solution) < 1e-9
    np.testing.assert_array_equal(fit.predict(dict(zip(names, rows.T, strict=True))), predicted)


@pytest.mark.parametrize("federated", [False, True])
def test_covariance_and_correlation_are_those_of_the_rows(federated):
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [*data.feature_names, "benign"]
    schema, rows = schema_of(names, np.column_stack([data.data, data.target]))
    statistics = merged_in_a_round(np.array_split(rows, 3), schema) if federated else Statistics.of(rows, schema)
    expected = np.cov(rows.T, bias=True)
    deviations = np.sqrt(np.diagonal(expected))
    assert np.max(np.abs(covariance(statistics) - expected) / np.outer(deviations, deviations)) < 1e-9
    assert relative(np.diagonal(covariance(statistics, unbiased=True)), rows.var(axis=0, ddof=1)) < 1e-9
    assert np.max(np.abs(correlation(statistics) - np.corrcoef(rows.T))) < 1e-9
    some = ["mean area", "benign"]
    places = [schema.index(name) for name in some]
    np.testing.assert_allclose(covariance(statistics, some), expected[np.ix_(places, places)], rtol=1e-9)


def test_univariate_is_that_of_the_column():
    names, rows = diabetes()
    schema, ordered = schema_of(list(names), rows)
    statistics = merged_in_a_round(np.array_split(ordered, 4), schema)
    for place, name in enumerate(schema.names):
        column, found = ordered[:, place], univariate(statistics, name)
        centred = column - column.mean()
        assert found.count == 442
        for value, expected in (
            (found.mean, column.mean()),
            (found.variance, column.var()),
            (found.standard_deviation, column.std()),
            (found.variance_unbiased, column.var(ddof=1)),
            (found.skewness, (centred**3).mean() / column.std() ** 3),
            (found.kurtosis, (centred**4).mean() / column.var() ** 2),
        ):
            assert relative(value, expected) < 1e-9, name
        if schema.features[place].edges:
            assert sum(found.histogram) == 442
            assert found.least <= column.min() <= column.max() <= found.greatest
            width = np.diff(schema.features[place].edges).max()
            assert abs(found.median - np.median(column)) < width
        else:
            assert found.histogram == ()
            assert math.isnan(found.median)


def test_pairs_with_missing_values_use_the_rows_that_have_both():
    schema = Schema((Feature(name="a"), Feature(name="b")), has_missing=True)
    rows = np.array([[1.0, 2.0], [3.0, np.nan], [2.0, 5.0], [np.nan, 4.0]])
    statistics = Statistics.of(rows, schema)
    assert covariance(statistics)[0, 1] == pytest.approx((1 * 2 + 2 * 5) / 2 - 1.5 * 3.5)
    assert covariance(statistics, unbiased=True)[0, 1] == pytest.approx(pd.DataFrame(rows).cov()[0][1])
    assert univariate(statistics, "a").count == 3
    with pytest.raises(StatisticsError, match="without missing values"):
        linear_regression(Statistics.of(np.vstack([rows] * 3), schema), "a")


def test_what_no_rows_define_is_refused_or_nan():
    schema = Schema((Feature(name="a", edges=(0.0,)), Feature(name="b")))
    empty = Statistics(schema)
    assert math.isnan(univariate(empty, "a").mean)
    assert math.isnan(univariate(empty, "a").median)
    with pytest.raises(StatisticsError):
        covariance(empty)
    constant = Statistics.of(np.column_stack([np.arange(9.0), np.ones(9)]), schema)
    assert np.isnan(correlation(constant)[0, 1])
    assert math.isnan(univariate(constant, "b").kurtosis)
    assert math.isnan(univariate(Statistics.of(np.ones((1, 2)), schema), "a").variance_unbiased)
    with pytest.raises(StatisticsError, match="at least 2 rows"):
        covariance(Statistics.of(np.ones((1, 2)), schema), unbiased=True)


def test_regressions_that_cannot_be_fitted_are_refused():
    schema = Schema(tuple(Feature(name=name) for name in "abc"))
    random = np.random.default_rng(3)
    a, b = random.normal(size=(2, 50))
    for problem, rows, target, features, kind in (
        ("constant", np.column_stack([np.ones(50), a, b]), "c", None, StatisticsError),
        ("independent", np.column_stack([a, 2 * a, b]), "c", None, StatisticsError),
        ("more than 3 rows", np.column_stack([a, b, a])[:3], "c", None, StatisticsError),
        ("expected one of", np.column_stack([a, b, a]), "d", None, FederationValueError),
        ("different features", np.column_stack([a, b, a]), "c", ["a", "c"], FederationValueError),
        ("different features", np.column_stack([a, b, a]), "c", [], FederationValueError),
    ):
        with pytest.raises(kind, match=problem):
            linear_regression(Statistics.of(rows, schema), target, features)
    fit = linear_regression(Statistics.of(np.column_stack([a, b, a + b]), schema), "c")
    for bad in (np.ones((2, 3)), {"a": [1.0]}):
        with pytest.raises(FederationValueError):
            fit.predict(bad)


def test_a_conditional_variance_needs_no_rows():
    schema = Schema((Feature(name="x", centre=3, scale=2), Feature(name="y", kind=Kind.BINARY)))
    rows = np.column_stack([np.random.default_rng(1).normal(3, 1, 200), np.arange(200) % 2])
    statistics = Statistics.of(rows, schema)
    squares = statistics.values[schema.layout.conditional_squares]
    assert squares == pytest.approx([(((rows[1::2, 0] - 3) / 2) ** 2).sum()])


def test_a_project_fits_the_features_that_were_named_or_none(storage):
    schema = Schema(tuple(Feature(name=name) for name in "abc"))
    project = LocalProject(storage, schema)
    project.learn(np.random.default_rng(3).normal(size=(30, 3)))
    with pytest.raises(FederationValueError, match="expected different features"):
        project.linear_regression("a", [])
    assert list(project.linear_regression("a", None).coefficients) == ["b", "c"]
    fit = project.linear_regression("a", ["b", "c"])
    assert fit.predict({"b": [1.0, 2.0], "c": [0.0, 1.0], "d": [5.0, 5.0]}).shape == (2,)
    for columns, named in (({"c": [1.0]}, "'b'"), ({}, "'b', 'c'"), ({"b": [1.0], "c": [1.0, 2.0]}, "one length")):
        for each in (fit, linear_regression(project.snapshot(), "a")):
            with pytest.raises(FederationValueError, match=named):
                each.predict(columns)
