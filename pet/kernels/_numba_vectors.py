"""Vectors of elements in numba: reading and writing packed bytes, and addition, subtraction and reduction modulo an order.

This file knows elements and totals: no keystream, no weights, no fractions.

A total is passed as its words from the first of plane 0 to the last of the top plane, and the distance of two planes: plane
p of element i is total[p * stride + i]. An order is passed as its 64-bit limbs, as many as there are planes. Packed elements
are passed as their bytes and the width of one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import void

from pet.kernels._numba_jit import BYTES_IN, BYTES_OUT, INTEGER, WORDS_IN, WORDS_OUT, inlined, kernel

U64: Final = np.uint64
_ZERO: Final = U64(0)
_ONE: Final = U64(1)
_BYTE_BITS: Final = U64(8)


@inlined
def load(data: Any, start: Any, size: Any) -> Any:
    """Read `size` bytes, 0 to 8, as a little-endian word."""
    # Unsigned indices: numba tests signed ones for negative values, and the eight bytes would not become one load.
    at = U64(start)
    if size > 0 and start + 8 <= len(data):
        word = (
            U64(data[at])
            | U64(data[at + U64(1)]) << U64(8)
            | U64(data[at + U64(2)]) << U64(16)
            | U64(data[at + U64(3)]) << U64(24)
            | U64(data[at + U64(4)]) << U64(32)
            | U64(data[at + U64(5)]) << U64(40)
            | U64(data[at + U64(6)]) << U64(48)
            | U64(data[at + U64(7)]) << U64(56)
        )
        return word & (~_ZERO >> U64(64 - 8 * size))
    word = _ZERO
    for i in range(size):
        word |= U64(data[at + U64(i)]) << (_BYTE_BITS * U64(i))
    return word


@inlined
def _store(data: Any, start: Any, size: Any, word: Any) -> None:
    """Write a word as `size` bytes, 0 to 8; up to 8 are touched if there are as many, so write upwards."""
    at = U64(start)
    if size > 0 and start + 8 <= len(data):
        data[at] = np.uint8(word)
        data[at + U64(1)] = np.uint8(word >> U64(8))
        data[at + U64(2)] = np.uint8(word >> U64(16))
        data[at + U64(3)] = np.uint8(word >> U64(24))
        data[at + U64(4)] = np.uint8(word >> U64(32))
        data[at + U64(5)] = np.uint8(word >> U64(40))
        data[at + U64(6)] = np.uint8(word >> U64(48))
        data[at + U64(7)] = np.uint8(word >> U64(56))
        return
    for i in range(size):
        data[at + U64(i)] = np.uint8(word >> (_BYTE_BITS * U64(i)))


@inlined
def _limb_bytes(width: Any, plane: Any) -> Any:
    """Return how many bytes of an element of some width belong to a plane."""
    return max(0, min(8, width - 8 * plane))


@inlined
def _add_with_carry(a: Any, b: Any, carry: Any) -> Any:
    partial = a + b
    result = partial + carry
    return result, U64(partial < a) | U64(result < partial)


@inlined
def _subtract_with_borrow(a: Any, b: Any, borrow: Any) -> Any:
    partial = a - b
    return partial - borrow, U64(a < b) | U64(partial < borrow)


@inlined
def _subtract_if_not_below(values: Any, stride: Any, i: Any, bound: Any, start: Any, planes: Any) -> None:
    """Subtract the limbs bound[start:] from a value, unless the value is below them."""
    borrow = _ZERO
    for plane in range(planes):
        _, borrow = _subtract_with_borrow(values[plane * stride + i], bound[start + plane], borrow)
    keep = borrow - _ONE  # all ones where the subtraction counts: no branch on a secret
    borrow = _ZERO
    for plane in range(planes):
        at = plane * stride + i
        values[at], borrow = _subtract_with_borrow(values[at], bound[start + plane] & keep, borrow)


@kernel(void, WORDS_OUT, INTEGER, INTEGER, BYTES_IN, INTEGER, INTEGER)
def unpack(values: Any, stride: Any, count: Any, data: Any, width: Any, planes: Any) -> None:
    """Read packed elements into planes."""
    for plane in range(planes):
        size = _limb_bytes(width, plane)
        for i in range(count):
            values[plane * stride + i] = load(data, i * width + 8 * plane, size)


@kernel(void, BYTES_OUT, INTEGER, WORDS_IN, INTEGER, INTEGER, INTEGER)
def pack(data: Any, width: Any, values: Any, stride: Any, count: Any, planes: Any) -> None:
    """Write planes as packed elements."""
    if planes == 1:
        for i in range(count):
            _store(data, i * width, width, values[i])
        return
    for i in range(count):
        for plane in range(planes):
            _store(data, i * width + 8 * plane, _limb_bytes(width, plane), values[plane * stride + i])


@kernel(INTEGER, BYTES_IN, INTEGER, WORDS_IN)
def find_invalid(data: Any, width: Any, order: Any) -> Any:
    """Return the index of the first packed element that is not below the order, or how many there are."""
    count = len(data) // width
    if len(order) == 1:
        largest = _ZERO
        for i in range(count):
            largest = max(largest, load(data, i * width, width))
        if largest < order[0]:
            return count
    for i in range(count):
        borrow = _ZERO
        for plane in range(len(order)):
            value = load(data, i * width + 8 * plane, _limb_bytes(width, plane))
            _, borrow = _subtract_with_borrow(value, order[plane], borrow)
        if borrow == _ZERO:
            return i
    return count


@kernel(void, WORDS_OUT, INTEGER, INTEGER, BYTES_IN, INTEGER, INTEGER)
def add_packed(total: Any, stride: Any, count: Any, data: Any, width: Any, planes: Any) -> None:
    """Add packed elements to a total, unreduced."""
    if planes == 1:
        for i in range(count):
            total[i] += load(data, i * width, width)
        return
    for i in range(count):
        carry = _ZERO
        for plane in range(planes):
            at = plane * stride + i
            value = load(data, i * width + 8 * plane, _limb_bytes(width, plane))
            total[at], carry = _add_with_carry(total[at], value, carry)


@kernel(void, WORDS_OUT, INTEGER, INTEGER, WORDS_IN, INTEGER, WORDS_IN)
def add_modulo(total: Any, stride: Any, count: Any, values: Any, values_stride: Any, order: Any) -> None:
    """Add planes to a total modulo the order; both are below it, so no sum leaves the planes."""
    planes = len(order)
    if planes == 1:
        for i in range(count):
            value = total[i] + values[i]
            total[i] = min(value, value - order[0])  # below the order the difference wraps and is the larger one
        return
    for i in range(count):
        carry = _ZERO
        for plane in range(planes):
            at = plane * stride + i
            total[at], carry = _add_with_carry(total[at], values[plane * values_stride + i], carry)
        _subtract_if_not_below(total, stride, i, order, 0, planes)


@kernel(void, WORDS_OUT, INTEGER, INTEGER, BYTES_IN, INTEGER, WORDS_IN)
def subtract_packed(total: Any, stride: Any, count: Any, data: Any, width: Any, order: Any) -> None:
    """Subtract packed elements from a total modulo the order; both are below it."""
    planes = len(order)
    if planes == 1:
        for i in range(count):
            value = total[i] - load(data, i * width, width)
            total[i] = min(value, value + order[0])  # a negative difference has wrapped: adding the order wraps it back
        return
    for i in range(count):
        borrow = _ZERO
        for plane in range(planes):
            at = plane * stride + i
            value = load(data, i * width + 8 * plane, _limb_bytes(width, plane))
            total[at], borrow = _subtract_with_borrow(total[at], value, borrow)
        mask = _ZERO - borrow
        carry = _ZERO
        for plane in range(planes):
            at = plane * stride + i
            total[at], carry = _add_with_carry(total[at], order[plane] & mask, carry)


@kernel(void, WORDS_OUT, INTEGER, INTEGER, WORDS_IN, INTEGER)
def reduce(total: Any, stride: Any, count: Any, multiples: Any, planes: Any) -> None:
    """Reduce a total modulo an order.

    Args:
        total: every value below twice the first of the multiples.
        stride: distance of two planes.
        count: number of values.
        multiples: the order times falling powers of two, down to the order itself; `planes` limbs each.
        planes: number of planes.
    """
    steps = len(multiples) // planes
    if planes == 1:
        for i in range(count):
            value = total[i]
            for step in range(steps):
                value = min(value, value - multiples[step])
            total[i] = value
        return
    for i in range(count):
        for step in range(steps):
            _subtract_if_not_below(total, stride, i, multiples, step * planes, planes)


@kernel(INTEGER, WORDS_IN, INTEGER, INTEGER, WORDS_IN, WORDS_IN)
def find_outside(values: Any, stride: Any, count: Any, lowest: Any, highest: Any) -> Any:
    """Return the index of the first value outside [lowest, highest], or `count`; both bounds have a limb per plane."""
    for i in range(count):
        below = _ZERO
        above = _ZERO
        for plane in range(len(lowest)):
            value = values[plane * stride + i]
            _, below = _subtract_with_borrow(value, lowest[plane], below)
            _, above = _subtract_with_borrow(highest[plane], value, above)
        if below | above != _ZERO:
            return i
    return count
