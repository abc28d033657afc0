"""Large answers at the speed of their readers: in pieces, each sent when the last one was taken, and a bounded number at once.

A server that is given a whole answer keeps what its reader does not take. Here it is given 64 KiB at a time, without copying
them, and a reader that takes nothing for a while is given up. Answers of that size are counted by address
(pet/bodies/holders.py). Of all that could send a piece, a few do in each turn of the event loop, one after the other: between
them everybody else is served. ASGI middleware; knows no route.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from pet.bodies.holders import HolderTable, Holding
from pet.errors import AnswerAbandonedError, MissingExtraError
from pet.transports.peers import peer_of
from pet.transports.refusal_counts import RefusalCounts, RefusalReason

with MissingExtraError.naming("http"):
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_logger: Final = logging.getLogger(__name__)

#: An answer is large from here on, and sent in pieces of this size. A server keeps two of them for a reader that takes none.
PIECE_BYTES: Final = 1 << 16
#: Large answers at the same time: with what a model's reader keeps of it, 128 MiB at most for readers that take nothing.
MAX_LARGE_ANSWERS: Final = 384
_RETRY_AFTER: Final = b"1"
#: Pieces that are sent in one turn of the event loop: a fraction of a millisecond for the system to copy them.
_PIECES_A_TURN: Final = 4


class _Turns:
    """Lets those who wait go on, a few in each turn of the event loop, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: Final = deque[asyncio.Future[None]]()

    async def wait(self) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._let_go, loop)
        self._waiting.append(turn)
        await turn

    def _let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(_PIECES_A_TURN, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # who waited may be gone
                turn.set_result(None)
        if self._waiting:
            loop.call_soon(self._let_go, loop)


class PacedAnswers:
    """Middleware around an application; where there are too many large answers, the next is 503 with Retry-After.

    Args:
        app: the application.
        stall_seconds: how long a reader may take for a piece.
        max_large_answers: at the same time; one address gets seven eighths.
        refusals: where refusals are counted; None counts them apart.
    """

    def __init__(
        self,
        app: ASGIApp,
        stall_seconds: float,
        max_large_answers: int = MAX_LARGE_ANSWERS,
        refusals: RefusalCounts | None = None,
    ) -> None:
        self._refusals = RefusalCounts() if refusals is None else refusals
        self._app = app
        self._stall_seconds = stall_seconds
        self._large: Final = HolderTable(max_large_answers)
        self._turns: Final = _Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        peer = peer_of(scope.get("client"))
        answer = _Answer(self._large, peer, send, self._stall_seconds, self._refusals, self._turns)
        try:
            await self._app(scope, receive, answer.send)
        except AnswerAbandonedError as error:
            _logger.info("answer abandoned: %s", error)
        finally:
            answer.close()


class _Answer:
    """One answer on its way."""

    def __init__(
        self, large: HolderTable, peer: str, send: Send, stall_seconds: float, refusals: RefusalCounts, turns: _Turns
    ) -> None:
        self._refusals = refusals
        self._turns = turns
        self._large = large
        self._peer = peer
        self._send = send
        self._stall_seconds = stall_seconds
        self._holding: Holding | None = None
        self._start: Message | None = None
        self._size_bytes = 0

    async def send(self, message: Message) -> None:
        """Send a message of the application.

        Raises:
            AnswerAbandonedError: the reader does not take it, or there is no room for it.
        """
        if message["type"] == "http.response.start":
            length = next((int(value) for name, value in message["headers"] if name.lower() == b"content-length"), None)
            if length is None:
                self._start = message  # how large the answer is will be known with its beginning
                return
            if length > PIECE_BYTES:
                self._start = message
                await self._count_as_large()
            await self._send(message)
            self._start = None
        elif message["type"] == "http.response.body":
            await self._send_body(message)
        else:
            await self._send(message)

    def close(self) -> None:
        """Count the end of the answer."""
        if self._holding is not None:
            self._large.release(self._holding)

    async def _send_body(self, message: Message) -> None:
        body, has_more = memoryview(message.get("body", b"")), message.get("more_body", False)
        self._size_bytes += len(body)
        if self._size_bytes > PIECE_BYTES and self._holding is None:
            await self._count_as_large()
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)
        if len(body) <= PIECE_BYTES:
            await self._send_in_time(message)
            return
        for begin in range(0, len(body), PIECE_BYTES):
            await self._turns.wait()
            is_last = begin + PIECE_BYTES >= len(body)
            piece = {"type": message["type"], "body": body[begin : begin + PIECE_BYTES], "more_body": has_more or not is_last}
            await self._send_in_time(piece)

    async def _send_in_time(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._send(message)
        except TimeoutError:
            self._refusals.count(RefusalReason.READER_STALLED)
            raise AnswerAbandonedError(f"expected it to be taken within {self._stall_seconds:g} s") from None

    async def _count_as_large(self) -> None:
        self._holding = self._large.take(self._peer, 1)
        if self._holding is not None:
            return
        self._refusals.count(RefusalReason.ANSWERS)
        if self._start is not None:
            headers = [(b"content-length", b"0"), (b"retry-after", _RETRY_AFTER)]
            await self._send({"type": "http.response.start", "status": 503, "headers": headers})
            await self._send({"type": "http.response.body", "body": b""})
        raise AnswerAbandonedError(f"expected fewer large answers at the same time, got {self._large.used}")
