"""What the blocking and the asyncio participant share: how they are made and restored, and the steps of the machine.

Nothing here does I/O or waits, but for a transport that is opened for a URL. Source: docs/spec/pet.md 8.2, 3.8.
"""

from __future__ import annotations

import logging
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, MessageTooLargeError, RemoteProtocolError, StateError, TransportError, TransportRefusedError
from pet.masking import Scalar
from pet.participant.enrolments import EnrolmentSource, EnrolmentTrust
from pet.participant.flags import Machine, OnClip, ParticipantFlags
from pet.participant.model_answer import fetch_model
from pet.participant.pet1_documents import GET_ROUND
from pet.participant.pet1_machine import Pet1Machine
from pet.participant.pet1_state import is_pet1_state
from pet.participant.pinned_state import with_newest_round, without_newest_round
from pet.participant.status import Task
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import GetParameters
from pet.protocol.strategies import TaskChoice, choose_task_by_signature
from pet.transports.base import AsyncTransport, Transport
from pet.transports.pet1 import AsyncPet1Transport, Pet1Transport
from pet.transports.pet1_requests import GetDocument, GetHeaders, OpenUpdate, Pet1Request, SendPiece, carry_out_pet1
from pet.transports.pinned import AsyncPinnedTransport, NewestRound, PinnedTransport, parse_coordinator_key
from pet.transports.requests import TransportRequest, carry_out

_logger: Final = logging.getLogger(__name__)

#: How long chunks go out before the round parameters are asked for again.
_FRESH_SECONDS: Final = 1.0

#: The way to a coordinator, one of two kinds.
Way = TypeVar("Way", Transport, AsyncTransport)


@dataclass(frozen=True, slots=True)
class LocalModelConfig:
    """What a model of the current round looks like: one dimension, `length` weights of `dtype`."""

    dtype: np.dtype[Any]
    length: int


class ParticipantCore(ParticipantFlags, ABC, Generic[Way]):
    """What both kinds of participants share: how they are made and restored, and the steps of the machine."""

    #: What a restored participant knew of its coordinator's rounds.
    _known_newest: NewestRound | None = None

    def __init__(
        self,
        coordinator: str | Way,
        *,
        signing_key: SigningKeyPair | None = None,
        scalar: Scalar = 1,
        max_message_size: int | None = None,
        threads: int | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        choose_task: TaskChoice = choose_task_by_signature,
        on_clip: OnClip = "warn",
        max_model_length: int | None = None,
        ephemeral_seed: bytes | None = None,
        coordinator_key: bytes | str | None = None,
        allow_insecure: bool | None = None,
        enrolment: EnrolmentSource | None = None,
        least_passive: int = 1,
        least_active: int = 1,
        least_updates: int = 3,
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
            ephemeral_seed: 32 bytes that the ephemeral key of the first Sum task is made of; None draws it.
            coordinator_key: public key of the coordinator, 32 bytes or their text: only answers that it signed, in the round
                that they are for, are taken. None takes the key of the transport, if it has one.
            allow_insecure: with a URL, as in `HttpTransport`.
            enrolment: who may take part in rounds of pet/1, and who is a member: the path of its file, an `Enrolment`, its
                digest, or the public key of the authority that signs it. With it nothing but pet/1 is taken part in, and the
                signing key has to be an enrolled one; without it, xaynet's profile is.
            least_passive: how many members that collude must not suffice with a coordinator that follows the protocol; an
                enrolment with less protection is refused.
            least_active: the same for a coordinator that does anything.
            least_updates: the least number of updates that an enrolment must ask for.

        Raises:
            ConfigError: the URL, `max_message_size`, `on_clip`, `max_model_length`, `ephemeral_seed`, the key or the enrolment
                cannot be used, or http:// would be insecure.
            ModelError: the scalar cannot be used.
            MissingExtraError: a URL was given and the extra `http` is not installed.
        """
        coordinator_key = None if coordinator_key is None else parse_coordinator_key(coordinator_key)
        machine: Machine
        if enrolment is None:
            machine = ParticipantMachine(
                signing_key=SigningKeyPair.generate() if signing_key is None else signing_key,
                entropy=entropy,
                scalar=scalar,
                max_message_size=max_message_size,
                threads=threads,
                choose_task=choose_task,
                on_clip=machine_policy(on_clip),
                max_model_length=max_model_length,
                ephemeral_seed=ephemeral_seed,
            )
        else:
            if signing_key is None or choose_task is not choose_task_by_signature or ephemeral_seed is not None:
                raise ConfigError("enrolment: expected the signing key of an enrolled participant, and no task of xaynet's")
            machine = Pet1Machine(
                signing_key=signing_key,
                trust=_trust(enrolment, least_passive, least_active, least_updates),
                entropy=entropy,
                clock=time.time,
                scalar=scalar,
                max_message_size=max_message_size,
                threads=threads,
                on_clip=machine_policy(on_clip),
                max_model_length=max_model_length,
                coordinator_key=coordinator_key,
            )
        self._set_up(machine, on_clip, coordinator, coordinator_key, allow_insecure)
        self._take_events()

    @classmethod
    def restore(
        cls,
        state: bytes,
        coordinator: str | Way,
        *,
        threads: int | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        on_clip: OnClip = "warn",
        max_model_length: int | None = None,
        coordinator_key: bytes | str | None = None,
        allow_insecure: bool | None = None,
        enrolment: EnrolmentSource | None = None,
        least_passive: int = 1,
        least_active: int = 1,
        least_updates: int = 3,
    ) -> Self:
        """Go on from a saved state, with the signing key, scalar and message size that are in it.

        What the application decides for itself is no part of a state: threads, `on_clip`, `max_model_length`,
        `coordinator_key`, `allow_insecure`, `enrolment` and what is asked of it.

        Raises:
            StateError: the state is damaged, not one, or of a participant of the other profile.
            ConfigError: the URL, `on_clip`, `max_model_length`, the key or the enrolment cannot be used, or http:// would be
                insecure.
        """
        participant = cls.__new__(cls)
        state, participant._known_newest = without_newest_round(state)
        coordinator_key = None if coordinator_key is None else parse_coordinator_key(coordinator_key)
        options: dict[str, Any] = {
            "entropy": entropy,
            "threads": threads,
            "on_clip": machine_policy(on_clip),
            "max_model_length": max_model_length,
        }
        machine: Machine
        if enrolment is not None:
            trust = _trust(enrolment, least_passive, least_active, least_updates)
            machine = Pet1Machine.restore(state, trust=trust, clock=time.time, coordinator_key=coordinator_key, **options)
        elif is_pet1_state(state):
            raise StateError("saved participant: expected enrolment= with a state of pet/1, got none")
        else:
            machine = ParticipantMachine.restore(state, **options)
        participant._set_up(machine, on_clip, coordinator, coordinator_key, allow_insecure)
        participant._resume_task()
        return participant

    @property
    def local_model_config(self) -> LocalModelConfig:
        """What `set_model` expects now: float32 of length 0 before the first contact."""
        followed = self._machine.round
        if followed is None:
            return LocalModelConfig(np.dtype(np.float32), 0)
        return LocalModelConfig(followed.config.dtype, followed.model_length)

    def set_model(self, model: NDArray[Any]) -> None:
        """Hold a copy of a model for the next update task, in place of an earlier one.

        Args:
            model: one dimension, as `local_model_config` says; finite.

        Raises:
            ModelError: wrong dtype or length, NaN or infinite weights, or no contact with the coordinator yet.
        """
        self._machine.set_model(model)
        self.should_set_model = False

    def save(self) -> bytes:
        """Return what `restore` needs to go on later. It contains **secret keys in clear**."""
        newest = self._transport.newest if isinstance(self._transport, PinnedTransport | AsyncPinnedTransport) else None
        return with_newest_round(self._machine.save(), newest or self._known_newest)

    def _set_up(
        self,
        machine: Machine,
        on_clip: OnClip,
        coordinator: str | Way,
        coordinator_key: bytes | None,
        allow_insecure: bool | None,
    ) -> None:
        """Begin with a machine, new or restored, and open the way to the coordinator."""
        ParticipantFlags.__init__(self, machine, on_clip)
        self._clock = time.monotonic
        self._parameters_seconds = -math.inf
        self._owns_transport = isinstance(coordinator, str)
        way = self._open(coordinator, coordinator_key, allow_insecure) if isinstance(coordinator, str) else coordinator
        if isinstance(machine, Pet1Machine):
            # Enrolment, signatures of members and digests say what is true of pet/1, and no coordinator's signature.
            if not isinstance(way, Pet1Transport | AsyncPet1Transport):
                raise ConfigError(f"enrolment: expected a transport that speaks pet/1, got {type(way).__name__}")
            self._transport: Way = way
        else:
            self._transport = self._pin(way, coordinator_key)

    @abstractmethod
    def _open(self, url: str, key: bytes | None, allow_insecure: bool | None) -> Way:
        """Return a transport to the coordinator at a URL."""

    @abstractmethod
    def _pin(self, way: Way, key: bytes | None) -> Way:
        """Return a transport that takes signed answers only, if there is a key, or the transport has one."""

    def _round_to_resume(self) -> bytes | None:
        """Return the encoded parameters of the round that a restored machine is in."""
        parameters = self._machine.parameters
        return None if parameters is None else parameters.to_bytes()

    def _resume_task(self) -> None:
        """Set the flags of a restored machine from its state; it emits again what is still open."""
        state = self._machine.state.value
        if "sum" in state:
            self.task = Task.SUM
        elif "update" in state:
            self.task = Task.UPDATE
        self.new_global_model = self._machine.round is not None
        self._take_events()

    def _fail(self, error: TransportError) -> None:
        _logger.debug("%s", error)
        self.last_error = error
        if isinstance(error, TransportRefusedError):
            self._machine.receive_refusal(str(error), is_too_large=isinstance(error, MessageTooLargeError))
        else:
            self._machine.receive_failure()

    def _begin_tick(self) -> None:
        """Forget how the last tick ended, and note whether the parameters are still fresh."""
        self.last_error = None
        self._machine.has_fresh_parameters = self._clock() - self._parameters_seconds < _FRESH_SECONDS

    def _receive(self, request: TransportRequest | Pet1Request, answer: Any) -> None:
        if isinstance(request, GetParameters) or request is GET_ROUND:
            self._parameters_seconds = self._clock()
        self._machine.receive(answer)

    def _model_steps(self) -> Generator[Any, Any, NDArray[Any] | None]:
        """Return the requests, and what is done with their answers, that fetch the global model."""
        return self._machine.model_steps() if isinstance(self._machine, Pet1Machine) else fetch_model(self._machine)

    @contextmanager
    def _judging_model(self) -> Iterator[None]:
        """Note whether the global model could be fetched and read."""
        try:
            yield
        except (TransportError, RemoteProtocolError) as error:
            self._model_contact.note(error)
            raise
        self._model_contact.note(None)
        self.new_global_model = False


def ask(transport: Any, request: TransportRequest | Pet1Request) -> Any:
    """Have a transport carry out a request of either profile; returns what it returns."""
    if isinstance(request, GetDocument | GetHeaders | OpenUpdate | SendPiece):
        return carry_out_pet1(transport, request)
    return carry_out(transport, request)


def _trust(source: EnrolmentSource, least_passive: int, least_active: int, least_updates: int) -> EnrolmentTrust:
    return EnrolmentTrust.of(source, least_passive=least_passive, least_active=least_active, least_updates=least_updates)


def machine_policy(on_clip: OnClip) -> Literal["count", "raise"]:
    """Return what the machine does with weights beyond the bound: it counts them for those who warn.

    Raises:
        ConfigError: not one of the three choices.
    """
    if on_clip not in ("warn", "count", "raise"):
        raise ConfigError(f"on_clip: expected 'warn', 'count' or 'raise', got {on_clip!r}")
    return "raise" if on_clip == "raise" else "count"
