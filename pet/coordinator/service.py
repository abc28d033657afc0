"""The service: an engine with time, worker threads and a bound on the memory of requests in flight, for one event loop.

Transports bring bodies here. Opening, checking and adding happens in worker threads, a batch at a time (batches.py), answers
are made in others, and a single thread lets phases end: however many messages queue up, a phase ends on time and participants
get their dictionaries. The service knows no route and no status code.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar

from pet.bodies.body import SealedBody, as_sealed_body
from pet.bodies.chunk_file import ChunkFile
from pet.bodies.incoming import SMALL_BODY_BYTES, Intake
from pet.bodies.memory_budget import MemoryBudget
from pet.bodies.spool import Spool
from pet.buffers import Buffer
from pet.coordinator.batches import Batches
from pet.coordinator.event_log import EventLog, WaitLog
from pet.coordinator.open_engine import open_engine
from pet.coordinator.round_engine import AnyEngine
from pet.coordinator.settings import Settings
from pet.coordinator.stores import Stores
from pet.coordinator.worker_threads import start_threads
from pet.errors import LocalProtocolError, ServiceBusyError, StorageError
from pet.transports.base import Endpoint
from pet.transports.refusal_counts import RefusalCounts
from pet.transports.service import IncomingBody

_logger: Final = logging.getLogger(__name__)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

#: Bodies in memory: thousands of Sum messages, or 64 large ones on their way into the spool.
DEFAULT_MAX_BYTES_IN_FLIGHT: Final = 64 * 2**20

MIN_SPOOL_BYTES: Final = 2**30
#: Large bodies on disk: while one is handled, many can be received. Sixteen updates of 150 MB are 2.4 GB.
_SPOOLED_MESSAGES: Final = 16

#: Each worker has a thread for small messages and one for large ones, so that small ones overtake.
_THREADS_PER_WORKER: Final = 2
#: How often a phase is looked at for having waited unusually long.
_POLL_SECONDS: Final = 5.0
#: How long to wait after an error that should not have happened, before time is tried again.
_RETRY_SECONDS: Final = 1.0
#: A phase that ends earlier by less than this is not looked at for that: the clock is read in two places.
_EARLIER_SECONDS: Final = 1e-3

DEFAULT_STALL_SECONDS: Final = 30.0

_NOT_RUNNING: Final = "CoordinatorService: expected a service that runs; start it, or use 'async with'"


class CoordinatorService:
    """Runs an engine inside an event loop: `async with service: ...`, or `start` and `stop`.

    Args:
        engine: the coordinator.
        workers: threads that handle messages; None means one per core.
        max_bytes_in_flight: bodies in memory at the same time, in bytes.
        spool_folder: where large bodies wait; None means the system's temporary folder.
        max_spool_bytes: bodies on disk at the same time, in bytes; None means room for sixteen of the largest messages, and at
            least 1 GiB.
        stall_seconds: how long a body may make no progress before its request is given up.
    """

    def __init__(
        self,
        engine: AnyEngine,
        *,
        workers: int | None = None,
        max_bytes_in_flight: int = DEFAULT_MAX_BYTES_IN_FLIGHT,
        spool_folder: Path | None = None,
        max_spool_bytes: int | None = None,
        stall_seconds: float = DEFAULT_STALL_SECONDS,
    ) -> None:
        self.engine: Final = engine
        self.stall_seconds = stall_seconds
        self.refusals: Final = RefusalCounts()
        self.workers: Final = workers or os.cpu_count() or 1
        if max_spool_bytes is None:
            max_spool_bytes = max(MIN_SPOOL_BYTES, _SPOOLED_MESSAGES * engine.max_body_bytes())
        self.memory: Final = MemoryBudget(max_bytes_in_flight, stall_seconds)
        self.spool: Final = Spool(spool_folder, max_spool_bytes, expects_keeping=engine.is_durable)
        self._batches: Batches | None = None
        self._intake: Intake | None = None
        self._spool_threads: ThreadPoolExecutor | None = None
        self._wake: Final = asyncio.Event()
        self._ticking: asyncio.Task[None] | None = None
        self._worker_threads: ThreadPoolExecutor | None = None
        self._answer_threads: ThreadPoolExecutor | None = None
        self._time_thread: ThreadPoolExecutor | None = None
        self._is_ticking_well = False
        self._is_stopping = False
        self._wait_log: Final = WaitLog()
        self._next_look_seconds = 0.0
        #: When time is looked at again, if nothing comes before.
        self._sleeps_until_seconds = 0.0
        #: Called with the bytes of a message and the seconds from its being whole to the end of its handling.
        self.on_message_handled: Callable[[int, float], None] | None = None
        #: Called with the reason of each upload over NATS that is refused, has to wait or is given up.
        self.on_upload_refused: Callable[[str], None] | None = None

    @classmethod
    def from_settings(cls, settings: Settings, stores: Stores | None = None) -> Self:
        """Build engine and service from settings, with phases and refusals logged.

        Args:
            settings: of rounds and service; where state is kept, `stores` alone says.
            stores: where rounds and models are kept, to be closed by the caller; None keeps them in memory.

        Raises:
            ConfigError: the protocol refuses the settings, or the list of participants cannot be used.
            StateError: what is stored is damaged, or not of a coordinator of this version.
            StorageError: a store cannot be reached.
        """
        spool_folder = settings.service.spool_folder or (stores.spool_folder if stores else None)
        engine = open_engine(settings, stores, ChunkFile(spool_folder))
        engine.subscribe(EventLog())
        return cls(
            engine,
            workers=settings.workers,
            max_bytes_in_flight=settings.service.max_bytes_in_flight,
            spool_folder=spool_folder,
            max_spool_bytes=settings.service.max_spool_bytes,
            stall_seconds=settings.service.stall_seconds,
        )

    async def start(self) -> None:
        """Begin the first round and let time pass from now on.

        Raises:
            LocalProtocolError: it was started before; a service runs once.
            ThreadStartError: the system does not start its threads.
        """
        if self._worker_threads is not None:
            raise LocalProtocolError("CoordinatorService.start: expected a service that was not started yet")
        try:
            self._worker_threads = start_threads(self.workers * _THREADS_PER_WORKER, "pet-worker")
            self._answer_threads = start_threads(self.workers, "pet-answer")
            self._time_thread = start_threads(1, "pet-time")
            self._spool_threads = start_threads(1, "pet-spool")
            self._batches = Batches(self.engine.handle_messages, self._worker_threads, self.workers)
            self._batches.on_batch = self._wake_if_earlier
            self._intake = Intake(self.memory, self.spool, self._spool_threads, self.stall_seconds)
            await self._tick()
            if (largest_bytes := self.engine.max_body_bytes_ever()) > SMALL_BODY_BYTES:
                await self.run(self.spool.prepare, largest_bytes)
        except BaseException:
            self._close_threads()
            raise
        self._ticking = asyncio.create_task(self._let_time_pass(), name="pet-ticking")

    async def stop(self) -> None:
        """Shut the engine down after the messages that are being handled; calling it twice does no harm."""
        if self._ticking is not None:
            # Not cancelled: a tick that has begun in its thread would go on without anybody waiting for it.
            self._is_stopping = True
            self._wake.set()
            await self._ticking
            if self._batches is not None:
                self._batches.close()
            self._ticking = None
            self._is_ticking_well = False
            await asyncio.to_thread(self._close_threads)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @asynccontextmanager
    async def lifespan(self, _app: Any) -> AsyncIterator[None]:
        """Run as long as an ASGI application does: `Starlette(lifespan=service.lifespan)`."""
        async with self:
            yield

    @property
    def is_healthy(self) -> bool:
        """Whether the service runs and time passes in it."""
        return self._is_ticking_well

    @property
    def memory_in_flight_bytes(self) -> int:
        """The bodies that are in memory now."""
        return self.memory.capacity_bytes - self.memory.free_bytes

    @property
    def endpoint(self) -> Endpoint:
        """What answers: the engine."""
        return self.engine

    def note_refused_upload(self, reason: str) -> None:
        """Count an upload over NATS that was refused, had to wait or was given up, by reason."""
        if self.on_upload_refused is not None:
            self.on_upload_refused(reason)

    def receive_body(self, most_bytes: int, holder: str = "") -> AbstractAsyncContextManager[IncomingBody]:
        """Begin a body of at most `most_bytes`; see `Intake.receive_body`.

        Raises:
            LocalProtocolError: the service does not run.
        """
        if self._intake is None:
            raise LocalProtocolError(_NOT_RUNNING)
        return self._intake.receive_body(most_bytes, holder)

    async def handle_message(self, body: SealedBody | Buffer) -> None:
        """Give one sealed message to the engine, with others in a worker thread, and close it.

        Raises:
            LocalProtocolError: the service does not run.
            ServiceBusyError: the outcome of the message cannot be stored now.
        """
        outcome = asyncio.get_running_loop().create_future()
        self.take_message(body, partial(_settle, outcome))
        await outcome

    def take_message(self, body: SealedBody | Buffer, tell: Callable[[ServiceBusyError | None], None]) -> None:
        """Give one sealed message to the engine, as `handle_message` does; `tell` gets what that would raise.

        Raises:
            LocalProtocolError: the service does not run.
        """
        if self._batches is None:
            raise LocalProtocolError(_NOT_RUNNING)
        body = as_sealed_body(body)
        self._batches.take(body, partial(self._tell_handled, tell, body.size_bytes, time.monotonic()))

    def _tell_handled(
        self,
        tell: Callable[[ServiceBusyError | None], None],
        size_bytes: int,
        begin_seconds: float,
        error: StorageError | None,
    ) -> None:
        if error is None and self.on_message_handled is not None:
            self.on_message_handled(size_bytes, time.monotonic() - begin_seconds)
        tell(None if error is None else ServiceBusyError(str(error)))

    def _wake_if_earlier(self) -> None:
        """Look at time now, if a message has brought the end of the phase forward."""
        delay = self.engine.seconds_until_tick()
        if delay is not None and time.monotonic() + delay < self._sleeps_until_seconds - _EARLIER_SECONDS:
            self._wake.set()

    async def run(
        self, function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **keywords: _Arguments.kwargs
    ) -> _Result:
        """Call a function that makes an answer, in a thread of its own: messages that queue up must not delay answers.

        Raises:
            LocalProtocolError: the service does not run.
        """
        return await _run_in(self._answer_threads, function, *arguments, **keywords)

    async def work(
        self, function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **keywords: _Arguments.kwargs
    ) -> _Result:
        """Call a function that takes a part of something large, in a thread of those that handle messages.

        Raises:
            LocalProtocolError: the service does not run.
            ServiceBusyError: what it does cannot be stored now.
        """
        try:
            return await _run_in(self._worker_threads, function, *arguments, **keywords)
        except StorageError as error:
            raise ServiceBusyError(str(error)) from None
        finally:
            self._wake_if_earlier()

    def begin_work(self, function: Callable[[], _Result], tell: Callable[[Future[_Result]], None]) -> None:
        """Call a function as `work` does; `tell` gets what is done, in the event loop.

        Raises:
            LocalProtocolError: the service does not run.
        """
        if self._worker_threads is None:
            raise LocalProtocolError(_NOT_RUNNING)
        loop = asyncio.get_running_loop()

        def call() -> _Result:
            try:
                return function()
            except StorageError as error:
                raise ServiceBusyError(str(error)) from None

        def pass_on(done: Future[_Result]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._tell_done, tell, done)

        self._worker_threads.submit(call).add_done_callback(pass_on)

    def _tell_done(self, tell: Callable[[Future[_Result]], None], done: Future[_Result]) -> None:
        self._wake_if_earlier()
        tell(done)

    async def _let_time_pass(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            delay = self.engine.seconds_until_tick()
            if delay is None or delay > 0:
                look_delay = self._look_for_long_wait()
                sleep_seconds = look_delay if delay is None else min(delay, look_delay)
                self._sleeps_until_seconds = time.monotonic() + sleep_seconds
                with suppress(TimeoutError):
                    async with asyncio.timeout(sleep_seconds):
                        await self._wake.wait()
                continue
            try:
                await self._tick()
            except StorageError as error:
                self._is_ticking_well = False
                _logger.warning("the round waits for its storage, trying again in %g s: %s", _RETRY_SECONDS, error)
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:
                # Nothing a participant sends may end up here. If it does, the coordinator says so and goes on trying.
                self._is_ticking_well = False
                _logger.exception("the round could not go on; trying again in %g s", _RETRY_SECONDS)
                await asyncio.sleep(_RETRY_SECONDS)

    def _look_for_long_wait(self) -> float:
        """Log a phase that waits unusually long, every few seconds at most; returns the seconds until the next look."""
        now_seconds = time.monotonic()
        if now_seconds >= self._next_look_seconds:
            self._next_look_seconds = now_seconds + _POLL_SECONDS
            self._wait_log.look(self.engine.status())
        return self._next_look_seconds - now_seconds

    async def _tick(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._time_thread, self.engine.tick)
        self._is_ticking_well = True

    def _close_threads(self) -> None:
        for threads in (self._worker_threads, self._answer_threads, self._time_thread, self._spool_threads):
            if threads is not None:
                threads.shutdown(wait=True, cancel_futures=True)
        self.engine.shut_down()


def _settle(outcome: asyncio.Future[None], error: ServiceBusyError | None) -> None:
    if outcome.done():  # who waited may be gone
        return
    if error is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(error)


async def _run_in(
    threads: ThreadPoolExecutor | None,
    function: Callable[_Arguments, _Result],
    *arguments: _Arguments.args,
    **keywords: _Arguments.kwargs,
) -> _Result:
    """Call a function in one of these threads.

    Raises:
        LocalProtocolError: there are none, as the service does not run.
    """
    if threads is None:
        raise LocalProtocolError(_NOT_RUNNING)
    return await asyncio.get_running_loop().run_in_executor(threads, lambda: function(*arguments, **keywords))
