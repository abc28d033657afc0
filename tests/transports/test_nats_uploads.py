"""Uploads in mode `direct` over a real nats-server: what is lost, doubled, reordered, killed or restarted costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from nats_broker import run, running_broker
from nats_uploads import CHUNK, CountedConnection, Keeper, receiving, send, settings_for, some_bytes, until

from pet.errors import CounterpartOfflineError, TransportError, UnreachableError
from pet.transports.nats import Subjects, UploadOffer, connect, generate_federation_id, incoming_upload
from pet.transports.nats.frames import ChunkHeader, OpenAnswer


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("directory", [False, True], ids=["temporary", "kept"])
def test_every_size_arrives_as_it_was(broker, tmp_path, directory, is_sealed):
    async def use():
        keeper = Keeper()
        async with (
            receiving(broker, keeper, directory=tmp_path if directory else None) as subjects,
            await connect(settings_for(broker), "peer") as connection,
        ):
            for size in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK):
                body = some_bytes(size)
                counted = CountedConnection(connection)
                verdict = await send(counted, subjects, memoryview(body), is_sealed=is_sealed)
                assert verdict.is_accepted
                assert keeper.bodies[-1] == body
                assert counted.counts == {"open": 1, "rx": max(1, -(-size // CHUNK)), "done": 1}
        assert len(keeper.bodies) == 6
        assert set(keeper.peers) == {"peer"}
        assert not list(tmp_path.iterdir())

    run(use())


def test_large_uploads_lie_in_files(broker):
    async def use():
        keeper, body = Keeper(), some_bytes(3 * 2**20 + 17)
        settings = settings_for(broker, chunk_bytes=2**20)
        async with receiving(broker, keeper, settings=settings) as subjects, await connect(settings, "peer") as connection:
            assert (await send(connection, subjects, body)).is_accepted
        assert keeper.bodies == [body]

    run(use())


def test_chunks_that_are_lost_doubled_and_reordered(broker, monkeypatch):
    """The first of each third chunk is dropped, each other third comes twice, the last third late."""
    take_chunk = incoming_upload.IncomingUpload._take_chunk
    seen, late = set(), []

    def disturbed(self, message):
        index = int.from_bytes(message.data[24:28], "big")
        if index % 3 == 0 and index not in seen:
            seen.add(index)
            return
        if index % 3 == 1:
            take_chunk(self, message)
            take_chunk(self, message)
            return
        if index % 3 == 2:
            late.append(index)
            asyncio.get_running_loop().call_later(0.02, take_chunk, self, message)
            return
        take_chunk(self, message)

    monkeypatch.setattr(incoming_upload.IncomingUpload, "_take_chunk", disturbed)

    async def use():
        keeper, body = Keeper(), some_bytes(12 * CHUNK + 5)
        settings = settings_for(broker, request_timeout_seconds=0.3)
        async with receiving(broker, keeper) as subjects, await connect(settings, "peer") as connection:
            assert (await send(connection, subjects, body)).is_accepted
        assert keeper.bodies == [body]
        assert len(seen) == 5
        assert len(late) == 4

    run(use())


def test_the_same_upload_again_is_handled_once(broker):
    async def use():
        keeper, body = Keeper(), some_bytes(3 * CHUNK)
        async with receiving(broker, keeper) as subjects, await connect(settings_for(broker), "peer") as connection:
            verdicts = await asyncio.gather(*(send(connection, subjects, body) for _ in range(3)))
            counted = CountedConnection(connection)
            verdicts.append(await send(counted, subjects, body))
            assert counted.counts == {"open": 1}
            assert all(verdict.is_accepted for verdict in verdicts)
            assert len(keeper.bodies) == 1
            await send(connection, subjects, body, round_name="another round")
            assert len(keeper.bodies) == 2

    run(use())


def test_refusals(broker):
    async def use():
        keeper = Keeper(max_bytes=100, reason="not_wanted")
        async with receiving(broker, keeper) as subjects, await connect(settings_for(broker), "peer") as connection:
            assert (await send(connection, subjects, bytes(101))).reason == "too_large"
            assert (await send(connection, subjects, b"", kind="other")).reason == "unknown_kind"
            assert (await send(connection, subjects, b"abc")).reason == "not_wanted"
            answer = OpenAnswer.from_bytes(await connection.request(subjects.open("peer"), b"nonsense"))
            assert answer.verdict.reason == "malformed_offer"
            wrong = UploadOffer(upload_id=bytes(16), size_bytes=3, sha256=bytes(32), kind="test", round="", chunk_bytes=10)
            answer = OpenAnswer.from_bytes(await connection.request(subjects.open("peer"), wrong.to_bytes()))
            for bad in (b"", b"PETC" + bytes(36), ChunkHeader(bytes(16), 0, 1, 3).to_bytes() + b"four"):
                with pytest.raises(UnreachableError):
                    await connection.request(subjects.chunk(answer.slot), bad, timeout_seconds=0.1)
            await connection.request(subjects.chunk(answer.slot), ChunkHeader(bytes(16), 0, 1, 3).to_bytes() + b"abc")
            done = OpenAnswer.from_bytes(await connection.request(subjects.done(answer.slot)))
            assert done.verdict.reason == "wrong_digest"
            late = UploadOffer(upload_id=b"l" * 16, size_bytes=1, sha256=b"", kind="test", round="", chunk_bytes=10)
            answer = OpenAnswer.from_bytes(await connection.request(subjects.open("peer"), late.to_bytes()))
            await connection.request(subjects.chunk(answer.slot), ChunkHeader(b"l" * 16, 0, 1, 1).to_bytes() + b"a")
            with pytest.raises(UnreachableError):
                await connection.request(subjects.done(answer.slot), b"no digest", timeout_seconds=0.1)
            done = OpenAnswer.from_bytes(await connection.request(subjects.done(answer.slot), bytes(32)))
            assert done.verdict.reason == "wrong_digest"
            # Another upload under a known id is none of ours.
            answer = OpenAnswer.from_bytes(await connection.request(subjects.open("peer"), wrong.to_bytes()))
            assert not answer.verdict.is_accepted

    run(use())


def test_another_upload_under_an_id_in_use(broker):
    async def use():
        async with receiving(broker, Keeper()) as subjects, await connect(settings_for(broker), "peer") as connection:
            offer = UploadOffer(upload_id=bytes(16), size_bytes=3, sha256=bytes(32), kind="test", round="", chunk_bytes=10)
            first = OpenAnswer.from_bytes(await connection.request(subjects.open("peer"), offer.to_bytes()))
            again = OpenAnswer.from_bytes(await connection.request(subjects.open("peer"), offer.to_bytes()))
            assert first.slot == again.slot
            other = UploadOffer(upload_id=bytes(16), size_bytes=4, sha256=bytes(32), kind="test", round="", chunk_bytes=10)
            refused = OpenAnswer.from_bytes(await connection.request(subjects.open("peer"), other.to_bytes()))
            assert refused.verdict.reason == "foreign_chunk"
            # The same id of another sender is another upload.
            stranger = OpenAnswer.from_bytes(await connection.request(subjects.open("other"), other.to_bytes()))
            assert stranger.slot not in {"", first.slot}

    run(use())


SENDER = """
import asyncio, sys
from nats_uploads import some_bytes
from pet.transports.nats import NatsSettings, Subjects, connect, send_upload

async def send():
    settings = NatsSettings(hosts=(sys.argv[1],), chunk_bytes=2**14)
    async with await connect(settings, "peer") as connection:
        body = some_bytes(int(sys.argv[3]))
        verdict = await send_upload(connection, Subjects(sys.argv[2]), "peer", body, kind="test", patience_seconds=30)
        assert verdict.is_accepted

asyncio.run(send())
"""


def test_a_sender_that_is_killed_goes_on_where_it_was(broker, monkeypatch):
    """A process is killed in the middle of its upload; the same upload from here sends only the rest."""
    take_chunk, written = incoming_upload.IncomingUpload._take_chunk, []

    def counted(self, message):
        written.append(None)
        time.sleep(0.002)
        take_chunk(self, message)

    monkeypatch.setattr(incoming_upload.IncomingUpload, "_take_chunk", counted)

    async def use():
        keeper, size = Keeper(), 400 * CHUNK
        async with receiving(broker, keeper) as subjects, await connect(settings_for(broker), "peer") as connection:
            command = [sys.executable, "-c", textwrap.dedent(SENDER), broker.url, subjects.federation_id, str(size)]
            process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
            try:
                await until(lambda: len(written) > 50)
            finally:
                process.kill()
                process.wait()
            connection = CountedConnection(connection)
            assert (await send(connection, subjects, some_bytes(size))).is_accepted
            assert connection.counts["rx"] < 380
        assert hashlib.sha256(keeper.bodies[0]).digest() == hashlib.sha256(some_bytes(size)).digest()
        assert len(keeper.bodies) == 1

    run(use())


def test_a_coordinator_that_is_restarted_halfway(broker, tmp_path):
    async def use():
        keeper, body = Keeper(), some_bytes(300 * CHUNK)
        subjects = Subjects(generate_federation_id())
        async with await connect(settings_for(broker), "peer") as connection:
            counted = CountedConnection(connection)
            async with receiving(broker, keeper, subjects=subjects, directory=tmp_path):
                sending = asyncio.create_task(send(counted, subjects, body))
                await until(lambda: counted.counts.get("rx", 0) > 60)
            assert not sending.done()
            assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".note", ".upload"]
            async with receiving(broker, keeper, subjects=subjects, directory=tmp_path):
                assert (await sending).is_accepted
            # A few chunks were under way when the first one ended, nothing else came twice.
            assert counted.counts["rx"] < 300 + 20
        assert keeper.bodies == [body]
        assert not list(tmp_path.iterdir())

    run(use())


def test_a_broker_that_is_killed_halfway(tmp_path):
    async def use(broker):
        keeper, body = Keeper(), some_bytes(300 * CHUNK)
        async with receiving(broker, keeper) as subjects, await connect(settings_for(broker), "peer") as connection:
            counted = CountedConnection(connection)
            sending = asyncio.create_task(send(counted, subjects, body))
            await until(lambda: counted.counts.get("rx", 0) > 60)
            broker.kill()
            await asyncio.sleep(0.1)
            assert not sending.done()
            await asyncio.to_thread(broker.start)
            assert (await sending).is_accepted
        assert keeper.bodies == [body]

    with running_broker(tmp_path) as broker:
        run(use(broker))


def test_a_broker_that_stays_away(tmp_path):
    async def use(broker):
        async with await connect(settings_for(broker, request_timeout_seconds=0.3), "peer") as connection:
            subjects = Subjects(generate_federation_id())
            with pytest.raises(CounterpartOfflineError):
                await send(connection, subjects, b"abc", patience_seconds=0.3)
            broker.kill()
            with pytest.raises(UnreachableError):
                await send(connection, subjects, b"abc", patience_seconds=0.3)
            deadline = asyncio.get_running_loop().time() + 0.2
            with pytest.raises(UnreachableError):
                await send(connection, subjects, b"abc", patience_seconds=60, deadline=deadline)

    with running_broker(tmp_path, jetstream=False) as broker:
        run(use(broker))


def test_a_slow_receiver_is_waited_for_and_handles_once(broker):
    async def use():
        keeper, body = Keeper(seconds=1.5), some_bytes(5 * CHUNK)
        settings = settings_for(broker, request_timeout_seconds=0.3)
        async with receiving(broker, keeper) as subjects, await connect(settings, "peer") as connection:
            assert (await send(connection, subjects, body, patience_seconds=0.5)).is_accepted
        assert keeper.bodies == [body]

    run(use())


def test_a_receiver_that_stops_tells_what_became_of_the_last_upload(broker):
    """A coordinator may end with the message that ends its round; the sender must not take that for a failure."""

    async def use():
        stop = asyncio.Event()

        class Stopping(Keeper):
            async def handle(self, peer, offer, body):
                body.close()
                stop.set()

        class LateConnection(CountedConnection):
            async def request(self, subject, *payload, **options):
                if ".done." in subject:
                    await asyncio.sleep(0.2)
                return await super().request(subject, *payload, **options)

        async with await connect(settings_for(broker), "peer") as connection:
            async with receiving(broker, Stopping()) as subjects:
                late = LateConnection(connection)
                sending = asyncio.create_task(send(late, subjects, b"the last one", patience_seconds=0))
                await stop.wait()
            assert (await sending).is_accepted

    run(use())


def test_many_senders_share_few_slots(broker):
    async def use():
        keeper, bodies = Keeper(), [some_bytes(10 * CHUNK, seed) for seed in range(12)]
        async with receiving(broker, keeper, slots=2) as subjects, await connect(settings_for(broker), "peer") as connection:
            counted = CountedConnection(connection)
            verdicts = await asyncio.gather(*(send(counted, subjects, body) for body in bodies))
            assert all(verdict.is_accepted for verdict in verdicts)
            assert counted.counts["open"] > len(bodies)
        assert sorted(keeper.bodies) == sorted(bodies)

    run(use())


def test_disk_for_uploads_is_bounded(broker, tmp_path):
    async def use():
        keeper, bodies = Keeper(seconds=0.2), [some_bytes(10 * CHUNK, seed) for seed in range(3)]
        async with (
            receiving(broker, keeper, max_spool_bytes=15 * CHUNK, directory=tmp_path) as subjects,
            await connect(settings_for(broker), "peer") as connection,
        ):
            counted = CountedConnection(connection)
            await asyncio.gather(*(send(counted, subjects, body) for body in bodies))
            assert counted.counts["open"] > len(bodies)
        assert sorted(keeper.bodies) == sorted(bodies)

    run(use())


def test_a_sender_that_stops_loses_its_slot(broker):
    async def use():
        keeper, body = Keeper(), some_bytes(2 * CHUNK)
        keeper.stall_seconds = 0.2
        async with receiving(broker, keeper, slots=1) as subjects, await connect(settings_for(broker), "peer") as connection:
            offer = UploadOffer(upload_id=bytes(16), size_bytes=3, sha256=bytes(32), kind="test", round="", chunk_bytes=10)
            answer = OpenAnswer.from_bytes(await connection.request(subjects.open("idle"), offer.to_bytes()))
            assert answer.expires_seconds == 0.2
            assert (await send(connection, subjects, body)).is_accepted

            async def ask_until_gone():
                while True:
                    with contextlib.suppress(UnreachableError):  # nobody answers what is no chunk
                        await connection.request(subjects.chunk(answer.slot), b"", timeout_seconds=0.1)

            with pytest.raises(CounterpartOfflineError):
                await ask_until_gone()

    run(use())


def test_two_federations_do_not_see_each_other(broker):
    async def use():
        first, second = Keeper(), Keeper()
        async with (
            receiving(broker, first) as ours,
            receiving(broker, second) as theirs,
            await connect(settings_for(broker), "peer") as connection,
        ):
            await send(connection, ours, b"for us")
            await send(connection, theirs, b"for them")
        assert (first.bodies, second.bodies) == ([b"for us"], [b"for them"])

    run(use())


def test_an_answer_outside_the_protocol(broker):
    async def use():
        async with (
            await connect(settings_for(broker), "fake") as fake,
            await connect(settings_for(broker), "peer") as connection,
        ):
            subjects = Subjects(generate_federation_id())

            async def answer(subject, payload):
                return json.dumps({"slot": "a.b", "chunk_bytes": 1, "window": 1, "have": "", "expires": 1}).encode()

            await fake.serve(subjects.open_all, answer)
            with pytest.raises(TransportError, match="expected slot, wait or verdict"):
                await send(connection, subjects, b"abc", patience_seconds=0)

    run(use())
