"""What a broker's storage interface (JetStream) says, and which exception each of its errors is.

Pure functions. Source: spec/FEDERATION.md 5.1, fact 7; 5.5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pet.errors import BackPressureError, TransportConfigError, TransportError


class MissingError(TransportError):
    """The broker's storage does not have what was asked for: no such stream, consumer or message."""


def read_storage_answer(call: str, answer: bytes) -> dict[str, Any]:
    """Decode what JetStream says; its errors as in `NatsConnection.ask_storage`."""
    try:
        record = json.loads(answer)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise TransportError(f"{call}: expected a JSON object, got {answer[:60]!r}")
    if isinstance(error := record.get("error"), dict):
        raise _storage_error(call, error)
    return record


#: Codes of the broker, measured with 2.9.10 (spec 5.1, fact 7; 5.5).
_FULL: Final = {10077}
_MISSING: Final = {10014, 10037, 10059}
_WRONG_CONFIG: Final = {10023, 10028, 10039, 10047, 10052, 10054, 10058, 10065, 10074, 10076}


def _storage_error(call: str, error: Mapping[str, Any]) -> TransportError:
    code, status, text = error.get("err_code"), error.get("code"), str(error.get("description"))[:200]
    kind: type[TransportError] = TransportError
    if code in _FULL or status == 429:
        kind = BackPressureError
    elif code in _MISSING:
        kind = MissingError
    elif code in _WRONG_CONFIG:
        kind = TransportConfigError
    return kind(f"{call}: expected it to be done, got {text} ({code})")
