"""Read the body of an ASGI request: bounded before it is read, and never for ever.

Knows ASGI messages and HTTP's length header; what the bytes mean is for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from pet.errors import BodyAbortedError, BodyStalledError, BodyTooLargeError
from pet.transports.service import IncomingBody

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

#: What a sender must deliver in each interval of `stall_seconds`, if it does not finish: 64 KiB in 30 s is a modem's speed.
PROGRESS_BYTES: Final = 64 * 1024


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


async def read_body(receive: Receive, incoming: IncomingBody, limit_bytes: int, stall_seconds: float) -> None:
    """Read a whole body.

    What is charged for it grows with what arrives: a sender that declares much and sends little costs little.

    Args:
        receive: the ASGI channel.
        incoming: what takes the body.
        limit_bytes: largest body to read.
        stall_seconds: time in which the next `PROGRESS_BYTES`, or the end, must arrive.

    Raises:
        BodyTooLargeError: more than `limit_bytes` came.
        BodyStalledError: too little came in time.
        BodyAbortedError: the sender disconnected.
        ServiceBusyError: there is no room for it.
    """
    clock = asyncio.get_running_loop().time
    deadline, milestone = clock() + stall_seconds, PROGRESS_BYTES
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise BodyStalledError(
                f"body: expected progress within {stall_seconds:g} s, got {incoming.size_bytes} bytes"
            ) from None
        if message["type"] == "http.disconnect":
            raise BodyAbortedError(f"body: the sender went away after {incoming.size_bytes} bytes")
        piece = message.get("body", b"")
        if incoming.size_bytes + len(piece) > limit_bytes:
            raise BodyTooLargeError(f"body: expected at most {limit_bytes} bytes, got more")
        asked = clock()
        await incoming.append(piece)
        deadline += clock() - asked  # waiting for room is not the sender's fault
        if not message.get("more_body", False):
            return
        if incoming.size_bytes >= milestone:
            deadline, milestone = clock() + stall_seconds, incoming.size_bytes + PROGRESS_BYTES
