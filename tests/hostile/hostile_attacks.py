"""Attacks on an HTTP server from one address, over raw sockets: each takes what it gets, and comes again when it is sent away.

Those of `ATTACKS` need an address, and no key; `OF_USERS` are signed by one user of a federation server, from many addresses.
Each says how the server counts it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from federation_rest_server import OTHER_KEY

from pet.federation.formats import secure
from pet.federation.formats.encoding import decode_base64
from pet.federation.formats.secure import SignedParts

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
        addresses: from how many addresses.
    """

    name: str
    connections: int
    opening: Callable[[int], bytes]
    more: bytes = b""
    pause_seconds: float = 0.1
    reads: bool = False
    reasons: tuple[str, ...] = ()
    addresses: int = 1


def post(size: int, sent: int, path: str = "/message", more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {size}\r\n\r\n".encode() + bytes(sent)


def get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def _forwarded(_: int) -> bytes:
    senders = [".".join(str(random.randrange(256)) for _ in range(4)) for _ in range(20)]
    asked = b"".join(get("/params", f"X-Forwarded-For: {sender}\r\n") for sender in senders)
    return asked + get("/params", "Connection: close\r\n")


ATTACKS: Final = (
    Attack("silence", 400, lambda _: b"", reasons=("connection", "header_time")),
    Attack("slow headers", 100, lambda _: b"GET / HTTP/1.1\r\n", b"a: b\r\n", reasons=("header_time",)),
    Attack("large headers", 100, lambda _: b"GET / HTTP/1.1\r\n" + b"a: " + b"x" * 66_000, reasons=("headers",)),
    Attack("no HTTP", 50, lambda _: b"\x16\x03\x01" + bytes(200), reads=True, reasons=("no_http",)),
    Attack("pipelining", 30, lambda _: get("/events"), get("/params") * 3000, 0.0),
    Attack("small bodies", 150, lambda _: post(60_000, 50_000), b"x", reasons=("no_room", "body_evicted", "body_stalled")),
    Attack("large bodies", 50, lambda most: post(most, 1_100_000), b"x", reasons=("no_room", "body_evicted", "body_stalled")),
    Attack("endless bodies", 50, lambda most: post(most, 1), bytes(1 << 16), 0.0),
    Attack("too large", 20, lambda most: post(2 * most, 1), reads=True, reasons=("body_size",)),
    Attack("no reading", 100, lambda _: get("/model") * 30, reasons=("reader_stalled", "answers")),
    Attack("flood", 20, lambda _: get("/status") * 20 + get("/status", "Connection: close\r\n"), reads=True, reasons=("rate",)),
    Attack("new connections", 60, lambda _: get("/params", "Connection: close\r\n"), reads=True, reasons=("connection_rate",)),
    Attack("another sender each time", 20, _forwarded, reads=True, reasons=("rate",)),
    Attack("junk messages", 20, lambda _: post(300, 300), post(300, 300), 0.0, reads=True, reasons=("rate",)),
)


_UNSIGNED: Final = f"Authorization: PET1-HMAC-SHA256 keyid=c1,ts=1,nonce={'n' * 22},sig={'s' * 43}\r\n"
_LEARN: Final = "/symetry/rest/c1/fedml/p/learn"


def _signed(method: str, path: str, body_digest: str | None = None) -> str:
    """Return the headers of a right request of the user c2, each with a nonce of its own."""
    digest = secure.digest_body(b"") if body_digest is None else body_digest
    parts = SignedParts(
        method=method,
        host="x",
        path=path,
        query="",
        body=b"",
        body_digest=digest,
        timestamp=int(time.time()),
        nonce=secure.new_nonce(),
        customer_id="c2",
    )
    announced = f"{secure.DIGEST_HEADER}: {digest}\r\n" if body_digest is not None else ""
    return f"Authorization: {parts.authorization(decode_base64(OTHER_KEY))}\r\n{announced}"


def _signed_gets(_: int) -> bytes:
    path = "/symetry/rest/c2/fedml"
    last = get(path, _signed("GET", path) + "Connection: close\r\n")
    return b"".join(get(path, _signed("GET", path)) for _ in range(10)) + last


def _signed_body(most: int) -> bytes:
    path = "/symetry/rest/c2/fedml/p/learn"
    return post(most, 100_000, path, _signed("POST", path, "0" * 64))


#: Those of `ATTACKS` that mean the same to a federation server, and bodies that nobody signed.
ON_FEDERATIONS: Final = (
    *(attack for attack in ATTACKS if attack.name in {"silence", "slow headers", "large headers", "no HTTP", "pipelining"}),
    Attack(
        "unsigned bodies",
        100,
        lambda _: post(60_000, 50_000, _LEARN, _UNSIGNED),
        b"x",
        reasons=("body_evicted", "body_stalled"),
    ),
    Attack("unsigned flood", 20, lambda _: post(10, 10, _LEARN, _UNSIGNED), reads=True, reasons=("rate", "signature")),
    Attack(
        "announced bodies",
        50,
        lambda most: post(most, 1, _LEARN, f"{_UNSIGNED}{secure.DIGEST_HEADER}: {'0' * 64}\r\n"),
        bytes(1 << 16),
        0.0,
        reads=True,
        reasons=("signature", "rate"),
    ),
    Attack("unannounced bodies", 50, lambda most: post(most, 1, _LEARN, _UNSIGNED), reads=True, reasons=("body_size", "rate")),
)
#: What one user does whose signature is right, from many addresses.
OF_USERS: Final = (
    Attack("flood of a user", 60, _signed_gets, reads=True, reasons=("rate",), addresses=30),
    Attack("bodies of a user", 60, _signed_body, b"x", reasons=("no_room", "body_evicted", "body_stalled"), addresses=30),
)


@contextlib.contextmanager
def attacked(
    server: Address,
    source: str,
    attacks: tuple[Attack, ...],
    most_bytes: int,
    context: ssl.SSLContext | None = None,
    part: float = 1.0,
) -> Iterator[None]:
    """Carry out attacks, each in a thread, until the end of the `with`.

    Args:
        server: whom.
        source: from which loopback address; those behind it belong to attacks of many.
        attacks: which.
        most_bytes: the largest body that the server takes.
        context: how TLS is spoken; None for none.
        part: of the connections of each.
    """
    stopping = threading.Event()
    threads = [
        threading.Thread(target=_attack, args=(server, source, attack, most_bytes, context, part, stopping))
        for attack in attacks
    ]
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

    def __init__(self, server: Address, source: str, attack: Attack, most_bytes: int, context: ssl.SSLContext | None) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.bind((source, 0))
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.socket.connect(server)
        self._attack = attack
        self._pending = attack.opening(most_bytes)
        self._next_seconds = 0.0
        self._context = context if self._pending else None  # silent ones do not even begin a handshake

    def go_on(self, now_seconds: float) -> bool:
        """Send what can be sent, and read if that is what it does; returns whether the connection is still of use."""
        try:
            if self._context is not None:
                self._shake_hands(self._context)
            return self._exchange(now_seconds)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except ssl.SSLError:
            return False
        except OSError as error:
            return error.errno == errno.ENOTCONN  # not yet

    def _shake_hands(self, context: ssl.SSLContext) -> None:
        if not isinstance(self.socket, ssl.SSLSocket):
            self.socket.getpeername()  # raises until it is connected
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1", do_handshake_on_connect=False)
        self.socket.do_handshake()
        self._context = None

    def _exchange(self, now_seconds: float) -> bool:
        if not self._pending and self._attack.more and now_seconds >= self._next_seconds:
            self._pending, self._next_seconds = self._attack.more, now_seconds + self._attack.pause_seconds
        if self._pending:
            self._pending = self._pending[self.socket.send(self._pending) :]
        if self._attack.reads and not self._pending:
            return len(self.socket.recv(4096)) > 0
        # A connection that the server has closed is replaced; what it sent stays where it is, where nobody has to decrypt it.
        if isinstance(self.socket, ssl.SSLSocket):
            return len(self.socket.recv(1)) > 0
        return len(self.socket.recv(1, socket.MSG_PEEK)) > 0


def _attack(
    server: Address,
    source: str,
    attack: Attack,
    most_bytes: int,
    context: ssl.SSLContext | None,
    part: float,
    stopping: threading.Event,
) -> None:
    network, _, host = source.rpartition(".")
    sources = itertools.cycle([f"{network}.{int(host) + number}" for number in range(attack.addresses)])
    held: list[_Connection] = []
    while not stopping.wait(_REST_SECONDS):
        held, ended = _sorted(held, time.monotonic())
        for connection in ended:
            connection.socket.close()
        for _ in range(min(max(1, int(attack.connections * part)) - len(held), 20)):
            with contextlib.suppress(OSError):
                held.append(_Connection(server, next(sources), attack, most_bytes, context))
    for connection in held:
        connection.socket.close()


def _sorted(held: list[_Connection], now_seconds: float) -> tuple[list[_Connection], list[_Connection]]:
    alive, ended = [], []
    for connection in held:
        (alive if connection.go_on(now_seconds) else ended).append(connection)
    return alive, ended
