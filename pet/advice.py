"""Which mask config is cheapest for a task: the cost model behind `pet config advise`.

A mask costs keystream, a message costs bytes; both follow from the order of the config alone. Wider is not always dearer: a
draw is thrown away when it is not below the order, so an order just below a power of 256 can cost a tenth of a smaller one that
lies far below it. This file knows mask configs and arithmetic; it never measures (the rate comes in) and never prints.

Source: docs/spec/pet.md 2, 3.1 and 3.7.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from pet.errors import ConfigError
from pet.mask_config import BoundType, DataType, GroupType, MaskConfig, ModelType

#: Bits of the mantissa: a weight near the bound is itself rounded to bound * 2^-bits before anything is masked.
_MANTISSA_BITS: Final = {DataType.F32: 24, DataType.F64: 53}

_FLOATS: Final = (DataType.F32, DataType.F64)


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
    data_types: Sequence[DataType] = (DataType.F32, DataType.F64)

    def __post_init__(self) -> None:
        for name, value in (("bound", self.bound), ("precision", self.precision), ("scalar sum", self.scalar_sum)):
            if value <= 0:
                raise ConfigError(f"{name}: expected more than 0, got {short_number(value)}")
        if self.model_count < 1:
            raise ConfigError(f"models: expected 1 or more, got {self.model_count}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One mask config that is good enough, and what it costs.

    Attributes:
        config: the config.
        keystream_bytes: mean keystream per weight, rejected draws included.
        wire_bytes: bytes per weight in an update message, and in the mask that a sum participant sends.
        acceptance: share of the draws that are accepted.
        mean_error: bound on the error of a weight of the global model that masking causes (spec 3.7).
    """

    config: MaskConfig
    keystream_bytes: float
    wire_bytes: int
    acceptance: float
    mean_error: Fraction

    def nanoseconds(self, nanoseconds_per_kib: float) -> float:
        """Return what a mask costs per weight on one core, at a rate of the keystream."""
        return self.keystream_bytes * nanoseconds_per_kib / 1024


def advise(task: Requirements) -> list[Advice]:
    """Return every config that is good enough, the cheapest first: least keystream, then fewest bytes on the wire.

    Raises:
        ConfigError: no config is good enough; says which demand is out of reach.
    """
    configs = [MaskConfig(*choice) for choice in itertools.product(GroupType, task.data_types, BoundType, ModelType)]
    enough_models = _keep(configs, [c for c in configs if c.max_model_count >= task.model_count], "models", task.model_count)
    wide = [c for c in enough_models if c.add_shift >= task.bound]
    in_bound = _keep(enough_models, wide, "bound", task.bound)
    precise = [c for c in in_bound if mean_error(c, task) <= task.precision]
    fit = _keep(in_bound, precise, "precision", task.precision, min(mean_error(c, task) for c in in_bound))
    distinct = [config for config in fit if not _is_twin_of_prime(config)]
    ranked = sorted(distinct, key=lambda config: (config.mean_keystream_bytes, config.element_bytes, str(config)))
    return [_describe(config, task) for config in ranked]


def mean_error(config: MaskConfig, task: Requirements) -> Fraction:
    """Return a bound on what masking and the data type do to a weight of the global model (spec 3.7).

    Each of n models loses less than one step 1/E to the floor, as does each scalar; integers are truncated at the end.
    """
    floors = Fraction(task.model_count, config.exp_shift) / task.scalar_sum
    if config.data_type in _FLOATS:
        return floors + Fraction(task.bound, 2 ** _MANTISSA_BITS[config.data_type])
    return floors + 1


def _prime(config: MaskConfig) -> MaskConfig:
    return MaskConfig(GroupType.PRIME, config.data_type, config.bound_type, config.model_type)


def _is_twin_of_prime(config: MaskConfig) -> bool:
    """Return whether an integer group costs what the prime group just above it costs: listing both would add nothing."""
    prime = _prime(config)
    return config.group_type is GroupType.INTEGER and (config.draw_bytes, config.element_bytes) == (
        prime.draw_bytes,
        prime.element_bytes,
    )


def _keep(
    before: Sequence[MaskConfig], kept: list[MaskConfig], name: str, wanted: Fraction | int, best: Fraction | None = None
) -> list[MaskConfig]:
    """Return what was kept; raise if a demand left nothing."""
    if kept:
        return kept
    limits = {
        "models": (max(config.max_model_count for config in before), "at most"),
        "bound": (max(config.add_shift for config in before), "at most"),
        "precision": (best, "at least"),
    }
    limit, relation = limits[name]
    data_types = "/".join(sorted({config.data_type.value for config in before}))
    raise ConfigError(f"{name}: expected {relation} {short_number(limit or 0)} with {data_types}, got {short_number(wanted)}")


def short_number(value: Fraction | int) -> str:
    """Write a number short; Decimal, because bounds of f64 and what users ask for can leave the range of floats."""
    fraction = Fraction(value)
    return f"{(Decimal(fraction.numerator) / Decimal(fraction.denominator)).normalize():.3g}"


def _describe(config: MaskConfig, task: Requirements) -> Advice:
    return Advice(
        config=config,
        keystream_bytes=config.mean_keystream_bytes,
        wire_bytes=config.element_bytes,
        acceptance=float(Fraction(config.order, 256**config.draw_bytes)),
        mean_error=mean_error(config, task),
    )


def needs_dyadic_fractions(config: MaskConfig) -> bool:
    """Return whether real xaynet clients hang on the exact fractions of a global model (docs/spec/pet.md 3.8, 13).

    A coordinator that serves them publishes the exact fraction of each weight's nearest float instead, as pet does by default.
    """
    return config.bound_type is BoundType.BMAX and config.data_type in _FLOATS
