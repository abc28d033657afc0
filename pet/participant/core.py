"""What the blocking and the asyncio participant share: the flags that events set, and the reading of global models.

Nothing here does I/O or waits. Source: docs/spec/pet.md 8.2, 3.8.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import RemoteProtocolError, TransportError
from pet.messages import RoundParameters
from pet.model_formats import NPY, SAFETENSORS, decode_bincode, decode_npy, decode_safetensors
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import (
    AnswerRefused,
    Event,
    ModelWanted,
    NewRound,
    NotSelected,
    SumSelected,
    TaskAbandoned,
    UpdateSelected,
)

_logger: Final = logging.getLogger(__name__)

#: The header of an .npy file and the framing of bincode are far smaller; the rest is slack for other writers of either.
_MODEL_FRAMING_BYTES: Final = 4096
_FRACTION_FRAMING_BYTES: Final = 18
_LIMB_BYTES: Final = 4


class Task(enum.Enum):
    """What the participant does in the current round."""

    NONE = "none"
    SUM = "sum"
    UPDATE = "update"


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
        last_error: why the last tick could not reach the coordinator; None if it could.
    """

    def __init__(self, machine: ParticipantMachine) -> None:
        self._machine = machine
        self.new_global_model = False
        self.should_set_model = False
        self.task = Task.NONE
        self.last_error: TransportError | None = None

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
        self._take_events()

    def _fail(self, error: TransportError) -> None:
        _logger.debug("%s", error)
        self.last_error = error
        self._machine.receive_failure()

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
            case UpdateSelected():
                self.task = Task.UPDATE
            case ModelWanted():
                self.should_set_model = True
            case NotSelected():
                self.task = Task.NONE
            case TaskAbandoned():
                _logger.warning("task abandoned: %s", event.description)
                self.task = Task.NONE
                self.should_set_model = False
            case AnswerRefused():
                _logger.warning("answer refused: %s", event.description)
            case _:
                _logger.debug("%s", event)

    def _take_model(self, answer: tuple[str, bytes] | None, parameters: RoundParameters) -> NDArray[Any] | None:
        model = decode_global_model(answer, parameters) if answer is not None else None
        self.new_global_model = False
        return model


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
