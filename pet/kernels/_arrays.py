"""Types, values and sizes that every back-end of pet.kernels shares: nothing here computes on a vector.

A back-end is a module with the functions of `Backend`. They get arrays that pet/kernels/__init__.py has checked, so they check
nothing themselves but what only a pass over the data can tell (an invalid element, a NaN), which they raise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

#: A packed vector: shape (length, element_bytes), C-contiguous.
Packed = NDArray[np.uint8]
#: A running sum: shape (planes, length); each plane contiguous, so a range of a total is a total.
Total = NDArray[np.uint64]
#: A model: one dimension, of float32, float64, int32 or int64.
Model = NDArray[Any]


#: What the operating system maps with one entry where it can ("transparent huge pages").
_HUGE_PAGE_BYTES: Final = 2 << 20
#: NumPy asks for such pages for what it allocates from this size on.
_HINTED_BYTES: Final = 4 << 20
#: What a capacity is limited to: totals are reduced this often at least, so counts fit 32 bits.
_MAX_CAPACITY: Final = 2**32 - 1
#: Orders whose numbers are remembered.
_KNOWN_ORDERS: Final = 64


def new_array(shape: tuple[int, ...], dtype: Any, *, is_zeroed: bool = False) -> NDArray[Any]:
    """Return an array; from 2 MiB on it begins at a huge page, and lies in such pages where the operating system has them.

    With pages of 4 KiB, a kernel that passes once over a vector waits for their addresses a seventh of its time. NumPy asks for
    larger pages from 4 MiB on; so a smaller array is part of a larger one, of which no more is touched than this part and the
    rest of its last page.

    Args:
        shape: of the array.
        dtype: of its elements.
        is_zeroed: whether all bytes are 0.
    """
    allocate = np.zeros if is_zeroed else np.empty
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _HUGE_PAGE_BYTES:
        return allocate(shape, dtype=dtype)
    pages = -(-size // _HUGE_PAGE_BYTES) + 1  # one more, for the way to the first of them
    room = allocate(max(pages * _HUGE_PAGE_BYTES, _HINTED_BYTES), dtype=np.uint8)
    start = -room.ctypes.data % _HUGE_PAGE_BYTES
    array: NDArray[Any] = room[start : start + size].view(dtype).reshape(shape)
    return array


@functools.lru_cache(_KNOWN_ORDERS)
def element_bytes(order: int) -> int:
    """Return the bytes of one packed element: as many as order - 1 needs."""
    return -(-(order - 1).bit_length() // 8)


@functools.lru_cache(_KNOWN_ORDERS)
def plane_count(order: int) -> int:
    """Return how many 64-bit planes a total has: as many as 2 * (order - 1) needs, so one addition always fits."""
    return -(-(2 * (order - 1)).bit_length() // 64)


@functools.lru_cache(_KNOWN_ORDERS)
def capacity(order: int) -> int:
    """Return how many values below the order the planes of a total can hold the sum of."""
    return min(((1 << 64 * plane_count(order)) - 1) // (order - 1), _MAX_CAPACITY)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a weight becomes an element: clamp(floor(weight * scale), -offset, offset) + offset (pet_kernels.h, pet_encoding).

    Attributes:
        order: order of the group.
        offset: A * E of the specification.
        scale_numerator: numerator of scalar * E, not negative.
        scale_denominator: its denominator, positive.
    """

    order: int
    offset: int
    scale_numerator: int
    scale_denominator: int


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a difference becomes a weight: (difference - offset) * numerator / denominator (pet_kernels.h, pet_decoding).

    Attributes:
        order: order of the group.
        offset: n * A * E of the specification, for n models.
        numerator: positive.
        denominator: positive.
        lowest: smallest difference that is not out of range.
        highest: largest one.
    """

    order: int
    offset: int
    numerator: int
    denominator: int
    lowest: int
    highest: int


class Backend(Protocol):
    """The functions of a back-end. What each computes is said at the functions of the same name in pet/kernels/__init__.py."""

    name: str

    def covers(self, order: int) -> bool: ...

    def expand(self, elements: Packed, seed: bytes, position: int, order: int) -> int: ...

    def sum_masks(self, total: Total, seeds: bytes, positions: NDArray[np.uint64], order: int) -> None: ...

    def mask_weights(self, masked: Packed, weights: Model, elements: Packed, encoding: Encoding) -> int: ...

    def update(self, masked: Packed, weights: Model, seed: bytes, position: int, encoding: Encoding) -> tuple[int, int]: ...

    def find_invalid(self, elements: Packed, order: int) -> int: ...

    def aggregate(self, total: Total, vectors: Sequence[Packed], order: int) -> None: ...

    def subtract(self, total: Total, elements: Packed, order: int) -> None: ...

    def reduce(self, total: Total, bound: int, order: int) -> None: ...

    def pack(self, elements: Packed, total: Total, order: int) -> None: ...

    def unmask_elements(self, elements: Packed, total: Total, mask: Packed, order: int) -> None: ...

    def unmask(self, model: Model, total: Total, mask: Packed, decoding: Decoding) -> None: ...

    def encode_fractions(self, output: NDArray[np.uint8], elements: Packed, decoding: Decoding) -> tuple[int, int]: ...

    def encode_floats(self, output: NDArray[np.uint8], values: Model) -> tuple[int, int]: ...

    def decode_fractions(self, model: Model, data: NDArray[np.uint8]) -> int: ...

    # ---- pet-1: pet/kernels/fields.py says what each computes ----

    def field_expand_add(self, vector: Packed, first: int, keys: bytes, order: int, factor: int) -> None: ...

    def field_encode(self, elements: Packed, weights: Model, scalar: float, bound: float, levels: int, order: int) -> int: ...

    def field_decode(self, model: Model, elements: Packed, bound: float, highest: int, unit: int, order: int) -> None: ...

    def field_add(self, total: Packed, vector: Packed, order: int) -> None: ...

    def field_subtract(self, total: Packed, vector: Packed, order: int) -> None: ...

    def field_multiply_add(self, total: Packed, vector: Packed, factor: int, order: int) -> None: ...

    def field_dot(self, left: Packed, right: Packed, order: int) -> int: ...

    def field_find_above(self, elements: Packed, highest: int, order: int) -> int: ...
