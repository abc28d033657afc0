"""The page at `/` that shows a coordinator at work, and the events that keep it up to date.

The page is one file without anything to build or to fetch elsewhere; the browser may load nothing but the server-sent
events at `EVENTS_PATH`. This file knows that a snapshot is JSON, and nothing of what is in it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from pet.bodies.holders import HolderTable
from pet.errors import MissingExtraError
from pet.transports.pages import read_page
from pet.transports.peers import peer_of

with MissingExtraError.naming("http"):
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, Response, StreamingResponse
    from starlette.routing import Route

EVENTS_PATH: Final = "/events"
#: How often a snapshot is looked at, and sent if it differs.
_INTERVAL_SECONDS: Final = 0.5
#: After this long a stream ends and the browser comes back, so that a server which stops need not wait for watchers.
_STREAM_SECONDS: Final = 20.0
_RETRY_MILLISECONDS: Final = 1000
#: More watchers than this are sent away for a while.
MAX_WATCHERS: Final = 32


def live_routes(snapshot: Callable[[], Mapping[str, Any]]) -> list[Route]:
    """Return the routes of the page.

    Args:
        snapshot: returns what to show, ready for JSON; called in the event loop, so it must be quick.
    """
    watchers = _Watchers(snapshot)
    return [Route("/", _page, methods=["GET"]), Route(EVENTS_PATH, watchers.get_events, methods=["GET"])]


async def _page(_: Request) -> Response:
    page = read_page("pet.transports", "live_page.html")
    return HTMLResponse(page.text, headers=page.headers)


class _Watchers:
    """Those who watch, no more than `MAX_WATCHERS`, and of one address no more than seven eighths."""

    def __init__(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._snapshot = snapshot
        self._watchers: Final = HolderTable(MAX_WATCHERS)

    async def get_events(self, request: Request) -> Response:
        """Answer with a stream of snapshots."""
        peer = peer_of(request.scope.get("client"))
        if not self._watchers.has_room(peer, 1):
            return Response(status_code=503, headers={"retry-after": "10"})
        return StreamingResponse(self._events(peer), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _events(self, peer: str) -> AsyncIterator[str]:
        holding = self._watchers.take(peer, 1)
        if holding is None:
            return  # others came first
        try:
            yield f"retry: {_RETRY_MILLISECONDS}\n\n"
            clock = asyncio.get_running_loop().time
            end, last = clock() + _STREAM_SECONDS, ""
            while clock() < end:
                if (text := json.dumps(self._snapshot(), separators=(",", ":"))) != last:
                    yield f"data: {text}\n\n"
                    last = text
                await asyncio.sleep(_INTERVAL_SECONDS)
        finally:
            self._watchers.release(holding)
