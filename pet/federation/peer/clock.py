"""The time of a federation: Unix seconds, and waiting for them to come.

A clock is given to everything that needs one, so that tests can let a minute pass in a second, or let a peer's clock be wrong.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol


class Clock(Protocol):
    """What tells the time."""

    def now_seconds(self) -> float:
        """Return Unix seconds."""
        ...

    async def sleep_until(self, when_seconds: float) -> None:
        """Return at a Unix time or a little later."""
        ...


#: A clock that was set forward is noticed after this many seconds.
_MAX_SLEEP_SECONDS: Final = 30.0


class SystemClock:
    """The clock of the machine, kept by NTP as a federation needs it (docs/spec/federation.md 1.2).

    Args:
        started_seconds: what it shows now; None means the time of the machine.
        speed: how many of its seconds pass in one of the machine's.
    """

    def __init__(self, started_seconds: float | None = None, speed: float = 1.0) -> None:
        self._origin: Final = time.time()
        self._started: Final = self._origin if started_seconds is None else started_seconds
        self._speed: Final = speed

    def now_seconds(self) -> float:
        """Return Unix seconds."""
        return self._started + (time.time() - self._origin) * self._speed

    async def sleep_until(self, when_seconds: float) -> None:
        """Return at a Unix time or a little later."""
        while (left := (when_seconds - self.now_seconds()) / self._speed) > 0:
            await asyncio.sleep(min(left, _MAX_SLEEP_SECONDS))
