"""The compiled kernels as back-ends: one `CompiledBackend` for each variant of native/pet_kernels.h.

This file turns arrays into pointers and status codes into exceptions. It computes nothing, and it trusts
pet/kernels/__init__.py for shapes and types. The interpreter lock is free while a kernel runs: callers leave the arrays
alone meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import AggregationError, BackendError, ModelError, PetError, RemoteProtocolError, UnmaskError
from pet.kernels._arrays import Decoding, Encoding, Model, Packed, Total
from pet.kernels._native import ffi as ffi
from pet.kernels._native import lib as lib

#: What native/build_native.py makes of the declarations in native/pet_kernels.h that these Python files were written for.
DECLARATIONS: Final = 0xF6598819
if getattr(lib, "PET_DECLARATIONS", None) != DECLARATIONS:
    # As after an update of a source tree: its Python files are new at once, its module when it is built again.
    raise ImportError("they were built from other sources than these Python files belong to")

_DATA_TYPES: Final[dict[np.dtype[Any], int]] = {
    np.dtype(np.float32): lib.PET_F32,
    np.dtype(np.float64): lib.PET_F64,
    np.dtype(np.int32): lib.PET_I32,
    np.dtype(np.int64): lib.PET_I64,
}

#: What each status says, given the index that the kernel reported. PET_OK is not here: it is no error.
ERRORS: Final[dict[int, Callable[[int], PetError]]] = {
    lib.PET_BAD_VARIANT: lambda _: BackendError("kernel variant: expected one that runs on this machine, got another"),
    lib.PET_BAD_ORDER: lambda _: BackendError(f"order: expected 2 to 256^{lib.PET_MAX_ORDER_BYTES} - 1, got one outside"),
    lib.PET_BAD_ARGUMENT: lambda _: BackendError("kernel argument: expected the range in pet_kernels.h, got one outside"),
    lib.PET_INVALID_ELEMENT: lambda index: AggregationError(
        "invalid_object", f"vector {index}: expected elements below the order of the group, got one that is not", index
    ),
    lib.PET_NOT_FINITE: lambda index: ModelError(f"weights: expected finite values, got NaN or infinity at index {index}"),
    lib.PET_OUT_OF_RANGE: lambda index: UnmaskError("out_of_range", f"weight {index} lies outside the data type"),
    lib.PET_BUFFER_TOO_SMALL: lambda _: BackendError("output: expected room for one fraction, got less"),
    lib.PET_MALFORMED: lambda index: RemoteProtocolError(
        "malformed_model", f"global model, weight {index}: expected a fraction in its normal form, got other bytes"
    ),
}


def check(status: int, index: int = 0) -> None:
    """Raise what a status code stands for; return if it is PET_OK."""
    if status != lib.PET_OK:
        raise ERRORS[status](index)


def load(name: str) -> CompiledBackend:
    """Return the back-end of one variant.

    Raises:
        BackendError: the variant is not compiled in, or needs what this machine's processor does not have.
    """
    variant = getattr(lib, f"PET_VARIANT_{name.upper()}")
    if lib.pet_variant_name(variant) == ffi.NULL:
        raise BackendError(f"kernel back-end {name!r} cannot run here: expected a processor that has it, and code for it")
    return CompiledBackend(name, variant)


@functools.lru_cache(maxsize=64)
def _order_bytes(order: int) -> bytes:
    return order.to_bytes(-(-order.bit_length() // 8), "little")


def _input(array: NDArray[Any]) -> Any:
    """Return the address of an array, which nothing of what is returned keeps."""
    if array.flags.c_contiguous:
        # In a fifth of the time of `ctypes`, which makes an object of its own for it: as long as a short vector is added.
        return ffi.cast("void *", ffi.from_buffer(array))
    return ffi.cast("void *", array.ctypes.data)  # a range of a total


def _output(array: NDArray[Any]) -> Any:
    """Return the address of an array that a kernel writes.

    Raises:
        ModelError: the array is read-only.
    """
    if not array.flags.writeable:
        raise ModelError(f"output: expected a writable array, got a read-only one of {array.dtype} and shape {array.shape}")
    return _input(array)


def _data_type(array: Model) -> int:
    return _DATA_TYPES[array.dtype]


def _integers(kind: str, **values: int) -> tuple[Any, list[Any]]:
    """Build a pet_encoding or pet_decoding; the list keeps its memory alive."""
    struct = ffi.new(f"{kind} *")
    kept = []
    for field, value in values.items():
        buffer = ffi.from_buffer("uint8_t[]", value.to_bytes(-(-value.bit_length() // 8), "little"))
        kept.append(buffer)
        integer = getattr(struct, field)
        integer.bytes = buffer
        integer.size = len(buffer)
    return struct, kept


def _encoding(encoding: Encoding) -> tuple[Any, list[Any]]:
    return _integers(
        "pet_encoding",
        order=encoding.order,
        offset=encoding.offset,
        scale_numerator=encoding.scale_numerator,
        scale_denominator=encoding.scale_denominator,
    )


def _decoding(decoding: Decoding) -> tuple[Any, list[Any]]:
    # Differences are elements, so bounds beyond [0, order] say no more than those at its ends.
    return _integers(
        "pet_decoding",
        order=decoding.order,
        offset=decoding.offset,
        numerator=decoding.numerator,
        denominator=decoding.denominator,
        lowest=min(max(decoding.lowest, 0), decoding.order),
        highest=min(decoding.highest, decoding.order),
    )


class CompiledBackend:
    """One variant of the compiled kernels; a `Backend` of pet/kernels/_arrays.py.

    Attributes:
        name: the name of the variant.
    """

    __slots__ = ("_covers", "_variant", "name")

    def __init__(self, name: str, variant: int) -> None:
        self.name = name
        self._variant = variant
        self._covers: dict[int, bool] = {}

    def covers(self, order: int) -> bool:
        """Return whether the variant has code of its own for an order."""
        known = self._covers.get(order)
        if known is None:
            raw = _order_bytes(order)
            known = self._covers[order] = bool(lib.pet_variant_covers(self._variant, raw, len(raw)))
        return known

    def expand(self, elements: Packed, seed: bytes, position: int, order: int) -> int:
        """Call pet_expand."""
        raw = _order_bytes(order)
        after = ffi.new("uint64_t *", position)
        check(lib.pet_expand(self._variant, _output(elements), len(elements), seed, after, raw, len(raw)))
        return int(after[0])

    def sum_masks(self, total: Total, seeds: bytes, positions: NDArray[np.uint64], order: int) -> None:
        """Call pet_sum_masks."""
        raw = _order_bytes(order)
        planes = _output(total), total.strides[0] // 8, total.shape[1]
        check(lib.pet_sum_masks(self._variant, *planes, seeds, len(positions), _output(positions), raw, len(raw)))

    def mask_weights(self, masked: Packed, weights: Model, elements: Packed, encoding: Encoding) -> int:
        """Call pet_mask_weights."""
        struct, _kept = _encoding(encoding)
        clipped_count, bad_index = ffi.new("uint64_t *"), ffi.new("size_t *")
        source = _input(weights), _data_type(weights), len(weights)
        status = lib.pet_mask_weights(
            self._variant, _output(masked), *source, _input(elements), struct, clipped_count, bad_index
        )
        check(status, int(bad_index[0]))
        return int(clipped_count[0])

    def update(self, masked: Packed, weights: Model, seed: bytes, position: int, encoding: Encoding) -> tuple[int, int]:
        """Call pet_update."""
        struct, _kept = _encoding(encoding)
        after, clipped_count, bad_index = ffi.new("uint64_t *", position), ffi.new("uint64_t *"), ffi.new("size_t *")
        source = _input(weights), _data_type(weights), len(weights)
        status = lib.pet_update(self._variant, _output(masked), *source, seed, after, struct, clipped_count, bad_index)
        check(status, int(bad_index[0]))
        return int(after[0]), int(clipped_count[0])

    def find_invalid(self, elements: Packed, order: int) -> int:
        """Call pet_find_invalid."""
        raw = _order_bytes(order)
        return int(lib.pet_find_invalid(self._variant, _input(elements), len(elements), raw, len(raw)))

    def aggregate(self, total: Total, vectors: Sequence[Packed], order: int) -> None:
        """Call pet_aggregate."""
        raw = _order_bytes(order)
        pointers = ffi.new("uint8_t *[]", [_input(vector) for vector in vectors])
        bad_vector = ffi.new("size_t *")
        planes = _output(total), total.strides[0] // 8, total.shape[1]
        status = lib.pet_aggregate(self._variant, *planes, pointers, len(vectors), raw, len(raw), bad_vector)
        check(status, int(bad_vector[0]))

    def subtract(self, total: Total, elements: Packed, order: int) -> None:
        """Call pet_subtract."""
        raw = _order_bytes(order)
        planes = _output(total), total.strides[0] // 8, total.shape[1]
        check(lib.pet_subtract(self._variant, *planes, _input(elements), raw, len(raw)))

    def reduce(self, total: Total, bound: int, order: int) -> None:
        """Call pet_reduce."""
        raw = _order_bytes(order)
        planes = _output(total), total.strides[0] // 8, total.shape[1]
        check(lib.pet_reduce(self._variant, *planes, bound, raw, len(raw)))

    def pack(self, elements: Packed, total: Total, order: int) -> None:
        """Call pet_pack."""
        raw = _order_bytes(order)
        planes = _input(total), total.strides[0] // 8, total.shape[1]
        check(lib.pet_pack(self._variant, _output(elements), *planes, raw, len(raw)))

    def unmask_elements(self, elements: Packed, total: Total, mask: Packed, order: int) -> None:
        """Call pet_unmask_elements."""
        raw = _order_bytes(order)
        planes = _input(total), total.strides[0] // 8
        arguments = *planes, _input(mask), len(mask), raw, len(raw)
        check(lib.pet_unmask_elements(self._variant, _output(elements), *arguments))

    def unmask(self, model: Model, total: Total, mask: Packed, decoding: Decoding) -> None:
        """Call pet_unmask."""
        struct, _kept = _decoding(decoding)
        bad_index = ffi.new("size_t *")
        planes = _input(total), total.strides[0] // 8
        arguments = _data_type(model), *planes, _input(mask), len(mask), struct, bad_index
        check(lib.pet_unmask(self._variant, _output(model), *arguments), int(bad_index[0]))

    def encode_fractions(self, output: NDArray[np.uint8], elements: Packed, decoding: Decoding) -> tuple[int, int]:
        """Call pet_encode_fractions; where not even one fraction fits, nothing is written and both numbers are 0."""
        struct, _kept = _decoding(decoding)
        used, done = ffi.new("size_t *"), ffi.new("size_t *")
        source = _input(elements), len(elements), struct
        status = lib.pet_encode_fractions(self._variant, _output(output), len(output), used, done, *source)
        if status != lib.PET_BUFFER_TOO_SMALL:
            check(status)
        return int(used[0]), int(done[0])

    def encode_floats(self, output: NDArray[np.uint8], values: Model) -> tuple[int, int]:
        """Call pet_encode_floats; where not even one fraction fits, nothing is written and both numbers are 0."""
        used, done, bad_index = ffi.new("size_t *"), ffi.new("size_t *"), ffi.new("size_t *")
        source = _input(values), _data_type(values), len(values), bad_index
        status = lib.pet_encode_floats(self._variant, _output(output), len(output), used, done, *source)
        if status != lib.PET_BUFFER_TOO_SMALL:
            check(status, int(bad_index[0]))
        return int(used[0]), int(done[0])

    def decode_fractions(self, model: Model, data: NDArray[np.uint8]) -> int:
        """Call pet_decode_fractions; a weight out of range is the peer's fault here."""
        used, bad_index = ffi.new("size_t *"), ffi.new("size_t *")
        source = _data_type(model), len(model), _input(data), len(data)
        status = lib.pet_decode_fractions(self._variant, _output(model), *source, used, bad_index)
        if status == lib.PET_OUT_OF_RANGE:
            raise RemoteProtocolError("out_of_range", f"global model, weight {bad_index[0]}: outside {model.dtype}")
        check(status, int(bad_index[0]))
        return int(used[0])

    def field_expand_add(self, vector: Packed, first: int, keys: bytes, order: int, factor: int) -> None:
        """Call pet_field_expand_add."""
        source = first, len(vector), keys, len(keys) // lib.PET_SEED_BYTES, factor, order
        check(lib.pet_field_expand_add(self._variant, _output(vector), *source))

    def field_encode(self, elements: Packed, weights: Model, scalar: float, bound: float, levels: int, order: int) -> int:
        """Call pet_field_encode."""
        clipped_count, bad_index = ffi.new("uint64_t *"), ffi.new("size_t *")
        source = _input(weights), _data_type(weights), len(weights), scalar, bound, levels, order
        status = lib.pet_field_encode(self._variant, _output(elements), *source, clipped_count, bad_index)
        check(status, int(bad_index[0]))
        return int(clipped_count[0])

    def field_decode(self, model: Model, elements: Packed, bound: float, highest: int, unit: int, order: int) -> None:
        """Call pet_field_decode."""
        bad_index = ffi.new("size_t *")
        source = _data_type(model), _input(elements), len(elements), bound, highest, float(unit), order, bad_index
        status = lib.pet_field_decode(self._variant, _output(model), *source)
        if status == lib.PET_OUT_OF_RANGE:
            raise UnmaskError("out_of_range", f"weight {bad_index[0]}: expected a total of at most {highest}, got more")
        check(status)

    def field_add(self, total: Packed, vector: Packed, order: int) -> None:
        """Call pet_field_add."""
        bad_index = ffi.new("size_t *")
        status = lib.pet_field_add(self._variant, _output(total), _input(vector), len(vector), order, bad_index)
        _check_valid(status, int(bad_index[0]))

    def field_subtract(self, total: Packed, vector: Packed, order: int) -> None:
        """Call pet_field_subtract."""
        bad_index = ffi.new("size_t *")
        status = lib.pet_field_subtract(self._variant, _output(total), _input(vector), len(vector), order, bad_index)
        _check_valid(status, int(bad_index[0]))

    def field_multiply_add(self, total: Packed, vector: Packed, factor: int, order: int) -> None:
        """Call pet_field_multiply_add."""
        check(lib.pet_field_multiply_add(self._variant, _output(total), _input(vector), len(vector), factor, order))

    def field_dot(self, left: Packed, right: Packed, order: int) -> int:
        """Call pet_field_dot."""
        result = ffi.new("uint64_t *")
        check(lib.pet_field_dot(self._variant, result, _input(left), _input(right), len(left), order))
        return int(result[0])

    def field_find_above(self, elements: Packed, highest: int, order: int) -> int:
        """Call pet_field_find_above."""
        return int(lib.pet_field_find_above(self._variant, _input(elements), len(elements), highest, order))


def _check_valid(status: int, index: int) -> None:
    """Raise what the status of an addition stands for; the index is that of an element, not of a vector."""
    if status == lib.PET_INVALID_ELEMENT:
        raise AggregationError("invalid_object", f"element {index} is not below the order of the group", 0)
    check(status)
