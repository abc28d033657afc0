"""Messages that are taken without the application: answered, bounded and counted as by the long way, past the application."""

import asyncio
import contextlib
import re
import socket
import threading
from urllib.parse import urlsplit

import httpx
from asgi_server import serving, wait_until
from sealed_rounds import SealedRound

from pet.bodies.memory_budget import MemoryBudget
from pet.coordinator.app import MAX_HEADER_BYTES, create_app
from pet.coordinator.settings import Settings
from pet.transports.guarded_http import guarded_protocol
from pet.transports.open_connections import ConnectionLimits
from pet.transports.rates import BURST_SECONDS, Rates
from pet.transports.refusal_counts import RefusalReason
from pet.transports.short_requests import short_request_protocol
from pet.transports.whole_messages import WholeMessages

LIMITS = ConnectionLimits(max_connections=100, header_seconds=30, max_header_bytes=MAX_HEADER_BYTES)
SUMS = {"count": {"min": 1, "max": 1000}, "time": {"min": 3000, "max": 3600}}


def post(body=b"x", path="/message", headers="", version="1.1"):
    return f"POST {path} HTTP/{version}\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextlib.contextmanager
def served(*, is_short=True, **service):
    """Serve a coordinator; gives its port, its application, and a list that gets whether each message was taken at once."""
    app = create_app(Settings(pet={"sum": SUMS}, service=service))
    messages, taken = app.state.whole_messages, []
    take = messages.take
    messages.take = lambda *arguments: taken.append(take(*arguments)) or taken[-1]
    refusals = app.state.service.refusals
    http = short_request_protocol(LIMITS, refusals, messages) if is_short else guarded_protocol(LIMITS, refusals)
    app.state.connections = http
    with serving(app, http=http, access_log=False) as url:
        yield urlsplit(url).port, app, taken


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def answers_of(port, pieces):
    """Send pieces over one connection, then a request that ends it, and return all that comes, with dates as D."""
    with connect(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [*pieces, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"]:
            with contextlib.suppress(ConnectionError):  # it may have ended already
                connection.sendall(piece)
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(1 << 16):
                got += piece
    return re.sub(rb"date: [^\r]*", b"D", got)


def counts_of(port):
    """Return the figures of answers, refusals and messages."""
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    names = ("pet_http_answers_total", "pet_refusals_total", "pet_message_bytes_total", "pet_messages_refused_total")
    return {line for line in lines if line.startswith((*names, "pet_message_handling_seconds_count"))}


REQUESTS = {
    "one": ([post(bytes(300))], [True]),
    "a slash": ([post(path="/message/")], [True]),
    "two at once": ([post(bytes(300)) + post(bytes(400))], [True, True]),
    "headers alone first": ([post(bytes(9))[:-9], bytes(9)], None),
    "the last connection": ([post(headers="Connection: close\r\n")], [True]),
    "HTTP/1.0": ([post(version="1.0")], [True]),
    "HTTP/1.0 that goes on": ([post(version="1.0", headers="Connection: keep-alive\r\n")], [True]),
    "announced": ([post(headers="Expect: 100-continue\r\n")], []),
    "for somebody else": ([post(headers="X-Forwarded-For: 192.0.2.1\r\n")], []),
    "an upgrade": ([post(headers="Connection: upgrade\r\nUpgrade: websocket\r\n")], []),
    "nothing": ([post(b"")], []),
    "in chunks": (
        [b"POST /message HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"],
        [],
    ),
    "a question": ([post(path="/message?x")], []),
    "elsewhere": ([post(path="/messages")], []),
    "another method": ([b"GET /message HTTP/1.1\r\nHost: x\r\n\r\n"], []),
    "no length": ([b"POST /message HTTP/1.1\r\nHost: x\r\n\r\n"], []),
    "two lengths": ([post(headers="Content-Length: 1\r\n")], []),
    "a length that is none": ([post().replace(b"Length: 1", b"Length: -1")], []),
    "too large": ([post(bytes(8000))], [False]),
    "a larger one": ([post(bytes(9000))], []),
}


def test_every_request_is_answered_and_counted_as_the_long_way():
    with served() as (port, _, taken), served(is_short=False) as (long_port, _, _):
        for name, (pieces, expected) in REQUESTS.items():
            taken.clear()
            answers = [answers_of(each, pieces) for each in (port, long_port)]
            if name.startswith("HTTP/1.0"):  # an older uvicorn ends these connections, and does not say so
                answers = [answer.replace(b"connection: close\r\n", b"") for answer in answers]
            assert answers[0] == answers[1], name
            assert counts_of(port) == counts_of(long_port), name
            assert expected is None or taken == expected, name


def test_a_message_reaches_its_round():
    with served() as (port, app, taken):
        round_ = SealedRound(httpx.get(f"http://127.0.0.1:{port}/params").content)
        bodies = [bytes(round_.sum(key)) for key in round_.keys("sum", 3)]
        with connect(port) as connection:
            for body in bodies:
                connection.sendall(post(body))
                assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        assert taken == [True] * 3
        assert app.state.service.engine.status()["accepted"] == 3
        assert app.state.service.memory_in_flight_bytes == 0


def test_a_sender_beyond_its_rate_waits_whichever_way_its_requests_go():
    with served(max_requests_per_second=1) as (port, app, taken):
        app.state.whole_messages._rates._clock = lambda: 0.0  # or it would forget while this runs

        def status_of(path):
            with connect(port) as connection:
                connection.sendall(post(path=path))
                return connection.recv(1000).split()[1]

        most = int(BURST_SECONDS)
        statuses = [status_of("/message?long" if number % 2 else "/message") for number in range(most + 1)]
        assert statuses == [b"200"] * most + [b"429"]
        assert taken == [True] * (most // 2) + [False]
        assert app.state.service.refusals.read()[RefusalReason.RATE] == 1


class Busy:
    """A service that takes messages, and tells their outcomes when the test says so."""

    stall_seconds = 1.0

    def __init__(self):
        self.memory, self.told, self.endpoint = MemoryBudget(1000), [], self

    def max_body_bytes(self):
        return 900

    def take_message(self, _body, tell):
        self.told.append(tell)


def test_what_is_beyond_a_bound_takes_nothing_of_the_others():
    async def scenario():
        now = 0.0
        service, answers = Busy(), []
        messages = WholeMessages(service, Rates(0.2, 50, lambda: now))

        def take(size, holder="a"):
            return messages.take(bytes(size), holder, lambda *answer: answers.append(answer))

        assert not take(901)  # of a message
        assert take(400)
        assert not take(800, "b")  # no room
        assert take(510, "b")
        assert not take(200)  # no room
        service.told.pop(0)(None)
        assert answers == [(200, ((b"content-length", b"0"),))]
        assert take(200)
        assert not take(10)  # its rate of requests
        assert not take(10, "b")  # its rate of bytes is used up, though not that of requests
        for tell in service.told:
            tell(None)
        assert service.memory.free_bytes == 1000
        now = 100.0
        assert take(10)
        assert take(10)

    asyncio.run(scenario())


def test_a_message_that_cannot_be_stored_is_to_come_again(monkeypatch):
    with served() as (port, app, taken):
        engine = app.state.service.engine
        round_ = SealedRound(engine.parameters())
        (key,) = round_.keys("sum", 1)
        monkeypatch.setattr(engine, "_publish_or_wait", lambda: False)
        with connect(port) as connection:
            connection.sendall(post(bytes(round_.sum(key))))
            answer = b"".join(iter(lambda: connection.recv(1000), b""))
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"retry-after: 1\r\n" in answer
        assert b"connection: close\r\n" in answer
        assert taken == [True]
        assert app.state.service.refusals.read()[RefusalReason.NO_ROOM] == 1
        assert app.state.service.memory_in_flight_bytes == 0
        monkeypatch.undo()
        assert 'pet_http_answers_total{route="/message",status="503"} 1.0' in counts_of(port)


def test_a_sender_that_goes_away_leaves_nothing_behind(monkeypatch):
    with served() as (port, app, taken):
        service, may_go_on = app.state.service, threading.Event()
        open_together = service.engine._open_together

        def wait(*arguments):
            assert may_go_on.wait(30)
            return open_together(*arguments)

        monkeypatch.setattr(service.engine, "_open_together", wait)
        with connect(port) as connection:
            connection.sendall(post())
            wait_until(lambda: taken, 30)
            assert service.memory_in_flight_bytes == 1
        wait_until(lambda: len(app.state.connections.open_connections) == 0, 30)
        may_go_on.set()
        wait_until(lambda: service.memory_in_flight_bytes == 0, 30)
        assert httpx.post(f"http://127.0.0.1:{port}/message", content=b"x").status_code == 200


def test_the_answer_of_a_connection_that_is_to_end_says_so(monkeypatch):
    """A server that is stopped lets what is answered come to its end."""
    with contextlib.ExitStack() as stack:
        with served() as (port, app, taken):
            engine, may_go_on = app.state.service.engine, threading.Event()
            open_together = engine._open_together
            monkeypatch.setattr(engine, "_open_together", lambda *each: may_go_on.wait(30) and open_together(*each))
            connection = stack.enter_context(connect(port))
            connection.sendall(post())
            wait_until(lambda: taken, 30)
            threading.Timer(0.2, may_go_on.set).start()
        answer = b"".join(iter(lambda: connection.recv(1000), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close\r\n" in answer
