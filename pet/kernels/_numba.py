"""The numba back-end: the fall-back where pet was installed without a C compiler.

It has the functions of `Backend` (pet/kernels/_arrays.py) and computes the same to the bit as the reference; only floats that
come out of `unmask` and `decode_fractions` may differ by the rounding that the contract allows. Here vectors are cut into
pieces that stay in the cache and are led through kernels, which are compiled when first needed and release the interpreter's
lock. This file knows the kernels of the _numba_* modules; they know nothing of each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import AggregationError, ModelError, UnmaskError
from pet.kernels import _numba_fractions, _numba_keystream, _numba_numbers, _numba_vectors, _reference
from pet.kernels._arrays import Decoding, Encoding, Model, Packed, Total, plane_count
from pet.kernels._numba_fields import field_add as field_add
from pet.kernels._numba_fields import field_decode as field_decode
from pet.kernels._numba_fields import field_dot as field_dot
from pet.kernels._numba_fields import field_encode as field_encode
from pet.kernels._numba_fields import field_expand_add as field_expand_add
from pet.kernels._numba_fields import field_find_above as field_find_above
from pet.kernels._numba_fields import field_multiply_add as field_multiply_add
from pet.kernels._numba_fields import field_subtract as field_subtract

name: Final = "numba"

_Words = NDArray[np.uint64]
_Bytes = NDArray[np.uint8]

#: Words of a piece: 128 KiB, so that two pieces lie in a second-level cache.
_PIECE_WORDS: Final = 16384
#: The least number of elements in a piece, however wide they are: every draw of a piece throws some keystream away.
_MIN_PIECE: Final = 512

_MANTISSA_BITS: Final = {"float32": 24, "float64": 53, "int32": 32, "int64": 64}
#: Bits stored; one more is implied.
_FLOAT64_MANTISSA: Final = 52
#: The longest record of a fraction: two numbers of 1024 digits, each with its header.
_RECORD_BYTES: Final = 2 * (9 + 4 * 1024)


def covers(order: int) -> bool:
    """Every order is covered."""
    return order >= 2


# ---- pieces ---------------------------------------------------------------------------------------------------------


class _Scratch:
    """Planes for one piece of a vector."""

    def __init__(self, planes: int, length: int) -> None:
        self.stride = max(1, min(length, max(_MIN_PIECE, _PIECE_WORDS // planes)))
        self.planes = np.empty((planes, self.stride), dtype=np.uint64)
        self.words: _Words = self.planes.reshape(-1)

    def pieces(self, length: int) -> Iterator[tuple[int, int]]:
        """Yield where each piece of a vector starts and how many elements it has."""
        for start in range(0, length, self.stride):
            yield start, min(self.stride, length - start)

    def load(self, total: Total, start: int, count: int) -> None:
        """Copy a piece of a total; planes that the total does not have become 0."""
        self.planes[: len(total), :count] = total[:, start : start + count]
        self.planes[len(total) :, :count] = 0


def _flatten(total: Total) -> tuple[_Words, int]:
    """Return a total as its words from the first to the last, and the distance of two planes in words."""
    planes, length = total.shape
    stride = total.strides[0] // total.itemsize if planes > 1 else length
    words = np.lib.stride_tricks.as_strided(total, ((planes - 1) * stride + length,), (total.itemsize,))
    return words, stride


def _bytes_of(elements: Packed, start: int, count: int) -> _Bytes:
    return elements[start : start + count].reshape(-1)


def _limb_count(*values: int) -> int:
    return max(1, -(-max(values).bit_length() // 64))


class _Draws:
    """The draws of a seed below an order, with the position in its keystream."""

    def __init__(self, seed: bytes, position: int, order: int, planes: int) -> None:
        draw_bytes = -(-order.bit_length() // 8)
        self.position = position
        self._words_per_draw = -(-draw_bytes // 4)
        self._top_mask = np.uint64(256 ** (draw_bytes - 4 * (self._words_per_draw - 1)) - 1)
        self._order = _numba_numbers.to_limbs(order, planes)
        self._key = np.frombuffer(seed, dtype="<u4").astype(np.uint64)

    def fill(self, scratch: _Scratch, count: int) -> None:
        """Draw the next elements into a scratch."""
        self.position = _numba_keystream.draw(
            scratch.words,
            scratch.stride,
            count,
            self._key,
            np.uint64(self.position),
            self._words_per_draw,
            self._top_mask,
            self._order,
        )


# ---- drawing --------------------------------------------------------------------------------------------------------


def expand(elements: Packed, seed: bytes, position: int, order: int) -> int:
    """Carry out pet_expand."""
    length, width = elements.shape
    planes = plane_count(order)
    scratch = _Scratch(planes, length)
    draws = _Draws(seed, position, order, planes)
    for start, count in scratch.pieces(length):
        draws.fill(scratch, count)
        _numba_vectors.pack(_bytes_of(elements, start, count), width, scratch.words, scratch.stride, count, planes)
    return draws.position


def sum_masks(total: Total, seeds: bytes, positions: _Words, order: int) -> None:
    """Carry out pet_sum_masks."""
    planes, length = total.shape
    if length == 0:
        return
    words, stride = _flatten(total)
    scratch = _Scratch(planes, length)
    limbs = _numba_numbers.to_limbs(order, planes)
    all_draws = [
        _Draws(seeds[32 * k : 32 * k + 32], int(position), order, planes) for k, position in enumerate(positions.tolist())
    ]
    for start, count in scratch.pieces(length):
        for draws in all_draws:
            draws.fill(scratch, count)
            _numba_vectors.add_modulo(words[start:], stride, count, scratch.words, scratch.stride, limbs)
    positions[:] = [draws.position for draws in all_draws]


# ---- masking --------------------------------------------------------------------------------------------------------


def _split(weights: Model) -> tuple[_Words, NDArray[np.int64], _Words]:
    """Take weights apart: (-1)^sign * mantissa * 2^exponent; return mantissas, exponents and signs."""
    if weights.dtype.kind == "i":
        integers = weights.astype(np.int64)
        signs = (integers < 0).astype(np.uint64)
        return np.abs(integers).view(np.uint64), np.zeros(len(weights), dtype=np.int64), signs
    # A float32 is a float64 whose lowest bits are 0.
    spare_bits = _MANTISSA_BITS["float64"] - _MANTISSA_BITS[weights.dtype.name]
    bits = weights.astype(np.float64).view(np.uint64)
    exponents = ((bits >> np.uint64(_FLOAT64_MANTISSA)) & np.uint64(0x7FF)).astype(np.int64)
    mantissas = bits & np.uint64(2**_FLOAT64_MANTISSA - 1)
    mantissas |= (exponents > 0).astype(np.uint64) << np.uint64(_FLOAT64_MANTISSA)
    mantissas >>= np.uint64(spare_bits)
    return mantissas, np.maximum(exponents, 1) - (1075 - spare_bits), bits >> np.uint64(63)


class _Encoder:
    """Encodes pieces of a model; adds the masks and packs the sums."""

    def __init__(self, encoding: Encoding, weights: Model, masked: Packed) -> None:
        self._encoding = encoding
        self._weights = weights
        self._masked = masked
        self.planes = max(plane_count(encoding.order), _limb_count(2 * encoding.offset))
        self._scratch = _Scratch(self.planes, len(weights))
        self._constants = _numba_numbers.encoding_constants(encoding, _MANTISSA_BITS[weights.dtype.name])
        upper, lower = self._constants.upper, self._constants.lower
        self._digits = _numba_numbers.to_digits(upper, lower)
        self._pairs = _numba_numbers.to_limbs(upper | lower << 128, 4) if self._constants.fits_pair else self._digits
        self._order = _numba_numbers.to_limbs(encoding.order, self.planes)
        self._offset = _numba_numbers.to_limbs(encoding.offset, self.planes)
        # Some of xaynet's groups are a hair too small for their largest weights (spec 2.4): these wrap around.
        self._multiples = _falling_multiples(encoding.order, 2 * encoding.offset // encoding.order + 1, self.planes)
        self.clipped_count = 0

    def mask(self, start: int, count: int, elements: _Scratch) -> None:
        """Write the masked elements of one piece; `elements` holds the draws and has the same stride."""
        scratch = self._scratch
        self._encode(start, count)
        if len(self._multiples):
            _numba_vectors.reduce(scratch.words, scratch.stride, count, self._multiples, self.planes)
        _numba_vectors.add_modulo(scratch.words, scratch.stride, count, elements.words, elements.stride, self._order)
        width = self._masked.shape[1]
        _numba_vectors.pack(_bytes_of(self._masked, start, count), width, scratch.words, scratch.stride, count, self.planes)

    def _encode(self, start: int, count: int) -> None:
        constants, scratch = self._constants, self._scratch
        parts = _split(self._weights[start : start + count])
        limits = constants.shift, constants.largest_exponent
        if constants.fits_pair and self.planes == 1:
            self.clipped_count += _numba_numbers.encode_pairs(scratch.words, *parts, self._pairs, *limits, self._offset[0])
        else:
            words, stride = scratch.words, scratch.stride
            self.clipped_count += _numba_numbers.encode(words, stride, *parts, self._digits, *limits, self._offset)


def mask_weights(masked: Packed, weights: Model, elements: Packed, encoding: Encoding) -> int:
    """Carry out pet_mask_weights."""
    _check_finite(weights)
    length, width = elements.shape
    encoder = _Encoder(encoding, weights, masked)
    scratch = _Scratch(encoder.planes, length)
    for start, count in scratch.pieces(length):
        _numba_vectors.unpack(scratch.words, scratch.stride, count, _bytes_of(elements, start, count), width, encoder.planes)
        encoder.mask(start, count, scratch)
    return encoder.clipped_count


def update(masked: Packed, weights: Model, seed: bytes, position: int, encoding: Encoding) -> tuple[int, int]:
    """Carry out pet_update."""
    _check_finite(weights)
    encoder = _Encoder(encoding, weights, masked)
    draws = _Draws(seed, position, encoding.order, encoder.planes)
    scratch = _Scratch(encoder.planes, len(weights))
    for start, count in scratch.pieces(len(weights)):
        draws.fill(scratch, count)
        encoder.mask(start, count, scratch)
    return draws.position, encoder.clipped_count


# ---- totals ---------------------------------------------------------------------------------------------------------


def find_invalid(elements: Packed, order: int) -> int:
    """Carry out pet_find_invalid."""
    width = elements.shape[1]
    return int(_numba_vectors.find_invalid(elements.reshape(-1), width, _numba_numbers.to_limbs(order, plane_count(order))))


def aggregate(total: Total, vectors: Sequence[Packed], order: int) -> None:
    """Carry out pet_aggregate."""
    for k, vector in enumerate(vectors):
        index = find_invalid(vector, order)
        if index < len(vector):
            raise AggregationError("invalid_object", f"element {index} is not below the order of the group", k)
    planes, length = total.shape
    if length == 0:
        return
    words, stride = _flatten(total)
    for vector in vectors:
        _numba_vectors.add_packed(words, stride, length, vector.reshape(-1), vector.shape[1], planes)


def subtract(total: Total, elements: Packed, order: int) -> None:
    """Carry out pet_subtract."""
    planes, length = total.shape
    if length == 0:
        return
    words, stride = _flatten(total)
    limbs = _numba_numbers.to_limbs(order, planes)
    _numba_vectors.subtract_packed(words, stride, length, elements.reshape(-1), elements.shape[1], limbs)


def _falling_multiples(order: int, bound: int, planes: int) -> _Words:
    """Return the limbs of order * 2^k for falling k, as `_numba_vectors.reduce` wants them for values below bound * order."""
    multiples = [order << k for k in reversed(range((bound - 1).bit_length()))]
    # A multiple that leaves the planes is above every value.
    limbs = [_numba_numbers.to_limbs(multiple, planes) for multiple in multiples if multiple >> 64 * planes == 0]
    return np.concatenate(limbs) if limbs else np.empty(0, dtype=np.uint64)


def reduce(total: Total, bound: int, order: int) -> None:
    """Carry out pet_reduce."""
    planes, length = total.shape
    if length == 0:
        return
    words, stride = _flatten(total)
    _numba_vectors.reduce(words, stride, length, _falling_multiples(order, bound, planes), planes)


def pack(elements: Packed, total: Total, order: int) -> None:  # noqa: ARG001  # the width is that of the array
    """Carry out pet_pack."""
    planes, length = total.shape
    if length == 0:
        return
    words, stride = _flatten(total)
    _numba_vectors.pack(elements.reshape(-1), elements.shape[1], words, stride, length, planes)


# ---- unmasking ------------------------------------------------------------------------------------------------------


def unmask_elements(elements: Packed, total: Total, mask: Packed, order: int) -> None:
    """Carry out pet_unmask_elements."""
    planes, length = total.shape
    width = mask.shape[1]
    limbs = _numba_numbers.to_limbs(order, planes)
    scratch = _Scratch(planes, length)
    for start, count in scratch.pieces(length):
        scratch.load(total, start, count)
        _numba_vectors.subtract_packed(scratch.words, scratch.stride, count, _bytes_of(mask, start, count), width, limbs)
        _numba_vectors.pack(_bytes_of(elements, start, count), width, scratch.words, scratch.stride, count, planes)


class _Decoder:
    """Decodes pieces of differences to the values of a data type, in float64 or int64."""

    def __init__(self, decoding: Decoding, dtype: np.dtype[Any], planes: int) -> None:
        self._offset = _numba_numbers.to_limbs(decoding.offset, planes)
        self._is_float = dtype.kind == "f"
        if self._is_float:
            self._ratio, self._ratio_exponent = _numba_numbers.leading_word(decoding.numerator, decoding.denominator)
            self._largest: Any = float(np.finfo(dtype).max)
        else:
            self._reciprocal = _numba_numbers.truncation_constants(decoding)
            self._largest = np.uint64(np.iinfo(dtype).max)

    def decode(self, scratch: _Scratch, values: Model) -> None:
        """Write the weights of as many differences as there are values."""
        if self._is_float:
            ratio = np.uint64(self._ratio)
            _numba_numbers.decode_floats(
                values, scratch.words, scratch.stride, self._offset, ratio, self._ratio_exponent, self._largest
            )
        else:
            upper, shift = self._reciprocal.upper, self._reciprocal.shift
            _numba_numbers.decode_integers(values, scratch.words, scratch.stride, self._offset, upper, shift, self._largest)


def unmask(model: Model, total: Total, mask: Packed, decoding: Decoding) -> None:
    """Carry out pet_unmask."""
    length, width = mask.shape
    planes = max(len(total), _limb_count(decoding.offset, decoding.lowest, decoding.highest))
    order, lowest, highest = (
        _numba_numbers.to_limbs(value, planes) for value in (decoding.order, decoding.lowest, decoding.highest)
    )
    decoder = _Decoder(decoding, model.dtype, planes)
    values: Model = np.empty(length, dtype=np.float64 if model.dtype.kind == "f" else np.int64)
    scratch = _Scratch(planes, length)
    for start, count in scratch.pieces(length):
        scratch.load(total, start, count)
        _numba_vectors.subtract_packed(scratch.words, scratch.stride, count, _bytes_of(mask, start, count), width, order)
        index = _numba_vectors.find_outside(scratch.words, scratch.stride, count, lowest, highest)
        if index < count:
            raise UnmaskError("out_of_range", f"weight {start + index} lies outside the data type {model.dtype}")
        decoder.decode(scratch, values[start : start + count])
    model[:] = values


# ---- fractions ------------------------------------------------------------------------------------------------------


def encode_fractions(output: _Bytes, elements: Packed, decoding: Decoding) -> tuple[int, int]:
    """Carry out pet_encode_fractions."""
    length, width = elements.shape
    divisor = math.gcd(decoding.numerator, decoding.denominator)
    numerator, denominator = decoding.numerator // divisor, decoding.denominator // divisor
    if _limb_count(decoding.order, decoding.offset, numerator, denominator) > 1:
        # The model is written once a round: the greatest common divisors of wide numbers are left to Python's integers.
        return _reference.encode_fractions(output, elements, decoding)
    constants = np.array([decoding.offset, numerator, denominator], dtype=np.uint64)
    scratch = _Scratch(1, length)
    used = 0
    for start, count in scratch.pieces(length):
        _numba_vectors.unpack(scratch.words, scratch.stride, count, _bytes_of(elements, start, count), width, 1)
        size, done = _numba_fractions.encode_ratios(output[used:], scratch.words[:count], *constants)
        used += size
        if done < count:
            return used, start + done
    return used, length


def encode_floats(output: _Bytes, values: Model) -> tuple[int, int]:
    """Carry out pet_encode_floats."""
    _check_finite(values)
    used, done = _numba_fractions.encode_dyadics(output, values.astype(np.float64).view(np.uint64))
    return used, done


def decode_fractions(model: Model, data: _Bytes) -> int:
    """Carry out pet_decode_fractions."""
    is_float = model.dtype.kind == "f"
    decode = _numba_fractions.decode_floats if is_float else _numba_fractions.decode_integers
    largest: Any = float(np.finfo(model.dtype).max) if is_float else np.uint64(np.iinfo(model.dtype).max)
    values: Model = np.empty(len(model), dtype=np.float64 if is_float else np.int64)
    position: int = 0
    index: int = 0
    while True:
        position, index = decode(values, index, data, position, largest)
        if index == len(model):
            break
        # A record that is malformed, at the edge of the data type, or an integer's of more than 64 bits: Python's integers
        # find the exact answer or raise the error.
        record = data[position : position + _RECORD_BYTES].tobytes()
        values[index], size = _reference.decode_fraction(record, 0, index, model.dtype)
        position += size
        index += 1
    model[:] = values
    return position


def _check_finite(weights: Model) -> None:
    if weights.dtype.kind == "f" and not np.isfinite(weights).all():
        index = int(np.flatnonzero(~np.isfinite(weights))[0])
        raise ModelError(f"weights: expected finite values, got {weights[index]} at index {index}")
