"""Weights to elements and back in numba, in integers only: exact where the contract says exact.

This file knows numbers: no packed bytes, no keystream, no fractions on the wire. Time spent depends on the weights: unlike the
compiled kernels those of masking branch on them, in the process of the participant who owns them.

Division by a constant is multiplication by its reciprocal. For a fraction P / Q that multiplies integers x below 2^b, let
R = P * 2^F / Q with F >= b + bits of Q. Then x * ceil(R) / 2^F lies above x * P / Q by less than 1 / Q, the least distance
of x * P / Q from the next integer, so both have the same floor; x * floor(R) / 2^F lies below by less than that, so both have
the same ceiling. Where Q is a power of two, R is exact. Python works out R; see `encoding_constants` and
`truncation_constants`.

R and products of it are arrays of 32-bit digits in 64-bit words, least significant first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import void
from numpy.typing import NDArray

from pet.kernels._arrays import Decoding, Encoding
from pet.kernels._numba_jit import (
    FLOAT,
    FLOATS_OUT,
    INTEGER,
    INTEGERS_IN,
    INTEGERS_OUT,
    WORD,
    WORDS_IN,
    WORDS_OUT,
    inlined,
    kernel,
)

U64: Final = np.uint64
_ZERO: Final = U64(0)
_ONE: Final = U64(1)
_DIGIT_BITS: Final = U64(32)
_DIGIT: Final = U64(0xFFFFFFFF)

#: The largest exponent of 2 that a weight has beside its mantissa: 2^971 times 53 bits is the largest float64.
_MAX_EXPONENT: Final = 971
#: An exponent of 2 that takes any word out of the range of float64.
_FAR: Final = 5000


# ---- constants, in Python -------------------------------------------------------------------------------------------


def to_limbs(value: int, count: int) -> NDArray[np.uint64]:
    """Return the 64-bit limbs of an integer that fits `count` of them."""
    return np.frombuffer(value.to_bytes(8 * count, "little"), dtype="<u8").astype(np.uint64)


def to_digits(*values: int) -> NDArray[np.uint64]:
    """Return the 32-bit digits of integers one after the other, equally many of each and at least one."""
    count = max(1, -(-max(values).bit_length() // 32))
    return np.frombuffer(b"".join(value.to_bytes(4 * count, "little") for value in values), dtype="<u4").astype(np.uint64)


@dataclass(frozen=True, slots=True)
class EncodingConstants:
    """A scale as a reciprocal.

    Attributes:
        upper: ceil(R), whose products have the right floor.
        lower: floor(R), whose products have the right ceiling.
        shift: F.
        largest_exponent: a weight other than 0 with a larger exponent of 2 is clamped whatever its mantissa.
        fits_pair: the offset is below 2^63, and the product with any mantissa below 2^128.
    """

    upper: int
    lower: int
    shift: int
    largest_exponent: int
    fits_pair: bool


def encoding_constants(encoding: Encoding, mantissa_bits: int) -> EncodingConstants:
    """Work out what `encode` and `encode_pairs` need, for mantissas below 2^mantissa_bits."""
    divisor = math.gcd(encoding.scale_numerator, encoding.scale_denominator)
    numerator, denominator = encoding.scale_numerator // divisor, encoding.scale_denominator // divisor
    largest_exponent = _MAX_EXPONENT
    if numerator:
        enough = (encoding.offset + 1).bit_length() + denominator.bit_length() - numerator.bit_length() + 1
        largest_exponent = min(enough, _MAX_EXPONENT)
    if denominator & (denominator - 1) == 0:
        shift = denominator.bit_length() - 1
    else:
        shift = mantissa_bits + max(0, largest_exponent) + denominator.bit_length()
    lower, remainder = divmod(numerator << shift, denominator)
    upper = lower + (remainder > 0)
    fits_pair = upper.bit_length() + mantissa_bits <= 128 and encoding.offset < 2**63
    return EncodingConstants(upper, lower, shift, largest_exponent, fits_pair)


@dataclass(frozen=True, slots=True)
class TruncationConstants:
    """A ratio as the reciprocal ceil(R) with its shift F."""

    upper: NDArray[np.uint64]
    shift: int


def truncation_constants(decoding: Decoding) -> TruncationConstants:
    """Work out what `decode_integers` needs for the differences of a decoding."""
    divisor = math.gcd(decoding.numerator, decoding.denominator)
    numerator, denominator = decoding.numerator // divisor, decoding.denominator // divisor
    shift = max(decoding.order, decoding.offset).bit_length() + denominator.bit_length()
    return TruncationConstants(to_digits(-(-(numerator << shift) // denominator)), shift)


def leading_word(numerator: int, denominator: int) -> tuple[int, int]:
    """Return a ratio as (word, exponent) with 2^63 <= word < 2^64: word * 2^exponent is the ratio less than 2^-63 of it."""
    exponent = numerator.bit_length() - denominator.bit_length() - 64
    word = (numerator << max(0, -exponent)) // (denominator << max(0, exponent))
    if word >> 64:
        return word >> 1, exponent + 1
    return word, exponent


# ---- limbs and digits -----------------------------------------------------------------------------------------------


@inlined
def _digit_at(digits: Any, i: Any) -> Any:
    return digits[i] if 0 <= i < len(digits) else _ZERO


@inlined
def _word_at(digits: Any, bit: Any) -> Any:
    """Return 64 bits of an integer from a bit on, which may be negative: zeros lie around the digits."""
    i = bit >> 5
    offset = U64(bit & 31)
    low = _digit_at(digits, i) | _digit_at(digits, i + 1) << _DIGIT_BITS
    # Two shifts, since a shift by all 64 bits (offset 0) is not defined.
    return low >> offset | (_digit_at(digits, i + 2) << (U64(63) - offset)) << _ONE


@inlined
def _bit_length(word: Any) -> Any:
    length = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word >> U64(step) != _ZERO:
            word >>= U64(step)
            length += step
    return length + np.int64(word)


@inlined
def _digits_bit_length(digits: Any) -> Any:
    for i in range(len(digits) - 1, -1, -1):
        if digits[i] != _ZERO:
            return 32 * i + _bit_length(digits[i])
    return 0


@inlined
def _has_bits_below(digits: Any, bit: Any) -> Any:
    """Return whether any of the lowest `bit` bits is set."""
    for i in range(len(digits)):
        left = bit - 32 * i
        if left <= 0:
            return False
        digit = digits[i] if left >= 32 else digits[i] & ((_ONE << U64(left)) - _ONE)
        if digit != _ZERO:
            return True
    return False


@inlined
def _multiply(product: Any, digits: Any, start: Any, count: Any, factor: Any) -> None:
    """Write digits[start : start + count] * factor; the product has two digits more."""
    low, high = factor & _DIGIT, factor >> _DIGIT_BITS
    carry = _ZERO
    for i in range(count):
        carry += digits[start + i] * low
        product[i] = carry & _DIGIT
        carry >>= _DIGIT_BITS
    product[count] = carry
    carry = _ZERO
    for i in range(count):
        carry += digits[start + i] * high + product[i + 1]
        product[i + 1] = carry & _DIGIT
        carry >>= _DIGIT_BITS
    product[count + 1] = carry


@inlined
def _multiply_high(a: Any, b: Any) -> Any:
    """Return the upper 64 bits of the product of two words."""
    a_low, a_high, b_low, b_high = a & _DIGIT, a >> _DIGIT_BITS, b & _DIGIT, b >> _DIGIT_BITS
    middle = a_high * b_low + (a_low * b_low >> _DIGIT_BITS)
    other = a_low * b_high + (middle & _DIGIT)
    return a_high * b_high + (middle >> _DIGIT_BITS) + (other >> _DIGIT_BITS)


@inlined
def _distance(magnitude: Any, start: Any, values: Any, stride: Any, i: Any, offset: Any) -> Any:
    """Write |values[i] - offset| to magnitude[start:], in limbs; return 1 where the difference is negative, else 0."""
    borrow = _ZERO
    for plane in range(len(offset)):
        value = values[plane * stride + i]
        partial = value - offset[plane]
        magnitude[start + plane] = partial - borrow
        borrow = U64(value < offset[plane]) | U64(partial < borrow)
    carry = borrow
    for plane in range(len(offset)):
        at = start + plane
        magnitude[at] = (magnitude[at] ^ (_ZERO - borrow)) + carry
        carry = U64(magnitude[at] == _ZERO) & carry
    return borrow


# ---- encoding -------------------------------------------------------------------------------------------------------


@inlined
def _shift_pair(high: Any, low: Any, right: Any) -> Any:
    """Shift high * 2^64 + low to the right, which may be negative.

    Returns:
        The result, or the largest word where it needs more than 63 bits; 1 if bits were lost at the right, else 0.
    """
    if right <= 0:
        if high != _ZERO or right < -62 or low >> U64(63 + right) != _ZERO:
            return ~_ZERO, _ZERO
        return low << U64(-right), _ZERO
    if right >= 128:
        return _ZERO, _ONE
    if right >= 64:
        shift = U64(right - 64)
        result = high >> shift
        return result, U64(low != _ZERO or result << shift != high)
    shift = U64(right)
    if high >> shift != _ZERO:
        return ~_ZERO, _ZERO
    return low >> shift | (high << (U64(63) - shift)) << _ONE, U64((low >> shift) << shift != low)


@kernel(INTEGER, WORDS_OUT, WORDS_IN, INTEGERS_IN, WORDS_IN, WORDS_IN, INTEGER, INTEGER, WORD)
def encode_pairs(
    values: Any, mantissas: Any, exponents: Any, signs: Any, reciprocals: Any, shift: Any, largest_exponent: Any, offset: Any
) -> Any:
    """Do as `encode` where `EncodingConstants.fits_pair`; the reciprocals are two limbs each."""
    clipped_count = 0
    for i in range(len(mantissas)):
        is_negative, mantissa = signs[i], mantissas[i]
        reciprocal_low, reciprocal_high = reciprocals[U64(2) * is_negative], reciprocals[U64(2) * is_negative + _ONE]
        low = mantissa * reciprocal_low
        high = _multiply_high(mantissa, reciprocal_low) + mantissa * reciprocal_high
        magnitude = _ZERO
        if high | low != _ZERO:
            magnitude = ~_ZERO
            if exponents[i] <= largest_exponent:
                magnitude, lost = _shift_pair(high, low, shift - exponents[i])
                if magnitude <= offset:
                    magnitude += lost & is_negative
        if magnitude > offset:
            magnitude = offset
            clipped_count += 1
        values[i] = offset - magnitude if is_negative else offset + magnitude
    return clipped_count


@inlined
def _scaled_magnitude(magnitude: Any, product: Any, right: Any, is_negative: Any) -> Any:
    """Write a product, shifted right, into limbs: its ceiling for a negative weight. Return whether it fits."""
    bits = _digits_bit_length(product)
    if bits > 0 and bits - right > 64 * len(magnitude):
        return False
    carry = U64(is_negative and right > 0 and _has_bits_below(product, right))
    for plane in range(len(magnitude)):
        magnitude[plane] = _word_at(product, right + 64 * plane) + carry
        carry = carry & U64(magnitude[plane] == _ZERO)
    return carry == _ZERO


@inlined
def _is_above(magnitude: Any, bound: Any) -> Any:
    for plane in range(len(bound) - 1, -1, -1):
        if magnitude[plane] != bound[plane]:
            return magnitude[plane] > bound[plane]
    return False


@inlined
def _write_around(values: Any, stride: Any, i: Any, offset: Any, magnitude: Any, is_negative: Any) -> None:
    """Write offset + magnitude, or offset - magnitude for a negative weight; it is not below 0 and fits the limbs."""
    carry = is_negative
    for plane in range(len(offset)):
        # Subtracting is adding the complement and 1.
        partial = offset[plane] + (magnitude[plane] ^ (_ZERO - is_negative))
        result = partial + carry
        carry = U64(partial < offset[plane]) | U64(result < partial)
        values[plane * stride + i] = result


@kernel(INTEGER, WORDS_OUT, INTEGER, WORDS_IN, INTEGERS_IN, WORDS_IN, WORDS_IN, INTEGER, INTEGER, WORDS_IN)
def encode(
    values: Any,
    stride: Any,
    mantissas: Any,
    exponents: Any,
    signs: Any,
    reciprocals: Any,
    shift: Any,
    largest_exponent: Any,
    offset: Any,
) -> Any:
    """Encode weights, each (-1)^sign * mantissa * 2^exponent (spec 3.4).

    Args:
        values: planes of the results, as many as the limbs of the offset, which hold twice the offset.
        stride: distance of two planes.
        mantissas: below 2^64.
        exponents: of 2.
        signs: 0 or 1.
        reciprocals: digits of `upper` and `lower` of `EncodingConstants`, equally many.
        shift: as there.
        largest_exponent: as there.
        offset: limbs.

    Returns:
        How many weights the clamp changed.
    """
    digit_count = len(reciprocals) // 2
    product = np.empty(digit_count + 2, dtype=np.uint64)
    magnitude = np.empty(len(offset), dtype=np.uint64)
    clipped_count = 0
    for i in range(len(mantissas)):
        is_negative = signs[i]
        fits = exponents[i] <= largest_exponent or mantissas[i] == _ZERO
        if fits:
            _multiply(product, reciprocals, digit_count * np.int64(is_negative), digit_count, mantissas[i])
            fits = _scaled_magnitude(magnitude, product, shift - exponents[i], is_negative)
        if not fits or _is_above(magnitude, offset):
            for plane in range(len(offset)):
                magnitude[plane] = offset[plane]
            clipped_count += 1
        _write_around(values, stride, i, offset, magnitude, is_negative)
    return clipped_count


# ---- decoding -------------------------------------------------------------------------------------------------------


@kernel(void, FLOATS_OUT, WORDS_IN, INTEGER, WORDS_IN, WORD, INTEGER, FLOAT)
def decode_floats(model: Any, values: Any, stride: Any, offset: Any, ratio: Any, ratio_exponent: Any, largest: Any) -> None:
    """Write (difference - offset) * ratio * 2^ratio_exponent, limited to +-largest (spec 3.7).

    Leading words of 64 bits are multiplied, which leaves the product less than 2^-60 of it below the exact one before it is
    rounded to the 53 bits of a float64.
    """
    magnitude = np.empty(len(offset) + 1, dtype=np.uint64)
    magnitude[0] = _ZERO  # below the lowest limb, so that the leading word has one below it
    for i in range(len(model)):
        is_negative = _distance(magnitude, 1, values, stride, i, offset)
        top = len(offset)
        while top > 0 and magnitude[top] == _ZERO:
            top -= 1
        if top == 0:
            model[i] = 0.0
            continue
        bits = _bit_length(magnitude[top])
        word = magnitude[top] << U64(64 - bits) | (magnitude[top - 1] >> _ONE) >> U64(bits - 1)
        exponent = 64 * (top - 1) + bits - 64 + ratio_exponent + 64
        limited: Any = np.int32(max(-_FAR, min(_FAR, exponent)))
        weight = math.ldexp(np.float64(_multiply_high(word, ratio)), limited)
        weight = min(weight, largest)
        model[i] = -weight if is_negative else weight


@inlined
def _multiply_limbs(product: Any, digits: Any, limbs: Any) -> None:
    """Write digits * limbs; the product has two digits for each limb more."""
    product[:] = _ZERO
    for i in range(2 * len(limbs)):
        factor = limbs[i >> 1] >> (_DIGIT_BITS * U64(i & 1)) & _DIGIT
        if factor == _ZERO:
            continue
        carry = _ZERO
        for j in range(len(digits)):
            carry += digits[j] * factor + product[i + j]
            product[i + j] = carry & _DIGIT
            carry >>= _DIGIT_BITS
        product[i + len(digits)] = carry


@kernel(void, INTEGERS_OUT, WORDS_IN, INTEGER, WORDS_IN, WORDS_IN, INTEGER, WORD)
def decode_integers(model: Any, values: Any, stride: Any, offset: Any, upper: Any, shift: Any, largest: Any) -> None:
    """Write (difference - offset) times a reciprocal, truncated, limited to [-largest - 1, largest] (spec 3.7)."""
    magnitude = np.empty(len(offset), dtype=np.uint64)
    product = np.empty(2 * len(offset) + len(upper), dtype=np.uint64)
    for i in range(len(model)):
        is_negative = _distance(magnitude, 0, values, stride, i, offset)
        _multiply_limbs(product, upper, magnitude)
        weight = _word_at(product, shift)
        limit = largest + is_negative
        if _digits_bit_length(product) - shift > 64 or weight > limit:
            weight = limit
        model[i] = np.int64(_ZERO - weight if is_negative else weight)
