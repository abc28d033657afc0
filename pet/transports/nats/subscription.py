"""What a connection listens on, and how requests are answered: several at the same time, and a failing handler hurts nobody.

A `Taker` gets each message in the moment it comes and must not wait; a `MessageHandler` may, and messages wait for it.

Knows no subject by name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from pet.errors import MissingExtraError, TransportError

with MissingExtraError.naming("nats"):
    import nats.errors
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as ClientSubscription

_logger: Final = logging.getLogger(__name__)

#: Requests that are worked on at the same time; more wait their turn.
_CONCURRENT_REQUESTS: Final = 64
#: Messages that wait for a handler; what comes beyond is dropped. As much as may be under way to a receiver (spec 5.1, fact 2).
DEFAULT_PENDING_BYTES: Final = 32 * 2**20

Taker = Callable[[Msg], None]
MessageHandler = Callable[[Msg], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with headers."""

    data: bytes
    headers: Mapping[str, str]


RequestHandler = Callable[[str, bytes], Awaitable[bytes | Reply | None]]


class Publish(Protocol):
    """What sends an answer with headers: `NatsConnection.publish`."""

    def __call__(self, subject: str, payload: bytes, *, headers: Mapping[str, str]) -> Awaitable[None]:
        """Send."""
        ...


@dataclass(eq=False, slots=True)
class Subscription:
    """Something a connection listens on, over any number of sessions.

    Attributes:
        subject: what to listen on.
        handler: gets each message.
        taker: gets each message without headers instead, where the library lets it.
        pending_bytes: what may wait for the handler.
        client_side: the library's part, in the current session.
        tasks: answers that are being made.
    """

    subject: str
    handler: MessageHandler
    taker: Taker | None = None
    pending_bytes: int = DEFAULT_PENDING_BYTES
    client_side: ClientSubscription | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


def may_answer(message: Msg) -> bool:
    """Return whether a message may be answered.

    Who asks chooses where the answer goes, and it is sent with our rights, which may be more: an answer to a subject such as
    "$JS.API.STREAM.DELETE.name" would be obeyed. So answers go to inboxes only.
    """
    if message.reply.startswith("_INBOX"):
        return True
    _logger.warning("%s: not answered: expected an inbox to answer to, got %r", message.subject, message.reply[:80])
    return False


async def respond(message: Msg, data: bytes) -> None:
    """Answer a request, if it is one."""
    if not may_answer(message):
        return
    try:
        await message.respond(data)
    except nats.errors.MaxPayloadError:
        _logger.warning("%s: an answer of %d bytes is larger than the broker's max_payload", message.subject, len(data))
    except (nats.errors.Error, OSError) as error:
        _logger.debug("%s: the answer could not be sent: %s", message.subject, error)


async def _respond_with_headers(message: Msg, reply: Reply, publish: Publish) -> None:
    if may_answer(message):
        try:
            await publish(message.reply, reply.data, headers=reply.headers)
        except TransportError as error:
            _logger.warning("%s: the answer could not be sent: %s", message.subject, error)


def answering(handler: RequestHandler, tasks: set[asyncio.Task[None]], publish: Publish) -> MessageHandler:
    """Return a handler of messages that answers each with what `handler` returns.

    Args:
        handler: gets subject and payload. What it raises is logged, and the request not answered; nor is it for None.
        tasks: where the answers that are being made are kept.
        publish: sends an answer that has headers.
    """
    turn = asyncio.Semaphore(_CONCURRENT_REQUESTS)

    async def answer(message: Msg) -> None:
        try:
            reply = await handler(message.subject, bytes(message.data))
            if isinstance(reply, Reply):
                await _respond_with_headers(message, reply, publish)
            elif reply is not None:
                await respond(message, reply)
        except Exception:
            _logger.exception("%s: a request could not be handled", message.subject)
        finally:
            turn.release()

    async def start(message: Msg) -> None:
        await turn.acquire()
        task = asyncio.create_task(answer(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return start
