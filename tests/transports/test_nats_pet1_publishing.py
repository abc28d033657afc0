"""What a coordinator of pet/1 publishes at a real nats-server: batches, what is larger than a message, round after round."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats_broker import FEDERATION, Broker, run, running_broker

from pet.buffers import Buffer
from pet.errors import TransportError
from pet.pet1.hashes import digest
from pet.pet1.header_batch import HeaderBatch
from pet.transports.nats import AsyncNatsTransport, Broadcasts, NatsConnection, NatsSettings, Subjects, connect
from pet.transports.nats.pet1_frames import (
    BATCH_HEADERS,
    decode_published,
    encode_published,
    event_name,
    headers_subject,
)
from pet.transports.nats.pet1_publishing import Pet1Publisher
from pet.transports.nats.storage import ask_storage
from pet.transports.pet1 import OpenedUpdate, Pet1Document, PublishedDocument, UpdateSizes

SUBJECTS = Subjects(FEDERATION)
#: So that 4 KiB are a message.
CHUNK_BYTES = 2**13


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


class Announced:
    """An endpoint whose rounds the test makes."""

    def __init__(self) -> None:
        self.documents: dict[Pet1Document, PublishedDocument] = {}
        self.all_headers: list[bytes] = []

    def begin(self, name: bytes) -> None:
        """Begin a round; manifest and certificate of the one before stay."""
        self.documents.pop(Pet1Document.COMMITTEE, None)
        self.all_headers = []
        for kind in (Pet1Document.ROUND, Pet1Document.ENROLMENT):
            self.put(kind, name)

    def put(self, kind: Pet1Document, data: bytes) -> None:
        self.documents[kind] = PublishedDocument(data, digest("pet-1 round", data))

    def document(self, document: Pet1Document) -> PublishedDocument | None:
        return self.documents.get(document)

    def headers(self, after: int) -> HeaderBatch:
        found = tuple(self.all_headers[after:])
        return HeaderBatch(found, after + len(found))

    def update_sizes(self) -> UpdateSizes | None:
        raise AssertionError("nobody sends updates")

    def open_update(self, sealed: Any) -> OpenedUpdate:
        raise AssertionError("nobody sends updates")

    def take_leaves(self, upload: bytes, first: int, leaves: Buffer) -> bytes:
        raise AssertionError("nobody sends updates")


@asynccontextmanager
async def published(broker: Broker) -> AsyncIterator[tuple[Announced, Pet1Publisher, AsyncNatsTransport, NatsConnection]]:
    endpoint: Any = Announced()
    settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=20, chunk_bytes=CHUNK_BYTES)
    async with await connect(settings, "coordinator") as connection, await connect(settings, "reader") as other:
        await Broadcasts(connection, SUBJECTS).create_streams()
        yield endpoint, Pet1Publisher(endpoint, connection, SUBJECTS), AsyncNatsTransport(other, SUBJECTS), connection
        await Broadcasts(connection, SUBJECTS).delete_streams()


def playing(play: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[Broker], None]:
    """Make a test of a coroutine that gets what `published` yields."""

    def test(broker: Broker) -> None:
        async def use() -> None:
            async with published(broker) as given:
                await play(*given)

        run(use())

    return test


@playing
async def test_share_headers_are_read_from_any_number(
    endpoint: Announced, publisher: Pet1Publisher, transport: AsyncNatsTransport, connection: NatsConnection
) -> None:
    """Also while they come, with two full batches, one of which takes several messages, and a header that takes three."""
    endpoint.begin(b"first")
    for count, size in ((3, 20), (70, 20), (5, 20), (1, 10_000), (60, 100)):
        endpoint.all_headers += [b"%d" % number * size for number in range(count)]
        await publisher.publish(None)
        assert await transport.get_document(Pet1Document.ROUND) == b"first"
        for after in (0, 1, 63, 64, 78, len(endpoint.all_headers)):
            assert await read_all(transport, after) == endpoint.all_headers[after:], after
    assert len(endpoint.all_headers) > 2 * BATCH_HEADERS
    counts = [len((await stored_batch(connection, first)).headers) for first in (0, 1, BATCH_HEADERS)]
    assert counts == [BATCH_HEADERS, 1, 14]  # as many as one message takes: the fifteenth is the large one


async def read_all(transport: AsyncNatsTransport, after: int) -> list[bytes]:
    headers = list[bytes]()
    while (batch := await transport.get_headers(after)).headers:
        headers += batch.headers
        assert batch.next_number == after + len(batch.headers)
        after = batch.next_number
    return headers


async def stored_batch(connection: NatsConnection, first: int) -> HeaderBatch:
    data = await Broadcasts(connection, SUBJECTS).last_broadcast(headers_subject(SUBJECTS, first))
    found = None if data is None else decode_published(data, "headers")
    assert found is not None
    assert isinstance(found.content, bytes)
    return HeaderBatch.decode(found.content, first)


@playing
async def test_a_round_is_seen_with_what_belongs_to_it(
    endpoint: Announced, publisher: Pet1Publisher, transport: AsyncNatsTransport, connection: NatsConnection
) -> None:
    """Documents that are larger than a message, too; the enrolment is stored again in each round, and nothing else is."""
    endpoint.begin(b"one" * 5000)
    endpoint.all_headers = [b"header"]
    for kind in (Pet1Document.COMMITTEE, Pet1Document.MANIFEST, Pet1Document.CERTIFICATE, Pet1Document.MODEL):
        endpoint.put(kind, kind.value.encode() * 3000)
    await publisher.publish(None)
    first = {kind: bytes(document.data) for kind, document in endpoint.documents.items()}
    assert {kind: await transport.get_document(kind) for kind in Pet1Document} == first
    assert publisher.is_published()
    sent = await stored_messages(connection)
    await publisher.publish(None)
    assert await stored_messages(connection) == sent
    endpoint.begin(b"two" * 5000)
    assert not publisher.is_published()
    await publisher.publish(None)
    later = first | {Pet1Document.ROUND: b"two" * 5000, Pet1Document.ENROLMENT: b"two" * 5000, Pet1Document.COMMITTEE: None}
    assert {kind: await transport.get_document(kind) for kind in Pet1Document} == later
    assert await transport.get_headers(0) == HeaderBatch((), 0)
    endpoint.documents[Pet1Document.ROUND] = PublishedDocument(b"three", bytes(32))  # with the enrolment of the one before
    before = await stored_messages(connection)
    await publisher.publish(None)
    assert await stored_messages(connection) == before + 4  # fifteen kilobytes


async def stored_messages(connection: NatsConnection) -> int:
    """Return how many messages were ever stored in the broadcast stream."""
    found = await ask_storage(connection, f"STREAM.INFO.{SUBJECTS.broadcast_stream}")
    return int(found["state"]["last_seq"])


@playing
async def test_what_is_no_document_is_no_answer(
    endpoint: Announced, publisher: Pet1Publisher, transport: AsyncNatsTransport, connection: NatsConnection
) -> None:
    endpoint.begin(b"first")
    await publisher.publish(None)
    broadcasts = Broadcasts(connection, SUBJECTS)
    for payload in (b"", b"\0\0", b"\1" + bytes(31), b"\2" + bytes(32) + b"{}", b"\3" + bytes(40)):
        await broadcasts.publish_event(event_name(Pet1Document.COMMITTEE), payload)
        with pytest.raises(TransportError):
            await transport.get_document(Pet1Document.COMMITTEE)
    await broadcasts.publish_event(event_name(Pet1Document.COMMITTEE), encode_published(bytes(32), b""))
    assert await transport.get_document(Pet1Document.COMMITTEE) == b""
