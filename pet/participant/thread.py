"""Two ways to take part in federated learning without thinking of ticks.

`Participant` is a class to inherit from: `spawn_participant` runs it in a thread and calls its methods when a round needs them.
`AsyncParticipant` (task.py) is for asyncio and lets the model be set at any time. Neither knows anything of the protocol
beyond the flags of `TickParticipant`.

Source: docs/spec/pet.md 8.3, with NumPy arrays in place of lists.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from numpy.typing import NDArray

from pet.crypto import SigningKeyPair
from pet.errors import LocalProtocolError, PetError, RemoteProtocolError, TransportError
from pet.masking import Scalar
from pet.participant.back_off import BackOff, Patience
from pet.participant.core import LocalModelConfig
from pet.participant.enrolments import EnrolmentSource
from pet.participant.flags import OnClip
from pet.participant.opening import open_participant
from pet.participant.state_file import StateFile
from pet.participant.status import ParticipantStatus
from pet.participant.ticks import TickParticipant
from pet.protocol.participant_events import NewRound
from pet.transports.base import Transport

_logger: Final = logging.getLogger(__name__)

#: How long a request may go on after `stop`.
_GRACE_SECONDS: Final = 0.5
_NO_ARGUMENTS: Final[Mapping[str, Any]] = MappingProxyType({})


class Participant(ABC):
    """What a participant does in each round; inherit from it and give the class to `spawn_participant`.

    All methods but `on_stop` are called in the participant's thread. An exception in one of them ends the thread: it is logged,
    and can be had from `ParticipantThread.error`.
    """

    @abstractmethod
    def train_round(self, training_input: Any) -> Any:
        """Train and return the local model.

        Args:
            training_input: what `deserialize_training_input` made of the global model; None if there is none yet.

        Returns:
            The model, as `serialize_training_result` takes it: by default an array with the dtype and length of the round,
            which are in `ParticipantThread.local_model_config`, finite. Anything else ends the thread with a ModelError.
        """

    def serialize_training_result(self, training_result: Any) -> NDArray[Any]:
        """Turn what `train_round` returned into an array of one dimension."""
        result: NDArray[Any] = training_result
        return result

    def deserialize_training_input(self, global_model: NDArray[Any]) -> Any:
        """Turn the global model into what `train_round` and `on_new_global_model` take."""
        return global_model

    def participate_in_update_task(self) -> bool:
        """Return whether to train in this round, in which the participant was selected for the update task."""
        return True

    def on_new_global_model(self, global_model: Any) -> None:  # noqa: B027  # doing nothing is a fair answer
        """Take note of the global model at the beginning of a round; None if there is none yet."""

    def on_stop(self) -> None:  # noqa: B027  # the same
        """Clean up; called by `ParticipantThread.stop`, in its caller's thread."""


def spawn_participant(
    coordinator: str | Transport,
    participant: type[Participant],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = _NO_ARGUMENTS,
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
) -> ParticipantThread:
    """Start a participant in a daemon thread of its own.

    Args:
        coordinator: URL of the coordinator, or the way to it. An unreachable coordinator is no error: it is tried again.
        participant: class to be instantiated in the thread, as `participant(*args, **kwargs)`.
        args: its positional arguments.
        kwargs: its keyword arguments.
        state: what an earlier `stop` returned: signing key, scalar and message size are then taken from there.
        state_file: where the state is kept, written after every step, for its owner only. If there is one already, the
            participant goes on with it, as with `state`.
        scalar: weight of the models in the mean, 0 or more; for example the share of the samples. Times a weight it must stay
            within the bound of the coordinator's mask config; a scalar that is itself beyond it ends the thread.
        signing_key: the participant's identity; a fresh one if None.
        max_message_size: largest sealed message in bytes, 194 or more. None is unlimited.
        back_off: the waits between ticks.
        threads: how many threads masking and adding up masks may use; None means PET_THREADS, else all cores.
        on_clip: what happens to scaled weights beyond the bound of the mask config: clamped with one warning a round
            ("warn"), clamped and counted in `status.last_clipped_count` ("count"), or the thread ends ("raise"). Not part of
            the state.
        max_model_length: longest model to take part with; None means that a masked model has at most 1 GiB. Not part of the
            state.
        coordinator_key: public key of the coordinator, 32 bytes or their text: only answers that it signed, in the round that
            they are for, are taken. Not part of the state.
        allow_insecure: whether http:// to another machine may do without a key; None takes PET_ALLOW_INSECURE.
        enrolment: for rounds of pet/1, and no others: the path of an enrolment's file, an `Enrolment`, its digest, or the
            public key of the authority that signs it. The signing key has to be an enrolled one. The state then says what was
            sent, and must not be restored from a backup: keep a `state_file`. Not part of the state itself.
        least_passive: how many members that collude must not suffice with a coordinator that follows the protocol; an enrolment
            with less protection is refused.
        least_active: the same for a coordinator that does anything.
        least_updates: the least number of updates that an enrolment must ask for.

    Raises:
        ConfigError: the URL, `max_message_size`, `on_clip`, `max_model_length` or the key cannot be used, or http:// would be
            insecure.
        ModelError: the scalar cannot be used.
        StateError: the state is damaged or not one, or another process uses its file.
    """
    ticks, file = open_participant(
        TickParticipant,
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
    thread = ParticipantThread(ticks, participant, args, kwargs, back_off or BackOff(), file)
    thread.start()
    return thread


class ParticipantThread(threading.Thread):
    """The handle of a running participant.

    Attributes:
        error: the exception that ended the thread; None while it runs, or if it was stopped.
    """

    def __init__(
        self,
        ticks: TickParticipant,
        participant: type[Participant],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        back_off: BackOff,
        state_file: StateFile | None = None,
    ) -> None:
        """Prepare the thread; see `spawn_participant`. It closes the file when it is stopped."""
        super().__init__(name=f"pet-participant-{ticks.public_key.hex()[:8]}", daemon=True)
        self.error: Exception | None = None
        self._ticks = ticks
        self._participant_class = participant
        self._participant_args = args
        self._participant_kwargs = kwargs
        self._participant: Participant | None = None
        self._back_off = back_off
        self._patience = Patience(back_off)
        self._state_file = state_file
        self._stop_requested = threading.Event()
        self._stop_lock = threading.Lock()
        self._final_state: bytes | None = None
        self._training_input: Any = None
        self._is_fetch_due = False

    @property
    def status(self) -> ParticipantStatus:
        """How the participant is doing: connected or why not, its task, what it sent, what ended it."""
        return replace(self._ticks.status, ended_by=self.error)

    @property
    def last_error(self) -> PetError | None:
        """Why the last attempt got no usable answer from the coordinator; None if it did."""
        return self.status.last_error

    @property
    def local_model_config(self) -> LocalModelConfig:
        """What a model of the round looks like: float32 of length 0 before the first contact."""
        return self._ticks.local_model_config

    def run(self) -> None:
        """Tick until stopped; called by the thread machinery."""
        try:
            self._participant = self._participant_class(*self._participant_args, **self._participant_kwargs)
            delay_seconds = 0.0
            while not self._stop_requested.wait(self._ticks.retry_after_seconds + self._back_off.shorten(delay_seconds)):
                delay_seconds = self._take_turn(self._participant, delay_seconds)
        except Exception as error:
            if not self._ticks.is_given_up:
                _logger.exception("participant %s ended", self.name)
                self.error = error
        finally:
            if self._ticks.is_given_up:
                self._ticks.close()  # here, and not in `stop`: until now a request was under way

    def stop(self) -> bytes:
        """Stop after the current tick (training included) and return the state, which contains **secret keys in clear**.

        A request that takes longer than half a second is given up; the state is the one before it.

        Calling it again returns the same state.

        Raises:
            LocalProtocolError: called from the participant's own thread, which would wait for itself.
        """
        if threading.current_thread() is self:
            raise LocalProtocolError("stop: expected a call from another thread than the participant's own")
        with self._stop_lock:
            self._stop_requested.set()
            self.join(_GRACE_SECONDS)
            while self.is_alive() and not self._ticks.give_up():
                self.join(_GRACE_SECONDS)
            if self._final_state is None:
                self._final_state = self._ticks.save()
                if not self._ticks.is_given_up:
                    self._ticks.close()
                if self._state_file is not None:
                    self._state_file.save(self._final_state)
                    self._state_file.close()
                if self._participant is not None:
                    self._participant.on_stop()
            return self._final_state

    def _take_turn(self, participant: Participant, delay_seconds: float) -> float:
        """Tick once, call what is to be called, and return how long to wait."""
        events = self._ticks.tick()
        made_progress = self._ticks.made_progress
        if not self._ticks.is_given_up and (self._ticks.new_global_model or self._is_fetch_due):
            self._fetch(participant)
        if self._ticks.is_given_up:
            return 0.0
        if self._ticks.should_set_model and not self._is_fetch_due and participant.participate_in_update_task():
            self._train(participant)
            made_progress = True
        self._patience.note(self._ticks.last_error)
        if not self._back_off.waits_for_repair:
            self._ticks.raise_permanent_error()
        if made_progress and self._state_file is not None:
            self._state_file.save(self._ticks.save())
        is_new_round = any(isinstance(event, NewRound) for event in events)
        return self._back_off.next_seconds(
            delay_seconds,
            made_progress=made_progress,
            is_new_round=is_new_round,
            is_answered=self._ticks.last_error is None,
            has_task=self._ticks.has_task,
        )

    def _fetch(self, participant: Participant) -> None:
        """Fetch the global model; training waits until that succeeded."""
        self._is_fetch_due = True
        try:
            model = self._ticks.global_model()
        except TransportError:
            return  # the status says why, and the log did once
        except RemoteProtocolError as error:
            if error.reason != "model_mismatch":
                return
            # Left over from an earlier configuration of the coordinator: for this one there is no model yet, and waiting for
            # a better answer would be waiting for ourselves.
            self._ticks.new_global_model = False
            model = None
        if self._ticks.is_given_up:
            return
        self._is_fetch_due = False
        self._training_input = None if model is None else participant.deserialize_training_input(model)
        participant.on_new_global_model(self._training_input)

    def _train(self, participant: Participant) -> None:
        """Train and hand over the model.

        Raises:
            ModelError: it cannot be used. The next one would not be better: the thread ends instead of training for ever.
        """
        self._ticks.set_model(participant.serialize_training_result(participant.train_round(self._training_input)))
