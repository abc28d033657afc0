"""What commands that serve have in common: an address to listen on, an announcement, and an end on Ctrl-C.

This file knows uvicorn, and nothing of what is served.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Final

import uvicorn
from rich.console import Console

from pet.coordinator.setting_sections import split_bind_address
from pet.coordinator.worker_threads import start_threads
from pet.errors import TransportError

#: Connections that the system holds until they are accepted: participants come all at once.
_MAX_WAITING: Final = 2048
#: Accepted before any of them is looked at, and perhaps closed again: as many as `backlog` says to uvicorn and asyncio. Each
#: has a descriptor meanwhile, which must not be the last one.
ACCEPTED_AT_ONCE: Final = 64


#: For what the event loop gives to any thread (`asyncio.to_thread`): as many as asyncio would start when they are needed.
_HELPER_THREADS: Final = min(32, (os.cpu_count() or 1) + 4)


class Server(uvicorn.Server):
    """Says on standard output when it listens, and has all its threads by then."""

    def __init__(self, config: uvicorn.Config, announcement: str, console: Console) -> None:
        super().__init__(config)
        self._announcement = announcement
        self._console = console

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then say so.

        Raises:
            ThreadStartError: the system does not start the threads of the event loop.
        """
        asyncio.get_running_loop().set_default_executor(start_threads(_HELPER_THREADS, "pet-helper"))
        await super().startup(sockets=sockets)
        for listener in sockets or ():
            listener.listen(_MAX_WAITING)  # asyncio has set it to what it accepts at once
        if self.started:
            self._console.print(self._announcement, soft_wrap=True)


def listen(bind_address: str, name: str = "api.bind_address") -> socket.socket:
    """Return a socket that listens on IP:port.

    Args:
        bind_address: port 0 for any free one.
        name: what an error calls the address.

    Raises:
        TransportError: the address cannot be used.
    """
    host, port = split_bind_address(bind_address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns off Nagle's algorithm only where the protocol is named: otherwise each answer with a body takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Otherwise a restart has to wait for connections of the last run to time out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_MAX_WAITING)
    except OSError as error:
        listener.close()
        raise TransportError(f"{name}: expected an address to listen on, got {bind_address}: {error.strerror}") from None
    return listener


def serve_until_a_signal(server: Server, listener: socket.socket, url: str) -> None:
    """Serve until SIGINT or SIGTERM; returns after a clean end.

    Raises:
        TransportError: the server did not start.
        ThreadStartError: the system does not start its threads.
    """
    # uvicorn takes these signals while it serves and sends them again when it has ended; then there is nothing left to end.
    earlier = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    if not server.started:
        raise TransportError(f"{url}: expected the server to start, see the log")
