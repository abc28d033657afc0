"""A page for one peer, for its user: members, rows, synchronisations, logs. It only reads, and answers only its own page.

What a browser on this machine may be made to do by other pages is the danger here. The page's path holds a token that is
drawn at each start; the Host header must name this machine, so that a foreign name that is bound to its address gets nothing;
requests that other pages began are refused. The user's key signs requests to the peer's server, and never reaches a browser.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pet.errors import FederationError, MissingExtraError
from pet.federation.client.client import Client
from pet.federation.formats.member_list import shown_fingerprint
from pet.federation.records import ProjectKind
from pet.transports.pages import read_page

with MissingExtraError.naming("federation"):
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send

#: Lines of each log that are shown; the commands have all.
_LOG_LINES: Final = 100
#: However many pages look, the peer's server is asked no more often than this.
_MIN_SECONDS: Final = 1.0
_TOKEN_BYTES: Final = 16
#: How lines of the sync log begin that end a synchronisation.
_SYNC_ENDS: Final = ("Sync completed", "Nothing new")


class PeerPage:
    """The page of one peer.

    Attributes:
        path: where it is, with a token that is new for each one.
    """

    def __init__(self, client: Client, project_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.path: Final = f"/{secrets.token_urlsafe(_TOKEN_BYTES)}/"
        self._client: Final = client
        self._project_id: Final = project_id
        self._clock: Final = clock
        self._lock: Final = asyncio.Lock()
        self._asked_seconds = -_MIN_SECONDS
        self._found: dict[str, Any] = {}

    def app(self, hosts: frozenset[str]) -> ASGIApp:
        """Return the application.

        Args:
            hosts: what the Host header may say, host:port.
        """
        routes = [Route(self.path, self._page, methods=["GET"]), Route(f"{self.path}peer", self._peer, methods=["GET"])]
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False
        return _OwnOriginOnly(app, hosts)

    async def _page(self, _: Request) -> Response:
        page = read_page("pet.federation.client", "peer_page.html")
        return HTMLResponse(page.text, headers=page.headers)

    async def _peer(self, _: Request) -> Response:
        try:
            async with self._lock:  # a client is for one thread at a time
                if self._clock() - self._asked_seconds >= _MIN_SECONDS:
                    self._found = await asyncio.to_thread(peer_state, self._client, self._project_id)
                    self._asked_seconds = self._clock()
        except FederationError as error:
            return JSONResponse({"error": str(error)}, status_code=502)
        return JSONResponse(self._found)


def peer_state(client: Client, project_id: str) -> dict[str, Any]:
    """Return what the page shows, ready for JSON. Texts are as they came: names and log lines are other people's.

    Raises:
        FederationError: the peer's server refuses, or does not answer.
    """
    info, counts, members = client.info(project_id), client.statistics(project_id), client.members(project_id)
    rows = client.row_counts(project_id) if info["fed_project_kind"] == ProjectKind.STATISTICS else None
    sync_log = counts["syncLog"]
    return {
        "info": {
            "project": project_id,
            "federation": info["fed_name"],
            "mode": info["fed_mode"],
            "is_admin": info["fed_is_admin"] == "true",
            "is_pulsing": bool(info["is_pulsing"]),
            "schedule": info["sync_sched"],
            "uses_smpc": info["fed_use_smpc"] == "true",
            "hosts": info["nats_hosts"],
            "broker": info["nats_state"],
            "warnings": info.get("fed_warnings", []),
        },
        "members": {
            "code": members.code,
            "confirm": members.confirm,
            "members": [
                {
                    "name": member.name,
                    "fingerprint": shown_fingerprint(member.fingerprint),
                    "is_confirmed": member.is_confirmed,
                    "is_this": member.is_this,
                    "is_admin": member.is_admin,
                }
                for member in members.members
            ],
        },
        "rows": rows,
        "proposed": client.contract(project_id)["proposed"],
        "counts": {"sent": counts["sndCount"], "received": counts["rcvCount"], "errors": counts["rcvError"]},
        "syncs": [line for line in sync_log if line.startswith(_SYNC_ENDS)][-_LOG_LINES:],
        "errors": counts["errorLog"][-_LOG_LINES:],
        "log": sync_log[-_LOG_LINES:],
    }


class _OwnOriginOnly:
    """Refuses what did not come from a page of this server, or from its address as a person opened it."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app: Final = app
        self._hosts: Final = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer: Callable[[Scope, Receive, Send], Awaitable[None]] = self._app
        if scope["type"] == "http" and (refusal := self._refusal(Request(scope))) is not None:
            answer = refusal

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                # Without these another page could embed the answers, or hold a window of this page.
                extra = [(b"cross-origin-resource-policy", b"same-origin"), (b"cross-origin-opener-policy", b"same-origin")]
                message = {**message, "headers": [*message["headers"], *extra, (b"cache-control", b"no-store")]}
            await send(message)

        await answer(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        # The header as it came: a name that somebody else binds to 127.0.0.1 is in it (DNS rebinding).
        if request.headers.getlist("host") not in [[host] for host in self._hosts]:
            return PlainTextResponse("expected the address that pet federation page printed", status_code=421)
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") or (
            origin is not None and origin not in {f"http://{host}" for host in self._hosts}
        ):
            return PlainTextResponse(
                "expected this address to be opened by itself, got a request of another page", status_code=403
            )
        return None
