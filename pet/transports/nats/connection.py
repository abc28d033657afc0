"""A connection to a broker that outlives the broker's restarts: requests, answers, and the broker's storage interface.

Each thing that can go wrong is an exception of its own (pet/errors.py, docs/spec/federation.md 5.5), at the latest after
the request timeout. What was not answered when the connection broke fails at once, so that it can be sent again: a caller that
sends must be able to send twice.

Knows no message of PET and no federation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from pet.buffers import Buffer
from pet.errors import (
    CounterpartOfflineError,
    ForbiddenSubjectError,
    MissingExtraError,
    TransportConfigError,
    UnreachableError,
)
from pet.transports.nats.kept_session import MIN_CHUNK_BYTES, SPARE_BYTES, KeptSession, require_subject
from pet.transports.nats.session import Session
from pet.transports.nats.subscription import (
    DEFAULT_PENDING_BYTES,
    MessageHandler,
    RequestHandler,
    Subscription,
    Taker,
    answering,
)
from pet.transports.nats_settings import NatsSettings, require_settings

with MissingExtraError.naming("nats"):
    import nats.errors
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

_logger: Final = logging.getLogger(__name__)


class NatsConnection(KeptSession):
    """The way to a broker, for one event loop; see `connect`, and `KeptSession` for arguments and attributes."""

    @property
    def max_chunk_bytes(self) -> int:
        """The largest payload to send: what the settings want, as far as the broker allows, with room for headers."""
        return max(min(self.settings.chunk_bytes, self.max_payload_bytes) - SPARE_BYTES, MIN_CHUNK_BYTES)

    @property
    def max_payload_bytes(self) -> int:
        """The largest message that the broker takes, headers included: its setting `max_payload`."""
        return self._require_session().client.max_payload

    @property
    def server_version(self) -> str:
        """What the broker says it is."""
        return str(self._require_session().client.connected_server_version)

    async def request(
        self,
        subject: str,
        *payload: Buffer,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> bytes:
        """Send, and wait for the answer. It may arrive twice, if the connection breaks and the caller tries again.

        Large parts of the payload are not copied, and must not change meanwhile.

        Raises:
            CounterpartOfflineError: nobody listens on the subject.
            ForbiddenSubjectError: the broker does not let us send there.
            UnreachableError: no connection, or no answer in time.
            CredentialsError: the broker no longer accepts our credentials.
        """
        return bytes((await self.exchange(subject, *payload, headers=headers, timeout_seconds=timeout_seconds)).data)

    async def exchange(
        self,
        subject: str,
        *payload: Buffer,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Msg:
        """Do what `request` does, and return the whole answer, with its headers."""
        loop = asyncio.get_running_loop()
        timeout = self.settings.request_timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = loop.time() + timeout
        session = await self._connected(timeout)
        token, answer = self._waiting.add(subject)
        timer = loop.call_at(deadline, self._waiting.expire, token)
        try:
            await self._publish(session, subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
            message = await answer
        except TimeoutError:
            raise UnreachableError(f"{subject}: expected an answer within {timeout:g} s, got none") from None
        finally:
            timer.cancel()
            self._waiting.remove(token)
        if not message.data and message.headers and message.headers.get("Status") == "503":
            raise CounterpartOfflineError(f"{subject}: expected somebody who listens, got nobody")
        return message

    async def publish(self, subject: str, payload: bytes = b"", *, headers: Mapping[str, str] | None = None) -> None:
        """Send without an answer. Whether it arrives, nobody knows.

        Raises:
            ConfigError: the subject holds white space.
            TransportConfigError: it is larger than the broker's `max_payload`.
            UnreachableError: no connection in time.
        """
        session = await self._connected(self.settings.request_timeout_seconds)
        await self._publish(session, subject, (payload,), reply="", headers=headers)

    async def take(self, subject: str, taker: Taker, *, is_checked: bool = True) -> Subscription:
        """Listen as `subscribe` does, and get each message in the moment it comes: `taker` must not wait for anything."""

        async def handle(message: Msg) -> None:
            taker(message)

        return await self.subscribe(subject, handle, taker=taker, is_checked=is_checked)

    def answer(self, *messages: Msg, data: bytes = b"") -> None:
        """Answer requests with the same, or nothing, without waiting. Whether the answers arrive, nobody knows."""
        if self._session is not None:
            self._session.answer(messages, data)

    def recycle(self, payload: memoryview) -> None:
        """Receive into the buffer of a message that was taken and is no longer referenced."""
        if self._session is not None:
            self._session.recycle(payload)

    async def subscribe(
        self,
        subject: str,
        handler: MessageHandler,
        *,
        taker: Taker | None = None,
        pending_bytes: int = DEFAULT_PENDING_BYTES,
        is_checked: bool = True,
    ) -> Subscription:
        """Listen, also after the connection was lost; messages are handled one after the other.

        Args:
            subject: what to listen on; * and > stand for one word and for all that follow.
            handler: gets each message.
            taker: gets messages without headers instead, at once; for `take`.
            pending_bytes: what may wait for the handler; messages beyond are dropped.
            is_checked: ask the broker whether it lets us, which takes a round trip.

        Raises:
            ForbiddenSubjectError: the broker does not let us listen there.
            UnreachableError: no connection in time.
        """
        session = await self._connected(self.settings.request_timeout_seconds)
        subscription = Subscription(subject, handler, taker, pending_bytes)
        self._forbidden.discard(subject.lower())
        await self._listen(session, subscription)
        if is_checked:
            await self._flush(session)  # the refusal, if there is one, comes before the answer to this
        if subject.lower() in self._forbidden:
            raise ForbiddenSubjectError(f"{subject}: expected to be allowed to listen, got a refusal")
        self._subscriptions.append(subscription)
        return subscription

    async def serve(self, subject: str, handler: RequestHandler, *, is_checked: bool = True) -> Subscription:
        """Answer requests with what `handler(subject, payload)` returns; several at the same time.

        A request that the handler fails at is logged, and not answered.

        Raises:
            ForbiddenSubjectError: the broker does not let us listen there.
            UnreachableError: no connection in time.
        """
        tasks: set[asyncio.Task[None]] = set()
        subscription = await self.subscribe(subject, answering(handler, tasks, self.publish), is_checked=is_checked)
        subscription.tasks = tasks
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening; answers that are being made are still given. Afterwards the broker knows that nobody is there."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if self.is_connected:
            session = self._require_session()
            try:
                await session.forget(subscription)
                await self._flush(session)
            except (nats.errors.Error, OSError) as error:
                _logger.debug("%s: unsubscribing: %s", subscription.subject, error)

    def jetstream(self) -> JetStreamContext:
        """Return the library's own interface to the broker's storage, for this session; another one may follow it."""
        return self._require_session().client.jetstream(timeout=self.settings.request_timeout_seconds)

    async def _publish(
        self, session: Session, subject: str, payload: Sequence[Buffer], *, reply: str, headers: Mapping[str, str] | None
    ) -> None:
        require_subject(subject)
        size = sum(map(len, payload)) + sum(len(key) + len(value) + 4 for key, value in (headers or {}).items()) + 14
        if size > session.client.max_payload:
            raise TransportConfigError(
                f"{subject}: expected at most {session.client.max_payload} bytes, which is the broker's max_payload, got {size}"
            )
        try:
            await session.publish(subject, payload, reply, None if headers is None else dict(headers))
        except (nats.errors.Error, OSError) as error:
            raise UnreachableError(f"{subject}: expected a connection, got {type(error).__name__}") from None
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # the library swallows it when it waits for its buffer


async def connect(settings: NatsSettings, name: str, *, keeps_trying: bool = False) -> NatsConnection:
    """Connect to a broker.

    Args:
        settings: where, and as whom.
        name: 1 to 64 letters, digits, _ or -, such as a peer's uuid. Part of the inbox, "_INBOX_{name}.>", which
            the broker's permissions must allow.
        keeps_trying: go on also if the broker refuses us later; see `NatsConnection`.

    Raises:
        CredentialsError: the broker refuses us.
        UnreachableError: nobody answers within the request timeout.
        TransportConfigError: TLS cannot be agreed on.
        ConfigError: the settings are none, or the CA file or the name cannot be used.
        MissingExtraError: nats-py is not installed.
    """
    connection = NatsConnection(require_settings(settings), name, keeps_trying=keeps_trying)
    await connection.open()
    return connection
