"""Masking where products of weights and scale are integers, or miss one by as little as they can.

A double cannot tell these apart by itself; the vector variants know how close a product can come to an integer without being
one (native/scales.h). The scales here lie on both sides of where that knowledge ends.
"""

import functools
import random
from fractions import Fraction

import numpy as np
import pytest
from in_turn import in_turn
from kernel_cases import pack_integers, random_integers

from pet import kernels
from pet.kernels import Encoding, _backends
from pet.kernels import _reference as reference

#: The data type, and how many bits its weights use here: all that can count.
WEIGHTS = (("f32", np.float32, 24), ("f64", np.float64, 53), ("i32", np.int32, 31), ("i64", np.int64, 51))
ORDERS = {1: 2**62 + 1, 2: 2**126 + 7}


def mantissas(bits: int, numerator: int, denominator: int, source: random.Random) -> list[int]:
    """Return integers whose products with the ratio are integers, miss one by 1 / denominator, or are anything."""
    inverse = pow(numerator, -1, denominator)
    chosen = []
    for remainder in (0, 1, denominator - 1, 2):
        first = remainder * inverse % denominator
        most = (2**bits - 1 - first) // denominator
        if most >= 0:
            chosen += [first + denominator * source.randint(0, most) for _ in range(3)] + [first + denominator * most]
    return [*chosen, 1, 2**bits - 1, *(source.getrandbits(bits) for _ in range(5))]


@functools.lru_cache(maxsize=100_000, typed=True)
def encode(weight: float, encoding: Encoding) -> tuple[int, bool]:
    """Return what the reference says, once for all back-ends that a process tests: it takes longer than all of them."""
    return reference.encode(weight, encoding)


def assert_masked(backend: str, weights: np.ndarray, encoding: Encoding) -> None:
    elements = random_integers(len(weights), encoding.order)
    encoded = [encode(weight, encoding) for weight in weights.tolist()]
    masked = np.empty((len(weights), kernels.element_bytes(encoding.order)), dtype=np.uint8)
    clipped_count = _backends.load_backend(backend).mask_weights(
        masked, weights, pack_integers(elements, encoding.order), encoding
    )
    expected = [(value + element) % encoding.order for (value, _), element in zip(encoded, elements, strict=True)]
    assert reference.to_integers(masked) == expected
    assert clipped_count == sum(is_clipped for _, is_clipped in encoded)


@pytest.mark.parametrize(("name", "dtype", "bits"), WEIGHTS, ids=[name for name, _, _ in WEIGHTS])
@in_turn("planes", [1, 2])
@in_turn("denominator", [3, 7, 479, 2**20 - 3, 2**45 - 55])
def test_ties_and_near_ties(backend, name, dtype, bits, planes, denominator):
    source = random.Random(f"{name} {planes} {denominator}")
    order = ORDERS[planes]
    for numerator_bits in (5, 24, 47, 100 - bits, 101 - bits, 102 - bits, 107 - bits):
        numerator = source.getrandbits(numerator_bits) | 1 | 1 << (numerator_bits - 1)
        while Fraction(numerator, denominator).denominator != denominator:
            numerator += 2
        for offset_bits in (
            (40, 50) if planes == 1 else (49, 60, 90 - denominator.bit_length(), 98 - denominator.bit_length(), 99)
        ):
            offset = (1 << offset_bits) - 1
            # The largest weight is just not clipped; what is below a step has a fraction of its own.
            shift = offset_bits - bits - numerator_bits + denominator.bit_length() - 1
            whole = mantissas(bits, numerator << max(shift, 0), denominator, source)
            exponent = 0 if dtype in (np.int32, np.int64) else -bits
            scale = Fraction(numerator, denominator) * Fraction(2) ** (shift - exponent)
            values = [sign * m for m in whole for sign in (1, -1)]
            if exponent:
                weights = np.array(np.ldexp(np.array(values, dtype=np.float64), exponent), dtype=dtype)
            else:
                weights = np.array(values, dtype=dtype)
            assert_masked(backend, weights, Encoding(order, offset, scale.numerator, scale.denominator))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64], ids=lambda dtype: np.dtype(dtype).name)
def test_thirds_of_integers(backend, dtype):
    """The mean of three participants: one product in three is an integer."""
    weights = np.concatenate([np.arange(-150, 150), np.arange(9_900, 10_010)]).astype(dtype)
    for exponent in (0, 10, 20):
        assert_masked(backend, weights, Encoding(2**126 + 7, 10_000 * 10**exponent, 10**exponent, 3))
