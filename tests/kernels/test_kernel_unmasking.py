"""Unmasking: differences become weights, integers exactly and floats to the last place, on every back-end."""

import functools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from in_turn import in_turn
from kernel_cases import (
    EDGE_ORDERS,
    LENGTHS,
    assert_close,
    assert_rest_untouched,
    pack_integers,
    random_integers,
    total_range,
    width,
)

from pet import kernels
from pet.errors import ModelError, UnmaskError
from pet.kernels import Decoding, _backends
from pet.kernels import _reference as reference
from pet.mask_config import MaskConfig

DTYPES = tuple(np.dtype(kind) for kind in (np.float32, np.float64, np.int32, np.int64))


def unmask_differences(differences: list[int], decoding: Decoding, dtype: np.dtype) -> np.ndarray:
    """Unmask a total that gives these differences."""
    mask = random_integers(len(differences), decoding.order, 9)
    total, larger = total_range([(a + b) % decoding.order for a, b in zip(differences, mask, strict=True)], decoding.order)
    model = kernels.unmask(total, pack_integers(mask, decoding.order), decoding, dtype)
    assert_rest_untouched(larger, len(differences))
    return model


def expected_weights(differences: list[int], decoding: Decoding, dtype: np.dtype) -> list:
    return [expected_weight(value, decoding, dtype) for value in differences]


@functools.lru_cache(maxsize=100_000)
def expected_weight(difference: int, decoding: Decoding, dtype: np.dtype) -> Any:
    """Return what the reference says, once for all back-ends that a process tests."""
    return reference.to_primitive(reference.decode(difference, decoding), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@in_turn("order", EDGE_ORDERS, ids=width)
def test_edge_orders(backend, order, dtype):
    differences = [*random_integers(9, order), order // 2, order // 3, min(order - 1, order // 2 + 1)]
    for numerator, denominator in ((1, 1), (1, 10**10), (7, 3), (10**50, 3**70), (1, max(1, order // 1000)), (3**200, 2**1100)):
        for offset in (0, order // 2, 3 * order + 1):
            decoding = Decoding(order, offset, numerator, denominator, 0, order - 1)
            model = unmask_differences(differences, decoding, dtype)
            assert_close(model, expected_weights(differences, decoding, dtype))


@in_turn(
    "config",
    [
        "prime-f32-b0-m3",
        "power2-f32-b4-m9",
        "integer-f64-b2-m6",
        "prime-f32-bmax-m6",
        "prime-f64-bmax-m12",
        "prime-i64-bmax-m3",
    ],
)
@in_turn("model_count", [1, 3, 1000])
def test_configs(backend, config, model_count):
    config = MaskConfig.parse(config)
    offset = model_count * config.add_shift * config.exp_shift
    scalar_sum = Fraction(model_count, 3)
    ratio = 1 / (config.exp_shift * scalar_sum)
    decoding = Decoding(config.order, offset, ratio.numerator, ratio.denominator, 0, config.order - 1)
    steps = (0, 1, -1, 12345, config.exp_shift, -config.exp_shift // 3, offset, -offset, offset // 7, -offset // 9)
    differences = [(offset + step) % config.order for step in steps]
    model = unmask_differences(differences, decoding, config.data_type.dtype)
    assert_close(model, expected_weights(differences, decoding, config.data_type.dtype))


def test_beyond_the_type_is_its_nearest_value(backend):
    order = 2**1200 + 1
    decoding = Decoding(order, order // 2, 1, 3, 0, order - 1)
    for dtype in DTYPES:
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        assert unmask_differences([0, order - 1, order // 2], decoding, dtype).tolist() == [limits.min, limits.max, 0]


def test_subnormal_results(backend):
    for dtype, bits in ((np.dtype(np.float32), 130), (np.dtype(np.float64), 1030)):
        decoding = Decoding(2**60, 2**59, 1, 2 ** (bits + 50), 0, 2**60 - 1)
        differences = [0, 2**59 + 2**40, 2**59 - 3 * 2**41, 2**60 - 1, 2**59 + 1]
        model = unmask_differences(differences, decoding, dtype)
        assert_close(model, expected_weights(differences, decoding, dtype))


def test_exact_results_are_exact(backend):
    """What masking floored to 10^-10 comes out as the float that people read, not one beside it."""
    order, exponent = 20_000_000_000_021, 10**10
    decoding = Decoding(order, exponent, 1, exponent, 0, order - 1)
    wanted = [0.5, -0.25, 0.1, 1.0, -1.0, 0.0]
    model = unmask_differences([exponent + round(value * exponent) for value in wanted], decoding, np.dtype(np.float32))
    assert model.tolist() == np.array(wanted, dtype=np.float32).tolist()


@in_turn("length", [*LENGTHS, 1003])
@in_turn("dtype", DTYPES, ids=str)
@in_turn("order", [20_000_000_000_021, 2**80 - 1], ids=width)
def test_lengths(backend, order, dtype, length):
    differences = random_integers(length, order)
    decoding = Decoding(order, order // 2, 3, order // 2**20, 0, order - 1)
    model = unmask_differences(differences, decoding, dtype)
    assert_close(model, expected_weights(differences, decoding, dtype))


@in_turn("dtype", DTYPES, ids=str)
@in_turn("order", [257, 20_000_000_000_021, 2**127 - 1, 2**301 - 5], ids=width)
def test_bounds(backend, order, dtype):
    low, high = order // 4, order // 2
    decoding = Decoding(order, order // 3, 1, 2**260, low, high)
    unmask_differences([low, high, (low + high) // 2] * 11, decoding, dtype)
    for bad in (low - 1, high + 1, 0, order - 1):
        for index in (0, 8, 32):
            differences = [low] * index + [bad] * (33 - index)
            with pytest.raises(UnmaskError, match=f"weight {index} ") as caught:
                unmask_differences(differences, decoding, dtype)
            assert caught.value.reason == "out_of_range"


def test_out_of_range_leaves_everything_else_alone(backend):
    """The model itself is undefined then: bounds are checked while it is written."""
    order = 20_000_000_000_021
    decoding = Decoding(order, 0, 1, 1, 0, 5)
    total, larger = total_range([1] * 32 + [6], order)
    before = larger.copy()
    around = np.full(50, 7, dtype=np.float64)
    with pytest.raises(UnmaskError, match="weight 32 "):
        _backends.load_backend(backend).unmask(around[9:42], total, pack_integers([0] * 33, order), decoding)
    assert (around[:9] == 7).all()
    assert (around[42:] == 7).all()
    assert (larger == before).all()


@pytest.mark.parametrize("order", [257, 2**127 - 1], ids=width)
def test_bounds_that_leave_nothing(backend, order):
    decoding = Decoding(order, 0, 1, 1, 5, 4)
    with pytest.raises(UnmaskError, match="weight 0 "):
        unmask_differences([5] * 9, decoding, np.dtype(np.float32))


def test_unmask_refuses_other_types(backend):
    total, _ = total_range([1], 257)
    decoding = Decoding(257, 0, 1, 1, 0, 256)
    with pytest.raises(ModelError, match="contiguous vector of float32"):
        kernels.unmask(total, pack_integers([0], 257), decoding, np.dtype(np.int16))


def test_a_model_is_written_where_it_is_wanted(backend):
    decoding = Decoding(order=257, offset=0, numerator=1, denominator=2, lowest=0, highest=256)
    total = kernels.new_total(3, 257)
    out = np.zeros(5, dtype=np.float32)
    model = kernels.unmask(total, pack_integers([256, 0, 254], 257), decoding, out.dtype, out=out[1:4])
    assert model.base is out
    assert out.tolist() == [0, 0.5, 0, 1.5, 0]
    for wrong in (np.zeros(2, dtype=np.float32), np.zeros(3)):
        with pytest.raises(ModelError, match="out: expected 3 weights of float32"):
            kernels.unmask(total, pack_integers([0, 0, 0], 257), decoding, out.dtype, out=wrong)
