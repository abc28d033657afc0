"""uvicorn's HTTP protocol with what it lacks against bad peers: bounds on connections, headers, time, and on what lies around.

uvicorn waits for ever for a request to begin and for its headers to end, keeps headers of any size, and parses requests that
follow on one that is still answered. Here a connection has a deadline whenever no request is being answered; parsing stops
while one is, and what comes meanwhile stays in the socket but for a few kilobytes; a body is received no faster than it is
taken; an answer that nobody takes ends the connection. Bodies, routes and answers are not this file's business
(pet/transports/asgi.py), nor are the shares of addresses (pet/transports/open_connections.py) and TLS
(pet/transports/guarded_tls.py).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from pet.bodies.holders import Holding
from pet.errors import MissingExtraError, RemoteProtocolError
from pet.transports.body_protocol import MIN_RECEIVE_BYTES, BodyProtocol, HeldFlow, ReceiveBuffers
from pet.transports.body_reader import WHOLE_BODY_BYTES
from pet.transports.connection_timers import Deadline, RestTimer, UnsentTimer
from pet.transports.open_connections import ConnectionLimits, OpenConnections
from pet.transports.refusal_counts import RefusalCounts, RefusalReason

with MissingExtraError.naming("http"):
    import httptools

_logger: Final = logging.getLogger(__name__)

#: Received at once where a request begins: most messages come whole. What comes behind may be the next request, which has to
#: be kept.
_FIRST_RECEIVE_BYTES: Final = 1 << 13
#: Headers up to this size are not counted beside others.
_HEAD_RECEIVE_BYTES: Final = 1 << 12
#: Kept of what comes while a request is answered. It is received to learn that the peer has gone.
_MAX_REST_BYTES: Final = 1 << 12
#: Header lines of one request: each takes a hundred bytes more than it has.
_MAX_HEADER_LINES: Final = 128
_END_OF_HEADERS: Final = b"\r\n\r\n"
_REFUSAL: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def guarded_protocol(connection_limits: ConnectionLimits, refusals: RefusalCounts | None = None) -> type[GuardedProtocol]:
    """Return a protocol class for `uvicorn.Config(http=...)`; its connections share the bounds.

    Args:
        connection_limits: the bounds.
        refusals: where refusals are counted; None counts them apart.
    """

    class BoundProtocol(GuardedProtocol):
        limits = connection_limits
        open_connections = OpenConnections(connection_limits, refusals)
        buffers = ReceiveBuffers()

    return BoundProtocol


class GuardedProtocol(BodyProtocol, asyncio.BufferedProtocol):
    """One connection; see `guarded_protocol`.

    asyncio receives into one buffer that all connections share: what comes is taken apart before anything else is received, and
    a new bytes object of that size for every piece costs more than receiving it.
    """

    limits: ConnectionLimits
    open_connections: OpenConnections

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._holding: Holding | None = None
        self._header_holding: Holding | None = None
        #: Of the request that is received: bytes that are no body, lines, and the end of what was parsed of its headers.
        self._header_bytes = 0
        self._header_lines = 0
        self._header_end = b""
        self._reason = ""
        #: Whether nobody has begun to answer it: pet/transports/short_requests.py.
        self._is_put_off = False
        #: What came while a request was answered.
        self._rest = bytearray()

    @property
    def _peer(self) -> str:
        return "" if self._holding is None else self._holding.holder

    @property
    def _is_answering(self) -> bool:
        """Whether a request was received whole, and not its answer sent."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or answer 503 and close it."""
        self._begin(transport)
        self._holding = self.open_connections.admit(self.client, self._make_room)
        if self._holding is None:
            transport.write(_REFUSAL)
            transport.close()
            return
        self._headers_deadline.begin()

    def take_over(self, transport: asyncio.Transport, holding: Holding) -> None:
        """Take a connection that is counted already."""
        self._begin(transport)
        self._holding = holding
        holding.evict = self._make_room
        self._headers_deadline.begin()

    def _begin(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.flow = HeldFlow(transport)
        self._headers_deadline = Deadline(self.loop, self.limits.header_seconds, self._give_up)
        self._rest_timer = RestTimer(self.loop, self.timeout_keep_alive, self._end_rest)
        self._unsent = UnsentTimer(self.loop, transport, self.limits.stall_seconds, self._end_stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give everything back."""
        self._headers_deadline.close()
        self._unsent.close()
        self._rest_timer.close()
        self.open_connections.release(self._holding, self._header_holding, self._whole_holding)
        self._holding = self._header_holding = self._whole_holding = None
        self._rest.clear()
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - it is asyncio's
        """Say where to put what is received: no more than can be used now."""
        if self._is_answering:
            return self.buffers.current[: max(1, _MAX_REST_BYTES - len(self._rest))]
        if not self._is_in_body:
            return self.buffers.current[:_FIRST_RECEIVE_BYTES]
        return self.buffers.current[: self._receivable_bytes()]

    def buffer_updated(self, nbytes: int) -> None:
        """Read what was received."""
        self.data_received(self.buffers.current[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse up to the end of a request; what follows waits for its answer."""
        if self._rest:
            data = b"".join([self._rest, data])
            self._rest.clear()
        view = memoryview(data)
        while view and not self.transport.is_closing():
            if self._is_answering:
                self._keep(view)
                return
            size = self._piece_bytes(view)
            self._parse(view[:size])
            view = view[size:]

    def on_message_begin(self) -> None:
        """Note that headers begin, unless it is behind a body without a length, of which only the parser knows the end."""
        if self._is_answering:  # raised through the parser, which has no other way to be stopped
            raise RemoteProtocolError("unexpected_request", "request: expected none before the last one is answered")
        self._header_lines = 0
        self.open_connections.release(self._header_holding)
        self._header_holding = None
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._header_lines += 1
        if self._header_lines > _MAX_HEADER_LINES:
            self._reason = f"expected at most {_MAX_HEADER_LINES} headers"
            raise RemoteProtocolError("too_many_headers", f"request: {self._reason}, got more")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that a request has begun, and let it be answered."""
        self._note_headers()
        if self._body_left is not None and MIN_RECEIVE_BYTES < self._body_left <= WHOLE_BODY_BYTES:
            self._whole_holding = self.open_connections.admit_whole(self._peer, self._body_left)
        super().on_headers_complete()
        self._offer_to_fill()

    def _note_headers(self) -> None:
        self._made_progress = True
        self._headers_deadline.close()
        self._begin_body()
        self._header_bytes, self._header_end = 0, b""

    def on_response_complete(self) -> None:
        """Go on with what came meanwhile."""
        assert isinstance(self.flow, HeldFlow)
        self.flow.is_held = False
        self.open_connections.release(whole=self._whole_holding)
        self._whole_holding = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._unsent.begin()  # a reader that takes nothing would keep it closing for ever
            return
        self.flow.resume_reading()
        self._rest_timer.begin()
        if self._rest:
            self.loop.call_soon(self._parse_rest)

    def pause_writing(self) -> None:
        """Note that a peer does not take its answer as fast as it is made."""
        super().pause_writing()
        self._unsent.begin()

    def resume_writing(self) -> None:
        """Note that it does."""
        super().resume_writing()
        self._unsent.close()

    def _unset_keepalive_if_required(self) -> None:
        """Note that a connection no longer rests; uvicorn would end its timer."""
        self._rest_timer.stop()

    def _end_rest(self) -> None:
        """Close a connection on which nothing happens, unless its peer still takes an answer bit by bit."""
        if self.transport.get_write_buffer_size() and not self.transport.is_closing():
            self._unsent.begin()
            self._rest_timer.begin()
        else:
            self.transport.abort()

    def _keep(self, view: memoryview) -> None:
        """Keep what came while a request is answered, and receive no more of it."""
        self._rest += view
        if len(self._rest) >= _MAX_REST_BYTES:
            self._hold()

    def _hold(self) -> None:
        assert isinstance(self.flow, HeldFlow)
        self.flow.pause_reading()
        self.flow.is_held = True

    def _parse_rest(self) -> None:
        if self._rest and not self._is_answering:
            self.data_received(b"")

    def _piece_bytes(self, view: memoryview) -> int:
        """Return how much of what was received to parse: what is of the same request, as far as its headers tell.

        The first piece of headers is too small to be counted: only when it was parsed, a new request is known to have begun.
        """
        if self._is_in_body:
            return len(view) if self._body_left is None else min(len(view), self._body_left)
        end = (self._header_end + bytes(view)).find(_END_OF_HEADERS)
        size = len(view) if end < 0 else end + len(_END_OF_HEADERS) - len(self._header_end)
        return min(size, _HEAD_RECEIVE_BYTES)

    def _parse(self, piece: memoryview) -> None:
        self._unset_keepalive_if_required()
        self._made_progress = False
        if not self._is_in_body:
            self._header_end = (self._header_end + bytes(piece[-len(_END_OF_HEADERS) :]))[1 - len(_END_OF_HEADERS) :]
        elif self._body_left is not None:
            self._body_left -= len(piece)
        self._header_bytes += len(piece)
        if not self._is_in_body and not self._admit_headers():
            return
        if self._is_in_body and self._is_past_parser:
            self._pass_body(piece)
        else:
            self._feed(piece)
        # Most headers come whole, and need no timer.
        if (self.cycle is None or self.cycle.response_complete) and not self._is_put_off:
            self._headers_deadline.begin()
        if self._made_progress:
            self._header_bytes = 0
        elif self._header_bytes > self.limits.max_header_bytes and not self.transport.is_closing():
            self._abort(RefusalReason.HEADERS, f"expected headers of at most {self.limits.max_header_bytes} bytes")

    def _feed(self, piece: memoryview) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            _logger.debug("a peer asked for another protocol")
        except httptools.HttpParserCallbackError:
            if self._reason:
                self._abort(RefusalReason.HEADERS, self._reason)
            else:
                self.cycle.keep_alive = False
                self._hold()
        except httptools.HttpParserError:
            self.open_connections.note(self._peer, RefusalReason.NO_HTTP, "connection closed: expected HTTP/1.1")
            self.send_400_response("Invalid HTTP request received.")

    def _admit_headers(self) -> bool:
        """Bound headers: those of one request, and all of more than a few kilobytes together."""
        size = self._header_bytes
        if size > self.limits.max_header_bytes:
            self._abort(RefusalReason.HEADERS, f"expected headers of at most {self.limits.max_header_bytes} bytes")
            return False
        if size <= _HEAD_RECEIVE_BYTES:
            return True
        self._header_holding = self.open_connections.admit_headers(self._peer, self._header_holding, size, self._make_room)
        if self._header_holding is None:
            self.open_connections.note(self._peer, RefusalReason.HEADERS, "request refused: no room for its headers")
            self.transport.write(_REFUSAL)
            self.transport.close()
        return self._header_holding is not None

    def _give_up(self) -> None:
        self._abort(RefusalReason.HEADER_TIME, f"expected a request within {self.limits.header_seconds:g} s")

    def _end_stalled(self) -> None:
        self._abort(RefusalReason.READER_STALLED, f"expected an answer to be taken within {self.limits.stall_seconds:g} s")

    def _make_room(self) -> None:
        self._abort(RefusalReason.CONNECTION_EVICTED, "others, with fewer, need the room")

    def _abort(self, reason: RefusalReason, text: str) -> None:
        self.open_connections.note(self._peer, reason, "connection closed: %s", text)
        self.transport.abort()
