"""One connection to a broker: what comes, taken apart and kept until it is read, and what is sent without a copy.

Knows no subject, and nothing of the library but how it reports a broken protocol.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from pet.buffers import Buffer
from pet.errors import MalformedFrameError, MissingExtraError
from pet.transports.nats.splitter import FrameSplitter, LargeMessage

with MissingExtraError.naming("nats"):
    import nats.errors

_logger: Final = logging.getLogger(__name__)

#: Received and not read yet; nothing more is received meanwhile.
_MAX_WAITING_BYTES: Final = 2**23


class BrokerLink(asyncio.BufferedProtocol):
    """One connection, from its first byte on; a connection that becomes encrypted is another one from then on."""

    def __init__(self, take_at_once: Callable[[LargeMessage], bool]) -> None:
        self._take_at_once: Final = take_at_once
        self.items: Final[deque[bytes | LargeMessage]] = deque()
        self.transport: asyncio.Transport | None = None
        #: What carries the connection, as long as that is the same bytes; None once they are encrypted.
        self.socket: socket.socket | None = None
        self.is_over = False
        self.error: Exception | None = None
        self.has_news: Final = asyncio.Event()
        self.can_write: Final = asyncio.Event()
        self.is_closed: Final = asyncio.Event()
        self.splitter: Final = FrameSplitter()
        self._waiting_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection that asyncio has made."""
        assert isinstance(transport, asyncio.Transport), "a stream of bytes"
        self.transport = transport
        self.can_write.set()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        """Say where to put what is received."""
        return self.splitter.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was received."""
        try:
            items = self.splitter.take(nbytes)
        except MalformedFrameError as error:
            _logger.warning("%s", error)
            self._end(nats.errors.ProtocolError())
            if self.transport is not None:
                self.transport.abort()
            return
        for item in items:
            if isinstance(item, LargeMessage) and self._take_at_once(item):
                continue
            self.items.append(item)
            self._waiting_bytes += _size_of(item)
        if self.items:
            self.has_news.set()
            if self._waiting_bytes > _MAX_WAITING_BYTES and self.transport is not None:
                self.transport.pause_reading()

    def eof_received(self) -> None:
        """Note that the broker is done."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self._end(exc)
        self.is_closed.set()

    def pause_writing(self) -> None:
        """Have writers wait."""
        self.can_write.clear()

    def resume_writing(self) -> None:
        """Have them go on."""
        self.can_write.set()

    def send_at_once(self, parts: Sequence[Buffer]) -> list[Buffer]:
        """Send what there is room for, in one call for all parts and without a copy; returns what is left to be written."""
        left = list(parts)
        if self.socket is None or self.transport is None or self.transport.get_write_buffer_size():
            return left
        try:
            sent_bytes = self.socket.sendmsg(left)
        except OSError:  # there is no room, or the connection is gone: the transport finds out the same
            return left
        while left and sent_bytes >= len(left[0]):
            sent_bytes -= len(left.pop(0))
        if left:
            left[0] = memoryview(left[0])[sent_bytes:]
        return left

    def take_item(self) -> bytes | LargeMessage:
        """Return what came first."""
        item = self.items.popleft()
        before = self._waiting_bytes
        self._waiting_bytes -= _size_of(item)
        if before > _MAX_WAITING_BYTES >= self._waiting_bytes and self.transport is not None:
            self.transport.resume_reading()
        if not (self.items or self.is_over):
            self.has_news.clear()
        return item

    def put_back(self, data: bytes) -> None:
        """Leave what was not needed for the next reader."""
        self.items.appendleft(data)
        self._waiting_bytes += len(data)
        self.has_news.set()

    def _end(self, error: Exception | None) -> None:
        self.is_over, self.error = True, self.error or error
        self.has_news.set()
        self.can_write.set()


def _size_of(item: bytes | LargeMessage) -> int:
    return len(item) if isinstance(item, bytes) else len(item.payload)
