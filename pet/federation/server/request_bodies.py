"""Bodies of requests on their way in: bounded before they are read, in memory that is shared between those who send.

Who sends is a user, where the head of the request proved it, and an address otherwise. Knows no path and no signature.

Source: docs/spec/federation.md 4.2, 4.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from pet.bodies.memory_budget import MemoryBudget, Reservation
from pet.errors import BodyError, BodyStalledError, BodyTooLargeError, MissingExtraError, RequestRefusedError
from pet.federation.formats import secure
from pet.federation.server.answers import refuse
from pet.transports.body_reader import REASON_OF, STATUS_OF, body_pieces, declared_length
from pet.transports.refusal_counts import RefusalCounts, RefusalReason

with MissingExtraError.naming("federation"):
    from starlette.requests import Request

#: Bodies in memory, in sizes of the largest one: one whole and half of the next; with JSON decoded beside each, about 1 GiB.
_MAX_BODIES: Final = 2.5
#: A body must make progress in this time, and be whole in a second more for each `_BYTES_PER_SECOND`: a slow line, no idle one.
_BODY_SECONDS: Final = 20.0
_BYTES_PER_SECOND: Final = 256 << 10
_RETRY_AFTER: Final = "2"


class RequestBodies:
    """The bodies that are read and handled now.

    Args:
        largest_bytes: of one body.
        refusals: where refusals are counted.
    """

    def __init__(self, largest_bytes: int, refusals: RefusalCounts) -> None:
        self._budget: Final = MemoryBudget(int(_MAX_BODIES * largest_bytes), _BODY_SECONDS)
        self._refusals: Final = refusals

    @property
    def used_bytes(self) -> int:
        """What bodies have in memory now."""
        return self._budget.capacity_bytes - self._budget.free_bytes

    @asynccontextmanager
    async def read(self, request: Request, most_bytes: int, holder: str) -> AsyncIterator[bytes]:
        """Read a body, and count it until the end of the `async with`.

        Args:
            request: what it belongs to.
            most_bytes: the largest that is read.
            holder: who sends it.

        Raises:
            RequestRefusedError: it is too large, too slow, or there is no room for it.
        """
        try:
            declared = declared_length(request.headers.get("content-length"), most_bytes)
        except BodyError as error:
            raise self._refuse(error, most_bytes) from None
        if declared is not None or "transfer-encoding" not in request.headers:
            most_bytes = declared or 0
        if most_bytes and self._budget.is_short_for(holder, most_bytes):
            self._refusals.count(RefusalReason.NO_ROOM)
            raise _busy("Other large requests are read")
        try:
            async with self._budget.reserve(most_bytes, holder) as reservation:
                body = await _read(request, most_bytes, reservation)
                reservation.finish()
                yield body
        except BodyError as error:
            raise self._refuse(error, most_bytes) from None

    def _refuse(self, error: BodyError, most_bytes: int) -> RequestRefusedError:
        """Count a refusal, and return the answer to it."""
        self._refusals.count(REASON_OF[type(error)])
        status = HTTPStatus(STATUS_OF[type(error)])
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            return _busy(str(error))
        if isinstance(error, BodyTooLargeError) and most_bytes == secure.MAX_UNANNOUNCED_BYTES:
            return refuse(
                status, f"body: expected at most {most_bytes} bytes without the header {secure.DIGEST_HEADER}, got more"
            )
        return refuse(status, str(error))


async def _read(request: Request, most_bytes: int, reservation: Reservation) -> bytes:
    """Read a body as fast as there is room for it.

    Raises:
        BodyError: it is too large, too slow, incomplete, or lost its room to somebody else.
    """
    body, seconds = bytearray(), _BODY_SECONDS + most_bytes / _BYTES_PER_SECOND
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    async for piece in body_pieces(request.receive, most_bytes, _BODY_SECONDS):
        asked = clock()
        await reservation.grow(len(body) + len(piece))
        deadline += clock() - asked  # waiting for room is not the sender's fault
        body += piece
        if clock() > deadline:
            raise BodyStalledError(f"body: expected all of it within {seconds:g} s, got {len(body)} bytes")
    return bytes(body)


def _busy(text: str) -> RequestRefusedError:
    return RequestRefusedError(HTTPStatus.SERVICE_UNAVAILABLE, text, headers={"retry-after": _RETRY_AFTER})
