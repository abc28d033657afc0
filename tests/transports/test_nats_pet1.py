"""The transports of pet/1 over a real nats-server: documents, share headers and updates, call by call."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from nats_broker import FEDERATION, Broker, running_broker, serving_nats
from pet1_world import LEAF_ELEMENTS, Pet1World

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.coordinator.settings import Settings
from pet.errors import AnswerTooLargeError, BackPressureError, CounterpartOfflineError, UnknownProfileError
from pet.pet1.answers import UpdateAccepted, UpdateAnswer, UpdateOpen, UpdateRefused, build_piece
from pet.pet1.header_batch import HeaderBatch
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.protocol.phases import Phase
from pet.transports.nats import AsyncNatsTransport, NatsSettings, NatsTransport, Subjects, connect
from pet.transports.pet1 import AsyncPet1Transport, Pet1Document, Pet1Transport

WAYS = ["blocking", "asyncio"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


class Waiting:
    """The asyncio transport behind the interface of the blocking one, so that one suite tests both."""

    def __init__(self, settings: NatsSettings) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(connect(settings, "participant"))
        self._transport = AsyncNatsTransport(self._connection, Subjects(FEDERATION))
        assert isinstance(self._transport, AsyncPet1Transport)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            asking: Coroutine[Any, Any, Any] = getattr(self._transport, name)(*arguments)
            return self._loop.run_until_complete(asking)

        return call

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.aclose())
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@contextlib.contextmanager
def reached(way: str, service: CoordinatorService, broker: Broker, seconds: float = 5) -> Iterator[Pet1Transport]:
    settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=seconds)
    with serving_nats(service, settings):
        transport: Any = NatsTransport(settings, FEDERATION) if way == "blocking" else Waiting(settings)
        with contextlib.closing(transport):
            yield transport


def send(transport: Pet1Transport, update: OutgoingUpdate) -> UpdateAnswer:
    answer = update.read_answer(transport.open_update(update.sealed))
    while isinstance(answer, UpdateOpen):
        answer = update.read_answer(transport.send_piece(next(update.pieces(answer))))
    return answer


def becomes(ask: Callable[[], Any], expected: Any, seconds: float = 60) -> None:
    """Wait until the broker has what the coordinator says."""
    deadline = time.monotonic() + seconds
    while (found := ask()) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


@pytest.mark.parametrize("way", WAYS)
def test_a_round(broker: Broker, way: str) -> None:
    world = Pet1World(LEAF_ELEMENTS + 7, 3)
    with reached(way, world.service, broker) as transport:
        assert isinstance(transport, Pet1Transport) or way == "asyncio"
        becomes(lambda: transport.get_document(Pet1Document.ROUND), world.read(Pet1Document.ROUND))
        becomes(lambda: transport.get_document(Pet1Document.COMMITTEE), None)
        world.begin_updates()
        becomes(lambda: transport.get_document(Pet1Document.COMMITTEE), world.read(Pet1Document.COMMITTEE))
        assert transport.get_document(Pet1Document.ENROLMENT) == world.read(Pet1Document.ENROLMENT)
        assert transport.get_headers(0) == HeaderBatch((), 0)
        for number in range(3):
            assert send(transport, world.make_update(number)) == UpdateAccepted()
        assert world.engine.phase is Phase.CHECK
        becomes(lambda: transport.get_document(Pet1Document.MANIFEST), world.read(Pet1Document.MANIFEST))
        for after in range(4):
            assert transport.get_headers(after) == world.engine.headers(after)
        assert transport.get_headers(9) == HeaderBatch((), 9)
        world.finish_round()
        becomes(lambda: transport.get_document(Pet1Document.ROUND), world.read(Pet1Document.ROUND))
        becomes(lambda: transport.get_document(Pet1Document.COMMITTEE), None)  # the next round has begun
        assert transport.get_headers(0) == HeaderBatch((), 0)
        for kind in set(Pet1Document) - {Pet1Document.COMMITTEE}:
            assert transport.get_document(kind) == world.read(kind)
        with pytest.raises(AnswerTooLargeError, match="expected at most 191 bytes, got 192"):
            transport.get_document(Pet1Document.ROUND, 191)
        model = world.read(Pet1Document.MODEL)
        assert transport.get_document(Pet1Document.MODEL, len(model)) == model
        with pytest.raises(AnswerTooLargeError, match=f"expected at most {len(model) - 1} bytes, got {len(model)}"):
            transport.get_document(Pet1Document.MODEL, len(model) - 1)


def test_a_leaf_that_is_wrong_ends_its_piece_and_not_the_update(broker: Broker) -> None:
    world = Pet1World(16 * LEAF_ELEMENTS, 3).begin_updates()
    update = world.make_update(0)
    wrong = bytearray(update.vector)
    wrong[0] ^= 1
    with reached("blocking", world.service, broker) as transport:
        transport.open_update(update.sealed)
        piece = build_piece(update.header.digest, range(16), memoryview(wrong))
        assert update.read_answer(transport.send_piece(piece)) == UpdateRefused("wrong_leaf")
        assert len(world.engine.taken) < 16
        piece = build_piece(update.header.digest, range(17), update.vector)
        assert update.read_answer(transport.send_piece(piece)) == UpdateAccepted(), "a piece may have more than sixteen leaves"


def test_an_upload_that_finds_no_storage_comes_again(broker: Broker) -> None:
    world = Pet1World(LEAF_ELEMENTS, 3).begin_updates()
    update = world.make_update(0)
    with reached("blocking", world.service, broker, seconds=0.3) as transport:
        opened = update.read_answer(transport.open_update(update.sealed))
        assert isinstance(opened, UpdateOpen)
        world.engine.is_storing = False
        with pytest.raises(BackPressureError):
            transport.send_piece(next(update.pieces(opened)))
        world.engine.is_storing = True
        assert send(transport, update) == UpdateAccepted()


def test_where_nobody_has_published_anything_there_is_no_coordinator(broker: Broker) -> None:
    """It is waited for, as one that cannot be reached, and who waits can say so."""
    settings = NatsSettings(hosts=(broker.url,))
    with contextlib.closing(NatsTransport(settings, "nobody0publishes")) as transport:
        for ask in (lambda: transport.get_document(Pet1Document.ROUND), lambda: transport.get_headers(0)):
            with pytest.raises(CounterpartOfflineError, match="expected a coordinator, got none") as raised:
                ask()
            assert raised.value.is_temporary


@pytest.mark.parametrize("way", WAYS)
def test_a_coordinator_of_xaynet_only_is_known_as_such(tmp_path_factory: pytest.TempPathFactory, way: str) -> None:
    service = CoordinatorService(CoordinatorEngine(Settings().to_round_settings()))
    with running_broker(tmp_path_factory.mktemp("broker")) as broker, contextlib.ExitStack() as stack:
        with reached(way, Pet1World(3, 3).service, broker) as transport:  # there was another one before
            assert transport.get_document(Pet1Document.ROUND) is not None
        transport = stack.enter_context(reached(way, service, broker))
        for ask in (
            lambda: transport.get_document(Pet1Document.ROUND),
            lambda: transport.get_headers(0),
            lambda: transport.open_update(b"sealed"),
            lambda: transport.send_piece([bytes(36), b"leaf"]),
        ):
            with pytest.raises(UnknownProfileError) as raised:
                ask()
            assert not raised.value.is_temporary
