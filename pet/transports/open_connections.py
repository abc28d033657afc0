"""How many connections are open, and what their headers take, by address: bounds that the connections of a server share.

An address has everything but a reserve while nobody else asks; when there is too little, the one with most connections loses
its newest (pet/bodies/holders.py). So it is with new ones in a second, which take time of the one thread that serves all, most
of all with TLS: an address may begin them as fast as it likes while nobody else is here, and no faster than its rate
(pet/transports/rates.py) beside others. Knows no request, and nothing of TLS.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pet.bodies.holders import HolderTable, Holding
from pet.transports.line_limit import LineLimit
from pet.transports.peers import Network, is_among, parse_address, peer_of
from pet.transports.rates import Rates
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
        max_connections_per_second: new ones of one address, on average, while others are connected or were lately; infinite
            for no bound.
        unbounded_rate: networks of proxies, whose connections are those of many; the bounds of their number stay.
        header_seconds: the time for the headers of a request, from the connection or from their first byte on.
        max_header_bytes: bytes of the headers of a request, and of everything else that is no body.
        stall_seconds: how long a reader may take nothing of an answer.
    """

    max_connections: int
    max_connections_per_peer: int | None = None
    max_connections_per_second: float = math.inf
    unbounded_rate: tuple[Network, ...] = ()
    header_seconds: float
    max_header_bytes: int
    stall_seconds: float = 30.0


class OpenConnections:
    """The connections of one server.

    Args:
        limits: what they may take.
        refusals: where refusals are counted; None counts them apart.
        clock: returns seconds that never go back.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        refusals: RefusalCounts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refusals: Final = RefusalCounts() if refusals is None else refusals
        self._lines: Final = LineLimit()
        most, per_peer = limits.max_connections, limits.max_connections_per_peer
        self._connections: Final = HolderTable(most, None if per_peer is None else max(0, most - per_peer))
        self._max_per_second: Final = limits.max_connections_per_second
        self._rates: Final = Rates(self._max_per_second, clock=clock)
        self._unbounded_rate: Final = limits.unbounded_rate
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
        if self._is_too_fast(peer, "" if client is None else client[0]):
            text = "connection refused: its peer began more in a second than %g, beside others"
            self.note(peer, RefusalReason.CONNECTION_RATE, text, self._max_per_second)
            return None
        holding = self._connections.take(peer, 1, evict)
        if holding is None:
            text = "connection refused: %d are open, %d by its peer"
            self.note(peer, RefusalReason.CONNECTION, text, self._connections.used, self.count(peer))
        return holding

    def _is_too_fast(self, peer: str, host: str) -> bool:
        """Count a new connection, and return whether it has to wait for those of others.

        Connections are counted while the peer is alone, too: what it began then is not ahead of it, but its bucket is empty.
        """
        if self._max_per_second == math.inf or self._rates.take(peer)[1] <= 0:
            return False
        is_alone = len(self._connections) <= (1 if self.count(peer) else 0) and not self._rates.seen_beside(peer)
        return not is_alone and not is_among(parse_address(host), self._unbounded_rate)

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
