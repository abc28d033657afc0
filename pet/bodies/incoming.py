"""Where bodies go while they arrive: small ones into memory, larger ones through two small pieces of memory into the spool.

Memory is lent as bytes arrive (pet/bodies/memory_budget.py), at most `SMALL_BODY_BYTES` for each body. Room in the spool is
set aside for a whole body, but only when its first `SMALL_BODY_BYTES` have come: a sender that announces 150 MB and sends
nothing holds nothing. A body that then grows slowly loses its room if another one is refused for want of it, and the newest one
of who holds most loses it to one of somebody who holds less. For one event loop; knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from typing import Final

from pet.bodies.body import MemoryBody, SealedBody
from pet.bodies.memory_budget import PROGRESS_SHARE, MemoryBudget, Reservation
from pet.bodies.spool import Spool, SpooledBody
from pet.errors import NoRoomError, ServiceBusyError

_logger: Final = logging.getLogger(__name__)

#: Bodies up to this size stay in memory.
SMALL_BODY_BYTES: Final = 1 << 20
#: What is written to a file at once; as much again can arrive meanwhile.
_WRITE_BYTES: Final = 1 << 19
#: Smaller pieces are put together: each has a price of its own, and a sender chooses how many there are.
_LARGE_PIECE_BYTES: Final = 1 << 16
#: Freed once, so that the C library keeps up to twice as much of what is freed later (mallopt(3), M_MMAP_THRESHOLD). It would
#: give every piece back to the system, and the next one would come in fresh pages, which cost more than receiving it.
_KEPT_BYTES: Final = 4 << 20


class Intake:
    """Takes bodies in.

    Args:
        budget: the memory that bodies may use.
        spool: where large bodies go.
        threads: where files are written.
        patience_seconds: the time in which a spooled body must grow by a sixteenth of its size while others are refused.
    """

    def __init__(self, budget: MemoryBudget, spool: Spool, threads: Executor, patience_seconds: float) -> None:
        self._budget = budget
        self._spool = spool
        self._threads = threads
        self._patience_seconds = patience_seconds
        self._spooling: set[SpoolingBody] = set()
        freed = bytearray(_KEPT_BYTES)
        del freed

    @asynccontextmanager
    async def receive_body(self, most_bytes: int, holder: str = "") -> AsyncIterator[SpoolingBody]:
        """Begin a body of at most `most_bytes`.

        Args:
            most_bytes: its size at most.
            holder: who sends it; see pet/bodies/holders.py.

        Raises:
            ServiceBusyError: there is no room for it now.
            ReservationLostError: the body was too slow while others waited, or its room was given to somebody who had less.
        """
        if self._budget.is_short_for(holder, most_bytes):
            raise ServiceBusyError("body: expected free memory, got others that wait for some")
        if most_bytes > SMALL_BODY_BYTES and not self._spool.has_room(most_bytes, holder):
            raise self._refuse(f"body: expected room for {most_bytes} bytes in the spool, got less")
        async with self._budget.reserve(min(most_bytes, SMALL_BODY_BYTES), holder) as reservation:
            body = SpoolingBody(self, reservation, most_bytes, holder)
            try:
                yield body
            finally:
                self._spooling.discard(body)
                await body.close()

    def _create_file(self, body: SpoolingBody, most_bytes: int) -> SpooledBody:
        try:
            file = self._spool.create(most_bytes, body.holder, body.lose)
        except NoRoomError as error:
            raise self._refuse(str(error)) from None
        except OSError as error:
            raise _cannot_write(error) from error
        self._spooling.add(body)
        return file

    def _refuse(self, description: str) -> ServiceBusyError:
        """Evict stalled bodies from the spool: the one that is refused now may find room next time."""
        since_seconds = asyncio.get_running_loop().time() - self._patience_seconds
        for body in self._spooling:
            body.lose_if_slow(since_seconds)
        return ServiceBusyError(description)


class SpoolingBody:
    """A body on its way, in memory or in a file; an `IncomingBody`.

    Attributes:
        size_bytes: what has come so far.
        holder: who sends it.
    """

    def __init__(self, intake: Intake, reservation: Reservation, most_bytes: int, holder: str) -> None:
        self.size_bytes = 0
        self.holder: Final = holder
        self._intake = intake
        self._reservation = reservation
        self._most_bytes = most_bytes
        self._pending = list[bytes | bytearray]()
        self._pending_bytes = 0
        self._file: SpooledBody | None = None
        self._writing: asyncio.Future[None] | None = None
        self._milestone_bytes = 0
        self._milestone_seconds = 0.0

    async def append(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            ServiceBusyError: the body needs a file, and there is no room for it, or the disk does not take it.
        """
        self.size_bytes += len(piece)
        if self.size_bytes > SMALL_BODY_BYTES and self._file is None:
            self._file = self._intake._create_file(self, self._most_bytes)
            self._note_progress()
        if self._file is None:
            await self._reservation.grow(self.size_bytes)
        self._keep_piece(piece)
        if self._file is not None and self._pending_bytes >= _WRITE_BYTES:
            await self._write_pending(self._file)
            self._note_progress()

    async def finish(self) -> SealedBody:
        """Say that the body is whole, and return it; it belongs to the caller.

        Raises:
            ServiceBusyError: the disk does not take it.
            ReservationLostError: its room was given to somebody else at the last moment.
        """
        if self._file is None:
            self._reservation.finish()
            return MemoryBody(b"".join(self._pending))
        await self._write_pending(self._file)
        await self._wait_for_writing()
        self._reservation.finish()
        self._file.finish()
        self._intake._spooling.discard(self)
        body, self._file = self._file, None
        return body

    async def close(self) -> None:
        """Discard a body that did not become whole."""
        if self._file is not None:
            try:
                with suppress(ServiceBusyError):
                    await self._wait_for_writing()
            finally:
                self._file.close()
                self._file = None

    def lose_if_slow(self, since_seconds: float) -> None:
        """Evict the body if it has stalled since then."""
        if self._milestone_seconds < since_seconds:
            self.lose()

    def lose(self) -> None:
        """Evict the body; reading it raises ReservationLostError."""
        self._reservation.lose()

    def _keep_piece(self, piece: bytes) -> None:
        """Keep a piece for the next write; a large one as it is."""
        self._pending_bytes += len(piece)
        if len(piece) >= _LARGE_PIECE_BYTES:
            self._pending.append(piece)
        elif self._pending and isinstance(self._pending[-1], bytearray):
            self._pending[-1] += piece
        else:
            self._pending.append(bytearray(piece))

    async def _write_pending(self, file: SpooledBody) -> None:
        """Write in a thread; the next bytes can arrive meanwhile, but not more than these."""
        await self._wait_for_writing()
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        self._writing = asyncio.get_running_loop().run_in_executor(self._intake._threads, file.write, *pending)

    async def _wait_for_writing(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            try:
                await writing
            except OSError as error:
                raise _cannot_write(error) from error

    def _note_progress(self) -> None:
        if self.size_bytes >= self._milestone_bytes:
            self._milestone_bytes = self.size_bytes + self._most_bytes // PROGRESS_SHARE
            self._milestone_seconds = asyncio.get_running_loop().time()


def _cannot_write(error: OSError) -> ServiceBusyError:
    # A full disk may have room again when the sender comes back; the operator has to hear of it now.
    _logger.error("the spool cannot be written: %s", error)
    return ServiceBusyError("body: expected a spool that can be written, got an error")
