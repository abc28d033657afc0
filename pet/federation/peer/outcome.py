"""Why a synchronisation brought no new aggregate, as the peer that leads reports it to all others.

Source: docs/spec/federation.md 1.5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pet.errors import FederationStateError, RemoteProtocolError
from pet.federation.peer.context import PeerContext
from pet.federation.peer.messages import PeerMessage

OUTCOME: Final = "outcome"
#: How a line of the sync log begins that says so.
NOTHING_NEW: Final = "Nothing new to merge"
_MAX_TEXT: Final = 500
#: So that nobody pushes other lines out of the log.
_MAX_REPORTS_PER_MINUTE: Final = 20
_MINUTE_SECONDS: Final = 60.0


class OutcomeKind(StrEnum):
    """What came of a synchronisation."""

    MERGED = "merged"
    NOTHING_NEW = "nothing_new"
    #: A rule that protects the peers does not allow it now.
    REFUSED = "refused"
    #: Peers or the broker did not answer.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a synchronisation.

    Attributes:
        kind: what.
        text: why, for people; no row and no row count stands in it.
    """

    kind: OutcomeKind
    text: str = ""


def log_outcome(context: PeerContext, outcome: Outcome) -> None:
    """Add a line to the log that fits."""
    match outcome.kind:
        case OutcomeKind.NOTHING_NEW:
            context.log_sync(NOTHING_NEW)
        case OutcomeKind.REFUSED:
            context.log_error(f"Sync refused: {outcome.text}")
        case OutcomeKind.FAILED:
            context.log_error(f"Sync failed: {outcome.text}")
        case OutcomeKind.MERGED:
            pass  # the aggregate says so itself


class OutcomeLog:
    """Takes the reports of the peer that leads.

    Args:
        context: of this peer.
        on_end: called with the number of a round that is over.
    """

    def __init__(self, context: PeerContext, on_end: Callable[[int], None]) -> None:
        self._context: Final = context
        self._on_end: Final = on_end
        self._taken: Final[deque[float]] = deque(maxlen=_MAX_REPORTS_PER_MINUTE)

    async def take(self, message: PeerMessage) -> dict[str, Any]:
        """Log a report.

        Raises:
            FederationStateError: it is not from the admin, or one of too many.
            RemoteProtocolError: it is malformed.
        """
        context, now = self._context, self._context.clock.now_seconds()
        if message.sender != context.admin().uuid:
            raise FederationStateError("outcome: expected it from the admin")
        if len(self._taken) == _MAX_REPORTS_PER_MINUTE and now - self._taken[0] < _MINUTE_SECONDS:
            raise FederationStateError(f"outcome: expected at most {_MAX_REPORTS_PER_MINUTE} a minute")
        try:
            kind = OutcomeKind(message.text("kind"))
        except ValueError:
            raise RemoteProtocolError("malformed_outcome", "outcome: expected one that is known, got another") from None
        self._taken.append(now)
        self._on_end(message.number("round"))
        log_outcome(context, Outcome(kind, message.text("text")[:_MAX_TEXT]))
        return {}
