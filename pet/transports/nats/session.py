"""One life of a client of the NATS library: from its first connection until it is closed for good.

The library has habits that callers should not have to know (docs/spec/federation.md 5.1): it tries a wrong password 60 times,
never gives up an absent broker, reports what the broker forbids to a callback, and is closed for ever by
some errors of the broker. This file turns them into exceptions and three signals to its owner; what is sent is not its
business.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import ssl
from collections.abc import Sequence
from typing import Any, Final, Protocol

from pet.buffers import Buffer
from pet.errors import (
    CredentialsError,
    MissingExtraError,
    PlaintextError,
    TransportConfigError,
    TransportError,
    UnreachableError,
)
from pet.secret import Secret
from pet.transports.nats.large_messages import Wire
from pet.transports.nats.splitter import LARGE_BYTES, LargeMessage
from pet.transports.nats.subscription import Subscription, Taker, may_answer, respond
from pet.transports.nats_settings import NatsSettings

with MissingExtraError.naming("nats"):
    import nats.errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg

_logger: Final = logging.getLogger(__name__)

#: Between two attempts to reach a broker. A restarted one is found again within this time (spec 5.6).
_RECONNECT_WAIT_SECONDS: Final = 0.5
_CONNECT_TIMEOUT_SECONDS: Final = 2
_PING_SECONDS: Final = 20
_UNANSWERED_PINGS: Final = 3
#: How long a broker may take to read what is still to be sent when a connection is closed.
_CLOSE_SECONDS: Final = 0.4
#: Between two attempts to cancel an attempt to connect.
_CANCEL_SECONDS: Final = 0.1
#: What the library keeps while there is no connection.
_PENDING_BYTES: Final = 2 * 2**20

_REFUSED: Final = ("authorization violation", "authentication expired", "authentication revoked", "account authentication")
_FORBIDDEN: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)


class Owner(Protocol):
    """Whom a session tells what happens."""

    def lost(self, error: TransportError) -> None:
        """The connection is gone; the session goes on trying, unless `error` is not temporary."""
        ...

    def restored(self) -> None:
        """The connection is back, and the broker knows the subscriptions again."""
        ...

    def closed(self) -> None:
        """The session has ended without being asked to."""
        ...

    def forbidden(self, verb: str, subject: str) -> None:
        """The broker refused "publish" or "subscription" on a subject, given in lower case."""
        ...


class _Client(Client):
    """The library's client, which would go on in plain text with a broker that offers no TLS, and queues every message."""

    must_encrypt = False

    def __init__(self) -> None:
        super().__init__()
        self.takers: Final[dict[int, Taker]] = {}

    @functools.wraps(Client._process_msg)  # also its signature, by which a wire knows the library
    async def _process_msg(self, sid: int, *details: Any) -> None:  # type: ignore[override]
        """Give a message to its taker at once, or leave it to the library."""
        taker = self.takers.get(sid)
        if taker is None:
            await super()._process_msg(sid, *details)
            return
        subject, reply, data, headers = details
        if headers:
            await super()._process_msg(sid, *details)
        else:
            self._hand_over(taker, subject, reply, data)

    def take_at_once(self, message: LargeMessage) -> bool:
        """Give a large message to its taker at once; False if there is none."""
        taker = self.takers.get(message.sid)
        if taker is None or message.header:
            return False
        self._hand_over(taker, message.subject, message.reply, message.payload)
        return True

    def _hand_over(self, taker: Taker, subject: bytes, reply: bytes, data: Any) -> None:
        try:
            taker(Msg(self, subject.decode(), reply.decode(), data))
        except Exception:  # anything would end the library's reading
            _logger.exception("%r: a message could not be taken", subject)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Send a ping behind everything else: the library's overtakes what its flusher has not written yet."""
        await self._flush_pending(force_flush=True)
        await super()._send_ping(future)

    def _connect_command(self) -> bytes:
        """Make the first thing that is sent, with user and password in it."""
        if self.must_encrypt and not self._server_info.get("tls_required"):
            raise PlaintextError("nats: the broker offers no TLS")
        return super()._connect_command()


class Session:
    """One nats-py client and why its connection ended."""

    def __init__(self, settings: NatsSettings, name: str, owner: Owner) -> None:
        self._settings: Final = settings
        self._name: Final = name
        self._owner: Final = owner
        self.client: Final = _Client()
        self.client.must_encrypt = settings.uses_tls
        self._wire: Final = Wire.into(self.client)
        if self._wire is not None:
            self._wire.take_at_once = self.client.take_at_once
        self._answering: Final[set[asyncio.Task[None]]] = set()
        self._refusal: asyncio.Future[TransportError] = asyncio.get_running_loop().create_future()
        self._last_error: Exception | None = None
        self._is_open = False
        self._is_closing = False

    async def open(self) -> None:
        """Connect within the request timeout.

        Raises:
            CredentialsError: the broker refuses us.
            UnreachableError: nobody answers.
            TransportConfigError: TLS cannot be agreed on.
        """
        timeout = self._settings.request_timeout_seconds
        connecting = asyncio.create_task(self.client.connect(**self._options()), name="pet-nats-connect")
        try:
            first: set[asyncio.Future[Any]] = {connecting, self._refusal}
            await asyncio.wait(first, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._refusal.done():
                raise self._refusal.result()
            if not connecting.done():
                raise self._unreachable(f"within {timeout:g} s")
            if (error := connecting.exception()) is not None:
                raise self._unreachable("there") from error
            self._is_open = True
        finally:
            if not self._is_open:
                while not connecting.done():  # the library swallows a cancellation that meets the end of a wait of its own
                    connecting.cancel()
                    await asyncio.wait({connecting}, timeout=_CANCEL_SECONDS)
                await self.close()

    async def close(self) -> None:
        """End the connection; calling it twice does no harm. What a broker that hangs has not read by then is dropped."""
        self._is_closing = True
        closing = asyncio.ensure_future(self.client.close())
        await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
        if self._wire is not None:
            await self._wire.abort()
        if not closing.done():
            closing.cancel()
            await asyncio.wait({closing})
        # AttributeError: the library closes a transport that it never opened.
        if not closing.cancelled() and isinstance(error := closing.exception(), (nats.errors.Error, OSError, AttributeError)):
            _logger.debug("closing: %s", error)

    async def publish(self, subject: str, parts: Sequence[Buffer], reply: str, headers: dict[str, str] | None) -> None:
        """Send a message made of parts; large ones are not copied, and must not change until it is answered.

        Raises:
            nats.errors.Error, OSError: it could not be sent.
        """
        if self._wire is not None and headers is None and sum(map(len, parts)) >= LARGE_BYTES:
            await self._wire.send_message(self.client, subject, reply, parts)
        else:
            await self.client.publish(subject, b"".join(parts), reply=reply, headers=headers)

    async def listen(self, subscription: Subscription) -> None:
        """Have the broker send what arrives on a subject.

        Raises:
            nats.errors.Error, OSError: it cannot be asked.
        """
        listening = await self.client.subscribe(
            subscription.subject, cb=subscription.handler, pending_bytes_limit=subscription.pending_bytes
        )
        subscription.client_side = listening
        if subscription.taker is not None and self._wire is not None:
            self.client.takers[listening._id] = subscription.taker

    async def forget(self, subscription: Subscription) -> None:
        """Have the broker send nothing more.

        Raises:
            nats.errors.Error, OSError: it cannot be asked.
        """
        if subscription.client_side is not None:
            self.client.takers.pop(subscription.client_side._id, None)
            await subscription.client_side.unsubscribe()

    def answer(self, messages: Sequence[Msg], data: bytes) -> None:
        """Answer requests with the same, without waiting, all at once; it is lost without a connection."""
        if not self.client.is_connected:
            return
        answered = [message for message in messages if may_answer(message)]
        if self._wire is not None:
            self._wire.write(b"".join(b"PUB %b %d\r\n%b\r\n" % (each.reply.encode(), len(data), data) for each in answered))
            return
        for message in answered:
            task = asyncio.create_task(respond(message, data))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    def recycle(self, payload: memoryview) -> None:
        """Receive into the buffer of a message that is no longer referenced."""
        if self._wire is not None:
            self._wire.recycle(payload)

    async def flush(self) -> None:
        """Wait until the broker has read everything so far, or the request timeout is over; must not be cancelled."""
        try:
            await self.client.flush(timeout=max(1, int(self._settings.request_timeout_seconds)))
        except (nats.errors.Error, OSError) as error:
            _logger.debug("flushing: %s", error)

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "servers": list(settings.hosts),
            "name": f"pet-{self._name}",
            "tls": settings.tls_context(),
            "inbox_prefix": f"_INBOX_{self._name}",
            "connect_timeout": min(_CONNECT_TIMEOUT_SECONDS, settings.request_timeout_seconds),
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": _RECONNECT_WAIT_SECONDS,
            "ping_interval": _PING_SECONDS,
            "max_outstanding_pings": _UNANSWERED_PINGS,
            "pending_size": _PENDING_BYTES,
            "flush_timeout": settings.request_timeout_seconds,
            "error_cb": self._note_error,
            "disconnected_cb": self._note_disconnected,
            "reconnected_cb": self._note_reconnected,
            "closed_cb": self._note_closed,
        }
        if settings.user is not None:
            options["user"] = settings.user
        secrets = {"password": settings.password, "token": settings.token, "nkeys_seed_str": settings.nkey_seed}
        options |= {name: Secret.of(secret).reveal() for name, secret in secrets.items() if secret is not None}
        return options

    async def _note_error(self, error: Exception) -> None:
        """Take what the library reports; the text is the broker's and holds no secret."""
        text = str(error).lower()
        self._last_error = error
        if (forbidden := _FORBIDDEN.search(text)) is not None:
            self._owner.forbidden(forbidden[1], forbidden[2])
        elif any(words in text for words in _REFUSED):
            self._refuse(CredentialsError(f"{self._where}: expected credentials that it accepts, got: {error}"))
        elif isinstance(error, (ssl.SSLError, PlaintextError)):
            self._refuse(TransportConfigError(f"{self._where}: expected TLS with a certificate that we trust, got: {error}"))
        else:
            _logger.debug("%s: %s: %s", self._where, type(error).__name__, error)

    def _refuse(self, error: TransportError) -> None:
        """Remember an error that another attempt would only bring again, and stop trying."""
        if self._refusal.done():
            return
        self._refusal.set_result(error)
        if self._is_open:
            _logger.error("%s", error)
            self._owner.lost(error)

    async def _note_disconnected(self) -> None:
        if self._is_open and not self._is_closing:
            self._owner.lost(self._unreachable("that stays"))

    async def _note_reconnected(self) -> None:
        self._owner.restored()

    async def _note_closed(self) -> None:
        if self._is_open and not self._is_closing:
            self._owner.closed()

    def _unreachable(self, expected: str) -> UnreachableError:
        error = self._last_error
        reason = "no answer" if error is None else f"{type(error).__name__}: {error}"
        return UnreachableError(f"{self._where}: expected a broker {expected}, got {reason}")

    @property
    def _where(self) -> str:
        return "NATS " + ", ".join(self._settings.hosts)
