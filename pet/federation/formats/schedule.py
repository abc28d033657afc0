"""When a federation synchronises: "m30" is every 30 minutes, on the same ticks of UTC at every peer.

Pure arithmetic on Unix times; nobody sleeps here.

Source: docs/spec/federation.md 1.4.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Self

from pet.errors import FederationValueError

MAX_PERIOD_SECONDS: Final = 366 * 86_400
_UNIT_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}
_SYNTAX: Final = re.compile(r"([mhd])([1-9][0-9]{0,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A period; tick k is at Unix time k * period.

    Attributes:
        text: as it was written.
        period_seconds: its length.
    """

    text: str
    period_seconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "mN", "hN" or "dN": minutes, hours, days.

        Raises:
            FederationValueError: anything else, or more than 366 days.
        """
        match = _SYNTAX.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise FederationValueError(f"schedule: expected m, h or d and a number from 1 on, as in m30, got {text!r}")
        period = int(match[2]) * _UNIT_SECONDS[match[1]]
        if period > MAX_PERIOD_SECONDS:
            raise FederationValueError(f"schedule: expected at most 366 days, got {text!r}")
        return cls(text, period)

    def last_tick(self, now_seconds: float) -> int:
        """Return the number of the last tick at or before a Unix time."""
        return math.floor(now_seconds / self.period_seconds)

    def next_tick_seconds(self, now_seconds: float) -> float:
        """Return the Unix time of the first tick after a Unix time."""
        return float((self.last_tick(now_seconds) + 1) * self.period_seconds)


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """A schedule that may change, and which tick was dealt with last.

    Attributes:
        schedule: the current one.
        counter: of its changes; the highest wins.
        done_until_seconds: Unix time up to which ticks are dealt with.
    """

    schedule: Schedule
    counter: int
    done_until_seconds: float

    def is_due(self, now_seconds: float) -> bool:
        """Return whether a tick passed that was not dealt with; however many did, they are one."""
        return self.schedule.last_tick(now_seconds) > self.schedule.last_tick(self.done_until_seconds)

    def done(self, now_seconds: float) -> ScheduleState:
        """Return the state after all ticks up to now were dealt with."""
        return ScheduleState(self.schedule, self.counter, max(now_seconds, self.done_until_seconds))

    def changed(self, schedule: Schedule, counter: int, now_seconds: float) -> ScheduleState:
        """Return the state after a change message; an older one changes nothing.

        The first tick of the new period after now is the first that counts.
        """
        if counter <= self.counter:
            return self
        return ScheduleState(schedule, counter, max(now_seconds, self.done_until_seconds))
