"""Statistics in a round of pet/1: integers that are rounded once, totals that are sums of Python's integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_statistics import SCHEMA, some_rows

from pet import Aggregation, mask_model, sum_masks
from pet.errors import StatisticsError
from pet.federation.statistics.feature import Feature, Kind
from pet.federation.statistics.round_integers import MAX_ROUND_ROWS, RoundIntegers, step_exponents
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

WITH_MISSING = Schema(SCHEMA.features, has_missing=True)


def exact(statistics):
    """Return the numbers as fractions."""
    return [Fraction(float(high)) + Fraction(float(low)) for high, low in zip(*statistics.halves, strict=True)]


def steps(schema):
    """Return the step of each number; 1 of counts."""
    of_others = [Fraction(2) ** int(exponent) for exponent in step_exponents(schema.bounds)]
    return [Fraction(1) if is_count else step for is_count, step in zip(schema.integral, of_others, strict=True)]


def rounded(statistics):
    """Return what a peer's statistics are in a round: integers, halves up."""
    return [(2 * x / step + 1) // 2 for x, step in zip(exact(statistics), steps(statistics.schema), strict=True)]


def merged(parts, schema, *, masked=False):
    """Return what a round of some peers comes to, with masks or, as they vanish exactly, without."""
    form = RoundIntegers(schema, len(parts))
    vectors = [form.encode(part) for part in parts]
    if not masked:
        return form.decode(sum(vectors, start=np.zeros(form.length, dtype=np.uint64)))
    total, seeds = Aggregation(form.config, form.length), []
    for vector in vectors:
        seed, model = mask_model(vector, form.config, 1)
        total.add(model)
        seeds.append(seed)
    model = total.unmask(sum_masks(seeds, form.config, form.length))
    assert model.scalar_sum == len(parts)
    return form.decode(model.to_array())


@pytest.mark.parametrize("schema", [SCHEMA, WITH_MISSING])
def test_a_round_has_the_sums_of_the_rounded_numbers(schema):
    rows = some_rows(1000)
    if schema.has_missing:
        rows[np.random.default_rng(2).random(rows.shape) < 0.2] = np.nan
    parts = [Statistics.of(part, schema) for part in (rows[:7], rows[7:300], rows[300:])]
    total = merged(parts, schema, masked=True)
    sums = [sum(numbers) for numbers in zip(*map(rounded, parts), strict=True)]
    assert exact(total) == [number * step for number, step in zip(sums, steps(schema), strict=True)]
    assert (total.rows, total.masked_peers) == (1000, 3)
    pooled = Statistics.of(rows, schema)
    np.testing.assert_array_equal(total.values[schema.integral], pooled.values[schema.integral])
    np.testing.assert_allclose(total.values, pooled.values, rtol=1e-13, atol=1e-13)
    assert Statistics.from_bytes(total.to_bytes(), schema).to_bytes() == total.to_bytes()
    assert exact(Statistics.from_bytes(total.to_bytes(), schema)) == exact(total)


def of_numbers(schema, rows, shares, low):
    """Return statistics with any numbers that rows can have: shares of what they may be at most, and lower halves."""
    high = np.array(shares) * schema.bounds * rows
    for block in schema.layout.even_blocks:
        high[block] = np.abs(high[block])
    high[schema.integral] = 0.0
    low = np.where(schema.integral, 0.0, np.array(low) * np.spacing(np.abs(high)) / 2)
    return Statistics.of_round(schema, rows, high, low, peers=0)


def as_integers(vector, schema):
    """Return the integers of a vector, from its digits."""
    counts, others = int(schema.integral.sum()), int((~schema.integral).sum())
    numbers = vector.tolist()
    assert max(numbers) < 2**53
    digits = zip(numbers[1 + counts : 1 + counts + others], numbers[1 + counts + others :], strict=True)
    of_others, of_counts = iter([low + 2**53 * high - 2**105 for low, high in digits]), iter(numbers[1 : 1 + counts])
    return [next(of_counts) if is_count else next(of_others) for is_count in schema.integral]


ONE = Schema((Feature(name="x"), Feature(name="y", kind=Kind.BINARY)))
SMALL = Schema((Feature(name="x"), Feature(name="y")), z_max=2.0**-20)
LEAST = Schema((Feature(name="x"),), z_max=1e-80)
#: Halves and quarters of steps, and what lies beside them.
EDGES = [sign * share * 2.0**-power for sign in (1, -1) for share in (0, 1, 1 + 2**-52) for power in (0, 61, 62, 63, 64, 65)]
SHARES = st.one_of(st.floats(-1, 1), st.floats(-1e-12, 1e-12), st.sampled_from(EDGES))


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([ONE, SMALL, LEAST]), st.sampled_from([3, 4, 1000]))
def test_any_numbers_are_rounded_once_and_added_up_as_integers(data, schema, peers):
    length, form = schema.layout.length, RoundIntegers(schema, peers)
    some = st.lists(st.tuples(SHARES, st.floats(-1, 1)), min_size=length, max_size=length)
    few, many = st.integers(1, 100), st.integers(1, min(form.max_rows, schema.max_rows))
    parts = [
        of_numbers(schema, data.draw(st.one_of(few, many)), *zip(*data.draw(some), strict=True)) for _ in range(min(peers, 4))
    ]
    vectors = [form.encode(part) for part in parts]
    assert [as_integers(vector, schema) for vector in vectors] == [rounded(part) for part in parts]
    # The last one contributes as often as it takes.
    last = peers - len(parts) + 1
    totals = sum(vectors[:-1], start=vectors[-1] * np.uint64(last))
    sums = [sum(n[:-1], start=last * n[-1]) for n in zip(*map(rounded, parts), strict=True)]
    assert exact(form.decode(totals)) == [number * step for number, step in zip(sums, steps(schema), strict=True)]


@pytest.mark.parametrize("peers", [3, 17, 1000])
def test_the_most_rows_that_a_round_takes_are_added_up_exactly(peers):
    schema = Schema(ONE.features, max_rows=10**12)
    form = RoundIntegers(schema, peers)
    most = min(form.max_rows, schema.max_rows)
    part = of_numbers(schema, most, [1.0] * schema.layout.length, [0.9] * schema.layout.length)
    total = form.decode(form.encode(part) * np.uint64(peers))
    assert total.rows == peers * most
    assert exact(total) == [peers * number * step for number, step in zip(rounded(part), steps(schema), strict=True)]


def test_vectors_have_one_length_and_the_config_twice_the_peers():
    for peers in (3, 10, 1000):
        form = RoundIntegers(WITH_MISSING, peers)
        assert str(form.config) == f"pet-1/z64,int,models={2 * peers}"
        assert form.length == RoundIntegers(WITH_MISSING, 3).length == 1 + 37 + 2 * 29
        assert form.config.levels >= 2**53 - 1
    for peers in (0, 1001):
        with pytest.raises(StatisticsError, match=f"expected 1 to 1000, got {peers}"):
            RoundIntegers(SCHEMA, peers)


def test_steps_are_less_than_the_range_by_60_bits():
    for schema in (SCHEMA, WITH_MISSING, SMALL):
        others = ~schema.integral
        assert (np.ldexp(1.0, step_exponents(schema.bounds[others])) <= schema.bounds[others] * 2.0**-61).all()


def test_more_rows_than_a_round_takes_are_an_error_that_says_so():
    schema = Schema(ONE.features, max_rows=10**12)
    form = RoundIntegers(schema, 1000)
    part = of_numbers(schema, form.max_rows + 1, [0.0] * schema.layout.length, [0.0] * schema.layout.length)
    with pytest.raises(StatisticsError, match=f"expected 1 to {MAX_ROUND_ROWS // 1000} of a peer in a round of 1000, got"):
        form.encode(part)
    with pytest.raises(StatisticsError, match="rows: expected 1 to"):
        form.encode(Statistics(schema))


@pytest.mark.parametrize("number", [np.nan, np.inf, -1.0, 1e9])
def test_numbers_that_no_rows_have_do_not_leave(number):
    part = Statistics.of(some_rows(50), SCHEMA)
    part.halves[0][SCHEMA.layout.squares.start] = number
    with pytest.raises(StatisticsError, match="statistics: expected"):
        RoundIntegers(SCHEMA, 3).encode(part)


def totals_of(parts):
    form = RoundIntegers(parts[0].schema, len(parts))
    return form, sum((form.encode(part) for part in parts), start=np.zeros(form.length, dtype=np.uint64))


@pytest.mark.parametrize(
    ("place", "change", "problem"),
    [
        (0, 2 - 150, "expected 3 to 30000000 rows of 3 peers, got 2"),
        (0, 3 * 10**7, "expected 3 to 30000000 rows"),
        (0, -1, "counts of at most 149"),
        (1, 1, "counts of at most 150"),
        (4, -1, "histograms of as many rows"),
        (40, 3 * 2**53, "digits of 3 peers"),
        (-1, 2**40, "sums that rows in range can have"),
        (-1, 2**53 + 1000, "digits of 3 peers|larger ones"),
        (-1, -(2**52), "sums that rows in range can have"),
    ],
)
def test_totals_that_no_rows_can_have_are_refused(place, change, problem):
    form, totals = totals_of([Statistics.of(some_rows(50, seed), SCHEMA) for seed in range(3)])
    form.decode(totals)
    totals[place] = (int(totals[place]) + change) % 2**64
    with pytest.raises(StatisticsError, match=problem):
        form.decode(totals)


def test_totals_of_another_length_or_type_are_refused():
    form, totals = totals_of([Statistics.of(some_rows(50, seed), SCHEMA) for seed in range(3)])
    for others in (totals[1:], totals.astype(np.float64), totals.reshape(1, -1)):
        with pytest.raises(StatisticsError, match=f"totals: expected {form.length} uint64"):
            form.decode(others)
