"""Adding masked models and unmasking their sum (docs/spec/pet.md 3.6 and 3.7): the coordinator's half of the arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Final, Self, SupportsIndex

from pet.buffers import Buffer
from pet.errors import AggregationError, ModelError, StateError, UnmaskError
from pet.field_config import FieldConfig
from pet.field_model import FieldModel
from pet.global_model import GlobalModel
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_object import Mask, MaskedModel, validate_count
from pet.packed_object import resolve_piece, validate_length
from pet.totals import FieldTotal, PlaneTotal

_MAGIC: Final = b"pet aggregation 1\n"
#: Begins those of pet-1, where the number of seeds follows that of models.
_FIELD_MAGIC: Final = b"pet aggregation 2\n"
_COUNT_BYTES: Final = 8
#: Stands for a number of seeds that is not known.
_UNKNOWN_COUNT: Final = 2**64 - 1


class Aggregation:
    """The running sum of masked models.

    Memory: the total, 8 bytes per weight and 64-bit plane, or an element per weight with a config of pet-1, whatever the number
    of models. Not to be used from two threads at once; the additions release the GIL.

    Attributes:
        config: the mask configs.
        count: how many models were added.
        seed_count: how many seeds' masks hide the sum (parts counted); None if that is not known of one of the models.

    Args:
        config: mask config, or a pair.
        length: number of weights of every model.

    Raises:
        ConfigError: neither a MaskConfig nor a MaskConfigPair.
        ModelError: the length is no whole number of 0 or more.
    """

    def __init__(self, config: MaskConfig | MaskConfigPair, length: int) -> None:
        self.config: Final = MaskConfigPair.of(config)
        #: Equal to it: that of the last model that fit, as all that are read from messages have the same object.
        self._fitting_config = self.config
        validate_length(length)
        self.count = 0
        self.seed_count: int | None = 0
        kind = FieldTotal if isinstance(self.config.vect, FieldConfig) else PlaneTotal
        self._total: FieldTotal | PlaneTotal = kind(length, self.config.vect.order)
        self._unit = 0

    def __len__(self) -> int:
        return len(self._total)

    def __repr__(self) -> str:
        return f"Aggregation({self.config.vect}, length={len(self)}, count={self.count})"

    def prepare(self) -> None:
        """Touch the memory of an empty total, so that the first model need not: fresh pages cost more than adding to them."""
        if self.count == 0:
            self._total.clear()

    def check(self, masked_model: MaskedModel, count: int = 1) -> None:
        """Check what can be known without a pass over the vector: configs, length, number of models, the unit (spec 3.6).

        Raises:
            ModelError: not a MaskedModel.
            AggregationError: reasons "model_mismatch", "scalar_mismatch", "too_many_models", "too_many_scalars" and
                "invalid_object", in the order of the specification.
        """
        if not isinstance(masked_model, MaskedModel):
            raise ModelError(f"masked model: expected a MaskedModel, got {type(masked_model).__name__}")
        self._check_fit(masked_model.config, len(masked_model), count)
        masked_model.validate_unit()

    def _check_fit(self, config: MaskConfigPair, length: int, count: int) -> None:
        if config is not self._fitting_config:  # comparing them takes longer than all the rest
            if config.vect != self.config.vect:
                raise AggregationError("model_mismatch", f"expected {self.config.vect}, got {config.vect}")
            if config.unit != self.config.unit:
                raise AggregationError("scalar_mismatch", f"expected {self.config.unit}, got {config.unit}")
            self._fitting_config = config
        if length != len(self):
            raise AggregationError("model_mismatch", f"expected {len(self)} weights, got {length}")
        validate_count(self.config, self.count + count)

    def add(self, masked_model: MaskedModel, *, threads: SupportsIndex | None = None) -> None:
        """Add one masked model; its elements are checked on the way.

        Args:
            masked_model: what to add.
            threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle.

        Raises:
            AggregationError: as `check`, and "invalid_object" for an element that is not below the order; nothing has changed.
            ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
        """
        self.check(masked_model)
        self._total.add([masked_model.vect], threads)
        self._count(masked_model, 1, masked_model.seed_count)

    def add_many(self, masked_models: Iterable[MaskedModel], *, threads: SupportsIndex | None = None) -> None:
        """Add several masked models, up to eight in one pass over the total; all of them or, on an error, none.

        Args:
            masked_models: what to add.
            threads: as `add`.

        Raises:
            ModelError: not several, or one is no MaskedModel.
            AggregationError: as `add`; nothing has changed.
            ConfigError: as `add`.
        """
        if not isinstance(masked_models, Iterable):
            raise ModelError(f"masked models: expected several, got {type(masked_models).__name__}")
        listed = list(masked_models)
        for masked_model in listed:
            self.check(masked_model, len(listed))
        self._total.add([masked_model.vect for masked_model in listed], threads)
        for masked_model in listed:
            self._count(masked_model, 1, masked_model.seed_count)

    def subtract(self, masked_model: MaskedModel, *, threads: SupportsIndex | None = None) -> None:
        """Take a masked model out again that was added before.

        Args:
            masked_model: what to take out.
            threads: as `add`.

        Raises:
            AggregationError: as `check`; "invalid_object" for an invalid element; "no_model" if nothing was added.
            ConfigError: as `add`.
        """
        if self.count == 0:
            raise AggregationError("no_model", "expected an aggregation with at least one model, got an empty one")
        self.check(masked_model, 0)
        self._total.subtract(masked_model.vect, threads)
        self._unit = (self._unit - masked_model.unit) % self.config.unit.order
        self.count -= 1
        if self.count == 0:
            self.seed_count = 0
        elif self.seed_count is not None:
            self.seed_count = None if masked_model.seed_count is None else max(0, self.seed_count - masked_model.seed_count)

    def merge(self, other: Aggregation, *, threads: SupportsIndex | None = None) -> None:
        """Add everything that another aggregation holds, in place; the other stays as it is.

        Args:
            other: what to add.
            threads: as `add`.

        Raises:
            ModelError: not an Aggregation.
            AggregationError: as `check`; nothing has changed.
            ConfigError: as `add`.
        """
        if not isinstance(other, Aggregation):
            raise ModelError(f"aggregation: expected an Aggregation, got {type(other).__name__}")
        self._check_fit(other.config, len(other), other.count)
        if other.count == 0:
            return
        self._total.merge(other._total, threads)  # type: ignore[arg-type]  # of the same kind, as the configs are the same
        self._count(other, other.count, other.seed_count)

    def _count(self, added: MaskedModel | Aggregation, count: int, seed_count: int | None) -> None:
        unit = added._unit if isinstance(added, Aggregation) else added.unit
        self._unit = (self._unit + unit) % self.config.unit.order
        self.count += count
        self.seed_count = None if self.seed_count is None or seed_count is None else self.seed_count + seed_count

    def __getitem__(self, piece: slice) -> Aggregation:
        """Return the aggregation of a range of the weights, a copy: unmasked with the same range of the mask, `mask[a:b]`.

        Raises:
            ModelError: not a slice, or one with a step.
        """
        own = resolve_piece(piece, len(self))
        taken = Aggregation(self.config, own.stop - own.start)
        taken._total = self._total.copy(own)
        taken._unit, taken.count, taken.seed_count = self._unit, self.count, self.seed_count
        return taken

    def to_masked_model(self) -> MaskedModel:
        """Return the sum as a masked model of its own."""
        return MaskedModel(self.config, self._total.pack(), self._unit, seed_count=self.seed_count)

    def to_bytes(self) -> bytes:
        """Serialise the sum and the count, for another process to merge."""
        return b"".join(self.to_parts())

    def to_parts(self) -> list[Buffer]:
        """Return the bytes of `to_bytes()` as buffers in order, which stay what they are when the aggregation grows."""
        count = self.count.to_bytes(_COUNT_BYTES, "little")
        head = _MAGIC + count
        if isinstance(self.config.vect, FieldConfig):
            seed_count = _UNKNOWN_COUNT if self.seed_count is None else self.seed_count
            head = _FIELD_MAGIC + count + seed_count.to_bytes(_COUNT_BYTES, "little")
        return [head, *self.to_masked_model().to_parts()]

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
        magic = bytes(data[: len(_MAGIC)])
        counts = 2 if magic == _FIELD_MAGIC else 1
        start = len(_MAGIC) + counts * _COUNT_BYTES
        if len(data) < start or magic not in (_MAGIC, _FIELD_MAGIC):
            raise StateError("expected bytes of Aggregation.to_bytes, got others")
        masked_model = MaskedModel.from_bytes(data[start:])
        if isinstance(masked_model.config.vect, FieldConfig) != (magic == _FIELD_MAGIC):
            raise StateError(f"expected a config of the kind that the first line says, got {masked_model.config.vect}")
        count = int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + _COUNT_BYTES], "little")
        seed_count = int.from_bytes(data[start - _COUNT_BYTES : start], "little")
        aggregation = cls(masked_model.config, len(masked_model))
        validate_count(aggregation.config, count)
        masked_model.validate_unit()
        aggregation._total.add([masked_model.vect], None)
        aggregation._unit = masked_model.unit
        aggregation.count = count
        aggregation.seed_count = None if magic == _MAGIC or seed_count == _UNKNOWN_COUNT else seed_count
        return aggregation

    def unmask(self, mask: Mask, *, threads: SupportsIndex | None = None) -> GlobalModel:
        """Take the sum of the masks off the sum of the masked models (spec 3.7).

        Nothing is computed per weight but the check of the mask: the global model reads total and mask when it is asked. With a
        config of pet-1 the mask is taken off here. The aggregation may go on growing; the global model stays what it is.

        Args:
            mask: the sum of the masks.
            threads: how many threads may check it; None means PET_THREADS, else all cores that pet leaves idle.

        Raises:
            ModelError: not a Mask.
            UnmaskError: reasons "no_model", "model_mismatch", "scalar_mismatch", "seed_count_mismatch" (where both numbers of
                seeds are known), "invalid_mask", "zero_scalar_sum", "negative_scalar_sum"; with a config of pet-1
                "total_out_of_range" and "no_weight" in place of the last two.
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
        if None not in (self.seed_count, mask.seed_count) and self.seed_count != mask.seed_count:
            raise UnmaskError("seed_count_mismatch", f"mask: expected one of {self.seed_count} seeds, got {mask.seed_count}")
        try:
            if isinstance(self._total, FieldTotal):
                mask.validate_unit()
                unit = (self._unit - mask.unit) % self.config.unit.order
                return FieldModel(self.config, self.count, self._total.without(mask.vect, threads), unit, threads)
            mask.validate(threads=threads)
        except AggregationError as error:
            raise UnmaskError("invalid_mask", f"mask: {error}") from None
        return GlobalModel(self.config, self.count, self._unmask_scalar_sum(mask), self._total.share(threads), mask.vect)

    def _unmask_scalar_sum(self, mask: Mask) -> Fraction:
        unit = self.config.unit
        steps = (self._unit - mask.unit) % unit.order - self.count * unit.add_shift * unit.exp_shift
        if steps <= 0:
            # Scalars are not negative, so a negative sum means a wrong mask; zero leaves no mean to take.
            reason = "zero_scalar_sum" if steps == 0 else "negative_scalar_sum"
            raise UnmaskError(reason, "the sum of the scalars: expected more than 0, got " + ("0" if steps == 0 else "less"))
        return Fraction(steps, unit.exp_shift)
