"""Signed questions and answers between peers over the broker.

A question is a sealed message to one peer, its answer another one that names the question. What a question means is the
business of its handler. A message that is not taken is a line in the error log; who sent it learns the reason only if it is
a member.

Source: docs/spec/federation.md 4.3, 5.2.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from pet.errors import (
    FederationError,
    FederationUnavailableError,
    PeerRefusedError,
    PetError,
    RemoteProtocolError,
    TooSoonError,
    TransportError,
)
from pet.federation.peer.context import PeerContext
from pet.federation.peer.messages import PeerMessage
from pet.federation.records import PeerIdentity
from pet.transports.nats import Broadcasts, NatsConnection, Subjects, Subscription

_logger: Final = logging.getLogger(__name__)

#: Takes a question, returns the fields of its answer; raises FederationError to refuse it.
Handler = Callable[[PeerMessage], Awaitable[dict[str, Any]]]

#: Reasons that are found out after the signature was verified, so that saying them helps a member and nobody else.
_TELL: Final = frozenset({"clock_skew", "replayed", "unknown_key"})
#: The kind of every answer that says no.
_REFUSED: Final = "refused"
MINUTE_SECONDS: Final = 60.0


class PeerLink:
    """This peer's way to ask others, and to be asked.

    Args:
        context: of this peer.
        connection: to the broker.

    Attributes:
        connection: as given.
        subjects: of the federation.
        broadcasts: to all peers.
    """

    def __init__(self, context: PeerContext, connection: NatsConnection) -> None:
        self._context: Final = context
        self.connection: Final = connection
        self.subjects: Final = Subjects(context.terms.federation_id)
        # Streams keep things for an hour whatever the schedule, which may change: who missed more asks for it.
        self.broadcasts: Final = Broadcasts(connection, self.subjects)
        self._subscriptions: Final[list[Subscription]] = []

    async def ask(
        self,
        subject: str,
        recipient: PeerIdentity,
        kind: str,
        fields: dict[str, Any],
        *,
        timeout_seconds: float | None = None,
    ) -> PeerMessage:
        """Ask a peer and wait for its answer.

        Raises:
            PeerRefusedError: it refuses.
            FederationUnavailableError: it does not answer in time, or not as it should.
        """
        context = self._context
        question, question_id = context.codec.make(
            context.terms, kind, subject, context.clock.now_seconds(), fields, recipient=recipient
        )
        try:
            data = await self.connection.request(subject, question, timeout_seconds=timeout_seconds)
            answer = context.codec.open(
                data,
                context.terms,
                subject,
                context.clock.now_seconds(),
                lambda uuid, _: recipient if uuid == recipient.uuid else None,
            )
        except (TransportError, RemoteProtocolError) as error:
            if isinstance(error, RemoteProtocolError) and error.reason == "clock_skew":
                context.log_error(f"Answer refused: {error}")
            raise FederationUnavailableError(
                f"peer {recipient.name}: expected an answer to {kind}, got none: {error}"
            ) from None
        if answer.fields.get("re") != question_id or answer.kind not in (kind, _REFUSED):
            raise FederationUnavailableError(f"peer {recipient.name}: expected an answer to {kind}, got another one")
        if answer.kind == _REFUSED:
            raise PeerRefusedError(str(answer.fields.get("reason", ""))[:64], str(answer.fields.get("text", ""))[:500])
        return answer

    async def serve(self, subject: str, handlers: Mapping[str, Handler]) -> None:
        """Answer questions on a subject, each kind by its handler."""

        async def answer(at: str, data: bytes) -> bytes:
            return await self._answer(at, data, handlers)

        self._subscriptions.append(await self.connection.serve(subject, answer))

    async def close(self) -> None:
        """Listen no more."""
        for subscription in self._subscriptions:
            await self.connection.unsubscribe(subscription)
        self._subscriptions.clear()

    async def _answer(self, subject: str, data: bytes, handlers: Mapping[str, Handler]) -> bytes:
        context = self._context
        sender: list[PeerIdentity] = []

        def find(uuid: str, _: bytes | None) -> PeerIdentity | None:
            if (member := context.find_member(uuid)) is not None:
                sender.append(member)
            return member

        try:
            message = context.codec.open(data, context.terms, subject, context.clock.now_seconds(), find)
        except RemoteProtocolError as error:
            context.count(receive_errors=1)
            context.log_error(f"Message refused: {error}")
            if error.reason not in _TELL or not sender:
                return b""
            return self._make(_REFUSED, subject, sender[0], {"re": "", "reason": error.reason, "text": str(error)})
        handler = handlers.get(message.kind)
        try:
            if handler is None:
                raise PeerRefusedError("unknown_kind", f"expected a question that is known, got {message.kind[:32]!r}")
            fields = await handler(message)
        except (FederationError, RemoteProtocolError) as error:
            _logger.debug("%s refused: %s", message.kind, error)
            reason = getattr(error, "reason", type(error).__name__)
            return self._make(_REFUSED, subject, sender[0], {"re": message.message_id, "reason": reason, "text": str(error)})
        return self._make(message.kind, subject, sender[0], fields | {"re": message.message_id})

    def _make(self, kind: str, subject: str, recipient: PeerIdentity, fields: dict[str, Any]) -> bytes:
        context = self._context
        data, _ = context.codec.make(context.terms, kind, subject, context.clock.now_seconds(), fields, recipient=recipient)
        return data


class RequestLimit:
    """Limits handlers to one request of each kind per peer and minute (spec 1.4)."""

    def __init__(self, context: PeerContext) -> None:
        self._context: Final = context
        self._granted: Final[dict[tuple[str, str], float]] = {}

    def __call__(self, handler: Handler) -> Handler:
        """Return a handler that refuses what comes too early."""

        async def answer(message: PeerMessage) -> dict[str, Any]:
            now, key = self._context.clock.now_seconds(), (message.sender, message.kind)
            if now - self._granted.get(key, -MINUTE_SECONDS) < MINUTE_SECONDS:
                raise TooSoonError(f"{message.kind}: expected at most one request a minute", MINUTE_SECONDS)
            self._granted[key] = now
            try:
                return await handler(message)
            except PetError:
                del self._granted[key]  # what was refused takes nobody's turn: a peer asks when it joins, before anybody pulses
                raise

        return answer


class Turns:
    """One request a minute of this peer's own user (spec 1.4); what fails takes no turn.

    Args:
        now_seconds: Unix time.
        name: of the request, for the refusal.
    """

    def __init__(self, now_seconds: Callable[[], float], name: str) -> None:
        self._now_seconds: Final = now_seconds
        self._name: Final = name
        self._taken_seconds = -math.inf

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Take a turn.

        Raises:
            TooSoonError: the last one was less than a minute ago.
        """
        now, earlier = self._now_seconds(), self._taken_seconds
        if now - earlier < MINUTE_SECONDS:
            raise TooSoonError(f"{self._name}: expected at most one request a minute", MINUTE_SECONDS - (now - earlier))
        self._taken_seconds = now
        try:
            yield
        except BaseException:
            self._taken_seconds = earlier
            raise
