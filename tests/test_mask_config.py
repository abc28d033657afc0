"""Mask configs against the catalogue of the originals."""

import random

import pytest
from in_turn import in_turn
from vector_files import load_vectors

from pet import BoundType, ConfigError, DataType, GroupType, MaskConfig, MaskConfigPair, ModelType, _orders, mask_codec

CATALOGUE = load_vectors("mask_orders.json")["orders"]


def config_of(entry: dict) -> MaskConfig:
    return MaskConfig.parse("-".join(entry[name] for name in ("group_type", "data_type", "bound_type", "model_type")))


def test_catalogue_is_complete():
    assert len({config_of(entry) for entry in CATALOGUE}) == 240


@in_turn("entry", CATALOGUE, ids=lambda entry: str(config_of(entry)))
def test_numbers_of_every_config(entry):
    config = config_of(entry)
    assert config.order == int(entry["order"])
    assert config.element_bytes == entry["bytes_per_number"]
    assert config.draw_bytes == entry["draw_bytes"]
    assert config.keystream_bytes_per_draw == entry["keystream_bytes_per_draw"]
    assert config.mean_keystream_bytes == pytest.approx(entry["mean_keystream_bytes_per_element"], rel=1e-5)
    assert list(mask_codec.encode_mask_config(config)) == entry["code"]
    assert mask_codec.decode_mask_config(bytes(entry["code"])) == config
    assert MaskConfig.parse(str(config)) == config
    assert MaskConfig.parse(str(config).upper()) == config
    sums_fit = config.order > 2 * config.add_shift * config.exp_shift * config.max_model_count
    assert sums_fit == entry["sufficient"]


def is_probably_prime(number: int) -> bool:
    """Miller-Rabin with fixed pseudo-random bases: wrong with probability below 4^-5."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    bases = random.Random(number % 2**32)
    for _ in range(5):
        power = pow(bases.randrange(2, number - 1), odd, number)
        if power in (1, number - 1):
            continue
        if not any((power := power * power % number) == number - 1 for _ in range(twos - 1)):
            return False
    return True


def test_prime_orders_are_prime():
    orders = {config_of(entry).order for entry in CATALOGUE if entry["group_type"] == "Prime"}
    assert all(is_probably_prime(order) for order in orders)


def test_prime_offsets_are_the_smallest():
    # The rule says "smallest prime above S": nothing prime in between.
    for entry in CATALOGUE:
        config = config_of(entry)
        is_irregular = config.data_type is DataType.F64 and config.bound_type is BoundType.BMAX
        if config.group_type is not GroupType.PRIME or is_irregular:
            continue
        model_index = list(ModelType).index(config.model_type)
        offset = _orders.PRIME_OFFSETS[config.data_type.value, config.bound_type.value][model_index]
        assert not any(is_probably_prime(config.order - step) for step in range(2, offset - 1, 2)), config


def test_order_of_a_prime_group_with_unequal_shifts_stays_a_literal():
    config = MaskConfig(GroupType.PRIME, DataType.F64, BoundType.BMAX, ModelType.M3)
    assert config.order.bit_length() == 2112


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prime-f32-b0", "expected group-data-bound-model"),
        ("prim-f32-b0-m3", "group type: expected one of integer, prime, power2, got 'prim'"),
        ("prime-f16-b0-m3", "data type"),
        ("prime-f32-b1-m3", "bound type"),
        ("prime-f32-b0-m4", "model type"),
    ],
)
def test_unknown_configs_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        MaskConfig.parse(text)


def test_choices_of_the_wrong_kind_are_refused():
    with pytest.raises(ConfigError, match="group type: expected a GroupType, got 'prime'"):
        MaskConfig("prime", DataType.F32, BoundType.B0, ModelType.M3)


def test_pairs():
    config = MaskConfig.parse("prime-f32-b0-m3")
    other = MaskConfig.parse("power2-i64-b2-m6")
    pair = MaskConfigPair(vect=config, unit=other)
    assert MaskConfigPair.of(pair) is pair
    assert MaskConfigPair.of(config) == MaskConfigPair(vect=config, unit=config)
    assert pair.max_model_count == 1000
    with pytest.raises(ConfigError, match="expected a MaskConfig or a MaskConfigPair"):
        MaskConfigPair.of("prime-f32-b0-m3")
    with pytest.raises(ConfigError, match=r"MaskConfigPair\.unit"):
        MaskConfigPair(vect=config, unit=None)


def test_dtypes():
    assert [data_type.dtype.name for data_type in DataType] == ["float32", "float64", "int32", "int64"]


@pytest.mark.parametrize("parse", [MaskConfig.parse, GroupType.parse])
def test_something_else_than_text_is_refused(parse):
    with pytest.raises(ConfigError, match=r"expected .*, got 5"):
        parse(5)
