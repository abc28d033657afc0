"""The global model of pet-1: the weighted mean of weights in fixed point, or the exact totals of integers.

Source: docs/spec/profile.md 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pet import kernels, parallel_fields
from pet.errors import ModelError, UnmaskError
from pet.field_config import FieldConfig
from pet.global_model import PIECE_LENGTH, GlobalModel, as_dtype
from pet.mask_choices import FieldValues
from pet.mask_config import MaskConfigPair

#: Bincode of an integer below 2^64 over 1: two signs, two counts of limbs, three limbs.
_INTEGER_FRACTION_BYTES: Final = 2 * 9 + 3 * 4


class FieldModel(GlobalModel):
    """What an aggregation under a config of pet-1 ends with; made by `Aggregation.unmask`.

    With integers it holds totals, not a mean: `to_array()` gives them exactly, `scalar_sum` the total of the weights.

    Args:
        config: mask configs of the round.
        model_count: how many models were added.
        elements: the total without masks, packed.
        unit: the total's unit.
        threads: how many threads may check it.

    Raises:
        UnmaskError: a value that no sum of this number of models can have (reason "total_out_of_range"); the scalars vanish, or
            are fewer than the models (reason "no_weight").
    """

    def __init__(
        self, config: MaskConfigPair, model_count: int, elements: kernels.Packed, unit: int, threads: SupportsIndex | None
    ) -> None:
        field = config.vect
        assert isinstance(field, FieldConfig), "the caller has looked"
        self._field: Final = field
        self._elements: Final = elements
        self._unit: Final = unit
        self._highest: Final = model_count * field.levels
        index = parallel_fields.find_above(elements, self._highest, field.order, threads)
        if index is not None or unit > self._highest:
            which = "the unit" if index is None else f"weight {index}"
            raise UnmaskError(
                "total_out_of_range", f"{which}: expected a total that {model_count} models can have, got more: a wrong mask?"
            )
        is_integer = field.values is FieldValues.INT
        if unit < (model_count if is_integer else 1):
            raise UnmaskError("no_weight", "the sum of the scalars: expected more, got 0 or less than one for each model")
        scalar_sum = Fraction(unit) if is_integer else Fraction(unit, field.levels)
        super().__init__(config, model_count, scalar_sum, np.empty((1, 0), dtype=np.uint64), elements)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the weights: that of the field's config."""
        return self._field.dtype

    def to_array(self, dtype: DTypeLike | None = None, *, threads: SupportsIndex | None = None) -> NDArray[Any]:
        """Return the mean, or the totals of integers, as an array.

        Args:
            dtype: float32 or float64; with integers uint32 or uint64; None means the config's own.
            threads: as everywhere; the result is the same for any number.

        Returns:
            One dimension; the same bits on every machine.

        Raises:
            ModelError: another dtype, or one too small for the totals.
        """
        target = self._field.dtype if dtype is None else as_dtype(dtype)
        if target.kind != self._field.dtype.kind or target.itemsize not in (4, 8) or not target.isnative:
            kind = "uint32 or uint64" if self._field.dtype.kind == "u" else "float32 or float64"
            raise ModelError(f"dtype: expected {kind} with {self._field}, got {target}")
        if target.kind == "u" and target.itemsize < self._field.element_bytes:
            raise ModelError(f"dtype: expected uint64 for the totals of {self._field}, got {target}")
        return self._read(self._elements, target, threads)

    def iter_arrays(self) -> Iterator[NDArray[Any]]:
        """Yield what `to_array()` gives in pieces."""
        for start in range(0, len(self), PIECE_LENGTH):
            yield self._read(self._elements[start : start + PIECE_LENGTH], self._field.dtype, 1)

    @classmethod
    def from_elements(
        cls, config: MaskConfigPair, model_count: int, scalar_sum: Fraction, elements: kernels.Packed
    ) -> FieldModel:
        """Make the model whose `iter_elements` gave these elements, packed.

        Raises:
            UnmaskError: as the class.
        """
        field = config.vect
        assert isinstance(field, FieldConfig), "the caller has looked"
        unit = scalar_sum if field.values is FieldValues.INT else scalar_sum * field.levels
        return cls(config, model_count, np.array(elements), int(unit), None)

    def validate(self, *, threads: SupportsIndex | None = None) -> None:
        """Check nothing: every value was checked when the model was made."""

    def iter_elements(self) -> Iterator[kernels.Packed]:
        """Yield the unmasked elements in pieces, packed."""
        for start in range(0, len(self), PIECE_LENGTH):
            yield self._elements[start : start + PIECE_LENGTH]

    def to_fractions(self) -> list[Fraction]:
        """Return the mean of the encoded weights exactly, or the totals of integers, as fractions in lowest terms."""
        totals = [int.from_bytes(row.tobytes(), "little") for row in self._elements]
        if self._field.values is FieldValues.INT:
            return [Fraction(total) for total in totals]
        bound = Fraction(self._field.bound)
        return [bound * (2 * total - self._highest) / self._unit for total in totals]

    @property
    def masking_error(self) -> Fraction:
        """How far a weight may be from the exact mean of weights within the bound (docs/spec/profile.md 4.1).

        Encoding moves every weight by some steps of 2 * bound / levels, and every scalar by as many of 1 / levels.
        """
        steps = self._field.encoding_steps * self.model_count
        return steps * 3 * Fraction(self._field.bound) / (self._field.levels * self.scalar_sum)

    @property
    def has_float_fractions(self) -> bool:
        """Whether the published fractions are those of the nearest floats; integers are exact."""
        return self._field.values is not FieldValues.INT

    def _encode_fractions(self, piece: slice) -> Iterator[bytes]:
        if self._field.values is not FieldValues.INT:
            raise ModelError(f"fractions: expected those of floats with {self._field}, got a request for others")
        order = self._field.order
        elements = self._elements[piece]
        output = np.empty(len(elements) * _INTEGER_FRACTION_BYTES, dtype=np.uint8)
        used, _ = kernels.encode_fractions(output, elements, kernels.Decoding(order, 0, 1, 1, 0, order - 1))
        yield output[:used].tobytes()

    def _floats(self, piece: slice) -> NDArray[Any]:
        dtype = self._field.dtype if self._field.dtype.kind == "f" else np.dtype(np.float64)
        return self._read(self._elements[piece], self._field.dtype, 1).astype(dtype, copy=False)

    def _read(self, elements: kernels.Packed, dtype: np.dtype[Any], threads: SupportsIndex | None) -> NDArray[Any]:
        field = self._field
        if field.values is FieldValues.INT:
            return elements.reshape(-1).view(f"<u{field.element_bytes}").astype(dtype)
        return parallel_fields.decode(elements, field.bound, self._highest, self._unit, field.order, dtype, threads)
