"""Large answers to readers that do not read, that read slowly, and that are too many."""

import asyncio
import contextlib
import socket
import tracemalloc
from urllib.parse import urlsplit

import httpx
import pytest
from asgi_server import serving, wait_until
from starlette.responses import Response, StreamingResponse

from pet.errors import AnswerAbandonedError
from pet.transports.guarded_http import guarded_protocol
from pet.transports.open_connections import ConnectionLimits
from pet.transports.paced_answers import _PIECES_A_TURN, PIECE_BYTES, PacedAnswers

#: The seeds of 10,000 updates.
SEEDS = bytes(8 + 128 * 10_000)
SMALL = bytes(PIECE_BYTES)


async def answer(scope, receive, send):
    """Answer with SEEDS at once, in parts at /stream (a length unknown), or with what is not large at all."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/stream":
        response = StreamingResponse(parts())
    else:
        response = Response(SEEDS if scope["path"] == "/seeds" else SMALL)
    await response(scope, receive, send)


async def parts():
    for start in range(0, len(SEEDS), 300_000):
        yield SEEDS[start : start + 300_000]


@contextlib.contextmanager
def served(stall_seconds=60.0, most=512):
    limits = ConnectionLimits(max_connections=1000, header_seconds=60.0, max_header_bytes=2**16, stall_seconds=stall_seconds)
    paced = PacedAnswers(answer, stall_seconds, most)

    class SmallBuffers(guarded_protocol(limits)):
        """What the system keeps for a reader could be more than all of the answer."""

        def connection_made(self, transport):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            super().connection_made(transport)

    with serving(paced, http=SmallBuffers) as url:
        yield url, paced._large
        wait_until(lambda: not paced._large.used, 30)


def ask_and_not_read(url, path, source="127.0.0.1"):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.bind((source, 0))
    connection.connect(("127.0.0.1", urlsplit(url).port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def test_between_a_few_pieces_the_event_loop_serves_others():
    """However many readers are ready for a piece."""
    sent, sent_in_a_turn = 0, []

    async def take(_message):
        nonlocal sent
        sent += 1

    async def scenario():
        paced = PacedAnswers(answer, 60.0)
        scope = {"type": "http", "path": "/seeds", "method": "GET", "client": ("127.0.0.1", 1), "headers": []}
        readers = asyncio.gather(*(paced(scope, None, take) for _ in range(50)))
        while not readers.done():
            before = sent
            await asyncio.sleep(0)
            sent_in_a_turn.append(sent - before)
        await readers

    asyncio.run(asyncio.wait_for(scenario(), 60))
    pieces = -(-len(SEEDS) // PIECE_BYTES)
    assert sent == 50 * (1 + pieces)
    assert max(sent_in_a_turn[5:]) <= 2 * _PIECES_A_TURN  # the first turns send the 50 heads


@pytest.mark.parametrize("path", ["/seeds", "/stream", "/small"])
def test_answers_arrive_as_they_are(path):
    with served() as (url, _):
        received = httpx.get(url + path)
        assert (received.status_code, received.content) == (200, SMALL if path == "/small" else SEEDS)
        assert ("content-length" in received.headers) == (path != "/stream")


def test_readers_that_do_not_read_cost_little():
    """200 of them would have 256 MB if the server kept their answers."""
    with served() as (url, large), contextlib.ExitStack() as stack:
        httpx.get(f"{url}/small")
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for number in range(200):
            stack.enter_context(ask_and_not_read(url, "/seeds", f"127.0.0.{2 + number % 2}"))
        wait_until(lambda: large.used == 200, 60)
        assert httpx.get(f"{url}/seeds", timeout=30).content == SEEDS
        held_bytes, _ = tracemalloc.get_traced_memory()
        assert held_bytes < 200 * 3 * PIECE_BYTES


@pytest.mark.parametrize("path", ["/seeds", "/stream"])
def test_one_address_leaves_large_answers_to_others(path):
    with served(most=8) as (url, large), contextlib.ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(ask_and_not_read(url, path))
        wait_until(lambda: large.used == 7)
        refused = httpx.get(url + path)
        assert (refused.status_code, refused.content, refused.headers["retry-after"]) == (503, b"", "1")
        assert httpx.get(f"{url}/small").content == SMALL
        other = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=other, timeout=30) as client:
            assert client.get(url + path).content == SEEDS


def test_a_reader_that_takes_nothing_is_given_up():
    with served(stall_seconds=0.5) as (url, large), ask_and_not_read(url, "/seeds") as connection:
        wait_until(lambda: large.used)
        wait_until(lambda: not large.used, 30)
        size = 0
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65_536):
                size += len(piece)
        assert size < len(SEEDS)


def test_servers_of_others_give_up_readers_too():
    async def scenario():
        async def never(message):
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        def ask(app):
            return app({"type": "http", "method": "GET", "path": "/seeds", "client": None}, asyncio.Event().wait, never)

        paced = PacedAnswers(answer, 0.05)
        await ask(paced)
        assert not paced._large.used

        async def fail(*_):
            raise AnswerAbandonedError("too old")

        await ask(PacedAnswers(fail, 1.0))

    asyncio.run(asyncio.wait_for(scenario(), 30))
