"""TLS in front of guarded HTTP: a handshake that fails ends with its alert on the wire and a line in the log.

By itself asyncio closes such a connection at once: the alert stays in a buffer and nothing is logged, so that a client without
a certificate sees a connection that ends for no reason. Here a connection is accepted without TLS, counts for the bounds of
guarded_http.py from that moment on, and is upgraded by asyncio's `start_tls` when its first bytes are there: what TLS takes for
a connection, half a megabyte, is not for those that say nothing. HTTP begins after the handshake. What is sent over the
connection is not this file's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from pet.transports.guarded_http import GuardedProtocol, guarded_protocol
from pet.transports.line_limit import LineLimit
from pet.transports.open_connections import ConnectionLimits
from pet.transports.refusal_counts import RefusalCounts, RefusalReason
from pet.transports.tls import load_authority, load_identity

_logger: Final = logging.getLogger(__name__)

#: How long a client may take to read the alert. Closing at once would reset the connection, and the alert could be lost.
_ALERT_SECONDS: Final = 1.0
#: Enough for several TLS records, of 16 KiB each.
_RECEIVE_BUFFER: Final = bytearray(1 << 16)
#: The gate whose handshake begins: asyncio creates the TLS object in the context of the task that called `start_tls`.
_current_gate: Final[ContextVar[TlsGate]] = ContextVar("current_gate")


class ServingContext(ssl.SSLContext):
    """A context of a server whose failed handshakes are sent and reported; made by `serving_context`."""

    def wrap_bio(self, incoming: ssl.MemoryBIO, *arguments: Any, **keywords: Any) -> ssl.SSLObject:
        """Return the TLS side of a connection, bound to the gate that it belongs to."""
        wrapped = super().wrap_bio(incoming, *arguments, **keywords)
        assert isinstance(wrapped, _ServingObject)
        wrapped.gate, wrapped.incoming = _current_gate.get(), incoming
        return wrapped


class _ServingObject(ssl.SSLObject):
    """Reports a failed handshake to its gate, and to asyncio as one that waits for more: asyncio then sends the alert."""

    gate: TlsGate
    incoming: ssl.MemoryBIO
    _has_failed = False

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        if self._has_failed:
            self.incoming.read()  # discards what the client sends before it reads the alert
            raise ssl.SSLWantReadError
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._has_failed = True
            self.gate.end_after_alert(error)
            raise ssl.SSLWantReadError from None


ServingContext.sslobject_class = _ServingObject


def serving_context(certificate: Path, key: Path, client_authority: Path | None = None) -> ServingContext:
    """Return the context of a server.

    Args:
        certificate: PEM file of its chain.
        key: PEM file of the key of that certificate, unencrypted.
        client_authority: PEM file of the authority that clients must be certified by; None asks for no certificates.

    Raises:
        ConfigError: a file cannot be read or holds something else; the error names it.
    """
    context = ServingContext(ssl.PROTOCOL_TLS_SERVER)
    load_identity(context, certificate, key)
    if client_authority is not None:
        load_authority(context, client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def guarded_tls_protocol(
    limits: ConnectionLimits,
    context: ServingContext,
    refusals: RefusalCounts | None = None,
    http: type[GuardedProtocol] | None = None,
) -> type[TlsGate]:
    """Return a protocol class for `uvicorn.Config(http=...)` that serves https; uvicorn itself gets no certificate.

    Args:
        limits: what connections may take; the time for headers is the time for the handshake too.
        context: see `serving_context`.
        refusals: where refusals are counted; None counts them apart.
        http: what takes over after the handshake, with the same limits; None for a `guarded_protocol`.
    """

    class BoundGate(TlsGate):
        _context = context
        _lines = LineLimit()
        _http = http or guarded_protocol(limits, refusals)

    return BoundGate


class TlsGate(asyncio.Protocol):
    """One connection until its handshake has ended; then a `GuardedProtocol` takes over. See `guarded_tls_protocol`."""

    _context: ServingContext
    _lines: LineLimit
    _http: type[GuardedProtocol]

    def __init__(self, **keywords: Any) -> None:
        """Take what uvicorn passes to a protocol; it goes to the one that takes over."""
        self._keywords = keywords
        self._connections: set[Any] = keywords["server_state"].connections
        self._received = bytearray()
        self._is_lost = False
        self._silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes, or close a connection beyond the limits."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        address = transport.get_extra_info("peername")
        self._address = str(address[0]) if address else "an unknown address"
        self._holding = self._http.open_connections.admit(address, transport.abort)
        if self._holding is None:
            transport.abort()  # there is no TLS yet in which to answer
            return
        self._connections.add(self)
        self._silence = asyncio.get_running_loop().call_later(self._http.limits.header_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Begin the handshake; later, keep what arrives between its end and the beginning of HTTP."""
        if self._silence is None:
            self._received += data
            return
        self._silence.cancel()
        self._silence = None
        self._transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._shake_hands(data))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is asyncio's
        """Note that there is no connection to hand over."""
        self._is_lost = True
        if self._silence is not None:
            self._silence.cancel()
            self._leave()

    def _give_up(self) -> None:
        text = f"connection closed: expected a handshake within {self._http.limits.header_seconds:g} s"
        self._http.open_connections.note(self._holding.holder if self._holding else "", RefusalReason.HEADER_TIME, text)
        self._transport.abort()

    def _leave(self) -> None:
        """Count the end of a connection that is none of HTTP's."""
        self._connections.discard(self)
        self._http.open_connections.release(self._holding)

    def shutdown(self) -> None:
        """End the connection; uvicorn calls it when the server ends."""
        self._transport.abort()

    def end_after_alert(self, error: ssl.SSLError) -> None:
        """Log why a handshake failed, and close once the client has had the time to read the alert."""
        self._report(_reason_of(error))
        loop = asyncio.get_running_loop()
        loop.call_soon(self._end_writing)  # after asyncio has sent the alert
        loop.call_later(_ALERT_SECONDS, self._transport.abort)

    def _end_writing(self) -> None:
        with contextlib.suppress(OSError):  # the client may have closed already
            self._transport.write_eof()

    async def _shake_hands(self, data: bytes) -> None:
        upgraded: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        _current_gate.set(self)
        # `start_tls` schedules the call that gives its protocol the connection; what has come follows behind it.
        loop.call_soon(loop.call_soon, _feed, self._transport, data)
        try:
            upgraded = await loop.start_tls(
                self._transport,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._http.limits.header_seconds,
            )
        except OSError as error:
            self._http.open_connections.refusals.count(RefusalReason.TLS)
            _logger.debug("no TLS with %s: %s", self._address, error)
        finally:
            if upgraded is None or self._is_lost:  # asyncio has closed the connection
                self._leave()
        if upgraded is None or self._is_lost:
            return
        assert self._holding is not None
        self._connections.discard(self)
        _bound_reading(upgraded)
        connection = self._http(**self._keywords)
        connection.take_over(upgraded, self._holding)
        upgraded.set_protocol(connection)
        if self._received and not upgraded.is_closing():
            connection.data_received(memoryview(self._received))

    def _report(self, reason: str) -> None:
        self._http.open_connections.refusals.count(RefusalReason.TLS)
        text = "TLS handshake with %s failed: %s"
        self._lines.log(_logger, logging.WARNING, self._holding.holder if self._holding else "", text, self._address, reason)


def _feed(transport: asyncio.Transport, data: bytes) -> None:
    """Give the protocol of a connection that does TLS what was received before it was there, in a buffer that all share.

    By itself each has one of 256 KiB from its beginning on; what is received is copied out of it at once.
    """
    protocol: Any = transport.get_protocol()
    protocol.max_size = len(_RECEIVE_BUFFER)
    protocol._ssl_buffer, protocol._ssl_buffer_view = _RECEIVE_BUFFER, memoryview(_RECEIVE_BUFFER)
    left = memoryview(data)
    while left and not transport.is_closing():
        buffer = protocol.get_buffer(len(left))
        size = min(len(buffer), len(left))
        buffer[:size] = left[:size]
        protocol.buffer_updated(size)
        left = left[size:]


def _bound_reading(upgraded: asyncio.Transport) -> None:
    """Let a connection keep no more than about 128 KiB of what it received and nobody took; asyncio's would keep 768 KiB."""
    upgraded.set_read_buffer_limits(high=len(_RECEIVE_BUFFER))  # type: ignore[attr-defined]


def _reason_of(error: ssl.SSLError) -> str:
    """Return why OpenSSL refused a handshake, in its words; they hold nothing of certificates or keys."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate was refused: {error.verify_message}"
    reason = (error.reason or "").replace("_", " ").lower()
    if reason == "peer did not return a certificate":
        return "expected a client certificate, got none"
    return reason or type(error).__name__
