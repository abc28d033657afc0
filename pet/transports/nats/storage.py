"""Ask a broker's storage (JetStream), and tell which exception each of its errors is.

Source: docs/spec/federation.md 5.1, fact 7; 5.5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pet.errors import BackPressureError, CounterpartOfflineError, MissingError, TransportConfigError, TransportError

if TYPE_CHECKING:
    from pet.transports.nats.connection import NatsConnection

#: Codes of the broker, measured with 2.9.10 (spec 5.1, fact 7; 5.5).
_FULL: Final = {10077}
_MISSING: Final = {10014, 10037, 10059}
_WRONG_CONFIG: Final = {10023, 10028, 10039, 10047, 10052, 10054, 10058, 10065, 10074, 10076}


async def ask_storage(connection: NatsConnection, call: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make one call of the broker's JetStream interface, such as "STREAM.INFO.name".

    Raises:
        MissingError: there is no such stream, consumer or message.
        BackPressureError: the stream is full.
        TransportConfigError: the broker has something else under this name, too little room, or no storage at all.
    """
    try:
        answer = await connection.request(f"$JS.API.{call}", json.dumps(body).encode() if body else b"")
    except CounterpartOfflineError:
        raise TransportConfigError(f"{call}: expected a broker with JetStream enabled, got one without") from None
    return _read_answer(call, answer)


async def store_message(
    connection: NatsConnection, subject: str, payload: bytes, message_id: str = "", *, headers: Mapping[str, str] | None = None
) -> bool:
    """Publish into a stream and wait until it is stored.

    Args:
        connection: to the broker.
        subject: one that a stream takes.
        payload: at most `max_chunk_bytes`.
        message_id: two messages with the same id are stored once. Needed by everybody who tries again (spec 5.1, fact 6).
        headers: kept with the message.

    Returns:
        Whether it is new; False for a duplicate.

    Raises:
        MissingError: no stream takes the subject.
        BackPressureError: the stream is full.
    """
    sent = {"Nats-Msg-Id": message_id, **(headers or {})} if message_id else headers
    try:
        answer = await connection.request(subject, payload, headers=sent)
    except CounterpartOfflineError:
        raise MissingError(f"{subject}: expected a stream that stores it, got none") from None
    return not _read_answer(subject, answer).get("duplicate", False)


def _read_answer(call: str, answer: bytes) -> dict[str, Any]:
    """Decode what JetStream says; its errors as in `ask_storage`."""
    try:
        record = json.loads(answer)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise TransportError(f"{call}: expected a JSON object, got {answer[:60]!r}")
    if isinstance(error := record.get("error"), dict):
        raise _storage_error(call, error)
    return record


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
