"""Names of hosts, looked up in threads that nobody has to wait for.

The system's resolver cannot be interrupted, and one whose server does not answer takes half a minute. An event loop that
looks a name up by itself uses a thread that its end waits for. Knows nothing of what the addresses are for.
"""

from __future__ import annotations

import socket
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

from pet.transports.daemon_threads import DaemonThreads

#: What the system says of one address: family, kind, protocol, canonical name, and the address that a socket takes.
AddressInfo: TypeAlias = tuple[Any, ...]

_THREADS: Final = DaemonThreads()


def look_up(host: str, port: int) -> Future[list[AddressInfo]]:
    """Look up where a host takes TCP connections; the future raises OSError or UnicodeError if that cannot be found out.

    A host that is an address already needs no resolver: its future is done.
    """
    found: Future[list[AddressInfo]] = Future()
    try:
        found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except (OSError, UnicodeError):
        return _THREADS.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    return found
