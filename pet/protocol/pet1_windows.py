"""When a phase of pet/1 ends: at once with everybody, then with some to spare, at last with the least that suffices.

Source: docs/spec/profile.md 12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pet.errors import ConfigError
from pet.protocol.windows import WindowState

#: Longest time that a record can say, in seconds.
_MAX_SECONDS: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTimes:
    """The shortest and the longest duration of a phase.

    Attributes:
        min_seconds: what a phase lasts unless everybody has sent.
        max_seconds: when it ends, well or not; whole seconds, as the record says them.

    Raises:
        ConfigError: not 0 <= min_seconds <= max_seconds < 2^32.
    """

    min_seconds: float = 5
    max_seconds: int = 600

    def __post_init__(self) -> None:
        if not (0 <= self.min_seconds <= self.max_seconds <= _MAX_SECONDS) or type(self.max_seconds) is not int:
            raise ConfigError(
                f"times: expected 0 <= min_seconds <= max_seconds, whole, got {self.min_seconds}, {self.max_seconds}"
            )


#: Of the Sum, Check and Sum2 phases: members answer within seconds (docs/spec/profile.md 15.4).
DEFAULT_TIMES: Final = PhaseTimes()
#: Of the Update phase, in which participants train.
DEFAULT_UPDATE_TIMES: Final = PhaseTimes(max_seconds=3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotWindow:
    """When a phase ends whose messages come from members: at once with all of them, later with fewer (docs/spec/profile.md 12).

    Attributes:
        times: of the phase.
        min_count: members that it needs in all.
        per_group: members that it needs of each group.
        total_spare: members beyond `min_count` to wait for until the longest time is over.
        group_spare: the same of each group.
        expected: returns how many members there are, by group.
        present: returns how many have sent, by group.
    """

    times: PhaseTimes
    min_count: int
    per_group: int
    total_spare: int = 0
    group_spare: int
    expected: Callable[[], list[int]]
    present: Callable[[], list[int]]

    @property
    def max_seconds(self) -> float:
        """How long the phase lasts at most."""
        return self.times.max_seconds

    def is_full(self, _accepted: int) -> bool:
        """Return False: a message beyond the last member's is refused for what is wrong with it."""
        return False

    def state(self, started_seconds: float, now_seconds: float, _accepted: int) -> WindowState:
        """Return whether the phase goes on."""
        if self.present() == self.expected():
            return WindowState.COMPLETE
        if now_seconds >= started_seconds + self.times.max_seconds:
            return WindowState.COMPLETE if self._suffices(0, 0) else WindowState.TIMED_OUT
        is_late_enough = now_seconds >= started_seconds + self.times.min_seconds
        return (
            WindowState.COMPLETE if is_late_enough and self._suffices(self.total_spare, self.group_spare) else WindowState.OPEN
        )

    def deadline_seconds(self, started_seconds: float, _accepted: int) -> float:
        """Return when time alone would next end the phase."""
        return started_seconds + (
            self.times.min_seconds if self._suffices(self.total_spare, self.group_spare) else self.times.max_seconds
        )

    def _suffices(self, total_spare: int, group_spare: int) -> bool:
        """Return whether enough have sent, with some to spare; where there are not as many members, all of them."""
        present, expected = self.present(), self.expected()
        total = min(self.min_count + total_spare, sum(expected))
        groups = (min(self.per_group + group_spare, members) for members in expected)
        return sum(present) >= total and all(have >= need for have, need in zip(present, groups, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateWindow:
    """When the Update phase ends: at once with `max_count`, then with `min_count`, at last with the least that a sum may have.

    Attributes:
        times: of the phase.
        min_count: updates that it waits for until its longest time is over, `least` or more.
        max_count: updates that end it.
        least: updates without which the round fails.
    """

    times: PhaseTimes
    min_count: int
    max_count: int
    least: int

    @property
    def max_seconds(self) -> float:
        """How long the phase lasts at most."""
        return self.times.max_seconds

    def is_full(self, _accepted: int) -> bool:
        """Return False: updates beyond the last are answered "too_many_updates"."""
        return False

    def state(self, started_seconds: float, now_seconds: float, accepted: int) -> WindowState:
        """Return whether the phase goes on."""
        if accepted >= self.max_count:
            return WindowState.COMPLETE
        if now_seconds >= started_seconds + self.times.max_seconds:
            return WindowState.COMPLETE if accepted >= self.least else WindowState.TIMED_OUT
        is_enough = accepted >= self.min_count
        is_late_enough = now_seconds >= started_seconds + self.times.min_seconds
        return WindowState.COMPLETE if is_enough and is_late_enough else WindowState.OPEN

    def deadline_seconds(self, started_seconds: float, accepted: int) -> float:
        """Return when time alone would next end the phase."""
        is_enough = accepted >= self.min_count
        return started_seconds + (self.times.min_seconds if is_enough else self.times.max_seconds)
