"""Senders over NATS that hold what others need: honest ones still finish, over a real nats-server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from pathlib import Path

import nkeys
import pytest
from nats_broker import run, running_broker
from nats_uploads import Keeper, receiving, settings_for, some_bytes, until
from participant_driver import live_settings

from pet.bodies.memory_budget import MemoryBudget
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.errors import TransportError, UnreachableError
from pet.participant.test_drive import DummyFleet
from pet.transports.nats import (
    NatsServer,
    NatsSettings,
    NatsTransport,
    Subjects,
    UploadOffer,
    connect,
    send_upload,
    slots,
)
from pet.transports.nats.answers import ASK_STATUS, decode_answer
from pet.transports.nats.frames import ChunkHeader, OpenAnswer
from pet.transports.nats.server import PET_MESSAGE
from pet.transports.rates import BURST_SECONDS
from pet.transports.refusal_counts import RefusalReason

PAGE = (Path(__file__).parents[2] / "docs" / "nats.md").read_text()
CONFIG = re.search(r"```\n(jetstream \{.*?)```", PAGE, re.DOTALL)[1]
FEDERATION = "abcdefghij012345"
MIB = 2**20
LARGE, SMALL = 2 * MIB, 1000
CHUNK = 1000


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


def large_settings(broker):
    return settings_for(broker, chunk_bytes=MIB, request_timeout_seconds=30)


async def offer(connection, subjects, peer, size_bytes, number=0, kind="test"):
    """Offer an upload in tiny chunks; returns the offer and its slot, "" if there was none."""
    upload_id = f"{peer}{number:04}".encode().ljust(16)[-16:]
    mine = UploadOffer(upload_id=upload_id, size_bytes=size_bytes, sha256=b"", kind=kind, round="", chunk_bytes=CHUNK)
    return mine, OpenAnswer.from_bytes(await connection.request(subjects.open(peer), mine.to_bytes())).slot


async def send_chunk(connection, subjects, mine, slot, index=0):
    header = ChunkHeader(mine.upload_id, index, mine.chunk_count, mine.size_bytes).to_bytes()
    await connection.request(subjects.chunk(slot), header + bytes(mine.chunk_size(index)), timeout_seconds=5)


async def send_as(connection, subjects, peer, body):
    assert (await send_upload(connection, subjects, peer, body, kind="test", patience_seconds=60)).is_accepted


def test_one_participant_asks_no_faster_than_its_rate(broker):
    """Offers and questions count together; those of others are answered meanwhile."""

    async def use():
        reasons, service = [], CoordinatorService(CoordinatorEngine(live_settings()))
        service.on_upload_refused = reasons.append
        subjects = Subjects(FEDERATION)
        async with (
            service,
            await connect(settings_for(broker), "coordinator") as connection,
            NatsServer(service, connection, subjects, requests_per_second=1 / BURST_SECONDS),
            await connect(settings_for(broker), "peer") as peer,
        ):
            assert decode_answer(await peer.request(subjects.ask("busy"), ASK_STATUS), "status")
            assert (await offer(peer, subjects, "busy", SMALL, 0, PET_MESSAGE))[1] == ""
            with pytest.raises(UnreachableError):
                await peer.request(subjects.ask("busy"), ASK_STATUS, timeout_seconds=0.2)
            assert decode_answer(await peer.request(subjects.ask("another"), ASK_STATUS), "status")
            assert (await offer(peer, subjects, "third", SMALL, 1, PET_MESSAGE))[1]
            assert reasons == ["rate"]
            assert service.refusals.read()[RefusalReason.RATE] == 1

    run(use())


def test_no_participant_fills_the_log(broker, caplog):
    caplog.set_level(logging.INFO, "pet.transports.nats")

    async def use():
        service, subjects = CoordinatorService(CoordinatorEngine(live_settings())), Subjects(FEDERATION)
        async with (
            service,
            await connect(settings_for(broker), "coordinator") as connection,
            NatsServer(service, connection, subjects),
            await connect(settings_for(broker), "peer") as peer,
        ):
            for _ in range(20):
                await peer.request(subjects.open("busy"), b"nonsense")
                await peer.request(subjects.ask("busy"), b"nonsense")

    run(use())
    lines = [record.getMessage() for record in caplog.records if "busy" in record.getMessage()]
    assert sorted(line.partition(":")[0] for line in lines) == ["question of busy ignored", "upload of busy refused"]


@pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])
def test_eight_silent_offers_stop_nobody(broker, size):
    """Not even where a sender has as many names as it likes; the offers are good for 30 s."""

    async def use():
        keeper, bodies = Keeper(), [some_bytes(size, seed) for seed in range(3)]
        keeper.stall_seconds = 600.0
        settings = large_settings(broker)
        async with receiving(broker, keeper, settings=settings) as subjects, await connect(settings, "peer") as connection:
            for number in range(8):
                assert (await offer(connection, subjects, f"silent{number}", size))[1]
            await asyncio.gather(*(send_as(connection, subjects, f"honest{n}", body) for n, body in enumerate(bodies)))
        assert sorted(keeper.bodies) == sorted(bodies)

    run(use())


def test_large_uploads_leave_slots_for_small_ones(broker):
    """Eight names send a chunk of a large upload now and then, which is all that they have to do."""

    async def use():
        keeper, settings, reasons = Keeper(), large_settings(broker), []
        keeper.stall_seconds = 600.0
        async with (
            receiving(broker, keeper, settings=settings, on_refused=reasons.append) as subjects,
            await connect(settings, "peer") as connection,
        ):
            for number in range(8):
                mine, slot = await offer(connection, subjects, f"slow{number}", LARGE)
                await send_chunk(connection, subjects, mine, slot)
            assert (await offer(connection, subjects, "other", LARGE))[1] == ""
            await send_as(connection, subjects, "honest", b"a small one")
            assert reasons == ["no_slot"]
        assert keeper.bodies == [b"a small one"]

    run(use())


def test_a_peer_with_more_slots_makes_way(broker):
    """What it loses it can send again: of two peers, both get all their uploads through."""

    async def use():
        keeper, settings = Keeper(seconds=0.02), large_settings(broker)
        keeper.stall_seconds = 600.0
        many, one = [some_bytes(LARGE, seed) for seed in range(10)], some_bytes(LARGE, 99)
        async with (
            receiving(broker, keeper, settings=settings, slots=4) as subjects,
            await connect(settings, "p") as connection,
        ):
            held = [await offer(connection, subjects, "many", LARGE, number) for number in range(4)]
            for mine, slot in held:
                await send_chunk(connection, subjects, mine, slot)
            await send_as(connection, subjects, "one", one)
            assert keeper.bodies == [one]
            with pytest.raises(TransportError):  # the newest has lost its slot, and no other
                await send_chunk(connection, subjects, *held[3], index=1)
            await send_chunk(connection, subjects, *held[0], index=1)
        async with (
            receiving(broker, keeper, settings=settings, slots=2) as subjects,
            await connect(settings, "p") as connection,
        ):
            sending = [send_as(connection, subjects, "many", body) for body in many]
            await asyncio.gather(*sending, *(send_as(connection, subjects, f"other{n}", one) for n in range(3)))
        assert sorted(keeper.bodies) == sorted([one, one, one, one, *many])

    run(use())


def test_a_slot_without_progress_is_lost_when_others_wait(broker):
    """Single bytes are none: a sixteenth of an upload must come within `stall_seconds`."""

    async def use():
        keeper, settings, reasons = Keeper(), large_settings(broker), []
        keeper.stall_seconds = 1.0
        async with (
            receiving(broker, keeper, settings=settings, slots=1, on_refused=reasons.append) as subjects,
            await connect(settings, "p") as connection,
        ):
            mine, slot = await offer(connection, subjects, "slow", LARGE)
            await send_chunk(connection, subjects, mine, slot)

            async def trickle():
                index = 0
                with contextlib.suppress(TransportError):
                    while True:
                        index += 1
                        await send_chunk(connection, subjects, mine, slot, index)
                        await asyncio.sleep(0.1)

            trickling = asyncio.create_task(trickle())
            await send_as(connection, subjects, "honest", some_bytes(LARGE))
            await trickling
            assert set(reasons) == {"no_slot", "evicted"}
        assert len(keeper.bodies) == 1

    run(use())


def test_silent_offers_are_bounded(broker, monkeypatch):
    """The oldest is forgotten, and who comes back with it asks again."""
    monkeypatch.setattr(slots, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(slots, "_MAX_SILENT", 3)

    async def use():
        keeper = Keeper()
        async with receiving(broker, keeper) as subjects, await connect(settings_for(broker), "peer") as connection:
            first, slot = await offer(connection, subjects, "first", SMALL)
            for number in range(5):
                last, last_slot = await offer(connection, subjects, f"later{number}", SMALL)
            with pytest.raises(TransportError):
                await send_chunk(connection, subjects, first, slot)
            await send_chunk(connection, subjects, last, last_slot)
            _, again = await offer(connection, subjects, "first", SMALL)
            assert again not in {"", slot}

    run(use())


def test_whole_uploads_whose_digest_does_not_come_hold_nothing_that_others_need(broker, monkeypatch):
    """Neither slots nor places nor room: of its own a sender loses the next, to others the newest."""
    monkeypatch.setattr(slots, "_MAX_WITHOUT_DIGEST", 4)

    async def use():
        keeper, settings, reasons = Keeper(), large_settings(broker), []
        keeper.stall_seconds = 600.0
        async with (
            receiving(
                broker, keeper, settings=settings, memory=MemoryBudget(20 * SMALL), on_refused=reasons.append
            ) as subjects,
            await connect(settings, "peer") as connection,
        ):
            for number in range(12):
                mine, slot = await offer(connection, subjects, "many", SMALL, number)
                await send_chunk(connection, subjects, mine, slot)
            await until(lambda: reasons.count("evicted") == 8)
            for number in range(3):
                mine, slot = await offer(connection, subjects, f"other{number}", SMALL, number)
                await send_chunk(connection, subjects, mine, slot)
            await until(lambda: reasons.count("evicted") >= 10)
            bodies = [some_bytes(SMALL * 9, seed) for seed in range(3)]
            await asyncio.gather(*(send_as(connection, subjects, f"honest{n}", body) for n, body in enumerate(bodies)))
        assert sorted(keeper.bodies) == sorted(bodies)

    run(use())


def user_settings(broker, number):
    seed = nkeys.encode_seed(bytes([number]) * 32, nkeys.PREFIX_BYTE_USER).decode()
    return NatsSettings(hosts=(broker.url,), request_timeout_seconds=30, nkey_seed=seed)


def test_a_round_finishes_while_a_member_offers_without_end(tmp_path):
    """On a broker with rights for each participant: hundreds of offers, some with a first chunk, all from its own name."""

    async def attack(broker, subjects, counts):
        async with await connect(user_settings(broker, 5), "participant2") as connection:
            while True:
                number = counts["offers"] = counts["offers"] + 1
                size = SMALL if number % 2 else LARGE
                with contextlib.suppress(TransportError):
                    mine, slot = await offer(connection, subjects, "participant2", size, number, "pet")
                    if slot and number % 3:
                        await send_chunk(connection, subjects, mine, slot)
                        counts["begun"] += 1
                    elif not slot:
                        await asyncio.sleep(0.01)

    def play(broker):
        transport = NatsTransport(user_settings(broker, 4), FEDERATION, peer="participant1")
        with contextlib.closing(transport):
            return DummyFleet(transport, 8, weight=0.25, period_seconds=0.02).run(1)

    async def use(broker):
        service, subjects = CoordinatorService(CoordinatorEngine(live_settings(sum_probability=0.4))), Subjects(FEDERATION)
        counts = {"offers": 0, "begun": 0}
        async with (
            service,
            await connect(user_settings(broker, 3), "coordinator") as connection,
            NatsServer(service, connection, subjects),
        ):
            attacking = asyncio.create_task(attack(broker, subjects, counts))
            await until(lambda: counts["offers"] > 50 and counts["begun"], 30)
            assert (await asyncio.to_thread(play, broker)).rounds_finished == 1
            assert not attacking.done()
            attacking.cancel()
            await asyncio.wait({attacking})
        assert service.memory_in_flight_bytes == service.spool.used_bytes == 0

    with running_broker(tmp_path, CONFIG.replace("/var/lib/nats", str(tmp_path))) as broker:
        run(use(broker), 120)
