"""A connection that answers small messages which came whole with their headers, without a task of asyncio for each.

All other requests are uvicorn's, and so is one of these that cannot be taken at once: then everything goes on as if nobody had
looked. Knows nothing of a message (pet/transports/whole_messages.py).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from pet.errors import MissingExtraError
from pet.transports.body_protocol import MIN_RECEIVE_BYTES
from pet.transports.guarded_http import GuardedProtocol, guarded_protocol
from pet.transports.open_connections import ConnectionLimits
from pet.transports.refusal_counts import RefusalCounts
from pet.transports.whole_messages import EMPTY, Headers, WholeMessages

with MissingExtraError.naming("http"):
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE

_FORWARDED: Final = b"x-forwarded-for"
_CLOSE: Final = (b"connection", b"close")


def short_request_protocol(
    limits: ConnectionLimits, refusals: RefusalCounts, whole_messages: WholeMessages
) -> type[GuardedProtocol]:
    """Return a protocol class as `guarded_protocol` does, whose connections hand messages over themselves.

    Args:
        limits: what connections may take.
        refusals: where refusals are counted.
        whole_messages: takes messages.
    """

    class BoundShortRequests(ShortRequests, guarded_protocol(limits, refusals)):  # type: ignore[misc]
        messages = whole_messages

    return BoundShortRequests


class _Answering:
    """A request that is answered here: what uvicorn and `GuardedProtocol` look at in a request."""

    __slots__ = ("disconnected", "keep_alive", "response_complete")

    more_body: Final = False
    body: Final = b""

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response_complete = self.disconnected = False

    @property
    def message_event(self) -> _Answering:
        """What uvicorn sets when a peer has gone; nobody waits for it."""
        return self

    def set(self) -> None:
        """Wake nobody."""


class ShortRequests(GuardedProtocol):
    """One connection; see `short_request_protocol`."""

    messages: WholeMessages
    #: The answer to a message, and the headers of uvicorn that are in it: it renews them every second.
    _accepted: tuple[list[tuple[bytes, bytes]] | None, bytes] = (None, b"")
    #: Of a request that is put off: what came of its body, and whether the connection outlives it.
    _put_off_body = b""
    _keeps_alive = True

    def data_received(self, data: bytes | memoryview) -> None:
        """Go the long way with a request that did not come whole."""
        super().data_received(data)
        if self._is_put_off and not self.transport.is_closing():
            self._go_the_long_way()

    def on_headers_complete(self) -> None:
        """Put a request off until its body is there, if it may be a message."""
        if not self._may_be_short():
            super().on_headers_complete()
            return
        self._note_headers()
        self._is_put_off = True
        self._put_off_body = b""
        self._keeps_alive = bool(self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive())

    def on_body(self, body: bytes | memoryview) -> None:
        """Keep the body of a request that is put off."""
        if not self._is_put_off:
            super().on_body(body)
            return
        self._made_progress = True
        self._put_off_body += body

    def on_message_complete(self) -> None:
        """Hand a message over; what cannot be taken goes the long way."""
        if self._is_put_off:
            answering = _Answering(keep_alive=self._keeps_alive)
            if self.messages.take(self._put_off_body, self._peer, partial(self._answer, answering)):
                self.cycle = answering  # type: ignore[assignment]  # in all that is looked at here
                self._is_put_off = self._is_in_body = False
                self._put_off_body = b""
                return
            self._go_the_long_way()
        super().on_message_complete()

    def _may_be_short(self) -> bool:
        """Return whether a request, whose headers are known, may be a message that is here as soon as they are."""
        if self.url not in self.messages.paths or self.parser.get_method() != b"POST" or self.expect_100_continue:
            return False
        if self.flow.write_paused or self.access_log or self.parser.should_upgrade():
            return False
        length = None
        for name, value in self.headers:
            if name == b"content-length":
                length = int(value)
            elif name == _FORWARDED:
                return False
        return length is not None and 0 < length <= MIN_RECEIVE_BYTES

    def _go_the_long_way(self) -> None:
        """Let the application answer, and give it what came of the body."""
        left, body = self._body_left, self._put_off_body
        self._is_put_off, self._put_off_body = False, b""
        super().on_headers_complete()
        self._body_left = left
        if body:
            super().on_body(body)

    def _answer(self, answering: _Answering, status: int, headers: Headers) -> None:
        """Send an answer without a body."""
        answering.response_complete = True
        if answering.disconnected:
            return
        default_headers = self.server_state.default_headers
        if headers is EMPTY and status == 200 and answering.keep_alive:
            if self._accepted[0] is not default_headers:
                type(self)._accepted = default_headers, _render(200, [*default_headers, *EMPTY])
            self.transport.write(self._accepted[1])
        else:
            is_closing = not answering.keep_alive or _CLOSE in headers
            closing = [_CLOSE] if is_closing and _CLOSE not in headers else []
            self.transport.write(_render(status, [*default_headers, *headers, *closing]))
            if is_closing:
                self.transport.close()
        self.on_response_complete()


def _render(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    lines: list[Any] = [STATUS_LINE[status]]
    for name, value in headers:
        lines += [name, b": ", value, b"\r\n"]
    return b"".join([*lines, b"\r\n"])
