"""What travels in Flower's messages: one ConfigRecord for each request and answer, read strictly.

A request has a stage and the bytes that a machine of pet/1 reads. Whatever is large (vectors) travels as an array, which Flower
does not copy into its own records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from pet.errors import RemoteProtocolError

#: The name of our record in each message.
RECORD: Final = "pet"
#: The name of the record with large bytes.
LARGE: Final = "pet-bytes"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """What a request asks for, and the names and types that it has."""

    name: str
    fields: Mapping[str, type]


#: Who a node is.
IDENTIFY: Final = Stage("identify", {})
#: A member's Sum message.
SUM: Final = Stage("sum", {"record": bytes, "enrolment": bytes, "authority": bytes})
#: A masked update, after training.
UPDATE: Final = Stage(
    "update",
    {"record": bytes, "enrolment": bytes, "authority": bytes, "committee": bytes, "weighted-by": str, "max-weight": float},
)
#: A member's Check message.
CHECK: Final = Stage(
    "check",
    {"record": bytes, "enrolment": bytes, "authority": bytes, "committee": bytes, "headers": list, "manifest": bytes},
)
#: A member's share of the sum of masks.
SUM2: Final = Stage("sum2", {**CHECK.fields, "certificate": bytes})
STAGES: Final = {stage.name: stage for stage in (IDENTIFY, SUM, UPDATE, CHECK, SUM2)}


def build_request(stage: Stage, values: Mapping[str, Any]) -> ConfigRecord:
    """Return the record of a request."""
    assert values.keys() == stage.fields.keys(), (stage.name, sorted(values))
    return ConfigRecord({"version": VERSION, "stage": stage.name, **values})


def read_request(record: ConfigRecord) -> tuple[Stage, dict[str, Any]]:
    """Read the record of a request.

    Raises:
        RemoteProtocolError: "malformed_request", "unknown_version".
    """
    if record.get("version") != VERSION:
        raise RemoteProtocolError(
            "unknown_version", f"request: expected version {VERSION}, got {record.get('version')!r}"[:200]
        )
    stage = STAGES.get(str(record.get("stage")))
    if stage is None:
        raise RemoteProtocolError("malformed_request", f"request: expected a stage of pet/1, got {record.get('stage')!r:.80}")
    return stage, _read_fields(record, stage.fields, f"request {stage.name!r}")


def read_answer(content: RecordDict, fields: Mapping[str, type]) -> dict[str, Any]:
    """Read our record of an answer.

    Raises:
        RemoteProtocolError: "malformed_request": there is none, or a field is missing or of another type.
    """
    record = content.get(RECORD)
    if not isinstance(record, ConfigRecord):
        raise RemoteProtocolError("malformed_request", "answer: expected a record of pet, got none: is pet_mod the first mod?")
    return _read_fields(record, fields, "answer")


def large_record(parts: Mapping[str, bytes]) -> ArrayRecord:
    """Return large bytes as a record of arrays."""
    return ArrayRecord({name: Array(dtype="uint8", shape=(len(data),), stype="pet", data=data) for name, data in parts.items()})


def read_large(content: RecordDict, *names: str) -> list[bytes]:
    """Return the large bytes of an answer.

    Raises:
        RemoteProtocolError: "malformed_request": one is missing.
    """
    record = content.get(LARGE)
    if not isinstance(record, ArrayRecord) or any(name not in record for name in names):
        raise RemoteProtocolError("malformed_request", f"answer: expected {', '.join(names)}, got something else")
    return [record[name].data for name in names]


def numpy_arrays(record: ArrayRecord) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a record, as arrays of NumPy."""
    return {name: np.asarray(array.numpy()) for name, array in record.items()}


def _read_fields(record: ConfigRecord, fields: Mapping[str, type], what: str) -> dict[str, Any]:
    values = {}
    for name, kind in fields.items():
        value = record.get(name)
        if type(value) is not kind:
            raise RemoteProtocolError(
                "malformed_request", f"{what}: expected {name!r} of type {kind.__name__}, got {type(value).__name__}"
            )
        values[name] = value
    return values
