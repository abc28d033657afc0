"""Mask seeds and sums of masks: what they take, what they refuse, and that copies are equal."""

import copy
import pickle

import numpy as np
import pytest

import pet

CONFIG = pet.MaskConfig.parse("prime-f32-b0-m3")
SEEDS = [pet.MaskSeed(bytes([i]) * 32) for i in range(3)]


@pytest.mark.parametrize(("seed", "got"), [(5, "int"), ("a" * 32, "str"), (None, "NoneType"), (b"short", "5")])
def test_a_seed_is_32_bytes(seed, got):
    with pytest.raises(pet.CryptoError, match=f"mask seed: expected 32 bytes, got {got}"):
        pet.MaskSeed(seed)


def test_seeds_may_come_from_any_iterable():
    assert pet.sum_masks(iter(SEEDS), CONFIG, 5) == pet.sum_masks(SEEDS, CONFIG, 5)


@pytest.mark.parametrize("seeds", [None, 5, SEEDS[0]], ids=["None", "int", "MaskSeed"])
def test_several_seeds_are_asked_for(seeds):
    for call in (pet.sum_masks, pet.iter_sum_masks):
        with pytest.raises(pet.ModelError, match=f"seeds: expected several MaskSeed objects, got {type(seeds).__name__}"):
            call(seeds, CONFIG, 5)


def test_other_things_than_seeds_are_refused():
    with pytest.raises(pet.ModelError, match="seeds: expected MaskSeed objects, got bytes"):
        pet.sum_masks([bytes(32)], CONFIG, 5)


@pytest.mark.parametrize("length", [-1, 2.0, "3", None])
def test_a_length_is_a_whole_number(length):
    message = "length: expected a whole number of 0 or more and at most 4294967295, got "
    with pytest.raises(pet.ModelError, match=message):
        pet.sum_masks(SEEDS, CONFIG, length)
    with pytest.raises(pet.ModelError, match=message):
        SEEDS[0].derive_mask(CONFIG, length)


@pytest.mark.parametrize("value", [SEEDS[0], SEEDS[0].derive_mask(CONFIG, 4), CONFIG, pet.MaskConfigPair.of(CONFIG)], ids=repr)
def test_copies_are_equal(value):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(value, protocol)) == copy.copy(value) == copy.deepcopy(value) == value


@pytest.mark.parametrize("text", ["prime-f32-b0-m3", "pet-1/z32,f32,bound=1,models=10"])
def test_a_mask_object_has_whole_elements_and_a_unit_that_fits(text):
    config = pet.MaskConfig.parse(text)
    good = np.zeros((3, config.element_bytes), np.uint8)
    for vect in (good.view(np.int8), good[:, :-1], good[::2], good[0]):
        with pytest.raises(pet.ModelError, match=r"vect: expected contiguous uint8 of shape \(length, "):
            pet.Mask(config, vect, 0)
    with pytest.raises(pet.ModelError, match="vect: expected a NumPy array, got bytes"):
        pet.Mask(config, bytes(12), 0)
    for unit in (None, 1.0, "1"):
        with pytest.raises(pet.ModelError, match="unit: expected a whole number, got"):
            pet.Mask(config, good, unit)
    assert pet.Mask(config, good, np.uint16(5)).to_bytes() == pet.Mask(config, good, 5).to_bytes()
    for unit in (-1, 256**config.element_bytes):
        with pytest.raises(pet.ModelError, match=f"unit: expected {config.element_bytes} bytes without sign"):
            pet.MaskedModel(config, good, unit)
