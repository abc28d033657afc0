"""Adding masked models and unmasking their sum (docs/spec/pet.md 3.6 and 3.7): the coordinator's half of the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final, Self, SupportsIndex

from pet import kernels, parallel
from pet.buffers import Buffer
from pet.errors import AggregationError, ModelError, StateError, UnmaskError
from pet.global_model import GlobalModel
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_object import Mask, MaskedModel, validate_count, validate_length

_MAGIC: Final = b"pet aggregation 1\n"
_COUNT_BYTES: Final = 8
#: How many vectors one pass over the total adds: enough that the total's own traffic is small beside theirs.
_VECTORS_PER_PASS: Final = 8


class Aggregation:
    """The running sum of masked models.

    Memory: the total, 8 bytes per weight and 64-bit plane, whatever the number of models. Not to be used from two threads
    at once; the additions release the GIL.

    Args:
        config: mask config, or a pair.
        length: number of weights of every model.

    Raises:
        ConfigError: neither a MaskConfig nor a MaskConfigPair.
        ModelError: the length is no whole number of 0 or more.
    """

    def __init__(self, config: MaskConfig | MaskConfigPair, length: int) -> None:
        self.config: Final = MaskConfigPair.of(config)
        validate_length(length)
        self.count = 0
        self._total = kernels.new_total(length, self.config.vect.order)
        self._unit = 0
        # Every value of the total is below _bound * order; 1 once it is reduced.
        self._bound = 1
        # A global model reads the total where it lies; the next change makes a copy first.
        self._is_shared = False

    def __len__(self) -> int:
        return int(self._total.shape[1])

    def __repr__(self) -> str:
        return f"Aggregation({self.config.vect}, length={len(self)}, count={self.count})"

    def prepare(self) -> None:
        """Touch the memory of an empty total, so that the first model need not: fresh pages cost more than adding to them."""
        if self.count == 0:
            self._own_total()
            self._total.fill(0)

    def check(self, masked_model: MaskedModel, count: int = 1) -> None:
        """Check what can be known without a pass over the vector: configs, length, number of models, the unit (spec 3.6).

        Raises:
            ModelError: not a MaskedModel.
            AggregationError: reasons "model_mismatch", "scalar_mismatch", "too_many_models", "too_many_scalars" and
                "invalid_object", in the order of the specification.
        """
        if not isinstance(masked_model, MaskedModel):
            raise ModelError(f"masked model: expected a MaskedModel, got {type(masked_model).__name__}")
        if masked_model.config.vect != self.config.vect:
            raise AggregationError("model_mismatch", f"expected {self.config.vect}, got {masked_model.config.vect}")
        if masked_model.config.unit != self.config.unit:
            raise AggregationError("scalar_mismatch", f"expected {self.config.unit}, got {masked_model.config.unit}")
        if len(masked_model) != len(self):
            raise AggregationError("model_mismatch", f"expected {len(self)} weights, got {len(masked_model)}")
        validate_count(self.config, self.count + count)
        masked_model.validate_unit()

    def add(self, masked_model: MaskedModel, *, threads: SupportsIndex | None = None) -> None:
        """Add one masked model; its elements are checked on the way.

        Args:
            masked_model: what to add.
            threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle.

        Raises:
            AggregationError: as `check`, and "invalid_object" for an element that is not below the order; nothing has changed.
            ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
        """
        self.add_many([masked_model], threads=threads)

    def add_many(self, masked_models: Sequence[MaskedModel], *, threads: SupportsIndex | None = None) -> None:
        """Add several masked models, up to eight in one pass over the total; all of them or, on an error, none.

        Args:
            masked_models: what to add.
            threads: as `add`.

        Raises:
            AggregationError: as `add`; nothing has changed.
            ConfigError: as `add`.
        """
        for masked_model in masked_models:
            self.check(masked_model, len(masked_models))
        if len(masked_models) > self._batch_length():
            # Several passes: an invalid element must show before the first.
            for masked_model in masked_models:
                masked_model.validate(threads=threads)
        self._own_total()
        order = self.config.vect.order
        for start in range(0, len(masked_models), self._batch_length()):
            batch = masked_models[start : start + self._batch_length()]
            if self._bound + len(batch) > kernels.capacity(order):
                self._reduce(threads)
            parallel.aggregate(self._total, [masked_model.vect for masked_model in batch], order, threads)
            self._bound += len(batch)
        self._unit = (self._unit + sum(masked_model.unit for masked_model in masked_models)) % self.config.unit.order
        self.count += len(masked_models)

    def subtract(self, masked_model: MaskedModel) -> None:
        """Take a masked model out again that was added before.

        Raises:
            AggregationError: as `check`; "invalid_object" for an invalid element; "no_model" if nothing was added.
        """
        if self.count == 0:
            raise AggregationError("no_model", "expected an aggregation with at least one model, got an empty one")
        self.check(masked_model, 0)
        masked_model.validate()
        self._own_total()
        self._reduce()
        kernels.subtract(self._total, masked_model.vect, self.config.vect.order)
        self._unit = (self._unit - masked_model.unit) % self.config.unit.order
        self.count -= 1

    def merge(self, other: Aggregation) -> None:
        """Add everything that another aggregation holds; the other stays as it is.

        Raises:
            AggregationError: as `check`; nothing has changed.
        """
        if other.count == 0:
            return
        sum_of_other = other.to_masked_model()
        self.check(sum_of_other, other.count)
        self._own_total()
        if self._bound + 1 > kernels.capacity(self.config.vect.order):
            self._reduce()
        kernels.aggregate(self._total, [sum_of_other.vect], self.config.vect.order)
        self._bound += 1
        self._unit = (self._unit + sum_of_other.unit) % self.config.unit.order
        self.count += other.count

    def to_masked_model(self) -> MaskedModel:
        """Return the sum as a masked model of its own."""
        self._reduce()
        return MaskedModel(self.config, kernels.pack(self._total, self.config.vect.order), self._unit)

    def to_bytes(self) -> bytes:
        """Serialise the sum and the count, for another process to merge."""
        return b"".join(self.to_parts())

    def to_parts(self) -> list[Buffer]:
        """Return the bytes of `to_bytes()` as buffers in order, which stay what they are when the aggregation grows."""
        return [_MAGIC + self.count.to_bytes(_COUNT_BYTES, "little"), *self.to_masked_model().to_parts()]

    @classmethod
    def from_bytes(cls, data: Buffer) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            StateError: it does not start as an aggregation does, or the sum or the count in it is malformed or invalid.
        """
        with StateError.reading("aggregation"):
            return cls._decode(memoryview(data).cast("B"))

    @classmethod
    def _decode(cls, data: memoryview) -> Self:
        start = len(_MAGIC) + _COUNT_BYTES
        if len(data) < start or bytes(data[: len(_MAGIC)]) != _MAGIC:
            raise StateError("expected bytes of Aggregation.to_bytes, got others")
        masked_model = MaskedModel.from_bytes(data[start:])
        masked_model.validate()
        aggregation = cls(masked_model.config, len(masked_model))
        count = int.from_bytes(data[len(_MAGIC) : start], "little")
        validate_count(aggregation.config, count)
        kernels.aggregate(aggregation._total, [masked_model.vect], aggregation.config.vect.order)
        aggregation._unit = masked_model.unit
        aggregation.count = count
        return aggregation

    def unmask(self, mask: Mask, *, threads: SupportsIndex | None = None) -> GlobalModel:
        """Take the sum of the masks off the sum of the masked models (spec 3.7).

        Nothing is computed per weight but the check of the mask: the global model reads total and mask when it is asked. The
        aggregation may go on growing; the global model stays what it is.

        Args:
            mask: the sum of the masks.
            threads: how many threads may check it; None means PET_THREADS, else all cores that pet leaves idle.

        Raises:
            ModelError: not a Mask.
            UnmaskError: reasons "no_model", "model_mismatch", "scalar_mismatch", "invalid_mask", "zero_scalar_sum",
                "negative_scalar_sum".
            ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
        """
        if not isinstance(mask, Mask):
            raise ModelError(f"mask: expected a Mask, got {type(mask).__name__}")
        if self.count == 0:
            raise UnmaskError("no_model", "expected at least one masked model, got none")
        if mask.config.vect != self.config.vect or len(mask) != len(self):
            expected, got = f"{self.config.vect} of {len(self)} weights", f"{mask.config.vect} of {len(mask)}"
            raise UnmaskError("model_mismatch", f"mask: expected {expected}, got {got}")
        if mask.config.unit != self.config.unit:
            raise UnmaskError("scalar_mismatch", f"mask: expected {self.config.unit} for the unit, got {mask.config.unit}")
        try:
            mask.validate(threads=threads)
        except AggregationError as error:
            raise UnmaskError("invalid_mask", f"mask: {error}") from None
        scalar_sum = self._unmask_scalar_sum(mask)
        self._reduce(threads)
        self._is_shared = True
        return GlobalModel(self.config, self.count, scalar_sum, self._total, mask.vect)

    def _unmask_scalar_sum(self, mask: Mask) -> Fraction:
        unit = self.config.unit
        steps = (self._unit - mask.unit) % unit.order - self.count * unit.add_shift * unit.exp_shift
        if steps <= 0:
            # Scalars are not negative, so a negative sum means a wrong mask; zero leaves no mean to take.
            reason = "zero_scalar_sum" if steps == 0 else "negative_scalar_sum"
            raise UnmaskError(reason, "the sum of the scalars: expected more than 0, got " + ("0" if steps == 0 else "less"))
        return Fraction(steps, unit.exp_shift)

    def _batch_length(self) -> int:
        return min(_VECTORS_PER_PASS, kernels.capacity(self.config.vect.order) - 1)

    def _reduce(self, threads: SupportsIndex | None = None) -> None:
        if self._bound > 1:
            self._own_total()
            parallel.reduce(self._total, self._bound, self.config.vect.order, threads)
            self._bound = 1

    def _own_total(self) -> None:
        if self._is_shared:
            self._total = self._total.copy()
            self._is_shared = False
