"""Fractions in bincode (spec 5.6) in numba: those whose parts are of an ordinary size, and all that come from floats.

This file knows the records and 64-bit numbers. What does not fit is left to the caller, who has Python integers for it.

A record is two numbers, numerator and denominator; a number is its sign (1 byte), the count of its 32-bit digits (8 bytes)
and the digits, all little-endian.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from pet.kernels._numba_jit import (
    BYTES_IN,
    BYTES_OUT,
    FLOAT,
    FLOATS_OUT,
    INTEGER,
    INTEGER_PAIR,
    INTEGERS_OUT,
    WORD,
    WORDS_IN,
    inlined,
    kernel,
)

U64: Final = np.uint64
_ZERO: Final = U64(0)
_ONE: Final = U64(1)
_DIGIT_BITS: Final = U64(32)
_DIGIT: Final = U64(0xFFFFFFFF)

#: Words below have an exact float64.
_FLOAT_WORDS: Final = U64(2**53)
#: The bits of a word that a float64 does not hold.
_REST: Final = U64(2**11 - 1)

_HEADER_BYTES: Final = 9
#: PET_MAX_FRACTION_LIMBS.
_MAX_DIGITS: Final = 1024

_MANTISSA_BITS: Final = U64(52)
_MANTISSA: Final = U64(2**52 - 1)
_EXPONENT: Final = U64(0x7FF)
_SIGN_SHIFT: Final = U64(63)


# ---- writing --------------------------------------------------------------------------------------------------------


@inlined
def _bit_length(word: Any) -> Any:
    length = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word >> U64(step) != _ZERO:
            word >>= U64(step)
            length += step
    return length + np.int64(word)


@inlined
def _digit_count(high: Any, low: Any, shift: Any) -> Any:
    """Return how many digits the number (high * 2^64 + low) * 2^shift has."""
    bits = 64 + _bit_length(high) if high != _ZERO else _bit_length(low)
    return (bits + shift + 31) >> 5 if bits > 0 else 0


@inlined
def _digit_of(high: Any, low: Any, bit: Any) -> Any:
    """Return 32 bits of high * 2^64 + low from a bit on, which may be negative."""
    if bit <= -32 or bit >= 128:
        return _ZERO
    if bit < 0:
        return (low << U64(-bit)) & _DIGIT
    if bit >= 64:
        return (high >> U64(bit - 64)) & _DIGIT
    return (low >> U64(bit) | (high << U64(63 - bit)) << _ONE) & _DIGIT


@inlined
def _put_number(output: Any, at: Any, sign: Any, high: Any, low: Any, shift: Any) -> Any:
    """Write one number; return where it ends."""
    count = _digit_count(high, low, shift)
    output[at] = np.uint8(sign)
    for i in range(8):
        output[at + 1 + i] = np.uint8(count >> (8 * i))
    at += _HEADER_BYTES
    for i in range(count):
        digit = _digit_of(high, low, 32 * i - shift)
        for j in range(4):
            output[at + j] = np.uint8(digit >> U64(8 * j))
        at += 4
    return at


@inlined
def _greatest_common_divisor(a: Any, b: Any) -> Any:
    while b != _ZERO:
        a, b = b, a % b
    return a


@inlined
def _sign_byte(magnitude: Any, is_negative: Any) -> Any:
    if magnitude == _ZERO:
        return 0
    return 255 if is_negative else 1


@kernel(INTEGER_PAIR, BYTES_OUT, WORDS_IN, WORD, WORD, WORD)
def encode_ratios(output: Any, values: Any, offset: Any, numerator: Any, denominator: Any) -> Any:
    """Write (value - offset) * numerator / denominator for as many values as fit; the ratio is in lowest terms.

    Returns:
        Bytes written, and values done.
    """
    at = 0
    for i in range(len(values)):
        is_negative = values[i] < offset
        distance = offset - values[i] if is_negative else values[i] - offset
        divisor = _greatest_common_divisor(denominator, distance)
        factor = distance // divisor
        # The 128-bit product of two words, from 32-bit digits.
        a, b = factor & _DIGIT, factor >> _DIGIT_BITS
        c, d = numerator & _DIGIT, numerator >> _DIGIT_BITS
        middle = b * c + (a * c >> _DIGIT_BITS)
        other = a * d + (middle & _DIGIT)
        high = b * d + (middle >> _DIGIT_BITS) + (other >> _DIGIT_BITS)
        low = factor * numerator
        below = denominator // divisor
        size = 2 * _HEADER_BYTES + 4 * (_digit_count(high, low, 0) + _digit_count(_ZERO, below, 0))
        if at + size > len(output):
            return at, i
        at = _put_number(output, at, _sign_byte(distance, is_negative), high, low, 0)
        at = _put_number(output, at, 1, _ZERO, below, 0)
    return at, len(values)


@kernel(INTEGER_PAIR, BYTES_OUT, WORDS_IN)
def encode_dyadics(output: Any, bits: Any) -> Any:
    """Write finite float64s, given by their bits, for as many as fit.

    Returns:
        Bytes written, and values done.
    """
    at = 0
    for i in range(len(bits)):
        mantissa = bits[i] & _MANTISSA
        exponent: Any = np.int64((bits[i] >> _MANTISSA_BITS) & _EXPONENT)
        if exponent > 0:
            mantissa |= _MANTISSA + _ONE
        else:
            exponent = 1
        exponent -= 1075
        if mantissa == _ZERO:
            exponent = 0
        while mantissa != _ZERO and mantissa & _ONE == _ZERO and exponent < 0:
            mantissa >>= _ONE
            exponent += 1
        up, down = max(exponent, 0), max(-exponent, 0)
        size = 2 * _HEADER_BYTES + 4 * (_digit_count(_ZERO, mantissa, up) + _digit_count(_ZERO, _ONE, down))
        if at + size > len(output):
            return at, i
        at = _put_number(output, at, _sign_byte(mantissa, bits[i] >> _SIGN_SHIFT != _ZERO), _ZERO, mantissa, up)
        at = _put_number(output, at, 1, _ZERO, _ONE, down)
    return at, len(bits)


# ---- reading --------------------------------------------------------------------------------------------------------


@inlined
def _digit_in(data: Any, at: Any) -> Any:
    return U64(data[at]) | U64(data[at + 1]) << U64(8) | U64(data[at + 2]) << U64(16) | U64(data[at + 3]) << U64(24)


@inlined
def _get_number(data: Any, at: Any) -> Any:
    """Read a number that is in its normal form.

    Returns:
        Where it ends, or -1 if it is malformed; its sign; its leading word and the exponent of 2 beside it, with the bits
        below the word dropped. The exponent is 0 only for a number that fits the word.
    """
    malformed = (-1, 0, _ZERO, 0)
    if len(data) - at < _HEADER_BYTES:
        return malformed
    for i in range(5, 9):
        if data[at + i] != 0:
            return malformed
    sign = np.int64(np.int8(data[at]))
    count = np.int64(_digit_in(data, at + 1))
    end = at + _HEADER_BYTES + 4 * count
    if count > _MAX_DIGITS or end > len(data) or sign < -1 or sign > 1 or (sign == 0) != (count == 0):
        return malformed
    if count == 0:
        return end, 0, _ZERO, 0
    top = _digit_in(data, end - 4)
    if top == _ZERO:
        return malformed
    if count == 1:
        return end, sign, top, 0
    word = top << _DIGIT_BITS | _digit_in(data, end - 8)
    if count == 2:
        return end, sign, word, 0
    missing = U64(32 - _bit_length(top))
    word = word << missing | _digit_in(data, end - 12) >> (_DIGIT_BITS - missing)
    return end, sign, word, 32 * (count - 2) - np.int64(missing)


@inlined
def _quotient(upper: Any, lower: Any) -> Any:
    """Divide words, to about one unit in the last place; correctly rounded where both have 53 bits at most."""
    # A word may have more bits than a float64; those that are left over correct the quotient of the others.
    upper_rest = upper & _REST if upper >= _FLOAT_WORDS else _ZERO
    lower_rest = lower & _REST if lower >= _FLOAT_WORDS else _ZERO
    dividend, divisor = np.float64(upper - upper_rest), np.float64(lower - lower_rest)
    if dividend == 0.0:
        return 0.0
    quotient = dividend / divisor
    return quotient + quotient * (np.float64(upper_rest) / dividend - np.float64(lower_rest) / divisor)


@kernel(INTEGER_PAIR, FLOATS_OUT, INTEGER, BYTES_IN, INTEGER, FLOAT)
def decode_floats(model: Any, start: Any, data: Any, at: Any, largest: Any) -> Any:
    """Read records into model[start:] up to one that is malformed, or that lies near or above the largest value.

    Returns:
        Where that record begins in the data, and its index in the model; the ends of the two if there is none.
    """
    limit = largest * (1.0 - 2.0**-20)
    for i in range(start, len(model)):
        middle, sign, upper, upper_exponent = _get_number(data, at)
        if middle < 0:
            return at, i
        end, denominator_sign, lower, lower_exponent = _get_number(data, middle)
        if end < 0 or denominator_sign <= 0:
            return at, i
        exponent: Any = np.int32(upper_exponent - lower_exponent)
        value = math.ldexp(_quotient(upper, lower), exponent)
        if value > limit:
            return at, i
        model[i] = sign * value
        at = end
    return at, len(model)


@kernel(INTEGER_PAIR, INTEGERS_OUT, INTEGER, BYTES_IN, INTEGER, WORD)
def decode_integers(model: Any, start: Any, data: Any, at: Any, largest: Any) -> Any:
    """Read records into model[start:] up to one that is malformed, above the largest value, or wider than two words.

    Returns:
        As `decode_floats`.
    """
    for i in range(start, len(model)):
        middle, sign, upper, upper_exponent = _get_number(data, at)
        if middle < 0 or upper_exponent != 0:
            return at, i
        end, denominator_sign, lower, lower_exponent = _get_number(data, middle)
        if end < 0 or denominator_sign <= 0 or lower_exponent != 0:
            return at, i
        value = upper // lower
        if value > largest:
            return at, i
        model[i] = sign * np.int64(value)
        at = end
    return at, len(model)
