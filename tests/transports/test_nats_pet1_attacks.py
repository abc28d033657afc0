"""Senders of updates of pet/1 over a real nats-server that hold what others need, or send what nobody should.

Each sender uses its own name, as the rights of docs/nats.md make it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys
import numpy as np
import pytest
from nats_broker import FEDERATION, Broker, run, running_broker
from pet1_parties import CONFIG as INTEGERS
from pet1_world import LEAF_ELEMENTS, Pet1World

from pet.errors import BackPressureError, CounterpartOfflineError, ForbiddenSubjectError, TransportConfigError
from pet.pet1.answers import UpdateAccepted, UpdateAnswer, UpdateOpen, build_piece
from pet.pet1.header_batch import HeaderBatch
from pet.pet1.leaves import LEAF_BYTES
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.transports.nats import (
    AsyncNatsTransport,
    NatsConnection,
    NatsServer,
    NatsSettings,
    Subjects,
    connect,
    pet1_senders,
)
from pet.transports.nats import server as nats_server
from pet.transports.nats.pet1_frames import headers_subject
from pet.transports.nats.storage import ask_storage, store_message
from pet.transports.pet1 import Pet1Document
from pet.transports.refusal_counts import RefusalReason

SUBJECTS = Subjects(FEDERATION)
PAGE = (Path(__file__).parents[2] / "docs" / "nats.md").read_text()
CONFIG = re.search(r"```\n(jetstream \{.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@asynccontextmanager
async def served(broker: Broker, world: Pet1World, **options: Any) -> AsyncIterator[NatsConnection]:
    """Serve a world; yields the connection of a participant called peer."""
    settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=20)
    async with (
        world.service,
        await connect(settings, "coordinator") as own,
        NatsServer(world.service, own, SUBJECTS, **options),
        await connect(settings, "peer") as other,
    ):
        yield other


async def becomes(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    async with asyncio.timeout(90):
        while True:
            with contextlib.suppress(CounterpartOfflineError):  # for a moment, a broker that forgets has nothing of anybody
                if await ask() == expected:
                    return
            await asyncio.sleep(0.02)


async def send(connection: NatsConnection, peer: str, update: OutgoingUpdate) -> UpdateAnswer:
    transport = AsyncNatsTransport(connection, SUBJECTS, peer=peer, patience_seconds=60)
    answer = update.read_answer(await transport.open_update(update.sealed))
    while isinstance(answer, UpdateOpen):
        answer = update.read_answer(await transport.send_piece(next(update.pieces(answer))))
    return answer


def leaf_of(update: OutgoingUpdate, number: int) -> bytes:
    """Return the body of a request with a leaf."""
    return b"".join(bytes(part) for part in build_piece(update.header.digest, range(number, number + 1), update.vector))


def test_what_is_malformed_is_answered_and_changes_nothing(broker: Broker) -> None:
    world = Pet1World(2 * LEAF_ELEMENTS, 3).begin_updates()
    update = world.make_update(0)
    leaves, opens, digest = SUBJECTS.leaves("bad"), SUBJECTS.open_update("bad"), update.header.digest
    leaf, last = leaf_of(update, 0), leaf_of(update, 2)

    async def play() -> None:
        async with served(broker, world) as other:
            for sealed in (b"", b"x", update.sealed[:-1], bytes(update.sealed) + b"x"):
                assert await other.request(opens, sealed) == b"\2length_mismatch"
            assert await other.request(opens, bytes(len(update.sealed))) == b"\2decryption"
            assert await other.request(leaves, leaf) == b"\2unknown_upload"
            assert (await other.request(opens, update.sealed))[0] == 0
            short, long, beyond = leaf[:-1], leaf + b"x", digest + b"\3\0\0\0" + leaf[36:]
            far = digest + b"\xff" * 4 + leaf[36:]
            for body in (b"", digest, leaf[:36], short, long, last + b"x", beyond, far, leaf + bytes(LEAF_BYTES // 2)):
                assert await other.request(leaves, body) == b"\2length_mismatch", len(body)
            assert await other.request(leaves, leaf, headers={"Any": "header"}) == b"\0\x08\0\1"
            assert await send(other, "good", update) == UpdateAccepted()
            for body in (leaf, last):
                assert await other.request(leaves, body) == b"\1"

    run(play())


def test_a_stranger_spoils_no_update(broker: Broker) -> None:
    """Who knows a header digest can have bytes hashed, in its own turn; each wrong leaf is counted."""
    world = Pet1World(3 * LEAF_ELEMENTS, 3).begin_updates()
    update = world.make_update(0)
    wrong = bytearray(leaf_of(update, 1))
    wrong[-1] ^= 1

    async def play() -> None:
        async with served(broker, world) as other:
            transport = AsyncNatsTransport(other, SUBJECTS, peer="victim")
            await transport.open_update(update.sealed)
            for _ in range(5):
                assert await other.request(SUBJECTS.leaves("stranger"), wrong) == b"\2wrong_leaf"
            together = [other.request(SUBJECTS.leaves("stranger"), wrong) for _ in range(4)]
            answers = await asyncio.gather(send(other, "victim", update), *together)
            assert answers[0] == UpdateAccepted()
            assert set(answers[1:]) <= {b"\2wrong_leaf", b"\1", b"\0\x08\0\x0f"}
            assert world.service.refusals.read()[RefusalReason.WRONG_LEAF] >= 5

    run(play())


def test_who_opens_updates_and_brings_no_leaves_stops_nobody(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as have their turn open again and again, under names of their own; three honest ones finish meanwhile."""
    monkeypatch.setattr(pet1_senders, "SILENT_SECONDS", 0.2)
    world = Pet1World(2 * LEAF_ELEMENTS, 3).begin_updates()
    updates = [world.make_update(number) for number in range(3)]
    held = world.parties.participant(4)

    async def open_for_ever(connection: NatsConnection, peer: str, sealed: bytes) -> None:
        while True:
            await connection.request(SUBJECTS.open_update(peer), sealed)
            await asyncio.sleep(0.01)

    async def play() -> None:
        reasons = list[str]()
        async with served(broker, world) as other:
            world.service.on_upload_refused = reasons.append
            assert held.join(world.read(Pet1Document.ROUND), world.read(Pet1Document.ENROLMENT), 1_700_000_000) is not None
            sealed = bytes(held.mask(world.read(Pet1Document.COMMITTEE), np.ones(2 * LEAF_ELEMENTS, INTEGERS.dtype), 1).sealed)
            names = [f"idle{number}" for number in range(pet1_senders.DEFAULT_SENDERS)]
            attack = [asyncio.create_task(open_for_ever(other, name, sealed)) for name in names]
            await becomes(lambda: other.request(SUBJECTS.open_update("last"), sealed), b"")
            answers = await asyncio.gather(*(send(other, f"good{number}", each) for number, each in enumerate(updates)))
            assert answers == [UpdateAccepted()] * 3
            for task in attack:
                task.cancel()
            await asyncio.gather(*attack, return_exceptions=True)
            assert set(reasons) == {"no_slot"}

    run(play())


def test_opening_has_a_rate_for_each_sender(broker: Broker) -> None:
    world = Pet1World(LEAF_ELEMENTS, 3).begin_updates()
    update = world.make_update(0)

    async def play() -> None:
        async with served(broker, world, requests_per_second=0.2) as other:
            answers = [await other.request(SUBJECTS.open_update("busy"), b"x") for _ in range(4)]
            assert answers == [b"\2length_mismatch"] * 2 + [b""] * 2
            assert await send(other, "another", update) == UpdateAccepted()
            assert world.service.refusals.read()[RefusalReason.RATE] == 2
            impatient = AsyncNatsTransport(other, SUBJECTS, peer="busy", patience_seconds=0)
            with pytest.raises(BackPressureError, match="expected room for an update, got none for now"):
                await impatient.open_update(update.sealed)

    run(play())


def test_a_flood_of_leaves_of_one_sender_is_bounded(broker: Broker) -> None:
    """While leaves wait for the disk, a sender has its share of them under way, and others have theirs."""
    world = Pet1World(2 * LEAF_ELEMENTS, 3).begin_updates()
    update, other_update = world.make_update(0), world.make_update(1)
    leaf, count = leaf_of(update, 0), 3 * pet1_senders.MAX_LEAVES

    async def play() -> None:
        async with served(broker, world) as other:
            await other.request(SUBJECTS.open_update("flood"), update.sealed)
            disk_is_there, work = asyncio.Event(), world.service.work

            async def wait_and_work(function: Any, *arguments: Any) -> Any:
                await disk_is_there.wait()
                return await work(function, *arguments)

            world.service.work = wait_and_work  # type: ignore[method-assign, assignment]
            flood = [asyncio.ensure_future(other.request(SUBJECTS.leaves("flood"), leaf)) for _ in range(count)]
            refused = [await answer for answer in asyncio.as_completed(flood[pet1_senders.MAX_LEAVES :])]
            assert refused == [b""] * (count - pet1_senders.MAX_LEAVES)
            assert world.service.memory_in_flight_bytes <= pet1_senders.MAX_LEAVES * LEAF_BYTES
            sending = asyncio.ensure_future(send(other, "good", other_update))
            disk_is_there.set()
            assert await sending == UpdateAccepted()
            assert set(await asyncio.gather(*flood[: pet1_senders.MAX_LEAVES])) == {b"\0\x08\0\1"}

    run(play())


def test_what_somebody_else_published_is_no_header_of_this_round(broker: Broker) -> None:
    """The broker still has share headers of the round before, or whatever who may publish put there."""
    world = Pet1World(3, 3).begin_updates()

    async def play() -> None:
        async with served(broker, world) as other:
            transport = AsyncNatsTransport(other, SUBJECTS)
            await becomes(lambda: transport.get_document(Pet1Document.ROUND), world.read(Pet1Document.ROUND))
            for stored in (b"\1" + bytes(32) + b"\1\0\0\0x", b"\0"):
                await store_message(other, headers_subject(SUBJECTS, 0), stored)
                assert await transport.get_headers(0) == HeaderBatch((), 0)
            assert await send(other, "good", world.make_update(0)) == UpdateAccepted()
            await becomes(lambda: transport.get_headers(0), world.engine.headers(0))

    run(play())


def test_what_the_broker_forgets_is_published_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps nothing for longer than an hour, and a round may last longer."""
    monkeypatch.setattr(nats_server, "_REPUBLISH_SECONDS", 0.1)
    world = Pet1World(3, 3).begin_updates()

    async def play() -> None:
        async with served(broker, world) as other:
            transport = AsyncNatsTransport(other, SUBJECTS)
            assert await send(other, "good", world.make_update(0)) == UpdateAccepted()
            await becomes(lambda: transport.get_headers(0), world.engine.headers(0))
            for stream in (SUBJECTS.event_stream, SUBJECTS.broadcast_stream):
                await ask_storage(other, f"STREAM.PURGE.{stream}")
            for kind in (Pet1Document.ROUND, Pet1Document.ENROLMENT, Pet1Document.COMMITTEE):
                await becomes(lambda kind=kind: transport.get_document(kind), world.read(kind))
            await becomes(lambda: transport.get_headers(0), world.engine.headers(0))

    run(play())


def test_a_participant_with_rights_of_its_own_takes_part_and_cannot_send_as_another(tmp_path: Path) -> None:
    assert CONFIG is not None
    config = CONFIG[1].replace("/var/lib/nats", str(tmp_path / "storage"))
    world = Pet1World(LEAF_ELEMENTS + 3, 3).begin_updates()

    def settings_of(broker: Broker, number: int) -> NatsSettings:
        seed = nkeys.encode_seed(bytes([number]) * 32, nkeys.PREFIX_BYTE_USER).decode()
        return NatsSettings(hosts=(broker.url,), request_timeout_seconds=20, nkey_seed=seed)

    async def play(broker: Broker) -> None:
        async with (
            world.service,
            await connect(settings_of(broker, 3), "coordinator") as own,
            NatsServer(world.service, own, SUBJECTS),
            await connect(settings_of(broker, 4), "participant1") as peer,
        ):
            transport = AsyncNatsTransport(peer, SUBJECTS)
            assert await transport.get_document(Pet1Document.COMMITTEE) == world.read(Pet1Document.COMMITTEE)
            assert await send(peer, "participant1", world.make_update(0)) == UpdateAccepted()
            await becomes(lambda: transport.get_headers(0), world.engine.headers(0))
            for subject in (
                SUBJECTS.open_update("participant2"),
                SUBJECTS.leaves("participant2"),
                SUBJECTS.stored_update("participant2", "open"),
                SUBJECTS.event("pet1-round"),
                headers_subject(SUBJECTS, 0),
            ):
                with pytest.raises(ForbiddenSubjectError):
                    await peer.request(subject)
            for subject in (SUBJECTS.leaves_all, SUBJECTS.open_update_all):
                with pytest.raises(ForbiddenSubjectError):
                    await peer.subscribe(subject, ignore)

    with running_broker(tmp_path / "broker", config) as broker:
        run(play(broker))


@pytest.mark.parametrize("storage", ["file", pytest.param("memory", marks=pytest.mark.long)])
def test_a_broker_that_is_killed_in_the_middle_of_a_round(tmp_path: Path, storage: Any) -> None:
    """Before the first leaf, among leaves, and before the members' turn.

    The phase ends with an update that is sent afterwards: where an answer is lost, its sender asks once more.
    """
    world = Pet1World(12 * LEAF_ELEMENTS, 4).begin_updates()
    *updates, last = [world.make_update(number) for number in range(4)]

    async def play(broker: Broker) -> None:
        # What a broker takes with it when it dies is asked for again only when an answer is late.
        settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=5, storage=storage)

        async def restart() -> None:
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)

        async def restart_among_leaves() -> None:
            async with asyncio.timeout(30):
                while len(world.engine.taken) < 12:
                    await asyncio.sleep(0)
            await restart()

        async with (
            world.service,
            await connect(settings, "coordinator") as own,
            NatsServer(world.service, own, SUBJECTS),
            await connect(settings, "peer") as other,
        ):
            transport = AsyncNatsTransport(other, SUBJECTS)
            await restart()
            sending = [send(other, f"good{number}", update) for number, update in enumerate(updates)]
            answers = await asyncio.gather(restart_among_leaves(), *sending)
            assert answers[1:] == [UpdateAccepted()] * 3
            assert await send(other, "last", last) == UpdateAccepted()
            await restart()
            for kind in (Pet1Document.COMMITTEE, Pet1Document.MANIFEST):
                await becomes(lambda kind=kind: ask_again(transport, kind), world.read(kind))
            await becomes(lambda: transport.get_headers(0), world.engine.headers(0))
            world.finish_round()

    with running_broker(tmp_path / "broker") as broker:
        run(play(broker), 120)


async def ignore(_: Any) -> None:
    """Do nothing with a message."""


async def ask_again(transport: AsyncNatsTransport, kind: Pet1Document) -> bytes | None:
    try:
        return await transport.get_document(kind)
    except OSError:  # no connection yet
        return None


def test_a_broker_with_too_small_messages_is_named(tmp_path: Path) -> None:
    world = Pet1World(3, 3)

    async def play(broker: Broker) -> None:
        with pytest.raises(TransportConfigError, match="expected a max_payload of 528420 bytes or more for pet/1, got 262144"):
            async with served(broker, world):
                pass

    with running_broker(tmp_path, "max_payload: 262144\n") as broker:
        run(play(broker))
