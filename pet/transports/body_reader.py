"""Read the body of an ASGI request: bounded before it is read, and never for ever.

Knows ASGI messages and HTTP's length header; what the bytes mean is for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

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

#: What a sender must deliver in each interval of `stall_seconds`, if it does not finish: 64 KiB in 30 s is a modem's speed.
PROGRESS_BYTES: Final = 64 * 1024
#: Bodies up to this size are asked for whole, where who receives them has the room: each piece costs a turn of the event loop.
WHOLE_BODY_BYTES: Final = 1 << 18
#: What a server sets in the scope of a request whose body it has received: waiting for it takes no time, and needs no timer.
WHOLE_BODY_KEY: Final = "pet.whole_body"
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


async def body_pieces(receive: Receive, limit_bytes: int, stall_seconds: float) -> AsyncGenerator[bytes]:
    """Yield a body as it arrives, to its end.

    Args:
        receive: the ASGI channel.
        limit_bytes: largest body to read.
        stall_seconds: time in which the next `PROGRESS_BYTES`, or the end, must arrive.

    Raises:
        BodyTooLargeError: more than `limit_bytes` came.
        BodyStalledError: too little came in time.
        BodyAbortedError: the sender disconnected.
    """
    clock = asyncio.get_running_loop().time
    deadline, milestone, size_bytes = clock() + stall_seconds, PROGRESS_BYTES, 0
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise BodyStalledError(f"body: expected progress within {stall_seconds:g} s, got {size_bytes} bytes") from None
        if message["type"] == "http.disconnect":
            raise BodyAbortedError(f"body: the sender went away after {size_bytes} bytes")
        piece = message.get("body", b"")
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            raise BodyTooLargeError(f"body: expected at most {limit_bytes} bytes, got more")
        asked = clock()
        yield piece
        deadline += clock() - asked  # waiting for room is not the sender's fault
        if not message.get("more_body", False):
            return
        if size_bytes >= milestone:
            deadline, milestone = clock() + stall_seconds, size_bytes + PROGRESS_BYTES


async def read_body(receive: Receive, incoming: IncomingBody, limit_bytes: int, stall_seconds: float) -> None:
    """Read a whole body into what takes it.

    What is charged for it grows with what arrives: a sender that declares much and sends little costs little.

    Raises:
        BodyTooLargeError, BodyStalledError, BodyAbortedError: as `body_pieces`.
        ServiceBusyError: there is no room for it.
    """
    async for piece in body_pieces(receive, limit_bytes, stall_seconds):
        await incoming.append(piece)
