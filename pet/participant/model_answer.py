"""The global model as a coordinator answers it: how large the answer can be, and how it is read.

Source: docs/spec/pet.md 5.6.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import AnswerTooLargeError, RemoteProtocolError
from pet.messages import RoundParameters
from pet.model_formats import NPY, SAFETENSORS, decode_bincode, decode_npy, decode_safetensors
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import GetParameters
from pet.transports.requests import GetModel

#: The header of an .npy file and the framing of bincode are far smaller; the rest is slack for other writers of either.
_MODEL_FRAMING_BYTES: Final = 4096
_FRACTION_FRAMING_BYTES: Final = 18
_LIMB_BYTES: Final = 4


def fetch_model(machine: ParticipantMachine) -> Generator[GetParameters | GetModel, Any, NDArray[Any] | None]:
    """Yield requests, take their answers, and return the last global model; None while there is none.

    Raises:
        RemoteProtocolError: as `decode_global_model`; one that is too large is of another configuration.
    """
    parameters = machine.parameters or machine.read_parameters((yield GetParameters()))
    try:
        answer = yield GetModel(max_bytes=max_model_bytes(parameters))
    except AnswerTooLargeError as error:
        raise RemoteProtocolError("model_mismatch", str(error)) from None
    return None if answer is None else decode_global_model(answer, parameters)


def decode_global_model(
    answer: tuple[str, bytes], parameters: RoundParameters, dtype: np.dtype[Any] | None = None
) -> NDArray[Any]:
    """Read a global model, from whichever format its media type names; anything unknown is bincode, as xaynet names none.

    Args:
        answer: media type and bytes.
        parameters: of the round.
        dtype: of the weights; None means that of the parameters, which under pet/1 say nothing about it.

    Raises:
        RemoteProtocolError: no model (reason "malformed_model", "out_of_range"), or not one of the round (reason
            "model_mismatch"): a coordinator may go on serving the model of an earlier configuration.
    """
    media_type, data = answer
    if dtype is None:
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
