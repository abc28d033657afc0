"""A bound on the bytes that bodies hold in memory at the same time.

Bytes are charged when they arrive, not when they are promised: a sender that announces 150 MB and sends nothing holds nothing.
So that bodies which all have a part of what they need cannot block each other for ever, bytes are lent as a banker lends money:
only while every body, one after the other, could still get the rest of what it announced.

What is left are bodies that hold much and go on slowly. As long as nobody waits for their bytes they may; a body that others
wait for must make progress (`PROGRESS_SHARE`), or its memory is reclaimed. For one event loop; knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from pet.errors import ReservationLostError

DEFAULT_PATIENCE_SECONDS: Final = 30.0
#: While others wait, a body must grow by this share of its size in `patience_seconds`: 16 times 30 s make 150 MB in eight
#: minutes, or 2.5 Mbit/s.
PROGRESS_SHARE: Final = 16


class Reservation:
    """What one body may need, and what it has been charged for so far.

    Attributes:
        most_bytes: the most that it will be charged for.
        size_bytes: what it is charged for now.
    """

    def __init__(self, budget: MemoryBudget, most_bytes: int, lease: asyncio.Timeout) -> None:
        self.most_bytes = most_bytes
        self.size_bytes = 0
        self._budget = budget
        self._lease = lease
        self._is_finished = False
        self._milestone_bytes = 0
        self._milestone_seconds = 0.0
        self._reset_milestone()

    @property
    def missing_bytes(self) -> int:
        """What it may still ask for."""
        return self.most_bytes - self.size_bytes

    async def grow(self, size_bytes: int) -> None:
        """Wait until the body may hold this number of bytes, those it has included."""
        size_bytes = min(size_bytes, self.most_bytes)
        if size_bytes > self.size_bytes:
            await self._budget._charge(self, size_bytes)
        if self.size_bytes >= self._milestone_bytes:
            self._reset_milestone()

    def finish(self) -> None:
        """Say that the body is whole: it keeps its bytes until the end, but will need no more."""
        self._is_finished = True
        self.most_bytes = self.size_bytes
        self._lease.reschedule(None)
        self._budget._grant()

    def lose_if_slow(self, since_seconds: float) -> None:
        """Reclaim the bytes if the body has made no progress since then; reading it raises ReservationLostError."""
        if self._milestone_seconds < since_seconds:
            self.lose()

    def lose(self) -> None:
        """Take the bytes away, unless the body is whole."""
        if not self._is_finished:
            self._lease.reschedule(0)

    def _reset_milestone(self) -> None:
        self._milestone_bytes = self.size_bytes + max(1, self.most_bytes // PROGRESS_SHARE)
        self._milestone_seconds = asyncio.get_running_loop().time()


class MemoryBudget:
    """A number of bytes, lent and given back.

    Args:
        capacity_bytes: bytes that may be out at the same time. A body that announces more gets on with the whole budget.
        patience_seconds: how long somebody waits for bytes before slow bodies lose theirs.
    """

    def __init__(self, capacity_bytes: int, patience_seconds: float = DEFAULT_PATIENCE_SECONDS) -> None:
        self.capacity_bytes = capacity_bytes
        self.free_bytes = capacity_bytes
        self._patience_seconds = patience_seconds
        self._reservations: set[Reservation] = set()
        self._waiters: dict[asyncio.Future[None], tuple[Reservation, int]] = {}
        self._pressure: asyncio.TimerHandle | None = None
        #: No body has announced more than this since the budget exists.
        self._largest_bytes = 0

    @property
    def is_short(self) -> bool:
        """Whether somebody waits for bytes."""
        return bool(self._waiters)

    @asynccontextmanager
    async def reserve(self, most_bytes: int) -> AsyncIterator[Reservation]:
        """Announce a body of at most `most_bytes`. Nothing is charged yet; at the end of the `async with` all is given back.

        Raises:
            ReservationLostError: the body was too slow while others waited.
        """
        lease = asyncio.timeout(None)
        reservation = Reservation(self, min(most_bytes, self.capacity_bytes), lease)
        self._largest_bytes = max(self._largest_bytes, reservation.most_bytes)
        self._reservations.add(reservation)
        try:
            async with lease:
                yield reservation
        except TimeoutError:
            if not lease.expired():
                raise
            raise ReservationLostError("body: expected progress while others wait for room") from None
        finally:
            self._reservations.remove(reservation)
            self.free_bytes += reservation.size_bytes
            self._grant()

    async def _charge(self, reservation: Reservation, size_bytes: int) -> None:
        if self._take_if_safe(reservation, size_bytes):
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiters[granted] = reservation, size_bytes
        self._put_pressure()
        try:
            await granted
        finally:
            self._waiters.pop(granted, None)
        # The wait for memory was not the sender's fault.
        reservation._reset_milestone()

    def _take_if_safe(self, reservation: Reservation, size_bytes: int) -> bool:
        """Charge a body up to `size_bytes`, unless bodies could then block each other."""
        growth = size_bytes - reservation.size_bytes
        if growth > self.free_bytes:
            return False
        self.free_bytes -= growth
        reservation.size_bytes = size_bytes
        if self._is_safe():
            return True
        self.free_bytes += growth
        reservation.size_bytes -= growth
        return False

    def _is_safe(self) -> bool:
        """Return whether all bodies can still become whole, one after the other, each giving its bytes back at its end."""
        free_bytes = self.free_bytes
        if free_bytes >= self._largest_bytes:
            return True
        for reservation in sorted(self._reservations, key=lambda reservation: reservation.missing_bytes):
            if reservation.missing_bytes > free_bytes:
                return False
            free_bytes += reservation.size_bytes
        return True

    def _grant(self) -> None:
        """Serve who waits, the one with the least to come first: if it is not safe to serve that one, no other is."""
        waiting = [(granted, *waiter) for granted, waiter in self._waiters.items() if not granted.done()]
        for granted, reservation, size_bytes in sorted(waiting, key=lambda waiter: waiter[1].missing_bytes):
            if not self._take_if_safe(reservation, size_bytes):
                break
            granted.set_result(None)

    def _put_pressure(self) -> None:
        """From now on, as long as anybody waits, reclaim the memory of stalled bodies."""
        if self._pressure is None:
            self._pressure = asyncio.get_running_loop().call_later(self._patience_seconds, self._press)

    def _press(self) -> None:
        self._pressure = None
        if self._waiters:
            since_seconds = asyncio.get_running_loop().time() - self._patience_seconds
            for reservation in self._reservations - {reservation for reservation, _ in self._waiters.values()}:
                reservation.lose_if_slow(since_seconds)
            self._put_pressure()
