"""Contracts: the grammar, every function against the rows, limits, what is refused."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pet.errors import ContractError
from pet.federation.statistics.contract import MAX_LINE_LENGTH, Contract
from pet.federation.statistics.contract_functions import FUNCTIONS
from pet.federation.statistics.feature import Feature, Kind
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

SCHEMA = Schema(
    (
        Feature(name="age", centre=50, scale=20),
        Feature(name="weight (kg), net", centre=70, scale=15),
        Feature(name="cancer$positive", kind=Kind.BINARY),
        Feature(name="sex$female", kind=Kind.BINARY),
        Feature(name="never", kind=Kind.BINARY),
    )
)
RANDOM = np.random.default_rng(11)
COLUMNS = {
    "age": RANDOM.normal(55, 10, 400),
    "weight (kg), net": RANDOM.normal(75, 12, 400),
    "cancer$positive": (RANDOM.random(400) < 0.3).astype(float),
    "sex$female": (RANDOM.random(400) < 0.6).astype(float),
    "never": np.zeros(400),
}
STATISTICS = Statistics.of(COLUMNS, SCHEMA)


def holds(*lines):
    contract = Contract.parse(lines)
    contract.validate(SCHEMA)
    return not contract.failures(STATISTICS)


def from_rows(name, x, b):
    """What a function is, from the rows themselves."""
    given_ = {"": x, "COND": x[b == 1], "COMPL_COND": x[b == 0]}
    simple = {
        "COUNT": len(x),
        "MEAN": x.mean(),
        "COVAR": np.cov(x, b, bias=True)[0, 1],
        "LINCORR": np.corrcoef(x, b)[0, 1],
        "COND_COUNT": b.sum(),
        "COND_MEAN": x[b == 1].mean(),
        "PCT_OF_TRUE": 100 * x[b == 1].mean(),
        "PCT_OF_FALSE": 100 * x[b == 0].mean(),
        "NUM_OCCURENCE_WHEN_TRUE": x[b == 1].sum(),
        "NUM_OCCURENCE_WHEN_FALSE": x[b == 0].sum(),
        "MEAN_WHEN_TRUE": x[b == 1].mean(),
        "MEAN_WHEN_FALSE": x[b == 0].mean(),
    }
    if name in simple:
        return simple[name]
    freedom = int(name.endswith("_UNBIASED"))
    base = name.removesuffix("_UNBIASED")
    prefix, _, word = base.rpartition("_")
    values = given_[prefix]
    return values.var(ddof=freedom) if word == "VARIANCE" else values.std(ddof=freedom)


def test_there_are_all_functions_of_the_table():
    spreads = [f"{word}{suffix}" for word in ("VARIANCE", "STDDEV") for suffix in ("", "_UNBIASED")]
    expected = {"COUNT", "MEAN", "COVAR", "LINCORR", "COND_COUNT", "COND_MEAN", *spreads}
    expected |= {prefix + spread for prefix in ("COND_", "COMPL_COND_") for spread in spreads}
    expected |= {f"{name}_{word}" for name in ("PCT_OF", "NUM_OCCURENCE_WHEN", "MEAN_WHEN") for word in ("TRUE", "FALSE")}
    assert set(FUNCTIONS) == expected


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("x", ["age", "weight (kg), net", "sex$female"])
def test_every_function_is_that_of_the_rows(name, x):
    function = FUNCTIONS[name]
    features = (x, "cancer$positive")[: len(function.kinds)]
    if SCHEMA.features[SCHEMA.index(x)].kind not in function.kinds[0]:
        with pytest.raises(Exception, match="expected a"):
            function.evaluate(STATISTICS, features)
        return
    expected = from_rows(name, COLUMNS[x], COLUMNS["cancer$positive"])
    assert function.evaluate(STATISTICS, features) == pytest.approx(expected, rel=1e-9)


def test_a_feature_with_itself():
    assert FUNCTIONS["COVAR"].evaluate(STATISTICS, ("age", "age")) == pytest.approx(COLUMNS["age"].var())
    assert FUNCTIONS["LINCORR"].evaluate(STATISTICS, ("age", "age")) == pytest.approx(1)
    assert FUNCTIONS["PCT_OF_TRUE"].evaluate(STATISTICS, ("sex$female", "sex$female")) == 100


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("COUNT(age) == 400", True),
        ("COUNT(age)!=400", False),
        ("COUNT ( age ) >= 4e2", True),
        ("COUNT(age) > 400", False),
        ("COUNT(age) <= +400.0", True),
        ("COUNT(age) < .5", False),
        ("MEAN(age) > -1.", True),
        ('MEAN("weight (kg), net") > 50', True),
        ('LINCORR( "age" , sex$female ) < 1', True),
        ("NUM_OCCURRENCE_WHEN_TRUE(sex$female, cancer$positive) > 1", True),
        ("COUNT(age) > 500 OR COUNT(age) > 399 AND MEAN(age) > 0", True),
        ("COUNT(age) > 399 OR COUNT(age) > 399 AND MEAN(age) < 0", True),
        ("(COUNT(age) > 399 OR COUNT(age) > 399) AND MEAN(age) < 0", False),
        ("((COUNT(age) > 399))", True),
        ("COUNT(age) > 399 AND (MEAN(age) < 0 OR MEAN(age) > 0)", True),
        ("# COUNT(age) < 0", True),
        ("   ", True),
    ],
)
def test_lines_mean_what_the_grammar_says(line, outcome):
    assert holds(line) is outcome


def test_all_lines_must_hold_and_failures_say_which():
    contract = Contract.parse(["COUNT(age) >= 500", "MEAN(age) > 0", "COUNT(age) < 5 OR  MEAN(age) < 0", ""])
    assert contract.failures(STATISTICS) == ["COUNT(age) >= 500", "COUNT(age) < 5 OR MEAN(age) < 0"]
    assert Contract.parse([]).failures(STATISTICS) == []


def test_what_is_undefined_is_false_both_ways():
    for line in ("COND_MEAN(age, never) > 0", "COND_MEAN(age, never) <= 0", "LINCORR(age, never) != 7"):
        assert Contract.parse([line]).failures(STATISTICS) == [f"{line} (undefined)"]
    assert Contract.parse(["COUNT(age) >= 0"]).failures(Statistics(SCHEMA)) == []
    assert Contract.parse(["MEAN(age) >= 0"]).failures(Statistics(SCHEMA)) == ["MEAN(age) >= 0 (undefined)"]


def test_with_missing_values_a_function_of_two_features_is_over_the_rows_that_have_both():
    schema = Schema((Feature(name="x", centre=2, scale=3), Feature(name="b", kind=Kind.BINARY)), has_missing=True)
    random = np.random.default_rng(4)
    rows = np.column_stack([(random.random(60) < 0.4).astype(float), random.normal(2, 1, 60)])
    rows[random.random(rows.shape) < 0.3] = np.nan
    statistics = Statistics.of(rows, schema)
    b, x = rows[~np.isnan(rows).any(axis=1)].T
    assert 5 < len(x) < 40
    for name, function in FUNCTIONS.items():
        if len(function.kinds) == 2 and Kind.CONTINUOUS in function.kinds[0]:
            assert function.evaluate(statistics, ("x", "b")) == pytest.approx(from_rows(name, x, b), rel=1e-9), name


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("COUNT(age)", "column 11: expected one of >="),
        ("COUNT(age) => 3", "expected one of"),
        ("COUNT(age) >= ", "expected a finite number, got 'the end'"),
        ("COUNT(age) >= 1e999", "finite number"),
        ("COUNT(age) >= nan", "finite number"),
        ("COUNT(age) >= 3 4", "expected AND, OR"),
        ("COUNT(age) >= 3 XOR COUNT(age) > 1", "expected AND, OR"),
        ("COUNT(age) >= 3 AND", "function"),
        ("COUNT(age, age) >= 3", "1 features for COUNT, got 2"),
        ("COVAR(age) >= 3", "2 features"),
        ("COUNT() >= 3", "name of a feature"),
        ("COUNT(  ) >= 3", "name of a feature"),
        ('COUNT("age) >= 3', "name of a feature"),
        ("COUNT(age >= 3", r"expected '\)'"),
        ("count(age) >= 3", "function"),
        ("MEDIAN(age) >= 3", "function"),
        ("(COUNT(age) >= 3", r"expected '\)'"),
        ("(" * 33 + "COUNT(age) >= 3" + ")" * 33, "32 nested"),
        ("x" * (MAX_LINE_LENGTH + 1), "at most 4096"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(line, problem):
    with pytest.raises(ContractError, match=f"line 2.*{problem}"):
        Contract.parse(["# first", line])


def test_limits_are_inclusive():
    Contract.parse(["(" * 32 + "COUNT(age) >= 3" + ")" * 32] + [""] * 255)
    with pytest.raises(ContractError, match="256 lines"):
        Contract.parse([""] * 257)


@pytest.mark.parametrize(
    "line", ["COUNT(nobody) > 1", "COND_MEAN(age, age) > 1", "MEAN_WHEN_TRUE(never, never) > 1", "PCT_OF_TRUE(age, never) > 1"]
)
def test_validation_needs_the_schema_only(line):
    contract = Contract.parse([f"COUNT(age) > 1 AND ({line} OR COUNT(age) > 1)"])
    with pytest.raises(ContractError, match="feature"):
        contract.validate(SCHEMA)


@settings(deadline=None)
@given(st.text(st.sampled_from('COUNTMEA(),"<>=!1.e ageANDOR#'), max_size=60))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(ContractError):
        Contract.parse([text])
