"""How a round goes, as a participant's side can ask: the record of `GET /status`, which is JSON and comes from outside.

Only its form is checked here; xaynet's coordinators have no such record. What is in it is described in docs/protocol.md.
"""

from __future__ import annotations

import json
from typing import Any, Final, Protocol, runtime_checkable

from pet.errors import TransportError

#: A record has about a thousand bytes, and a few more for each reason of a refusal.
MAX_STATUS_BYTES: Final = 1 << 16


@runtime_checkable
class StatusTransport(Protocol):
    """A transport that can also ask how the round goes."""

    def get_status(self) -> dict[str, Any]:
        """Return the record as the coordinator sent it: nothing in it is checked.

        Raises:
            TransportError: the coordinator cannot be reached, or has no such record.
        """
        ...


def parse_status(data: bytes) -> dict[str, Any]:
    """Read a record.

    Args:
        data: of at most `MAX_STATUS_BYTES`.

    Raises:
        TransportError: it is no JSON object.
    """
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise TransportError(f"status: expected a JSON object, got {data[:40]!r}")
    return record
