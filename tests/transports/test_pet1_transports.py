"""The transports of pet/1: the same round in process and over HTTP, with a blocking and an asyncio client; and bad answers."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from asgi_server import serving
from pet1_world import LEAF_ELEMENTS, Pet1World

from pet.coordinator.app import create_app
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.settings import Settings
from pet.errors import (
    AnswerTooLargeError,
    BackPressureError,
    MessageTooLargeError,
    TransportError,
    TransportRefusedError,
    UnknownProfileError,
)
from pet.pet1.answers import UpdateAccepted, UpdateAnswer, UpdateOpen, UpdateRefused, build_piece
from pet.pet1.header_batch import HeaderBatch
from pet.pet1.leaves import LEAF_BYTES
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.protocol.phases import Phase
from pet.transports import asgi
from pet.transports.guarded_http import guarded_protocol
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.in_process import InProcessTransport
from pet.transports.open_connections import ConnectionLimits
from pet.transports.pet1 import AsyncPet1Transport, Pet1Document, Pet1Endpoint, Pet1Transport

WAYS = ["in process", "blocking", "asyncio"]


class Waiting:
    """An asyncio transport behind the interface of a blocking one, so that one suite tests both."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._transport = AsyncHttpTransport(url)
        assert isinstance(self._transport, AsyncPet1Transport)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            asking: Coroutine[Any, Any, Any] = getattr(self._transport, name)(*arguments)
            return self._loop.run_until_complete(asking)

        return call

    def close(self) -> None:
        self._loop.run_until_complete(self._transport.aclose())
        self._loop.close()


@contextlib.contextmanager
def reached(way: str, world: Pet1World) -> Iterator[Pet1Transport]:
    if way == "in process":
        yield InProcessTransport(world.engine)
        return
    limits = ConnectionLimits(max_connections=100, header_seconds=30, max_header_bytes=1 << 16)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving(asgi.create_app(world.service), http=guarded_protocol(limits)))
        transport: Any = HttpTransport(url) if way == "blocking" else Waiting(url)
        yield stack.enter_context(contextlib.closing(transport))


def send(transport: Pet1Transport, update: OutgoingUpdate) -> UpdateAnswer:
    answer = update.read_answer(transport.open_update(update.sealed))
    while isinstance(answer, UpdateOpen):
        answer = update.read_answer(transport.send_piece(next(update.pieces(answer))))
    return answer


def test_they_are_what_they_say() -> None:
    world = Pet1World()
    assert isinstance(world.engine, Pet1Endpoint)
    with contextlib.closing(HttpTransport("http://127.0.0.1:1")) as transport:
        assert isinstance(transport, Pet1Transport)
    assert isinstance(InProcessTransport(world.engine), Pet1Transport)


@pytest.mark.parametrize("way", WAYS)
def test_a_round(way: str) -> None:
    world = Pet1World(LEAF_ELEMENTS + 7, 3)
    with reached(way, world) as transport:
        if way == "in process":
            world.engine.tick()
        assert transport.get_document(Pet1Document.COMMITTEE) is None
        world.begin_updates()
        for kind in (Pet1Document.ROUND, Pet1Document.ENROLMENT, Pet1Document.COMMITTEE):
            assert transport.get_document(kind) == world.read(kind)
        assert transport.get_headers(0) == HeaderBatch((), 0)
        for number in range(3):
            assert send(transport, world.make_update(number)) == UpdateAccepted()
        assert world.engine.phase is Phase.CHECK
        for after in range(4):
            assert transport.get_headers(after) == world.engine.headers(after)
        assert transport.get_headers(9) == HeaderBatch((), 9)
        world.finish_round()
        assert transport.get_document(Pet1Document.COMMITTEE) is None  # the next round has begun
        for kind in set(Pet1Document) - {Pet1Document.COMMITTEE}:
            assert transport.get_document(kind) == world.read(kind)
        with pytest.raises(AnswerTooLargeError, match="expected at most 191 bytes, got 192"):
            transport.get_document(Pet1Document.ROUND, 191)


@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_is_read_though_the_rest_of_the_piece_is_not(way: str) -> None:
    """The answer comes while the client still sends, and then the connection is closed."""
    world = Pet1World(16 * LEAF_ELEMENTS, 3).begin_updates()
    update = world.make_update(0)
    wrong = bytearray(update.vector)
    wrong[0] ^= 1
    with reached(way, world) as transport:
        transport.open_update(update.sealed)
        piece = build_piece(update.header.digest, range(17), memoryview(wrong))
        for _ in range(3):
            assert update.read_answer(transport.send_piece(piece)) == UpdateRefused("wrong_leaf")
        answer = update.read_answer(transport.send_piece(build_piece(update.header.digest, range(17), update.vector)))
        assert isinstance(answer, UpdateOpen)
        assert list(answer.missing()) == [range(16, 17)], "of more leaves sixteen are sent"
        assert send(transport, update) == UpdateAccepted()
    taken = [size for _, size in world.engine.taken]
    assert sum(taken[:3]) == 3 * (LEAF_BYTES if way != "in process" else 16 * LEAF_BYTES)


@pytest.mark.parametrize("way", WAYS)
def test_an_upload_that_finds_no_storage_comes_again(way: str) -> None:
    world = Pet1World(LEAF_ELEMENTS, 3).begin_updates()
    update = world.make_update(0)
    with reached(way, world) as transport:
        opened = update.read_answer(transport.open_update(update.sealed))
        assert isinstance(opened, UpdateOpen)
        world.engine.is_storing = False
        with pytest.raises(TransportError) as raised:
            transport.send_piece(next(update.pieces(opened)))
        if way != "in process":
            assert isinstance(raised.value, BackPressureError)
            assert raised.value.retry_after_seconds == 1
        world.engine.is_storing = True
        assert send(transport, update) == UpdateAccepted()


def ask_everything(transport: Pet1Transport) -> Iterator[Callable[[], Any]]:
    yield lambda: transport.get_document(Pet1Document.ROUND)
    yield lambda: transport.get_headers(0)
    yield lambda: transport.open_update(b"sealed")
    yield lambda: transport.send_piece([bytes(36), b"leaf"])


@pytest.mark.parametrize("way", WAYS)
def test_a_coordinator_of_xaynet_only_is_known_as_such(way: str) -> None:
    with contextlib.ExitStack() as stack:
        transport: Any
        if way == "in process":
            transport = InProcessTransport(CoordinatorEngine(Settings().to_round_settings()))
        else:
            url = stack.enter_context(serving(create_app(Settings())))
            transport = stack.enter_context(contextlib.closing(HttpTransport(url) if way == "blocking" else Waiting(url)))
        for ask in ask_everything(transport):
            with pytest.raises(UnknownProfileError) as raised:
                ask()
            assert not raised.value.is_temporary


class Scripted(http.server.ThreadingHTTPServer):
    """Answers everything with the same."""

    daemon_threads = True

    def __init__(self, status: int, body: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # from a client that does not read it
                    self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)


@contextlib.contextmanager
def scripted(way: str, status: int, body: bytes = b"") -> Iterator[Any]:
    with Scripted(status, body) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            with contextlib.closing(HttpTransport(url) if way == "blocking" else Waiting(url)) as transport:
                yield transport
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, TransportRefusedError), (403, TransportRefusedError), (413, TransportRefusedError), (500, BackPressureError)],
)
def test_other_statuses_are_errors(way: str, status: int, kind: type[TransportError]) -> None:
    with scripted(way, status) as transport:
        for ask in ask_everything(transport):
            with pytest.raises(kind) as raised:
                ask()
        assert isinstance(raised.value, MessageTooLargeError) is (status == 413)


@pytest.mark.parametrize("way", WAYS[1:])
def test_answers_are_bounded_whatever_is_asked(way: str) -> None:
    with scripted(way, 200, bytes(9 << 20) + b"x") as transport:
        for ask in ask_everything(transport):
            with pytest.raises(AnswerTooLargeError):
                ask()


@pytest.mark.parametrize("way", WAYS[1:])
def test_headers_that_do_not_fit_their_answer(way: str) -> None:
    found = pytest.raises(TransportError, match=r"GET /pet/v1/headers: share headers: expected the rest of one, got 8 bytes")
    with scripted(way, 200, b"\5\0\0\0abcd") as transport, found:
        transport.get_headers(3)
