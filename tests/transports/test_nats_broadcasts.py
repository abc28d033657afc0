"""Events and large results over a real nats-server."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from nats_broker import run, running_broker
from nats_uploads import settings_for, some_bytes, until

from pet.errors import AnswerTooLargeError, MissingError, RemoteProtocolError, TransportConfigError, TransportError
from pet.transports.nats import BlobReference, Broadcasts, Subjects, connect, generate_federation_id
from pet.transports.nats.answers import decode_answer, encode_answer
from pet.transports.nats.broadcasts import parse_headers
from pet.transports.nats.storage import ask_storage


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


def test_headers_are_kept_with_an_event_and_read_strictly(broker):
    async def use():
        async with await connect(settings_for(broker), "admin") as connection:
            broadcasts = Broadcasts(connection, Subjects(generate_federation_id()))
            await broadcasts.create_streams()
            await broadcasts.publish_event("phase", b"sum", {"Pet-One": "1 2", "Pet-Two": "3"})
            assert await broadcasts.last_event_with_headers("phase") == (b"sum", {"Pet-One": "1 2", "Pet-Two": "3"})
            await broadcasts.publish_event("phase", b"update")
            assert await broadcasts.last_event_with_headers("phase") == (b"update", {})
            assert await broadcasts.last_event_with_headers("absent") is None

    run(use())
    assert parse_headers(b"NATS/1.0\r\nA: 1\r\nB:2\r\n\r\n") == {"A": "1", "B": "2"}
    for bad in (b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n", b"NATS/1.0\r\nA: 1\r\nB\r\n\r\n"):
        assert parse_headers(bad) == {}


def test_events(broker):
    async def use():
        seen = []

        async def note(name, payload):
            seen.append((name, payload))

        async with await connect(settings_for(broker), "admin") as connection:
            broadcasts = Broadcasts(connection, Subjects(generate_federation_id()))
            assert await broadcasts.last_event("phase") is None
            await broadcasts.create_streams()
            await broadcasts.create_streams()
            assert await broadcasts.last_event("phase") is None
            await broadcasts.watch_events(note)
            for number in range(30):
                await broadcasts.publish_event("phase", b"%d" % number)
            await broadcasts.publish_event("empty", b"")
            assert await broadcasts.last_event("phase") == b"29"
            assert await broadcasts.last_event("empty") == b""
            await until(lambda: len(seen) == 31)
            assert seen[0] == ("phase", b"0")
            record = await ask_storage(connection, f"STREAM.INFO.{broadcasts.subjects.event_stream}")
            assert record["state"]["messages"] == 2
            with pytest.raises(TransportConfigError, match="65536"):
                await broadcasts.publish_event("phase", bytes(2**16 + 1))
            await broadcasts.delete_streams()
            await broadcasts.delete_streams()
            assert await broadcasts.last_event("phase") is None

    run(use())


def test_large_results(broker):
    async def use():
        async with await connect(settings_for(broker), "admin") as admin, await connect(settings_for(broker), "peer") as peer:
            subjects = Subjects(generate_federation_id())
            publishing, reading = Broadcasts(admin, subjects), Broadcasts(peer, subjects)
            await publishing.create_streams()
            chunk = admin.max_chunk_bytes
            for size in (0, 1, chunk - 1, chunk, chunk + 1, 20 * chunk):
                body = some_bytes(size)
                pieces = [body[start : start + 10_007] for start in range(0, size, 10_007)]
                reference = await publishing.publish_blob(subjects.model("7"), pieces, media_type="text/plain")
                assert (reference.size_bytes, reference.media_type) == (size, "text/plain")
                same = BlobReference.from_bytes(reference.to_bytes())
                assert same == reference
                assert await reading.fetch_blob(same, size) == body
            with pytest.raises(AnswerTooLargeError):
                await reading.fetch_blob(reference, size - 1)
            assert (await asyncio.gather(*(reading.fetch_blob(reference, size) for _ in range(5)))) == [body] * 5
            newer = await publishing.publish_blob(subjects.model("7"), some_bytes(size, 2))
            for gone in (
                reference,  # replaced
                dataclasses.replace(newer, subject=subjects.model("8")),
                dataclasses.replace(newer, chunk_bytes=chunk - 1),
            ):
                with pytest.raises(MissingError):
                    await reading.fetch_blob(gone, 2**30)
            with pytest.raises(TransportError, match="expected a subject of"):
                await reading.fetch_blob(dataclasses.replace(newer, subject="pet.v1.other.model.7"), 2**30)

    run(use())


def test_what_does_not_fit_is_told(broker):
    async def use():
        settings = settings_for(broker, stream_max_bytes=32 * 2**20, chunk_bytes=2**20)
        async with await connect(settings, "admin") as connection:
            broadcasts = Broadcasts(connection, Subjects(generate_federation_id()))
            await broadcasts.create_streams()
            with pytest.raises(TransportConfigError, match="nats_stream_max_memory"):
                await broadcasts.publish_blob(broadcasts.subjects.model("1"), bytes(8 * 2**20))

    run(use())


def test_a_broker_with_little_room_keeps_what_is_there_and_nothing_of_what_is_refused(tmp_path):
    """Room for one federation: its streams are found again, a second one's are refused as a whole, and then there is room."""

    async def use(broker):
        settings = settings_for(broker, stream_max_bytes=96 * 2**20)
        async with await connect(settings, "admin") as connection:
            first, second = (Broadcasts(connection, Subjects(generate_federation_id())) for _ in range(2))
            assert len(await first.create_streams()) == 3
            await first.publish_event("phase", b"kept")
            assert await first.create_streams() == []
            for _ in range(3):
                with pytest.raises(TransportConfigError):
                    await second.create_streams()
            assert (await ask_storage(connection, "STREAM.NAMES"))["total"] == 3
            assert await first.last_event("phase") == b"kept"

            await ask_storage(connection, f"STREAM.DELETE.{first.subjects.upload_stream}")
            assert await first.create_streams() == [first.subjects.upload_stream]
            await first.delete_streams()
            assert len(await second.create_streams()) == 3

            other = Broadcasts(connection, second.subjects, max_age_seconds=7200)
            with pytest.raises(TransportConfigError, match="max_age"):
                await other.create_streams()
            assert (await ask_storage(connection, "STREAM.NAMES"))["total"] == 3

    storage = f'jetstream {{ store_dir: "{tmp_path}/jetstream", max_file: 150M, max_mem: 1M }}'
    with running_broker(tmp_path, storage) as broker:
        run(use(broker))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"subject":"a","size_bytes":-1,"chunk_bytes":1,"sha256":""}',
        b'{"subject":"a","size_bytes":1,"chunk_bytes":0,"sha256":""}',
        b'{"subject":"a","size_bytes":true,"chunk_bytes":1,"sha256":""}',
        b'{"subject":"a","size_bytes":1e9,"chunk_bytes":1,"sha256":""}',
        b'{"subject":7,"size_bytes":1,"chunk_bytes":1,"sha256":""}',
        b'{"subject":"a","size_bytes":1073741824,"chunk_bytes":1,"sha256":""}',
        b'{"subject":"a","size_bytes":1,"chunk_bytes":1,"sha256":"","more":1}',
    ],
)
def test_bad_references(data):
    with pytest.raises(RemoteProtocolError) as caught:
        BlobReference.from_bytes(data)
    assert caught.value.reason == "malformed_reference"
    with pytest.raises(TransportError):
        decode_answer(b"\x02" + data, "model")


def test_answers():
    reference = BlobReference(subject="a", size_bytes=1, chunk_bytes=1, sha256="00")
    for answer in (None, b"", b"abc", reference):
        assert decode_answer(encode_answer(answer), "sums") == answer
    for bad in (b"", b"\x00x", b"\x03", b"abc"):
        with pytest.raises(TransportError, match="sums"):
            decode_answer(bad, "sums")
