"""uvicorn's HTTP protocol with what it lacks against bad peers: bounds on connections, on headers, and on the time for them.

uvicorn waits for ever for a request to begin and for its headers to end, and keeps headers of any size. Here a connection has
a deadline whenever no request is being answered, and what is neither a whole header nor a body is bounded. Bodies, routes and
answers are not this file's business (pet/transports/asgi.py), nor is TLS (pet/transports/guarded_tls.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from pet.errors import MissingExtraError
from pet.transports.line_limit import LineLimit
from pet.transports.peers import peer_of

with MissingExtraError.naming("http"):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_logger: Final = logging.getLogger(__name__)

#: Received at once: twice what asyncio takes by itself, so that a large body takes half as many turns of its loop.
_RECEIVE_BYTES: Final = 1 << 19
_REFUSAL: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What connections may take.

    Attributes:
        max_connections: connections at the same time.
        max_connections_per_peer: the same from one address.
        header_seconds: the time for the headers of a request, from the connection or from their first byte on.
        max_header_bytes: bytes of headers, and of everything else that is no body.
    """

    max_connections: int
    max_connections_per_peer: int
    header_seconds: float
    max_header_bytes: int


class OpenConnections:
    """How many connections are open, by peer.

    Attributes:
        lines: bounds what peers cause to be logged.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.lines: Final = LineLimit()
        self._limits = limits
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many peers have a connection."""
        return len(self._counts)

    def count(self, peer: str) -> int:
        """Return how many connections a peer has."""
        return self._counts.get(peer, 0)

    def admit(self, client: tuple[str, int] | None, open_count: int) -> str | None:
        """Count a new connection.

        Args:
            client: its address and port.
            open_count: open connections with this one.

        Returns:
            What `release` takes; None for a connection beyond the limits, which is not counted.
        """
        peer = peer_of(client)
        limits, count = self._limits, self.count(peer)
        if open_count > limits.max_connections or count >= limits.max_connections_per_peer:
            text = "connection refused: %d are open, %d by its peer"
            self.lines.log(_logger, logging.INFO, peer, text, open_count - 1, count)
            return None
        self._counts[peer] += 1
        return peer

    def release(self, peer: str | None) -> None:
        """Count the end of a connection; None is one that was not admitted."""
        if peer is not None:
            self._counts[peer] -= 1
            if not self._counts[peer]:
                del self._counts[peer]


def guarded_protocol(connection_limits: ConnectionLimits) -> type[GuardedProtocol]:
    """Return a protocol class for `uvicorn.Config(http=...)`; its connections share the bounds."""

    class BoundProtocol(GuardedProtocol):
        limits = connection_limits
        open_connections = OpenConnections(connection_limits)
        _buffer = memoryview(bytearray(_RECEIVE_BYTES))

    return BoundProtocol


class GuardedProtocol(HttpToolsProtocol, asyncio.BufferedProtocol):
    """One connection; see `guarded_protocol`.

    asyncio receives into one buffer that all connections share: what comes is taken apart before anything else is received, and
    a new bytes object of that size for every piece costs more than receiving it.
    """

    limits: ConnectionLimits
    open_connections: OpenConnections
    _buffer: memoryview

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._peer: str | None = None
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._made_progress = False
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or answer 503 and close it."""
        super().connection_made(transport)
        self._peer = self.open_connections.admit(self.client, len(self.connections))
        if self._peer is None:
            transport.write(_REFUSAL)
            transport.close()
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give everything back."""
        self._stop_expecting()
        self._unset_keepalive_if_required()
        self.open_connections.release(self._peer)
        self._peer = None
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - it is asyncio's
        """Say where to put what is received."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read what was received."""
        self.data_received(self._buffer[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        """Read as uvicorn does, within the bounds."""
        if self._header_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_headers()
        self._made_progress = False
        super().data_received(data)  # type: ignore[arg-type]  # any buffer will do
        self._header_bytes = 0 if self._made_progress else self._header_bytes + len(data)
        if self._header_bytes > self.limits.max_header_bytes and not self.transport.is_closing():
            self._abort(f"expected headers of at most {self.limits.max_header_bytes} bytes")

    def on_headers_complete(self) -> None:
        """Note that a request has begun."""
        self._made_progress = True
        self._stop_expecting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that a body made progress; nothing of it is kept once there is an answer."""
        self._made_progress = True
        super().on_body(body)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing happens, unless its peer still takes an answer bit by bit."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes and unsent_bytes != self._unsent_bytes and not self.transport.is_closing():
            self._unsent_bytes = unsent_bytes
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        else:
            self.transport.abort()

    def _expect_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.limits.header_seconds, self._give_up)

    def _stop_expecting(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._abort(f"expected a request within {self.limits.header_seconds:g} s")

    def _abort(self, reason: str) -> None:
        self.open_connections.lines.log(_logger, logging.INFO, self._peer or "", "connection closed: %s", reason)
        self.transport.abort()
