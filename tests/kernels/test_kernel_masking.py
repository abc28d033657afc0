"""Masking: every weight of every data type is encoded exactly, in every order, on every back-end."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from in_turn import in_turn
from kernel_cases import LENGTHS, SEED, assert_untouched, drawn, pack_integers, random_integers, unaligned

from pet import kernels
from pet.errors import ModelError
from pet.kernels import Encoding, _backends
from pet.kernels import _reference as reference
from pet.mask_config import MaskConfig

DTYPES = tuple(np.dtype(kind) for kind in (np.float32, np.float64, np.int32, np.int64))
CONFIGS = (
    "prime-f32-b0-m3",
    "power2-f32-b2-m6",
    "integer-f32-b6-m12",
    "prime-f32-bmax-m3",
    "prime-f64-b0-m3",
    "integer-f64-b6-m12",
    "prime-f64-bmax-m3",
    "prime-i32-b0-m3",
    "power2-i32-bmax-m6",
    "prime-i64-b4-m9",
    "integer-i64-bmax-m12",
)
SCALARS = (
    Fraction(1),
    Fraction(0),
    Fraction(1, 3),
    Fraction(1, 20),
    Fraction(0.3),  # a dyadic fraction of 54 bits
    Fraction(57, 1437),
    Fraction(10**40 + 7, 3**90),  # numerator and denominator of several limbs
    Fraction(5e-324),
)


def encoding_of(config: MaskConfig, scalar: Fraction) -> Encoding:
    scale = scalar * config.exp_shift
    return Encoding(config.order, config.add_shift * config.exp_shift, scale.numerator, scale.denominator)


def float_weights(dtype: np.dtype, bound: float) -> list[float]:
    """Zeros, subnormals, steps and halves of steps, what is just inside the bound and just outside, and the largest floats."""
    limits = np.finfo(dtype)
    edge = dtype.type(min(bound, float(limits.max)))
    values = [0.0, -0.0, limits.smallest_subnormal, limits.tiny, limits.max, 1e-10, 3e-10, 5e-11, 0.1, 0.5, 1.0, 0.75, 1 / 3]
    values += [edge, np.nextafter(edge, dtype.type(0)), edge / 3, edge / 10, edge * dtype.type(0.999)]
    with np.errstate(over="ignore"):
        values.append(np.nextafter(edge, dtype.type(np.inf)))
    both = np.array(values, dtype=dtype)
    both = np.concatenate([both, -both])
    return both[np.isfinite(both)].tolist()


def integer_weights(dtype: np.dtype, bound: int) -> list[int]:
    limits = np.iinfo(dtype)
    values = {
        0,
        1,
        -1,
        2,
        1000,
        -1001,
        bound - 1,
        bound,
        bound + 1,
        -bound,
        1 - bound,
        -bound - 1,
        int(limits.max),
        int(limits.min),
    }
    return [max(int(limits.min), min(int(limits.max), value)) for value in sorted(values)]


def edge_weights(dtype: np.dtype, bound: int) -> np.ndarray:
    values = float_weights(dtype, float(min(bound, 2**1023))) if dtype.kind == "f" else integer_weights(dtype, bound)
    return np.array(values, dtype=dtype)


def assert_masks_exactly(backend: str, weights: np.ndarray, encoding: Encoding) -> None:
    elements = random_integers(len(weights), encoding.order)
    encoded = [reference.encode(weight, encoding) for weight in weights.tolist()]
    masked, memory = unaligned((len(weights), kernels.element_bytes(encoding.order)))
    clipped_count = _backends.load_backend(backend).mask_weights(
        masked, weights, pack_integers(elements, encoding.order), encoding
    )
    expected = [(value + element) % encoding.order for (value, _), element in zip(encoded, elements, strict=True)]
    assert reference.to_integers(masked) == expected
    assert clipped_count == sum(is_clipped for _, is_clipped in encoded)
    assert_untouched(memory, masked)


@in_turn("config", CONFIGS)
def test_edge_weights_and_scalars(backend, config):
    config = MaskConfig.parse(config)
    for scalar in SCALARS:
        assert_masks_exactly(backend, edge_weights(config.data_type.dtype, config.add_shift), encoding_of(config, scalar))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@in_turn("order", [2, 3, 257, 2**61, 2**62, 2**64, 2**128 + 1, 256**272 - 1], ids=lambda order: f"{order.bit_length()}bits")
def test_any_data_type_meets_any_order(backend, order, dtype):
    offsets = {0, order // 4, (order - 1) // 2}
    scales = (Fraction(1), Fraction(order, 7), Fraction(1, order), Fraction(2) ** -160, Fraction(3**100, 2**60))
    for offset, scale in itertools.product(offsets, scales):
        bound = max(1, int(min(offset / scale, 2**62)))
        assert_masks_exactly(backend, edge_weights(dtype, bound), Encoding(order, offset, scale.numerator, scale.denominator))


def test_scales_need_not_be_in_lowest_terms(backend):
    config = MaskConfig.parse("prime-f32-b0-m3")
    offset = config.add_shift * config.exp_shift
    for common in (2, 3, 10**10, 2**200, 3**100):
        scale = Encoding(config.order, offset, 10**10 * common, 3 * common)
        assert_masks_exactly(backend, edge_weights(np.dtype(np.float32), 1), scale)


def test_a_group_a_hair_too_small_wraps(backend):
    """2 * offset is not below the order, as with some of xaynet's unbounded groups (spec 2.4)."""
    weights = np.array([1.0, -1.0, 0.5, 2.0], dtype=np.float32)
    for order in (200, 197, 101):
        assert_masks_exactly(backend, weights, Encoding(order, 100, 100, 1))


@in_turn("length", [*LENGTHS, 2051])
@in_turn("config", ["prime-f32-b0-m3", "power2-f64-b0-m3", "prime-i32-b0-m3", "power2-f32-bmax-m3"])
def test_lengths(backend, config, length):
    if backend == "reference" and length > 100:
        length = 100
    config = MaskConfig.parse(config)
    random = np.random.default_rng(length)
    bound = min(1.25 * config.add_shift, 2.0**31 - 200)
    weights = random.uniform(-bound, bound, length).astype(config.data_type.dtype)
    assert_masks_exactly(backend, weights, encoding_of(config, Fraction(2, 3)))


def test_masking_in_place(backend):
    config = MaskConfig.parse("prime-f32-b0-m3")
    encoding, weights = encoding_of(config, Fraction(1)), np.linspace(-1, 1, 33, dtype=np.float32)
    elements = pack_integers(random_integers(33, config.order), config.order)
    expected, _ = kernels.mask_weights(weights, elements, encoding)
    _backends.load_backend(backend).mask_weights(elements, weights, elements, encoding)
    assert (elements == expected).all()


@pytest.mark.parametrize(
    "config", ["power2-f32-b0-m6", "power2-f64-b2-m3", "power2-i32-b0-m3", "power2-i64-bmax-m3", "power2-f32-bmax-m3"]
)
def test_update_is_expand_and_mask(backend, config):
    config = MaskConfig.parse(config)
    encoding = encoding_of(config, Fraction(1, 3))
    weights = edge_weights(config.data_type.dtype, config.add_shift)
    values, after = drawn(SEED, 3, config.order, len(weights))
    expected, clipped = kernels.mask_weights(weights, pack_integers(values, config.order), encoding)
    out, memory = unaligned(expected.shape)
    masked, position, clipped_count = kernels.update(weights, SEED, 3, encoding, out)
    assert masked is out
    assert (masked == expected).all()
    assert (position, clipped_count) == (after, clipped)
    assert_untouched(memory, out)


@pytest.mark.parametrize("config", ["prime-f32-b0-m3", "prime-f64-b0-m3", "prime-f32-bmax-m3"])
def test_update_in_pieces_equals_one_piece(backend, config):
    config = MaskConfig.parse(config)
    encoding = encoding_of(config, Fraction(1))
    weights = np.linspace(-1.2, 1.2, 40, dtype=config.data_type.dtype)
    whole, end, clipped = kernels.update(weights, SEED, 0, encoding)
    position = clipped_in_pieces = 0
    pieces = []
    for begin, stop in ((0, 1), (1, 1), (1, 18), (18, 40)):
        piece, position, count = kernels.update(weights[begin:stop], SEED, position, encoding)
        pieces.append(piece)
        clipped_in_pieces += count
    assert (np.concatenate(pieces) == whole).all()
    assert (position, clipped_in_pieces) == (end, clipped)


def test_update_of_many_weights(backend):
    length = 100 if backend == "reference" else 5000
    config = MaskConfig.parse("prime-f32-b0-m6")
    weights = np.random.default_rng(5).uniform(-1, 1, length).astype(np.float32)
    encoding = encoding_of(config, Fraction(1, 7))
    elements, position = kernels.expand(SEED, config.order, length)
    expected, clipped = kernels.mask_weights(weights, elements, encoding)
    masked, after, clipped_count = kernels.update(weights, SEED, 0, encoding)
    assert (masked == expected).all()
    assert (after, clipped_count) == (position, clipped)


@in_turn("bad", [np.nan, np.inf, -np.inf])
@in_turn("index", [0, 8, 32])
@in_turn("config", ["prime-f32-b0-m3", "prime-f64-b0-m3", "prime-f64-bmax-m3"])
def test_weights_must_be_finite(backend, config, index, bad):
    config = MaskConfig.parse(config)
    encoding = encoding_of(config, Fraction(1))
    weights = np.zeros(33, dtype=config.data_type.dtype)
    weights[index] = bad
    weights[index + 1 :] = np.nan
    out, memory = unaligned((33, config.element_bytes))
    with pytest.raises(ModelError, match=f"at index {index}$"):
        kernels.update(weights, SEED, 0, encoding, out)
    assert (memory == 0xA5).all()
    with pytest.raises(ModelError, match=f"at index {index}$"):
        _backends.load_backend(backend).mask_weights(out, weights, np.zeros_like(out), encoding)
    assert_untouched(memory, out)


def test_masking_refuses_bad_arguments(backend):
    encoding = Encoding(257, 100, 1, 1)
    elements = np.zeros((2, 2), dtype=np.uint8)
    for weights in (np.zeros(2, dtype=np.float16), np.zeros((2, 1), dtype=np.float32), np.zeros(4, dtype=np.float32)[::2]):
        with pytest.raises(ModelError, match="contiguous vector of float32"):
            kernels.mask_weights(weights, elements, encoding)
