"""Count and time windows: how long a phase collects messages, and how it ends.

A phase always lasts its minimum time. From then on it ends as soon as the minimum count is reached; if that does not happen
within the maximum time, it times out and the round fails. More than the minimum count can only arrive during the minimum time,
and beyond the maximum count messages are discarded unread.

This file compares numbers: it knows no phase, no message and no clock. The rules are also here as text, for settings files.

Source: docs/spec/pet.md 6.1, 6.3.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pet.errors import ConfigError

MIN_SUM_COUNT: Final = 1
#: Fewer updates would make the mean of the others an easy guess.
MIN_UPDATE_COUNT: Final = 3

COUNT_ORDER_RULE: Final = "must not be below min_count"
MIN_SECONDS_RULE: Final = "must be a finite number, 0 or more"
MAX_SECONDS_RULE: Final = "must be a finite number above 0 and not below min_seconds"


def least_count_rule(least_count: int) -> str:
    """Return the rule that a minimum count obeys, as a text for people."""
    return f"must be {least_count} or more"


@dataclass(frozen=True, slots=True)
class Violation:
    """A setting that breaks a rule.

    Attributes:
        field: name of the setting, dotted where it lies in a group ("update.min_count").
        value: what was set.
        rule: what would be right, as the end of a sentence.
    """

    field: str
    value: object
    rule: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}, got {self.value!r}"


def raise_violations(violations: list[Violation]) -> None:
    """Raise if there is anything to complain about.

    Raises:
        ConfigError: names the field, the value and the rule of every violation.
    """
    if violations:
        raise ConfigError("; ".join(map(str, violations)))


def window_violations(
    min_count: int, max_count: int, min_seconds: float, max_seconds: float, *, least_count: int = 1
) -> Iterator[Violation]:
    """Find what is wrong with the four numbers of a window (spec 6.1).

    Args:
        min_count: as in PhaseWindow.
        max_count: as in PhaseWindow.
        min_seconds: as in PhaseWindow.
        max_seconds: as in PhaseWindow.
        least_count: smallest minimum count that makes sense for the phase.

    Yields:
        One record per broken rule, its field named like the argument.
    """
    if min_count < least_count:
        yield Violation("min_count", min_count, least_count_rule(least_count))
    if max_count < min_count:
        yield Violation("max_count", max_count, COUNT_ORDER_RULE)
    # Written so that NaN breaks the rule.
    if not 0 <= min_seconds < math.inf:
        yield Violation("min_seconds", min_seconds, MIN_SECONDS_RULE)
    # A window of no length would fail every round before a message can come.
    if not (0 < max_seconds < math.inf) or max_seconds < min_seconds:
        yield Violation("max_seconds", max_seconds, MAX_SECONDS_RULE)


class WindowState(enum.Enum):
    """What a window says about its phase at some moment."""

    OPEN = "open"  # the phase goes on
    COMPLETE = "complete"  # minimum time and minimum count are reached: the phase ends well
    TIMED_OUT = "timed out"  # the maximum time is over without enough messages: the round fails


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseWindow:
    """How many messages a phase takes and how long it lasts (spec 6.3).

    Attributes:
        min_count: accepted messages that the phase needs.
        max_count: accepted messages after which further ones are discarded.
        min_seconds: the shortest duration of the phase, whatever arrives.
        max_seconds: after this time without min_count messages the round fails.

    Raises:
        ConfigError: names each field that breaks a rule, with its value.
    """

    min_count: int
    max_count: int
    min_seconds: float
    max_seconds: float

    def __post_init__(self) -> None:
        raise_violations(list(self.violations()))

    def violations(self, least_count: int = 1) -> Iterator[Violation]:
        """Find the rules that this window breaks, with a minimum count of at least `least_count`."""
        return window_violations(self.min_count, self.max_count, self.min_seconds, self.max_seconds, least_count=least_count)

    def is_full(self, accepted: int) -> bool:
        """Return whether further messages are to be discarded."""
        return accepted >= self.max_count

    def state(self, started_seconds: float, now_seconds: float, accepted: int) -> WindowState:
        """Return whether a phase that began at `started_seconds` goes on at `now_seconds` with `accepted` messages.

        Both times are on the same clock. The sums are those of `deadline_seconds`, so that a caller who comes exactly at a
        deadline finds it passed, however the sum was rounded.
        """
        if now_seconds < started_seconds + self.min_seconds:
            return WindowState.OPEN
        if accepted >= self.min_count:
            return WindowState.COMPLETE
        return WindowState.OPEN if now_seconds < started_seconds + self.max_seconds else WindowState.TIMED_OUT

    def deadline_seconds(self, started_seconds: float, accepted: int) -> float:
        """Return when time alone would next end the phase, if no further message came."""
        length = self.min_seconds if accepted >= self.min_count else self.max_seconds
        return started_seconds + length
