"""How many connections are open, and what their headers take, by address: bounds that the connections of a server share.

An address has everything but a reserve while nobody else asks; when there is too little, the one with most connections loses
its newest (pet/bodies/holders.py). Knows no request, and nothing of TLS.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pet.bodies.holders import HolderTable, Holding
from pet.transports.line_limit import LineLimit
from pet.transports.peers import peer_of
from pet.transports.refusal_counts import RefusalCounts, RefusalReason

_logger: Final = logging.getLogger(__name__)

#: Of all headers above a few kilobytes: those of 256 requests with the most that one may have.
_MAX_HEADER_BYTES: Final = 16 << 20
#: Of bodies that are received whole before any of them is taken.
_MAX_WHOLE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What connections may take.

    Attributes:
        max_connections: connections at the same time.
        max_connections_per_peer: the same from one address; None means all but an eighth.
        header_seconds: the time for the headers of a request, from the connection or from their first byte on.
        max_header_bytes: bytes of the headers of a request, and of everything else that is no body.
        stall_seconds: how long a reader may take nothing of an answer.
    """

    max_connections: int
    max_connections_per_peer: int | None = None
    header_seconds: float
    max_header_bytes: int
    stall_seconds: float = 30.0


class OpenConnections:
    """The connections of one server.

    Args:
        limits: what they may take.
        refusals: where refusals are counted; None counts them apart.
    """

    def __init__(self, limits: ConnectionLimits, refusals: RefusalCounts | None = None) -> None:
        self.refusals: Final = RefusalCounts() if refusals is None else refusals
        self._lines: Final = LineLimit()
        most, per_peer = limits.max_connections, limits.max_connections_per_peer
        self._connections: Final = HolderTable(most, None if per_peer is None else max(0, most - per_peer))
        self._headers: Final = HolderTable(_MAX_HEADER_BYTES)
        self._whole: Final = HolderTable(_MAX_WHOLE_BYTES)

    def __len__(self) -> int:
        """Return how many peers have a connection."""
        return len(self._connections)

    def count(self, peer: str) -> int:
        """Return how many connections a peer has."""
        return self._connections.held_by(peer)

    def admit(self, client: tuple[str, int] | None, evict: Callable[[], None]) -> Holding | None:
        """Count a new connection.

        Args:
            client: its address and port.
            evict: closes it for another peer's.

        Returns:
            What `release` takes; None for a connection beyond the limits, which is not counted.
        """
        peer = peer_of(client)
        holding = self._connections.take(peer, 1, evict)
        if holding is None:
            text = "connection refused: %d are open, %d by its peer"
            self.note(peer, RefusalReason.CONNECTION, text, self._connections.used, self.count(peer))
        return holding

    def admit_headers(self, peer: str, holding: Holding | None, size_bytes: int, evict: Callable[[], None]) -> Holding | None:
        """Count headers that are larger than usual.

        Args:
            peer: who sends them.
            holding: what they were counted as so far; None for nothing.
            size_bytes: what they have now.
            evict: closes their connection for another peer's.

        Returns:
            What `release` takes; None if there is too little, and then nothing is counted.
        """
        if holding is None:
            return self._headers.take(peer, size_bytes, evict)
        if self._headers.make_room(peer, size_bytes - holding.amount):
            self._headers.change(holding, size_bytes)
            return holding
        self._headers.release(holding)
        return None

    def admit_whole(self, peer: str, size_bytes: int) -> Holding | None:
        """Count a body that its connection is to keep until it is whole; None if it has to be taken piece by piece."""
        return self._whole.take(peer, size_bytes)

    def release(self, connection: Holding | None = None, headers: Holding | None = None, whole: Holding | None = None) -> None:
        """Count the end of a connection, of headers, of a body, or of several; None is nothing that was counted."""
        for table, holding in ((self._connections, connection), (self._headers, headers), (self._whole, whole)):
            if holding is not None:
                table.release(holding)

    def note(self, peer: str, reason: RefusalReason, text: str, *arguments: object) -> None:
        """Count what was refused to a peer, and log it, unless it has had a line lately."""
        self.refusals.count(reason)
        self._lines.log(_logger, logging.INFO, peer, text, *arguments)
