"""Mask configs of pet-1, and the choice of a config for some data."""

import copy
import dataclasses
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_files import load_vectors

from pet import BoundType, ConfigError, DataType, GroupType, MaskConfig, MaskConfigPair, ModelType, mask_codec
from pet.field_config import FieldConfig
from pet.mask_choices import Derivation, FieldValues, Requirements
from pet.protocol.round_settings import RoundSettings

Z32 = MaskConfig.parse("pet-1/z32,f32,bound=1,models=1000")
XAYNET = MaskConfig.parse("prime-f32-b0-m3")


def test_the_numbers_of_a_config():
    assert isinstance(Z32, FieldConfig)
    assert (Z32.order, Z32.element_bytes, Z32.levels, Z32.max_model_count) == (4294967291, 4, 4294967, 1000)
    assert (Z32.dtype, Z32.bound, Z32.largest_value, Z32.derivation.batch_length) == (np.float32, 1.0, 1, 256)
    assert (Z32.draw_bytes, Z32.keystream_bytes_per_draw) == (4, 4)
    assert Z32.mean_keystream_bytes == pytest.approx(4, abs=1e-7)
    integers = MaskConfig.parse("PET-1/z64,INT,models=15")
    assert (integers.order, integers.element_bytes, integers.levels) == (2**64 - 2**32 + 1, 8, (2**64 - 2**32) // 15)
    assert (integers.dtype, integers.largest_value, integers.derivation.batch_length) == (np.uint64, integers.levels, 128)
    assert MaskConfig.parse("pet-1/z32,int,models=3").dtype == np.uint32
    assert MaskConfig.parse("pet-1/z64,f64,bound=0.1,models=7").dtype == np.float64


def test_levels_are_those_of_the_vectors():
    vectors = load_vectors("pet1/fixed_point.json")
    for case in vectors["encode"]:
        derivation = Derivation.parse(case["derivation"].removeprefix("pet-1/"))
        config = FieldConfig(derivation, FieldValues.F64, case["max_updates"], float.fromhex(case["bound"]))
        assert config.levels == case["levels"]
    for case in vectors["integers"]:
        derivation = Derivation.parse(case["derivation"].removeprefix("pet-1/"))
        assert FieldConfig(derivation, FieldValues.INT, case["max_updates"]).levels == int(case["levels"])


@settings(deadline=None)
@given(
    st.sampled_from(Derivation),
    st.sampled_from(FieldValues),
    st.integers(1, 2**24 - 1),
    st.floats(2.0**-100, 2.0**100),
)
def test_text_and_copies_give_the_same_config(derivation, values, models, bound):
    config = FieldConfig(derivation, values, models, 1.0 if values is FieldValues.INT else bound)
    for again in (MaskConfig.parse(str(config)), eval(repr(config)), pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert again == config
        assert hash(again) == hash(config)
        assert isinstance(again, FieldConfig)


def test_different_configs_differ():
    texts = [
        "pet-1/z32,f32,bound=1,models=1000",
        "pet-1/z64,f32,bound=1,models=1000",
        "pet-1/z32,f64,bound=1,models=1000",
        "pet-1/z32,f32,bound=1.5,models=1000",
        "pet-1/z32,f32,bound=1,models=1001",
        "prime-f32-b0-m3",
    ]
    assert len({MaskConfig.parse(text) for text in texts}) == len(texts)
    assert [str(MaskConfig.parse(text)) for text in texts] == texts
    assert Z32 != XAYNET
    assert XAYNET != Z32


def test_it_has_nothing_of_xaynet():
    names = ("wire_code", "group_type", "data_type", "bound_type", "model_type", "add_shift", "exp_shift")
    for name in names:
        with pytest.raises(ConfigError, match="expected a config of xaynet's 240, got one of pet-1"):
            getattr(Z32, name)
        assert getattr(XAYNET, name) is not None
    for encode in (mask_codec.encode_mask_config, mask_codec.encode_variant_indices):
        with pytest.raises(ConfigError):
            encode(Z32)
    assert XAYNET.wire_code == bytes([1, 0, 0, 3])
    assert XAYNET.dtype == np.float32
    assert XAYNET.largest_value == 1


def test_nothing_changes_a_config():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Z32.bound = 2.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        del Z32.values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pet-1/", "as in pet-1/z32"),
        ("pet-1/z16,f32,bound=1,models=10", "as in pet-1/z32"),
        ("pet-1/z32,i32,models=10", "as in pet-1/z32"),
        ("pet-1/z32,f32,bound=1", "as in pet-1/z32"),
        ("pet-1/z32,f32,models=10,bound=1", "as in pet-1/z32"),
        ("pet-1/z32,f32,bound=nan,models=10", "as in pet-1/z32"),
        ("pet-1/z32,f32,bound=-1,models=10", "as in pet-1/z32"),
        ("pet-1/z32,f32,bound=1,models=1_0", "as in pet-1/z32"),
        ("pet-1/z32,f32,bound=1,models=10 ", "as in pet-1/z32"),
        ("pet-1/z32,f32,bound=1,models=10\n", "as in pet-1/z32"),
        ("pet-1/z32,f32,bound=\N{ARABIC-INDIC DIGIT ONE},models=10", "as in pet-1/z32"),
        ("pet-1/z32,f32,models=10", "one with weights"),
        ("pet-1/z32,int,bound=1,models=10", "none with integers"),
        ("pet-1/z32,f32,bound=0,models=10", "2^-100 to 2^100, got 0"),
        ("pet-1/z32,f32,bound=1e31,models=10", "2^-100 to 2^100, got 1e"),
        ("pet-1/z32,f32,bound=1e999,models=10", "2^-100 to 2^100, got inf"),
        ("pet-1/z32,f32,bound=1,models=0", "models: expected 1 to 16777215, got 0"),
        ("pet-1/z32,f32,bound=1,models=16777216", "models: expected 1 to 16777215, got 16777216"),
    ],
)
def test_other_texts_are_refused(text, words):
    with pytest.raises(ConfigError) as caught:
        MaskConfig.parse(text)
    assert words in str(caught.value)


def test_the_parts_are_checked():
    for arguments in (
        ("z32", FieldValues.F32, 10),
        (Derivation.Z32, DataType.F32, 10),
        (Derivation.Z32, FieldValues.F32, 10.0),
        (Derivation.Z32, FieldValues.F32, 10, "1"),
        (Derivation.Z32, FieldValues.INT, 10, 2.0),
    ):
        with pytest.raises(ConfigError):
            FieldConfig(*arguments)
    with pytest.raises(ConfigError, match="values: expected one of f32, f64, int"):
        FieldValues.parse("i32")
    with pytest.raises(ConfigError):
        FieldConfig.parse(None)


def test_a_pair_has_one_field_config_twice():
    assert MaskConfigPair.of(Z32) == MaskConfigPair(vect=Z32, unit=Z32)
    assert MaskConfigPair.of(Z32).max_model_count == 1000
    other = MaskConfig.parse("pet-1/z32,f32,bound=1,models=999")
    for vect, unit in ((Z32, other), (Z32, XAYNET), (XAYNET, Z32)):
        with pytest.raises(ConfigError, match="the same config of pet-1 for vector and unit"):
            MaskConfigPair(vect=vect, unit=unit)


# ---- for_data -------------------------------------------------------------------------------------------------------


def test_the_cheapest_config_for_some_data():
    def choose(**changes):
        return str(MaskConfig.for_data(**{"bound": 1, "models": 500, "precision": 1e-6, **changes}))

    assert choose() == "pet-1/z32,f32,bound=1,models=1000"
    assert choose(precision=1e-12) == "pet-1/z64,f64,bound=1,models=1000"
    assert choose(precision=1e-7, scalar_sum=1) == "pet-1/z64,f32,bound=1,models=1000"
    assert choose(data_type=DataType.F64) == "pet-1/z32,f64,bound=1,models=1000"
    assert choose(bound=0.1) == "pet-1/z32,f32,bound=0.1,models=1000"
    assert choose(xaynet=True) == "power2-f32-b0-m6"
    assert choose(bound=10**31, precision=10**25) == str(
        MaskConfig.for_data(bound=10**31, models=500, precision=10**25, xaynet=True)
    )
    assert choose(models=10**9, precision=1).endswith("m9")


def test_the_bound_of_a_config_is_never_below_what_was_asked_for():
    config = MaskConfig.for_data(bound=Fraction(1, 3), models=10, precision=1e-6)
    assert Fraction(1, 3) <= config.largest_value < Fraction(1, 3) + Fraction(1, 2**50)
    assert MaskConfig.for_data(bound=Fraction(2, 3), models=10, precision=1e-6).largest_value >= Fraction(2, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bound": 0}, "bound: expected more than 0"),
        ({"precision": -1}, "precision: expected more than 0"),
        ({"scalar_sum": 0}, "scalar sum: expected more than 0"),
        ({"models": 0}, "models: expected 1 or more"),
        ({"models": 10**13}, "expected a bound, models and precision that one of them has"),
        ({"bound": float("nan")}, "bound: expected a finite number, got nan"),
        ({"models": 2.5}, "models: expected a whole number, got 2.5"),
        ({"data_type": DataType.I32}, "data type: expected f32 or f64"),
        ({"precision": "1e-6"}, "precision: expected a finite number, got '1e-6'"),
    ],
)
def test_what_no_config_has_is_refused(changes, words):
    with pytest.raises(ConfigError) as caught:
        MaskConfig.for_data(**{"bound": 1, "models": 500, "precision": 1e-6, **changes})
    assert words in str(caught.value)


def test_what_a_config_does_to_a_mean():
    wanted = Requirements(bound=Fraction(1), model_count=100, precision=Fraction(1), scalar_sum=Fraction(100))
    fine, coarse = FieldConfig(Derivation.Z64, FieldValues.F64, 200), FieldConfig(Derivation.Z32, FieldValues.F32, 2**24 - 1)
    assert fine.mean_error(wanted) < 1e-14
    assert 2**-9 < coarse.mean_error(wanted) < 2**-5
    scarce = dataclasses.replace(wanted, scalar_sum=Fraction(1, 10))
    assert coarse.mean_error(scarce) >= 200  # the scalars may all be lost: the mean could be anything
    assert FieldConfig(Derivation.Z32, FieldValues.INT, 7).mean_error(wanted) == 0
    assert MaskConfig(GroupType.PRIME, DataType.I32, BoundType.B0, ModelType.M3).mean_error(wanted) > 1


def test_no_round_of_xaynets_protocol_has_it():
    with pytest.raises(ConfigError, match=r"mask_config.*xaynet's 240"):
        RoundSettings.of(Z32, 10)
    assert RoundSettings.of(XAYNET, 10).mask_config.vect == XAYNET
