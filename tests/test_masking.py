"""What `mask_model` and its neighbours refuse, and in which words."""

from fractions import Fraction

import numpy as np
import pytest

import pet

CONFIG = pet.MaskConfig.parse("prime-f32-b0-m3")
SEED = pet.MaskSeed(bytes(range(32)))
WEIGHTS = np.array([0.5, -0.25, 1], dtype=np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": bytes(32)}, "seed: expected a MaskSeed, several or None, got bytes"),
        ({"on_clip": "ignore"}, "on_clip: expected 'count' or 'raise', got 'ignore'"),
        ({"scalar": 2, "on_clip": "raise"}, "scalar: expected at most 1, the bound of prime-f32-b0-m3, got more"),
        ({"scalar": 10**5000}, "scalar: expected a fraction of at most 2048 bits, got 16610"),
        ({"scalar": -(10**5000)}, "scalar: expected a fraction of at most 2048 bits, got 16610"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(pet.ModelError, match=message):
        pet.mask_model(WEIGHTS, CONFIG, **arguments)


def test_missing_values_are_not_masked_as_if_they_were_there():
    with pytest.raises(pet.ModelError, match=r"expected an array without missing values, got a numpy.ma.MaskedArray"):
        pet.mask_model(np.ma.masked_array(WEIGHTS, mask=[True, False, False]), CONFIG)


@pytest.mark.parametrize("scalar", [np.longdouble("0.1"), np.float16(0.1), np.int64(1), np.uint8(1), True])
def test_every_kind_of_number_is_taken_exactly(scalar):
    exact = Fraction(*scalar.as_integer_ratio()) if isinstance(scalar, np.floating) else Fraction(int(scalar))
    assert pet.mask_model(WEIGHTS, CONFIG, scalar, SEED) == pet.mask_model(WEIGHTS, CONFIG, exact, SEED)


@pytest.mark.parametrize("weights", [WEIGHTS[::-1], WEIGHTS[::2], WEIGHTS[:0], np.broadcast_to(WEIGHTS[:1], 5)])
def test_any_layout_in_memory_will_do(weights, backend):
    _, masked_model = pet.mask_model(weights, CONFIG, seed=SEED)
    total = pet.Aggregation(CONFIG, len(weights))
    total.add(masked_model)
    mean = total.unmask(SEED.derive_mask(CONFIG, len(weights))).to_array()
    assert np.allclose(mean, weights, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, ">f8", object, bool])
def test_a_global_model_has_four_dtypes(dtype):
    seed, masked_model = pet.mask_model(WEIGHTS, CONFIG)
    total = pet.Aggregation(CONFIG, 3)
    total.add(masked_model)
    with pytest.raises(pet.ModelError, match="dtype: expected float32, float64, int32 or int64, got "):
        total.unmask(seed.derive_mask(CONFIG, 3)).to_array(dtype)
