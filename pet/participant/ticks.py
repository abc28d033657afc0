"""A participant that is driven by ticks: the state machine, and a transport that carries out its requests.

One tick is one small step of docs/spec/pet.md 8.1, and returns at once when there is nothing to do: when to tick again is the
caller's business (thread.py waits, test_drive.py takes turns). There are two of them with the same flags and methods, one that
blocks and one for asyncio. They know no phase and no message: they carry what the machine asks for.

Source: docs/spec/pet.md 8.2.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any, Self, assert_never

from numpy.typing import NDArray

from pet.crypto import SigningKeyPair
from pet.errors import TransportError
from pet.masking import Scalar
from pet.participant.core import OnClip, ParticipantCore, machine_policy, max_model_bytes
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import Event, GetParameters, GetSeeds, GetSums, Request, SendMessage
from pet.protocol.strategies import TaskChoice, choose_task_by_signature
from pet.transports.base import AsyncTransport, Transport


class TickParticipant(ParticipantCore):
    """A participant for callers that block. Not thread-safe but for `set_model` and `give_up`."""

    _owns_transport: bool
    _is_waiting: bool
    _is_given_up: bool

    def __init__(
        self,
        coordinator: str | Transport,
        *,
        signing_key: SigningKeyPair | None = None,
        scalar: Scalar = 1,
        max_message_size: int | None = None,
        threads: int | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        choose_task: TaskChoice = choose_task_by_signature,
        on_clip: OnClip = "warn",
        max_model_length: int | None = None,
    ) -> None:
        """Prepare to take part; nothing is sent before the first tick.

        Args:
            coordinator: URL of the coordinator, or the way to it. A transport that was given stays open at `close`.
            signing_key: the participant's identity; a fresh one if None.
            scalar: weight of its models in the mean, 0 or more; for example its share of the samples. Times a weight it must
                stay within the bound of the coordinator's mask config, and so must the scalar itself.
            max_message_size: largest sealed message in bytes, 194 or more; larger ones go out in chunks. None is unlimited.
            threads: how many threads masking and adding up masks may use; None means PET_THREADS, else all cores.
            entropy: gives as many unpredictable bytes as asked for.
            choose_task: how the task of a round is found out: by chance, unless the key was made for one task.
            on_clip: what happens to scaled weights beyond the bound: clamped with one warning a round ("warn"), clamped and
                counted in `status.last_clipped_count` ("count"), or refused with a ModelError ("raise").
            max_model_length: longest model to take part with, as a coordinator decides how much memory this takes; None means
                that a masked model has at most 1 GiB.

        Raises:
            ConfigError: the URL, `max_message_size`, `on_clip` or `max_model_length` cannot be used.
            ModelError: the scalar cannot be used.
            MissingExtraError: a URL was given and the extra `http` is not installed.
        """
        machine = ParticipantMachine(
            signing_key=SigningKeyPair.generate() if signing_key is None else signing_key,
            entropy=entropy,
            scalar=scalar,
            max_message_size=max_message_size,
            threads=threads,
            choose_task=choose_task,
            on_clip=machine_policy(on_clip),
            max_model_length=max_model_length,
        )
        super().__init__(machine, on_clip)
        self._connect(coordinator)

    @classmethod
    def restore(
        cls,
        state: bytes,
        coordinator: str | Transport,
        *,
        threads: int | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        on_clip: OnClip = "warn",
        max_model_length: int | None = None,
    ) -> Self:
        """Go on from a saved state, with the signing key, scalar and message size that are in it.

        What the application decides for itself is no part of a state: threads, `on_clip`, `max_model_length`.

        Raises:
            StateError: the state is damaged or not one.
            ConfigError: the URL, `on_clip` or `max_model_length` cannot be used.
        """
        participant = cls.__new__(cls)
        machine = ParticipantMachine.restore(
            state, entropy=entropy, threads=threads, on_clip=machine_policy(on_clip), max_model_length=max_model_length
        )
        ParticipantCore.__init__(participant, machine, on_clip)
        participant._connect(coordinator)
        participant._resume_task()
        return participant

    def tick(self) -> list[Event]:
        """Do one step, with at most two requests, and return what happened.

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
                answer = self._carry_out(request)
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
                (reason "model_mismatch").
        """
        self._begin_waiting()
        try:
            with self._judging_model():
                parameters = self._machine.parameters or self._read_parameters(self._transport.get_parameters())
                answer = self._transport.get_model(max_model_bytes(parameters))
                return self._read_model(answer, parameters)
        finally:
            self._end_waiting()

    def close(self) -> None:
        """Close the connections that this participant opened."""
        if self._owns_transport:
            self._transport.close()

    def _connect(self, coordinator: str | Transport) -> None:
        self._waiting_lock = threading.Lock()
        self._is_waiting = self._is_given_up = False
        self._owns_transport = isinstance(coordinator, str)
        if isinstance(coordinator, str):
            from pet.transports.http import HttpTransport  # needs an extra that other transports do without

            self._transport: Transport = HttpTransport(coordinator)
        else:
            self._transport = coordinator

    def _carry_out(self, request: Request) -> bytes | None:
        match request:
            case GetParameters():
                return self._transport.get_parameters()
            case GetSums():
                return self._transport.get_sums()
            case GetSeeds():
                return self._transport.get_seeds(request.public_key)
            case SendMessage():
                self._transport.send_message(request.body)
                return None
            case _:
                assert_never(request)


class AsyncTickParticipant(ParticipantCore):
    """A participant for asyncio: requests run on the event loop, masking and adding masks in a worker thread."""

    _waiting: asyncio.Future[bytes | None] | None
    _is_given_up: bool

    def __init__(
        self,
        coordinator: str | AsyncTransport,
        *,
        signing_key: SigningKeyPair | None = None,
        scalar: Scalar = 1,
        max_message_size: int | None = None,
        threads: int | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        choose_task: TaskChoice = choose_task_by_signature,
        on_clip: OnClip = "warn",
        max_model_length: int | None = None,
    ) -> None:
        """Prepare to take part; see `TickParticipant`."""
        machine = ParticipantMachine(
            signing_key=SigningKeyPair.generate() if signing_key is None else signing_key,
            entropy=entropy,
            scalar=scalar,
            max_message_size=max_message_size,
            threads=threads,
            choose_task=choose_task,
            on_clip=machine_policy(on_clip),
            max_model_length=max_model_length,
        )
        super().__init__(machine, on_clip)
        self._connect(coordinator)

    @classmethod
    def restore(
        cls,
        state: bytes,
        coordinator: str | AsyncTransport,
        *,
        threads: int | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        on_clip: OnClip = "warn",
        max_model_length: int | None = None,
    ) -> Self:
        """Go on from a saved state; see `TickParticipant.restore`."""
        participant = cls.__new__(cls)
        machine = ParticipantMachine.restore(
            state, entropy=entropy, threads=threads, on_clip=machine_policy(on_clip), max_model_length=max_model_length
        )
        ParticipantCore.__init__(participant, machine, on_clip)
        participant._connect(coordinator)
        participant._resume_task()
        return participant

    async def tick(self) -> list[Event]:
        """Do one step and return what happened; see `TickParticipant.tick`. Must not be cancelled half-way."""
        self._begin_tick()
        while (request := self._machine.next_request()) is not None:
            self._waiting = asyncio.ensure_future(self._carry_out(request))
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
            parameters = self._machine.parameters or self._read_parameters(await self._transport.get_parameters())
            answer = await self._transport.get_model(max_model_bytes(parameters))
            return await asyncio.to_thread(self._read_model, answer, parameters)

    async def aclose(self) -> None:
        """Close the connections that this participant opened."""
        if self._owns_transport:
            await self._transport.aclose()

    def _connect(self, coordinator: str | AsyncTransport) -> None:
        self._waiting = None
        self._is_given_up = False
        self._owns_transport = isinstance(coordinator, str)
        if isinstance(coordinator, str):
            from pet.transports.http import AsyncHttpTransport  # needs an extra that other transports do without

            self._transport: AsyncTransport = AsyncHttpTransport(coordinator)
        else:
            self._transport = coordinator

    async def _carry_out(self, request: Request) -> bytes | None:
        match request:
            case GetParameters():
                return await self._transport.get_parameters()
            case GetSums():
                return await self._transport.get_sums()
            case GetSeeds():
                return await self._transport.get_seeds(request.public_key)
            case SendMessage():
                await self._transport.send_message(request.body)
                return None
            case _:
                assert_never(request)
