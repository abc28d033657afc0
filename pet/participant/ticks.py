"""A participant that is driven by ticks: the state machine, and a transport that carries out its requests.

One tick is one small step of docs/spec/pet.md 8.1, and returns at once when there is nothing to do: when to tick again is the
caller's business (thread.py waits, test_drive.py takes turns). There are two of them with the same flags and methods, one that
blocks and one for asyncio. They know no phase and no message: they carry what the machine asks for.

Source: docs/spec/pet.md 8.2.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from numpy.typing import NDArray

from pet.errors import TransportError
from pet.participant.core import ParticipantCore, ask
from pet.participant.flags import Machine, OnClip
from pet.participant.request_steps import begin, follow, throw
from pet.protocol.participant_events import Event
from pet.transports.base import AsyncTransport, Transport
from pet.transports.pinned import pin, pin_async


class TickParticipant(ParticipantCore[Transport]):
    """A participant for callers that block. Not thread-safe but for `set_model` and `give_up`."""

    _is_waiting: bool
    _is_given_up: bool

    def tick(self) -> list[Event]:
        """Do one step, with a few requests, and return what happened.

        Under pet/1 make `save()` durable after each step that made progress, before the next one: what it says must be true of
        what was sent (U7 of docs/spec/profile.md 13). `state_file` of the running participants does it.

        An unreachable coordinator is no error: the step makes no progress, and `last_error` says why. A message that is refused
        for good ends the task of the round, which `status` says.

        Raises:
            ModelError: the scalar is beyond the bound of the round's mask config, or the model is and `on_clip` is "raise".
        """
        self._begin_tick()
        while (request := self._machine.next_request()) is not None:
            if not self._begin_waiting():
                return []
            try:
                answer = ask(self._transport, request)
            except TransportError as error:
                if not self._end_waiting():
                    return []
                self._fail(error)
            else:
                if not self._end_waiting():
                    return []
                self._receive(request, answer)
        return self._finish_tick()

    def give_up(self) -> bool:
        """Give up a request under way, from another thread; a coordinator that hangs would hold it for a minute.

        Returns:
            Whether there was one. Then the tick changes nothing more and no other may follow; what `save` returns is final.
        """
        with self._waiting_lock:
            self._is_given_up = self._is_given_up or self._is_waiting
            if not self._is_given_up:
                return False
        end_requests = getattr(self._transport, "end_requests", None)
        if self._owns_transport and end_requests is not None:
            end_requests()
        return True

    @property
    def is_given_up(self) -> bool:
        """Whether a request was given up: nothing may be done with this participant but `save` and `close`."""
        return self._is_given_up

    def _begin_waiting(self) -> bool:
        """Note that a request begins; False if nothing may be asked now."""
        with self._waiting_lock:
            self._is_waiting = not self._is_given_up
            return self._is_waiting

    def _end_waiting(self) -> bool:
        """Note that a request is over; False if its answer comes too late."""
        with self._waiting_lock:
            self._is_waiting = False
            return not self._is_given_up

    def global_model(self) -> NDArray[Any] | None:
        """Fetch the last global model, in the data type of the round; None while there is none.

        Raises:
            TransportError: the coordinator cannot be reached.
            RemoteProtocolError: the answer is no model (reason "malformed_model", "out_of_range"), or one of another shape
                (reason "model_mismatch"); under pet/1 not the one that the round's record names ("wrong_model").
        """
        self._begin_waiting()
        try:
            with self._judging_model():
                step = begin(steps := self._model_steps())
                while step.request is not None:
                    try:
                        answer = ask(self._transport, step.request)
                    except TransportError as error:
                        step = throw(steps, error)
                    else:
                        step = follow(steps, answer)
                return step.result
        finally:
            self._end_waiting()

    def close(self) -> None:
        """Close the connections that this participant opened."""
        if self._owns_transport:
            self._transport.close()

    def _set_up(
        self,
        machine: Machine,
        on_clip: OnClip,
        coordinator: str | Transport,
        coordinator_key: bytes | None,
        allow_insecure: bool | None,
    ) -> None:
        self._waiting_lock = threading.Lock()
        self._is_waiting = self._is_given_up = False
        super()._set_up(machine, on_clip, coordinator, coordinator_key, allow_insecure)

    def _open(self, url: str, key: bytes | None, allow_insecure: bool | None) -> Transport:
        from pet.transports.http import HttpTransport  # needs an extra that other transports do without

        return HttpTransport(url, coordinator_key=key, allow_insecure=allow_insecure)

    def _pin(self, way: Transport, key: bytes | None) -> Transport:
        return pin(way, key, self._round_to_resume(), self._known_newest)


class AsyncTickParticipant(ParticipantCore[AsyncTransport]):
    """A participant for asyncio: requests run on the event loop, masking and adding masks in a worker thread."""

    _waiting: asyncio.Future[bytes | None] | None
    _is_given_up: bool

    async def tick(self) -> list[Event]:
        """Do one step and return what happened; see `TickParticipant.tick`. Must not be cancelled half-way."""
        self._begin_tick()
        while (request := self._machine.next_request()) is not None:
            self._waiting = asyncio.ensure_future(ask(self._transport, request))
            try:
                answer = await self._waiting
            except TransportError as error:
                self._fail(error)
            except asyncio.CancelledError:
                self._machine.receive_failure()
                if not self._is_given_up:
                    raise
            else:
                await asyncio.to_thread(self._receive, request, answer)
        return self._finish_tick()

    def give_up(self) -> None:
        """Give up a request under way: it would hold the tick for a minute if the coordinator hangs."""
        if self._waiting is not None and not self._waiting.done():
            self._is_given_up = True
            self._waiting.cancel()

    async def global_model(self) -> NDArray[Any] | None:
        """Fetch the last global model; see `TickParticipant.global_model`."""
        with self._judging_model():
            step = begin(steps := self._model_steps())
            while step.request is not None:
                try:
                    answer = await ask(self._transport, step.request)
                except TransportError as error:
                    step = throw(steps, error)
                else:
                    step = await asyncio.to_thread(follow, steps, answer)
            return step.result

    async def aclose(self) -> None:
        """Close the connections that this participant opened."""
        if self._owns_transport:
            await self._transport.aclose()

    def _set_up(
        self,
        machine: Machine,
        on_clip: OnClip,
        coordinator: str | AsyncTransport,
        coordinator_key: bytes | None,
        allow_insecure: bool | None,
    ) -> None:
        self._waiting = None
        self._is_given_up = False
        super()._set_up(machine, on_clip, coordinator, coordinator_key, allow_insecure)

    def _open(self, url: str, key: bytes | None, allow_insecure: bool | None) -> AsyncTransport:
        from pet.transports.http import AsyncHttpTransport  # needs an extra that other transports do without

        return AsyncHttpTransport(url, coordinator_key=key, allow_insecure=allow_insecure)

    def _pin(self, way: AsyncTransport, key: bytes | None) -> AsyncTransport:
        return pin_async(way, key, self._round_to_resume(), self._known_newest)
