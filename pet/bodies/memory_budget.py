"""A bound on the bytes that bodies hold in memory at the same time.

Bytes are charged when they arrive, not when they are promised: a sender that announces 150 MB and sends nothing holds nothing.
So that bodies which all have a part of what they need cannot block each other for ever, bytes are lent as a banker lends money:
only while every body, one after the other, could still get the rest of what it announced.

One sender gets all but a reserve, and large bodies leave a reserve for small ones, those of the same sender too. If there is
too little, the sender that holds most loses its newest body to one that holds less (pet/bodies/holders.py).

What is left are bodies that hold much and go on slowly. As long as nobody waits for their bytes they may; a body that others
wait for must make progress (`PROGRESS_SHARE`), or its memory is reclaimed. For one event loop; knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from pet.bodies.holders import RESERVED_PART, HolderTable, Holding
from pet.errors import ReservationLostError

DEFAULT_PATIENCE_SECONDS: Final = 30.0
#: While others wait, a body must grow by this share of its size in `patience_seconds`: 16 times 30 s make 150 MB in eight
#: minutes, or 2.5 Mbit/s.
PROGRESS_SHARE: Final = 16
#: Bodies up to this size are small: all messages but updates of more than some ten thousand weights.
SMALL_MESSAGE_BYTES: Final = 1 << 16


class _Pool:
    """Reservations with a common bound: each of them could still become whole, one after the other."""

    __slots__ = ("held_bytes", "largest_bytes", "limit_bytes", "reservations")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes: Final = limit_bytes
        self.held_bytes = 0
        #: No body has announced more than this since the pool exists.
        self.largest_bytes = 0
        self.reservations: Final[set[Reservation]] = set()

    def is_safe(self) -> bool:
        """Return whether all bodies can still become whole, one after the other, each giving its bytes back at its end."""
        free_bytes = self.limit_bytes - self.held_bytes
        if free_bytes >= self.largest_bytes:
            return True
        for reservation in sorted(self.reservations, key=lambda reservation: reservation.missing_bytes):
            if reservation.missing_bytes > free_bytes:
                return False
            free_bytes += reservation.size_bytes
        return True


class Reservation:
    """What one body may need, and what it has been charged for so far.

    Attributes:
        most_bytes: the most that it will be charged for.
        size_bytes: what it is charged for now.
        holder: who sends the body.
        pools: what it is in: the pool of everything first, then that of its holder.
        holding: the same bytes in the table of holders.
    """

    pools: tuple[_Pool, ...]
    holding: Holding

    def __init__(self, budget: MemoryBudget, most_bytes: int, holder: str, end: Callable[[], None] | None) -> None:
        self.most_bytes = most_bytes
        self.size_bytes = 0
        self.holder: Final = holder
        self._budget = budget
        #: None once the body is whole.
        self._end = end
        self._is_lost = False
        self._milestone_bytes = 0
        self._milestone_seconds = 0.0
        if end is not None:
            self._reset_milestone()

    @property
    def missing_bytes(self) -> int:
        """What it may still ask for."""
        return self.most_bytes - self.size_bytes

    async def grow(self, size_bytes: int) -> None:
        """Wait until the body may hold this number of bytes, those it has included.

        Raises:
            ReservationLostError: its memory was given to somebody else.
        """
        self._require_kept()
        size_bytes = min(size_bytes, self.most_bytes)
        if size_bytes > self.size_bytes:
            await self._budget._charge(self, size_bytes)
        if self.size_bytes >= self._milestone_bytes:
            self._reset_milestone()

    def grow_now(self, size_bytes: int) -> bool:
        """Let the body hold this number of bytes as `grow` does, if it need not wait for them; returns whether it may."""
        size_bytes = min(size_bytes, self.most_bytes)
        if self._is_lost or not (size_bytes <= self.size_bytes or self._budget._take_now(self, size_bytes)):
            return False
        if self.size_bytes >= self._milestone_bytes:
            self._reset_milestone()
        return True

    def finish(self) -> None:
        """Say that the body is whole: it keeps its bytes until the end, but will need no more.

        Raises:
            ReservationLostError: its memory was given to somebody else.
        """
        self._require_kept()
        self._end = None
        self.most_bytes = self.size_bytes
        self._budget._keep(self)

    def give_back(self) -> None:
        """Give all bytes back; calling it twice does no harm."""
        self._budget._take_back(self)
        self._budget._grant()

    def lose_if_slow(self, since_seconds: float) -> None:
        """Reclaim the bytes if the body has made no progress since then; reading it raises ReservationLostError."""
        if self._milestone_seconds < since_seconds:
            self.lose()

    def lose(self) -> None:
        """Take the bytes away, unless the body is whole."""
        if self._end is not None:
            self._is_lost = True
            self._end()

    def _require_kept(self) -> None:
        if self._is_lost:
            raise ReservationLostError("body: expected to keep its room, got others that have less and need it")

    def _reset_milestone(self) -> None:
        self._milestone_bytes = self.size_bytes + max(1, self.most_bytes // PROGRESS_SHARE)
        self._milestone_seconds = asyncio.get_running_loop().time()


class MemoryBudget:
    """A number of bytes, lent and given back.

    Args:
        capacity_bytes: bytes that may be out at the same time. A body that announces more than it can get gets on with that.
        patience_seconds: how long somebody waits for bytes before slow bodies lose theirs.
        reserve_bytes: what one sender leaves to others, and what large bodies leave to small ones; None means an eighth.
    """

    def __init__(
        self, capacity_bytes: int, patience_seconds: float = DEFAULT_PATIENCE_SECONDS, reserve_bytes: int | None = None
    ) -> None:
        self.capacity_bytes: Final = capacity_bytes
        self._reserve_bytes: Final = capacity_bytes // RESERVED_PART if reserve_bytes is None else reserve_bytes
        self._patience_seconds = patience_seconds
        self._holders: Final = HolderTable(capacity_bytes, self._reserve_bytes)
        self._all: Final = _Pool(capacity_bytes)
        self._large: Final = _Pool(capacity_bytes - self._reserve_bytes)
        #: By holder: the pool of all its bodies, and that of its large ones.
        self._pools: Final[dict[str, tuple[_Pool, _Pool]]] = {}
        self._waiters: dict[asyncio.Future[None], tuple[Reservation, int]] = {}
        self._pressure: asyncio.TimerHandle | None = None

    @property
    def free_bytes(self) -> int:
        """What is not lent now."""
        return self.capacity_bytes - self._all.held_bytes

    def is_short_for(self, holder: str, most_bytes: int) -> bool:
        """Return whether another body would have to wait: others do, and nobody holds more than its sender.

        Large bodies that wait hold up no small one.

        Args:
            holder: who sends it.
            most_bytes: its size at most.
        """
        is_large = most_bytes > SMALL_MESSAGE_BYTES
        if not any(is_large or self._large not in reservation.pools for reservation, _ in self._waiters.values()):
            return False
        return self._holders.is_largest(holder)

    def has_room(self, size_bytes: int, holder: str) -> bool:
        """Return whether `try_reserve` would probably succeed now: what bodies on their way may still need is not looked at."""
        has_room = self._holders.has_room(holder, self._most_for(size_bytes))
        return has_room and not self.is_short_for(holder, size_bytes)

    def _most_for(self, size_bytes: int) -> int:
        """Return what a body of that size is charged for at most: it gets on with what one sender can get."""
        is_large = size_bytes > SMALL_MESSAGE_BYTES
        return min(size_bytes, max(1, self.capacity_bytes - self._reserve_bytes * (1 + is_large)))

    @asynccontextmanager
    async def reserve(self, most_bytes: int, holder: str = "") -> AsyncIterator[Reservation]:
        """Announce a body of at most `most_bytes`. Nothing is charged yet; at the end of the `async with` all is given back.

        Args:
            most_bytes: its size at most.
            holder: who sends it.

        Raises:
            ReservationLostError: the body was too slow while others waited, or its bytes were given to somebody who had less.
        """
        async with self.reserve_in_turn(holder) as begin:
            reservation = begin(most_bytes)
            try:
                yield reservation
            finally:
                reservation.give_back()

    @asynccontextmanager
    async def reserve_in_turn(self, holder: str = "") -> AsyncIterator[Callable[[int], Reservation]]:
        """Announce bodies one after the other, each as `reserve` does, by calling what this gives with the most of its bytes.

        Who announces a body gives its bytes back, within the `async with`, before it announces the next.

        Args:
            holder: who sends them.

        Raises:
            ReservationLostError: as `reserve`, of the one that is on its way.
        """
        lease = asyncio.timeout(None)
        try:
            async with lease:
                yield lambda most_bytes: self._begin(most_bytes, holder, lambda: lease.reschedule(0))
        except TimeoutError:
            if not lease.expired():
                raise
            raise ReservationLostError("body: expected progress while others wait for room") from None

    def try_reserve(self, size_bytes: int, holder: str, end: Callable[[], None] | None) -> Reservation | None:
        """Charge a body for all its bytes at once, until `Reservation.give_back`; None if there is no room for it now.

        Args:
            size_bytes: its size.
            holder: who sends it.
            end: called when its bytes were given to somebody who had less; must arrange for its end. None for a body that is
                whole, as after `Reservation.finish`: it keeps them.
        """
        if self.is_short_for(holder, size_bytes):
            return None
        reservation = self._begin(size_bytes, holder, end)
        size_bytes = reservation.most_bytes
        if self._take_now(reservation, size_bytes):
            return reservation
        self._take_back(reservation)
        return None

    def _begin(self, most_bytes: int, holder: str, end: Callable[[], None] | None) -> Reservation:
        is_large, most_bytes = most_bytes > SMALL_MESSAGE_BYTES, self._most_for(most_bytes)
        reservation = Reservation(self, most_bytes, holder, end)
        reservation.pools = self._pools_of(holder, is_large=is_large)
        for pool in reservation.pools:
            pool.largest_bytes = max(pool.largest_bytes, most_bytes)
            pool.reservations.add(reservation)
        reservation.holding = self._holders.begin(holder, None if end is None else partial(self._evict, reservation))
        return reservation

    def _pools_of(self, holder: str, *, is_large: bool) -> tuple[_Pool, ...]:
        if holder not in self._pools:
            most_of_one = self._all.limit_bytes - self._reserve_bytes
            self._pools[holder] = _Pool(most_of_one), _Pool(most_of_one - self._reserve_bytes)
        whole, large = self._pools[holder]
        return (self._all, whole, self._large, large) if is_large else (self._all, whole)

    async def _charge(self, reservation: Reservation, size_bytes: int) -> None:
        if self._take_now(reservation, size_bytes):
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

    def _take_now(self, reservation: Reservation, size_bytes: int) -> bool:
        """Charge a body up to `size_bytes`, if it need not wait for that."""
        return self._take_if_safe(reservation, size_bytes) or self._take_from_larger(reservation, size_bytes)

    def _take_if_safe(self, reservation: Reservation, size_bytes: int) -> bool:
        """Charge a body up to `size_bytes`, unless bodies could then block each other."""
        earlier_bytes = reservation.size_bytes
        self._resize(reservation, size_bytes)
        if all(pool.held_bytes <= pool.limit_bytes and pool.is_safe() for pool in reservation.pools):
            self._holders.change(reservation.holding, size_bytes)
            return True
        self._resize(reservation, earlier_bytes)
        return False

    def _take_from_larger(self, reservation: Reservation, size_bytes: int) -> bool:
        """The same at the expense of senders that hold more, one body after the other."""
        growth = size_bytes - reservation.size_bytes
        whole = reservation.pools[1]
        if whole.held_bytes + growth > whole.limit_bytes:
            return False  # it is the sender's own bodies that are too many
        while self._holders.evict_larger(reservation.holder, growth):
            if self._take_if_safe(reservation, size_bytes):
                return True
        return False

    def _resize(self, reservation: Reservation, size_bytes: int) -> None:
        for pool in reservation.pools:
            pool.held_bytes += size_bytes - reservation.size_bytes
        reservation.size_bytes = size_bytes

    def _evict(self, reservation: Reservation) -> None:
        """Count the bytes of a body as free; its task ends as soon as the event loop gets to it."""
        self._leave_pools(reservation)
        reservation.lose()

    def _take_back(self, reservation: Reservation) -> None:
        self._leave_pools(reservation)
        self._holders.release(reservation.holding)
        pools = self._pools.get(reservation.holder)
        if pools is not None and not pools[0].reservations:
            del self._pools[reservation.holder]

    def _leave_pools(self, reservation: Reservation) -> None:
        self._resize(reservation, 0)
        for pool in reservation.pools:
            pool.reservations.discard(reservation)

    def _keep(self, reservation: Reservation) -> None:
        self._holders.keep(reservation.holding)
        self._grant()

    def _grant(self) -> None:
        """Serve who waits: the sender that holds least first, of its bodies the one with the least to come."""
        if not self._waiters:
            return
        waiting = [(granted, *waiter) for granted, waiter in self._waiters.items() if not granted.done()]
        refused = set[tuple[_Pool, ...]]()
        for granted, reservation, size_bytes in sorted(waiting, key=self._rank):
            # If it is not safe to serve that one, no other one of the same sender and kind is.
            if reservation.pools not in refused and reservation in self._all.reservations:
                if self._take_if_safe(reservation, size_bytes):
                    granted.set_result(None)
                else:
                    refused.add(reservation.pools)

    def _rank(self, waiter: tuple[asyncio.Future[None], Reservation, int]) -> tuple[int, int]:
        return self._holders.held_by(waiter[1].holder), waiter[1].missing_bytes

    def _put_pressure(self) -> None:
        """From now on, as long as anybody waits, reclaim the memory of stalled bodies."""
        if self._pressure is None:
            self._pressure = asyncio.get_running_loop().call_later(self._patience_seconds, self._press)

    def _press(self) -> None:
        self._pressure = None
        if self._waiters:
            since_seconds = asyncio.get_running_loop().time() - self._patience_seconds
            for reservation in self._all.reservations - {reservation for reservation, _ in self._waiters.values()}:
                reservation.lose_if_slow(since_seconds)
            self._put_pressure()
