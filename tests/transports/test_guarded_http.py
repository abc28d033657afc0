"""Bad peers over raw sockets: slow or endless headers, too many connections and requests, answers that nobody takes."""

import asyncio
import contextlib
import gc
import logging
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from asgi_server import serving, wait_until

from pet.bodies.holders import HolderTable
from pet.transports.guarded_http import guarded_protocol
from pet.transports.open_connections import ConnectionLimits, OpenConnections
from pet.transports.peers import parse_network, peer_of
from pet.transports.rates import BURST_SECONDS
from pet.transports.refusal_counts import RefusalReason

LARGE = 32 * 2**20
#: What was asked for since a test began, and what those wait for that asked for /wait.
PATHS: list[str] = []
#: The pieces of the bodies that were received meanwhile.
SIZES: list[int] = []
GO_ON = threading.Event()


@pytest.fixture(autouse=True)
def _start_anew():
    PATHS.clear()
    SIZES.clear()
    GO_ON.clear()


async def app(scope, receive, send):
    """Answer at once with a byte, or with many at /large; at /body after all of it came, at /wait when the test lets it."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    PATHS.append(scope["path"])
    if scope["path"] == "/wait":
        while not GO_ON.is_set():
            await asyncio.sleep(0.01)
    body = bytes(LARGE) if scope["path"] == "/large" else b"x"
    if scope["path"] == "/body":
        message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            SIZES.append(len(message.get("body", b"")))
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def guarded(keep_alive=60, **changes):
    limits = {"max_connections": 4, "max_connections_per_peer": 4, "header_seconds": 0.4, "max_header_bytes": 2000}
    protocol = guarded_protocol(ConnectionLimits(**limits | changes))
    with serving(app, http=protocol, timeout_keep_alive=keep_alive) as url:
        yield urlsplit(url).port, protocol
    assert not protocol.open_connections


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def is_closed(connection):
    """Wait for the end of a connection."""
    try:
        return connection.recv(1000) == b""
    except ConnectionError:
        return True


def is_answered(connection):
    """Read an answer to its end."""
    answer = b""
    while not answer.endswith(b"\r\n\r\nx"):
        piece = connection.recv(1000)
        if not piece:
            return False
        answer += piece
    return True


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nHo"])
def test_a_connection_without_a_request_is_closed(beginning):
    with guarded() as (port, _), connect(port) as connection:
        started = time.monotonic()
        connection.sendall(beginning)
        assert is_closed(connection)
        assert 0.3 < time.monotonic() - started < 5


def test_headers_byte_by_byte_are_given_up():
    with guarded() as (port, _), connect(port) as connection:
        with contextlib.suppress(ConnectionError):
            for byte in GET + b"never reached":
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        assert is_closed(connection)


def test_the_second_request_of_a_connection_has_a_deadline_too():
    with guarded() as (port, _), connect(port) as connection:
        for _ in range(2):
            connection.sendall(GET)
            assert is_answered(connection)
            time.sleep(0.5)  # between requests a connection may rest
        connection.sendall(GET[:20])
        assert is_closed(connection)


def test_a_body_takes_its_time_and_what_comes_after_the_answer_does_not():
    with guarded() as (port, _):
        with connect(port) as connection:
            connection.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
            for _ in range(3):
                time.sleep(0.3)
                connection.sendall(b"x")
            assert is_answered(connection)
        with connect(port) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            assert is_answered(connection)  # without reading it
            with contextlib.suppress(ConnectionError):
                for _ in range(20):
                    time.sleep(0.05)
                    connection.sendall(b"x")
            assert is_closed(connection)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 300_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100_000,
        b"GET / HTTP/1.1\r\nHost: " + b"x" * 300_000,
        b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"a: b\r\n" * 100_000,
    ],
    ids=["path", "headers", "one header", "trailers"],
)
def test_endless_headers_are_cut(head):
    with guarded(header_seconds=60) as (port, _), connect(port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
        assert is_closed(connection)


def test_connections_are_counted():
    with guarded(header_seconds=60, max_connections=2) as (port, protocol):
        held = [connect(port) for _ in range(2)]
        wait_until(lambda: protocol.open_connections.count("127.0.0.1") == 2)
        with connect(port) as further:
            answer = further.recv(1000)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer
            assert is_closed(further)
        held.pop().close()
        wait_until(lambda: protocol.open_connections.count("127.0.0.1") == 1)
        with connect(port) as next_one:
            next_one.sendall(GET)
            assert is_answered(next_one)
        held.pop().close()


def test_connections_of_one_peer_are_counted():
    with guarded(header_seconds=60, max_connections_per_peer=1) as (port, protocol), connect(port):
        wait_until(lambda: protocol.open_connections.count("127.0.0.1") == 1)
        with connect(port) as further:
            assert further.recv(1000).startswith(b"HTTP/1.1 503 ")
        with socket.create_connection(("127.0.0.1", port), timeout=30, source_address=("127.0.0.2", 0)) as other:
            other.sendall(GET)
            assert is_answered(other)


def test_an_answer_that_nobody_takes_is_given_up_and_a_slow_reader_is_not():
    with guarded(keep_alive=0.4, stall_seconds=1.0) as (port, protocol):
        with connect(port) as idle, connect(port) as slow:
            for connection in (idle, slow):
                connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            received = 0
            while received < LARGE:
                time.sleep(0.02)
                piece = slow.recv(2**19)
                assert piece, f"cut after {received} bytes"
                received += len(piece)
            with contextlib.suppress(ConnectionError):
                total = 0
                while piece := idle.recv(2**20):
                    total += len(piece)
                assert total < LARGE
        wait_until(lambda: not protocol.open_connections)


def test_peers():
    assert peer_of(None) == ""
    assert peer_of(("192.0.2.1", 5)) == "192.0.2.1"
    assert peer_of(("::ffff:192.0.2.1", 5)) == "192.0.2.1"
    assert peer_of(("2001:db8::1", 5)) == peer_of(("2001:db8::ffff:2", 6)) == "2001:db8::/64"
    assert peer_of(("testclient", 5)) == "testclient"


def test_refused_connections_do_not_fill_the_log(caplog):
    caplog.set_level(logging.INFO)
    limits = ConnectionLimits(max_connections=3, max_connections_per_peer=1, header_seconds=1, max_header_bytes=1)
    connections = OpenConnections(limits)
    for number in range(3):
        assert connections.admit((f"10.0.0.{number}", 1), lambda: None) is not None
    for port in range(1000):
        assert connections.admit(("10.0.0.1", port), lambda: None) is None
        assert connections.admit(("10.0.0.4", port), lambda: None) is None
    assert len(caplog.records) == 2


class Arrivals:
    """Connections that end at once, on a clock of ours; `admit` returns whether a new one is taken."""

    def __init__(self, **limits):
        self.now = 0.0
        more = {"max_connections": 10**6, "header_seconds": 1, "max_header_bytes": 1, "max_connections_per_second": 2}
        self.connections = OpenConnections(ConnectionLimits(**more | limits), clock=lambda: self.now)

    def admit(self, host, count=1):
        """Return how many of several new ones are taken."""
        held = [self.connections.admit((host, 1), lambda: None) for _ in range(count)]
        for holding in held:
            self.connections.release(holding)
        return sum(holding is not None for holding in held)


def test_an_address_alone_connects_as_fast_as_it_likes():
    arrivals = Arrivals()
    assert arrivals.admit("192.0.2.1", 1000) == 1000
    assert not arrivals.connections.refusals.read()[RefusalReason.CONNECTION_RATE]


def test_beside_others_new_connections_of_an_address_have_a_rate():
    arrivals = Arrivals()
    arrivals.admit("192.0.2.1", 1000)
    assert arrivals.admit("192.0.2.2", 1000) == 2 * BURST_SECONDS  # what it has at first, and no more beside the other
    assert arrivals.admit("192.0.2.1") == 0  # which has used up its own
    assert arrivals.connections.refusals.read()[RefusalReason.CONNECTION_RATE] == 1000 - 2 * BURST_SECONDS + 1
    arrivals.now += 3.2
    assert arrivals.admit("192.0.2.1", 10) == 6
    arrivals.now += BURST_SECONDS - 0.1  # since then nobody else came
    arrivals.admit("192.0.2.2")
    assert arrivals.admit("192.0.2.1", 100) == 2 * BURST_SECONDS
    arrivals.now += BURST_SECONDS
    assert arrivals.admit("192.0.2.1", 100) == 100
    resting = arrivals.connections.admit(("192.0.2.3", 1), lambda: None)
    arrivals.now += 60  # one that is open is somebody, however long it says nothing
    assert arrivals.admit("192.0.2.1", 100) == 2 * BURST_SECONDS
    arrivals.connections.release(resting)


def test_a_network_of_addresses_is_one_and_a_trusted_proxy_is_many():
    arrivals = Arrivals(unbounded_rate=(parse_network("10.0.0.0/8"), parse_network("fd00::/8")))
    assert arrivals.admit("192.0.2.2") == 1
    assert sum(arrivals.admit(f"2001:db8::{number:x}") for number in range(100)) == 2 * BURST_SECONDS
    for proxy in ("10.1.2.3", "::ffff:10.1.2.4", "fd00::1"):
        assert arrivals.admit(proxy, 100) == 100


def test_a_connection_beyond_the_rate_is_told_so():
    with guarded(header_seconds=60, max_connections_per_second=1 / BURST_SECONDS) as (port, protocol):
        other = socket.create_connection(("127.0.0.1", port), 30, ("127.0.0.2", 0))
        wait_until(lambda: protocol.open_connections.count("127.0.0.2"))
        with connect(port) as first:
            first.sendall(GET)
            assert is_answered(first)
        with connect(port) as second:
            assert second.recv(1000).startswith(b"HTTP/1.1 503 ")
            assert is_closed(second)
        assert protocol.open_connections.refusals.read()[RefusalReason.CONNECTION_RATE] == 1
        other.close()


def only_connection(protocol):
    """Return the one connection that there is."""
    found = [one for one in gc.get_objects() if isinstance(one, protocol) and one.parser is not None]
    assert len(found) == 1
    return found[0]


def receive_all(connection):
    """Return everything up to the end of a connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            received += piece
    return received


def test_pipelined_requests_are_answered_one_after_the_other():
    with guarded(header_seconds=60) as (port, _), connect(port) as connection:
        requests = b"".join(
            b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (n, n % 7, b"\r\n\r\n\r\n"[: n % 7])
            for n in range(300)
        )
        connection.sendall(requests + GET.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        assert receive_all(connection).count(b"HTTP/1.1 200 OK\r\n") == 301
        assert [f"/{n}" for n in range(300)] + ["/"] == PATHS


@pytest.mark.parametrize(
    "first",
    [
        b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n",
        pytest.param(b"POST /wait HTTP/1.1\r\nContent-Length: 2\r\n\r\nxx", marks=pytest.mark.long),
    ],
)
def test_while_a_request_is_answered_what_follows_stays_in_the_socket(first):
    requests = b"GET / HTTP/1.1\r\n\r\n" * 500_000
    with guarded(header_seconds=60) as (port, protocol), connect(port) as connection:
        connection.sendall(first)
        wait_until(lambda: PATHS)
        server_side = only_connection(protocol)
        connection.setblocking(False)
        sent, deadline = 0, time.monotonic() + 1
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                sent += connection.send(requests[sent : sent + 2**16])
        assert sent < len(requests), "expected the socket to fill up"
        assert PATHS == ["/wait"]
        assert len(server_side._rest) <= 4096
        assert not server_side.pipeline
        connection.setblocking(True)
        GO_ON.set()
        wait_until(lambda: len(PATHS) > 100)
        assert len(server_side._rest) <= 4096


def test_requests_behind_a_body_without_a_length_are_not_answered_and_the_first_one_is():
    chunked = b"POST /wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    with guarded(header_seconds=60) as (port, _), connect(port) as connection:
        connection.sendall(chunked + GET * 100)
        wait_until(lambda: PATHS)
        GO_ON.set()
        # The end of the connection is what matters; whether a header says it too depends on the version of uvicorn.
        assert receive_all(connection).count(b"HTTP/1.1 ") == 1
        assert PATHS == ["/wait"]


@pytest.mark.parametrize(("surplus", "answers"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("at_once", [True, False])
def test_headers_may_have_exactly_what_is_documented(surplus, answers, at_once):
    limit = 20_000
    beginning, end = b"GET / HTTP/1.1\r\nConnection: close\r\na: ", b"\r\n\r\n"
    request = beginning + b"x" * (limit + surplus - len(beginning + end)) + end
    with guarded(header_seconds=60, max_header_bytes=limit) as (port, protocol), connect(port) as connection:
        with contextlib.suppress(ConnectionError):
            if at_once:
                connection.sendall(request)
            else:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for start in range(0, len(request), 999):
                    connection.sendall(request[start : start + 999])
        assert receive_all(connection).count(b"HTTP/1.1 200 OK") == answers
        wait_until(lambda: not protocol.open_connections._headers.used)


def test_many_header_lines_are_refused():
    for count, answers in ((127, 1), (128, 0)):
        with guarded(header_seconds=60) as (port, _), connect(port) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n" + b"a: b\r\n" * count + b"\r\n")
            assert receive_all(connection).count(b"HTTP/1.1 200 OK") == answers


def test_all_headers_together_are_bounded_and_shared():
    """One address fills what there is for large headers; another one's are taken at its expense."""
    head = b"GET /wait HTTP/1.1\r\na: " + b"x" * 50_000 + b"\r\n\r\n"
    limits = {"header_seconds": 60, "max_connections": 60, "max_connections_per_peer": 50, "max_header_bytes": 2**16}
    with guarded(**limits) as (port, protocol), contextlib.ExitStack() as stack:
        connections = protocol.open_connections
        connections._headers = HolderTable(10 * len(head), len(head))
        held = [stack.enter_context(connect(port)) for _ in range(9)]
        for connection in held:
            connection.sendall(head)
        wait_until(lambda: len(PATHS) == 9)
        with connect(port) as further:
            further.sendall(head)
            assert further.recv(1000).startswith(b"HTTP/1.1 503 ")
        for number in (2, 3, 4):
            other = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30, (f"127.0.0.{number}", 0)))
            other.sendall(head)
        wait_until(lambda: len(PATHS) == 12)
        assert connections._headers.held_by("127.0.0.1") == 7 * len(head)
        assert sum(is_closed(connection) for connection in held[-2:]) == 2
        GO_ON.set()


def test_a_body_that_is_not_taken_is_not_received():
    """What lies before the application is in no budget, so there is little of it, for each of many connections."""
    with guarded(header_seconds=60) as (port, protocol), connect(port) as connection:
        connection.sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        wait_until(lambda: PATHS)
        server_side = only_connection(protocol)
        connection.setblocking(False)
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                connection.send(bytes(2**16))
        assert 0 < len(server_side.cycle.body) <= 2**14
        GO_ON.set()


def test_a_small_body_is_received_whole_unless_others_have_the_room(monkeypatch):
    size = 40_000
    monkeypatch.setattr("pet.transports.open_connections._MAX_WHOLE_BYTES", size)
    head = f"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    with guarded() as (port, _), connect(port) as first, connect(port) as second:
        first.sendall(head + bytes(10_000))
        wait_until(lambda: PATHS == ["/body"])
        second.sendall(head)
        for _ in range(4):
            second.sendall(bytes(size // 4))
        assert is_answered(second)
        assert len(SIZES) > 1
        assert sum(SIZES) == size
        SIZES.clear()
        first.sendall(bytes(size - 10_000))
        assert is_answered(first)
        assert [size] == SIZES
        second.sendall(head)  # what the first one had is free again
        second.sendall(bytes(size // 2))
        second.sendall(bytes(size // 2))
        assert is_answered(second)
        assert [size] * 2 == SIZES


def test_a_large_body_is_received_in_large_pieces():
    size = 8 * 2**20
    with guarded(header_seconds=60) as (port, _), connect(port) as connection:
        connection.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        assert is_answered(connection)


@pytest.mark.parametrize("end", [b"", b"Connection: close\r\n"])
def test_who_takes_nothing_of_an_answer_is_disconnected(end):
    with guarded(header_seconds=60, stall_seconds=0.3) as (port, protocol), connect(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n" + end + b"\r\n")
        wait_until(lambda: PATHS)
        wait_until(lambda: not protocol.open_connections)
        assert len(receive_all(connection)) < LARGE


def test_another_address_gets_a_connection_though_one_has_all_it_can_get():
    limits = {"header_seconds": 60, "max_connections": 16, "max_connections_per_peer": None}
    with guarded(**limits) as (port, protocol), contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(port)) for _ in range(14)]
        wait_until(lambda: protocol.open_connections.count("127.0.0.1") == 14)
        with connect(port) as further:
            assert further.recv(1000).startswith(b"HTTP/1.1 503 ")
        for number in range(2, 7):
            other = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30, (f"127.0.0.{number}", 0)))
            other.sendall(GET)
            assert is_answered(other)
        assert protocol.open_connections.count("127.0.0.1") == 11
        assert all(is_closed(connection) for connection in held[-3:])
        held[0].sendall(GET)
        assert is_answered(held[0])
