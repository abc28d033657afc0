"""Whose request a proxy passes on: `X-Forwarded-For`, believed from proxies that were named, and from nobody else.

Anybody can send the header. Believed from everybody, it would let one peer be a new one for each limit with every request; so
it would behind a proxy on the same machine that passes on what it got, if loopback were believed. ASGI middleware; the one
bound that it does not change is that of connections, which are the proxy's own, as many in a second as it likes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from pet.errors import MissingExtraError
from pet.transports.peers import Network, is_among, parse_address

with MissingExtraError.naming("http"):
    from starlette.types import ASGIApp, Receive, Scope, Send

_logger: Final = logging.getLogger(__name__)

_HEADER: Final = b"x-forwarded-for"
#: Hops that are looked at, from the last one back; nobody has as many proxies of their own.
_MAX_HOPS: Final = 32


class ForwardedPeers:
    """Middleware around an application, which finds in `scope["client"]` who sent the request.

    Args:
        app: the application.
        trusted: the proxies; none means that the header is ignored.
        setting: how the proxies are named, for the warning that somebody else sent the header.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network], setting: str) -> None:
        self._app = app
        self._trusted = tuple(trusted)
        self._setting = setting
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its sender's address in place of a trusted proxy's."""
        if scope["type"] == "http" and scope.get("client"):
            values = [value for name, value in scope["headers"] if name == _HEADER]
            if values:
                scope = {**scope, "client": self._sender(scope["client"], values)}
        await self._app(scope, receive, send)

    def _sender(self, client: tuple[str, int], values: Sequence[bytes]) -> tuple[str, int]:
        """Return the last address that no proxy of ours has."""
        peer = parse_address(client[0])
        if peer is None or not is_among(peer, self._trusted):
            self._warn(client[0])
            return client
        hops = b",".join(values).decode("latin-1").split(",")
        for hop in hops[: -_MAX_HOPS - 1 : -1]:
            address = parse_address(hop)
            if address is None:
                break
            peer = address
            if not is_among(peer, self._trusted):
                break
        return str(peer), 0

    def _warn(self, host: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            text = "X-Forwarded-For from %s is ignored, from now on without a word: it is not among %s"
            _logger.warning(text, host, self._setting)
