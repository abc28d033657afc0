"""An answer that refuses a request before its body was read.

A connection that is closed while bytes wait to be read is reset, and the sender may lose the answer. So the answer goes out
first, and for a moment what still comes is read and dropped.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from pet.errors import MissingExtraError

with MissingExtraError.naming("http"):
    from starlette.types import Receive, Scope, Send

LINGER_SECONDS: Final = 1.0
#: Enough for a sender that looks for an answer while it sends; one that does not would need all of its body read.
LINGER_BYTES: Final = 4 * 2**20


class Refusal:
    """An answer, empty for most, after which the connection is closed; an ASGI application.

    Args:
        status_code: why.
        retry_after_seconds: when the sender should try again; None says nothing about it.
        body: what to say beside it.
        linger_seconds: how long what still comes is read.
        linger_bytes: how much of it.
    """

    def __init__(
        self,
        status_code: int,
        retry_after_seconds: int | None = None,
        *,
        body: bytes = b"",
        linger_seconds: float = LINGER_SECONDS,
        linger_bytes: int = LINGER_BYTES,
    ) -> None:
        self.status_code = status_code
        self.body = body
        self._linger_seconds = linger_seconds
        self._linger_bytes = linger_bytes
        self.headers = [(b"connection", b"close"), (b"content-length", b"%d" % len(body))]
        if body:
            self.headers.append((b"content-type", b"application/octet-stream"))
        if retry_after_seconds is not None:
            self.headers.append((b"retry-after", b"%d" % retry_after_seconds))

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then linger."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.headers})
        if self.body:
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(self._linger_seconds):
                await _drop(receive, self._linger_bytes)
        await send({"type": "http.response.body", "body": b""})


async def _drop(receive: Receive, most_bytes: int) -> None:
    size_bytes, has_more = 0, True
    while has_more and size_bytes < most_bytes:
        message = await receive()
        size_bytes += len(message.get("body", b""))
        has_more = message["type"] == "http.request" and message.get("more_body", False)
