"""Bad peers over raw sockets: slow headers, endless headers, too many connections, answers that nobody takes."""

import contextlib
import logging
import socket
import time
from urllib.parse import urlsplit

import pytest
from asgi_server import serving, wait_until

from pet.transports.guarded_http import ConnectionLimits, OpenConnections, guarded_protocol
from pet.transports.peers import peer_of

LARGE = 32 * 2**20


async def app(scope, receive, send):
    """Answer at once with a byte, or with many at /large; at /body with as many as came."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = bytes(LARGE) if scope["path"] == "/large" else b"x"
    if scope["path"] == "/body":
        message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
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
    return socket.create_connection(("127.0.0.1", port), timeout=10)


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
        with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=("127.0.0.2", 0)) as other:
            other.sendall(GET)
            assert is_answered(other)


def test_an_answer_that_nobody_takes_is_given_up_and_a_slow_reader_is_not():
    with guarded(keep_alive=0.4) as (port, protocol):
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
    assert connections.admit(("10.0.0.1", 1), 1) == "10.0.0.1"
    for port in range(1000):
        assert connections.admit(("10.0.0.1", port), 2) is None
        assert connections.admit(("10.0.0.2", port), 4) is None
    assert len(caplog.records) == 2
