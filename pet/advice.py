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
from fractions import Fraction
from typing import Final

from pet.errors import ConfigError
from pet.mask_choices import Requirements as Requirements
from pet.mask_choices import short_number as short_number
from pet.mask_config import BoundType, DataType, GroupType, MaskConfig, ModelType

_FLOATS: Final = (DataType.F32, DataType.F64)


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
    precise = [c for c in in_bound if c.mean_error(task) <= task.precision]
    fit = _keep(in_bound, precise, "precision", task.precision, min(c.mean_error(task) for c in in_bound))
    distinct = [config for config in fit if not _is_twin_of_prime(config)]
    ranked = sorted(distinct, key=lambda config: (config.mean_keystream_bytes, config.element_bytes, str(config)))
    return [_describe(config, task) for config in ranked]


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


def _describe(config: MaskConfig, task: Requirements) -> Advice:
    return Advice(
        config=config,
        keystream_bytes=config.mean_keystream_bytes,
        wire_bytes=config.element_bytes,
        acceptance=float(Fraction(config.order, 256**config.draw_bytes)),
        mean_error=config.mean_error(task),
    )


def needs_dyadic_fractions(config: MaskConfig) -> bool:
    """Return whether real xaynet clients hang on the exact fractions of a global model (docs/spec/pet.md 3.8, 13).

    A coordinator that serves them publishes the exact fraction of each weight's nearest float instead, as pet does by default.
    """
    return config.bound_type is BoundType.BMAX and config.data_type in _FLOATS
