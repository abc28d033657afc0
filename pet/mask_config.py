"""Mask configs: which group a model is masked in, and the numbers that follow from the choice.

A mask config of xaynet is four choices (group, data, bound and model type), one of pet-1 a field, what its elements stand for,
a bound and a number of models; everything else is arithmetic on them. This file knows numbers only, not how a mask is made
(pet/masking.py) or sent (pet/mask_codec.py).

Source: docs/spec/pet.md 2; docs/spec/profile.md 3 and 4.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from fractions import Fraction
from typing import Any, Final, NoReturn, SupportsIndex

import numpy as np

from pet import _orders
from pet.errors import ConfigError
from pet.mask_choices import (
    BOUNDS,
    EXPONENTS,
    UNBOUNDED,
    UNBOUNDED_EXPONENTS,
    WIRE_CODES,
    BoundType,
    DataType,
    Derivation,
    FieldValues,
    GroupType,
    ModelType,
    Requirements,
    short_number,
)
from pet.numbers import shown_value

__all__ = [
    "BoundType",
    "DataType",
    "Derivation",
    "FieldConfig",
    "FieldValues",
    "GroupType",
    "MaskConfig",
    "MaskConfigPair",
    "ModelType",
]

#: Bits of the mantissa: a weight near the bound is itself rounded to bound * 2^-bits before anything is masked.
_MANTISSA_BITS: Final = {DataType.F32: 24, DataType.F64: 53}


@dataclass(frozen=True, slots=True)
class MaskConfig:
    """How a model is masked: one of xaynet's 240 ways (docs/spec/pet.md 2), or a `FieldConfig` of pet-1.

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
        """Read a config written as "prime-f32-b0-m3" or "pet-1/z32,f32,bound=1,models=1000", the forms that `str` gives.

        Upper and lower case are the same. Those that begin with "pet-1/" are described at `FieldConfig`.

        Raises:
            ConfigError: not four known names joined with "-", and not a config of pet-1.
        """
        if isinstance(text, str) and text.lower().startswith(FieldConfig.PREFIX):
            return FieldConfig.parse(text)
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
        wanted = Requirements.of(bound, models, precision, scalar_sum)
        data_types = tuple(_MANTISSA_BITS) if data_type is None else (data_type,)
        if data_type is not None and data_type not in _MANTISSA_BITS:
            raise ConfigError(f"data type: expected f32 or f64, got {data_type!r}")
        configs = [] if xaynet else FieldConfig.candidates(wanted, data_types)
        configs += [MaskConfig(*choice) for choice in itertools.product(GroupType, data_types, BoundType, ModelType)]
        fit = [config for config in configs if config.meets(wanted)]
        if not fit:
            raise ConfigError(
                f"mask config: expected a bound, models and precision that one of them has, got bound "
                f"{short_number(wanted.bound)}, {wanted.model_count} models and precision {short_number(wanted.precision)}"
            )
        return min(fit, key=lambda config: (config.mean_keystream_bytes, config.element_bytes, str(config)))

    def __str__(self) -> str:
        return "-".join(choice.value for choice in (self.group_type, self.data_type, self.bound_type, self.model_type))

    @property
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

    @property
    def order(self) -> int:
        """The number of elements of the group: elements are integers in [0, order)."""
        return _order(self)

    @property
    def add_shift(self) -> int:
        """A: the largest absolute value of a scaled weight, added before encoding to make it non-negative."""
        if self.bound_type is BoundType.BMAX:
            return UNBOUNDED[self.data_type]
        return BOUNDS[self.bound_type]

    @property
    def exp_shift(self) -> int:
        """E: steps per unit. A weight is encoded as floor((weight + A) * E)."""
        exponents = UNBOUNDED_EXPONENTS if self.bound_type is BoundType.BMAX else EXPONENTS
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

    @property
    def largest_value(self) -> Fraction:
        """The largest absolute value of scalar * weight that is not clipped."""
        return Fraction(self.add_shift)

    def mean_error(self, wanted: Requirements) -> Fraction:
        """Return a bound on what masking and the data type do to a weight of the global model (docs/spec/pet.md 3.7).

        Each of n models loses less than one step 1/E to the floor, as does each scalar; integers are truncated at the end.
        """
        floors = Fraction(wanted.model_count, self.exp_shift) / wanted.scalar_sum
        if self.data_type in _MANTISSA_BITS:
            return floors + Fraction(wanted.bound, 2 ** _MANTISSA_BITS[self.data_type])
        return floors + 1

    def meets(self, wanted: Requirements) -> bool:
        """Return whether a config is good enough for a task."""
        return (
            self.max_model_count >= wanted.model_count
            and self.largest_value >= wanted.bound
            and self.mean_error(wanted) <= wanted.precision
        )


class FieldConfig(MaskConfig):
    """How a model is masked in a field: the derivation pet-1 (docs/spec/profile.md 3 and 4).

    Written "pet-1/z32,f32,bound=1,models=1000": the field (z32, z64); weights in fixed point (f32, f64) with the largest
    absolute value of scalar * weight; the most models in one aggregation, which should be twice as many as are expected.
    Or "pet-1/z64,int,models=15": unsigned integers, whose totals are exact; uint32 in z32, uint64 in z64.

    It has none of xaynet's choices and no bytes on the wire: asking for them is a ConfigError. The unit is the last element
    of the vector, so a pair has one config twice.

    Args:
        derivation: the field.
        values: what the elements stand for.
        max_model_count: N_max, 1 to 2^24 - 1.
        bound: A, 2^-100 to 2^100; 1 with integers.

    Raises:
        ConfigError: an argument outside its range.
    """

    __slots__ = ("bound", "derivation", "max_model_count", "values")

    PREFIX: Final = "pet-1/"
    #: The round record of the profile counts updates in 24 bits.
    MAX_MODELS: Final = 2**24 - 1

    derivation: Derivation
    values: FieldValues
    bound: float

    def __init__(self, derivation: Derivation, values: FieldValues, max_model_count: int, bound: float = 1.0) -> None:
        if not isinstance(derivation, Derivation) or not isinstance(values, FieldValues):
            raise ConfigError(f"mask config: expected a Derivation and FieldValues, got {derivation!r} and {values!r}")
        if not isinstance(max_model_count, int) or not 1 <= max_model_count <= self.MAX_MODELS:
            raise ConfigError(f"models: expected 1 to {self.MAX_MODELS}, got {shown_value(max_model_count)}")
        if not isinstance(bound, (int, float)) or not 2.0**-100 <= bound <= 2.0**100:
            raise ConfigError(f"bound: expected 2^-100 to 2^100, got {shown_value(bound)}")
        if values is FieldValues.INT and bound != 1:
            raise ConfigError(f"bound: expected none with integers, got {bound}")
        for name, value in zip(self._NAMES, (derivation, values, max_model_count, float(bound)), strict=True):
            object.__setattr__(self, name, value)

    _NAMES: Final = ("derivation", "values", "max_model_count", "bound")

    @classmethod
    def parse(cls, text: str) -> FieldConfig:
        """Read a config as the class describes it.

        Raises:
            ConfigError: another form, or a number outside its range.
        """
        match = _FIELD_CONFIG.fullmatch(text.lower()) if isinstance(text, str) else None
        if match is None:
            raise ConfigError(
                "mask config: expected pet-1/ with field, values, bound and models as in pet-1/z32,f32,bound=1,models=1000 or "
                f"pet-1/z64,int,models=15, got {shown_value(text)}"
            )
        values = FieldValues.parse(match["values"])
        if (match["bound"] is None) != (values is FieldValues.INT):
            raise ConfigError(f"bound: expected one with weights and none with integers, got {shown_value(text)}")
        return cls(Derivation.parse(match["field"]), values, int(match["models"]), float(match["bound"] or 1))

    @classmethod
    def candidates(cls, wanted: Requirements, data_types: Sequence[DataType]) -> list[MaskConfig]:
        """Return the configs that could do for a task: twice the models, so that totals of rubbish are noticed."""
        models = min(2 * wanted.model_count, cls.MAX_MODELS)
        bound = _float_above(wanted.bound)
        return [
            cls(derivation, FieldValues(data_type.value), models, bound)
            for derivation in Derivation
            for data_type in data_types
            if data_type in _MANTISSA_BITS and bound is not None
        ]

    def __str__(self) -> str:
        bound = "" if self.values is FieldValues.INT else f"bound={repr(self.bound).removesuffix('.0')},"
        return f"{self.PREFIX}{self.derivation.value},{self.values.value},{bound}models={self.max_model_count}"

    def __repr__(self) -> str:
        return f"MaskConfig.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldConfig) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[type[FieldConfig], tuple[Any, ...]]:
        return FieldConfig, self._key()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def _key(self) -> tuple[Derivation, FieldValues, int, float]:
        return self.derivation, self.values, self.max_model_count, self.bound

    @property
    def order(self) -> int:
        """The order of the field: 2^32 - 5 or 2^64 - 2^32 + 1."""
        return self.derivation.order

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the weights: float32, float64, or the unsigned integer that an element fills."""
        integer = np.uint32 if self.derivation is Derivation.Z32 else np.uint64
        return np.dtype({FieldValues.F32: np.float32, FieldValues.F64: np.float64}.get(self.values, integer))

    @property
    def levels(self) -> int:
        """R: the largest encoded value; the sum of `max_model_count` of them is below the order."""
        levels = (self.order - 1) // self.max_model_count
        return levels if self.values is FieldValues.INT else min(levels, 2**52)

    @property
    def largest_value(self) -> Fraction:
        """The bound; with integers, `levels`."""
        return Fraction(self.levels if self.values is FieldValues.INT else self.bound)

    @property
    def encoding_steps(self) -> Fraction:
        """By how many steps encoding moves a weight or a scalar at most; a step is 2 * bound / levels, or 1 / levels."""
        if self.values is FieldValues.INT:
            return Fraction(0)
        return Fraction(1, 2) + Fraction(1, 2**18) if self.derivation is Derivation.Z32 else Fraction(3)

    def mean_error(self, wanted: Requirements) -> Fraction:
        """Return a bound on what encoding and the data type do to a weight of the global model (docs/spec/profile.md 4.1).

        The mean is taken to lie within the bound. Where the scalars could vanish, nothing is known of it.
        """
        if self.values is FieldValues.INT:
            return Fraction(0)
        lost = self.encoding_steps * wanted.model_count / self.levels
        if lost >= wanted.scalar_sum:
            return 2 * Fraction(self.bound) * wanted.model_count
        rounding = Fraction(wanted.bound, 2 ** _MANTISSA_BITS[DataType(self.values.value)])
        return lost * (2 * Fraction(self.bound) + wanted.bound) / (wanted.scalar_sum - lost) + rounding

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigError(f"{self}: expected a config of xaynet's 240, got one of pet-1, which has no {what}")

    @property
    def wire_code(self) -> NoReturn:
        """Raise ConfigError: messages of xaynet cannot name this config."""
        self._refuse("code on the wire")

    @property
    def group_type(self) -> NoReturn:
        """Raise ConfigError."""
        self._refuse("group type")

    @property
    def data_type(self) -> NoReturn:
        """Raise ConfigError: `values` and `dtype` say what the elements stand for."""
        self._refuse("data type")

    @property
    def bound_type(self) -> NoReturn:
        """Raise ConfigError: `bound` is the number itself."""
        self._refuse("bound type")

    @property
    def model_type(self) -> NoReturn:
        """Raise ConfigError: `max_model_count` is the number itself."""
        self._refuse("model type")

    @property
    def add_shift(self) -> NoReturn:
        """Raise ConfigError: `bound` is the largest absolute value."""
        self._refuse("add shift")

    @property
    def exp_shift(self) -> NoReturn:
        """Raise ConfigError: there are `levels` steps from -bound to bound."""
        self._refuse("exp shift")


_FIELD_CONFIG: Final = re.compile(
    r"pet-1/(?P<field>z32|z64),(?P<values>f32|f64|int)"
    r"(?:,bound=(?P<bound>[0-9]{1,40}(?:\.[0-9]{1,40})?(?:e[+-]?[0-9]{1,3})?))?,models=(?P<models>[0-9]{1,9})"
)


def _float_above(value: Fraction) -> float | None:
    """Return the smallest float that is not below a bound, or None if it lies outside those of pet-1."""
    if not Fraction(1, 2**100) <= value <= 2**100:
        return None
    nearest = float(value)
    return nearest if nearest >= value else math.nextafter(nearest, math.inf)


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
        if self.vect != self.unit and (isinstance(self.vect, FieldConfig) or isinstance(self.unit, FieldConfig)):
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
