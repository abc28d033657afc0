"""The kernels of pet: one Python function each, which checks the arrays and calls a back-end.

This is the lower of pet's two floors: arrays, lengths and an order; no mask config, no message, no phase. The upper floor is
pet/masking.py. What each function computes is stated here in a line; the contract to the byte is native/pet_kernels.h.

Back-ends: "avx512", "avx2", "neon" and "portable" (compiled C, as the processor has it), "numba", and "reference" (Python
integers, the truth that tests hold the others against). The best one that is present is used; the environment variable
PET_BACKEND forces one. Nothing is chosen or loaded before the first call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import AggregationError, ModelError
from pet.kernels._arrays import Decoding, Encoding, Model, Packed, Total, capacity, element_bytes, new_array, plane_count
from pet.kernels._backends import BACKEND_NAMES, active_backend, available_backends, backend_for, select_backend

__all__ = [
    "BACKEND_NAMES",
    "Decoding",
    "Encoding",
    "Model",
    "Packed",
    "Total",
    "active_backend",
    "aggregate",
    "available_backends",
    "capacity",
    "decode_fractions",
    "element_bytes",
    "encode_floats",
    "encode_fractions",
    "expand",
    "find_invalid",
    "mask_weights",
    "new_array",
    "new_total",
    "pack",
    "plane_count",
    "reduce",
    "select_backend",
    "subtract",
    "sum_masks",
    "unmask",
    "unmask_elements",
    "update",
]

SEED_BYTES: Final = 32


def new_total(length: int, order: int) -> Total:
    """Return a total of zeros: shape (plane_count(order), length)."""
    return new_array((plane_count(order), length), np.uint64, is_zeroed=True)


# ---- drawing --------------------------------------------------------------------------------------------------------


def expand(seed: bytes, order: int, length: int, position: int = 0, out: Packed | None = None) -> tuple[Packed, int]:
    """Draw `length` elements from the keystream of a seed (spec 3.1).

    Args:
        seed: 32 bytes.
        order: order of the group, at least 2.
        length: number of elements.
        position: 32-bit words of the keystream that are used up already.
        out: where to write the elements; a new array if None.

    Returns:
        The elements, uint8 of shape (length, element_bytes(order)), and the new position.
    """
    _check_seeds(seed, 1)
    _check_order(order)
    elements = _new_packed(length, order) if out is None else out
    _check_packed(elements, length, order)
    return elements, backend_for(order).expand(elements, seed, position, order)


def sum_masks(total: Total, seeds: bytes, positions: NDArray[np.uint64], order: int) -> None:
    """Add the next `total.shape[1]` draws of every seed to a total, in place; no mask is stored.

    Args:
        total: reduced; stays reduced. May be a range of a larger total.
        seeds: 32 bytes each, joined.
        positions: one per seed, uint64; moved on in place.
        order: order of the group.
    """
    _check_order(order)
    _check_total(total, order)
    _check_seeds(seeds, len(positions))
    if positions.dtype != np.uint64 or positions.ndim != 1 or not positions.flags.c_contiguous:
        raise ModelError(f"positions: expected a contiguous vector of uint64, got {_describe(positions)}")
    backend_for(order).sum_masks(total, seeds, positions, order)


# ---- masking --------------------------------------------------------------------------------------------------------


def mask_weights(weights: Model, elements: Packed, encoding: Encoding, out: Packed | None = None) -> tuple[Packed, int]:
    """Encode weights and add elements to them (spec 3.4): the masked vector of a mask that is already drawn.

    Args:
        weights: float32, float64, int32 or int64; one dimension.
        elements: the mask.
        encoding: how weights become elements.
        out: where to write the masked elements, which may be `elements`; a new array if None.

    Returns:
        The masked elements, packed, and how many weights the clamp changed.

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    _check_order(encoding.order)
    _check_model(weights)
    _check_packed(elements, len(weights), encoding.order)
    masked = _new_packed(len(weights), encoding.order) if out is None else out
    _check_packed(masked, len(weights), encoding.order)
    return masked, backend_for(encoding.order).mask_weights(masked, weights, elements, encoding)


def update(
    weights: Model, seed: bytes, position: int, encoding: Encoding, out: Packed | None = None
) -> tuple[Packed, int, int]:
    """Encode weights and add the next draws of a seed, in one pass (spec 3.4).

    Args:
        weights: float32, float64, int32 or int64; one dimension.
        seed: 32 bytes.
        position: words of the keystream used up already.
        encoding: how weights become elements.
        out: where to write the masked elements; a new array if None.

    Returns:
        The masked elements, packed; the new position; how many weights the clamp changed.

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    _check_order(encoding.order)
    _check_model(weights)
    _check_seeds(seed, 1)
    masked = _new_packed(len(weights), encoding.order) if out is None else out
    _check_packed(masked, len(weights), encoding.order)
    position, clipped_count = backend_for(encoding.order).update(masked, weights, seed, position, encoding)
    return masked, position, clipped_count


# ---- totals ---------------------------------------------------------------------------------------------------------


def find_invalid(elements: Packed, order: int) -> int | None:
    """Return the index of the first element that is not below the order, or None."""
    _check_order(order)
    _check_packed(elements, len(elements), order)
    index = backend_for(order).find_invalid(elements, order)
    return index if index < len(elements) else None


def aggregate(total: Total, vectors: Sequence[Packed], order: int) -> None:
    """Add vectors to a total in place, unreduced; the caller keeps within `capacity`.

    Raises:
        AggregationError: an element is not below the order (reason "invalid_object", `vector_index` says in which vector);
            the total is as before.
    """
    _check_order(order)
    _check_total(total, order)
    for vector in vectors:
        _check_packed(vector, total.shape[1], order)
    if vectors:
        backend_for(order).aggregate(total, vectors, order)


def subtract(total: Total, elements: Packed, order: int) -> None:
    """Subtract a valid vector from a reduced total, in place and modulo the order."""
    _check_order(order)
    _check_total(total, order)
    _check_packed(elements, total.shape[1], order)
    backend_for(order).subtract(total, elements, order)


def reduce(total: Total, bound: int, order: int) -> None:
    """Reduce every value of a total modulo the order, in place; all are below bound * order."""
    _check_order(order)
    _check_total(total, order)
    if not 1 <= bound <= capacity(order):
        raise ModelError(f"bound: expected 1 to {capacity(order)}, got {bound}")
    backend_for(order).reduce(total, bound, order)


def pack(total: Total, order: int) -> Packed:
    """Return a reduced total as packed elements."""
    _check_order(order)
    _check_total(total, order)
    elements = _new_packed(total.shape[1], order)
    backend_for(order).pack(elements, total, order)
    return elements


# ---- unmasking ------------------------------------------------------------------------------------------------------


def unmask_elements(total: Total, mask: Packed, order: int) -> Packed:
    """Return (total - mask) mod order, packed; the total is reduced and the mask valid."""
    _check_order(order)
    _check_total(total, order)
    _check_packed(mask, total.shape[1], order)
    elements = _new_packed(total.shape[1], order)
    backend_for(order).unmask_elements(elements, total, mask, order)
    return elements


def unmask(total: Total, mask: Packed, decoding: Decoding, dtype: np.dtype[np.generic], out: Model | None = None) -> Model:
    """Unmask a reduced total with a valid mask (spec 3.7), as float32, float64, int32 or int64.

    Floats are within one unit in the last place of the exact fraction (two for float64); integers are truncated towards zero.

    Args:
        total: reduced.
        mask: valid.
        decoding: how differences become weights.
        dtype: of the model.
        out: where to write the model, of that dtype and as many weights; a new array if None. After an UnmaskError its
            contents are undefined.

    Raises:
        ModelError: `out` has another dtype or length.
        UnmaskError: a difference outside [decoding.lowest, decoding.highest] (reason "out_of_range").
    """
    _check_order(decoding.order)
    _check_total(total, decoding.order)
    _check_packed(mask, total.shape[1], decoding.order)
    model = new_array((total.shape[1],), dtype) if out is None else out
    _check_model(model)
    if model.dtype != dtype or len(model) != total.shape[1]:
        raise ModelError(f"out: expected {total.shape[1]} weights of {np.dtype(dtype)}, got {_describe(model)}")
    backend_for(decoding.order).unmask(model, total, mask, decoding)
    return model


def encode_fractions(output: NDArray[np.uint8], elements: Packed, decoding: Decoding) -> tuple[int, int]:
    """Write differences as exact fractions in lowest terms, as bincode does (spec 5.6, without the count).

    Returns:
        Bytes written and elements done: as many as fit, which may be none.
    """
    _check_order(decoding.order)
    _check_bytes(output)
    _check_packed(elements, len(elements), decoding.order)
    return backend_for(decoding.order).encode_fractions(output, elements, decoding)


def encode_floats(output: NDArray[np.uint8], values: Model) -> tuple[int, int]:
    """Write floats as exact dyadic fractions in lowest terms, as bincode does (spec 5.6, without the count).

    Returns:
        Bytes written and values done: as many as fit, which may be none.

    Raises:
        ModelError: a value is NaN or infinite.
    """
    _check_bytes(output)
    _check_model(values)
    if values.dtype.kind != "f":
        raise ModelError(f"values: expected float32 or float64, got {values.dtype}")
    return backend_for().encode_floats(output, values)


def decode_fractions(data: NDArray[np.uint8], length: int, dtype: np.dtype[np.generic]) -> tuple[Model, int]:
    """Read `length` fractions in bincode (spec 5.6, after the count) as float32, float64, int32 or int64.

    Returns:
        The model, and how many bytes of the data it took.

    Raises:
        RemoteProtocolError: the bytes are not such fractions, or end too soon (reason "malformed_model"); a value lies outside
            the type (reason "out_of_range").
    """
    _check_bytes(data)
    model = new_array((length,), dtype)
    _check_model(model)
    return model, backend_for().decode_fractions(model, data)


# ---- checks: once, here, before any pointer is taken ------------------------------------------------------------------


def _describe(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _new_packed(length: int, order: int) -> Packed:
    if length < 0:
        raise ModelError(f"length: expected 0 or more, got {length}")
    return new_array((length, element_bytes(order)), np.uint8)


def _check_order(order: int) -> None:
    if order < 2:
        raise ModelError(f"order: expected 2 or more, got {order}")


def _check_seeds(seeds: bytes, count: int) -> None:
    if len(seeds) != SEED_BYTES * count:
        raise ModelError(f"mask seeds: expected {count} of {SEED_BYTES} bytes, got {len(seeds)} bytes")


def _check_packed(elements: Packed, length: int, order: int) -> None:
    expected = (length, element_bytes(order))
    if elements.dtype != np.uint8 or elements.shape != expected or not elements.flags.c_contiguous:
        raise AggregationError(
            "model_mismatch", f"elements: expected contiguous uint8 of shape {expected}, got {_describe(elements)}"
        )


def _check_total(total: Total, order: int) -> None:
    if total.dtype != np.uint64 or total.ndim != 2 or total.shape[0] != plane_count(order):
        raise ModelError(f"total: expected uint64 of shape ({plane_count(order)}, length), got {_describe(total)}")
    if total.shape[1] > 1 and total.strides[1] != total.itemsize:
        raise ModelError("total: expected contiguous planes, got strided ones")


def _check_model(weights: Model) -> None:
    if weights.dtype not in (np.float32, np.float64, np.int32, np.int64) or weights.ndim != 1 or not weights.flags.c_contiguous:
        raise ModelError(f"weights: expected a contiguous vector of float32, float64, int32 or int64, got {_describe(weights)}")


def _check_bytes(data: NDArray[np.uint8]) -> None:
    if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous:
        raise ModelError(f"bytes: expected a contiguous vector of uint8, got {_describe(data)}")
