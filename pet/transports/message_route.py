"""`POST /message` over HTTP, as an ASGI application of its own: nearly every request of a round comes here.

So it goes past the router and what stands around it, and does for a small message only what depends on that message. Limits
of peers, counted answers and what an embedding application adds stand before it as before any other route. It moves bytes, and
is never given the outcome of a message.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from pet.errors import BodyError, BodyStalledError, BodyTooLargeError, MissingExtraError
from pet.transports.body_reader import REASON_OF, STATUS_OF, WHOLE_BODY_BYTES, WHOLE_BODY_KEY, declared_length, read_body
from pet.transports.peers import peer_of
from pet.transports.refusal import Refusal
from pet.transports.service import Service

with MissingExtraError.naming("http"):
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_logger: Final = logging.getLogger(__name__)

MESSAGE_PATHS: Final = ("/message", "/message/")
#: When to come back after 503: about as long as a large message takes to be read and handled.
RETRY_AFTER_SECONDS: Final = 1


class MessageRoute:
    """Takes sealed messages: 200 and nothing else once one was read and handled, whatever its outcome (spec 9.3).

    Args:
        service: the coordinator behind it.
    """

    def __init__(self, service: Service) -> None:
        self._service: Final = service
        self._endpoint: Final = service.endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._take(scope, receive)
        except BodyError as error:
            await refuse_body(self._service, error)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def _take(self, scope: Scope, receive: Receive) -> None:
        service, limit_bytes = self._service, self._endpoint.max_body_bytes()
        length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        declared = declared_length(None if length is None else length.decode("latin-1"), limit_bytes)
        holder = peer_of(scope.get("client"))
        if declared is not None and declared <= WHOLE_BODY_BYTES:
            first = await (receive() if WHOLE_BODY_KEY in scope else self._first_piece(receive))
            if not first.get("more_body", False) and await self._take_whole(first, declared, holder):
                return
            receive = _starting_with(first, receive)
        most_bytes = limit_bytes if declared is None else declared
        async with service.receive_body(most_bytes, holder) as incoming:
            await read_body(receive, incoming, most_bytes, service.stall_seconds)
            await service.handle_message(await incoming.finish())

    async def _first_piece(self, receive: Receive) -> Message:
        """Receive what came with the headers, or next; nobody is charged for so little before it is here."""
        stall_seconds = self._service.stall_seconds
        try:
            async with asyncio.timeout(stall_seconds):
                return await receive()
        except TimeoutError:
            raise BodyStalledError(f"body: expected progress within {stall_seconds:g} s, got 0 bytes") from None

    async def _take_whole(self, message: Message, declared: int, holder: str) -> bool:
        """Take a body that came in one piece; False if it came to nothing, or has to wait for memory."""
        if message["type"] != "http.request":
            return False
        body: bytes = message.get("body", b"")
        if len(body) > declared:
            raise BodyTooLargeError(f"body: expected at most {declared} bytes, got more")
        reservation = self._service.memory.try_reserve(len(body), holder, None)
        if reservation is None:
            return False
        try:
            await self._service.handle_message(body)
        finally:
            reservation.give_back()
        return True


class DirectMessages:
    """Middleware that answers `POST /message` before the application behind it is asked.

    Args:
        app: what answers everything else.
        route: what answers messages.
    """

    def __init__(self, app: ASGIApp, route: MessageRoute) -> None:
        self._app: Final = app
        self._route: Final = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one of both answer."""
        is_message = scope["type"] == "http" and scope["method"] == "POST" and _own_path(scope) in MESSAGE_PATHS
        await (self._route if is_message else self._app)(scope, receive, send)


def refuse_body(service: Service, error: BodyError) -> Refusal:
    """Count a body that was not taken, and return what its sender is answered."""
    status_code = STATUS_OF[type(error)]
    service.refusals.count(REASON_OF[type(error)])
    _logger.info("request refused: status=%d %s", status_code, error)
    return Refusal(status_code, RETRY_AFTER_SECONDS if status_code == 503 else None)


def _own_path(scope: Scope) -> str:
    """Return the path below the one that the application is mounted at."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root else path


def _starting_with(first: Message, receive: Receive) -> Receive:
    """Return a channel that gives a message again that was received already."""
    again = [first]

    async def receive_again() -> Message:
        return again.pop() if again else await receive()

    return receive_again
