"""Updates of pet/1 stored at a real nats-server, whose coordinator is away meanwhile, or starts again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats_broker import FEDERATION, Broker, run, running_broker
from pet1_players import Players
from pet1_world import LEAF_ELEMENTS, Pet1World

from pet.coordinator.leaf_folder import FolderLeafStore
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.service import CoordinatorService
from pet.coordinator.storage.memory import MemoryStorage
from pet.pet1.answers import UpdateAccepted, UpdateAnswer, UpdateOpen, UpdateRefused, build_piece
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.protocol.phases import Phase
from pet.transports.nats import AsyncNatsTransport, NatsConnection, NatsServer, NatsSettings, Subjects, connect
from pet.transports.nats.storage import ask_storage
from pet.transports.pet1 import Pet1Document

SUBJECTS = Subjects(FEDERATION)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with running_broker(tmp_path / "broker") as broker:
        yield broker


@asynccontextmanager
async def connected(broker: Broker, name: str, mode: Any = "stream") -> Any:
    settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=10, mode=mode)
    async with await connect(settings, name) as connection:
        yield connection


async def becomes(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(45):
        while not (await found if not isinstance(found := condition(), bool) else found):
            await asyncio.sleep(0.02)


async def becomes_published(transport: AsyncNatsTransport, engine: Pet1Engine) -> None:
    """Wait until the broker has the round's record, which says how long vectors are."""
    document = engine.document(Pet1Document.ROUND)

    async def is_published() -> bool:
        return document is not None and await transport.get_document(Pet1Document.ROUND) == document.data

    await becomes(is_published)


async def send(transport: AsyncNatsTransport, update: OutgoingUpdate) -> UpdateAnswer:
    answer = update.read_answer(await transport.open_update(update.sealed))
    while isinstance(answer, UpdateOpen):
        answer = update.read_answer(await transport.send_piece(next(update.pieces(answer))))
    return answer


async def stored_count(connection: NatsConnection) -> int:
    """Return how many messages are in the queue."""
    found = await ask_storage(connection, f"STREAM.INFO.{SUBJECTS.upload_stream}")
    return int(found["state"]["messages"])


def test_updates_are_stored_while_the_coordinator_is_away(broker: Broker) -> None:
    world = Pet1World(2 * LEAF_ELEMENTS + 5, 3).begin_updates()

    async def play() -> None:
        async with world.service, connected(broker, "coordinator") as own, connected(broker, "participant") as other:
            transport = AsyncNatsTransport(other, SUBJECTS)
            # One that asks the broker for nothing: what that has promised to a coordinator that goes away stays for 30 s.
            async with connected(broker, "earlier", "direct") as earlier, NatsServer(world.service, earlier, SUBJECTS):
                assert await transport.get_document(Pet1Document.COMMITTEE) == world.read(Pet1Document.COMMITTEE)
            for number in range(3):
                assert await send(transport, world.make_update(number)) == UpdateAccepted()
            assert await stored_count(other) == 3 * 4
            assert world.engine.taken == []
            async with NatsServer(world.service, own, SUBJECTS):
                await becomes(lambda: world.engine.phase is Phase.CHECK)

                async def is_empty() -> bool:
                    return await stored_count(other) == 0

                await becomes(is_empty)
            world.finish_round()

    run(play())


def test_what_nobody_should_send_leaves_the_queue_and_changes_nothing(broker: Broker) -> None:
    world = Pet1World(LEAF_ELEMENTS - 1, 3).begin_updates()
    update = world.make_update(0)
    wrong = bytearray(update.vector)
    wrong[0] ^= 1

    async def play() -> None:
        async with (
            world.service,
            connected(broker, "coordinator") as own,
            NatsServer(world.service, own, SUBJECTS),
            connected(broker, "participant") as other,
        ):
            await becomes_published(AsyncNatsTransport(other, SUBJECTS), world.engine)
            for leaf in (wrong, update.vector[:-4], b""):
                transport = AsyncNatsTransport(other, SUBJECTS)
                for sealed in (b"malformed", update.sealed):
                    assert isinstance(update.read_answer(await transport.open_update(sealed)), UpdateOpen)
                await transport.send_piece(build_piece(update.header.digest, range(1), memoryview(bytes(leaf))))
            await other.request(SUBJECTS.stored_update("participant", "leaves"), b"short")
            await other.request(SUBJECTS.stored_update("participant", "anything"), b"short")
            refused = {"length_mismatch": 4, "wrong_leaf": 1}
            await becomes(lambda: world.engine.refused == refused)
            transport = AsyncNatsTransport(other, SUBJECTS)
            assert await send(transport, update) == UpdateAccepted()
            await becomes(lambda: world.engine.status()["accepted"] == 1)

    run(play())


@pytest.mark.parametrize("mode", ["stream", "direct"])
def test_a_coordinator_that_starts_again_gets_the_rest(broker: Broker, tmp_path: Path, mode: str) -> None:
    """Leaves that were taken are in the store; the sealed part is in the queue until all is there, or comes once more."""
    players, storage = Players(update_count=3), MemoryStorage()
    settings = players.settings(model_length=3 * LEAF_ELEMENTS, min_count=3, max_count=3)

    @asynccontextmanager
    async def coordinating() -> Any:
        leaves = FolderLeafStore(tmp_path / "leaves")
        engine = Pet1Engine(settings, threads=1, first_number=7, storage=storage, leaf_store=leaves)
        engine.shut_down = lambda: None  # type: ignore[method-assign]
        async with AsyncExitStack() as stack:
            stack.callback(leaves.close)
            await stack.enter_async_context(service := CoordinatorService(engine, workers=1))
            own = await stack.enter_async_context(connected(broker, "coordinator", mode))
            await stack.enter_async_context(NatsServer(service, own, SUBJECTS))
            yield engine

    async def play() -> None:
        async with connected(broker, "participant", mode) as other:
            transport = AsyncNatsTransport(other, SUBJECTS)
            async with coordinating() as engine:
                players.send_members(engine)
                update = players.updates[0].mask(engine)
                assert update is not None
                await becomes(lambda: engine.status()["phase"] == "update")
                await becomes_published(transport, engine)
                await transport.open_update(update.sealed)
                await transport.send_piece(build_piece(update.header.digest, range(2), update.vector))

                async def is_taken() -> bool:
                    return await stored_count(other) == (mode == "stream")

                await becomes(is_taken)
            async with coordinating() as engine:
                if mode == "direct":
                    refused = update.read_answer(
                        await transport.send_piece(build_piece(update.header.digest, range(2, 4), update.vector))
                    )
                    assert refused == UpdateRefused("unknown_upload")
                    opened = update.read_answer(await transport.open_update(update.sealed))
                    assert opened == UpdateOpen(8, (True, True, False, False))
                await transport.send_piece(build_piece(update.header.digest, range(2, 4), update.vector))
                await becomes(lambda: engine.status()["accepted"] == 1)

    run(play())
