"""Models of participants of pet/1: the one that a round starts from, which its record names, and the one that is to be masked.

Source: docs/spec/profile.md 6.2, 13 (U3), 15.1.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pet.errors import AnswerTooLargeError, ModelError, RemoteProtocolError
from pet.kernels import new_array
from pet.mask_choices import FieldValues
from pet.masking import copy_finite, validate_weights
from pet.participant.pet1_documents import GET_ROUND, model_bytes
from pet.pet1.hashes import DIGEST_BYTES, digest
from pet.pet1.refusing import require
from pet.pet1.round_record import RoundRecord
from pet.protocol.weight_sums import WeightSums
from pet.transports.pet1 import Pet1Document
from pet.transports.pet1_requests import GetDocument, Pet1Request


def fetch_round_model(record: RoundRecord | None) -> Generator[Pet1Request, Any, tuple[bytes, NDArray[Any]] | None]:
    """Yield requests, take their answers, and return the model that a round starts from.

    Args:
        record: of the round; None asks for it first.

    Returns:
        The bytes as served, and the weights; of integers the totals of the last round, without the sum of the weights, which
        no record names. None if there is no model yet.

    Raises:
        RemoteProtocolError: "wrong_model": what is served is not what the record names; as `RoundRecord.from_bytes`.
    """
    if record is None:
        answer = yield GET_ROUND
        if answer is None:
            return None
        record = RoundRecord.from_bytes(answer)
    is_named = record.model_digest != bytes(DIGEST_BYTES)
    if not is_named and record.config.values is not FieldValues.INT:
        return None
    expected = model_bytes(record)
    try:
        data = yield GetDocument(document=Pet1Document.MODEL, max_bytes=expected)
    except AnswerTooLargeError as error:
        if not is_named:
            return None
        raise RemoteProtocolError("wrong_model", str(error)) from None
    data = bytes(data or b"")
    if not is_named and len(data) != expected:
        return None  # of an earlier configuration of the coordinator, or there is none
    return data, _read_model(data, record)


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model that is held for the next update.

    Attributes:
        memory: has room for one weight more, as a masked vector needs, which is made in it where elements are as large.
        weights: at its beginning.
        sums: of the weights.
    """

    memory: NDArray[np.uint8] = field(repr=False)
    weights: NDArray[Any] = field(repr=False)
    sums: WeightSums = field(repr=False)

    @classmethod
    def of(cls, model: NDArray[Any]) -> Self:
        """Copy a model.

        Raises:
            ModelError: NaN or infinite weights.
        """
        memory, sums = new_array((model.nbytes + model.itemsize,), np.uint8), WeightSums()
        return cls(memory, copy_finite(model, memory, sums.add), sums)


def require_fit(model: NDArray[Any], record: RoundRecord) -> None:
    """Check a model of the application's against a round.

    Raises:
        ModelError: the dtype or the length differ.
    """
    validate_weights(model, record.config)
    if len(model) != record.model_length:
        raise ModelError(f"model: expected {record.model_length} weights, got {len(model)}")


def _read_model(data: bytes, record: RoundRecord) -> NDArray[Any]:
    """Return the weights of a model as it is served, or of integers the totals.

    Raises:
        RemoteProtocolError: "wrong_model".
    """
    expected, config = model_bytes(record), record.config
    require(len(data) == expected, "wrong_model", f"model: expected {expected} bytes, got {len(data)}")
    if config.values is not FieldValues.INT:
        is_named = digest("pet-1 model", data) == record.model_digest
        require(is_named, "wrong_model", "model: expected the one that the round record names, got another")
    return np.frombuffer(data, config.dtype.newbyteorder("<"))[: record.model_length].astype(config.dtype)
