"""The global model: the weighted mean that a round ends with, as arrays, as exact fractions, as the bytes that are published.

Source: docs/spec/pet.md 3.7, 3.8 and 5.6. A global model is lazy: it holds the total and the mask, and computes
what is asked of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pet import kernels, parallel
from pet.errors import ModelError
from pet.mask_config import BoundType, DataType, MaskConfigPair
from pet.numbers import shown_value

#: Elements that are unmasked and encoded at a time: their difference stays in the cache.
PIECE_LENGTH: Final = 1 << 14
#: The same as fractions, which are ten times as large: each reader of a model keeps a piece while it takes it.
BINCODE_PIECE_LENGTH: Final = 1 << 12
#: Bincode of one fraction: two numbers, each a sign and a 64-bit count of limbs.
_FRACTION_OVERHEAD_BYTES: Final = 18


class GlobalModel:
    """The weighted mean of the models of a round.

    Made by `Aggregation.unmask`, which says what is checked. Values are biased downwards by less than
    `model_count / (exp_shift * scalar_sum)` (spec 3.7), so integer models, which truncate, tend to come out one too low.

    Attributes:
        config: mask configs of the round.
        model_count: how many models were added.
        scalar_sum: the sum of their scalars, exact.
    """

    def __init__(
        self, config: MaskConfigPair, model_count: int, scalar_sum: Fraction, total: kernels.Total, mask: kernels.Packed
    ) -> None:
        self.config: Final = config
        self.model_count: Final = model_count
        self.scalar_sum: Final = scalar_sum
        self._total: Final = total
        self._mask: Final = mask

    def __len__(self) -> int:
        return len(self._mask)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the weights, which is the config's own."""
        return self.config.vect.data_type.dtype

    def __repr__(self) -> str:
        return f"GlobalModel({self.config.vect}, length={len(self)}, model_count={self.model_count})"

    def to_array(self, dtype: DTypeLike | None = None, *, threads: SupportsIndex | None = None) -> NDArray[Any]:
        """Return the mean as an array.

        Args:
            dtype: float32, float64, int32 or int64; None means the config's own.
            threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle. The result is the
                same for any number.

        Returns:
            One dimension. Floats are within one unit in the last place of the exact fraction (two for float64), integers
            are the fraction truncated towards zero. A value beyond the type by no more than the masking error becomes the
            nearest finite value.

        Raises:
            UnmaskError: a value farther outside the type (reason "out_of_range").
            ModelError: another dtype.
            ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
        """
        target = self.config.vect.data_type.dtype if dtype is None else as_dtype(dtype)
        if target not in [data_type.dtype for data_type in DataType]:
            raise ModelError(f"dtype: expected float32, float64, int32 or int64, got {target}")
        return parallel.unmask(self._total, self._mask, self._decoding(target), target, threads)

    def iter_arrays(self) -> Iterator[NDArray[Any]]:
        """Yield the mean in the config's own data type in pieces, which joined are `to_array()`; never whole in memory.

        Raises:
            UnmaskError: as `to_array`.
        """
        dtype = self.config.vect.data_type.dtype
        decoding = self._decoding(dtype)
        for start in range(0, len(self), PIECE_LENGTH):
            piece = slice(start, start + PIECE_LENGTH)
            yield kernels.unmask(self._total[:, piece], self._mask[piece], decoding, dtype)

    def validate(self, *, threads: SupportsIndex | None = None) -> None:
        """Check that every weight is representable in the config's own data type; at most one pass over the model.

        A wrong mask, or one dishonest update, can lead to weights that cannot.

        Args:
            threads: as in `to_array`.

        Raises:
            UnmaskError: a weight is outside the type by more than the masking error (reason "out_of_range").
        """
        dtype = self.config.vect.data_type.dtype
        decoding = self._decoding(dtype)

        def look(part: slice) -> None:
            for start in range(part.start, part.stop, PIECE_LENGTH):
                piece = slice(start, min(start + PIECE_LENGTH, part.stop))
                kernels.unmask(self._total[:, piece], self._mask[piece], decoding, dtype)

        if (decoding.lowest, decoding.highest) != (0, decoding.order - 1):
            parallel.split(look, len(self), threads)

    @classmethod
    def from_elements(
        cls, config: MaskConfigPair, model_count: int, scalar_sum: Fraction, elements: kernels.Packed
    ) -> GlobalModel:
        """Make the global model whose `iter_elements` gave these elements, packed.

        Raises:
            AggregationError: an element is not below the order.
        """
        total = kernels.new_total(len(elements), config.vect.order)
        kernels.aggregate(total, [elements], config.vect.order)
        # Nobody writes to these zeros, so the system keeps them in one page.
        return cls(config, model_count, scalar_sum, total, np.zeros(elements.shape, dtype=np.uint8))

    def iter_elements(self) -> Iterator[kernels.Packed]:
        """Yield the unmasked elements in pieces, packed: with the other attributes, all that there is to know of the model."""
        for start in range(0, len(self), PIECE_LENGTH):
            piece = slice(start, start + PIECE_LENGTH)
            yield kernels.unmask_elements(self._total[:, piece], self._mask[piece], self.config.vect.order)

    def to_fractions(self) -> list[Fraction]:
        """Return the mean exactly, as Python fractions in lowest terms: for checks on small models."""
        decoding = self._decoding(None)
        elements = kernels.unmask_elements(self._total, self._mask, decoding.order)
        return [
            Fraction((int.from_bytes(row.tobytes(), "little") - decoding.offset) * decoding.numerator, decoding.denominator)
            for row in elements
        ]

    @property
    def masking_error(self) -> Fraction:
        """How far below the exact mean a weight may lie, the rounding of the scalars aside (spec 3.7)."""
        return self.model_count / (self.config.vect.exp_shift * self.scalar_sum)

    @property
    def has_float_fractions(self) -> bool:
        """Whether the published fractions are those of the nearest floats.

        So it is for F32 and F64 with Bmax, be it the model's or the scalar's: real xaynet clients never return from
        converting an exact fraction whose two numbers both exceed their float type (spec 3.8 and 13).
        """
        is_float = self.config.vect.data_type in (DataType.F32, DataType.F64)
        return is_float and BoundType.BMAX in (self.config.vect.bound_type, self.config.unit.bound_type)

    def iter_bincode(self, float_fractions: bool | None = None) -> Iterator[bytes]:
        """Yield the body of `GET /model` (spec 5.6) in pieces; it is never whole in memory.

        Args:
            float_fractions: publish each weight as the exact fraction of its nearest float; None means where
                `has_float_fractions` says so.
        """
        yield len(self).to_bytes(8, "little")
        use_floats = self.has_float_fractions if float_fractions is None else float_fractions
        encode = self._encode_floats if use_floats else self._encode_fractions
        for start in range(0, len(self), BINCODE_PIECE_LENGTH):
            yield from encode(slice(start, start + BINCODE_PIECE_LENGTH))

    def _encode_fractions(self, piece: slice) -> Iterator[bytes]:
        decoding = self._decoding(None)
        elements = kernels.unmask_elements(self._total[:, piece], self._mask[piece], decoding.order)
        # Both numbers of a fraction in lowest terms are at most these, whatever the element.
        widest = (max(decoding.offset, decoding.order) * decoding.numerator).bit_length() + decoding.denominator.bit_length()
        output = np.empty(len(elements) * (_FRACTION_OVERHEAD_BYTES + 8 + widest // 8), dtype=np.uint8)
        used, done = kernels.encode_fractions(output, elements, decoding)
        assert done == len(elements), "the buffer was sized for the widest fractions"
        yield output[:used].tobytes()

    def _encode_floats(self, piece: slice) -> Iterator[bytes]:
        values = self._floats(piece)
        # The widest: 2^1023 over 1, or 1 over 2^1074.
        output = np.empty(len(values) * (_FRACTION_OVERHEAD_BYTES + 4 * 36), dtype=np.uint8)
        used, done = kernels.encode_floats(output, values)
        assert done == len(values), "the buffer was sized for the widest floats"
        yield output[:used].tobytes()

    def _floats(self, piece: slice) -> NDArray[Any]:
        dtype = self.config.vect.data_type.dtype
        if dtype.kind != "f":
            dtype = np.dtype(np.float64)
        return kernels.unmask(self._total[:, piece], self._mask[piece], self._decoding(dtype), dtype)

    def _decoding(self, dtype: np.dtype[Any] | None) -> kernels.Decoding:
        """Return how differences become weights: (d - n A E) / (E scalar_sum), and which are in range for a data type."""
        vect = self.config.vect
        step = 1 / (vect.exp_shift * self.scalar_sum)
        offset = self.model_count * vect.add_shift * vect.exp_shift
        lowest, highest = 0, vect.order - 1
        if dtype is not None and dtype.kind in "fi":
            least, greatest = self._bounds(dtype, step)
            lowest = min(max(lowest, offset + math.ceil(least / step)), vect.order)
            highest = max(min(highest, offset + math.floor(greatest / step)), 0)
        return kernels.Decoding(vect.order, offset, step.numerator, step.denominator, lowest, highest)

    def _bounds(self, dtype: np.dtype[Any], step: Fraction) -> tuple[Fraction, Fraction]:
        """Return the least and greatest value that may become a value of the type: its range and the masking error."""
        if dtype.kind == "f":
            greatest = Fraction(float(np.finfo(dtype).max))
            least = -greatest
        else:
            least, greatest = Fraction(int(np.iinfo(dtype).min)), Fraction(int(np.iinfo(dtype).max))
        # |mean| <= M, and a scalar_sum up to n / E1 too low, give |value| <= M + (M n / E1 + n / E) / scalar_sum.
        lost_scalar = Fraction(self.model_count, self.config.unit.exp_shift)
        error = self.masking_error + -least * lost_scalar / self.scalar_sum
        if dtype.kind == "i":
            # Less than one beyond an integer type is truncated into it; values are multiples of 1 / step.denominator.
            error = max(error, 1 - Fraction(1, step.denominator))
        return least - error, greatest + error


def as_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return what a dtype was given as.

    Raises:
        ModelError: NumPy knows no such dtype.
    """
    try:
        return np.dtype(dtype)
    except TypeError:
        raise ModelError(f"dtype: expected one that NumPy knows, got {shown_value(dtype)}") from None
