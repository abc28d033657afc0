"""A session with a broker that is opened again whenever it ends, and what is to be listened on in each.

Knows no message and no request; what waits for answers is failed when the session is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Self

from pet.errors import ConfigError, MissingExtraError, PetError, TransportConfigError, TransportError, UnreachableError
from pet.transports.nats.session import Session
from pet.transports.nats.subjects import require_token
from pet.transports.nats.subscription import Subscription
from pet.transports.nats.waiting import WaitingRequests
from pet.transports.nats_settings import NatsSettings

with MissingExtraError.naming("nats"):
    import nats.errors

_logger: Final = logging.getLogger(__name__)

#: What a chunk leaves free of the broker's largest message, for headers and subjects: the broker closes the connection of who
#: exceeds it, for ever (spec 5.1, fact 1).
SPARE_BYTES: Final = 4096
#: Smaller chunks would be mostly headers.
MIN_CHUNK_BYTES: Final = 1024
#: What a broker has to take, so that a chunk and its headers are one message.
MIN_PAYLOAD_BYTES: Final = SPARE_BYTES + MIN_CHUNK_BYTES
_REOPEN_SECONDS: Final = 1.0
#: The longest wait between two attempts to reach a broker that is away, and one that refuses us: some lock out who asks often.
_MAX_REOPEN_SECONDS: Final = 5.0
_MAX_REFUSED_SECONDS: Final = 60.0


class KeptSession:
    """The session of a connection, for one event loop.

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
    def is_connected(self) -> bool:
        """Whether the broker can be reached now."""
        return self._is_connected.is_set() and self._failure is None

    def on_restored(self, callback: Callable[[], Awaitable[object]]) -> None:
        """Call back in a task whenever the connection is back: streams and consumers may be gone (spec 5.1, fact 5)."""
        self._callbacks.append(callback)

    def on_trouble(self, callback: Callable[[TransportError], None]) -> None:
        """Call back whenever `trouble` is another one; the callback must not wait for anything."""
        self._on_trouble.append(callback)

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
        require_subject(subscription.subject)
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


def require_subject(subject: str) -> None:
    """Check a subject before it becomes a part of the broker's protocol, where spaces and line ends have a meaning.

    Raises:
        ConfigError: it is empty, or holds white space or what cannot be printed.
    """
    if not subject or " " in subject or not subject.isprintable():
        raise ConfigError(f"subject: expected words without white space, got {subject[:80]!r}")


async def _logged(callback: Callable[[], Awaitable[object]]) -> None:
    try:
        await callback()
    except TransportError as error:
        _logger.warning("after the connection was restored: %s", error)
