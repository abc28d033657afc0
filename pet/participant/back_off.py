"""How long to wait between two ticks, and when to give up: numbers; callers, which can be interrupted, do the sleeping."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pet.errors import ConfigError, PetError, TransportError
from pet.numbers import checked_number

#: Longer waits do not fit the time of a system call everywhere.
_MAX_SECONDS: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """The waits between ticks (spec 8.3).

    Attributes:
        initial_seconds: the wait after the first tick without progress, and after the beginning of a round.
        factor: how much longer each further wait is, 1 or more.
        max_seconds: the longest wait, while the coordinator gives no usable answer.
        phase_seconds: how long the shortest phase lasts that must not be missed. While the coordinator answers, a wait is a
            quarter of it at most with a task in the round, and half of it without one.
        jitter: by which share of itself a wait may be shorter, 0 to 1, so that participants who lost a coordinator at the same
            moment do not all come back at the same moment.
        give_up_seconds: for how long a coordinator may be out of reach before the participant ends with a TransportError; by
            default it tries for ever.
        waits_for_repair: whether to go on after an error that does not go away by itself: a certificate that is not trusted,
            404 on /params, another protocol, wrong credentials. By default the participant ends with it; where it was
            connected before, only after a minute.
    """

    initial_seconds: float = 0.1
    factor: float = 1.2
    max_seconds: float = 10.0
    jitter: float = 0.2
    phase_seconds: float = 4.0
    give_up_seconds: float = math.inf
    waits_for_repair: bool = False

    def __post_init__(self) -> None:
        numbers = {
            "initial_seconds": checked_number(self.initial_seconds, "back-off: initial_seconds", above=0, most=_MAX_SECONDS),
            "factor": checked_number(self.factor, "back-off: factor", least=1, most=_MAX_SECONDS),
            "max_seconds": checked_number(self.max_seconds, "back-off: max_seconds", above=0, most=_MAX_SECONDS),
            "phase_seconds": checked_number(self.phase_seconds, "back-off: phase_seconds", above=0, most=_MAX_SECONDS),
            "jitter": checked_number(self.jitter, "back-off: jitter", least=0, most=1),
        }
        if self.give_up_seconds != math.inf:
            numbers["give_up_seconds"] = checked_number(self.give_up_seconds, "back-off: give_up_seconds", above=0)
        for name, number in numbers.items():
            object.__setattr__(self, name, number)
        if self.initial_seconds > self.max_seconds:
            raise ConfigError(f"back-off: expected initial_seconds <= max_seconds, got {self}")

    def next_seconds(
        self,
        last_seconds: float,
        *,
        made_progress: bool,
        is_new_round: bool,
        is_answered: bool = False,
        has_task: bool = False,
    ) -> float:
        """Return the next wait.

        After progress there is none: what follows is the next step of the same task, and a message in a thousand chunks would
        take minutes. A new round is the exception, so that a coordinator which shows other parameters each time is not flooded.

        Args:
            last_seconds: the wait before the tick that was just done; 0 at first.
            made_progress: whether that tick made any.
            is_new_round: whether it found a new round.
            is_answered: whether the coordinator gave usable answers in it.
            has_task: whether the round still wants something of the participant.
        """
        if is_new_round:
            return self.initial_seconds
        if made_progress:
            return 0.0
        most_seconds = self.max_seconds
        if is_answered:
            most_seconds = min(most_seconds, self.phase_seconds / (4 if has_task else 2))
        return min(max(last_seconds * self.factor, self.initial_seconds), most_seconds)

    def shorten(self, seconds: float, draw: Callable[[], float] = random.random) -> float:
        """Return a wait with its jitter taken off.

        Args:
            seconds: from `next_seconds`, which also takes the whole wait as `last_seconds`.
            draw: returns a number from 0 up to 1; nothing secret depends on it.
        """
        return seconds * (1 - self.jitter * draw())


class Patience:
    """Notices that a coordinator has been out of reach for too long.

    Args:
        back_off: says how long is too long.
        clock: returns seconds that never go back.
    """

    def __init__(self, back_off: BackOff, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_seconds = back_off.give_up_seconds
        self._clock = clock
        self._lost_seconds: float | None = None

    def note(self, error: PetError | None) -> None:
        """Take note of how a tick ended: why the coordinator gave no usable answer, or None.

        Raises:
            TransportError: it has been out of reach for longer than `give_up_seconds`; the last reason is the cause.
        """
        if error is None:
            self._lost_seconds = None
            return
        now_seconds = self._clock()
        if self._lost_seconds is None:
            self._lost_seconds = now_seconds
        if (lost := now_seconds - self._lost_seconds) >= self._most_seconds:
            raise TransportError(
                f"coordinator: expected an answer within {self._most_seconds:g} s, got none for {lost:.1f} s: {error}"
            ) from error
