"""The kernels of the derivation pet-1 in Python integers: the part of the reference for pet/kernels/fields.py.

Source: docs/spec/profile.md 3 and 4.
"""

from __future__ import annotations

import math

import numpy as np

from pet.errors import AggregationError, ModelError, UnmaskError
from pet.kernels._arrays import Model, Packed
from pet.kernels._reference_keystream import chacha20_block, key_words


def place(index: int, width: int) -> tuple[int, int]:
    """Return the block counter and the first word of an element of `width` bytes in an expansion."""
    if width == 4:
        return 16 * (index >> 8) + (index & 15), (index >> 4) & 15
    return 16 * (index >> 7) + (index & 15), 2 * ((index >> 4) & 7)


def expand(key: bytes, first: int, count: int, order: int) -> list[int]:
    """Return elements first to first + count - 1 of the expansion of a key."""
    width = order.bit_length() // 8
    words = key_words(key)
    blocks: dict[tuple[int, int], list[int]] = {}
    elements = []
    for index in range(first, first + count):
        counter, word = place(index, width)
        value, stream = order, -1
        while value >= order:
            stream += 1
            if (counter, stream) not in blocks:
                blocks[counter, stream] = chacha20_block(words, counter, stream)
            block = blocks[counter, stream]
            value = block[word] if width == 4 else block[word] | block[word + 1] << 32
        elements.append(value)
    return elements


def to_list(elements: Packed) -> list[int]:
    """Read packed elements."""
    return [int.from_bytes(row.tobytes(), "little") for row in elements]


def write(elements: Packed, values: list[int]) -> None:
    """Write packed elements."""
    width = elements.shape[1]
    raw = b"".join(value.to_bytes(width, "little") for value in values)
    elements[:] = np.frombuffer(raw, dtype=np.uint8).reshape(elements.shape)


def field_expand_add(vector: Packed, first: int, keys: bytes, order: int, factor: int) -> None:
    """Carry out pet_field_expand_add."""
    total = to_list(vector)
    for start in range(0, len(keys), 32):
        drawn = expand(keys[start : start + 32], first, len(total), order)
        total = [(a + factor * b) % order for a, b in zip(total, drawn, strict=True)]
    write(vector, total)


def field_encode(elements: Packed, weights: Model, scalar: float, bound: float, levels: int, order: int) -> int:  # noqa: ARG001
    """Carry out pet_field_encode: every operation is one rounded operation of binary64."""
    factor = float(levels) / (2.0 * bound)
    values, clipped_count = [], 0
    for index, weight in enumerate(weights.tolist()):
        if not math.isfinite(weight):
            raise ModelError(f"weights: expected finite values, got {weight} at index {index}")
        scaled = weight * scalar
        if not -bound <= scaled <= bound:
            scaled, clipped_count = math.copysign(bound, scaled), clipped_count + 1
        values.append(min(math.floor((scaled + bound) * factor + 0.5), levels))
    write(elements, values)
    return clipped_count


def field_decode(model: Model, elements: Packed, bound: float, highest: int, unit: int, order: int) -> None:
    """Carry out pet_field_decode: the difference is exact, then one product and one quotient of binary64."""
    index = field_find_above(elements, highest, order)
    if index < len(elements):
        raise UnmaskError("out_of_range", f"weight {index}: expected a total of at most {highest}, got more")
    model[:] = [bound * float(2 * value - highest) / float(unit) for value in to_list(elements)]


def field_add(total: Packed, vector: Packed, order: int) -> None:
    """Carry out pet_field_add."""
    _check_valid(vector, order)
    write(total, [(a + b) % order for a, b in zip(to_list(total), to_list(vector), strict=True)])


def field_subtract(total: Packed, vector: Packed, order: int) -> None:
    """Carry out pet_field_subtract."""
    _check_valid(vector, order)
    write(total, [(a - b) % order for a, b in zip(to_list(total), to_list(vector), strict=True)])


def field_multiply_add(total: Packed, vector: Packed, factor: int, order: int) -> None:
    """Carry out pet_field_multiply_add."""
    write(total, [(a + factor * b) % order for a, b in zip(to_list(total), to_list(vector), strict=True)])


def field_dot(left: Packed, right: Packed, order: int) -> int:
    """Carry out pet_field_dot."""
    return sum(a * b for a, b in zip(to_list(left), to_list(right), strict=True)) % order


def field_find_above(elements: Packed, highest: int, order: int) -> int:  # noqa: ARG001  # the width is that of the array
    """Carry out pet_field_find_above."""
    return next((index for index, value in enumerate(to_list(elements)) if value > highest), len(elements))


def _check_valid(vector: Packed, order: int) -> None:
    index = field_find_above(vector, order - 1, order)
    if index < len(vector):
        raise AggregationError("invalid_object", f"element {index} is not below the order of the group", 0)
