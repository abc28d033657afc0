"""Uploads in mode `stream` over a real nats-server: receivers may be offline, queues full, brokers killed."""

from __future__ import annotations

import asyncio
import json

import pytest
from nats_broker import run, running_broker
from nats_uploads import CHUNK, Keeper, receiving, settings_for, some_bytes, store, until

from pet.errors import BackPressureError, MissingError, ServiceBusyError, TransportConfigError
from pet.transports.nats import Broadcasts, StoredUploads, Subjects, connect, generate_federation_id, stored_uploads
from pet.transports.nats.frames import ChunkHeader
from pet.transports.nats.storage import ask_storage, store_message


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


async def stored_messages(connection, subjects):
    record = await ask_storage(connection, f"STREAM.INFO.{subjects.upload_stream}")
    return record["state"]["messages"]


def test_every_size_arrives_although_nobody_listens(broker):
    async def use():
        keeper, subjects = Keeper(), Subjects(generate_federation_id())
        bodies = [some_bytes(size) for size in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK)]
        async with await connect(settings_for(broker), "peer") as connection:
            await Broadcasts(connection, subjects).create_streams()
            for body in bodies:
                await store(connection, subjects, body)
            await store(connection, subjects, bodies[-1])  # the broker knows these chunks by their ids
            assert await stored_messages(connection, subjects) == 1 + 1 + 1 + 1 + 2 + 20
            async with receiving(broker, keeper, subjects=subjects, kind=StoredUploads):
                await until(lambda: len(keeper.bodies) == len(bodies))
                await asyncio.sleep(0.1)
                assert await stored_messages(connection, subjects) == 0
        assert sorted(keeper.bodies) == sorted(bodies)

    run(use())


def test_a_receiver_that_is_restarted_halfway(broker, tmp_path):
    async def use():
        keeper, subjects, body = Keeper(), Subjects(generate_federation_id()), some_bytes(40 * CHUNK)
        async with await connect(settings_for(broker), "peer") as connection:
            await Broadcasts(connection, subjects).create_streams()
            await store(connection, subjects, body[: 2 * CHUNK])
            sending = asyncio.create_task(store(connection, subjects, body))
            async with receiving(broker, keeper, subjects=subjects, kind=StoredUploads, directory=tmp_path):
                await until(lambda: keeper.bodies)
            await sending
            async with receiving(broker, keeper, subjects=subjects, kind=StoredUploads, directory=tmp_path):
                await until(lambda: body in keeper.bodies and not list((tmp_path / "stored").glob("*.note")))
        # One that was being handled when the first receiver stopped is handled again.
        assert {len(each) for each in keeper.bodies} == {2 * CHUNK, len(body)}
        assert not list((tmp_path / "stored").iterdir())

    run(use())


def test_a_whole_upload_that_was_not_handled_is_handled_after_a_restart(broker, tmp_path):
    class Stuck(Keeper):
        async def handle(self, peer, offer, body):
            await asyncio.sleep(60)

    async def use():
        keeper, subjects = Keeper(), Subjects(generate_federation_id())
        async with await connect(settings_for(broker), "peer") as connection:
            await Broadcasts(connection, subjects).create_streams()
            await store(connection, subjects, b"abc")
            async with receiving(broker, Stuck(), subjects=subjects, kind=StoredUploads, directory=tmp_path):
                while await stored_messages(connection, subjects):
                    await asyncio.sleep(0.01)
            async with receiving(broker, keeper, subjects=subjects, kind=StoredUploads, directory=tmp_path):
                await until(lambda: keeper.bodies == [b"abc"])

    run(use())


@pytest.mark.parametrize("seconds", [5.0, 0.0])
def test_a_handler_that_is_busy_gets_it_again(broker, monkeypatch, seconds):
    """Nobody would send it once more; but a handler that stays busy is not asked for ever."""
    monkeypatch.setattr(stored_uploads, "_RETRY_SECONDS", 0.05)

    class Busy(Keeper):
        stall_seconds, asked = seconds, 0

        async def handle(self, peer, offer, body):
            self.asked += 1
            if self.asked <= 3:
                body.close()
                raise ServiceBusyError("expected room, got none")
            return await super().handle(peer, offer, body)

    async def use():
        keeper, body = Busy(), some_bytes(3 * CHUNK)
        async with (
            receiving(broker, keeper, kind=StoredUploads) as subjects,
            await connect(settings_for(broker), "peer") as connection,
        ):
            await store(connection, subjects, body)
            await until(lambda: keeper.bodies if seconds else keeper.asked)
            await asyncio.sleep(0.2)
        assert keeper.bodies == ([body] if seconds else [])
        assert keeper.asked == (4 if seconds else 1)

    run(use())


@pytest.mark.parametrize("storage", ["file", "memory"])
def test_a_broker_that_is_killed_halfway(tmp_path, storage):
    async def use(broker):
        keeper, body = Keeper(), some_bytes(300 * CHUNK)
        settings = settings_for(broker, storage=storage)
        async with (
            receiving(broker, keeper, kind=StoredUploads, settings=settings) as subjects,
            await connect(settings, "peer") as connection,
        ):
            sending = asyncio.create_task(store(connection, subjects, body))
            while await stored_messages(connection, subjects) == 0:
                await asyncio.sleep(0)
            broker.kill()
            assert not sending.done()
            await asyncio.sleep(0.1)
            await asyncio.to_thread(broker.start)
            await sending
            # What was delivered when the broker went, and not acknowledged, is delivered again after 30 s.
            await until(lambda: keeper.bodies, seconds=90)
        assert keeper.bodies == [body]

    with running_broker(tmp_path) as broker:
        run(use(broker))


def small_queue(broker):
    """Settings with the least room: 24 MiB for uploads."""
    return settings_for(broker, stream_max_bytes=32 * 2**20, chunk_bytes=2**20, request_timeout_seconds=3)


def test_a_full_queue_is_told_when_patience_ends(broker):
    async def use():
        async with await connect(small_queue(broker), "peer") as connection:
            subjects = Subjects(generate_federation_id())
            await Broadcasts(connection, subjects).create_streams()
            with pytest.raises(BackPressureError, match="maximum bytes exceeded"):
                await store(connection, subjects, some_bytes(30 * 2**20), patience_seconds=0.5)

    run(use())


def test_a_full_queue_is_waited_for(broker):
    """Parts of three uploads fill the queue before anybody listens; then all become whole."""

    async def use():
        keeper, subjects = Keeper(), Subjects(generate_federation_id())
        bodies = [some_bytes(12 * 2**20, seed) for seed in range(3)]
        async with await connect(small_queue(broker), "peer") as connection:
            await Broadcasts(connection, subjects).create_streams()
            sending = [asyncio.create_task(store(connection, subjects, body)) for body in bodies]
            await asyncio.sleep(0.5)
            assert not all(task.done() for task in sending)
            async with receiving(broker, keeper, subjects=subjects, kind=StoredUploads, settings=small_queue(broker)):
                await asyncio.gather(*sending)
                await until(lambda: len(keeper.bodies) == 3)
        assert sorted(map(hash, keeper.bodies)) == sorted(map(hash, bodies))

    run(use())


def test_what_the_spool_has_no_room_for_stays_in_the_queue(broker, tmp_path):
    async def use():
        keeper = Keeper(seconds=0)
        async with (
            receiving(broker, keeper, kind=StoredUploads, max_spool_bytes=15 * CHUNK, directory=tmp_path) as subjects,
            await connect(settings_for(broker), "peer") as connection,
        ):
            bodies = [some_bytes(10 * CHUNK, seed) for seed in range(2)]
            await asyncio.gather(*(store(connection, subjects, body) for body in bodies))
            await until(lambda: len(keeper.bodies) == 2)
        assert sorted(keeper.bodies) == sorted(bodies)

    run(use())


def test_chunks_that_belong_nowhere_are_taken_out_of_the_queue(broker):
    async def use():
        keeper = Keeper(max_bytes=100, reason="not_wanted")
        async with (
            receiving(broker, keeper, kind=StoredUploads) as subjects,
            await connect(settings_for(broker), "peer") as connection,
        ):
            header = ChunkHeader(bytes(16), 0, 1, 3).to_bytes()
            await store_message(connection, f"{subjects.upload('peer', 'ff')}.0", b"nonsense")
            await store_message(connection, f"{subjects.upload('peer', 'ff')}.0.more", header + b"abc")
            offer = json.dumps(
                {"id": "00" * 16, "size": 3, "sha256": "00" * 32, "kind": "test", "round": "", "chunk_bytes": 10}
            )
            await store_message(
                connection, f"{subjects.upload('peer', 'ff')}.0", header + b"abc", headers={"Pet-Upload": offer}
            )
            await store_message(
                connection, f"{subjects.upload('peer', '00' * 16)}.0", header + b"abc", headers={"Pet-Upload": offer}
            )
            await store(connection, subjects, bytes(101))
            await store(connection, subjects, b"", kind="other")
            await store(connection, subjects, b"good")
            await until(lambda: keeper.bodies)
            while await stored_messages(connection, subjects):
                await asyncio.sleep(0.01)
        assert keeper.bodies == [b"good"]

    run(use())


def test_without_streams(broker):
    async def use():
        async with await connect(settings_for(broker), "peer") as connection:
            subjects = Subjects(generate_federation_id())
            with pytest.raises(MissingError):
                await store(connection, subjects, b"abc", patience_seconds=0)
            with pytest.raises(MissingError):
                await StoredUploads(connection, subjects, Keeper()).start()

    run(use())


def test_streams_of_another_shape_are_told(broker):
    async def use():
        async with await connect(settings_for(broker), "peer") as connection:
            subjects = Subjects(generate_federation_id())
            await ask_storage(
                connection, f"STREAM.CREATE.{subjects.event_stream}", {"name": subjects.event_stream, "subjects": ["elsewhere"]}
            )
            with pytest.raises(TransportConfigError, match="expected a stream with the subjects"):
                await Broadcasts(connection, subjects).create_streams()
            other = Subjects(generate_federation_id())
            await ask_storage(connection, "STREAM.CREATE.other", {"name": "other", "subjects": [other.prefix + "evt.>"]})
            with pytest.raises(TransportConfigError, match="overlap"):
                await Broadcasts(connection, other).create_streams()

    run(use())


def test_a_broker_with_too_little_memory(tmp_path):
    async def use(broker):
        async with await connect(settings_for(broker, storage="memory"), "peer") as connection:
            with pytest.raises(TransportConfigError, match="insufficient"):
                await Broadcasts(connection, Subjects(generate_federation_id())).create_streams()

    config = f'jetstream {{ store_dir: "{tmp_path}/js", max_mem: 64M, max_file: 10G }}'
    with running_broker(tmp_path, config) as broker:
        run(use(broker))
