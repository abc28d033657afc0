"""Bodies that are too large, too slow or cut off, and memory that is full: over raw sockets, as bad clients send them."""

import asyncio
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from asgi_server import serving, wait_until
from sealed_rounds import SealedRound

from pet.bodies.memory_budget import MemoryBudget
from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.errors import BodyAbortedError, BodyStalledError, BodyTooLargeError
from pet.messages import decode_sum_dictionary
from pet.transports.body_reader import PROGRESS_BYTES, declared_length, read_body
from pet.transports.message_route import MessageRoute


@pytest.fixture(scope="module")
def app():
    takes_sums = {"count": {"min": 1, "max": 1000}, "time": {"min": 3000, "max": 3600}}  # as long as the tests go on
    return create_app(Settings(pet={"sum": takes_sums}, service={"stall_seconds": 0.5, "max_bytes_in_flight": 65_536}))


@pytest.fixture(scope="module")
def url(app):
    with serving(app) as url:
        yield url


def connect(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def status_of(connection):
    return int(connection.recv(4096).split()[1])


def free_bytes(app):
    return app.state.service.memory.free_bytes


def test_too_large_by_its_header_is_refused_before_it_is_read(app, url):
    limit = app.state.service.endpoint.max_body_bytes()
    for length in (limit + 1, 10**18, 10**19):
        with connect(url) as connection:
            connection.sendall(f"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
            assert status_of(connection) == 413
    assert free_bytes(app) == 65_536


def test_the_largest_body_is_read(app, url):
    limit = app.state.service.endpoint.max_body_bytes()
    assert httpx.post(f"{url}/message", content=bytes(limit)).status_code == 200
    answer = httpx.post(f"{url}/message", content=bytes(limit + 1))
    assert (answer.status_code, answer.content) == (413, b"")


def test_too_large_while_counting_chunks(app, url):
    def endless():
        for _ in range(1000):
            yield bytes(10_000)

    assert httpx.post(f"{url}/message", content=endless()).status_code == 413
    assert free_bytes(app) == 65_536


def test_chunked_bodies_are_messages_too(app, url):
    round_ = SealedRound(httpx.get(f"{url}/params").content)
    body = bytes(round_.sum(*round_.keys("sum", 1)))
    accepted = httpx.get(f"{url}/status").json()["accepted"]
    pieces = (body[start : start + 7] for start in range(0, len(body), 7))
    assert httpx.post(f"{url}/message", content=pieces).status_code == 200
    assert httpx.get(f"{url}/status").json()["accepted"] == accepted + 1


@pytest.mark.parametrize("head", ["Content-Length: 4000", "Transfer-Encoding: chunked"])
def test_a_stalled_body_is_given_up(app, url, head):
    with connect(url) as connection:
        connection.sendall(f"POST /message HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        assert free_bytes(app) == 65_536
        started = time.monotonic()
        assert status_of(connection) == 408
        assert time.monotonic() - started < 5
        assert connection.recv(100) == b""
    assert free_bytes(app) == 65_536


def test_a_small_body_is_taken_in_one_piece_or_in_several(app, url):
    """The first piece of a small body decides which way it goes; both ways lead to the same."""
    round_ = SealedRound(httpx.get(f"{url}/params").content)
    accepted = httpx.get(f"{url}/status").json()["accepted"]
    for number, (key, size) in enumerate(zip(round_.keys("sum", 4)[1:], (10_000, 1, 100), strict=True), 1):
        body = bytes(round_.sum(key))
        with connect(url) as connection:
            connection.sendall(
                f"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:size]
            )
            if size < len(body):
                wait_until(lambda: free_bytes(app) < 65_536)
                connection.sendall(body[size:])
            assert status_of(connection) == 200
        assert httpx.get(f"{url}/status").json()["accepted"] == accepted + number
    assert free_bytes(app) == 65_536


def test_a_small_body_that_finds_no_memory_waits_for_it():
    async def scenario():
        app = create_app(Settings(service={"max_bytes_in_flight": 65_536}))
        service, answers = app.state.service, []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            answers.append(message.get("status"))

        async with service:
            round_ = SealedRound(service.endpoint.parameters())
            body = bytes(round_.sum(*round_.keys("sum", 1)))
            held = service.memory.try_reserve(57_344, "127.0.0.2", lambda: None)
            held.finish()
            other = service.memory.try_reserve(8_192, "127.0.0.3", lambda: None)
            other.finish()
            headers = [(b"content-length", b"%d" % len(body))]
            scope = {"type": "http", "client": ("127.0.0.1", 1), "headers": headers}
            waiting = asyncio.create_task(MessageRoute(service)(scope, receive, send))
            while not service.memory._waiters:
                await asyncio.sleep(0.001)
            assert answers == []
            held.give_back()
            await waiting
            other.give_back()
            assert (answers, service.endpoint.status()["accepted"]) == ([200, None], 1)
            assert service.memory.free_bytes == 65_536

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_body_byte_by_byte_is_given_up_too(app, url):
    with connect(url) as connection:
        connection.sendall(b"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n")
        for _ in range(4):
            time.sleep(0.1)
            connection.sendall(b"x")
        assert status_of(connection) == 408


def test_a_sender_that_goes_away_leaves_nothing(app, url):
    with connect(url) as connection:
        connection.sendall(b"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\nabc")
        wait_until(lambda: free_bytes(app) < 65_536)
    wait_until(lambda: free_bytes(app) == 65_536)


def test_a_full_memory_makes_others_wait_and_the_rest_goes_on():
    """Two bodies of 3000 bytes do not fit 4096: the second waits for its last part, `/params` does not."""
    app = create_app(Settings(service={"stall_seconds": 30}))
    app.state.service.memory = MemoryBudget(4096, reserve_bytes=0)
    with serving(app) as url, connect(url) as first:
        first.sendall(b"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n" + bytes(2000))
        wait_until(lambda: free_bytes(app) == 2096)
        answers = []
        second = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/message", content=bytes(3000))))
        second.start()
        time.sleep(0.3)
        assert not answers
        assert httpx.get(f"{url}/params").status_code == 200
        first.sendall(bytes(1000))
        assert status_of(first) == 200
        second.join(60)
        assert answers[0].status_code == 200


def test_bodies_that_were_announced_and_do_not_come_hold_nobody_up():
    app = create_app(Settings(model={"length": 1_000_000}, service={"stall_seconds": 60}))
    limit = app.state.service.endpoint.max_body_bytes()
    budget = app.state.service.memory = MemoryBudget(2 * limit, reserve_bytes=0)
    with serving(app) as url:
        idle = [connect(url) for _ in range(20)]
        for connection in idle:
            connection.sendall(f"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: {limit}\r\n\r\nabc".encode())
        wait_until(lambda: len(budget._all.reservations) == 20)
        assert httpx.post(f"{url}/message", content=bytes(limit), timeout=30).status_code == 200
        for connection in idle:
            connection.close()


def test_bodies_that_fill_the_memory_and_stop_have_to_give_way():
    app = create_app(Settings(service={"stall_seconds": 60}))
    app.state.service.memory = MemoryBudget(4096, 0.3, reserve_bytes=0)
    with serving(app) as url, connect(url) as slow:
        slow.sendall(b"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n" + bytes(3900))
        wait_until(lambda: free_bytes(app) == 196)
        assert httpx.post(f"{url}/message", content=bytes(3000)).status_code == 200
        assert status_of(slow) == 503
        assert slow.recv(100) == b""
    assert free_bytes(app) == 4096


def test_large_messages_go_through_the_spool_and_count():
    length = 300_000
    window = {"count": {"min": 1, "max": 10}, "time": {"min": 0, "max": 60}}
    app = create_app(Settings(pet={"sum": window}, model={"length": length}))
    spool = app.state.service.spool
    with serving(app) as url:
        round_ = SealedRound(httpx.get(f"{url}/params").content)
        httpx.post(f"{url}/message", content=bytes(round_.sum(*round_.keys("sum", 1))))
        wait_until(lambda: httpx.get(f"{url}/sums").status_code == 200)
        sums = decode_sum_dictionary(httpx.get(f"{url}/sums").content)
        weights = np.ones(length, dtype=np.float32)
        for key in round_.keys("update", 2):
            body = bytes(round_.update(key, sums, weights))
            for content in (body, body[:-1], (body[start : start + 99_999] for start in range(0, len(body), 99_999))):
                assert httpx.post(f"{url}/message", content=content).status_code == 200
        status = httpx.get(f"{url}/status").json()
        assert (status["accepted"], status["rejected"]) == (2, {"decryption": 2, "update_already_submitted": 2})
        wait_until(lambda: spool.used_bytes == 0)
        assert len(spool._buffers._free) == 1  # nobody kept a view of it


def test_a_full_spool_is_said_before_the_body_is_read():
    app = create_app(Settings(model={"length": 1_000_000}))
    limit, spool = app.state.service.endpoint.max_body_bytes(), app.state.service.spool
    filling = spool.create(spool.capacity_bytes - limit + 1, "another peer")
    with serving(app) as url:
        with connect(url) as connection:
            connection.sendall(f"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: {limit}\r\n\r\n".encode())
            answer = connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in answer
        filling.close()
        assert httpx.post(f"{url}/message", content=bytes(limit)).status_code == 200


class Taker:
    """An incoming body that never waits."""

    def __init__(self):
        self.data = b""

    @property
    def size_bytes(self):
        return len(self.data)

    async def append(self, piece):
        self.data += piece


def receive_from(*messages):
    remaining = list(messages)

    async def receive():
        return remaining.pop(0) if remaining else await asyncio.Event().wait()

    return receive


def piece(data, more=True):
    return {"type": "http.request", "body": data, "more_body": more}


def test_reading():
    async def scenario():
        taker = Taker()
        await read_body(receive_from(piece(b"ab"), piece(b""), piece(b"c", more=False)), taker, 3, 1)
        assert taker.data == b"abc"
        await read_body(receive_from({"type": "http.request"}), Taker(), 3, 1)
        with pytest.raises(BodyTooLargeError, match="at most 3 bytes"):
            await read_body(receive_from(piece(b"ab"), piece(b"cd", more=False)), Taker(), 3, 1)
        with pytest.raises(BodyAbortedError, match="after 2 bytes"):
            await read_body(receive_from(piece(b"ab"), {"type": "http.disconnect"}), Taker(), 3, 1)
        with pytest.raises(BodyStalledError, match=r"within 0.01 s, got 2 bytes"):
            await read_body(receive_from(piece(b"ab")), Taker(), 3, 0.01)

    asyncio.run(scenario())


def test_progress_buys_time():
    async def scenario():
        count = 0

        async def receive():
            nonlocal count
            count += 1
            await asyncio.sleep(0.1)
            return piece(bytes(PROGRESS_BYTES), more=count < 8)

        taker = Taker()
        await read_body(receive, taker, 10 * PROGRESS_BYTES, 0.4)
        assert taker.size_bytes == 8 * PROGRESS_BYTES

    asyncio.run(scenario())


def test_waiting_for_memory_costs_the_sender_no_time():
    class Scarce(Taker):
        async def append(self, piece):
            await asyncio.sleep(0.3)
            await super().append(piece)

    async def scenario():
        taker = Scarce()
        await read_body(receive_from(piece(b"a"), piece(b"b", more=False)), taker, 3, 0.1)
        assert taker.data == b"ab"

    asyncio.run(scenario())


def test_declared_lengths():
    assert declared_length(None, 5) is None
    assert declared_length("5", 5) == 5
    for text in ("6", "9" * 5000):
        with pytest.raises(BodyTooLargeError):
            declared_length(text, 5)
    for text in ("", "-1", "+1", "1.0", "٣", "x"):
        with pytest.raises(BodyAbortedError):
            declared_length(text, 5)
