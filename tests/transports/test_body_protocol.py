"""Bodies that are given to who takes them as they are received, over raw sockets: all bytes, in order."""

import asyncio
import contextlib
import random
import socket
from urllib.parse import urlsplit

import pytest
from asgi_server import serving, wait_until

from pet.errors import BodyAbortedError, BodyStalledError
from pet.transports.body_parts import BodyParts
from pet.transports.body_protocol import MAX_RECEIVE_BYTES, ReceiveBuffers
from pet.transports.body_reader import FILL_KEY, BodyPieces
from pet.transports.guarded_http import guarded_protocol
from pet.transports.open_connections import ConnectionLimits

LIMITS = ConnectionLimits(max_connections=8, header_seconds=30, max_header_bytes=2000)
BODY = random.Random(5).randbytes(700_000)
PART = 100_000


class Part:
    """A part of a body; takes pieces until it refuses one."""

    def __init__(self, size, refused=()):
        self.size, self.refused = size, set(refused)
        self.data, self.pieces, self.offered = b"", [], 0
        self.is_busy = False

        self.wake = lambda: None

    @property
    def missing_bytes(self):
        return self.size - len(self.data)

    def take(self, piece, keep=None):
        self.offered += 1
        assert len(piece) <= self.missing_bytes
        if self.offered in self.refused:
            return False
        self.data += piece
        self.pieces.append(len(piece))
        return True


class App:
    """Takes each body in parts, and answers with one byte.

    Attributes:
        refused: which pieces of each part are refused.
        bodies: what came, for each request its parts.
        errors: what ended a request.
        offers: whether each request offered to fill.
    """

    def __init__(self, refused=(), stall_seconds=30.0):
        self.refused, self.stall_seconds = refused, stall_seconds
        self.bodies, self.errors, self.offers = [], [], []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        declared = next((int(value) for name, value in scope["headers"] if name == b"content-length"), None)
        self.offers.append(FILL_KEY in scope)
        body = BodyParts(BodyPieces(receive, 1 << 30, self.stall_seconds, scope.get(FILL_KEY)), declared)
        self.bodies.append([])
        try:
            await self.answer(body)
        except (BodyAbortedError, BodyStalledError) as error:
            self.errors.append(error)
            if isinstance(error, BodyAbortedError):
                return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"x"})

    async def answer(self, body):
        while not await body.is_at_end():
            part = Part(PART, self.refused)
            self.bodies[-1].append(part)
            while part.missing_bytes:
                await body.fill(part)
                if part.missing_bytes:
                    more = await body.next(part.missing_bytes)
                    if not more:
                        break
                    part.data += more


@contextlib.contextmanager
def connected(app):
    protocol = guarded_protocol(LIMITS)
    with (
        serving(app, http=protocol, timeout_keep_alive=60) as url,
        socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=60) as connection,
    ):
        yield connection
    assert not protocol.open_connections


def head(body=BODY, more=""):
    return f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode()


def read_answer(connection, count=1):
    answers = b""
    while answers.count(b"\r\n\r\nx") < count:
        piece = connection.recv(1000)
        assert piece, answers
        answers += piece


def joined(parts):
    return b"".join(part.data for part in parts)


@pytest.mark.parametrize("refused", [(), (1,), (2,)])
def test_all_of_a_body_comes_in_order_and_the_next_request_after_it(refused):
    app = App(refused)
    with connected(app) as connection:
        for _ in range(2):
            connection.sendall(head() + BODY)
            read_answer(connection)
        connection.sendall((head() + BODY) * 2)  # the second behind the first, without waiting for its answer
        read_answer(connection, 2)
    assert [joined(parts) == BODY for parts in app.bodies] == [True] * 4
    assert app.offers == [True] * 4
    assert not app.errors


def test_what_comes_is_taken_without_a_message_for_each_piece():
    app = App()
    with connected(app) as connection:
        connection.sendall(head() + BODY[:1000])
        wait_until(lambda: app.bodies and app.bodies[0] and len(app.bodies[0][0].data) == 1000, 60)
        for end in range(11_000, 91_000, 10_000):
            connection.sendall(BODY[end - 10_000 : end])
            wait_until(lambda end=end: len(app.bodies[0][0].data) == end, 60)
        assert sum(app.bodies[0][0].pieces) == 80_000
        connection.sendall(BODY[81_000:])
        read_answer(connection)
    assert joined(app.bodies[0]) == BODY


def test_a_sender_is_told_to_go_on_before_its_body_is_waited_for():
    app = App()
    with connected(app) as connection:
        connection.sendall(head(more="Expect: 100-continue\r\n"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        read_answer(connection)
    assert joined(app.bodies[0]) == BODY


def test_a_body_without_a_length_comes_as_messages():
    app = App()
    with connected(app) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(BODY), 70_000):
            connection.sendall(b"%x\r\n" % 70_000 + BODY[start : start + 70_000] + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        read_answer(connection)
    assert (joined(app.bodies[0]), app.offers) == (BODY, [False])


def test_a_sender_that_goes_away_ends_the_wait():
    app = App()
    with connected(app) as connection:
        connection.sendall(head() + BODY[:150_000])
        wait_until(lambda: app.bodies and len(joined(app.bodies[0])) == 150_000, 60)
        connection.close()
        wait_until(lambda: app.errors, 60)
    assert isinstance(app.errors[0], BodyAbortedError)


def test_a_sender_that_stalls_is_given_up():
    app = App(stall_seconds=2.0)
    with connected(app) as connection:
        connection.sendall(head() + BODY[:80_000])
        read_answer(connection)
    assert [str(error) for error in app.errors] == ["body: expected progress within 2 s, got 80000 bytes"]


def test_time_begins_anew_for_who_made_progress(monkeypatch):
    """A time-out that comes after progress is waited out anew: no timer is set for every piece."""

    async def scenario():
        now = 0.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)

        async def fill(taker):
            nonlocal now
            now = 50
            assert taker.take(memoryview(BODY[:70_000]))
            now = 101  # the time that there was at the beginning is over
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            now = 149
            assert taker.take(memoryview(BODY[:70_000]))

        pieces = BodyPieces(None, 1 << 30, 100, fill)
        part = Part(140_000)
        await pieces.fill(part)
        return part

    assert asyncio.run(scenario()).data == BODY[:70_000] * 2


class BusyParts(Part):
    """Parts one after the other, each worked on for a while before the next is wanted."""

    def __init__(self, count, work):
        super().__init__(PART)
        self.left, self.work, self.parts = count, work, []

    def take(self, piece, keep=None):
        assert not self.is_busy, "given bytes while it works"
        super().take(piece, keep)
        if not self.missing_bytes:
            self.is_busy = True
            asyncio.get_running_loop().call_later(self.work, self.go_on)
        return True

    def go_on(self):
        self.parts.append(self.data)
        self.is_busy, self.left = False, self.left - 1
        if self.left:
            self.data = b""
        self.wake()


class BusyApp(App):
    """Gives each body to one taker that works on parts of it."""

    def __init__(self, count, work, stall_seconds=30.0):
        super().__init__(stall_seconds=stall_seconds)
        self.count, self.work, self.takers, self.make = count, work, [], BusyParts

    async def answer(self, body):
        taker = self.make(self.count, self.work)
        self.takers.append(taker)
        while taker.left:
            await body.fill(taker)
            if taker.missing_bytes:  # what came with the headers is a message
                taker.take(await body.next(taker.missing_bytes))
            while taker.is_busy:
                await asyncio.sleep(0.01)


def test_one_taker_is_given_part_after_part_between_which_it_works():
    app = BusyApp(7, 0.02)
    with connected(app) as connection:
        connection.sendall((head() + BODY) * 2)
        read_answer(connection, 2)
    assert [b"".join(taker.parts) == BODY for taker in app.takers] == [True] * 2


def test_the_time_of_a_sender_stands_still_while_its_part_is_worked_on():
    app = BusyApp(2, 0.8, stall_seconds=0.5)
    with connected(app) as connection:
        connection.sendall(head() + BODY[: PART + 1000])
        read_answer(connection)
    (taker,) = app.takers
    assert (len(taker.parts), len(taker.data)) == (1, 1000), "the second part stalls, the first was worked on to its end"
    assert [type(error) for error in app.errors] == [BodyStalledError]


class KeepingParts(BusyParts):
    """Parts as large as what is received at once, each read where it was received after the next have come."""

    def __init__(self, count, work):
        super().__init__(count, work)
        self.size, self.kept = MAX_RECEIVE_BYTES, []

    def take(self, piece, keep=None):
        if keep is not None and len(piece) == self.size:
            self.kept.append((self.left, piece, keep()))
        return super().take(piece, keep)


BODY_OF_PARTS = random.Random(6).randbytes(16 * MAX_RECEIVE_BYTES)


def test_a_part_that_came_at_once_is_read_where_it_was_received():
    app = BusyApp(16, 0.02)
    app.make = KeepingParts
    with connected(app) as connection:
        connection.sendall(head(BODY_OF_PARTS) + BODY_OF_PARTS)
        read_answer(connection)
    (taker,) = app.takers
    assert b"".join(taker.parts) == BODY_OF_PARTS
    assert taker.kept, "expected parts that came at once, got all of them in pieces"
    for left, piece, give_back in taker.kept:
        begin = (16 - left) * taker.size
        assert piece == BODY_OF_PARTS[begin : begin + taker.size]
        give_back()


def test_a_buffer_is_received_into_again_when_it_was_given_back():
    buffers = ReceiveBuffers()
    first = buffers.current
    give_back = buffers.keep()
    assert buffers.current is not first
    give_back()
    buffers.keep()
    assert buffers.current is first
