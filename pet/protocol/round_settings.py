"""What an operator decides about rounds: probabilities, mask config, model length, windows, limits.

The settings are checked when they are built; a coordinator can rely on them. This file knows neither settings files and their
key names (pet/coordinator/settings.py) nor what a coordinator does with the numbers.

Source: docs/spec/pet.md 1.6, 6.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from pet.field_config import FieldConfig
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.messages import ChunkLimits, update_payload_bytes
from pet.protocol.windows import (
    MIN_SUM_COUNT,
    MIN_UPDATE_COUNT,
    PhaseWindow,
    Violation,
    raise_violations,
)

#: The element count of a mask object is a u32 (spec 4.5).
MAX_MODEL_LENGTH: Final = 2**32 - 1

#: Unless it is set, room for chunks of unfinished messages, all participants together, is no less than this.
MIN_CHUNK_BYTES: Final = 1 << 30

#: Unless it is set, the least room for chunks, in largest payloads.
CHUNKED_PAYLOADS: Final = 64

#: Participants come back after ten seconds at most when a part could not be delivered (spec 8.3).
DEFAULT_CHUNK_PATIENCE_SECONDS: Final = 60.0

#: Unfinished messages held at the same time: the shipped maximum count of the Update phase.
DEFAULT_MAX_CHUNKED_MESSAGES: Final = 10_000

SUM_PROBABILITY_RULE: Final = "must be above 0 and below 1"
UPDATE_PROBABILITY_RULE: Final = "must be above 0 and at most 1"
STARVATION_RULE: Final = "starvation: the chance to get any task, s + u - s*u, must be above 0 and at most 1"
SUM2_COUNT_RULE: Final = "must not be above sum.max_count: only sum participants send a mask"
MASK_CONFIG_RULE: Final = "must be one of xaynet's 240, as prime-f32-b0-m3: those of pet-1 have no code in messages"
MODEL_COUNT_RULE: Final = "must not be above the number of models that the mask config can add up"
MODEL_LENGTH_RULE: Final = f"must be from 1 to {MAX_MODEL_LENGTH}"
#: Room for the book-keeping of one participant's chunks, beside twice its payload. Chunks are counted with an overhead each:
#: this leaves enough for small models in the smallest chunks that real clients can make, and for models of any size in chunks
#: of 256 bytes or more (real clients' default is 3720).
CHUNK_ALLOWANCE_BYTES: Final = 1 << 20

LIMIT_RULE: Final = "must be 1 or more"
PATIENCE_RULE: Final = "must be 0 or more, and finite"


def probability_violations(sum_probability: float, update_probability: float) -> Iterator[Violation]:
    """Find what is wrong with the two probabilities of a round (spec 6.1); NaN breaks the rules too."""
    if not 0 < sum_probability < 1:
        yield Violation("sum_probability", sum_probability, SUM_PROBABILITY_RULE)
    if not 0 < update_probability <= 1:
        yield Violation("update_probability", update_probability, UPDATE_PROBABILITY_RULE)
    if math.isfinite(sum_probability) and math.isfinite(update_probability):
        # Exact, as rounding could push the sum above 1 for probabilities that are fine.
        sum_chance, update_chance = Fraction(sum_probability), Fraction(update_probability)
        if not 0 < sum_chance + update_chance - sum_chance * update_chance <= 1:
            yield Violation("sum_probability, update_probability", (sum_probability, update_probability), STARVATION_RULE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSettings:
    """Everything that a coordinator needs to know to run rounds.

    Attributes:
        sum_probability: chance of a participant to be selected for the sum task, 0 < s < 1.
        update_probability: chance to be selected for the update task of those who are not selected for sum, 0 < u <= 1.
        mask_config: how models are masked; a single config stands for both parts of the pair.
        model_length: number of weights.
        sum: window of the Sum phase.
        update: window of the Update phase; at least 3 updates.
        sum2: window of the Sum2 phase; its counts do not exceed the sum window's maximum.
        max_chunk_bytes: bound of the chunks held of unfinished messages, in bytes; None means room for 64 of the largest
            payloads, and at least 1 GiB.
        max_participant_chunk_bytes: the same for one participant, book-keeping included; None means twice the largest payload,
            and 1 MiB for the book-keeping.
        max_chunked_messages: bound of the number of unfinished messages.
        chunk_patience_seconds: an unfinished message idle for this long may be evicted.

    Raises:
        ConfigError: names each field that breaks a rule, with its value.
    """

    sum_probability: float
    update_probability: float
    mask_config: MaskConfigPair
    model_length: int
    sum: PhaseWindow
    update: PhaseWindow
    sum2: PhaseWindow
    max_chunk_bytes: int | None = None
    max_participant_chunk_bytes: int | None = None
    max_chunked_messages: int = DEFAULT_MAX_CHUNKED_MESSAGES
    chunk_patience_seconds: float = DEFAULT_CHUNK_PATIENCE_SECONDS

    def __post_init__(self) -> None:
        raise_violations(list(self.violations()))

    @classmethod
    def of(cls, mask_config: MaskConfig | MaskConfigPair, model_length: int, **changes: object) -> RoundSettings:
        """Build the shipped example settings (spec 6.1) for a model, with some fields changed.

        Raises:
            ConfigError: as for the class.
            TypeError: a change names no field.
        """
        shipped = cls(
            sum_probability=0.5,
            update_probability=0.9,
            mask_config=MaskConfigPair.of(mask_config),
            model_length=model_length,
            sum=PhaseWindow(min_count=1, max_count=100, min_seconds=5, max_seconds=3600),
            update=PhaseWindow(min_count=3, max_count=10_000, min_seconds=10, max_seconds=3600),
            sum2=PhaseWindow(min_count=1, max_count=100, min_seconds=5, max_seconds=3600),
        )
        return replace(shipped, **changes)  # type: ignore[arg-type]  # each field checks itself

    def violations(self) -> Iterator[Violation]:
        """Find the rules that these settings break (spec 6.1)."""
        yield from probability_violations(self.sum_probability, self.update_probability)
        for name, window, least_count in (
            ("sum", self.sum, MIN_SUM_COUNT),
            ("update", self.update, MIN_UPDATE_COUNT),
            ("sum2", self.sum2, MIN_SUM_COUNT),
        ):
            for violation in window.violations(least_count):
                yield replace(violation, field=f"{name}.{violation.field}")
        for name, count in (("sum2.min_count", self.sum2.min_count), ("sum2.max_count", self.sum2.max_count)):
            if count > self.sum.max_count:
                yield Violation(name, count, SUM2_COUNT_RULE)
        if isinstance(self.mask_config.vect, FieldConfig):
            yield Violation("mask_config", str(self.mask_config.vect), MASK_CONFIG_RULE)
        # The maximum may be above: xaynet ships 10 000 with a config for 1000 models, and the surplus is refused one by one.
        if self.update.min_count > self.mask_config.max_model_count:
            yield Violation("update.min_count", self.update.min_count, MODEL_COUNT_RULE)
        if not 1 <= self.model_length <= MAX_MODEL_LENGTH:
            yield Violation("model_length", self.model_length, MODEL_LENGTH_RULE)
        for name in ("max_chunk_bytes", "max_participant_chunk_bytes", "max_chunked_messages"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                yield Violation(name, limit, LIMIT_RULE)
        if not 0 <= self.chunk_patience_seconds < math.inf:
            yield Violation("chunk_patience_seconds", self.chunk_patience_seconds, PATIENCE_RULE)

    @property
    def max_payload_bytes(self) -> int:
        """Size of the largest payload that can be accepted: an update with a full seed dictionary."""
        return update_payload_bytes(self.mask_config, self.model_length, self.sum.max_count)

    @property
    def chunk_limits(self) -> ChunkLimits:
        """How much unfinished messages may hold, defaults applied."""
        payload_bytes, own, overall = self.max_payload_bytes, self.max_participant_chunk_bytes, self.max_chunk_bytes
        return ChunkLimits(
            max_bytes_per_participant=2 * payload_bytes + CHUNK_ALLOWANCE_BYTES if own is None else own,
            max_bytes=max(MIN_CHUNK_BYTES, CHUNKED_PAYLOADS * payload_bytes) if overall is None else overall,
            max_messages=self.max_chunked_messages,
            patience_seconds=self.chunk_patience_seconds,
        )
