"""Mask configs of pet-1: a field, what its elements stand for, a bound and a number of models.

This file knows numbers only, as pet/mask_config.py does, which finds the class by its prefix.

Source: docs/spec/profile.md 3 and 4.
"""

from __future__ import annotations

import math
import re
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any, ClassVar, Final, NoReturn

import numpy as np

from pet.errors import ConfigError
from pet.mask_choices import MANTISSA_BITS, DataType, Derivation, FieldValues, Requirements
from pet.mask_config import MaskConfig
from pet.numbers import shown_value


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

    PREFIX: ClassVar[str] = "pet-1/"
    HAS_OWN_UNIT: ClassVar[bool] = False
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
    def candidates(cls, wanted: Requirements) -> list[MaskConfig]:
        """Return the configs that could do for a task: twice the models, so that totals of rubbish are noticed.

        Those for integers are none of them: they are unsigned, and have totals in place of a mean.
        """
        models = min(2 * wanted.model_count, cls.MAX_MODELS)
        bound = _float_above(wanted.bound)
        return [
            cls(derivation, FieldValues(data_type.value), models, bound)
            for derivation in Derivation
            for data_type in wanted.data_types
            if data_type in MANTISSA_BITS and bound is not None
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
        rounding = Fraction(wanted.bound, 2 ** MANTISSA_BITS[DataType(self.values.value)])
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
