"""What the blocking and the asyncio participant share: how they are made and restored, and the steps of the machine.

Nothing here does I/O or waits, but for a transport that is opened for a URL. Source: docs/spec/pet.md 8.2, 3.8.
"""

from __future__ import annotations

import logging
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from pet.crypto import SigningKeyPair
from pet.errors import (
    AnswerTooLargeError,
    ConfigError,
    MessageTooLargeError,
    RemoteProtocolError,
    TransportError,
    TransportRefusedError,
)
from pet.masking import Scalar
from pet.messages import RoundParameters
from pet.participant.flags import OnClip, ParticipantFlags
from pet.participant.model_answer import decode_global_model
from pet.participant.pinned_state import with_newest_round, without_newest_round
from pet.participant.status import Task
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import GetParameters, Request
from pet.protocol.strategies import TaskChoice, choose_task_by_signature
from pet.transports.base import AsyncTransport, Transport
from pet.transports.pinned import AsyncPinnedTransport, NewestRound, PinnedTransport, parse_coordinator_key

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

        Raises:
            ConfigError: the URL, `max_message_size`, `on_clip`, `max_model_length`, `ephemeral_seed` or the key cannot be used,
                or http:// would be insecure.
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
            ephemeral_seed=ephemeral_seed,
        )
        self._set_up(machine, on_clip, coordinator, coordinator_key, allow_insecure)

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
    ) -> Self:
        """Go on from a saved state, with the signing key, scalar and message size that are in it.

        What the application decides for itself is no part of a state: threads, `on_clip`, `max_model_length`,
        `coordinator_key`, `allow_insecure`.

        Raises:
            StateError: the state is damaged or not one.
            ConfigError: the URL, `on_clip`, `max_model_length` or the key cannot be used, or http:// would be insecure.
        """
        participant = cls.__new__(cls)
        state, participant._known_newest = without_newest_round(state)
        machine = ParticipantMachine.restore(
            state, entropy=entropy, threads=threads, on_clip=machine_policy(on_clip), max_model_length=max_model_length
        )
        participant._set_up(machine, on_clip, coordinator, coordinator_key, allow_insecure)
        participant._resume_task()
        return participant

    @property
    def local_model_config(self) -> LocalModelConfig:
        """What `set_model` expects now: float32 of length 0 before the first contact."""
        parameters = self._machine.parameters
        if parameters is None:
            return LocalModelConfig(np.dtype(np.float32), 0)
        return LocalModelConfig(parameters.mask_config.vect.data_type.dtype, parameters.model_length)

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
        machine: ParticipantMachine,
        on_clip: OnClip,
        coordinator: str | Way,
        coordinator_key: bytes | str | None,
        allow_insecure: bool | None,
    ) -> None:
        """Begin with a machine, new or restored, and open the way to the coordinator."""
        ParticipantFlags.__init__(self, machine, on_clip)
        self._clock = time.monotonic
        self._parameters_seconds = -math.inf
        key = None if coordinator_key is None else parse_coordinator_key(coordinator_key)
        self._owns_transport = isinstance(coordinator, str)
        way = self._open(coordinator, key, allow_insecure) if isinstance(coordinator, str) else coordinator
        self._transport: Way = self._pin(way, key)

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
        self.new_global_model = self._machine.parameters is not None
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

    def _receive(self, request: Request, answer: bytes | None) -> None:
        if isinstance(request, GetParameters):
            self._parameters_seconds = self._clock()
        self._machine.receive(answer)

    def _read_parameters(self, answer: bytes) -> RoundParameters:
        """Read the parameters of a round that the machine has not seen yet, within its bounds."""
        return self._machine.read_parameters(answer)

    @contextmanager
    def _judging_model(self) -> Iterator[None]:
        """Note whether the global model could be fetched and read; one that is too large is of another configuration."""
        try:
            yield
        except AnswerTooLargeError as error:
            self._model_contact.note(error)
            raise RemoteProtocolError("model_mismatch", str(error)) from None
        except (TransportError, RemoteProtocolError) as error:
            self._model_contact.note(error)
            raise
        self._model_contact.note(None)

    def _read_model(self, answer: tuple[str, bytes] | None, parameters: RoundParameters) -> NDArray[Any] | None:
        model = decode_global_model(answer, parameters) if answer is not None else None
        self.new_global_model = False
        return model


def machine_policy(on_clip: OnClip) -> Literal["count", "raise"]:
    """Return what the machine does with weights beyond the bound: it counts them for those who warn.

    Raises:
        ConfigError: not one of the three choices.
    """
    if on_clip not in ("warn", "count", "raise"):
        raise ConfigError(f"on_clip: expected 'warn', 'count' or 'raise', got {on_clip!r}")
    return "raise" if on_clip == "raise" else "count"
