"""Which mask config is cheapest for a task: the cost model behind `pet config advise`.

A mask costs keystream, a message costs bytes; both follow from the order of the config alone. Wider is not always dearer: a
draw is thrown away when it is not below the order, so an order just below a power of 256 can cost a tenth of a smaller one that
lies far below it. A field of pet-1 costs least, but no message can name it. This file knows mask configs and arithmetic; it
never measures (the rate comes in) and never prints.

Source: docs/spec/pet.md 2, 3.1 and 3.7; docs/spec/profile.md 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from pet.errors import ConfigError
from pet.field_config import FieldConfig
from pet.mask_choices import Requirements as Requirements
from pet.mask_choices import short_number as short_number
from pet.mask_config import BoundType, DataType, MaskConfig

_FLOATS: Final = (DataType.F32, DataType.F64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One mask config that is good enough, and what it costs.

    Attributes:
        config: the config.
        keystream_bytes: mean keystream per weight, rejected draws included.
        wire_bytes: bytes per weight in an update message, and in the mask that a sum participant sends.
        acceptance: share of the draws that are accepted.
        mean_error: bound on the error of a weight of the global model that masking causes (spec 3.7; profile.md 4.1).
    """

    config: MaskConfig
    keystream_bytes: float
    wire_bytes: int
    acceptance: float
    mean_error: Fraction

    def nanoseconds(self, nanoseconds_per_kib: float) -> float:
        """Return what a mask costs per weight on one core, at a rate of the keystream."""
        return self.keystream_bytes * nanoseconds_per_kib / 1024


def advise(task: Requirements, *, xaynet: bool = False) -> list[Advice]:
    """Return every config that is good enough, the cheapest first, which is that of `MaskConfig.for_data`.

    Args:
        task: what a config has to be good for.
        xaynet: only xaynet's configs, which messages can name; none of pet-1.

    Raises:
        ConfigError: no config is good enough; says which demand is out of reach.
    """
    configs = [config for form in MaskConfig.forms(xaynet=xaynet) for config in form.candidates(task)]
    enough_models = _keep(task, configs, [c for c in configs if c.max_model_count >= task.model_count], "models")
    in_bound = _keep(task, enough_models, [c for c in enough_models if c.largest_value >= task.bound], "bound")
    fit = _keep(task, in_bound, [c for c in in_bound if c.meets(task)], "precision")
    return [_describe(config, task) for config in sorted(fit, key=lambda config: config.cost)]


def _keep(task: Requirements, before: Sequence[MaskConfig], kept: list[MaskConfig], name: str) -> list[MaskConfig]:
    """Return what was kept; raise if a demand left nothing."""
    if kept:
        return kept
    limits: dict[str, tuple[Fraction | int, str, Fraction | int]] = {
        "models": (max(config.max_model_count for config in before), "at most", task.model_count),
        "bound": (max(config.largest_value for config in before), "at most", task.bound),
        "precision": (min(config.mean_error(task) for config in before), "at least", task.precision),
    }
    limit, relation, wanted = limits[name]
    data_types = "/".join(sorted(data_type.value for data_type in task.data_types))
    raise ConfigError(f"{name}: expected {relation} {short_number(limit)} with {data_types}, got {short_number(wanted)}")


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
    return not has_no_wire_code(config) and config.bound_type is BoundType.BMAX and config.data_type in _FLOATS


def has_no_wire_code(config: MaskConfig) -> bool:
    """Return whether messages cannot name a config: no coordinator takes it."""
    return isinstance(config, FieldConfig)
