"""Leaves of an update of pet/1 as they come: each is charged as it grows, and taken in a worker thread before the next comes.

Between two leaves nothing waits: the thread that took one tells the event loop, which receives the next at once. A task with
time-outs of its own for each leaf took longer than checking and writing it.

Knows where bytes and threads come from, and not what a leaf is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from pet.bodies.memory_budget import Reservation
from pet.buffers import Buffer
from pet.errors import LocalProtocolError, ServiceBusyError
from pet.pet1.answers import OPEN
from pet.transports.body_reader import Keep
from pet.transports.pet1 import IncomingPiece
from pet.transports.service import Service


class LeafIntake:
    """Takes the leaves of one request; a `Taker`.

    Args:
        service: has memory and threads.
        piece: where leaves go.
        first: number of the first.
        sizes: of each in bytes, at least one.
        holder: who sends them.
        begin: announces what a leaf is charged to (`MemoryBudget.reserve_in_turn`).

    Attributes:
        answer: to the last leaf that was taken; None if nothing is said of it yet.
        is_over: whether no more is wanted: all leaves were taken, or one ended the piece.
    """

    def __init__(
        self,
        service: Service,
        piece: IncomingPiece,
        first: int,
        sizes: Sequence[int],
        holder: str,
        begin: Callable[[int], Reservation],
    ) -> None:
        self.answer: bytes | None = None
        self.is_over = False
        self.wake: Callable[[], None] = _do_nothing
        self._service: Final = service
        self._piece: Final = piece
        self._first: Final = first
        self._number = first
        self._sizes: Final = list(reversed(sizes))
        self._holder: Final = holder
        self._begin: Final = begin
        self._is_busy = False
        self._is_closed = False
        self._give_back: Callable[[], None] | None = None
        self._failure: BaseException | None = None
        self._settled: asyncio.Future[None] | None = None
        self._begin_leaf()
        self._raise_failure()

    # ---- what a taker does ---------------------------------------------------------------------------------------------

    @property
    def missing_bytes(self) -> int:
        """How many bytes of the leaf have not come; none while one is taken."""
        return 0 if self._is_busy or self.is_over else self._size_bytes - len(self._leaf)

    @property
    def is_busy(self) -> bool:
        """Whether a leaf is taken now."""
        return self._is_busy

    def take(self, piece: memoryview, keep: Keep | None = None) -> bool:
        """Take a part of a leaf, unless it has to wait for memory; a leaf that comes whole is worked on where it is."""
        has_room = self._reservation.grow_now(len(self._leaf) + len(piece))
        if has_room and keep is not None and len(piece) == self._size_bytes:
            self._give_back = keep()
            self._begin_work(piece, is_last=not self._sizes)
        elif has_room:
            self._extend(piece)
        return has_room

    # ---- what a request does -------------------------------------------------------------------------------------------

    @property
    def is_between(self) -> bool:
        """Whether a leaf was taken, and nothing of the next has come."""
        return self._number > self._first and not (self._is_busy or self._leaf)

    async def append(self, piece: memoryview) -> None:
        """Take a part of a leaf once there is memory for it, and wait for the leaf to be taken if it is whole.

        Raises:
            ReservationLostError: its memory was given to somebody else.
            ServiceBusyError: the leaf cannot be stored now, or there is no room for the next.
        """
        await self._reservation.grow(len(self._leaf) + len(piece))
        self._extend(piece)
        await self.settle()

    async def end(self) -> None:
        """Take a leaf of which no more comes.

        Raises:
            ServiceBusyError: as `append`.
        """
        self._begin_work(self._leaf, is_last=True)
        await self.settle()

    async def settle(self) -> None:
        """Wait until no leaf is being taken.

        Raises:
            ServiceBusyError: as `append`.
        """
        if self._is_busy:
            self._settled = asyncio.get_running_loop().create_future()
            await self._settled
        self._raise_failure()

    def close(self) -> None:
        """Give the memory back. A leaf that is being taken is taken to its end."""
        self._is_closed = True
        self._reservation.give_back()

    # ---- one leaf after the other --------------------------------------------------------------------------------------

    def _begin_leaf(self) -> None:
        size_bytes = self._sizes.pop()
        if self._service.memory.is_short_for(self._holder, size_bytes):
            self._failure = ServiceBusyError("leaf: expected free memory, got others that wait for some")
            self.is_over = True
            return
        self._leaf, self._size_bytes = bytearray(), size_bytes
        self._reservation = self._begin(size_bytes)

    def _extend(self, piece: memoryview) -> None:
        self._leaf.extend(piece)
        if len(self._leaf) == self._size_bytes:
            self._begin_work(self._leaf, is_last=not self._sizes)

    def _begin_work(self, leaf: Buffer, *, is_last: bool) -> None:
        self._reservation.finish()
        self._is_busy = True
        work = partial(self._piece.take, self._number, leaf, is_last=is_last)
        try:
            self._service.begin_work(work, self._end_work)
        except (LocalProtocolError, RuntimeError) as error:  # the service stops: who receives must not see it
            self._failure, self._is_busy, self.is_over = error, False, True

    def _end_work(self, done: Future[bytes | None]) -> None:
        self._is_busy = False
        if self._give_back is not None:
            self._give_back()
            self._give_back = None
        self._reservation.give_back()
        if not self._is_closed:
            self._go_on(done)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        self.wake()

    def _go_on(self, done: Future[bytes | None]) -> None:
        """See what came of a leaf, and begin the next if one is wanted."""
        if done.cancelled():
            self._failure = asyncio.CancelledError("the service stops")
        else:
            self._failure = done.exception()
        if self._failure is None:
            self.answer = done.result()
        is_ended = self.answer is not None and self.answer[0] != OPEN
        if is_ended or self._failure is not None or not self._sizes:
            self.is_over = True
        else:
            self._number += 1
            self._begin_leaf()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _do_nothing() -> None:
    pass
