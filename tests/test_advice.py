"""The cost model behind `pet config advise`: what it lists is good enough, in order, and complete."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pet.advice import Requirements, advise, has_no_wire_code, needs_dyadic_fractions
from pet.errors import ConfigError
from pet.mask_config import BoundType, DataType, GroupType, MaskConfig, ModelType

CONFIGS = [MaskConfig(*choice) for choice in itertools.product(GroupType, DataType, BoundType, ModelType)]


def task(**changes):
    usual = {"bound": Fraction(1), "model_count": 500, "precision": Fraction(1, 10**6), "scalar_sum": Fraction(1)}
    return Requirements(**{**usual, **changes})


@pytest.mark.parametrize(
    "wanted",
    [
        task(),
        task(bound=Fraction(100), model_count=10**6, precision=Fraction(1, 10)),
        task(bound=Fraction(10**7), precision=Fraction(10)),
        task(precision=Fraction(1, 10**12)),
        task(data_types=(DataType.I32,), precision=Fraction(2), bound=Fraction(3)),
    ],
)
def test_every_config_listed_is_good_enough_and_the_cheapest_come_first(wanted):
    found = advise(wanted)
    for advice in found:
        assert advice.config.largest_value >= wanted.bound
        assert advice.config.max_model_count >= wanted.model_count
        assert advice.mean_error <= wanted.precision
        assert advice.config.dtype in [data_type.dtype for data_type in wanted.data_types]
    costs = [(advice.keystream_bytes, advice.wire_bytes) for advice in found]
    assert costs == sorted(costs)


def test_nothing_that_is_good_enough_is_cheaper_than_the_first():
    wanted = task()
    fit = [
        config
        for config in CONFIGS
        if config.data_type in wanted.data_types
        and config.add_shift >= wanted.bound
        and config.max_model_count >= wanted.model_count
        and config.mean_error(wanted) <= wanted.precision
    ]
    assert advise(wanted, xaynet=True)[0].keystream_bytes == min(config.mean_keystream_bytes for config in fit)


@pytest.mark.parametrize("xaynet", [False, True])
@settings(max_examples=30, deadline=None)
@given(
    bound=st.fractions(Fraction(1, 1000), 10**7),
    models=st.integers(1, 10**9),
    exponent=st.integers(-14, 2),
    shares=st.booleans(),
    data_type=st.sampled_from([None, DataType.F32, DataType.F64]),
)
def test_the_first_is_what_the_library_picks(xaynet, bound, models, exponent, shares, data_type):
    numbers = {"bound": bound, "precision": Fraction(10) ** exponent, "scalar_sum": Fraction(1 if shares else models)}
    try:
        picked = MaskConfig.for_data(**numbers, models=models, data_type=data_type, xaynet=xaynet)
    except ConfigError:
        picked = None
    wanted = Requirements.of(bound, models, numbers["precision"], numbers["scalar_sum"], data_type)
    if picked is None:
        with pytest.raises(ConfigError):
            advise(wanted, xaynet=xaynet)
    else:
        assert advise(wanted, xaynet=xaynet)[0].config == picked


def test_configs_of_pet_1_stand_beside_xaynets():
    found = advise(task(scalar_sum=Fraction(500)))
    first, second = found[0], found[1]
    assert str(first.config) == "pet-1/z32,f32,bound=1,models=1000"
    assert (first.wire_bytes, round(first.keystream_bytes), round(first.acceptance)) == (4, 4, 1)
    assert 0 < first.mean_error < Fraction(1, 10**6)
    assert str(second.config) == "pet-1/z32,f64,bound=1,models=1000"
    assert [has_no_wire_code(advice.config) for advice in found[:5]] == [True, True, True, True, False]
    assert not any(has_no_wire_code(advice.config) for advice in advise(task(), xaynet=True))


def test_a_config_for_more_models_can_be_cheaper():
    found = [str(advice.config) for advice in advise(task(data_types=(DataType.F32,)))]
    assert found.index("prime-f32-b0-m6") < found.index("prime-f32-b0-m3")


def test_an_integer_group_is_left_out_where_the_prime_one_costs_the_same():
    found = {str(advice.config) for advice in advise(task())}
    assert "prime-f32-b0-m3" in found
    assert "integer-f32-b0-m3" not in found


def test_a_float_that_cannot_hold_the_precision_at_the_bound_is_not_listed():
    found = advise(task(bound=Fraction(100), precision=Fraction(1, 10**6)))
    assert {advice.config.dtype for advice in found} == {DataType.F64.dtype}


def test_the_sum_of_the_scalars_matters():
    config = MaskConfig.parse("prime-f32-b0-m3")
    assert config.mean_error(task(scalar_sum=Fraction(500))) < config.mean_error(task(scalar_sum=Fraction(1)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bound": Fraction(10) ** 400}, "bound: expected at most 1.80e\\+308 .* got 1e\\+400"),
        ({"model_count": 10**13}, "models: expected at most 1e\\+12 .* got 1e\\+13"),
        ({"precision": Fraction(1, 10**30)}, "precision: expected at least"),
        ({"bound": Fraction(0)}, "bound: expected more than 0, got 0"),
        ({"precision": Fraction(-1)}, "precision: expected more than 0, got -1"),
        ({"scalar_sum": Fraction(0)}, "scalar sum: expected more than 0, got 0"),
        ({"model_count": 0}, "models: expected 1 or more, got 0"),
    ],
)
def test_what_cannot_be_had_is_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        advise(task(**changes))


def test_floats_with_bmax_are_marked():
    assert {config for config in CONFIGS if needs_dyadic_fractions(config)} == {
        config for config in CONFIGS if config.bound_type is BoundType.BMAX and config.data_type.value.startswith("f")
    }


def test_time_follows_from_keystream():
    advice = advise(task())[0]
    assert advice.nanoseconds(1024.0) == pytest.approx(advice.keystream_bytes)
