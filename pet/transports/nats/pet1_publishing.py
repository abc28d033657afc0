"""What a coordinator of pet/1 publishes, put at the broker: its documents as events, and share headers as they come.

A reader that sees a round begin finds the model that it starts from and its enrolment, and no committee of the round before;
manifest and certificate of that one stay until their successors take their place. Each share header is a message of its own,
so that a reader may be at any number; where a number begins a batch, the whole batch takes that message's place once it is
full, so that who comes late asks once for many.

Large documents go into the broadcast stream, which drops what is oldest when it is full. So an enrolment is stored again in
each round, behind the model. A model that is there as a .npy file for all is not stored again.

Source: docs/spec/profile.md 15.1, 15.2.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from pet.buffers import Buffer
from pet.pet1.hashes import DIGEST_BYTES
from pet.pet1.header_batch import HeaderBatch
from pet.transports.nats.broadcasts import MAX_EVENT_BYTES, BlobReference, Broadcasts, finish_all
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.pet1_frames import BATCH_HEADERS, NOTHING, OTHER_PROFILE, encode_published, event_name, headers_subject
from pet.transports.nats.storage import store_message
from pet.transports.nats.subjects import Subjects
from pet.transports.pet1 import Pet1Document, Pet1Endpoint, PublishedDocument

_Documents = dict[Pet1Document, PublishedDocument | None]

#: Share headers that are stored at the same time.
_WINDOW: Final = 4
#: What a message needs beside a share header: form and digest.
_FRAME_BYTES: Final = 1 + DIGEST_BYTES
#: Bytes of a digest that name a document in the broadcast stream.
_NAME_BYTES: Final = 8
#: What is looked at for a sender that waits for the outcome of its message.
_OUTCOMES: Final = (Pet1Document.ROUND, Pet1Document.COMMITTEE, Pet1Document.MANIFEST, Pet1Document.CERTIFICATE)


class StoredModel(NamedTuple):
    """A model that was stored for all as a .npy file.

    Attributes:
        reference: where it is.
        header: what stands before the weights.
    """

    reference: BlobReference
    header: bytes


class Pet1Publisher:
    """Keeps what is at the broker like what the endpoint publishes.

    Args:
        endpoint: the coordinator.
        connection: to the broker.
        subjects: names of the federation.
        publishes_model: whether participants find models at the broker.
    """

    def __init__(
        self, endpoint: Pet1Endpoint, connection: NatsConnection, subjects: Subjects, *, publishes_model: bool = True
    ) -> None:
        self._endpoint: Final = endpoint
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._broadcasts: Final = Broadcasts(connection, subjects)
        self._publishes_model: Final = publishes_model
        self._stored: StoredModel | None = None
        #: Digest of each document that is at the broker; None for those that are said not to be there.
        self._digests: Final[dict[Pet1Document, bytes | None]] = {}
        self._next_header = 0

    def forget(self) -> None:
        """Publish everything again: the broker may have lost what it had."""
        self._digests.clear()
        self._next_header = 0

    def is_published(self) -> bool:
        """Whether the broker has what the coordinator says of its round."""
        return all(self._is_there(kind, self._endpoint.document(kind)) for kind in _OUTCOMES)

    async def publish(self, stored: StoredModel | None) -> None:
        """Publish what is new.

        Args:
            stored: the last model, which need not be stored a second time; None if it was not stored.

        Raises:
            TransportError: the broker does not take it now.
        """
        self._stored = stored
        documents = {kind: self._endpoint.document(kind) for kind in Pet1Document}
        current = documents[Pet1Document.ROUND]
        if current is None or self._endpoint.document(Pet1Document.ROUND) is not current:
            return  # a round ended just now: the next look sees it whole
        if not self._is_there(Pet1Document.ROUND, current):
            await self._begin_round(documents)
        await self._put(Pet1Document.COMMITTEE, documents[Pet1Document.COMMITTEE])
        await self._publish_headers(current.digest)
        await self._put_result(documents)

    async def _begin_round(self, documents: _Documents) -> None:
        """Publish a round's record, and before it what ended the round before."""
        await self._put_result(documents)
        await self._put(Pet1Document.COMMITTEE, None)
        self._digests.pop(Pet1Document.ENROLMENT, None)
        for kind in (Pet1Document.ENROLMENT, Pet1Document.ROUND):
            await self._put(kind, documents[kind])
        self._next_header = 0

    async def _put_result(self, documents: _Documents) -> None:
        """Publish what ends a round, the model first."""
        if self._publishes_model:
            await self._put(Pet1Document.MODEL, documents[Pet1Document.MODEL])
        for kind in (Pet1Document.MANIFEST, Pet1Document.CERTIFICATE):
            await self._put(kind, documents[kind])

    def _is_there(self, kind: Pet1Document, document: PublishedDocument | None) -> bool:
        return kind in self._digests and self._digests[kind] == (None if document is None else document.digest)

    async def _put(self, kind: Pet1Document, document: PublishedDocument | None) -> None:
        """Publish a document unless it is there."""
        if self._is_there(kind, document):
            return
        name = event_name(kind)
        payload = NOTHING if document is None else encode_published(document.digest, await self._content(name, document))
        await self._broadcasts.publish_event(name, payload)
        self._digests[kind] = None if document is None else document.digest

    async def _content(self, name: str, document: PublishedDocument) -> Buffer | BlobReference:
        """Return what the event of a document carries: its bytes, or where they were stored."""
        if len(document.data) + _FRAME_BYTES <= min(MAX_EVENT_BYTES, self._connection.max_chunk_bytes):
            return document.data
        if self._stored is not None and await asyncio.to_thread(_is_same, self._stored, document.data):
            return self._stored.reference
        subject = self._subjects.model(f"{name}-{document.digest[:_NAME_BYTES].hex()}")
        return await self._broadcasts.publish_blob(subject, document.data)

    async def _publish_headers(self, record_digest: bytes) -> None:
        """Publish share headers that are new, one by one, and batches that have become full."""
        while headers := self._endpoint.headers(self._next_header).headers:
            current = self._endpoint.document(Pet1Document.ROUND)
            if current is None or current.digest != record_digest:
                return  # they may be those of the round that has begun just now
            together = headers[: min(_WINDOW, BATCH_HEADERS - self._next_header % BATCH_HEADERS)]
            stores = [
                self._store(record_digest, number, (header,)) for number, header in enumerate(together, self._next_header)
            ]
            await finish_all([asyncio.ensure_future(store) for store in stores])
            self._next_header += len(together)
            if self._next_header % BATCH_HEADERS == 0:
                await self._store_batch(record_digest, self._next_header - BATCH_HEADERS)

    async def _store_batch(self, record_digest: bytes, first: int) -> None:
        """Store a full batch in place of its first share header, as many of it as one message takes."""
        batch, room_bytes = list[bytes](), self._connection.max_chunk_bytes - _FRAME_BYTES
        for header in self._endpoint.headers(first).headers[:BATCH_HEADERS]:
            if HeaderBatch((*batch, header), 0).size_bytes > room_bytes:
                break
            batch.append(header)
        if len(batch) > 1:
            await self._store(record_digest, first, batch)

    async def _store(self, record_digest: bytes, first: int, headers: Sequence[bytes]) -> None:
        """Store share headers where the first of them is looked for; one that is larger than a message travels in chunks."""
        subject, data = headers_subject(self._subjects, first), HeaderBatch(tuple(headers), first + len(headers)).encode()
        is_small = len(data) + _FRAME_BYTES <= self._connection.max_chunk_bytes
        content = data if is_small else await self._broadcasts.publish_blob(subject, data)
        await store_message(self._connection, subject, encode_published(record_digest, content))


def _is_same(stored: StoredModel, data: Buffer) -> bool:
    """Return whether a stored model has these weights."""
    if stored.reference.size_bytes != len(stored.header) + len(data):
        return False
    digest = hashlib.sha256(stored.header)
    digest.update(data)
    return digest.hexdigest() == stored.reference.sha256


async def name_other_profile(broadcasts: Broadcasts) -> None:
    """Say that the coordinator speaks another profile.

    Raises:
        TransportError: the broker does not take it now.
    """
    await broadcasts.publish_event(event_name(Pet1Document.ROUND), OTHER_PROFILE)
