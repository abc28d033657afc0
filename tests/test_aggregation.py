"""Masking, adding and unmasking: the library as its users see it, held against exact arithmetic."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pet
from pet import kernels

CONFIG = pet.MaskConfig.parse("prime-f32-b0-m3")
SEED = pet.MaskSeed(bytes(range(0x80, 0xA0)))


def vector(*weights: float) -> np.ndarray:
    return np.array(weights, dtype=np.float32)


def masked(weights: np.ndarray, config: pet.MaskConfig | pet.MaskConfigPair = CONFIG, scalar=1, seed=None):
    return pet.mask_model(weights, config, scalar, seed)


# ---- worked vectors of the specification (14.5, 14.6) ----------------------------------------------------------------


def test_worked_masks(backend):
    mask = SEED.derive_mask(CONFIG, 4)
    assert mask.unit == 17736178887424
    assert mask.to_bytes().hex() == ("0100000300000004b2423edfeb118e0a462a6c0dd68e0c0ba8057bb27e20360b01000003006ba4862110")


def test_worked_masked_model(backend):
    _, masked_model = masked(vector(0.1, 0.2, 0.345, 0.3), seed=SEED)
    assert masked_model.to_bytes().hex() == (
        "0100000300000004c0f0e46eee11ab8287f56e0d4a45bb2cab05f2f45a27390b010000030033bc2e2610"
    )
    total = pet.Aggregation(CONFIG, 4)
    total.add(masked_model)
    model = total.unmask(pet.sum_masks([SEED], CONFIG, 4))
    assert [str(fraction) for fraction in model.to_fractions()] == [
        "500000007/5000000000",
        "2000000029/10000000000",
        "862499997/2500000000",
        "3000000119/10000000000",
    ]
    assert model.scalar_sum == 1


# ---- the mean ---------------------------------------------------------------------------------------------------------

CONFIGS = [
    "prime-f32-b0-m3", "power2-f32-b4-m6", "integer-f64-b2-m3", "prime-f64-b6-m12", "power2-f64-b0-m9", "prime-i32-b6-m6",
    "power2-i64-bmax-m9", "integer-i32-bmax-m3", "power2-f32-bmax-m6",
]  # fmt: skip


@st.composite
def rounds(draw: st.DrawFn):
    """A config, weights of a few models, and their scalars, in and beyond the bounds."""
    config = pet.MaskConfig.parse(draw(st.sampled_from(CONFIGS)))
    dtype = config.data_type.dtype
    bound = float(min(config.add_shift, 10**6))
    if dtype.kind == "f":
        weight = st.floats(-1.25 * bound, 1.25 * bound, width=8 * dtype.itemsize, allow_subnormal=True)
    else:
        weight = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    scalar = st.one_of(st.integers(0, 3), st.floats(0, 2), st.fractions(0, 2, max_denominator=10**6), st.just(Fraction(1, 3)))
    length = draw(st.integers(1, 5))
    models = draw(
        st.lists(st.tuples(st.lists(weight, min_size=length, max_size=length), scalar), min_size=1, max_size=4).filter(
            lambda models: sum(Fraction(scalar) for _, scalar in models) > Fraction(1, 1000)
        )
    )
    return config, [(np.array(weights, dtype=dtype), Fraction(scalar)) for weights, scalar in models]


@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rounds())
def test_unmasked_sum_is_the_weighted_mean_within_the_proven_bound(round_):
    config, models = round_
    length = len(models[0][0])
    total = pet.Aggregation(config, length)
    seeds = []
    for weights, scalar in models:
        seed, masked_model = pet.mask_model(weights, config, scalar)
        seeds.append(seed)
        total.add(masked_model)
    model = total.unmask(pet.sum_masks(seeds, config, length))
    bound, steps = Fraction(config.add_shift), config.exp_shift
    scalars = [min(scalar, bound) for _, scalar in models]
    count = len(models)
    # Floors lose less than 1 / E of each weight and of each scalar (spec 3.7).
    assert 0 <= sum(scalars) - model.scalar_sum < Fraction(count, steps)
    for i, fraction in enumerate(model.to_fractions()):
        scaled = [
            max(-bound, min(bound, scalar * Fraction(weights[i].item())))
            for (weights, _), scalar in zip(models, scalars, strict=True)
        ]
        lost = sum(scaled) - fraction * model.scalar_sum
        assert 0 <= lost < Fraction(count, steps)


def test_clipping_is_counted_or_refused(backend):
    weights = vector(0.5, 1.5, -1, -7)
    _, masked_model = masked(weights)
    assert masked_model.clipped_count == 2
    _, masked_model = masked(vector(0.5), scalar=3)
    assert masked_model.clipped_count == 1
    with pytest.raises(pet.ModelError, match=r"scalar \* weight within the bound .*, got 2 of 4 outside"):
        pet.mask_model(weights, CONFIG, on_clip="raise")


def test_bytes_do_not_tell_what_was_clipped():
    _, masked_model = masked(vector(0.5))
    assert pet.MaskedModel.from_bytes(masked_model.to_bytes()).clipped_count is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(bad, backend):
    weights = np.zeros(1000, dtype=np.float32)
    weights[997] = bad
    with pytest.raises(pet.ModelError, match="997"):
        masked(weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.1, 0.2], "expected a NumPy array of float32, or one with __dlpack__, got list"),
        (np.zeros(3), "expected float32 of one dimension, got float64"),
        (np.zeros((2, 2), dtype=np.float32), r"shape \(2, 2\)"),
        (np.zeros(3, dtype=">f4"), "got >f4"),
    ],
)
def test_weights_of_another_kind_are_refused(weights, message):
    with pytest.raises(pet.ModelError, match=message):
        masked(weights)


@pytest.mark.parametrize(
    ("scalar", "message"),
    [
        (-1, "expected 0 or more"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        ("1", "got str"),
        (Fraction(1, 3**1300), "at most 2048 bits"),
    ],
)
def test_scalars_that_cannot_be_are_refused(scalar, message):
    with pytest.raises(pet.ModelError, match=message):
        masked(vector(0.5), scalar=scalar)


def test_scalars_of_numpy_are_taken_exactly():
    first = masked(vector(0.5), scalar=np.float32(0.3), seed=SEED)[1]
    assert first == masked(vector(0.5), scalar=Fraction(float(np.float32(0.3))), seed=SEED)[1]
    assert masked(vector(0.5), scalar=np.int64(1), seed=SEED)[1] == masked(vector(0.5), seed=SEED)[1]


def test_strided_weights_are_taken():
    weights = np.arange(10, dtype=np.float32)[::3] / 10
    assert masked(weights, seed=SEED)[1] == masked(weights.copy(), seed=SEED)[1]


# ---- sums of masks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prime-f32-b0-m6", "power2-f64-b6-m12", "integer-i64-b2-m9", "power2-i64-bmax-m9"])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_sum_of_masks_is_the_same_for_any_number_of_threads(name, threads):
    config = pet.MaskConfig.parse(name)
    length = (1 << 16) + 3  # more than one piece
    if config.mean_keystream_bytes > 100:
        length = 2000
    seeds = [pet.MaskSeed(bytes([i]) * 32) for i in range(5)]
    total = pet.Aggregation(config, length)
    for seed in seeds:
        mask = seed.derive_mask(config, length)
        total.add(pet.MaskedModel(mask.config, mask.vect, mask.unit))
    summed = pet.sum_masks(seeds, config, length, threads=threads)
    assert summed.to_bytes() == total.to_masked_model().to_bytes()


def test_sum_of_no_masks_is_zero(backend):
    mask = pet.sum_masks([], CONFIG, 3)
    assert mask.unit == 0
    assert not mask.vect.any()


def test_vector_and_unit_may_have_different_configs(backend):
    pair = pet.MaskConfigPair(vect=CONFIG, unit=pet.MaskConfig.parse("power2-f64-b2-m6"))
    total = pet.Aggregation(pair, 3)
    seeds = []
    for scalar in (Fraction(1, 3), 7, 50):
        seed, masked_model = masked(vector(0.5, -0.25, 0.01), pair, scalar)
        assert pet.MaskedModel.from_bytes(masked_model.to_bytes()) == masked_model
        seeds.append(seed)
        total.add(masked_model)
    model = total.unmask(pet.sum_masks(seeds, pair, 3))
    assert float(model.scalar_sum) == pytest.approx(57 + 1 / 3)
    scaled = [sum(max(-1, min(1, scalar * weight)) for scalar in (1 / 3, 7, 50)) for weight in (0.5, -0.25, 0.01)]
    assert model.to_array() == pytest.approx(np.array(scaled) / (57 + 1 / 3), rel=1e-6)


# ---- aggregation --------------------------------------------------------------------------------------------------------


def test_order_of_adding_does_not_matter(backend):
    models = [masked(vector(0.1 * i, -0.2 * i))[1] for i in range(4)]
    sums = set()
    for permutation in itertools.permutations(models):
        total = pet.Aggregation(CONFIG, 2)
        for model in permutation:
            total.add(model)
        sums.add(total.to_masked_model().to_bytes())
    together = pet.Aggregation(CONFIG, 2)
    together.add_many(models)
    sums.add(together.to_masked_model().to_bytes())
    assert len(sums) == 1
    assert together.count == 4


@pytest.mark.parametrize("name", ["prime-f32-b0-m3", "power2-f32-b2-m6", "power2-f64-b6-m12", "power2-i64-bmax-m9"])
def test_many_models_go_beyond_the_capacity_of_a_plane(name, backend):
    config = pet.MaskConfig.parse(name)
    largest = config.order - 1
    vect = np.frombuffer(largest.to_bytes(config.element_bytes, "little") * 3, dtype=np.uint8).reshape(3, -1)
    total = pet.Aggregation(config, 3)
    for _ in range(20):
        total.add_many([pet.MaskedModel(config, vect, largest)] * 9)
    summed = total.to_masked_model()
    expected = 180 * largest % config.order
    assert summed.unit == expected
    assert [int.from_bytes(row.tobytes(), "little") for row in summed.vect] == [expected] * 3


def test_merging_equals_adding(backend):
    models = [masked(vector(0.1 * i, -0.2 * i))[1] for i in range(5)]
    whole, left, right = (pet.Aggregation(CONFIG, 2) for _ in range(3))
    whole.add_many(models)
    left.add_many(models[:2])
    right.add_many(models[2:])
    left.merge(pet.Aggregation.from_bytes(right.to_bytes()))
    left.merge(pet.Aggregation(CONFIG, 2))
    assert left.to_bytes() == whole.to_bytes()
    assert left.count == 5


def test_subtracting_takes_back(backend):
    models = [masked(vector(0.1 * i, -0.2 * i))[1] for i in range(3)]
    total, expected = pet.Aggregation(CONFIG, 2), pet.Aggregation(CONFIG, 2)
    total.add_many(models)
    expected.add_many([models[0], models[2]])
    total.subtract(models[1])
    assert total.to_bytes() == expected.to_bytes()
    with pytest.raises(pet.AggregationError, match="got an empty one"):
        pet.Aggregation(CONFIG, 2).subtract(models[0])


def test_a_global_model_stays_as_it_was_while_the_total_grows(backend):
    total = pet.Aggregation(CONFIG, 2)
    seed, first = masked(vector(0.5, 0.25))
    total.add(first)
    model = total.unmask(pet.sum_masks([seed], CONFIG, 2))
    total.add(masked(vector(-1, -1))[1])
    total.subtract(first)
    assert model.to_array().tolist() == [0.5, 0.25]
    assert total.count == 1


def invalid(config: pet.MaskConfig, length: int, index: int) -> pet.MaskedModel:
    _, masked_model = masked(np.zeros(length, dtype=config.data_type.dtype), config)
    vect = masked_model.vect.copy()
    vect[index] = 255
    return pet.MaskedModel(config, vect, masked_model.unit)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        *(("prime-f32-b0-m3", index) for index in (0, 6, 7, 8, 32)),
        ("prime-f64-b2-m3", 0),
        ("prime-f64-b2-m3", 32),
        ("integer-f32-bmax-m3", 7),
    ],
)
def test_an_invalid_element_changes_nothing(name, index, backend):
    config = pet.MaskConfig.parse(name)
    total = pet.Aggregation(config, 33)
    good = masked(np.ones(33, dtype=config.data_type.dtype), config)[1]
    total.add(good)
    before = total.to_bytes()
    bad = invalid(config, 33, index)
    for models in ([bad], [good, bad], [good] * 8 + [bad]):
        with pytest.raises(pet.AggregationError) as caught:
            total.add_many(models)
        assert caught.value.reason == "invalid_object"
        assert total.to_bytes() == before
    with pytest.raises(pet.AggregationError, match=f"element {index} is not below"):
        bad.validate()
    with pytest.raises(pet.AggregationError):
        total.subtract(bad)
    assert total.to_bytes() == before


def test_refusals_of_the_specification_in_its_order():
    other = pet.MaskConfig.parse("prime-f32-b2-m3")
    total = pet.Aggregation(CONFIG, 2)
    cases = [
        (pet.MaskConfigPair(vect=other, unit=other), 3, 0, "model_mismatch"),
        (pet.MaskConfigPair(vect=CONFIG, unit=other), 3, 0, "scalar_mismatch"),
        (pet.MaskConfigPair.of(CONFIG), 3, 0, "model_mismatch"),
        (pet.MaskConfigPair.of(CONFIG), 2, CONFIG.order, "invalid_object"),
    ]
    for config, length, unit, reason in cases:
        vect = np.zeros((length, config.vect.element_bytes), dtype=np.uint8)
        with pytest.raises(pet.AggregationError) as caught:
            total.add(pet.MaskedModel(config, vect, unit))
        assert caught.value.reason == reason
    assert total.count == 0


def test_no_more_models_than_the_config_allows():
    total = pet.Aggregation(CONFIG, 1)
    model = masked(vector(0.5))[1]
    total.add_many([model] * 1000)
    for attempt in (total.add, total.merge):
        with pytest.raises(pet.AggregationError) as caught:
            attempt(model if attempt == total.add else total)
        assert caught.value.reason == "too_many_models"
    pair = pet.MaskConfigPair(vect=pet.MaskConfig.parse("prime-f32-b0-m6"), unit=CONFIG)
    with pytest.raises(pet.AggregationError) as caught:
        pet.sum_masks([SEED] * 1001, pair, 1)
    assert caught.value.reason == "too_many_scalars"


def test_things_of_another_kind_are_refused():
    total = pet.Aggregation(CONFIG, 2)
    seed, model = masked(vector(0.5, 0.5))
    mask = pet.sum_masks([seed], CONFIG, 2)
    for wrong in (None, mask, model.to_bytes()):
        with pytest.raises(pet.ModelError, match="expected a MaskedModel"):
            total.add(wrong)
    total.add(model)
    for wrong in (None, seed, model):
        with pytest.raises(pet.ModelError, match="expected a Mask, got"):
            total.unmask(wrong)
    for length in (-1, "3", 1.5):
        with pytest.raises(pet.ModelError, match="length"):
            pet.Aggregation(CONFIG, length)


@pytest.mark.parametrize("cut", [0, 10, 25, 40])
def test_a_damaged_aggregation_is_refused(cut):
    total = pet.Aggregation(CONFIG, 3)
    total.add(masked(vector(1, 2, 3))[1])
    with pytest.raises((pet.StateError, pet.RemoteProtocolError)):
        pet.Aggregation.from_bytes(total.to_bytes()[:cut])


# ---- unmasking ------------------------------------------------------------------------------------------------------------


def test_unmask_refusals():
    other = pet.MaskConfig.parse("prime-f32-b2-m3")
    total = pet.Aggregation(CONFIG, 2)
    seed, model = masked(vector(0.5, 0.5))
    mask = pet.sum_masks([seed], CONFIG, 2)
    invalid_vect = np.full((2, 6), 255, dtype=np.uint8)

    def reason_of(mask: pet.Mask) -> str:
        with pytest.raises(pet.UnmaskError) as caught:
            total.unmask(mask)
        return caught.value.reason

    assert reason_of(mask) == "no_model"
    total.add(model)
    assert reason_of(pet.sum_masks([seed], CONFIG, 3)) == "model_mismatch"
    assert reason_of(pet.sum_masks([seed], other, 2)) == "model_mismatch"
    assert reason_of(pet.sum_masks([seed], pet.MaskConfigPair(vect=CONFIG, unit=other), 2)) == "scalar_mismatch"
    assert reason_of(pet.Mask(CONFIG, invalid_vect, 0)) == "invalid_mask"
    assert reason_of(pet.Mask(CONFIG, mask.vect, CONFIG.order)) == "invalid_mask"
    # The unit under a mask that is one too high: the sum of the scalars comes out below zero.
    assert reason_of(pet.Mask(CONFIG, mask.vect, (model.unit - 1) % CONFIG.order)) == "negative_scalar_sum"


def test_scalars_that_sum_to_zero_leave_no_mean():
    total = pet.Aggregation(CONFIG, 2)
    seed, model = masked(vector(0.5, 0.5), scalar=0)
    total.add(model)
    with pytest.raises(pet.UnmaskError) as caught:
        total.unmask(pet.sum_masks([seed], CONFIG, 2))
    assert caught.value.reason == "zero_scalar_sum"


def mean_of(weights: np.ndarray, name: str, scalar=1, count: int = 1) -> pet.GlobalModel:
    config = pet.MaskConfig.parse(name)
    total = pet.Aggregation(config, len(weights))
    seeds = []
    for _ in range(count):
        seed, model = masked(weights, config, scalar)
        seeds.append(seed)
        total.add(model)
    return total.unmask(pet.sum_masks(seeds, config, len(weights)))


@pytest.mark.parametrize("scalar", [1, Fraction(1, 3), 0.001])
def test_extreme_integers_come_back_as_the_extremes(scalar, backend):
    limits = np.iinfo(np.int32)
    weights = np.array([limits.min, limits.max, 0, -1], dtype=np.int32)
    array = mean_of(weights, "power2-i32-bmax-m3", scalar, 3).to_array()
    # The rounded scalars put the mean beyond the type by as much as the masking error; it is not an overflow.
    assert array.dtype == np.int32
    assert array[0] == limits.min
    assert array[1] >= limits.max - 1


def test_a_value_far_outside_the_type_raises(backend):
    model = mean_of(np.array([2**40, 5], dtype=np.int64), "power2-i64-bmax-m3")
    with pytest.raises(pet.UnmaskError) as caught:
        model.to_array(np.int32)
    assert caught.value.reason == "out_of_range"
    assert model.to_array(np.float32).tolist() == [2**40, 5]


@pytest.mark.parametrize("name", ["prime-f32-b0-m3", "integer-f64-bmax-m3", "power2-i32-b2-m3", "integer-i64-bmax-m3"])
def test_pieces_of_a_model_are_the_model(name, monkeypatch, backend):
    monkeypatch.setattr("pet.global_model.PIECE_LENGTH", 3)
    monkeypatch.setattr("pet.global_model.BINCODE_PIECE_LENGTH", 3)
    weights = np.array([1, -1, 0, 1, -1, 0, 1], dtype=pet.MaskConfig.parse(name).data_type.dtype)
    model = mean_of(weights, name)
    model.validate()
    pieces = list(model.iter_arrays())
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    assert np.concatenate(pieces).tolist() == model.to_array().tolist()


def test_a_model_that_its_own_type_cannot_tell_is_not_valid(backend):
    config = pet.MaskConfig.parse("integer-f32-bmax-m3")
    total = pet.Aggregation(config, 2)
    weights = np.array([3e38, 0], dtype=np.float32)
    seeds = []
    for scalar in (1, 1e-30):
        seed, model = masked(weights, config, scalar)
        seeds.append(seed)
        total.add(model)
    honest = total.unmask(pet.sum_masks(seeds, config, 2))
    honest.validate()
    # An update that says how little it weighs, and adds as much as one that weighs 1.
    seed, model = masked(weights, config, 1)
    _, light = masked(weights, config, 1e-30, seed=seed)
    total.add(pet.MaskedModel(config, model.vect, light.unit))
    dishonest = total.unmask(pet.sum_masks([*seeds, seed], config, 2))
    with pytest.raises(pet.UnmaskError) as caught:
        dishonest.validate()
    assert caught.value.reason == "out_of_range"


def test_integers_are_truncated_towards_zero(backend):
    # The floor of masking leaves 1 a little below itself (spec 3.7); parity with the original asks for 0 here.
    model = mean_of(np.array([1, -1, 5], dtype=np.int32), "prime-i32-b2-m3", Fraction(1, 3))
    assert [abs(fraction) < 6 for fraction in model.to_fractions()] == [True] * 3
    assert model.to_array().tolist() == [int(fraction) for fraction in model.to_fractions()]


@pytest.mark.parametrize("name", ["prime-f32-bmax-m3", "power2-f64-bmax-m3"])
def test_unbounded_floats_are_published_as_fractions_of_floats(name, backend):
    config = pet.MaskConfig.parse(name)
    weights = np.array([0.1, -3e30, 0, 1e-20], dtype=config.data_type.dtype)
    model = mean_of(weights, name)
    assert model.has_float_fractions
    body = np.frombuffer(b"".join(model.iter_bincode()), dtype=np.uint8)
    values, used = kernels.decode_fractions(body[8:], 4, config.data_type.dtype)
    assert used == len(body) - 8
    assert values.tolist() == model.to_array().tolist()
    assert not mean_of(vector(1), "prime-f32-b0-m3").has_float_fractions


@pytest.mark.parametrize("vect", ["prime-f32-b0-m3", "prime-f32-bmax-m3", "prime-f64-b0-m3", "prime-f64-bmax-m3"])
@pytest.mark.parametrize("unit", ["prime-f32-b0-m3", "prime-f32-bmax-m3", "prime-f64-b0-m3", "prime-f64-bmax-m3"])
def test_no_published_fraction_sends_a_real_client_into_its_endless_loop(vect, unit):
    """Spec 3.8: it never returns if numerator and denominator are both beyond its float type."""
    pair = pet.MaskConfigPair(vect=pet.MaskConfig.parse(vect), unit=pet.MaskConfig.parse(unit))
    dtype = pair.vect.data_type.dtype
    seed, model = masked(np.array([0.1, -0.7, 1e-30, 0], dtype=dtype), pair, Fraction(1, 3))
    total = pet.Aggregation(pair, 4)
    total.add(model)
    body = b"".join(total.unmask(pet.sum_masks([seed], pair, 4)).iter_bincode())[8:]
    most = int(np.finfo(dtype).max)
    for _ in range(4):
        numbers = []
        for _ in range(2):
            end = 9 + 4 * int.from_bytes(body[1:9], "little")
            numbers.append(int.from_bytes(body[9:end], "little"))
            body = body[end:]
        assert min(numbers) <= most
    assert body == b""


def test_bincode_of_many_pieces(backend):
    weights = np.linspace(-1, 1, 20_000 if backend != "reference" else 100, dtype=np.float32)
    model = mean_of(weights, "prime-f32-b0-m6")
    body = b"".join(model.iter_bincode())
    assert int.from_bytes(body[:8], "little") == len(weights)
    values, used = kernels.decode_fractions(np.frombuffer(body, dtype=np.uint8)[8:], len(weights), np.dtype(np.float32))
    assert used == len(body) - 8
    assert np.abs(values - weights).max() < 1e-6


# ---- what people see -----------------------------------------------------------------------------------------------------


def test_secrets_hide_themselves():
    assert repr(SEED) == "MaskSeed(<hidden>)"
    assert pet.MaskSeed(SEED.to_bytes()) == SEED
    assert pet.MaskSeed(bytes(32)) != SEED
    assert len({SEED, pet.MaskSeed(SEED.to_bytes())}) == 1
    with pytest.raises(pet.CryptoError, match="expected 32 bytes, got 31"):
        pet.MaskSeed(bytes(31))
    assert repr(SEED.derive_mask(CONFIG, 2)) == "Mask(prime-f32-b0-m3, length=2)"
    assert repr(pet.Aggregation(CONFIG, 2)) == "Aggregation(prime-f32-b0-m3, length=2, count=0)"
    assert repr(mean_of(vector(1), "prime-f32-b0-m3")) == "GlobalModel(prime-f32-b0-m3, length=1, model_count=1)"


def test_mask_objects_of_the_wrong_shape_are_refused():
    with pytest.raises(pet.ModelError, match=r"shape \(length, 6\)"):
        pet.Mask(CONFIG, np.zeros((2, 7), dtype=np.uint8), 0)
    with pytest.raises(pet.ModelError, match="unit: expected 6 bytes"):
        pet.Mask(CONFIG, np.zeros((2, 6), dtype=np.uint8), -1)


def test_mask_objects_compare_by_content():
    mask = SEED.derive_mask(CONFIG, 3)
    assert mask == pet.Mask.from_bytes(mask.to_bytes())
    assert mask != SEED.derive_mask(CONFIG, 2)
    assert mask != pet.MaskedModel(mask.config, mask.vect, mask.unit)
    assert mask.size_bytes == len(mask.to_bytes())
    assert len(mask) == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(mask)


def test_preparing_touches_only_an_empty_total():
    total = pet.Aggregation(CONFIG, 4)
    total.prepare()
    _, masked_model = masked(vector(0.1, 0.2, 0.3, 0.4), seed=SEED)
    total.add(masked_model)
    total.prepare()
    assert total.to_masked_model().to_bytes() == masked_model.to_bytes()
