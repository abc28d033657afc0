"""The kernels of the derivation pet-1: one Python function each, which checks the arrays and calls a back-end.

A vector is packed and always reduced, a sum of vectors is a vector again, and the order of the group is a prime of 32 or 64
bits: a field. Every element of an expansion can be computed alone, so a slice needs nothing before it. Two more orders than the
field's two are taken where nothing multiplies, so that tests can meet a draw that is made again often.

Source: docs/spec/profile.md 3, 4 and 11.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from pet._orders import Z32 as Z32
from pet._orders import Z64 as Z64
from pet.errors import AggregationError, ModelError
from pet.kernels._arrays import Model, Packed, new_array
from pet.kernels._backends import backend_for

ORDERS: Final = (Z32, Z64)
KEY_BYTES: Final = 32
#: An expansion has this many elements.
MAX_ELEMENTS: Final = 2**32
#: The largest encoded value: beyond it, binary64 could not tell neighbours apart.
MAX_LEVELS: Final = 2**52


def element_bytes(order: int) -> int:
    """Return the bytes of an element, 4 or 8.

    Raises:
        ModelError: the order is neither of 32 nor of 64 bits.
    """
    _check_order(order)
    return order.bit_length() // 8


def expand_add(vector: Packed, first: int, keys: bytes, order: int, factor: int = 1) -> None:
    """Add elements `first` and following of the expansion of every key, times a factor, to a vector in place.

    No expansion is stored.

    Args:
        vector: valid; stays valid.
        first: index of the element of the expansions that vector[0] receives.
        keys: 32 bytes each, joined.
        order: of the group.
        factor: below the order; other than 1 only for the two orders of pet-1.

    Raises:
        ModelError: an argument outside its range.
    """
    _check_order(order)
    _check_vector(vector, len(vector), order)
    if len(keys) % KEY_BYTES:
        raise ModelError(f"keys: expected a multiple of {KEY_BYTES} bytes, got {len(keys)}")
    if first < 0 or first + len(vector) > MAX_ELEMENTS:
        raise ModelError(f"expansion: expected elements 0 to 2^32 - 1, got {first} to {first + len(vector) - 1}")
    _check_factor(factor, order)
    backend_for().field_expand_add(vector, first, keys, order, factor)


def encode(
    weights: Model, scalar: float, bound: float, levels: int, order: int, out: Packed | None = None
) -> tuple[Packed, int]:
    """Encode weights in fixed point, without the unit (docs/spec/profile.md 4.1).

    Args:
        weights: float32 or float64, one dimension.
        scalar: 0 to 1.
        bound: A, positive and finite.
        levels: R, 1 to 2^52 and below the order.
        order: of the group.
        out: where to write the elements; a new array if None.

    Returns:
        The elements, packed, and how many weights were clipped to the bound.

    Raises:
        ModelError: a weight is NaN or infinite (`out` is undefined then); an argument outside its range.
    """
    _check_order(order)
    _check_floats("weights", weights)
    _check_bound(bound)
    if not 0.0 <= scalar <= 1.0:
        raise ModelError(f"scalar: expected 0 to 1, got {scalar}")
    if not 1 <= levels <= min(order - 1, MAX_LEVELS):
        raise ModelError(f"levels: expected 1 to {min(order - 1, MAX_LEVELS)}, got {levels}")
    elements = new_array((len(weights), element_bytes(order)), np.uint8) if out is None else out
    _check_vector(elements, len(weights), order)
    return elements, backend_for().field_encode(elements, weights, scalar, bound, levels, order)


def decode(
    elements: Packed,
    bound: float,
    highest: int,
    unit: int,
    order: int,
    dtype: np.dtype[np.generic],
    out: Model | None = None,
) -> Model:
    """Decode a total of fixed-point elements to the weighted mean, the same bits on every back-end (docs/spec/profile.md 4.1).

    Args:
        elements: the total without masks and without its unit.
        bound: A.
        highest: n * R, below the order: what no element may exceed.
        unit: the total's unit, 1 or more and below the order.
        order: of the group.
        dtype: float32 or float64.
        out: where to write the mean; a new array if None.

    Raises:
        UnmaskError: an element above `highest` (reason "out_of_range"); `out` is undefined then.
        ModelError: an argument outside its range.
    """
    _check_order(order)
    _check_vector(elements, len(elements), order)
    _check_bound(bound)
    if not 0 <= highest < order or not 1 <= unit < order:
        raise ModelError(f"highest, unit: expected 0 and 1 to {order - 1}, got {highest} and {unit}")
    model = new_array((len(elements),), dtype) if out is None else out
    _check_floats("out", model)
    if model.dtype != dtype or len(model) != len(elements):
        raise ModelError(f"out: expected {len(elements)} weights of {np.dtype(dtype)}, got {len(model)} of {model.dtype}")
    backend_for().field_decode(model, elements, bound, highest, unit, order)
    return model


def add(total: Packed, vector: Packed, order: int) -> None:
    """Add a vector to a total in place, modulo the order; the vector is checked.

    Raises:
        AggregationError: an element of the vector is not below the order (reason "invalid_object"); the total is as before.
    """
    _check_pair(total, vector, order)
    backend_for().field_add(total, vector, order)


def subtract(total: Packed, vector: Packed, order: int) -> None:
    """Subtract a vector from a total in place; otherwise as `add`."""
    _check_pair(total, vector, order)
    backend_for().field_subtract(total, vector, order)


def multiply_add(total: Packed, vector: Packed, factor: int, order: int) -> None:
    """Add a vector times a factor to a total in place; both are valid."""
    _check_field(order)
    _check_pair(total, vector, order)
    _check_factor(factor, order)
    backend_for().field_multiply_add(total, vector, factor, order)


def dot(left: Packed, right: Packed, order: int) -> int:
    """Return the inner product of two valid vectors modulo the order."""
    _check_field(order)
    _check_pair(left, right, order)
    return backend_for().field_dot(left, right, order)


def find_above(elements: Packed, highest: int, order: int) -> int | None:
    """Return the index of the first element above `highest`, or None. With order - 1, that is the first invalid one."""
    _check_order(order)
    _check_vector(elements, len(elements), order)
    if not 0 <= highest < order:
        raise ModelError(f"highest: expected 0 to {order - 1}, got {highest}")
    index = backend_for().field_find_above(elements, highest, order)
    return index if index < len(elements) else None


# ---- checks ---------------------------------------------------------------------------------------------------------


def _check_order(order: int) -> None:
    if not (2**31 < order < 2**32 or 2**63 < order < 2**64):
        raise ModelError(f"order: expected one of 32 or 64 bits, got {order}")


def _check_field(order: int) -> None:
    if order not in ORDERS:
        raise ModelError(f"order: expected {Z32} or {Z64}, got {order}")


def _check_factor(factor: int, order: int) -> None:
    if factor != 1:
        _check_field(order)
    if not 0 <= factor < order:
        raise ModelError(f"factor: expected 0 to {order - 1}, got {factor}")


def _check_bound(bound: float) -> None:
    if not (math.isfinite(bound) and bound > 0):
        raise ModelError(f"bound: expected a finite number above 0, got {bound}")


def _check_floats(name: str, weights: Model) -> None:
    if weights.dtype not in (np.float32, np.float64) or weights.ndim != 1 or not weights.flags.c_contiguous:
        raise ModelError(
            f"{name}: expected a contiguous vector of float32 or float64, got {weights.dtype} of shape {weights.shape}"
        )


def _check_vector(vector: Packed, length: int, order: int) -> None:
    expected = (length, order.bit_length() // 8)
    if vector.dtype != np.uint8 or vector.shape != expected or not vector.flags.c_contiguous:
        raise AggregationError(
            "model_mismatch", f"elements: expected contiguous uint8 of shape {expected}, got {vector.dtype} of {vector.shape}"
        )


def _check_pair(total: Packed, vector: Packed, order: int) -> None:
    _check_order(order)
    _check_vector(total, len(total), order)
    _check_vector(vector, len(total), order)
