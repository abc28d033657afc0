"""The kernels of pet-1 in numba: the part of the numba back-end for pet/kernels/fields.py, in plain loops.

Packed elements are passed as their bytes and the width of one. Sums, products and the choice of what is subtracted have no
branch on an element; only a draw that is not below the order is made again, as the specification says.

Source: docs/spec/profile.md 3 and 4.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import void

from pet.errors import AggregationError, ModelError, UnmaskError
from pet.kernels._arrays import Model, Packed
from pet.kernels._numba_jit import BYTES_IN, BYTES_OUT, FLOAT, FLOATS_OUT, INTEGER, WORD, WORDS_IN, inlined, kernel
from pet.kernels._numba_keystream import BLOCKS, make_blocks, one_word
from pet.kernels._numba_vectors import load

U64: Final = np.uint64
_LOW: Final = U64(0xFFFFFFFF)
_HALF: Final = U64(32)
_ONE: Final = U64(1)
_FOLD: Final = U64(5)

#: Elements that are encoded or decoded at a time: their floats stay in the cache.
_PIECE_LENGTH: Final = 1 << 14


# ---- arithmetic below an order ----------------------------------------------------------------------------------------


@inlined
def _plus(a: Any, b: Any, order: Any) -> Any:
    """Return a + b modulo an order of 32 or 64 bits; a sum that passes 2^64 has wrapped."""
    total = a + b
    return total - order * U64((total < a) | (total >= order))


@inlined
def _minus(a: Any, b: Any, order: Any) -> Any:
    """Return a - b modulo an order."""
    return a - b + order * U64(a < b)


@inlined
def _times_narrow(a: Any, b: Any, order: Any) -> Any:
    """Return a * b modulo 2^32 - 5: 2^32 is 5 there, so the high word is folded into the low one."""
    product = a * b
    product = (product >> _HALF) * _FOLD + (product & _LOW)
    product = (product >> _HALF) * _FOLD + (product & _LOW)
    return product - order * U64(product >= order)


@inlined
def _times_wide(a: Any, b: Any, order: Any) -> Any:
    """Return a * b modulo 2^64 - 2^32 + 1: 2^64 is 2^32 - 1 there, and 2^96 is -1."""
    a0, a1, b0, b1 = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    low, middle, other, high = a0 * b0, a1 * b0, a0 * b1, a1 * b1
    carried = (low >> _HALF) + (middle & _LOW) + (other & _LOW)
    low = (low & _LOW) | (carried << _HALF)
    high += (middle >> _HALF) + (other >> _HALF) + (carried >> _HALF)
    low -= order * U64(low >= order)
    value = _minus(low, high >> _HALF, order)
    return _plus(value, (high & _LOW) * _LOW, order)


@inlined
def _times(a: Any, b: Any, order: Any) -> Any:
    return _times_narrow(a, b, order) if order <= _LOW else _times_wide(a, b, order)


@inlined
def _put(data: Any, start: Any, width: Any, value: Any) -> None:
    """Write an element and nothing beside it: the next one may not have been read yet."""
    at = U64(start)
    data[at] = np.uint8(value)
    data[at + U64(1)] = np.uint8(value >> U64(8))
    data[at + U64(2)] = np.uint8(value >> U64(16))
    data[at + U64(3)] = np.uint8(value >> U64(24))
    if width == 8:
        data[at + U64(4)] = np.uint8(value >> U64(32))
        data[at + U64(5)] = np.uint8(value >> U64(40))
        data[at + U64(6)] = np.uint8(value >> U64(48))
        data[at + U64(7)] = np.uint8(value >> U64(56))


# ---- kernels ------------------------------------------------------------------------------------------------------------


@kernel(void, BYTES_OUT, INTEGER, INTEGER, INTEGER, WORDS_IN, WORD, WORD)
def _expand_add(vector: Any, width: Any, first: Any, count: Any, key: Any, order: Any, factor: Any) -> None:
    """Add elements first to first + count - 1 of the expansion of a key, times a factor."""
    columns = np.empty((16, BLOCKS), dtype=np.uint32)
    batch = 1024 // width
    batches_made = BLOCKS // 16
    made = np.int64(-1)
    for i in range(count):
        index = first + i
        number = index // batch
        if number // batches_made != made:
            made = number // batches_made
            make_blocks(columns, key, U64(made * BLOCKS))
        within = index - number * batch
        block = 16 * (number - made * batches_made) + (within & 15)
        word = (within >> 4) * (width // 4)
        value = U64(columns[word, block])
        if width == 8:
            value |= U64(columns[word + 1, block]) << _HALF
        stream = U64(0)
        while value >= order:
            stream += _ONE
            counter = U64(16 * number + (within & 15))
            value = one_word(key, counter, stream, word)
            if width == 8:
                value |= one_word(key, counter, stream, word + 1) << _HALF
        if factor != _ONE:
            value = _times(value, factor, order)
        _put(vector, i * width, width, _plus(load(vector, i * width, width), value, order))


@kernel(INTEGER, BYTES_OUT, INTEGER, FLOATS_OUT, FLOAT, FLOAT, FLOAT, FLOAT)
def _encode(elements: Any, width: Any, weights: Any, scalar: Any, bound: Any, factor: Any, levels: Any) -> Any:
    """Encode weights, every operation rounded once; return how many were clipped, or -1 - index of one that is not finite."""
    clipped_count: Any = 0
    for i in range(len(weights)):
        if not np.isfinite(weights[i]):
            return -1 - i
        scaled = weights[i] * scalar
        inside = min(max(scaled, -bound), bound)
        clipped_count += np.int64(inside != scaled)
        value = np.floor((inside + bound) * factor + 0.5)
        _put(elements, i * width, width, U64(min(value, levels)))
    return clipped_count


@kernel(void, FLOATS_OUT, BYTES_IN, INTEGER, FLOAT, WORD, FLOAT)
def _decode(model: Any, elements: Any, width: Any, bound: Any, highest: Any, unit: Any) -> None:
    """Decode elements that are not above `highest`: twice the element less `highest` is exact as sign and magnitude."""
    for i in range(len(model)):
        value = load(elements, i * width, width)
        rest = highest - value
        is_negative = value < rest
        magnitude = (rest - value) * U64(is_negative) + (value - rest) * U64(not is_negative)
        product = bound * np.float64(magnitude)
        model[i] = (-product if is_negative else product) / unit


@kernel(void, BYTES_OUT, BYTES_IN, INTEGER, WORD)
def _add(total: Any, vector: Any, width: Any, order: Any) -> None:
    for i in range(len(total) // width):
        value = _plus(load(total, i * width, width), load(vector, i * width, width), order)
        _put(total, i * width, width, value)


@kernel(void, BYTES_OUT, BYTES_IN, INTEGER, WORD)
def _subtract(total: Any, vector: Any, width: Any, order: Any) -> None:
    for i in range(len(total) // width):
        value = _minus(load(total, i * width, width), load(vector, i * width, width), order)
        _put(total, i * width, width, value)


@kernel(void, BYTES_OUT, BYTES_IN, INTEGER, WORD, WORD)
def _multiply_add(total: Any, vector: Any, width: Any, factor: Any, order: Any) -> None:
    for i in range(len(total) // width):
        product = _times(load(vector, i * width, width), factor, order)
        _put(total, i * width, width, _plus(load(total, i * width, width), product, order))


@kernel(WORD, BYTES_IN, BYTES_IN, INTEGER, WORD)
def _dot(left: Any, right: Any, width: Any, order: Any) -> Any:
    total = U64(0)
    for i in range(len(left) // width):
        total = _plus(total, _times(load(left, i * width, width), load(right, i * width, width), order), order)
    return total


@kernel(INTEGER, BYTES_IN, INTEGER, WORD)
def _find_above(elements: Any, width: Any, highest: Any) -> Any:
    for i in range(len(elements) // width):
        if load(elements, i * width, width) > highest:
            return i
    return len(elements) // width


# ---- the functions of the back-end --------------------------------------------------------------------------------------


def _flat(elements: Packed) -> Packed:
    return elements.reshape(-1)


def field_expand_add(vector: Packed, first: int, keys: bytes, order: int, factor: int) -> None:
    """Carry out pet_field_expand_add."""
    count, width = vector.shape
    for start in range(0, len(keys), 32):
        key = np.frombuffer(keys[start : start + 32], dtype="<u4").astype(np.uint64)
        _expand_add(_flat(vector), width, first, count, key, np.uint64(order), np.uint64(factor))


def field_encode(elements: Packed, weights: Model, scalar: float, bound: float, levels: int, order: int) -> int:  # noqa: ARG001
    """Carry out pet_field_encode."""
    factor = float(levels) / (2.0 * bound)
    clipped_count = 0
    for start in range(0, len(weights), _PIECE_LENGTH):
        piece = weights[start : start + _PIECE_LENGTH].astype(np.float64)
        own = _flat(elements[start : start + _PIECE_LENGTH])
        clipped: int = _encode(own, elements.shape[1], piece, scalar, bound, factor, float(levels))
        if clipped < 0:
            index = start - 1 - clipped
            raise ModelError(f"weights: expected finite values, got {weights[index]} at index {index}")
        clipped_count += clipped
    return clipped_count


def field_decode(model: Model, elements: Packed, bound: float, highest: int, unit: int, order: int) -> None:
    """Carry out pet_field_decode."""
    index = field_find_above(elements, highest, order)
    if index < len(elements):
        raise UnmaskError("out_of_range", f"weight {index}: expected a total of at most {highest}, got more")
    for start in range(0, len(model), _PIECE_LENGTH):
        own = elements[start : start + _PIECE_LENGTH]
        piece = np.empty(len(own), dtype=np.float64)
        _decode(piece, _flat(own), elements.shape[1], bound, np.uint64(highest), float(unit))
        model[start : start + _PIECE_LENGTH] = piece


def field_add(total: Packed, vector: Packed, order: int) -> None:
    """Carry out pet_field_add."""
    _check_valid(vector, order)
    _add(_flat(total), _flat(vector), total.shape[1], np.uint64(order))


def field_subtract(total: Packed, vector: Packed, order: int) -> None:
    """Carry out pet_field_subtract."""
    _check_valid(vector, order)
    _subtract(_flat(total), _flat(vector), total.shape[1], np.uint64(order))


def field_multiply_add(total: Packed, vector: Packed, factor: int, order: int) -> None:
    """Carry out pet_field_multiply_add."""
    _multiply_add(_flat(total), _flat(vector), total.shape[1], np.uint64(factor), np.uint64(order))


def field_dot(left: Packed, right: Packed, order: int) -> int:
    """Carry out pet_field_dot."""
    return int(_dot(_flat(left), _flat(right), left.shape[1], np.uint64(order)))


def field_find_above(elements: Packed, highest: int, order: int) -> int:  # noqa: ARG001  # the width is that of the array
    """Carry out pet_field_find_above."""
    return int(_find_above(_flat(elements), elements.shape[1], np.uint64(highest)))


def _check_valid(vector: Packed, order: int) -> None:
    index = field_find_above(vector, order - 1, order)
    if index < len(vector):
        raise AggregationError("invalid_object", f"element {index} is not below the order of the group", 0)
