"""The library's way to the broker, made for large messages: received where they stay, and sent from where they are.

The library leaves carrying bytes to a transport, and understanding them to a parser. Both are put in place here: a transport
that takes large messages apart from all else (splitter.py), and a parser that hands these on as they are. Where the library
is not built as it was when this was written, it keeps its own, and everything works as before, only slower.

Knows no subject, and does not connect by itself: the library decides when, and encrypts when it has to.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import ParseResult

from pet.buffers import Buffer
from pet.errors import MissingExtraError
from pet.transports.host_names import look_up
from pet.transports.nats.broker_link import BrokerLink
from pet.transports.nats.splitter import LargeMessage

with MissingExtraError.naming("nats"):
    import nats.errors
    from nats.aio.client import Client
    from nats.aio.transport import Transport
    from nats.protocol.parser import Parser

#: So much of both ends of a large part is copied, to be sent together with what is before and behind it.
_EDGE_BYTES: Final = 2**16
_LINE_END: Final = b"\r\n"
_DEFAULT_PORT: Final = 4222


def _pieces(*parts: Buffer) -> Iterator[Buffer]:
    """Yield what to write for some parts one by one: the middle of large ones as it is, and no piece that is small.

    A broker that has read small pieces takes smaller buffers for what follows, and more CPU time.
    """
    joined: list[Buffer] = []
    for part in parts:
        if len(part) > 2 * _EDGE_BYTES:
            yield b"".join((*joined, part[:_EDGE_BYTES]))
            yield part[_EDGE_BYTES:-_EDGE_BYTES]
            joined = [part[-_EDGE_BYTES:]]
        else:
            joined.append(part)
    yield b"".join(joined)


def _leave(_message: LargeMessage) -> bool:
    return False


class Wire(Transport):
    """Carries what a client of the library sends and receives, over any number of connections."""

    def __init__(self) -> None:
        #: Gets each large message first, and says whether it was for it; the others wait to be read.
        self.take_at_once: Callable[[LargeMessage], bool] = _leave
        self._present: BrokerLink | None = None
        self._turn: Final = asyncio.Lock()

    @classmethod
    def into(cls, client: Client) -> Wire | None:
        """Have a client that is not connected yet use a wire; None if the library is not what this was made for."""
        if not _is_known(client):
            return None
        client._transport, client._ps = wire, _ = cls(), LargeMessageParser(client)
        return wire

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:  # noqa: ARG002 - the library's
        """Connect, in place of an earlier connection."""
        self.close()
        assert uri.hostname is not None, "the library asks for no other URLs"
        connecting = self._connect(uri.hostname, uri.port or _DEFAULT_PORT)
        _, self._present = await asyncio.wait_for(connecting, connect_timeout)

    async def _connect(self, host: str, port: int) -> tuple[asyncio.BaseTransport, BrokerLink]:
        """Connect to the first address that answers. The loop gets no name: its end would wait for a resolver that hangs."""
        loop = asyncio.get_running_loop()
        addresses = await asyncio.wrap_future(look_up(host, port))
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(0)
                await loop.sock_connect(connection, address)
                transport, link = await loop.create_connection(self._make_link, sock=connection)
            except BaseException as error:
                connection.close()
                if not isinstance(error, OSError) or number == len(addresses) - 1:
                    raise
            else:
                link.socket = connection if hasattr(connection, "sendmsg") else None  # Windows has none
                return transport, link
        raise OSError(f"{host}: no address")

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,  # noqa: ARG002 - the library's
        connect_timeout: int,
    ) -> None:
        """Encrypt the connection. What came before in plain text no longer counts."""
        before, link = self._link(), self._make_link()
        name = uri if isinstance(uri, str) else uri.hostname
        loop = asyncio.get_running_loop()
        assert before.transport is not None, "made when it was connected"
        upgrading = loop.start_tls(before.transport, link, ssl_context, server_hostname=name)
        try:
            transport = await asyncio.wait_for(upgrading, connect_timeout)
        except BaseException:
            before.connection_lost(None)  # asyncio has closed it without calling this
            raise
        assert transport is not None, "start_tls returns a transport or raises"
        link.connection_made(transport)
        self._present = link

    def write(self, payload: bytes) -> None:
        """Send bytes, as soon as there is room for them."""
        self._writer().write(payload)

    def writelines(self, payload: Sequence[bytes]) -> None:
        """Send several pieces of bytes."""
        # Not by its own writelines, which on Python 3.12 raises TypeError once the connection is gone.
        self.write(b"".join(payload))

    async def read(self, buffer_size: int) -> Any:  # noqa: ARG002 - the library's
        """Return what came first: bytes, or a `LargeMessage`; no bytes at the end.

        Raises:
            OSError, ProtocolError: the connection broke, or what comes makes no sense.
        """
        link = self._link()
        await link.has_news.wait()
        if link.items:
            return link.take_item()
        if link.error is not None:
            raise link.error
        return b""

    async def readline(self) -> bytes:
        """Return a line; only for what is said before there are messages."""
        item = await self.read(0)
        if isinstance(item, LargeMessage):
            raise nats.errors.ProtocolError  # a message in the place of a line
        line, end, rest = item.partition(b"\n")
        if rest:
            self._link().put_back(rest)
        return bytes(line + end)

    async def drain(self) -> None:
        """Wait until there is room to send more.

        Raises:
            OSError: the connection is gone.
        """
        link = self._link()
        await link.can_write.wait()
        if link.is_over:
            raise ConnectionResetError("connection lost")

    async def send_message(self, client: Client, subject: str, reply: str, parts: Sequence[Buffer]) -> None:
        """Send a message without copying it, as soon as there is room; its parts must not change until it is answered.

        Raises:
            OSError: the connection is gone, or not made again yet.
        """
        if f"{subject} {reply or subject}".split() != [subject, reply or subject]:
            raise nats.errors.BadSubjectError
        async with self._turn:  # else everybody who waits for room would think that it is theirs
            await self.drain()
            if not client.is_connected:
                raise ConnectionResetError("not connected")
            head = f"PUB {subject} {reply} {sum(map(len, parts))}\r\n".encode()
            if left := self._link().send_at_once((head, *parts, _LINE_END)):
                writer = self._writer()
                for piece in _pieces(*left):
                    writer.write(piece)

    def recycle(self, payload: memoryview) -> None:
        """Receive into the buffer of a message that is no longer referenced."""
        if self._present is not None:
            self._present.splitter.recycle(payload)

    async def wait_closed(self) -> None:
        """Wait until what was closed is closed."""
        if self._present is not None:
            await self._present.is_closed.wait()

    def close(self) -> None:
        """Close the connection, if there is one, when everything is sent."""
        if self._present is not None and self._present.transport is not None:
            self._present.transport.close()

    async def abort(self) -> None:
        """Close the connection, if there is one, drop what is not sent, and wait until the socket is closed."""
        link = self._present
        if link is not None and link.transport is not None and not link.is_closed.is_set():
            link.transport.abort()
            await link.is_closed.wait()

    def at_eof(self) -> bool:
        """Return whether nothing more will come."""
        return self._present is None or (self._present.is_over and not self._present.items)

    def __bool__(self) -> bool:
        """Be there from the beginning: in place of one that is not there, the library makes its own."""
        return True

    def _make_link(self) -> BrokerLink:
        return BrokerLink(self.take_at_once)

    def _link(self) -> BrokerLink:
        if self._present is None:
            raise ConnectionResetError("never connected")
        return self._present

    def _writer(self) -> asyncio.Transport:
        transport = self._link().transport
        assert transport is not None, "there as soon as there is a connection"
        return transport


class LargeMessageParser(Parser):
    """The library's parser, which leaves large messages as they are."""

    async def parse(self, data: Any = b"") -> None:
        """Handle what `Wire.read` returned."""
        if isinstance(data, LargeMessage):
            await self.nc._process_msg(data.sid, data.subject, data.reply, data.payload, data.header)
        else:
            await super().parse(data)


def _is_known(client: Client) -> bool:
    """Return whether the library has the places where a wire and its parser belong, and asks of them what they can do."""
    needed = Transport.__abstractmethods__ | {"__bool__"}
    process = getattr(client, "_process_msg", None)
    return (
        getattr(client, "_transport", ...) is None
        and type(getattr(client, "_ps", None)) is Parser
        and needed <= vars(Wire).keys()
        and process is not None
        and list(inspect.signature(process).parameters) == ["sid", "subject", "reply", "data", "headers"]
    )
