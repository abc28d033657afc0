"""What the blocking and the asyncio participant share: the flags that events set, and the reading of global models.

Nothing here does I/O or waits. Source: docs/spec/pet.md 8.2, 3.8.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from pet.errors import (
    AnswerTooLargeError,
    BackPressureError,
    ConfigError,
    MessageTooLargeError,
    PetError,
    RemoteProtocolError,
    TransportError,
    TransportRefusedError,
)
from pet.messages import RoundParameters, Tag
from pet.model_formats import NPY, SAFETENSORS, decode_bincode, decode_npy, decode_safetensors
from pet.participant.status import Contact, ParticipantStatus, Task
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import (
    AnswerRefused,
    Event,
    GetParameters,
    MessageDelivered,
    MessageSplit,
    ModelDropped,
    ModelMasked,
    ModelWanted,
    NewRound,
    NotSelected,
    Request,
    SumSelected,
    TaskAbandoned,
    UpdateSelected,
)

_logger: Final = logging.getLogger(__name__)

#: The header of an .npy file and the framing of bincode are far smaller; the rest is slack for other writers of either.
_MODEL_FRAMING_BYTES: Final = 4096
_ROUND_NAME_DIGITS: Final = 16
#: How long chunks go out before the round parameters are asked for again.
_FRESH_SECONDS: Final = 1.0
#: How long a coordinator may be replaced by another one, with a proxy in front that answers meanwhile.
_REPLACEMENT_SECONDS: Final = 60.0
#: Reasons for which an answer to /params is of something else than a PET coordinator.
_FOREIGN_ANSWERS: Final = frozenset({"malformed_parameters", "trailing_bytes"})
_FRACTION_FRAMING_BYTES: Final = 18
_LIMB_BYTES: Final = 4

#: What happens to scaled weights beyond the bound of the mask config: clamped with one warning a round, clamped and counted in
#: `status.last_clipped_count`, or refused with a ModelError.
OnClip = Literal["warn", "count", "raise"]


@dataclass(frozen=True, slots=True)
class LocalModelConfig:
    """What a model of the current round looks like: one dimension, `length` weights of `dtype`."""

    dtype: np.dtype[Any]
    length: int


class ParticipantCore:
    """What both kinds of participants share: the machine, and the flags that its events set.

    Attributes:
        new_global_model: there may be a new global model: set by every new round, cleared when one was fetched (or found not
            to exist), kept if that failed.
        should_set_model: the machine waits for a model; cleared by `set_model` and by a new round.
        task: what this participant does in the round.
        last_error: why the last tick got no usable answer from the coordinator; None if it did.
    """

    def __init__(self, machine: ParticipantMachine, on_clip: OnClip) -> None:
        self._machine = machine
        self._on_clip = on_clip
        self.new_global_model = False
        self.should_set_model = False
        self.task = Task.NONE
        self.last_error: PetError | None = None
        self._name = f"participant {machine.public_key.hex()[:8]}"
        self._contact = Contact(f"{self._name}: coordinator")
        self._model_contact = Contact(f"{self._name}: global model")
        self._warning_level = logging.WARNING
        self._clock = time.monotonic
        self._parameters_seconds = -math.inf
        self._last_refusal: str | None = None
        self._models_sent = self._rounds = 0
        self._last_clipped_count: int | None = None

    def lower_warnings(self, level: int) -> None:
        """Log warnings at another level from now on: an owner of many participants warns for all of them."""
        self._warning_level = self._contact.level = self._model_contact.level = level

    @property
    def status(self) -> ParticipantStatus:
        """How the participant is doing; may be read from any thread."""
        parameters = self._machine.parameters
        troubled = self._contact if self._contact.error is not None else self._model_contact
        return ParticipantStatus(
            phase=self._machine.state.value,
            task=self.task,
            round=parameters.digest().hex()[:_ROUND_NAME_DIGITS] if parameters is not None else None,
            is_connected=self._contact.was_made and self._contact.error is None,
            last_error=troubled.error,
            error_since=troubled.since,
            last_refusal=self._last_refusal,
            models_sent=self._models_sent,
            last_clipped_count=self._last_clipped_count,
            rounds=self._rounds,
        )

    def raise_permanent_error(self) -> None:
        """Raise the error of the last tick if it will not go away by itself: the URL, a certificate or the protocol is wrong.

        After a participant was connected once, such an error must have lasted for a minute: a proxy says the same while a
        coordinator is replaced.

        Raises:
            PetError: the error.
        """
        error, contact = self._contact.error, self._contact
        if error is None or self._is_temporary(error):
            return
        if not contact.was_made or contact.lasts_seconds >= _REPLACEMENT_SECONDS:
            raise error

    @staticmethod
    def _is_temporary(error: PetError) -> bool:
        if isinstance(error, RemoteProtocolError):
            return error.reason not in _FOREIGN_ANSWERS
        return not isinstance(error, TransportError) or error.is_temporary

    @property
    def retry_after_seconds(self) -> float:
        """How long the coordinator asked to wait before the next tick; 0 if it did not."""
        error = self.last_error
        return (error.retry_after_seconds or 0.0) if isinstance(error, BackPressureError) else 0.0

    @property
    def made_progress(self) -> bool:
        """Whether the last tick changed anything; True before the first."""
        return self._machine.made_progress

    @property
    def public_key(self) -> bytes:
        """The participant's signing key, 32 bytes."""
        return self._machine.public_key

    @property
    def parameters(self) -> RoundParameters | None:
        """The parameters of the round, or None before the first contact."""
        return self._machine.parameters

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
        return self._machine.save()

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

    def _finish_tick(self) -> list[Event]:
        """Take what happened in a tick, and note whether the coordinator answered."""
        events = self._take_events()
        # A message that was refused is news of its own: an event said so.
        was_refused = any(isinstance(event, (MessageSplit, TaskAbandoned)) for event in events)
        self._contact.note(None if was_refused else self.last_error)
        return events

    def _take_events(self) -> list[Event]:
        events = []
        while (event := self._machine.next_event()) is not None:
            self._note(event)
            events.append(event)
        return events

    def _note(self, event: Event) -> None:
        match event:
            case NewRound():
                self.new_global_model = True
                self.should_set_model = False
                self.task = Task.NONE
            case SumSelected():
                self.task = Task.SUM
                self._rounds += 1
            case UpdateSelected():
                self.task = Task.UPDATE
                self._rounds += 1
            case ModelWanted():
                self.should_set_model = True
            case NotSelected():
                self.task = Task.NONE
            case TaskAbandoned():
                self._warn_of_refusal(event)
                self.task = Task.NONE
                self.should_set_model = False
            case MessageSplit():
                self._warn_of_refusal(event)
            case MessageDelivered():
                self._models_sent += event.tag is Tag.UPDATE
                self._last_refusal = None
            case ModelMasked():
                self._note_clipping(event.clipped_count)
            case ModelDropped():
                _logger.log(self._warning_level, "%s: model dropped: %s", self._name, event.description)
            case AnswerRefused():
                self.last_error = RemoteProtocolError(event.reason, f"answer refused: {event.description}")
            case _:
                assert_never(event)

    def _warn_of_refusal(self, event: TaskAbandoned | MessageSplit) -> None:
        """Warn of what the coordinator, or the way to it, does not take; once, though it may be so in every round."""
        text = refusal_text(event)
        level = logging.DEBUG if text == self._last_refusal else self._warning_level
        self._last_refusal = text
        _logger.log(level, "%s: %s", self._name, text)

    def _note_clipping(self, clipped_count: int) -> None:
        self._last_clipped_count = clipped_count
        parameters = self._machine.parameters
        if clipped_count and self._on_clip == "warn" and parameters is not None:
            text = clipping_hint(clipped_count, parameters, float(self._machine.scalar))
            _logger.log(self._warning_level, "%s: %s", self._name, text)

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


def refusal_text(event: TaskAbandoned | MessageSplit) -> str:
    """Return a sentence on what was given up, or is sent otherwise."""
    if isinstance(event, TaskAbandoned):
        return f"task abandoned: {event.description}"
    return f"message refused, sending it in chunks of {event.max_message_size} bytes: {event.description}"


def clipping_hint(clipped_count: int, parameters: RoundParameters, scalar: float) -> str:
    """Return a sentence on weights that were clamped, and on what to do about it."""
    config = parameters.mask_config.vect
    limit = f"{config.add_shift:g}, the bound of {config}"
    return (
        f"{clipped_count} of {parameters.model_length} weights were clipped, so the global model is not the mean:"
        f" scalar * weight must stay within {limit}, and the scalar is {scalar:g}. Divide the scalars of all participants by"
        " the same number, which leaves their mean as it is, or choose a mask config with a larger bound (pet config advise)"
    )


def decode_global_model(answer: tuple[str, bytes], parameters: RoundParameters) -> NDArray[Any]:
    """Read a global model, from whichever format its media type names; anything unknown is bincode, as xaynet names none.

    Raises:
        RemoteProtocolError: no model (reason "malformed_model", "out_of_range"), or not one of the round (reason
            "model_mismatch"): a coordinator may go on serving the model of an earlier configuration.
    """
    media_type, data = answer
    dtype = parameters.mask_config.vect.data_type.dtype
    if media_type == NPY:
        model = decode_npy(data)
    elif media_type == SAFETENSORS:
        model = decode_safetensors(data)
    else:
        model = decode_bincode(data, dtype)
    if model.dtype != dtype or len(model) != parameters.model_length:
        expected = f"{parameters.model_length} weights of {dtype}"
        raise RemoteProtocolError("model_mismatch", f"global model: expected {expected}, got {len(model)} of {model.dtype}")
    if not np.isfinite(model).all():
        raise RemoteProtocolError("malformed_model", "global model: expected finite weights, got NaN or infinity")
    return model


def max_model_bytes(parameters: RoundParameters) -> int:
    """Return how large an answer with the global model of a round can be.

    A weight is (V - n*A*E) * E1 over E * (U - n*A1*E1), each factor below its order, so numerator and denominator both fit
    the bytes of an element and a unit together (spec 3.7, 5.6). Every other format is smaller.
    """
    config = parameters.mask_config
    limbs = -(-(config.vect.element_bytes + config.unit.element_bytes) // _LIMB_BYTES)
    return _MODEL_FRAMING_BYTES + parameters.model_length * (_FRACTION_FRAMING_BYTES + 2 * _LIMB_BYTES * limbs)
