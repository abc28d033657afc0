"""Mask configs: which group a model is masked in, and the numbers that follow from the choice.

A mask config is four choices (group, data, bound and model type); everything else is arithmetic on them. This file knows
numbers only: neither the four wire bytes of a config (pet/mask_codec.py) nor how a mask is made (pet/masking.py).

Source: docs/spec/pet.md 2.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pet import _orders
from pet.errors import ConfigError


class _NamedChoice(enum.Enum):
    """A choice whose value is the lower-case name used in `MaskConfig.parse`."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Any:
        """Find the member by name, upper or lower case.

        Raises:
            ConfigError: no member has that name.
        """
        try:
            return cls(text.lower())
        except (ValueError, AttributeError):
            known = ", ".join(member.value for member in cls)
            raise ConfigError(f"{cls.label()}: expected one of {known}, got {text!r}") from None

    @classmethod
    def label(cls) -> str:
        """Return the name of the choice for people: "group type" of GroupType."""
        return cls.__name__.replace("Type", " type").lower()


class GroupType(_NamedChoice):
    """Which kind of number the order of the group is."""

    INTEGER = "integer"  # the smallest order that fits
    PRIME = "prime"  # a prime: multiplication is invertible
    POWER2 = "power2"  # a power of two: most draws of the keystream are accepted


class DataType(_NamedChoice):
    """The type of a model's weights."""

    F32 = "f32"
    F64 = "f64"
    I32 = "i32"
    I64 = "i64"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the weights."""
        return np.dtype(_DTYPES[self])


class BoundType(_NamedChoice):
    """The largest absolute value that a scaled weight may have; larger ones are clamped."""

    B0 = "b0"  # 1
    B2 = "b2"  # 100
    B4 = "b4"  # 10 000
    B6 = "b6"  # 1 000 000
    BMAX = "bmax"  # whatever the data type can hold


class ModelType(_NamedChoice):
    """The largest number of models that can be aggregated."""

    M3 = "m3"  # 1000
    M6 = "m6"  # a million
    M9 = "m9"  # 10^9
    M12 = "m12"  # 10^12


_DTYPES: Final = {
    DataType.F32: np.float32,
    DataType.F64: np.float64,
    DataType.I32: np.int32,
    DataType.I64: np.int64,
}
_BOUNDS: Final = {BoundType.B0: 1, BoundType.B2: 10**2, BoundType.B4: 10**4, BoundType.B6: 10**6}
_UNBOUNDED: Final = {
    DataType.F32: 2**128 - 2**104,  # the largest finite f32
    DataType.F64: 2**1024 - 2**971,  # the largest finite f64
    DataType.I32: 2**31,
    DataType.I64: 2**63,
}
_EXPONENTS: Final = {DataType.F32: 10, DataType.F64: 20, DataType.I32: 10, DataType.I64: 10}
_UNBOUNDED_EXPONENTS: Final = {**_EXPONENTS, DataType.F32: 45, DataType.F64: 324}


@dataclass(frozen=True, slots=True)
class MaskConfig:
    """One of the 240 ways to mask a model (docs/spec/pet.md 2).

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
        """Read a config written as "prime-f32-b0-m3" (upper or lower case), the form that `str` gives.

        Raises:
            ConfigError: not four known names joined with "-".
        """
        parts = text.split("-") if isinstance(text, str) else []
        if len(parts) != 4:
            raise ConfigError(f"mask config: expected group-data-bound-model as in prime-f32-b0-m3, got {text!r}")
        group, data, bound, model = parts
        return cls(GroupType.parse(group), DataType.parse(data), BoundType.parse(bound), ModelType.parse(model))

    def __str__(self) -> str:
        return "-".join(choice.value for choice in (self.group_type, self.data_type, self.bound_type, self.model_type))

    @property
    def order(self) -> int:
        """The number of elements of the group: elements are integers in [0, order)."""
        return _order(self)

    @property
    def add_shift(self) -> int:
        """A: the largest absolute value of a scaled weight, added before encoding to make it non-negative."""
        if self.bound_type is BoundType.BMAX:
            return _UNBOUNDED[self.data_type]
        return _BOUNDS[self.bound_type]

    @property
    def exp_shift(self) -> int:
        """E: steps per unit. A weight is encoded as floor((weight + A) * E)."""
        exponents = _UNBOUNDED_EXPONENTS if self.bound_type is BoundType.BMAX else _EXPONENTS
        return int(10 ** exponents[self.data_type])

    @property
    def max_model_count(self) -> int:
        """How many models may be aggregated before a sum could leave the group."""
        return int(10 ** int(self.model_type.value[1:]))

    @property
    def element_bytes(self) -> int:
        """Bytes of one element on the wire: as many as order - 1 needs."""
        return _byte_length(self.order - 1)

    @property
    def draw_bytes(self) -> int:
        """Bytes that one attempt draws from the keystream: as many as the order itself needs.

        One more than `element_bytes` where the order is a power of 256.
        """
        return _byte_length(self.order)

    @property
    def keystream_bytes_per_draw(self) -> int:
        """Keystream that one attempt uses up: `draw_bytes` rounded up to whole 32-bit words (spec 3.1)."""
        return 4 * -(-self.draw_bytes // 4)

    @property
    def mean_keystream_bytes(self) -> float:
        """Mean keystream bytes per element, rejected attempts included: what a mask costs."""
        return self.keystream_bytes_per_draw * float(256**self.draw_bytes / self.order)


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
