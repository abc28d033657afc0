"""When a connection has to end: something does not come in time, it rests too long, or what waits to be sent is not taken.

They know no HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

#: What a reader must take in the time it has, if it does not take all.
PROGRESS_BYTES: Final = 1 << 16


class _Timer:
    """What all have in common.

    Args:
        loop: the event loop of the connection.
        seconds: how long something may take.
        end: called when it takes longer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, end: Callable[[], None]) -> None:
        self._loop: Final = loop
        self._seconds: Final = seconds
        self._end: Final = end
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Let it end: what was expected has come, or is expected no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Deadline(_Timer):
    """Sees to it that something comes in time."""

    def begin(self) -> None:
        """Let the time begin, unless it has."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._end)


class RestTimer(_Timer):
    """Sees to it that a connection does not rest for ever.

    One timer runs on, whatever comes and goes: to set one for every rest, and end it again, would cost more than a look at the
    time when it fires.
    """

    _until = math.inf

    def begin(self) -> None:
        """Let a rest begin."""
        self._until = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def stop(self) -> None:
        """Let it end: a request comes."""
        self._until = math.inf

    def _look(self) -> None:
        self._timer = None
        left_seconds = min(self._until - self._loop.time(), self._seconds)
        if left_seconds > 0:
            self._timer = self._loop.call_later(left_seconds, self._look)
        else:
            self._end()


class UnsentTimer(_Timer):
    """Sees to it that something of what waits to be sent is taken, as long as anything does.

    Args:
        loop: the event loop of the connection.
        transport: the connection; is set to keep no more than `PROGRESS_BYTES`, as TLS would keep eight times as much.
        seconds: the time in which `PROGRESS_BYTES`, or all, must be taken.
        end: called when less was.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, seconds: float, end: Callable[[], None]
    ) -> None:
        super().__init__(loop, seconds, end)
        self._transport: Final = transport
        transport.set_write_buffer_limits(high=PROGRESS_BYTES)
        self._unsent_bytes = 0

    def begin(self) -> None:
        """Watch from now on, until everything is sent."""
        self._unsent_bytes = self._transport.get_write_buffer_size()
        if self._unsent_bytes and self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._transport.get_write_buffer_size() > max(0, self._unsent_bytes - PROGRESS_BYTES):
            self._end()
        else:
            self.begin()
