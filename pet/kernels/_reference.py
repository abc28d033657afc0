"""The kernels in Python integers: one line of arithmetic each, slow and obvious.

Tests use it as the truth; `PET_BACKEND=reference` forces it. It must never become clever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import AggregationError, ModelError, RemoteProtocolError, UnmaskError
from pet.kernels._arrays import Decoding, Encoding, Model, Packed, Total
from pet.kernels._reference_fields import field_add as field_add
from pet.kernels._reference_fields import field_decode as field_decode
from pet.kernels._reference_fields import field_dot as field_dot
from pet.kernels._reference_fields import field_encode as field_encode
from pet.kernels._reference_fields import field_expand_add as field_expand_add
from pet.kernels._reference_fields import field_find_above as field_find_above
from pet.kernels._reference_fields import field_multiply_add as field_multiply_add
from pet.kernels._reference_fields import field_subtract as field_subtract
from pet.kernels._reference_keystream import chacha20_block, key_words

name: Final = "reference"

#: PET_MAX_FRACTION_LIMBS.
_MAX_FRACTION_LIMBS: Final = 1024
_RANGE_TOLERANCE: Final = 1 + Fraction(1, 1 << 20)


def covers(order: int) -> bool:
    """Python integers cover every order."""
    return order >= 2


def draw(seed: bytes, position: int, order: int) -> Iterator[tuple[int, int]]:
    """Yield elements below the order for ever, each with the position after it (spec 3.1)."""
    key = key_words(seed)
    draw_bytes = -(-order.bit_length() // 8)
    words_per_draw = -(-draw_bytes // 4)
    block: list[int] = []
    block_index = -1
    while True:
        value = 0
        for i in range(words_per_draw):
            if (position + i) // 16 != block_index:
                block_index = (position + i) // 16
                block = chacha20_block(key, block_index)
            value |= block[(position + i) % 16] << (32 * i)
        position += words_per_draw
        # The bytes beyond draw_bytes are dropped: the reference generator hands out whole words (rand_core 0.6).
        value &= 256**draw_bytes - 1
        if value < order:
            yield value, position


def to_integers(elements: Packed) -> list[int]:
    """Read packed elements."""
    return [int.from_bytes(row.tobytes(), "little") for row in elements]


def write_element(elements: Packed, index: int, value: int) -> None:
    """Write one packed element."""
    elements[index] = np.frombuffer(value.to_bytes(elements.shape[1], "little"), dtype=np.uint8)


def read_total(total: Total, index: int) -> int:
    """Read one value of a total."""
    return sum(int(word) << (64 * plane) for plane, word in enumerate(total[:, index]))


def write_total(total: Total, index: int, value: int) -> None:
    """Write one value of a total."""
    for plane in range(total.shape[0]):
        total[plane, index] = (value >> (64 * plane)) & 0xFFFFFFFFFFFFFFFF


def expand(elements: Packed, seed: bytes, position: int, order: int) -> int:
    """Carry out pet_expand."""
    values = draw(seed, position, order)
    for i in range(len(elements)):
        value, position = next(values)
        write_element(elements, i, value)
    return position


def sum_masks(total: Total, seeds: bytes, positions: NDArray[np.uint64], order: int) -> None:
    """Carry out pet_sum_masks."""
    for k in range(len(positions)):
        values = draw(seeds[32 * k : 32 * k + 32], int(positions[k]), order)
        for i in range(total.shape[1]):
            value, position = next(values)
            write_total(total, i, (read_total(total, i) + value) % order)
            positions[k] = position


def encode(weight: Any, encoding: Encoding) -> tuple[int, bool]:
    """Encode one weight; the flag says whether the clamp changed it."""
    scaled = math.floor(Fraction(weight) * Fraction(encoding.scale_numerator, encoding.scale_denominator))
    clamped = max(-encoding.offset, min(encoding.offset, scaled))
    return clamped + encoding.offset, clamped != scaled


def mask_weights(masked: Packed, weights: Model, elements: Packed, encoding: Encoding) -> int:
    """Carry out pet_mask_weights."""
    _check_finite(weights)
    clipped_count = 0
    for i, (weight, element) in enumerate(zip(weights.tolist(), to_integers(elements), strict=True)):
        value, is_clipped = encode(weight, encoding)
        clipped_count += is_clipped
        write_element(masked, i, (value + element) % encoding.order)
    return clipped_count


def update(masked: Packed, weights: Model, seed: bytes, position: int, encoding: Encoding) -> tuple[int, int]:
    """Carry out pet_update."""
    _check_finite(weights)
    position = expand(masked, seed, position, encoding.order)
    return position, mask_weights(masked, weights, masked.copy(), encoding)


def find_invalid(elements: Packed, order: int) -> int:
    """Carry out pet_find_invalid."""
    return next((i for i, value in enumerate(to_integers(elements)) if value >= order), len(elements))


def aggregate(total: Total, vectors: Sequence[Packed], order: int) -> None:
    """Carry out pet_aggregate."""
    for k, vector in enumerate(vectors):
        index = find_invalid(vector, order)
        if index < len(vector):
            raise AggregationError("invalid_object", f"element {index} is not below the order of the group", k)
    for vector in vectors:
        for i, value in enumerate(to_integers(vector)):
            write_total(total, i, read_total(total, i) + value)


def subtract(total: Total, elements: Packed, order: int) -> None:
    """Carry out pet_subtract."""
    for i, value in enumerate(to_integers(elements)):
        write_total(total, i, (read_total(total, i) - value) % order)


def reduce(total: Total, bound: int, order: int) -> None:  # noqa: ARG001  # Python integers need no bound
    """Carry out pet_reduce."""
    for i in range(total.shape[1]):
        write_total(total, i, read_total(total, i) % order)


def pack(elements: Packed, total: Total, order: int) -> None:  # noqa: ARG001  # the width is that of the array
    """Carry out pet_pack."""
    for i in range(total.shape[1]):
        write_element(elements, i, read_total(total, i))


def unmask_elements(elements: Packed, total: Total, mask: Packed, order: int) -> None:
    """Carry out pet_unmask_elements."""
    for i, value in enumerate(to_integers(mask)):
        write_element(elements, i, (read_total(total, i) - value) % order)


def decode(difference: int, decoding: Decoding) -> Fraction:
    """Return the weight of a difference, exactly."""
    return Fraction((difference - decoding.offset) * decoding.numerator, decoding.denominator)


def unmask(model: Model, total: Total, mask: Packed, decoding: Decoding) -> None:
    """Carry out pet_unmask."""
    values = []
    for i, value in enumerate(to_integers(mask)):
        difference = (read_total(total, i) - value) % decoding.order
        if not decoding.lowest <= difference <= decoding.highest:
            raise UnmaskError("out_of_range", f"weight {i} lies outside the data type {model.dtype}")
        values.append(to_primitive(decode(difference, decoding), model.dtype))
    model[:] = values


def to_primitive(value: Fraction, dtype: np.dtype[Any]) -> Any:
    """Round a fraction to a float, or truncate it to an integer; beyond the type's range, take its nearest finite value."""
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        return max(int(limits.min), min(int(limits.max), math.trunc(value)))
    largest = Fraction(float(np.finfo(dtype).max))
    return dtype.type(float(max(-largest, min(largest, value))))


def encode_integer(value: int) -> bytes:
    """Write a signed integer as bincode does num-bigint's BigInt: sign, count of 32-bit limbs, limbs (spec 5.6)."""
    limb_count = -(-abs(value).bit_length() // 32)
    sign = (value > 0) - (value < 0)
    return (
        sign.to_bytes(1, "little", signed=True)
        + limb_count.to_bytes(8, "little")
        + abs(value).to_bytes(4 * limb_count, "little")
    )


def _write_fractions(output: NDArray[np.uint8], fractions: Iterator[Fraction]) -> tuple[int, int]:
    used = done = 0
    for fraction in fractions:
        record = encode_integer(fraction.numerator) + encode_integer(fraction.denominator)
        if used + len(record) > len(output):
            break
        output[used : used + len(record)] = np.frombuffer(record, dtype=np.uint8)
        used += len(record)
        done += 1
    return used, done


def encode_fractions(output: NDArray[np.uint8], elements: Packed, decoding: Decoding) -> tuple[int, int]:
    """Carry out pet_encode_fractions."""
    return _write_fractions(output, (decode(value, decoding) for value in to_integers(elements)))


def encode_floats(output: NDArray[np.uint8], values: Model) -> tuple[int, int]:
    """Carry out pet_encode_floats."""
    _check_finite(values)
    return _write_fractions(output, (Fraction(value) for value in values.tolist()))


def decode_integer(data: bytes, start: int) -> tuple[int, int]:
    """Read what `encode_integer` writes; return the integer and where it ends."""
    if len(data) - start < 9:
        raise ValueError("it ends within a number")
    sign = int.from_bytes(data[start : start + 1], "little", signed=True)
    limb_count = int.from_bytes(data[start + 1 : start + 9], "little")
    end = start + 9 + 4 * limb_count
    if limb_count > _MAX_FRACTION_LIMBS or end > len(data):
        raise ValueError(f"a number of {limb_count} limbs does not fit")
    magnitude = int.from_bytes(data[start + 9 : end], "little")
    if sign not in (-1, 0, 1) or (sign == 0) != (magnitude == 0) or limb_count != -(-magnitude.bit_length() // 32):
        raise ValueError("a number is not in its normal form")
    return sign * magnitude, end


def decode_fraction(data: bytes, start: int, index: int, dtype: np.dtype[Any]) -> tuple[Any, int]:
    """Read one fraction, the weight at an index of a model; return the weight and where the fraction ends."""
    try:
        numerator, middle = decode_integer(data, start)
        denominator, end = decode_integer(data, middle)
        if denominator <= 0:
            raise ValueError("a denominator is not positive")
    except ValueError as error:
        raise RemoteProtocolError("malformed_model", f"global model, weight {index}: {error}") from None
    value = Fraction(numerator, denominator)
    if is_beyond(value, dtype):
        raise RemoteProtocolError("out_of_range", f"global model, weight {index}: outside {dtype}")
    return to_primitive(value, dtype), end


def decode_fractions(model: Model, data: NDArray[np.uint8]) -> int:
    """Carry out pet_decode_fractions."""
    raw = data.tobytes()
    position = 0
    values = []
    for i in range(len(model)):
        value, position = decode_fraction(raw, position, i, model.dtype)
        values.append(value)
    model[:] = values
    return position


def is_beyond(value: Fraction, dtype: np.dtype[Any]) -> bool:
    """Return whether a fraction lies outside a data type by more than 2^-20 of its range, which masking cannot explain."""
    if dtype.kind == "i":
        least, greatest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        value = Fraction(math.trunc(value))
    else:
        greatest = int(np.finfo(dtype).max)
        least = -greatest
    return not least * _RANGE_TOLERANCE <= value <= greatest * _RANGE_TOLERANCE


def _check_finite(weights: Model) -> None:
    if weights.dtype.kind == "f" and not np.isfinite(weights).all():
        index = int(np.flatnonzero(~np.isfinite(weights))[0])
        raise ModelError(f"weights: expected finite values, got {weights[index]} at index {index}")
