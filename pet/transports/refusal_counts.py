"""How often a server refused something to a peer, by reason: what an operator sees of an attack.

The reasons are a closed list, so that nobody can make it grow. Knows no address: who it was is in the log, one line in a while.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Final


class RefusalReason(StrEnum):
    """Why something was refused before it was looked at."""

    CONNECTION = "connection"  #: too many are open
    CONNECTION_EVICTED = "connection_evicted"  #: for one of an address with fewer
    CONNECTION_RATE = "connection_rate"  #: one address began too many in a second
    TLS = "tls"  #: a handshake that failed
    NO_HTTP = "no_http"
    HEADERS = "headers"  #: too long, or too many
    HEADER_TIME = "header_time"  #: no request in time
    RATE = "rate"  #: too many requests in a second, of an address, of a key or of a participant over NATS
    SIGNATURE = "signature"  #: of nobody who may ask
    CALLS = "calls"  #: too many requests of one key are carried out
    BODY_SIZE = "body_size"
    BODY_STALLED = "body_stalled"
    BODY_ABORTED = "body_aborted"
    BODY_EVICTED = "body_evicted"  #: for one of an address with less, or too slow while others waited
    NO_ROOM = "no_room"  #: in memory or in the spool
    ANSWERS = "answers"  #: too many large answers under way
    READER_STALLED = "reader_stalled"  #: an answer that is not taken
    WRONG_LEAF = "wrong_leaf"  #: of an update of pet/1: a digest of other bytes than came


class RefusalCounts:
    """Counts since the start; for one event loop."""

    def __init__(self) -> None:
        self._counts: Final = Counter[RefusalReason](dict.fromkeys(RefusalReason, 0))

    def count(self, reason: RefusalReason) -> None:
        """Count one."""
        self._counts[reason] += 1

    def read(self) -> dict[RefusalReason, int]:
        """Return all of them, also those that did not happen."""
        return dict(self._counts)
