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
#: Keeps what is lent, and returns what gives it back.
Keep: TypeAlias = Callable[[], Callable[[], None]]

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
    """Takes the bytes of a body as they are received, without a turn of the event loop for each.

    Attributes:
        wake: set by who gives it bytes, and called by a taker that was busy, when it is no longer.
    """

    wake: Callable[[], None]

    @property
    def missing_bytes(self) -> int:
        """How many it wants now."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether it wants none only because it works on those it has; it may then want more."""
        ...

    def take(self, piece: memoryview, keep: Keep | None = None) -> bool:
        """Take a piece, or nothing of it and no more; it is lent, and read until this returns. Raises nothing.

        Args:
            piece: at most `missing_bytes`.
            keep: called by a taker that takes the piece, to read it for longer, until it calls what that returns; None where it
                cannot.

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
        self._is_working = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def size_bytes(self) -> int:
        """What has come, and was returned or taken."""
        return self._size_bytes

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
        self.note(len(piece))
        if self._size_bytes > self._limit_bytes:
            raise BodyTooLargeError(f"body: expected at most {self._limit_bytes} bytes, got more")
        self._is_ended = not message.get("more_body", False)
        self._answered = self._clock()
        return piece

    async def fill(self, taker: Taker) -> None:
        """Give a taker what comes until it misses nothing or takes no more; nothing if the server cannot. Then ask for `next`.

        A taker may still be busy afterwards: with the last of the body, or as the sender went away.

        Raises:
            BodyStalledError: too little came in time.
        """
        if self._fill is None or self._is_ended:
            return
        self._go_on()
        noted, filling = _NotedTaker(taker, self), asyncio.timeout(None)
        self._look_again(self._deadline, filling)
        try:
            async with filling:
                await self._fill(noted)
        except TimeoutError:
            raise self._stalled() from None
        finally:
            if self._timer is not None:
                self._timer.cancel()
        if not self._is_working:
            self._answered = self._clock()

    def begin_work(self) -> None:
        """Let the time stand still: what was sent is worked on."""
        self._is_working, self._answered = True, self._clock()

    def end_work(self) -> None:
        """Let it go on."""
        self._is_working = False
        self._go_on()

    def _look_again(self, when: float, filling: asyncio.Timeout) -> None:
        self._timer = asyncio.get_running_loop().call_at(when, self._look, filling)

    def _look(self, filling: asyncio.Timeout) -> None:
        """See whether the time is over. That is seldom, and there is one timer, however often the sender makes progress."""
        now = self._clock()
        if self._is_working:
            self._look_again(now + self._stall_seconds, filling)
        elif self._deadline > now:
            self._look_again(self._deadline, filling)
        else:
            filling.reschedule(now)

    def _go_on(self) -> None:
        """Let the time go on: waiting for room is not the sender's fault."""
        now = self._clock()
        self._deadline += now - self._answered
        self._answered = now

    def note(self, size_bytes: int) -> None:
        """Note that so much has come."""
        self._size_bytes += size_bytes
        if self._size_bytes >= self._milestone:
            self._deadline, self._milestone = self._clock() + self._stall_seconds, self._size_bytes + PROGRESS_BYTES

    def _stalled(self) -> BodyStalledError:
        return BodyStalledError(f"body: expected progress within {self._stall_seconds:g} s, got {self._size_bytes} bytes")


class _NotedTaker:
    """A taker, with a note of what it took, and of when it works."""

    __slots__ = ("_pieces", "_taker", "wake")

    wake: Callable[[], None]

    def __init__(self, taker: Taker, pieces: BodyPieces) -> None:
        self._taker: Final = taker
        self._pieces: Final = pieces
        taker.wake = self._end_work

    @property
    def missing_bytes(self) -> int:
        return self._taker.missing_bytes

    @property
    def is_busy(self) -> bool:
        return self._taker.is_busy

    def take(self, piece: memoryview, keep: Keep | None = None) -> bool:
        is_taken = self._taker.take(piece, keep)
        if is_taken:
            self._pieces.note(len(piece))
            if self._taker.is_busy:
                self._pieces.begin_work()
        return is_taken

    def _end_work(self) -> None:
        self._pieces.end_work()
        self.wake()


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
