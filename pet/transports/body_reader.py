"""Read the body of an ASGI request: bounded before it is read, and never for ever.

Knows ASGI messages and HTTP's length header; what the bytes mean is for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, Protocol, TypeAlias

from pet.errors import (
    BodyAbortedError,
    BodyError,
    BodyStalledError,
    BodyTooLargeError,
    ReservationLostError,
    ServiceBusyError,
)
from pet.transports.refusal_counts import RefusalReason
from pet.transports.service import IncomingBody

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Fill: TypeAlias = "Callable[[Taker], Awaitable[None]]"

#: What a sender must deliver in each interval of `stall_seconds`, if it does not finish: 64 KiB in 30 s is a modem's speed.
PROGRESS_BYTES: Final = 64 * 1024
#: Bodies up to this size are asked for whole, where who receives them has the room: each piece costs a turn of the event loop.
WHOLE_BODY_BYTES: Final = 1 << 18
#: What a server sets in the scope of a request whose body it has received: waiting for it takes no time, and needs no timer.
WHOLE_BODY_KEY: Final = "pet.whole_body"
#: What a server sets in the scope of a request whose body has a length: a `Fill`, which may be used between two messages, and
#: returns without a byte where one is there.
FILL_KEY: Final = "pet.fill"
#: The HTTP status that each of them is refused with.
STATUS_OF: Final[Mapping[type[BodyError], int]] = {
    BodyTooLargeError: 413,
    BodyStalledError: 408,
    BodyAbortedError: 400,
    ReservationLostError: 503,
    ServiceBusyError: 503,
}
#: What each of them counts as.
REASON_OF: Final[Mapping[type[BodyError], RefusalReason]] = {
    BodyTooLargeError: RefusalReason.BODY_SIZE,
    BodyStalledError: RefusalReason.BODY_STALLED,
    BodyAbortedError: RefusalReason.BODY_ABORTED,
    ReservationLostError: RefusalReason.BODY_EVICTED,
    ServiceBusyError: RefusalReason.NO_ROOM,
}


def declared_length(header: str | None, limit_bytes: int) -> int | None:
    """Read a Content-Length header.

    Returns:
        The length; None if there is no header, as for a chunked body.

    Raises:
        BodyTooLargeError: it is above the limit.
        BodyAbortedError: it is no length.
    """
    if header is None:
        return None
    if not (header.isascii() and header.isdecimal()):
        raise BodyAbortedError(f"Content-Length: expected a number, got {header[:20]!r}")
    # Longer texts than any limit has are not worth a conversion.
    length = int(header) if len(header) <= 20 else limit_bytes + 1
    if length > limit_bytes:
        raise BodyTooLargeError(f"body: expected at most {limit_bytes} bytes, got {length} declared")
    return length


class Taker(Protocol):
    """Takes the bytes of a body as they are received, without a turn of the event loop for each."""

    @property
    def missing_bytes(self) -> int:
        """How many it still wants."""
        ...

    def take(self, piece: memoryview) -> bool:
        """Take a piece, or nothing of it and no more; it is lent. Raises nothing.

        Args:
            piece: at most `missing_bytes`.

        Returns:
            Whether it was taken.
        """
        ...


class BodyPieces:
    """A body as it arrives, to its end.

    Args:
        receive: the ASGI channel.
        limit_bytes: largest body to read.
        stall_seconds: time in which the next `PROGRESS_BYTES`, or the end, must arrive.
        fill: what the server has in the scope (`FILL_KEY`); None if it has nothing.
    """

    def __init__(self, receive: Receive, limit_bytes: int, stall_seconds: float, fill: Fill | None = None) -> None:
        self._receive: Final = receive
        self._limit_bytes: Final = limit_bytes
        self._stall_seconds: Final = stall_seconds
        self._fill: Final = fill
        self._clock: Final = asyncio.get_running_loop().time
        self._size_bytes, self._milestone = 0, PROGRESS_BYTES
        self._answered = self._clock()
        self._deadline = self._answered + stall_seconds
        self._is_ended = False

    async def next(self) -> bytes | None:
        """Return what has arrived, or arrives next; None at the end.

        Raises:
            BodyTooLargeError: more than `limit_bytes` came.
            BodyStalledError: too little came in time.
            BodyAbortedError: the sender disconnected.
        """
        if self._is_ended:
            return None
        self._go_on()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise self._stalled() from None
        if message["type"] == "http.disconnect":
            raise BodyAbortedError(f"body: the sender went away after {self._size_bytes} bytes")
        piece: bytes = message.get("body", b"")
        self._note(len(piece))
        if self._size_bytes > self._limit_bytes:
            raise BodyTooLargeError(f"body: expected at most {self._limit_bytes} bytes, got more")
        self._is_ended = not message.get("more_body", False)
        self._answered = self._clock()
        return piece

    async def fill(self, taker: Taker) -> None:
        """Give a taker what comes until it misses nothing or takes no more; nothing if the server cannot. Then ask for `next`.

        Raises:
            BodyStalledError: too little came in time.
        """
        if self._fill is None or self._is_ended:
            return
        self._go_on()
        noted = _NotedTaker(taker, self._note)
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._fill(noted)
                break
            except TimeoutError:
                if self._deadline <= self._clock():  # else it made progress, and has more time
                    raise self._stalled() from None
        self._answered = self._clock()

    def _go_on(self) -> None:
        """Let the time go on: waiting for room is not the sender's fault."""
        self._deadline += self._clock() - self._answered

    def _note(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self._size_bytes >= self._milestone:
            self._deadline, self._milestone = self._clock() + self._stall_seconds, self._size_bytes + PROGRESS_BYTES

    def _stalled(self) -> BodyStalledError:
        return BodyStalledError(f"body: expected progress within {self._stall_seconds:g} s, got {self._size_bytes} bytes")


class _NotedTaker:
    """A taker, with a note of what it took."""

    __slots__ = ("_note", "_taker")

    def __init__(self, taker: Taker, note: Callable[[int], None]) -> None:
        self._taker: Final = taker
        self._note: Final = note

    @property
    def missing_bytes(self) -> int:
        return self._taker.missing_bytes

    def take(self, piece: memoryview) -> bool:
        is_taken = self._taker.take(piece)
        if is_taken:
            self._note(len(piece))
        return is_taken


async def body_pieces(receive: Receive, limit_bytes: int, stall_seconds: float) -> AsyncGenerator[bytes]:
    """Yield a body as it arrives, to its end; arguments and errors are those of `BodyPieces`."""
    pieces = BodyPieces(receive, limit_bytes, stall_seconds)
    while (piece := await pieces.next()) is not None:
        yield piece


async def read_body(receive: Receive, incoming: IncomingBody, limit_bytes: int, stall_seconds: float) -> None:
    """Read a whole body into what takes it.

    What is charged for it grows with what arrives: a sender that declares much and sends little costs little.

    Raises:
        BodyTooLargeError, BodyStalledError, BodyAbortedError: as `body_pieces`.
        ServiceBusyError: there is no room for it.
    """
    async for piece in body_pieces(receive, limit_bytes, stall_seconds):
        await incoming.append(piece)
