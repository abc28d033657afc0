"""A connection to a broker that outlives the broker's restarts: requests, answers, and the broker's storage interface.

Each thing that can go wrong is an exception of its own (pet/errors.py, docs/spec/federation.md 5.5), at the latest after
the request timeout. What was not answered when the connection broke fails at once, so that it can be sent again: a caller that
sends must be able to send twice.

Knows no message of PET and no federation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Self

from pet.buffers import Buffer
from pet.errors import (
    ConfigError,
    CounterpartOfflineError,
    ForbiddenSubjectError,
    MissingExtraError,
    PetError,
    TransportConfigError,
    TransportError,
    UnreachableError,
)
from pet.transports.nats.session import Session
from pet.transports.nats.settings import NatsSettings
from pet.transports.nats.subjects import require_token
from pet.transports.nats.subscription import (
    DEFAULT_PENDING_BYTES,
    MessageHandler,
    RequestHandler,
    Subscription,
    Taker,
    answering,
)
from pet.transports.nats.waiting import WaitingRequests

with MissingExtraError.naming("nats"):
    import nats.errors
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

_logger: Final = logging.getLogger(__name__)

#: What a chunk leaves free of the broker's largest message, for headers and subjects: the broker closes the connection of who
#: exceeds it, for ever (spec 5.1, fact 1).
_SPARE_BYTES: Final = 4096
#: Smaller chunks would be mostly headers.
_MIN_CHUNK_BYTES: Final = 1024
#: What a broker has to take, so that a chunk and its headers are one message.
MIN_PAYLOAD_BYTES: Final = _SPARE_BYTES + _MIN_CHUNK_BYTES
_REOPEN_SECONDS: Final = 1.0
#: The longest wait between two attempts to reach a broker that is away, and one that refuses us: some lock out who asks often.
_MAX_REOPEN_SECONDS: Final = 5.0
_MAX_REFUSED_SECONDS: Final = 60.0


class NatsConnection:
    """The way to a broker, for one event loop; see `connect`.

    Args:
        settings: how to reach the broker.
        name: of this client.
        keeps_trying: go on also after the broker refused us, as somebody may change its settings. Meanwhile requests fail at
            once with that refusal.

    Attributes:
        settings: how to reach the broker.
        name: of this client, part of its inbox: "_INBOX_{name}.>".
        losses: how often the connection was lost.
        trouble: why there is no connection; None while it stands, and before the first attempt.
    """

    def __init__(self, settings: NatsSettings, name: str, *, keeps_trying: bool = False) -> None:
        self.settings: Final = settings
        self.name: Final = require_token(name, "name")
        self.losses = 0
        self.trouble: PetError | None = None
        self._keeps_trying: Final = keeps_trying
        self._reopening: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._is_connected = asyncio.Event()
        self._failure: TransportError | None = None
        self._inbox = ""
        self._waiting: Final = WaitingRequests()
        self._subscriptions: Final[list[Subscription]] = []
        self._forbidden: Final[set[str]] = set()
        self._on_trouble: list[Callable[[TransportError], None]] = []
        self._callbacks: Final[list[Callable[[], Awaitable[object]]]] = []
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def max_chunk_bytes(self) -> int:
        """The largest payload to send: what the settings want, as far as the broker allows, with room for headers."""
        return max(min(self.settings.chunk_bytes, self.max_payload_bytes) - _SPARE_BYTES, _MIN_CHUNK_BYTES)

    @property
    def max_payload_bytes(self) -> int:
        """The largest message that the broker takes, headers included: its setting `max_payload`."""
        return self._require_session().client.max_payload

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

    def answer(self, message: Msg) -> None:
        """Answer a request with nothing, without waiting. Whether the answer arrives, nobody knows."""
        if self._session is not None:
            self._session.answer(message)

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

    def on_restored(self, callback: Callable[[], Awaitable[object]]) -> None:
        """Call back in a task whenever the connection is back: streams and consumers may be gone (spec 5.1, fact 5)."""
        self._callbacks.append(callback)

    def on_trouble(self, callback: Callable[[TransportError], None]) -> None:
        """Call back whenever `trouble` is another one; the callback must not wait for anything."""
        self._on_trouble.append(callback)

    def jetstream(self) -> JetStreamContext:
        """Return the library's own interface to the broker's storage, for this session; another one may follow it."""
        return self._require_session().client.jetstream(timeout=self.settings.request_timeout_seconds)

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
        self, session: Session, subject: str, payload: Sequence[Buffer], *, reply: str, headers: Mapping[str, str] | None
    ) -> None:
        _require_subject(subject)
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

    async def open(self) -> None:
        """Connect, for the first time or again; see `Session.open` for errors."""
        session = Session(self.settings, self.name, self)
        await session.open()
        if session.client.max_payload < MIN_PAYLOAD_BYTES:
            await session.close()
            raise TransportConfigError(
                f"NATS {', '.join(self.settings.hosts)}: expected a broker whose max_payload is {MIN_PAYLOAD_BYTES} bytes or"
                f" more, got {session.client.max_payload}"
            )
        self._session = session
        self._inbox = session.client.new_inbox()
        await self._listen(session, Subscription(f"{self._inbox}.*", self._waiting.take_late, self._waiting.take))
        for subscription in self._subscriptions:
            await self._listen(session, subscription)
        self._failure = self.trouble = None
        self._is_connected.set()

    def open_in_background(self) -> None:
        """Connect as soon as the broker can be reached and lets us; what `on_restored` named is called then."""
        if self._reopening is None or self._reopening.done():
            self._reopening = self._start(self._reopen())

    async def _listen(self, session: Session, subscription: Subscription) -> None:
        _require_subject(subscription.subject)
        try:
            await session.listen(subscription)
        except (nats.errors.Error, OSError) as error:
            raise UnreachableError(f"{subscription.subject}: expected to listen, got {type(error).__name__}: {error}") from None

    async def _flush(self, session: Session) -> None:
        """Wait until the broker has read everything so far.

        Not cancelled with the caller: the library stops reading for good when it gets an answer that nobody waits for.
        """
        timeout = self.settings.request_timeout_seconds
        task = self._start(session.flush())
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            raise UnreachableError(f"NATS: expected the broker to answer within {timeout:g} s, got nothing")

    def lost(self, error: TransportError) -> None:
        """Fail what waits for answers; called by the session."""
        self.losses += 1
        self._note(error)
        self._waiting.fail_all(error)
        if not error.is_temporary and self._keeps_trying and not self._is_closed:
            self.open_in_background()

    def _note(self, error: TransportError) -> None:
        """Let who waits for a connection go on waiting, or fail if waiting is no help."""
        is_new, self.trouble = str(error) != str(self.trouble), error
        self._failure = error if self._is_closed or not error.is_temporary else None
        if self._failure is None:
            self._is_connected.clear()
        else:
            self._is_connected.set()
        if is_new and not self._is_closed:
            for callback in self._on_trouble:
                callback(error)

    def restored(self) -> None:
        """Go on; called by the session."""
        self.trouble = None
        self._is_connected.set()
        for callback in self._callbacks:
            self._start(_logged(callback))

    def closed(self) -> None:
        """Open a new session in place of one that has ended; called by the session."""
        if self._failure is None and not self._is_closed:
            self.open_in_background()

    def forbidden(self, verb: str, subject: str) -> None:
        """Fail requests to a subject; called by the session."""
        self._forbidden.add(subject)
        _logger.warning("the broker forbids %s on %s", verb, subject)
        self._waiting.forbid(subject)

    async def _reopen(self) -> None:
        wait = _REOPEN_SECONDS
        while not self._is_closed:
            if self._session is not None:
                await self._session.close()  # or the library could still come back with it
            try:
                await self.open()
            except TransportError as error:
                if not error.is_temporary and not self._keeps_trying:
                    self.lost(error)
                    return
                self._note(error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, _MAX_REOPEN_SECONDS if error.is_temporary else _MAX_REFUSED_SECONDS)
            else:
                self.restored()
                return

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _require_subject(subject: str) -> None:
    """Check a subject before it becomes a part of the broker's protocol, where spaces and line ends have a meaning.

    Raises:
        ConfigError: it is empty, or holds white space or what cannot be printed.
    """
    if not subject or " " in subject or not subject.isprintable():
        raise ConfigError(f"subject: expected words without white space, got {subject[:80]!r}")


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
        ConfigError: the CA file or the name cannot be used.
        MissingExtraError: nats-py is not installed.
    """
    connection = NatsConnection(settings, name, keeps_trying=keeps_trying)
    await connection.open()
    return connection


async def _logged(callback: Callable[[], Awaitable[object]]) -> None:
    try:
        await callback()
    except TransportError as error:
        _logger.warning("after the connection was restored: %s", error)
