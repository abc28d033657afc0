"""A participant for asyncio: set a model at any time, and learn of new global models.

Requests run on the event loop, heavy work in worker threads. Nothing of the protocol is known here but the flags of
`AsyncTickParticipant`.

Source: docs/spec/pet.md 8.3, with NumPy arrays in place of lists.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from numpy.typing import NDArray

from pet.crypto import SigningKeyPair
from pet.errors import LocalProtocolError, PetError, RemoteProtocolError, TransportError
from pet.masking import Scalar
from pet.participant.back_off import BackOff, Patience
from pet.participant.core import LocalModelConfig
from pet.participant.enrolments import EnrolmentSource
from pet.participant.flags import OnClip
from pet.participant.opening import open_participant
from pet.participant.status import ParticipantStatus
from pet.participant.ticks import AsyncTickParticipant
from pet.protocol.participant_events import NewRound
from pet.transports.base import AsyncTransport

#: Between two attempts to fetch a global model.
_FETCH_SECONDS: Final = 1.0
#: How long a request may go on after `stop`.
_GRACE_SECONDS: Final = 0.5


class AsyncParticipant:
    """A participant that runs as a task of the event loop.

        async with AsyncParticipant("http://127.0.0.1:8081") as participant:
            async for global_model in participant.global_models():
                participant.set_local_model(train(global_model))  # None while there is no global model yet

    An exception that ends the participant (weights or a scalar beyond the bound, see `on_clip`) ends the loop too; it stands in
    `status.ended_by`, and `stop`, or the end of the `async with`, raises it.

    Attributes:
        new_global_model: set when there may be a new global model (also when there turns out to be none), cleared by
            `get_global_model`.
    """

    def __init__(
        self,
        coordinator: str | AsyncTransport,
        *,
        state: bytes | None = None,
        state_file: Path | str | None = None,
        scalar: Scalar = 1,
        signing_key: SigningKeyPair | None = None,
        max_message_size: int | None = None,
        back_off: BackOff | None = None,
        threads: int | None = None,
        on_clip: OnClip = "warn",
        max_model_length: int | None = None,
        coordinator_key: bytes | str | None = None,
        allow_insecure: bool | None = None,
        enrolment: EnrolmentSource | None = None,
        least_passive: int = 1,
        least_active: int = 1,
        least_updates: int = 3,
    ) -> None:
        """Prepare to take part; nothing happens before `start`, or `async with`. Arguments are those of `spawn_participant`."""
        self._ticks, self._state_file = open_participant(
            AsyncTickParticipant,
            coordinator,
            state=state,
            state_file=state_file,
            signing_key=signing_key,
            scalar=scalar,
            max_message_size=max_message_size,
            threads=threads,
            on_clip=on_clip,
            max_model_length=max_model_length,
            coordinator_key=coordinator_key,
            allow_insecure=allow_insecure,
            enrolment=enrolment,
            least_passive=least_passive,
            least_active=least_active,
            least_updates=least_updates,
        )
        self.new_global_model = asyncio.Event()
        if self._ticks.new_global_model:
            self.new_global_model.set()  # restored in the middle of a round
        self._back_off = back_off or BackOff()
        self._patience = Patience(self._back_off)
        self._wake_up = asyncio.Event()
        self._stop_requested = False
        self._task: asyncio.Task[None] | None = None
        self._final_state: bytes | None = None

    async def __aenter__(self) -> Self:
        """Start."""
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; the state is what `stop` returns when called again."""
        await self.stop()

    def start(self) -> None:
        """Begin to tick, as a task of the running event loop.

        Raises:
            LocalProtocolError: started before.
        """
        if self._task is not None:
            raise LocalProtocolError("start: expected to be called once, got a second call")
        self._task = asyncio.create_task(self._run(), name=f"pet-participant-{self._ticks.public_key.hex()[:8]}")

    @property
    def local_model_config(self) -> LocalModelConfig:
        """What `set_local_model` expects now: float32 of length 0 before the first contact."""
        return self._ticks.local_model_config

    @property
    def status(self) -> ParticipantStatus:
        """How the participant is doing: connected or why not, its task, what it sent, what ended it."""
        is_over = self._task is not None and self._task.done() and not self._task.cancelled()
        return replace(self._ticks.status, ended_by=self._task.exception() if is_over and self._task is not None else None)

    @property
    def last_error(self) -> PetError | None:
        """Why the last attempt got no usable answer from the coordinator; None if it did."""
        return self.status.last_error

    @property
    def is_model_wanted(self) -> bool:
        """Whether the participant has an update task and waits for a model."""
        return self._ticks.should_set_model

    def set_local_model(self, model: NDArray[Any]) -> None:
        """Hold a copy of a model for the next update task, in place of an earlier one.

        Raises:
            ModelError: no array of one dimension, wrong dtype or length, NaN or infinite weights, or no contact with the
                coordinator yet.
        """
        self._ticks.set_model(model)
        self._wake_up.set()

    async def get_global_model(self) -> NDArray[Any] | None:
        """Fetch the last global model; None while there is none.

        Raises:
            TransportError: the coordinator cannot be reached.
            RemoteProtocolError: the answer is no model of this round.
        """
        self.new_global_model.clear()
        return await self._ticks.global_model()

    async def global_models(self) -> AsyncIterator[NDArray[Any] | None]:
        """Yield the global model at the beginning of each round, until the participant ends.

        While there is no global model yet, None stands for it: somebody has to send the first models. A fetch that fails is
        tried again, as long as its round lasts.
        """
        while await self._wait_for_round():
            try:
                model = await self.get_global_model()
            except TransportError:
                await self._retry_fetch()
            except RemoteProtocolError as error:
                if error.reason == "model_mismatch":
                    # Left over from an earlier configuration of the coordinator: for this one there is no model yet.
                    self._ticks.new_global_model = False
                    yield None
                else:
                    await self._retry_fetch()
            else:
                yield model

    async def stop(self) -> bytes:
        """Stop after the current tick and return the state, which contains **secret keys in clear**.

        A request that takes longer than half a second is given up; the state is the one before it.

        Calling it again returns the same state.

        Raises:
            Exception: whatever ended the ticks before, once; the state is there nevertheless at the next call.
        """
        self._stop_requested = True
        self._wake_up.set()
        if self._final_state is not None:
            return self._final_state
        if self._task is not None:
            # Not awaited itself: a tick must not be cancelled with its waiter, while a worker thread is inside the machine.
            _, unfinished = await asyncio.wait({self._task}, timeout=_GRACE_SECONDS)
            if unfinished:
                self._ticks.give_up()
                await asyncio.wait(unfinished)
        self._final_state = self._ticks.save()
        await self._ticks.aclose()
        if self._state_file is not None:
            self._state_file.save(self._final_state)
            self._state_file.close()
        if self._task is not None:
            self._task.result()
        return self._final_state

    async def _run(self) -> None:
        delay_seconds = 0.0
        while not self._stop_requested:
            self._wake_up.clear()
            events = await self._ticks.tick()
            self._patience.note(self._ticks.last_error)
            if not self._back_off.waits_for_repair:
                self._ticks.raise_permanent_error()
            if self._state_file is not None and self._ticks.made_progress:
                # In a thread: what was sealed may be large, and it must be on the disk before it is sent.
                await asyncio.to_thread(self._state_file.save, self._ticks.save())
            is_new_round = any(isinstance(event, NewRound) for event in events)
            if is_new_round:
                self.new_global_model.set()
            delay_seconds = self._back_off.next_seconds(
                delay_seconds,
                made_progress=self._ticks.made_progress,
                is_new_round=is_new_round,
                is_answered=self._ticks.last_error is None,
                has_task=self._ticks.has_task,
            )
            wait_seconds = self._ticks.retry_after_seconds + self._back_off.shorten(delay_seconds)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake_up.wait(), wait_seconds)

    async def _retry_fetch(self) -> None:
        """Have the global model fetched again in a while; the status says why it was not, and the log did once."""
        assert self._task is not None, "only a participant that was started has rounds"
        await asyncio.wait({self._task}, timeout=self._back_off.shorten(min(_FETCH_SECONDS, self._back_off.max_seconds)))
        self.new_global_model.set()

    async def _wait_for_round(self) -> bool:
        """Wait for a new round; False if the participant ended instead."""
        if self._task is None:
            raise LocalProtocolError("global_models: expected a participant that was started, got one that was not")
        news = asyncio.create_task(self.new_global_model.wait())
        try:
            await asyncio.wait({news, self._task}, return_when=asyncio.FIRST_COMPLETED)
            return not self._task.done()
        finally:
            news.cancel()
