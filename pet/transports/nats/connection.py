"""A connection to a broker that outlives the broker's restarts: requests, answers, and the broker's storage interface.

Each thing that can go wrong is an exception of its own (pet/errors.py, spec/FEDERATION.md 5.5), at the latest after
the request timeout. What was not answered when the connection broke fails at once, so that it can be sent again: whoever
sends must be able to send twice.

Knows no message of PET and no federation.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pet.errors import (
    BackPressureError,
    CounterpartOfflineError,
    ForbiddenSubjectError,
    LocalProtocolError,
    MissingExtraError,
    TransportConfigError,
    TransportError,
    UnreachableError,
)
from pet.transports.nats.session import Session
from pet.transports.nats.settings import NatsSettings
from pet.transports.nats.subjects import require_token

with MissingExtraError.naming("nats"):
    import nats.errors
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as ClientSubscription

_logger: Final = logging.getLogger(__name__)

#: What a chunk leaves free of the broker's largest message, for headers and subjects: the broker closes the connection of who
#: exceeds it, for ever (spec 5.1, fact 1).
_SPARE_BYTES: Final = 4096
#: Requests that one `serve` works on at the same time; more wait their turn.
_CONCURRENT_REQUESTS: Final = 64
_REOPEN_SECONDS: Final = 1.0

MessageHandler = Callable[[Msg], Awaitable[None]]
RequestHandler = Callable[[str, bytes], Awaitable[bytes]]


class MissingError(TransportError):
    """The broker's storage does not have what was asked for: no such stream, consumer or message."""


@dataclass(eq=False, slots=True)
class Subscription:
    """Something this connection listens on, over any number of sessions."""

    subject: str
    handler: MessageHandler
    client_side: ClientSubscription | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class NatsConnection:
    """The way to a broker, for one event loop; see `connect`.

    Attributes:
        settings: how to reach the broker.
        name: of this client, part of its inbox: "_INBOX_{name}.>".
        losses: how often the connection was lost.
    """

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self.settings: Final = settings
        self.name: Final = require_token(name, "name")
        self.losses = 0
        self._session: Session | None = None
        self._is_connected = asyncio.Event()
        self._failure: TransportError | None = None
        self._inbox = ""
        self._answers: Final[dict[str, tuple[str, asyncio.Future[Msg]]]] = {}
        self._next_token = 0
        self._subscriptions: Final[list[Subscription]] = []
        self._forbidden: Final[set[str]] = set()
        self._callbacks: Final[list[Callable[[], Awaitable[None]]]] = []
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def max_chunk_bytes(self) -> int:
        """The largest payload to send: what the settings want, as far as the broker allows, with room for headers."""
        return min(self.settings.chunk_bytes, self._require_session().client.max_payload) - _SPARE_BYTES

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached now."""
        return self._is_connected.is_set() and self._failure is None

    @property
    def server_version(self) -> str:
        """What the broker says it is."""
        return str(self._require_session().client.connected_server_version)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> bytes:
        """Send, and wait for the answer. It may arrive twice, if the connection breaks and the caller tries again.

        Raises:
            CounterpartOfflineError: nobody listens on the subject.
            ForbiddenSubjectError: the broker does not let us send there.
            UnreachableError: no connection, or no answer in time.
            CredentialsError: the broker does not accept us any more.
        """
        return bytes((await self.exchange(subject, payload, headers=headers, timeout_seconds=timeout_seconds)).data)

    async def exchange(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Msg:
        """Do what `request` does, and return the whole answer, with its headers."""
        loop = asyncio.get_running_loop()
        timeout = self.settings.request_timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = loop.time() + timeout
        session = await self._connected(timeout)
        self._next_token += 1
        token, answer = str(self._next_token), loop.create_future()
        self._answers[token] = subject, answer
        try:
            await self._publish(session, subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
            message: Msg = await asyncio.wait_for(answer, max(0.0, deadline - loop.time()))
        except TimeoutError:
            raise UnreachableError(f"{subject}: expected an answer within {timeout:g} s, got none") from None
        finally:
            self._answers.pop(token, None)
        if not message.data and message.headers and message.headers.get("Status") == "503":
            raise CounterpartOfflineError(f"{subject}: expected somebody who listens, got nobody")
        return message

    async def publish(self, subject: str, payload: bytes = b"", *, headers: Mapping[str, str] | None = None) -> None:
        """Send without an answer. Whether it arrives, nobody knows.

        Raises:
            UnreachableError: no connection in time.
        """
        session = await self._connected(self.settings.request_timeout_seconds)
        await self._publish(session, subject, payload, reply="", headers=headers)

    async def subscribe(self, subject: str, handler: MessageHandler) -> Subscription:
        """Listen, also after the connection was lost; messages are handled one after the other.

        Raises:
            ForbiddenSubjectError: the broker does not let us listen there.
            UnreachableError: no connection in time.
        """
        session = await self._connected(self.settings.request_timeout_seconds)
        subscription = Subscription(subject, handler)
        self._forbidden.discard(subject.lower())
        await self._listen(session, subscription)
        await _flush(session)  # the refusal, if there is one, comes before the answer to this
        if subject.lower() in self._forbidden:
            raise ForbiddenSubjectError(f"{subject}: expected to be allowed to listen, got a refusal")
        self._subscriptions.append(subscription)
        return subscription

    async def serve(self, subject: str, handler: RequestHandler) -> Subscription:
        """Answer requests with what `handler(subject, payload)` returns; several at the same time.

        A request that the handler fails at is logged, and not answered.

        Raises:
            ForbiddenSubjectError: the broker does not let us listen there.
            UnreachableError: no connection in time.
        """
        turn = asyncio.Semaphore(_CONCURRENT_REQUESTS)

        async def answer(message: Msg) -> None:
            try:
                await message.respond(await handler(message.subject, bytes(message.data)))
            except (nats.errors.Error, OSError) as error:
                _logger.debug("%s: the answer could not be sent: %s", message.subject, error)
            except Exception:
                _logger.exception("%s: a request could not be handled", message.subject)
            finally:
                turn.release()

        async def start(message: Msg) -> None:
            await turn.acquire()
            task = asyncio.create_task(answer(message))
            subscription.tasks.add(task)
            task.add_done_callback(subscription.tasks.discard)

        subscription = await self.subscribe(subject, start)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening; answers that are being made are still given. Afterwards the broker knows that nobody is there."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if subscription.client_side is not None and self.is_connected:
            try:
                await subscription.client_side.unsubscribe()
                await _flush(self._require_session())
            except (nats.errors.Error, OSError) as error:
                _logger.debug("%s: unsubscribing: %s", subscription.subject, error)

    def on_restored(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call back in a task whenever the connection is back: streams and consumers may be gone (spec 5.1, fact 5)."""
        self._callbacks.append(callback)

    async def ask_storage(self, call: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Make one call of the broker's JetStream interface, such as "STREAM.INFO.name".

        Raises:
            MissingError: there is no such stream, consumer or message.
            BackPressureError: the stream is full.
            TransportConfigError: the broker has something else under this name, too little room, or no storage at all.
        """
        try:
            answer = await self.request(f"$JS.API.{call}", json.dumps(body).encode() if body else b"")
        except CounterpartOfflineError:
            raise TransportConfigError(f"{call}: expected a broker with JetStream enabled, got one without") from None
        return read_storage_answer(call, answer)

    async def store(self, subject: str, payload: bytes, message_id: str = "") -> bool:
        """Publish into a stream and wait until it is stored.

        Args:
            subject: one that a stream takes.
            payload: at most `max_chunk_bytes`.
            message_id: two messages with the same id are stored once. Needed by everybody who tries again (spec 5.1, fact 6).

        Returns:
            Whether it is new; False for a duplicate.

        Raises:
            MissingError: no stream takes the subject.
            BackPressureError: the stream is full.
        """
        headers = {"Nats-Msg-Id": message_id} if message_id else None
        try:
            answer = await self.request(subject, payload, headers=headers)
        except CounterpartOfflineError:
            raise MissingError(f"{subject}: expected a stream that stores it, got none") from None
        return not read_storage_answer(subject, answer).get("duplicate", False)

    async def aclose(self) -> None:
        """Close for good; calling it twice does no harm."""
        if self._is_closed:
            return
        self._is_closed = True
        self.lost(UnreachableError("NATS: expected an open connection, got one that was closed"))
        running = self._tasks.union(*(subscription.tasks for subscription in self._subscriptions))
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _connected(self, timeout_seconds: float) -> Session:
        """Wait for a connection."""
        if self._failure is None and not self._is_connected.is_set():
            try:
                await asyncio.wait_for(self._is_connected.wait(), timeout_seconds)
            except TimeoutError:
                hosts = ", ".join(self.settings.hosts)
                raise UnreachableError(f"NATS {hosts}: expected a broker within {timeout_seconds:g} s, got none") from None
        if self._failure is not None:
            raise self._failure
        return self._require_session()

    def _require_session(self) -> Session:
        if self._session is None or self._is_closed:
            raise UnreachableError("NATS: expected an open connection, got none")
        return self._session

    async def _publish(
        self, session: Session, subject: str, payload: bytes, *, reply: str, headers: Mapping[str, str] | None
    ) -> None:
        size = len(payload) + sum(len(key) + len(value) + 4 for key, value in (headers or {}).items()) + 14
        if size > session.client.max_payload:
            raise LocalProtocolError(f"{subject}: expected at most {session.client.max_payload} bytes, got {size}")
        try:
            await session.client.publish(subject, payload, reply=reply, headers=None if headers is None else dict(headers))
        except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError, OSError) as error:
            raise UnreachableError(f"{subject}: expected a connection, got {type(error).__name__}") from None
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # the library swallows it when it waits for its buffer

    async def open(self) -> None:
        """Connect, for the first time or again; see `Session.open` for errors."""
        session = Session(self.settings, self.name, self)
        await session.open()
        self._session = session
        self._inbox = session.client.new_inbox()
        await self._listen(session, Subscription(f"{self._inbox}.*", self._take_answer))
        for subscription in self._subscriptions:
            await self._listen(session, subscription)
        self._is_connected.set()

    async def _listen(self, session: Session, subscription: Subscription) -> None:
        try:
            subscription.client_side = await session.client.subscribe(subscription.subject, cb=subscription.handler)
        except (nats.errors.Error, OSError) as error:
            raise UnreachableError(f"{subscription.subject}: expected to listen, got {type(error).__name__}: {error}") from None

    async def _take_answer(self, message: Msg) -> None:
        _, answer = self._answers.get(message.subject.rpartition(".")[2], (None, None))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def lost(self, error: TransportError) -> None:
        """Fail what waits for answers; called by the session."""
        self.losses += 1
        self._is_connected.clear()
        if not error.is_temporary or self._is_closed:
            self._failure = error
            self._is_connected.set()
        for _, answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)

    def restored(self) -> None:
        """Go on; called by the session."""
        self._is_connected.set()
        for callback in self._callbacks:
            self._start(_logged(callback))

    def closed(self) -> None:
        """Open a new session in place of one that has ended; called by the session."""
        if self._failure is None and not self._is_closed:
            self._start(self._reopen())

    def forbidden(self, verb: str, subject: str) -> None:
        """Fail requests to a subject; called by the session."""
        self._forbidden.add(subject)
        _logger.warning("the broker forbids %s on %s", verb, subject)
        for requested, answer in self._answers.values():
            if requested.lower() == subject and not answer.done():
                answer.set_exception(ForbiddenSubjectError(f"{requested}: expected to be allowed to send, got a refusal"))

    async def _reopen(self) -> None:
        while not self._is_closed:
            try:
                await self.open()
            except TransportError as error:
                if not error.is_temporary:
                    self.lost(error)
                    return
                await asyncio.sleep(_REOPEN_SECONDS)
            else:
                self.restored()
                return

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def connect(settings: NatsSettings, name: str) -> NatsConnection:
    """Connect to a broker.

    Args:
        settings: where, and as whom.
        name: 1 to 64 letters, digits, _ or -, such as a peer's uuid. Part of the inbox, "_INBOX_{name}.>", which
            the broker's permissions must allow.

    Raises:
        CredentialsError: the broker refuses us.
        UnreachableError: nobody answers within the request timeout.
        TransportConfigError: TLS cannot be agreed on.
        ConfigError: the CA file or the name cannot be used.
        MissingExtraError: nats-py is not installed.
    """
    connection = NatsConnection(settings, name)
    await connection.open()
    return connection


def read_storage_answer(call: str, answer: bytes) -> dict[str, Any]:
    """Decode what JetStream says; its errors as in `NatsConnection.ask_storage`."""
    try:
        record = json.loads(answer)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise TransportError(f"{call}: expected a JSON object, got {answer[:60]!r}")
    if isinstance(error := record.get("error"), dict):
        raise _storage_error(call, error)
    return record


#: Codes of the broker, measured with 2.9.10 (spec 5.1, fact 7; 5.5).
_FULL: Final = {10077}
_MISSING: Final = {10014, 10037, 10059}
_WRONG_CONFIG: Final = {10023, 10028, 10039, 10047, 10052, 10054, 10058, 10065, 10074, 10076}


def _storage_error(call: str, error: Mapping[str, Any]) -> TransportError:
    code, status, text = error.get("err_code"), error.get("code"), str(error.get("description"))[:200]
    kind: type[TransportError] = TransportError
    if code in _FULL or status == 429:
        kind = BackPressureError
    elif code in _MISSING:
        kind = MissingError
    elif code in _WRONG_CONFIG:
        kind = TransportConfigError
    return kind(f"{call}: expected it to be done, got {text} ({code})")


async def _flush(session: Session) -> None:
    try:
        await session.client.flush(timeout=max(1, int(session.client.options.get("connect_timeout", 1))))
    except (nats.errors.Error, OSError) as error:
        raise UnreachableError(f"NATS: expected the broker to answer, got {type(error).__name__}") from None


async def _logged(callback: Callable[[], Awaitable[None]]) -> None:
    try:
        await callback()
    except TransportError as error:
        _logger.warning("after the connection was restored: %s", error)
