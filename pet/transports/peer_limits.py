"""How much one peer may ask for: requests and bytes in a second, as ASGI middleware.

A request beyond the rate of its address (pet/transports/rates.py) is refused with 429 before its body is read. Knows no route.
"""

from __future__ import annotations

import logging
import math
from typing import Final

from pet.errors import MissingExtraError
from pet.transports.peers import peer_of
from pet.transports.rates import Rates
from pet.transports.refusal import Refusal
from pet.transports.refusal_counts import RefusalCounts, RefusalReason

with MissingExtraError.naming("http"):
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_logger: Final = logging.getLogger(__name__)


class PeerLimits:
    """Middleware around an application.

    Args:
        app: the application.
        rates: of one peer; `bytes` are those of request bodies.
        refusals: where refusals are counted; None counts them apart.
    """

    def __init__(self, app: ASGIApp, rates: Rates, refusals: RefusalCounts | None = None) -> None:
        self._refusals = RefusalCounts() if refusals is None else refusals
        self._app = app
        self._rates: Final = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429, or let the application answer and count the body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        buckets, wait_seconds = self._rates.take(peer_of(scope.get("client")))
        if wait_seconds > 0:
            self._refusals.count(RefusalReason.RATE)
            _logger.info("request refused: status=429 its peer has to wait %.1f s", wait_seconds)
            await Refusal(429, math.ceil(wait_seconds))(scope, receive, send)
            return
        if not self._rates.bounds_bytes:
            await self._app(scope, receive, send)
            return

        async def count_and_receive() -> Message:
            message = await receive()
            buckets.bytes -= len(message.get("body", b""))
            return message

        await self._app(scope, count_and_receive, send)
