"""How a server receives the body of a request: past the parser where its length is known, and straight to who takes it.

uvicorn copies a body four times on its way: for its parser, into what waits, into a message, and from there to where it is
wanted. Of a body with a length, the parser has nothing to say but where it ends; and an application that waits for a number of
bytes (`FILL_KEY`) is given them as they are received.

A body is received no faster than it is taken, and not much before. Connections, headers and answers are the business of
pet/transports/guarded_http.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from pet.bodies.holders import Holding
from pet.errors import MissingExtraError
from pet.transports.body_reader import FILL_KEY, PROGRESS_BYTES, WHOLE_BODY_BYTES, WHOLE_BODY_KEY, Taker

with MissingExtraError.naming("http"):
    import httptools
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

#: Received at once while a body is taken as fast as it comes: twice what asyncio takes by itself, so that a large body takes
#: half as many turns of its loop.
MAX_RECEIVE_BYTES: Final = 1 << 19
#: Received of a body of which nothing was taken yet. It may double with what was taken: so all that lies here, and is not yet
#: in the memory budget, is about as much as what is.
MIN_RECEIVE_BYTES: Final = 1 << 13
#: Buffers that wait to be received into again: as many as a few threads work on at a time.
_MAX_SPARE_BUFFERS: Final = 4
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class HeldFlow(FlowControl):
    """Lets nobody resume reading while it is held: uvicorn does whenever an application asks for more of a body."""

    is_held = False

    def resume_reading(self) -> None:
        """Resume, unless held."""
        if not self.is_held:
            super().resume_reading()


class ReceiveBuffers:
    """Where connections receive, all into one buffer; who keeps it leaves another in its place. For one event loop.

    Attributes:
        current: the buffer.
    """

    def __init__(self) -> None:
        self.current = _new_buffer()
        self._spare: Final[list[memoryview]] = []

    def keep(self) -> Callable[[], None]:
        """Let the buffer be read until what this returns is called."""
        kept, self.current = self.current, self._spare.pop() if self._spare else _new_buffer()
        return partial(self._give_back, kept)

    def _give_back(self, kept: memoryview) -> None:
        if len(self._spare) < _MAX_SPARE_BUFFERS:
            self._spare.append(kept)


def _new_buffer() -> memoryview:
    return memoryview(bytearray(MAX_RECEIVE_BYTES))


class BodyProtocol(HttpToolsProtocol):
    """What one connection does with the body of a request."""

    buffers: ReceiveBuffers

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._whole_holding: Holding | None = None
        #: Whether a body is received, what is still to come (None if it has no length), and what came.
        self._is_in_body = False
        self._body_left: int | None = 0
        self._body_bytes = 0
        #: Whether the parser is not given it, and who takes it as it comes.
        self._is_past_parser = False
        self._taker: Taker | None = None
        self._made_progress = False

    def _begin_body(self) -> None:
        """Note what the headers say of the body."""
        lengths = [int(value) for name, value in self.headers if name == b"content-length"]
        self._is_in_body, self._body_left, self._body_bytes = True, lengths[0] if lengths else None, 0
        is_encoded = any(name == b"transfer-encoding" for name, _ in self.headers)
        self._is_past_parser = bool(self._body_left) and not is_encoded and not self.parser.should_upgrade()

    def _offer_to_fill(self) -> None:
        """Let the application of the request that has begun be given its body as it comes."""
        if self._is_past_parser:
            self.scope[FILL_KEY] = partial(self._fill, self.cycle)  # type: ignore[typeddict-unknown-key]  # a key of our own

    async def _fill(self, cycle: RequestResponseCycle, taker: Taker) -> None:
        """Give a taker what comes until it wants no more, takes no more, or nothing comes; see `FILL_KEY`."""
        if cycle.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(_CONTINUE)
            cycle.waiting_for_100_continue = False
        if cycle.body or not cycle.more_body or cycle.disconnected or cycle.response_complete:
            return
        cycle.message_event.clear()
        self._taker = taker
        taker.wake = partial(self._go_on, cycle, taker)
        if not taker.is_busy:
            self.flow.resume_reading()
        try:
            await cycle.message_event.wait()
        finally:
            self._taker = None

    def _go_on(self, cycle: RequestResponseCycle, taker: Taker) -> None:
        """Receive for a taker that was busy, or let who waits for it go on."""
        if self._taker is not taker:
            return
        if taker.missing_bytes:
            self.flow.resume_reading()
        else:
            cycle.message_event.set()

    def _receivable_bytes(self) -> int:
        """Return how much of a body to receive now."""
        size = self._allowance_bytes()
        if self._taker is not None:
            size = min(size, self._taker.missing_bytes)
        return size if self._body_left is None else max(1, min(size, self._body_left))

    def _pass_body(self, piece: memoryview) -> None:
        """Pass a part of a body that the parser is not given, which `_body_left` is without."""
        self.on_body(piece)
        if not self._body_left:
            self.on_message_complete()
            # The old one waits for the body for ever.
            self._is_past_parser, self.parser = False, httptools.HttpRequestParser(self)
            with suppress(AttributeError):  # httptools before 0.6.3 has none; as uvicorn's
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_body(self, body: bytes | memoryview) -> None:
        """Note that a body made progress; nothing of it is kept once there is an answer, and not much before it is taken."""
        self._made_progress = True
        self._body_bytes += len(body)
        if self._taker is not None and self._is_taken(self._taker, memoryview(body)):
            return
        if self._is_kept_back(body):
            self.cycle.body += body
            return
        super().on_body(body)  # type: ignore[arg-type]  # it is added to a bytearray
        if not self.cycle.response_complete and len(self.cycle.body) >= self._allowance_bytes():
            self.flow.pause_reading()

    def _is_taken(self, taker: Taker, piece: memoryview) -> bool:
        """Offer a piece to who takes it; what comes after the last one waits in the socket."""
        # A buffer that is kept is as large as what its keeper is charged for.
        keep = self.buffers.keep if len(piece) == MAX_RECEIVE_BYTES else None
        if not (taker.missing_bytes and taker.take(piece, keep)):  # a busy one misses none
            self._taker = None
            return False
        if not taker.missing_bytes:
            if self._body_left:
                self.flow.pause_reading()
            if not taker.is_busy:
                self._taker = None
                self.cycle.message_event.set()
        return True

    def on_message_complete(self) -> None:
        """Note that what follows is another request."""
        self._is_in_body = False
        self.scope[WHOLE_BODY_KEY] = True  # type: ignore[typeddict-unknown-key]  # a key of our own
        super().on_message_complete()

    def _allowance_bytes(self) -> int:
        """Return how much of a body may wait here to be taken."""
        if self._whole_holding is not None:
            return WHOLE_BODY_BYTES
        taken = self._body_bytes - (0 if self.cycle.response_complete else len(self.cycle.body))
        return max(MIN_RECEIVE_BYTES, min(MAX_RECEIVE_BYTES, taken))

    def _is_kept_back(self, body: bytes | memoryview) -> bool:
        """Return whether a part of a body is to wait for the rest: until that is progress, it would only wake its receiver."""
        is_whole = self._whole_holding is None or not self._body_left
        return not is_whole and not self.cycle.response_complete and len(self.cycle.body) + len(body) < PROGRESS_BYTES
