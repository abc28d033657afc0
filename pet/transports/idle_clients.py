"""Clients of httpx between two calls: each is used by one call at a time, and has one connection.

Threads could share a client and its pool of connections. But the pool judges whether a connection is idle, expired or closed
by its server while another thread begins to use it. That an answer has arrived then looks as if the server had closed the
connection, and it is closed under that thread ("Bad file descriptor") after the request was sent. Tasks of asyncio can meet the
same between two steps of closing several connections.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from pet.errors import TransportError

_Client = TypeVar("_Client")

#: How long a connection is kept without use: less than the 5 s after which servers in common use close it, since a request that
#: is sent at that moment is lost.
MAX_IDLE_SECONDS: Final = 4.0


class IdleClients(Generic[_Client]):
    """Clients that nobody uses now, the one that was used last on top.

    Args:
        make: returns a new client; called when all others are in use.
        clock: returns seconds that never go back.
    """

    def __init__(self, make: Callable[[], _Client], clock: Callable[[], float] = time.monotonic) -> None:
        self._make: Final = make
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._idle: Final[deque[tuple[float, _Client]]] = deque()
        self._is_closed = False

    def take(self) -> _Client:
        """Return a client that nobody else uses until `put_back`.

        Raises:
            TransportError: closed.
        """
        with self._lock:
            if self._is_closed:
                raise TransportError("HTTP: expected an open transport, got one that was closed")
            if self._idle:
                return self._idle.pop()[1]
        return self._make()

    def put_back(self, client: _Client) -> list[_Client]:
        """Let others use a client; returns those that the caller closes: unused for long, or all after `close`."""
        with self._lock:
            if self._is_closed:
                return [client]
            now = self._clock()
            self._idle.append((now, client))
            expired = []
            while self._idle[0][0] < now - MAX_IDLE_SECONDS:
                expired.append(self._idle.popleft()[1])
            return expired

    def close(self) -> list[_Client]:
        """Give out no further client; returns those that the caller closes. The others come with `put_back`."""
        with self._lock:
            self._is_closed = True
            idle = [client for _, client in self._idle]
            self._idle.clear()
            return idle
