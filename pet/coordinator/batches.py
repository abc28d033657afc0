"""Messages on their way from an event loop to worker threads and back, a batch at a time.

A hand-over from a thread to another costs as much as opening a small message, and a commit more. So what comes while all
workers are busy waits, and goes to the next free one together; its outcome comes back together, too. Nobody waits for others
to come: a message that finds all workers free goes as soon as nothing more has arrived. One that finds some free goes along
with the next batch, unless as many wait as the last one had.

Large bodies go alone, beside the small ones, as many at a time as there are cores and their buffers may take memory. For one
event loop; knows neither messages nor how they came.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final, TypeAlias

from pet.bodies.body import SealedBody
from pet.bodies.incoming import SMALL_BODY_BYTES
from pet.errors import StorageError

_logger: Final = logging.getLogger(__name__)

#: What handles a batch, in a worker thread: for each body, None or why its outcome is not stored.
Handler: TypeAlias = Callable[[Sequence[SealedBody]], Sequence[StorageError | None]]
#: Gets the outcome of a body, in the event loop: None, or why it is not stored.
Tell: TypeAlias = Callable[[StorageError | None], None]
_Waiting: TypeAlias = tuple[SealedBody, Tell]

#: More than this in a batch saves nothing further, and the first would wait for the last.
MAX_BATCH: Final = 32
#: What opening a message takes whatever its size, in bytes of a long one: signatures and a key exchange.
_MESSAGE_WEIGHT: Final = 48 << 10
_MAX_WEIGHT: Final = MAX_BATCH * _MESSAGE_WEIGHT
#: Less is not worth two hand-overs.
_WORTH_SHARING: Final = 8 * _MESSAGE_WEIGHT
#: What large bodies may take together while they are open. One that is larger is open alone.
_MAX_OPEN_BYTES: Final = 64 << 20


class Batches:
    """Takes bodies, hands them to workers, and tells who waits.

    Args:
        handle: what is done with a batch; every body of it is closed afterwards.
        threads: at least twice as many as `workers`.
        workers: batches of small bodies that are handled at a time; large bodies, too, as far as memory allows.
    """

    def __init__(self, handle: Handler, threads: Executor, workers: int) -> None:
        self._handle: Final = handle
        self._threads: Final = threads
        self._workers: Final = workers
        self._loop: Final = asyncio.get_running_loop()
        self._small: Final = deque[_Waiting]()
        self._large: Final = deque[_Waiting]()
        self._small_weight = 0
        self._small_busy = self._large_busy = 0
        self._large_open_bytes = 0
        #: What the last batch of small bodies was counted as.
        self._last_weight = 0
        #: Whether `_look` is called in the next turn of the loop, and how many waited at the last one.
        self._is_looking = False
        self._seen = 0
        #: Called after each batch.
        self.on_batch: Callable[[], None] = lambda: None

    def put(self, body: SealedBody) -> asyncio.Future[StorageError | None]:
        """Take a body; the future has its outcome, once it was handled and closed."""
        outcome: asyncio.Future[StorageError | None] = self._loop.create_future()
        self.take(body, partial(_settle, outcome))
        return outcome

    def take(self, body: SealedBody, tell: Tell) -> None:
        """Take a body; `tell` gets its outcome, once it was handled and closed, and never before this returns."""
        if body.size_bytes <= SMALL_BODY_BYTES:
            self._small.append((body, tell))
            self._small_weight += _MESSAGE_WEIGHT + body.size_bytes
        else:
            self._large.append((body, tell))
        self._look_soon()

    def close(self) -> None:
        """Give up what no worker has; the others report as ever."""
        for waiting in (self._small, self._large):
            for body, tell in waiting:
                body.close()
                tell(StorageError("message: expected a service that goes on, got one that stops"))
            waiting.clear()
        self._small_weight = 0

    def _look_soon(self) -> None:
        if not self._is_looking:
            self._is_looking, self._seen = True, 0
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Hand over what waits, once a turn of the event loop has brought no more: what has arrived goes along."""
        if self._seen < len(self._small) < MAX_BATCH:
            self._seen = len(self._small)
            self._loop.call_soon(self._look)
            return
        self._is_looking = False
        self._hand_over()

    def _is_worth_another(self) -> bool:
        """Return whether to use a free worker: beside one that is busy, not for a few that could go with its next batch."""
        return not self._small_busy or self._small_weight >= min(self._last_weight, _WORTH_SHARING)

    def _hand_over(self) -> None:
        """Give what waits to workers that are free."""
        while self._small and self._small_busy < self._workers and self._is_worth_another():
            batch = self._take_share(self._workers - self._small_busy)
            self._small_busy += 1
            self._submit(batch, 0)
        while self._large and self._large_busy < self._workers:
            size_bytes = self._large[0][0].size_bytes
            if self._large_busy and self._large_open_bytes + size_bytes > _MAX_OPEN_BYTES:
                break
            self._large_busy += 1
            self._large_open_bytes += size_bytes
            self._submit([self._large.popleft()], size_bytes)

    def _submit(self, batch: Sequence[_Waiting], large_bytes: int) -> None:
        """Give a batch to a worker; where memory is too short even for that, its senders are to come again."""
        try:
            self._threads.submit(self._work, batch, large_bytes)
        except (MemoryError, RuntimeError) as error:
            _logger.exception("a batch of messages could not be given to a worker")
            for body, _ in batch:
                body.close()
            outcomes = [_not_handled(error)] * len(batch)
            self._loop.call_soon(self._report, batch, outcomes, large_bytes)

    def _take_share(self, free: int) -> list[_Waiting]:
        """Take the part of what waits that one of `free` workers should do: at least one message."""
        most = min(_MAX_WEIGHT, max(_WORTH_SHARING, -(-self._small_weight // free)))
        batch: list[_Waiting] = []
        weight = 0
        while self._small and weight < most and len(batch) < MAX_BATCH:
            batch.append(self._small.popleft())
            weight += _MESSAGE_WEIGHT + batch[-1][0].size_bytes
        self._small_weight -= weight
        self._last_weight = weight
        return batch

    def _work(self, batch: Sequence[_Waiting], large_bytes: int) -> None:
        """Handle a batch, in a worker thread."""
        outcomes: Sequence[StorageError | None]
        try:
            outcomes = self._handle([body for body, _ in batch])
        except BaseException as error:
            _logger.exception("a batch of messages could not be handled")
            outcomes = [_not_handled(error)] * len(batch)
        for body, _ in batch:
            body.close()
        self._loop.call_soon_threadsafe(self._report, batch, outcomes, large_bytes)

    def _report(self, batch: Sequence[_Waiting], outcomes: Sequence[StorageError | None], large_bytes: int) -> None:
        """Tell who waits, and use the worker again."""
        if large_bytes:
            self._large_busy -= 1
            self._large_open_bytes -= large_bytes
        else:
            self._small_busy -= 1
        for (_, tell), error in zip(batch, outcomes, strict=True):
            tell(error)
        # Who has an answer now sends its next message, which goes along with what waits.
        self._look_soon()
        self.on_batch()


def _settle(outcome: asyncio.Future[StorageError | None], error: StorageError | None) -> None:
    if not outcome.done():  # who waited may be gone
        outcome.set_result(error)


def _not_handled(error: BaseException) -> StorageError:
    return StorageError(f"message: expected it to be handled, got {type(error).__name__}")
