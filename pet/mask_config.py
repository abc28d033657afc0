"""Mask configs: which group a model is masked in, and the numbers that follow from the choice.

A mask config is four choices (group, data, bound and model type), one of them the ways of xaynet; everything else is arithmetic
on them. Other derivations are subclasses with a prefix (pet/field_config.py); `parse` and `for_data` know all that are loaded,
which `import pet` sees to. This file knows numbers only, not how a mask is made (pet/masking.py) or sent (pet/mask_codec.py).

Source: docs/spec/pet.md 2.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, SupportsIndex

import numpy as np

from pet import _orders
from pet.errors import ConfigError
from pet.mask_choices import (
    BOUNDS,
    EXPONENTS,
    MANTISSA_BITS,
    UNBOUNDED,
    UNBOUNDED_EXPONENTS,
    WIRE_CODES,
    BoundType,
    DataType,
    GroupType,
    ModelType,
    Requirements,
    short_number,
)

__all__ = [
    "BoundType",
    "DataType",
    "GroupType",
    "MaskConfig",
    "MaskConfigPair",
    "ModelType",
]


@dataclass(frozen=True)
class MaskConfig:
    """How a model is masked: one of xaynet's 240 ways (docs/spec/pet.md 2), or a `FieldConfig` of pet-1 (pet/field_config.py).

    Attributes:
        group_type: which kind of order the group has.
        data_type: type of the weights.
        bound_type: largest absolute value of a scaled weight.
        model_type: largest number of models in one aggregation.
    """

    group_type: GroupType
    data_type: DataType
    bound_type: BoundType
    model_type: ModelType

    # No slots: the numbers below are computed once, and kept in the object.

    #: What begins the written form of a subclass.
    PREFIX: ClassVar[str] = ""
    #: Whether the unit is masked by itself, so that its config may be another (`MaskConfigPair`).
    HAS_OWN_UNIT: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for value, kind in zip(
            (self.group_type, self.data_type, self.bound_type, self.model_type),
            (GroupType, DataType, BoundType, ModelType),
            strict=True,
        ):
            if not isinstance(value, kind):
                raise ConfigError(f"{kind.label()}: expected a {kind.__name__}, got {value!r}")

    @classmethod
    def parse(cls, text: str) -> MaskConfig:
        """Read a config written as "prime-f32-b0-m3" or "pet-1/z32,f32,bound=1,models=1000", the forms that `str` gives.

        Upper and lower case are the same. Those that begin with "pet-1/" are described at `FieldConfig`.

        Raises:
            ConfigError: not four known names joined with "-", and not a config of pet-1.
        """
        for form in MaskConfig.forms()[1:]:
            if isinstance(text, str) and text.lower().startswith(form.PREFIX):
                return form.parse(text)
        parts = text.split("-") if isinstance(text, str) else []
        if len(parts) != 4:
            raise ConfigError(f"mask config: expected group-data-bound-model as in prime-f32-b0-m3, got {text!r}")
        group, data, bound, model = parts
        return cls(GroupType.parse(group), DataType.parse(data), BoundType.parse(bound), ModelType.parse(model))

    @classmethod
    def for_data(
        cls,
        *,
        bound: float | Fraction,
        models: SupportsIndex,
        precision: float | Fraction,
        scalar_sum: float | Fraction | None = None,
        data_type: DataType | None = None,
        xaynet: bool = False,
    ) -> MaskConfig:
        """Return the cheapest config for weights that are floats: least keystream, then fewest bytes on the wire.

        Args:
            bound: largest absolute value of a weight, and of scalar * weight; for a config of xaynet, of the scalar, too.
            models: most models that are ever aggregated in one round.
            precision: largest error of a weight of the global model that is acceptable.
            scalar_sum: smallest sum of the scalars of a round; None means `models`, as if each were 1.
            data_type: F32 or F64; None means either.
            xaynet: take one of xaynet's 240 configs, which all that speak PET know.

        Raises:
            ConfigError: a number that is not above 0, or demands that no config meets.
        """
        if data_type is not None and data_type not in MANTISSA_BITS:
            raise ConfigError(f"data type: expected f32 or f64, got {data_type!r}")
        wanted = Requirements.of(bound, models, precision, scalar_sum, data_type)
        fit = [config for form in MaskConfig.forms(xaynet=xaynet) for config in form.candidates(wanted) if config.meets(wanted)]
        if not fit:
            raise ConfigError(
                f"mask config: expected a bound, models and precision that one of them has, got bound "
                f"{short_number(wanted.bound)}, {wanted.model_count} models and precision {short_number(wanted.precision)}"
            )
        return min(fit, key=lambda config: config.cost)

    @staticmethod
    def forms(*, xaynet: bool = False) -> list[type[MaskConfig]]:
        """Return the classes of mask configs: xaynet's, then, unless it alone is asked for, those of other derivations."""
        return [MaskConfig] if xaynet else [MaskConfig, *MaskConfig.__subclasses__()]

    @classmethod
    def candidates(cls, wanted: Requirements) -> list[MaskConfig]:
        """Return the configs of a derivation that could do for a task; whether they do, `meets` says.

        An integer group that costs what the prime group just above it costs is left out: it would add nothing.
        """
        choices = itertools.product(GroupType, wanted.data_types, BoundType, ModelType)
        return [config for config in itertools.starmap(MaskConfig, choices) if not _is_twin_of_prime(config)]

    def __str__(self) -> str:
        return "-".join(choice.value for choice in (self.group_type, self.data_type, self.bound_type, self.model_type))

    @functools.cached_property
    def wire_code(self) -> bytes:
        """The four bytes that stand for the config in messages (docs/spec/pet.md 2.1).

        Raises:
            ConfigError: a config of pet-1 has none.
        """
        choices = self.group_type, self.data_type, self.bound_type, self.model_type
        return bytes(WIRE_CODES[choice] for choice in choices)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the weights."""
        return self.data_type.dtype

    @functools.cached_property
    def order(self) -> int:
        """The number of elements of the group: elements are integers in [0, order)."""
        return _order(self)

    @functools.cached_property
    def add_shift(self) -> int:
        """A: the largest absolute value of a scaled weight, added before encoding to make it non-negative."""
        if self.bound_type is BoundType.BMAX:
            return UNBOUNDED[self.data_type]
        return BOUNDS[self.bound_type]

    @functools.cached_property
    def exp_shift(self) -> int:
        """E: steps per unit. A weight is encoded as floor((weight + A) * E)."""
        exponents = UNBOUNDED_EXPONENTS if self.bound_type is BoundType.BMAX else EXPONENTS
        return int(10 ** exponents[self.data_type])

    @functools.cached_property
    def max_model_count(self) -> int:
        """How many models may be aggregated before a sum could leave the group."""
        return int(10 ** int(self.model_type.value[1:]))

    @functools.cached_property
    def element_bytes(self) -> int:
        """Bytes of one element on the wire: as many as order - 1 needs."""
        return _byte_length(self.order - 1)

    @functools.cached_property
    def draw_bytes(self) -> int:
        """Bytes that one attempt draws from the keystream: as many as the order itself needs.

        One more than `element_bytes` where the order is a power of 256.
        """
        return _byte_length(self.order)

    @functools.cached_property
    def keystream_bytes_per_draw(self) -> int:
        """Keystream that one attempt uses up: `draw_bytes` rounded up to whole 32-bit words (spec 3.1)."""
        return 4 * -(-self.draw_bytes // 4)

    @functools.cached_property
    def mean_keystream_bytes(self) -> float:
        """Mean keystream bytes per element, rejected attempts included: what a mask costs."""
        return self.keystream_bytes_per_draw * float(256**self.draw_bytes / self.order)

    @property
    def cost(self) -> tuple[float, int, str]:
        """What configs are compared by: keystream of a mask, then bytes on the wire; the name, so that one is the first."""
        return self.mean_keystream_bytes, self.element_bytes, str(self)

    @property
    def largest_value(self) -> Fraction:
        """The largest absolute value of scalar * weight that is not clipped."""
        return Fraction(self.add_shift)

    def mean_error(self, wanted: Requirements) -> Fraction:
        """Return a bound on what masking and the data type do to a weight of the global model (docs/spec/pet.md 3.7).

        Each of n models loses less than one step 1/E to the floor, as does each scalar; integers are truncated at the end.
        """
        floors = Fraction(wanted.model_count, self.exp_shift) / wanted.scalar_sum
        if self.data_type in MANTISSA_BITS:
            return floors + Fraction(wanted.bound, 2 ** MANTISSA_BITS[self.data_type])
        return floors + 1

    def meets(self, wanted: Requirements) -> bool:
        """Return whether a config is good enough for a task."""
        return (
            self.max_model_count >= wanted.model_count
            and self.largest_value >= wanted.bound
            and self.mean_error(wanted) <= wanted.precision
        )


@dataclass(frozen=True, slots=True)
class MaskConfigPair:
    """The mask config of the model's vector and that of its scalar (the "unit").

    The two are separate on the wire; xaynet's coordinator sets both to the same (spec 2.5).
    """

    vect: MaskConfig
    unit: MaskConfig

    def __post_init__(self) -> None:
        for name, config in (("vect", self.vect), ("unit", self.unit)):
            if not isinstance(config, MaskConfig):
                raise ConfigError(f"MaskConfigPair.{name}: expected a MaskConfig, got {config!r}")
        if self.vect != self.unit and not (self.vect.HAS_OWN_UNIT and self.unit.HAS_OWN_UNIT):
            raise ConfigError(f"expected the same config of pet-1 for vector and unit, got {self.vect} and {self.unit}")

    @classmethod
    def of(cls, config: MaskConfig | MaskConfigPair) -> MaskConfigPair:
        """Return a pair as it is; make one of a single config by using it for both parts.

        Raises:
            ConfigError: neither a MaskConfig nor a MaskConfigPair.
        """
        if isinstance(config, MaskConfigPair):
            return config
        if isinstance(config, MaskConfig):
            return cls(vect=config, unit=config)
        raise ConfigError(f"mask config: expected a MaskConfig or a MaskConfigPair, got {config!r}")

    @property
    def max_model_count(self) -> int:
        """How many models both parts allow in one aggregation."""
        return min(self.vect.max_model_count, self.unit.max_model_count)


def _is_twin_of_prime(config: MaskConfig) -> bool:
    prime = MaskConfig(GroupType.PRIME, config.data_type, config.bound_type, config.model_type)
    own, others = (config.draw_bytes, config.element_bytes), (prime.draw_bytes, prime.element_bytes)
    return config.group_type is GroupType.INTEGER and own == others


def _byte_length(value: int) -> int:
    return -(-value.bit_length() // 8)


@functools.cache
def _order(config: MaskConfig) -> int:
    """Find the order of a config's group by the rules of pet/_orders.py."""
    data, bound, model = config.data_type.value, config.bound_type.value, config.model_type.value
    is_unbounded = config.bound_type is BoundType.BMAX
    steps = config.exp_shift * config.max_model_count
    if config.group_type is GroupType.POWER2:
        # The power-of-two literals come from the exact bound; the others, where unbounded, do not.
        return 1 << (2 * config.add_shift * steps).bit_length()
    if config.group_type is GroupType.PRIME and is_unbounded and config.data_type is DataType.F64:
        return _orders.F64_BMAX_PRIMES[model]
    span = _orders.UNBOUNDED_SPANS[data] if is_unbounded else 2 * config.add_shift
    if config.group_type is GroupType.INTEGER:
        return span * steps + 1
    model_index = list(ModelType).index(config.model_type)
    return span * steps + _orders.PRIME_OFFSETS[data, bound][model_index]
