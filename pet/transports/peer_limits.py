"""How much one peer may ask for: requests and bytes in a second, as ASGI middleware.

Each address has two buckets that fill at the allowed rate and hold what it yields in `BURST_SECONDS`. A request takes from
the first, its body from the second as it arrives; a request that finds a bucket empty is refused with 429 before its body is
read. So bodies are never cut, and a peer that sends much has to wait before it sends more. Knows no route.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pet.errors import MissingExtraError
from pet.transports.peers import peer_of
from pet.transports.refusal import Refusal
from pet.transports.refusal_counts import RefusalCounts, RefusalReason

with MissingExtraError.naming("http"):
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_logger: Final = logging.getLogger(__name__)

#: A whole round of ten thousand participants behind one address begins at once.
BURST_SECONDS: Final = 10.0

#: Addresses that are remembered; the one that was seen longest ago is forgotten, which does it good.
MAX_PEERS: Final = 16_384


@dataclass(slots=True)
class _Buckets:
    """What a peer may still take, at some time; less than nothing after a body was larger than what was left."""

    requests: float
    bytes: float
    seconds: float


class PeerLimits:
    """Middleware around an application.

    Args:
        app: the application.
        requests_per_second: of one peer; infinite for no bound.
        bytes_per_second: of the request bodies of one peer; infinite for no bound.
        clock: returns seconds that never go back.
        refusals: where refusals are counted; None counts them apart.
    """

    def __init__(
        self,
        app: ASGIApp,
        requests_per_second: float,
        bytes_per_second: float,
        clock: Callable[[], float] = time.monotonic,
        refusals: RefusalCounts | None = None,
    ) -> None:
        self._refusals = RefusalCounts() if refusals is None else refusals
        self._app = app
        self._rates = requests_per_second, bytes_per_second
        self._clock = clock
        self._peers: OrderedDict[str, _Buckets] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429, or let the application answer and count the body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        peer = peer_of(scope.get("client"))
        buckets = self._refill(peer)
        wait_seconds = self._wait_seconds(buckets)
        if wait_seconds > 0:
            self._refusals.count(RefusalReason.RATE)
            _logger.info("request refused: status=429 its peer has to wait %.1f s", wait_seconds)
            await Refusal(429, math.ceil(wait_seconds))(scope, receive, send)
            return
        buckets.requests -= 1

        async def count_and_receive() -> Message:
            message = await receive()
            buckets.bytes -= len(message.get("body", b""))
            return message

        await self._app(scope, count_and_receive, send)

    def _refill(self, peer: str) -> _Buckets:
        now_seconds, (requests, size) = self._clock(), self._rates
        buckets = self._peers.pop(peer, None)
        if buckets is None:
            buckets = _Buckets(requests * BURST_SECONDS, size * BURST_SECONDS, now_seconds)
            if len(self._peers) >= MAX_PEERS:
                self._peers.popitem(last=False)
        else:
            passed = now_seconds - buckets.seconds
            buckets.requests = min(requests * BURST_SECONDS, buckets.requests + requests * passed)
            buckets.bytes = min(size * BURST_SECONDS, buckets.bytes + size * passed)
            buckets.seconds = now_seconds
        self._peers[peer] = buckets
        return buckets

    def _wait_seconds(self, buckets: _Buckets) -> float:
        requests, size = self._rates
        missing_requests, missing_bytes = max(0.0, 1 - buckets.requests), max(0.0, -buckets.bytes)
        return max(missing_requests / requests, missing_bytes / size)
