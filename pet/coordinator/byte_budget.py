"""A bound on the bytes that requests hold in memory at the same time.

Whoever wants to read a body first waits here for room. Waiters are served in order of arrival, so a large body is not overtaken
for ever by small ones. For one event loop; knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Reservation:
    """Bytes that were granted to one request."""

    budget: ByteBudget = field(repr=False)
    size_bytes: int

    def shrink(self, size_bytes: int) -> None:
        """Give back what is above `size_bytes`, now that the size is known."""
        surplus = max(0, self.size_bytes - size_bytes)
        self.size_bytes -= surplus
        self.budget._give_back(surplus)


class ByteBudget:
    """So many bytes, lent and given back.

    Args:
        capacity_bytes: bytes that may be out at the same time. A request for more gets the whole budget for itself.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.free_bytes = capacity_bytes
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, size_bytes: int) -> AsyncIterator[Reservation]:
        """Wait until so many bytes are free and hold them inside the `async with`."""
        wanted = min(size_bytes, self.capacity_bytes)
        await self._take(wanted)
        reservation = Reservation(self, wanted)
        try:
            yield reservation
        finally:
            self._give_back(reservation.size_bytes)

    async def _take(self, wanted: int) -> None:
        if not self._waiters and wanted <= self.free_bytes:
            self.free_bytes -= wanted
            return
        granted = asyncio.get_running_loop().create_future()
        waiter = wanted, granted
        self._waiters.append(waiter)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                # Granted and cancelled in the same turn of the loop: the bytes were taken already.
                self._give_back(wanted)
            else:
                self._waiters.remove(waiter)
                self._grant()
            raise

    def _give_back(self, size_bytes: int) -> None:
        self.free_bytes += size_bytes
        self._grant()

    def _grant(self) -> None:
        while self._waiters and self._waiters[0][0] <= self.free_bytes:
            wanted, granted = self._waiters.popleft()
            self.free_bytes -= wanted
            granted.set_result(None)
