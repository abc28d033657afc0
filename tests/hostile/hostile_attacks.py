"""Attacks on an HTTP server from one address, over raw sockets: each takes what it gets, and comes again when it is sent away.

Nothing of a message is right in any of them: what they need is an address, and no key. Each says how a coordinator counts it.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

#: How long an attacker rests between two looks at all its connections.
_REST_SECONDS: Final = 0.02
Address = tuple[str, int]


@dataclass(frozen=True)
class Attack:
    """What each of some connections does.

    Attributes:
        name: in a word.
        connections: how many are held at a time.
        opening: what is sent first, made from the largest body that the server takes.
        more: what is sent again and again as long as it is taken; nothing if empty.
        pause_seconds: between two times.
        reads: whether answers are read, and the connection is given up after one.
        reasons: as what the server may count it (`pet_refusals_total`); empty where nothing has to be refused.
    """

    name: str
    connections: int
    opening: Callable[[int], bytes]
    more: bytes = b""
    pause_seconds: float = 0.1
    reads: bool = False
    reasons: tuple[str, ...] = ()


def _post(size: int, sent: int) -> bytes:
    return f"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(sent)


def _get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def _forwarded(_: int) -> bytes:
    sender = ".".join(str(random.randrange(256)) for _ in range(4))
    return _get("/params", f"X-Forwarded-For: {sender}\r\nConnection: close\r\n")


ATTACKS: Final = (
    Attack("silence", 400, lambda _: b"", reasons=("connection", "header_time")),
    Attack("slow headers", 100, lambda _: b"GET / HTTP/1.1\r\n", b"a: b\r\n", reasons=("header_time",)),
    Attack("large headers", 100, lambda _: b"GET / HTTP/1.1\r\n" + b"a: " + b"x" * 66_000, reasons=("headers",)),
    Attack("no HTTP", 50, lambda _: b"\x16\x03\x01" + bytes(200), reads=True, reasons=("no_http",)),
    Attack("pipelining", 30, lambda _: _get("/events"), _get("/params") * 3000, 0.0),
    Attack("small bodies", 150, lambda _: _post(60_000, 50_000), b"x", reasons=("no_room", "body_evicted", "body_stalled")),
    Attack("large bodies", 50, lambda most: _post(most, 1_100_000), b"x", reasons=("no_room", "body_evicted", "body_stalled")),
    Attack("endless bodies", 50, lambda most: _post(most, 1), bytes(1 << 16), 0.0),
    Attack("too large", 20, lambda most: _post(2 * most, 1), reads=True, reasons=("body_size",)),
    Attack("no reading", 100, lambda _: _get("/model") * 30, reasons=("reader_stalled", "answers")),
    Attack(
        "flood", 20, lambda _: _get("/status") * 20 + _get("/status", "Connection: close\r\n"), reads=True, reasons=("rate",)
    ),
    Attack("another sender each time", 20, _forwarded, reads=True, reasons=("rate",)),
    Attack("junk messages", 20, lambda _: _post(300, 300), _post(300, 300), 0.0, reads=True, reasons=("rate",)),
)


@contextlib.contextmanager
def attacked(server: Address, source: str, attacks: tuple[Attack, ...], most_bytes: int) -> Iterator[None]:
    """Carry out attacks from one address, each in a thread, until the end of the `with`.

    Args:
        server: whom.
        source: from which loopback address.
        attacks: which.
        most_bytes: the largest body that the server takes.
    """
    stopping = threading.Event()
    threads = [threading.Thread(target=_attack, args=(server, source, attack, most_bytes, stopping)) for attack in attacks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


class _Connection:
    """One connection of an attack."""

    def __init__(self, server: Address, source: str, attack: Attack, most_bytes: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.bind((source, 0))
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.socket.connect(server)
        self._attack = attack
        self._pending = attack.opening(most_bytes)
        self._next_seconds = 0.0

    def go_on(self, now_seconds: float) -> bool:
        """Send what can be sent, and read if that is what it does; returns whether the connection is still of use."""
        if not self._pending and self._attack.more and now_seconds >= self._next_seconds:
            self._pending, self._next_seconds = self._attack.more, now_seconds + self._attack.pause_seconds
        try:
            if self._pending:
                self._pending = self._pending[self.socket.send(self._pending) :]
            if self._attack.reads and not self._pending:
                return len(self.socket.recv(4096)) > 0
            # A connection that the server has closed is replaced; what it sent stays where it is.
            return len(self.socket.recv(1, socket.MSG_PEEK)) > 0
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as error:
            return error.errno == errno.ENOTCONN  # not yet


def _attack(server: Address, source: str, attack: Attack, most_bytes: int, stopping: threading.Event) -> None:
    held: list[_Connection] = []
    while not stopping.wait(_REST_SECONDS):
        held, ended = _sorted(held, time.monotonic())
        for connection in ended:
            connection.socket.close()
        for _ in range(min(attack.connections - len(held), 20)):
            with contextlib.suppress(OSError):
                held.append(_Connection(server, source, attack, most_bytes))
    for connection in held:
        connection.socket.close()


def _sorted(held: list[_Connection], now_seconds: float) -> tuple[list[_Connection], list[_Connection]]:
    alive, ended = [], []
    for connection in held:
        (alive if connection.go_on(now_seconds) else ended).append(connection)
    return alive, ended
