"""Statistics against the rows they are of: every number, learning and forgetting, merging, rounds, bytes."""

import contextlib
import io
import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pet.errors import FederationValueError, RemoteProtocolError, RowError, StatisticsError
from pet.federation.statistics.analysis import univariate
from pet.federation.statistics.feature import Feature, Kind
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

SCHEMA = Schema(
    (
        Feature(name="weight", centre=70, scale=15, edges=(50.0, 70.0, 90.0)),
        Feature(name="ill", kind=Kind.BINARY),
        Feature(name="age", centre=50, scale=20),
        Feature(name="female", kind=Kind.BINARY),
    )
)


def some_rows(count, seed=1):
    """Rows in the schema's own order: age, female, ill, weight."""
    random = np.random.default_rng(seed)
    return np.column_stack(
        [random.normal(50, 15, count), random.integers(0, 2, count), random.random(count) < 0.2, random.normal(75, 12, count)]
    ).astype(float)


def slow_sums(rows, schema):
    """The vector of spec 1.9, one number after the other, exactly."""
    seen = ~np.isnan(rows)
    z = [
        [
            Fraction((value - f.centre) / f.scale) if ok else Fraction(0)
            for value, ok, f in zip(*row, schema.features, strict=True)
        ]
        for row in zip(rows.tolist(), seen.tolist(), strict=True)
    ]
    places = range(len(schema))
    pairs = [(i, j) for i in places for j in places if i < j]
    numbers = [sum(bool(row[i]) for row in seen) for i in places]
    for power in (1, 2):
        numbers += [sum(row[i] ** power for row in z) for i in places]
    for power in (3, 4):
        numbers += [sum(row[i] ** power for row in z) for i in schema.continuous]
    numbers += [sum(row[i] * row[j] for row in z) for i, j in pairs]
    if schema.has_missing:
        numbers += [sum(bool(row[i] and row[j]) for row in seen) for i, j in pairs]
        for power in (1, 2):
            for k in (0, 1):
                numbers += [
                    sum(row[pair[k]] ** power for row, ok in zip(z, seen, strict=True) if ok[pair[0]] and ok[pair[1]])
                    for pair in pairs
                ]
        numbers += [0 for _ in pairs]
    numbers += [sum(row[i] ** 2 * row[j] for row in z) for i in schema.continuous for j in schema.binary]
    for place, feature in enumerate(schema.features):
        if feature.edges:
            edges = (-math.inf, *feature.edges, math.inf)
            numbers += [sum(low <= value < high for value in rows[:, place]) for low, high in itertools.pairwise(edges)]
    return np.array([float(number) for number in numbers])


def test_every_number_is_that_of_the_rows():
    rows = some_rows(200)
    statistics = Statistics.of(rows, SCHEMA)
    assert statistics.rows == 200
    np.testing.assert_allclose(statistics.values, slow_sums(rows, SCHEMA), rtol=1e-12, atol=1e-11)


def test_missing_values_count_where_they_are_seen():
    schema = Schema(SCHEMA.features, has_missing=True)
    rows = some_rows(100)
    rows[np.random.default_rng(2).random(rows.shape) < 0.2] = np.nan
    np.testing.assert_allclose(Statistics.of(rows, schema).values, slow_sums(rows, schema), rtol=1e-12, atol=1e-11)


def test_a_missing_value_is_refused_where_the_schema_allows_none():
    rows = some_rows(5)
    rows[3, 0] = np.nan
    with pytest.raises(RowError, match="row 3, feature age"):
        Statistics.of(rows, SCHEMA)


@pytest.mark.parametrize(
    ("place", "value", "name"), [(0, 251.0, "age"), (3, -81.0, "weight"), (1, 0.5, "female"), (2, np.inf, "ill")]
)
def test_a_value_outside_is_refused_with_its_row_and_feature_and_changes_nothing(place, value, name):
    statistics = Statistics.of(some_rows(50), SCHEMA)
    before = statistics.copy()
    rows = some_rows(5000, seed=4)
    rows[4500, place] = value
    with pytest.raises(RowError) as refusal:
        statistics.learn(rows)
    assert (refusal.value.row, refusal.value.feature) == (4500, name)
    assert str(value) not in str(refusal.value)
    assert statistics == before


def test_all_sources_give_the_same():
    rows = some_rows(300)
    frame = pd.DataFrame(rows, columns=SCHEMA.names).assign(note="not looked at")[["note", "weight", "age", "ill", "female"]]
    csv = frame.to_csv(index=False)
    expected = Statistics.of(rows, SCHEMA)
    for source in (frame, io.StringIO(csv), {name: frame[name] for name in SCHEMA.names}, iter([rows[:100], frame[100:]])):
        merged = Statistics.of(source, SCHEMA)
        assert merged.rows == 300
        np.testing.assert_allclose(merged.values, expected.values, rtol=1e-14, atol=1e-13)


def test_a_csv_file_is_read_in_blocks(tmp_path):
    rows = some_rows(1000)
    path = tmp_path / "rows.csv"
    np.savetxt(path, rows, delimiter=",", header=",".join(SCHEMA.names), comments="", fmt="%.17g")
    assert Statistics.of(str(path), SCHEMA, block_rows=64).rows == 1000
    np.testing.assert_allclose(
        Statistics.of(path, SCHEMA, block_rows=64).values, Statistics.of(rows, SCHEMA).values, atol=1e-11
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("age,female,ill\n1,1,1\n", "weight"),
        ("age,female,ill,weight,age\n", "age"),
        ("age,female,ill,weight\n50,1,0,70\n50,1,0\n", "line 3, column 4: expected 4 fields as in the heading, got 3"),
        ("age,female,ill,weight\n50,1,0,heavy\n", "line 2, column 4, feature weight: expected a number"),
        ("age,female,ill,weight\n50,1,0,\n", "line 2, column 4, feature weight: expected a value"),
    ],
)
def test_bad_csv_is_refused(text, problem):
    with pytest.raises(FederationValueError, match=problem):
        Statistics.of(io.StringIO(text), SCHEMA)


@pytest.mark.parametrize("source", [np.zeros((3, 3)), np.zeros(4), {"age": [1.0]}, np.array([["a", "b", "c", "d"]])])
def test_a_table_that_does_not_fit_is_refused(source):
    with pytest.raises(FederationValueError):
        Statistics.of(source, SCHEMA)


def test_forgetting_leaves_what_was_there_before():
    kept, gone = some_rows(100), some_rows(100_000, seed=5)
    before = Statistics.of(kept, SCHEMA)
    statistics = before.copy()
    for _ in range(5):
        statistics.learn(gone)
    for _ in range(5):
        assert statistics.forget(gone) == 100_000
    assert statistics == before


def test_forgetting_in_other_blocks_loses_only_the_rounding_of_a_block():
    kept, gone = some_rows(100), some_rows(20_000, seed=5)
    statistics = Statistics.of(kept, SCHEMA)
    statistics.learn(gone)
    statistics.forget(gone[::-1], block_rows=777)
    np.testing.assert_allclose(statistics.values, Statistics.of(kept, SCHEMA).values, rtol=0, atol=1e-8)


def test_forgetting_leaves_no_sum_of_squares_below_0():
    schema = Schema((Feature(name="b", kind=Kind.BINARY), Feature(name="x")))
    x = np.random.default_rng(3).normal(size=3000)
    gone = np.column_stack([np.arange(3000) % 2, x])
    lows = []
    for count in (700, 701, 999, 1300):
        statistics = Statistics.of(np.zeros((20, 2)), schema)
        statistics.learn(gone)
        statistics.forget(gone[::-1], block_rows=count)
        lows += [statistics.values[block].min() for block in schema.layout.even_blocks if block.stop > block.start]
    assert min(lows) == 0, "the sums are of zeros, and rounding goes either way"


def test_forgetting_everything_leaves_nothing():
    rows = some_rows(5000)
    statistics = Statistics.of(rows, SCHEMA)
    statistics.forget(rows[::-1])
    assert statistics == Statistics(SCHEMA)


def test_rows_never_learned_cannot_be_forgotten():
    statistics = Statistics.of(some_rows(50), SCHEMA)
    before = statistics.copy()
    for others in (some_rows(51), some_rows(50, seed=9)):
        with pytest.raises(StatisticsError, match="forget"):
            statistics.forget(others)
    assert statistics == before


def test_merged_parts_are_the_whole():
    rows = some_rows(999)
    parts = [Statistics.of(rows[start:stop], SCHEMA) for start, stop in ((0, 10), (10, 600), (600, 999))]
    np.testing.assert_allclose(
        (parts[0] + parts[1] + parts[2]).values, Statistics.of(rows, SCHEMA).values, rtol=1e-14, atol=1e-12
    )
    assert (parts[0] + parts[1] - parts[1]) == parts[0]


def test_other_schemas_do_not_mix():
    other = Schema(SCHEMA.features, z_max=9)
    with pytest.raises(FederationValueError, match="schema"):
        Statistics(SCHEMA) + Statistics(other)


def test_a_peer_has_no_more_rows_than_the_schema_says():
    schema = Schema(SCHEMA.features, max_rows=100)
    statistics = Statistics.of(some_rows(60), schema)
    with pytest.raises(StatisticsError, match="at most 100"):
        statistics.learn(some_rows(41))
    assert statistics.rows == 60


@pytest.mark.parametrize("with_residues", [False, True])
def test_bytes_come_back(with_residues):
    statistics = Statistics.of(some_rows(500), SCHEMA)
    data = statistics.to_bytes(with_residues=with_residues)
    assert Statistics.from_bytes(data, SCHEMA) == statistics


def change(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def test_bytes_keep_what_the_numbers_went_through():
    statistics = Statistics.of(some_rows(50), SCHEMA)
    none = (0, 0, 0)
    for peers, decimal, forgotten, version in (
        (*none, 1),
        (0, 7, 0, 2),
        (0, 0, 5, 2),
        (0, 10**6, 2**40, 2),
        (3, 0, 0, 3),
        (10**6, 5, 1, 3),
    ):
        statistics.masked_peers, statistics.decimal_peers, statistics.forgotten_rows = peers, decimal, forgotten
        assert statistics.to_bytes()[4] == version
        again = Statistics.from_bytes(statistics.to_bytes(), SCHEMA)
        assert (again.masked_peers, again.decimal_peers) == (min(peers, 65535), min(decimal, 65535))
        assert (again.forgotten_rows, again) == (forgotten, statistics)


def test_totals_of_an_earlier_release_have_the_error_of_its_rounds():
    schema = Schema(SCHEMA.features, max_rows=10**12)
    statistics = Statistics.of(some_rows(50), schema)
    statistics.decimal_peers = 10
    again = Statistics.from_bytes(statistics.to_bytes(), schema)
    assert univariate(again, "age").bounds["mean"] >= 20 * 2e-20 * 10 * 10**12 / 50
    statistics.decimal_peers, statistics.masked_peers = 0, 10
    assert univariate(statistics, "age").bounds["mean"] < 1e-12, "max_rows has no part in rounds of today"


def test_rows_that_were_forgotten_are_counted_until_nothing_is_left():
    statistics = Statistics.of(some_rows(50), SCHEMA)
    statistics.learn(some_rows(20, seed=2))
    earlier = statistics.copy()
    statistics.forget(some_rows(20, seed=2))
    statistics.learn(some_rows(5, seed=3))
    assert (earlier + (statistics - earlier)).forgotten_rows == statistics.forgotten_rows == 20
    statistics.forget(some_rows(5, seed=3))
    statistics.forget(some_rows(50))
    assert (statistics.rows, statistics.forgotten_rows) == (0, 0)


def test_the_layout_of_missing_values_is_part_of_a_schema():
    assert "layout" not in SCHEMA.to_json()
    schema = Schema(SCHEMA.features, has_missing=True)
    text = schema.to_json()
    assert Schema.from_json(text, is_agreed=True) == schema
    without = text.replace('"layout":2,', "")
    assert without != text
    assert Schema.from_json(without) == schema
    for agreed, problem in ((without, "got layout 1"), (text.replace('"layout":2', '"layout":3'), "got layout 3")):
        with pytest.raises(FederationValueError, match=f"expected statistics of layout 2, {problem}"):
            Schema.from_json(agreed, is_agreed=True)
    with pytest.raises(FederationValueError, match="got layout '2'"):
        Schema.from_json(text.replace('"layout":2', '"layout":"2"'))


def test_foreign_bytes_are_refused():
    data = Statistics.of(some_rows(50), SCHEMA).to_bytes()
    cases = {
        "malformed_statistics": [b"", data[:51], data[:-1], data + b"\0", change(data, 0, b"X"), change(data, 5, b"\4")],
        "unknown_version": [change(data, 4, b"\0"), change(data, 4, b"\4")],
        "schema_mismatch": [change(data, 8, b"\0"), change(data, 48, b"\0\0\1")],
        "impossible_statistics": [change(data, 40, b"\xff"), change(data, 52, np.array([51.0]).tobytes())],
    }
    cases["malformed_statistics"] += [change(data, 4, b"\2"), change(data, 6, b"\0\1")]  # peers of a round without, or with, it
    cases["impossible_statistics"] += [change(data, 52, np.array([number]).tobytes()) for number in (np.nan, -1.0, 0.5)]
    for reason, broken in cases.items():
        for bytes_ in broken:
            with pytest.raises(RemoteProtocolError) as refusal:
                Statistics.from_bytes(bytes_, SCHEMA)
            assert refusal.value.reason == reason


def test_a_difference_may_be_negative_but_not_infinite():
    less, more = Statistics.of(some_rows(50), SCHEMA), Statistics.of(some_rows(80), SCHEMA)
    data = (less - more).to_bytes()
    assert Statistics.from_bytes(data, SCHEMA, is_difference=True).rows == -30
    with pytest.raises(RemoteProtocolError):
        Statistics.from_bytes(data, SCHEMA)
    with pytest.raises(RemoteProtocolError):
        Statistics.from_bytes(change(data, 52, np.array([np.inf]).tobytes()), SCHEMA, is_difference=True)


names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
finite = st.floats(-1e6, 1e6)


@given(
    st.lists(
        st.tuples(names, st.booleans(), finite, st.floats(1e-3, 1e3)), min_size=1, max_size=6, unique_by=lambda item: item[0]
    )
)
@settings(max_examples=50, deadline=None)
def test_schemas_survive_json_whatever_the_order(items):
    features = [
        Feature(name=name, kind=Kind.BINARY) if binary else Feature(name=name, centre=centre, scale=scale, edges=(centre,))
        for name, binary, centre, scale in items
    ]
    schema = Schema(tuple(features))
    assert Schema.from_json(schema.to_json()) == schema == Schema(tuple(reversed(features)))
    assert Schema.from_json(schema.to_json()).digest == schema.digest
    assert len(schema.bounds) == len(schema.integral) == schema.layout.length


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"features":[]}',
        '{"features":[{"name":"a"}]}',
        '{"features":[{"name":"a","kind":"text"}]}',
        '{"features":[{"name":"a","kind":"binary","scale":2}]}',
        '{"features":[{"name":"a","kind":"continuous","scale":0}]}',
        '{"features":[{"name":"a","kind":"continuous","centre":"0"}]}',
        '{"features":[{"name":"a","kind":"continuous","edges":[2,1]}]}',
        '{"features":[{"name":"a","kind":"continuous","edges":[11]}]}',
        '{"features":[{"name":"a","kind":"continuous","centre":NaN}]}',
        '{"features":[{"name":" a","kind":"continuous"}]}',
        '{"features":[{"name":"a","kind":"continuous"},{"name":"a","kind":"binary"}]}',
        '{"features":[{"name":"a","kind":"continuous","more":1}]}',
        '{"features":[{"name":"a","kind":"continuous"}],"more":1}',
        '{"features":[{"name":"a","kind":"continuous"}],"z_max":10.5}',
        '{"features":[{"name":"a","kind":"continuous"}],"max_rows":0}',
        '{"features":[{"name":"a","kind":"continuous"}],"max_rows":1.5}',
        '{"features":[{"name":"a","kind":"continuous"}],"has_missing":1}',
    ],
)
def test_what_is_no_schema_is_refused(text):
    with pytest.raises(FederationValueError):
        Schema.from_json(text)


def test_a_proposed_schema_takes_the_rows_it_was_proposed_from():
    rows = some_rows(500)
    schema = Schema.propose(SCHEMA.names, rows, bins=10)
    assert [feature.kind for feature in schema.features] == [Kind.CONTINUOUS, Kind.BINARY, Kind.BINARY, Kind.CONTINUOUS]
    assert Statistics.of(rows, schema).rows == 500
    assert all(math.frexp(feature.scale)[0] == 0.5 for feature in schema.features)


@pytest.mark.parametrize(
    ("seen", "others"),
    [
        ([7.7], [5.0, 10.0, -7.7]),
        ([0.1, 0.1, 0.1], [0.0, 1.0]),
        ([0.3, 0.1 + 0.2], [0.1, 3.0]),
        ([1e12], [0.0, 3e12]),
        ([1e12, 1e12 + 1], [1e12 - 60_000, 1e12 + 60_000]),
        ([7.7, 7.7 + 1e-9], [7.7001, 7.6999]),
        ([0.0, 0.0], [1.0]),
        ([1.0], [0.0]),
        ([-1e-300, 1e-300], [2e-300]),
        ([2.0**-1070], [3.0]),
    ],
)
def test_a_schema_from_a_column_that_hardly_varies_has_room_for_other_peers(seen, others):
    column = np.array(seen)
    schema = Schema.propose(["x"], column[:, None])
    assert Statistics.of({"x": [*seen, *others]}, schema).rows == len(seen) + len(others)
    if (spread := column.std()) > 1e-12 * np.abs(column).max() and schema.features[0].kind is Kind.CONTINUOUS:
        assert univariate(Statistics.of({"x": np.tile(column, 500)}, schema), "x").variance == pytest.approx(
            spread**2, rel=1e-9
        )


@given(st.binary(max_size=400), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_statistics_or_refused(data, is_difference):
    whole = Statistics.of(some_rows(9), SCHEMA).to_bytes()
    for text in (data, whole[:52] + data[: len(whole) - 52].ljust(len(whole) - 52, b"\0")):
        with contextlib.suppress(RemoteProtocolError):
            Statistics.from_bytes(text, SCHEMA, is_difference=is_difference)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["features", "name", "kind", "edges", "scale", "z_max"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values | st.fixed_dictionaries({"features": st.lists(json_values, max_size=3)}))
@settings(max_examples=100, deadline=None)
def test_any_json_is_a_schema_or_refused(value):
    try:
        schema = Schema.from_json(json.dumps(value))
    except FederationValueError:
        return
    assert Schema.from_json(schema.to_json()) == schema
