"""How long to wait between two ticks: a number, and no sleeping; that is done by whoever can be interrupted."""

from __future__ import annotations

from dataclasses import dataclass

from pet.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """The waits between ticks (spec 8.3).

    Attributes:
        initial_seconds: the wait after the first tick without progress, and after the beginning of a round.
        factor: how much longer each further wait is, 1 or more.
        max_seconds: the longest wait.
    """

    initial_seconds: float = 0.1
    factor: float = 1.2
    max_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.initial_seconds <= self.max_seconds and self.factor >= 1):
            raise ConfigError(f"back-off: expected 0 < initial_seconds <= max_seconds and factor >= 1, got {self}")

    def next_seconds(self, last_seconds: float, *, made_progress: bool, is_new_round: bool) -> float:
        """Return the next wait.

        After progress there is none: what follows is the next step of the same task, and a message in a thousand chunks would
        take minutes. A new round is the exception, so that a coordinator which shows other parameters each time is not flooded.

        Args:
            last_seconds: the wait before the tick that was just done; 0 at first.
            made_progress: whether that tick made any.
            is_new_round: whether it found a new round.
        """
        if is_new_round:
            return self.initial_seconds
        if made_progress:
            return 0.0
        return min(max(last_seconds * self.factor, self.initial_seconds), self.max_seconds)
