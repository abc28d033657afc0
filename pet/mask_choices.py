"""The choices that a mask config is made of, the numbers that stand behind each, and what may be demanded of a config.

Source: docs/spec/pet.md 2.1 to 2.3; docs/spec/profile.md 3 and 4.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np

from pet._orders import Z32, Z64
from pet.errors import ConfigError


class _NamedChoice(enum.Enum):
    """A choice whose value is the lower-case name used in `MaskConfig.parse`."""

    value: str

    # Members are compared by identity. The hash of Enum is a Python function, and orders are looked up by config, whose hash is
    # that of four members: a third of what a call costs beside its kernel.
    __hash__ = object.__hash__

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
BOUNDS: Final = {BoundType.B0: 1, BoundType.B2: 10**2, BoundType.B4: 10**4, BoundType.B6: 10**6}
UNBOUNDED: Final = {
    DataType.F32: 2**128 - 2**104,  # the largest finite f32
    DataType.F64: 2**1024 - 2**971,  # the largest finite f64
    DataType.I32: 2**31,
    DataType.I64: 2**63,
}
EXPONENTS: Final = {DataType.F32: 10, DataType.F64: 20, DataType.I32: 10, DataType.I64: 10}
UNBOUNDED_EXPONENTS: Final = {**EXPONENTS, DataType.F32: 45, DataType.F64: 324}

#: Bits of the mantissa: a weight near the bound is itself rounded to bound * 2^-bits before anything is masked.
MANTISSA_BITS: Final = {DataType.F32: 24, DataType.F64: 53}

#: The byte of each choice on the wire (docs/spec/pet.md 2.1).
WIRE_CODES: Final[dict[enum.Enum, int]] = {
    GroupType.INTEGER: 0,
    GroupType.PRIME: 1,
    GroupType.POWER2: 2,
    DataType.F32: 0,
    DataType.F64: 1,
    DataType.I32: 2,
    DataType.I64: 3,
    BoundType.B0: 0,
    BoundType.B2: 2,
    BoundType.B4: 4,
    BoundType.B6: 6,
    BoundType.BMAX: 255,
    ModelType.M3: 3,
    ModelType.M6: 6,
    ModelType.M9: 9,
    ModelType.M12: 12,
}


class Derivation(_NamedChoice):
    """Which field the elements of pet-1 lie in."""

    Z32 = "z32"  # four bytes
    Z64 = "z64"  # eight bytes

    @property
    def order(self) -> int:
        """The order of the field, a prime."""
        return Z32 if self is Derivation.Z32 else Z64

    @property
    def batch_length(self) -> int:
        """Elements that one batch of 16 blocks of keystream gives: where slices begin that throw none away."""
        return 256 if self is Derivation.Z32 else 128


class FieldValues(_NamedChoice):
    """What the elements of pet-1 stand for."""

    F32 = "f32"  # weights in fixed point
    F64 = "f64"
    INT = "int"  # unsigned integers, as they are

    @classmethod
    def label(cls) -> str:
        """Return the name of the choice for people."""
        return "values"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a mask config has to be good for.

    Attributes:
        bound: largest absolute value of scalar * weight, and of the scalar.
        model_count: most models that are ever aggregated in one round.
        precision: largest error of a weight of the global model that is acceptable.
        scalar_sum: smallest sum of the scalars of a round: `model_count` where every scalar is 1, 1 where they are shares.
        data_types: the types that the weights may have; integers only by name, because their mean is truncated.
    """

    bound: Fraction
    model_count: int
    precision: Fraction
    scalar_sum: Fraction
    data_types: Sequence[DataType] = tuple(MANTISSA_BITS)

    def __post_init__(self) -> None:
        if self.model_count < 1:
            raise ConfigError(f"models: expected 1 or more, got {self.model_count}")
        for name, value in (("bound", self.bound), ("precision", self.precision), ("scalar sum", self.scalar_sum)):
            if value <= 0:
                raise ConfigError(f"{name}: expected more than 0, got {short_number(value)}")

    @classmethod
    def of(
        cls, bound: object, models: object, precision: object, scalar_sum: object = None, data_type: DataType | None = None
    ) -> Requirements:
        """Return the requirements of numbers as callers give them; without a sum of the scalars, each is 1.

        Raises:
            ConfigError: not finite numbers above 0, or no whole number of models.
        """
        try:
            model_count = operator.index(models)  # type: ignore[arg-type]  # what it does not take is refused below
        except TypeError:
            raise ConfigError(f"models: expected a whole number, got {models!r}") from None
        return cls(
            bound=_exact("bound", bound),
            model_count=model_count,
            precision=_exact("precision", precision),
            scalar_sum=Fraction(model_count) if scalar_sum is None else _exact("scalar sum", scalar_sum),
            data_types=tuple(MANTISSA_BITS) if data_type is None else (data_type,),
        )


def _exact(name: str, value: object) -> Fraction:
    try:
        if isinstance(value, (int, np.integer)):
            return Fraction(int(value))
        if isinstance(value, (float, Fraction, np.floating)):
            return Fraction(*value.as_integer_ratio())
    except (OverflowError, ValueError):  # infinite, or no number
        pass
    raise ConfigError(f"{name}: expected a finite number, got {value!r}")


def short_number(value: Fraction | int) -> str:
    """Write a number short; Decimal, because bounds of f64 and what users ask for can leave the range of floats."""
    fraction = Fraction(value)
    return f"{(Decimal(fraction.numerator) / Decimal(fraction.denominator)).normalize():.3g}"
