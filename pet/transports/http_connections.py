"""How HTTP clients connect, so that they can be stopped at every step: name, TCP, TLS, and whatever comes then.

httpx gives its connections to nobody before they are made, which takes up to 15 s if nobody answers, and its asyncio half
forgets the socket of a handshake that is cancelled. So httpcore, below it, is given the sockets that it works on. This file
knows sockets, and neither a request nor an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any, Final

from pet.errors import MissingExtraError
from pet.transports.host_names import look_up

with MissingExtraError.naming("http"):
    import httpcore
    from httpcore._backends.sync import SyncStream

#: How often a thread that connects looks whether it should stop.
_POLL_SECONDS: Final = 0.1


class Connections:
    """The sockets of a transport, so that another thread can end what is done on them."""

    def __init__(self) -> None:
        self._sockets: Final[weakref.WeakSet[socket.socket]] = weakref.WeakSet()
        self._lock: Final = threading.Lock()
        self._is_ended = False

    @property
    def is_ended(self) -> bool:
        """Whether `end` was called."""
        return self._is_ended

    def add(self, connection: socket.socket) -> None:
        """Remember a socket as long as somebody uses it; after `end` it is shut down at once."""
        with self._lock:
            self._sockets.add(connection)
            is_ended = self._is_ended
        if is_ended:
            _shut_down(connection)

    def end(self) -> None:
        """End what is under way on every socket, now and later, from any thread."""
        with self._lock:
            self._is_ended = True
            connections = list(self._sockets)
        for connection in connections:
            _shut_down(connection)


class EndableBackend(httpcore.NetworkBackend):
    """What httpcore connects with: as its own, but that `Connections.end` ends it at every step."""

    def __init__(self, connections: Connections) -> None:
        self._connections: Final = connections

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        *_: Any,
        **__: Any,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host that answers.

        httpx can give a local address and options of the socket too, and is given none by pet.

        Raises:
            httpcore.ConnectTimeout: none answered in time.
            httpcore.ConnectError: no address, none that takes connections, or ended.
        """
        deadline = time.monotonic() + (threading.TIMEOUT_MAX if timeout is None else timeout)
        with _as_connect_error():
            addresses = self._addresses(host, port, deadline)
            for number, (family, kind, protocol, _, address) in enumerate(addresses):
                # Each has its share of the time: one that swallows what it is sent must not keep the others from being tried.
                now = time.monotonic()
                share = now + (deadline - now) / (len(addresses) - number)
                try:
                    connection = self._connect(socket.socket(family, kind, protocol), address, share)
                except OSError:
                    if number == len(addresses) - 1 or self._connections.is_ended:
                        raise
                else:
                    return _Stream(connection, self._connections)
            raise OSError(f"{host}: no address")

    def _addresses(self, host: str, port: int, deadline: float) -> list[tuple[Any, ...]]:
        looking_up = look_up(host, port)
        self._wait_until(lambda seconds: bool(wait([looking_up], seconds).done), deadline)
        return looking_up.result()

    def _connect(self, connection: socket.socket, address: Any, deadline: float) -> socket.socket:
        try:
            connection.settimeout(0.0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = connection.connect_ex(address)
            if code in {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN}:
                with selectors.DefaultSelector() as selector:
                    selector.register(connection, selectors.EVENT_WRITE)
                    self._wait_until(lambda seconds: bool(selector.select(seconds)), deadline)
                code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        except BaseException:
            connection.close()
            raise
        self._connections.add(connection)
        return connection

    def _wait_until(self, is_ready: Callable[[float], bool], deadline: float) -> None:
        """Wait for something, by short waits that say whether it is there.

        Raises:
            TimeoutError: not ready at the deadline.
            ConnectionAbortedError: ended.
        """
        while not is_ready(max(0.0, min(_POLL_SECONDS, deadline - time.monotonic()))):
            if self._connections.is_ended:
                raise ConnectionAbortedError("closed while it was connecting")
            if time.monotonic() >= deadline:
                raise TimeoutError("timed out")


class _Stream(SyncStream):
    """A connection whose TLS handshake can be ended: the library's is done on a socket that nobody else knows."""

    def __init__(self, connection: socket.socket, connections: Connections) -> None:
        super().__init__(connection)
        self._connection: Final = connection
        self._connections: Final = connections

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        if isinstance(self._connection, ssl.SSLSocket):  # to a proxy; what is inside is read and written on the known socket
            return super().start_tls(ssl_context, server_hostname, timeout)
        with _as_connect_error():
            self._connection.settimeout(timeout)
            secure = ssl_context.wrap_socket(self._connection, server_hostname=server_hostname, do_handshake_on_connect=False)
            try:
                self._connections.add(secure)
                secure.do_handshake()
            except BaseException:
                secure.close()
                raise
        return _Stream(secure, self._connections)


class AsyncClosingBackend(httpcore.AnyIOBackend):
    """What httpcore connects with on asyncio: as its own, but that nothing is left of what is cancelled."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        *others: Any,
        **options: Any,
    ) -> httpcore.AsyncNetworkStream:
        """Connect; see httpcore."""
        # The library looks the name up too, in a thread that the end of the loop waits for: not before it is known that the
        # resolver answers.
        with _as_connect_error():
            await asyncio.wait_for(asyncio.wrap_future(look_up(host, port)), timeout)
        return _AsyncStream(await super().connect_tcp(host, port, timeout, *others, **options))


class _AsyncStream(httpcore.AsyncNetworkStream):
    """A connection that is closed when its TLS handshake is cancelled: the library does so only when it fails."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream: Final = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _AsyncStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except asyncio.CancelledError:
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@contextlib.contextmanager
def _as_connect_error() -> Iterator[None]:
    """Raise what httpx expects of a connection that cannot be made."""
    try:
        yield
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(str(error) or "timed out") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be looked up
        raise httpcore.ConnectError(str(error)) from error


def _shut_down(connection: socket.socket) -> None:
    """End what a thread does on a connection, which it closes itself."""
    with contextlib.suppress(OSError):
        # The plain method: that of a TLS socket would take the session from under a thread that reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
