"""What a participant or a member of pet/1 asks over NATS: the broker for what is published, the coordinator to take updates.

A piece of an update is sent leaf by leaf, a few at a time. Where there is no room for it now, and where an answer gets lost,
the same is sent again for a while: it does no harm twice.

Source: docs/spec/profile.md 7.3, 15.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final, assert_never

from pet.buffers import Buffer
from pet.errors import (
    AnswerTooLargeError,
    BackPressureError,
    CounterpartOfflineError,
    RemoteProtocolError,
    TransportError,
    UnknownProfileError,
)
from pet.model_formats import NPY, decode_npy
from pet.pet1.answers import ACCEPTED, OPEN, PIECE_HEAD
from pet.pet1.header_batch import MAX_HEADER_BATCH_BYTES, HeaderBatch
from pet.pet1.leaves import LEAF_BYTES
from pet.transports.nats.broadcasts import BlobReference, Broadcasts
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.pet1_frames import OTHER_PROFILE, Published, decode_published, event_name, headers_subject
from pet.transports.nats.pet1_storing import UpdateStoring
from pet.transports.nats.retry import RetryPeriod
from pet.transports.nats.subjects import Subjects
from pet.transports.pet1 import Pet1Document
from pet.transports.pet1_requests import GetDocument, GetHeaders, OpenUpdate, SendPiece

#: Leaves under way to the coordinator: as many bytes as chunks of an upload.
WINDOW: Final = 8
#: Messages with share headers that one call reads; where there are more, the next one goes on.
_MAX_HEADER_READS: Final = 64
#: More than what stands before the weights of a .npy file.
_NPY_HEADER_BYTES: Final = 1024


class Pet1Client:
    """The requests of one transport.

    Args:
        connection: to the broker.
        subjects: names of the federation.
        peer: who sends.
        patience_seconds: how long something is sent again without any progress.
        max_answer_bytes: larger answers are refused.
    """

    def __init__(
        self, connection: NatsConnection, subjects: Subjects, peer: str, patience_seconds: float, max_answer_bytes: int
    ) -> None:
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._peer: Final = peer
        self._patience_seconds: Final = patience_seconds
        self._max_answer_bytes: Final = max_answer_bytes
        self._broadcasts: Final = Broadcasts(connection, subjects)
        #: Digest of the record of the round that was seen last: share headers of another one are none of it.
        self._record_digest: bytes | None = None
        is_stored = connection.settings.mode == "stream"
        self._storing: Final = UpdateStoring(connection, subjects, peer, patience_seconds) if is_stored else None
        #: Of all uploads of this transport together.
        self._window: Final = asyncio.Semaphore(WINDOW)

    async def carry_out(self, request: GetDocument | GetHeaders | OpenUpdate | SendPiece) -> Any:
        """Do what a request says.

        Raises:
            UnknownProfileError: the coordinator does not speak pet/1.
            BackPressureError: there was no room for an update.
            TransportError: broker or coordinator cannot be reached; the subclass says why.
        """
        match request:
            case GetDocument():
                return await self._get_document(request.document, request.max_bytes)
            case GetHeaders():
                return await self._get_headers(request.after)
            case OpenUpdate() if self._storing is not None:
                return await self._storing.open(request.sealed, await self._get_document(Pet1Document.ROUND, None))
            case OpenUpdate():
                return await self._ask(self._subjects.open_update(self._peer), request.sealed)
            case SendPiece():
                return await self._send_piece(request.piece)
            case _:
                assert_never(request)

    async def _get_document(self, document: Pet1Document, max_bytes: int | None) -> bytes | None:
        published = await self._find(document)
        if published is None:
            return None
        limit = self._max_answer_bytes if max_bytes is None else min(max_bytes, self._max_answer_bytes)
        return await self._read(published.content, limit, document.value)

    async def _find(self, document: Pet1Document) -> Published | None:
        """Return what is published of a document.

        Raises:
            UnknownProfileError: the coordinator says that it speaks another profile.
        """
        name = event_name(document)
        data = await self._broadcasts.last_event(name)
        if data is None:
            await self._require_pet1()
            return None
        self._require_profile(data)
        published = decode_published(data, name)
        if document is Pet1Document.ROUND and published is not None:
            self._record_digest = published.digest
        return published

    async def _require_pet1(self) -> None:
        """Check that there is a coordinator, and that it does not say that it speaks another profile.

        A coordinator publishes a round before it takes anything, or says that it speaks another profile.
        """
        data = await self._broadcasts.last_event(event_name(Pet1Document.ROUND))
        if data is None:
            raise CounterpartOfflineError(f"{self._where()}: expected a coordinator, got none: nothing has been published")
        self._require_profile(data)

    def _require_profile(self, data: bytes | None) -> None:
        if data == OTHER_PROFILE:
            raise UnknownProfileError(
                f"{self._where()}: expected a coordinator that speaks pet/1, got one of xaynet's profile only"
            )

    def _where(self) -> str:
        return self._subjects.prefix.rstrip(".")

    async def _read(self, content: bytes | BlobReference, limit: int, what: str) -> bytes:
        if isinstance(content, BlobReference) and content.media_type == NPY:
            content = await self._read_npy(content, limit, what)
        elif isinstance(content, BlobReference):
            return bytes(await self._broadcasts.fetch_blob(content, limit))
        if len(content) > limit:
            raise AnswerTooLargeError(f"{what}: expected at most {limit} bytes, got {len(content)}")
        return content

    async def _read_npy(self, reference: BlobReference, limit: int, what: str) -> bytes:
        """Return the weights of a model that is stored as a .npy file."""
        try:
            return decode_npy(await self._broadcasts.fetch_blob(reference, limit + _NPY_HEADER_BYTES)).tobytes()
        except RemoteProtocolError as error:
            raise TransportError(f"{what}: {error}") from None

    async def _get_headers(self, after: int) -> HeaderBatch:
        """Return share headers of the round that was seen last."""
        if self._record_digest is None and await self._find(Pet1Document.ROUND) is None:
            return HeaderBatch((), after)
        headers, next_number, size_bytes = list[bytes](), after, 0
        for _ in range(_MAX_HEADER_READS):
            batch = await self._read_headers(next_number)
            headers += batch.headers
            size_bytes += batch.size_bytes
            next_number = batch.next_number
            if not batch.headers or size_bytes >= MAX_HEADER_BATCH_BYTES:
                break
        return HeaderBatch(tuple(headers), next_number)

    async def _read_headers(self, first: int) -> HeaderBatch:
        what = f"share headers from {first}"
        data = await self._broadcasts.last_broadcast(headers_subject(self._subjects, first))
        published = None if data is None else decode_published(data, what)
        if published is None or published.digest != self._record_digest:
            return HeaderBatch((), first)
        content = await self._read(published.content, self._max_answer_bytes, what)
        try:
            return HeaderBatch.decode(content, first)
        except RemoteProtocolError as error:
            raise TransportError(f"{what}: {error}") from None

    async def _send_piece(self, piece: Sequence[Buffer]) -> bytes:
        """Send a piece leaf by leaf; the answer is the one that was given last, or the refusal of one of them."""
        upload, first, leaves = _split(piece)
        answers, starts = list[bytes](), iter(range(0, max(1, len(leaves)), LEAF_BYTES))
        senders = [asyncio.create_task(self._send_leaves(upload, first, leaves, starts, answers)) for _ in range(WINDOW)]
        try:
            await asyncio.gather(*senders)
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
        return max(answers, key=_progress)

    async def _send_leaves(
        self, upload: bytes, first: int, leaves: memoryview, starts: Iterator[int], answers: list[bytes]
    ) -> None:
        """Send leaves until there are none, or one is refused, or the update is accepted."""
        for start in starts:
            if any(answer[0] != OPEN for answer in answers):
                return
            async with self._window:
                number, leaf = first + start // LEAF_BYTES, leaves[start : start + LEAF_BYTES]
                answers.append(await self._send_leaf(upload, number, leaf))

    async def _send_leaf(self, upload: bytes, number: int, leaf: memoryview) -> bytes:
        if self._storing is not None:
            return await self._storing.store_leaf(upload, number, leaf)
        return await self._ask(self._subjects.leaves(self._peer), PIECE_HEAD.pack(upload, number), leaf)

    async def _ask(self, subject: str, *payload: Buffer) -> bytes:
        """Send a part of an update, again and again while there is no room for it, and return the answer."""
        patience, failures = RetryPeriod(self._patience_seconds), 0
        while True:
            try:
                if answer := await self._connection.request(subject, *payload):
                    return answer
                error: TransportError = BackPressureError(f"{subject}: expected room for an update, got none for now")
            except CounterpartOfflineError as offline:
                await self._require_pet1()
                error = offline
            except TransportError as failure:
                error = failure
            failures += 1
            await patience.wait(error, failures)


def _split(piece: Sequence[Buffer]) -> tuple[bytes, int, memoryview]:
    """Return header digest, first number and leaves of a piece; leaves in a buffer of their own are not copied."""
    head, rest = memoryview(piece[0]).cast("B"), piece[1:]
    if len(head) != PIECE_HEAD.size or len(rest) != 1:
        joined = memoryview(b"".join(piece))
        head, rest = joined[: PIECE_HEAD.size], [joined[PIECE_HEAD.size :]]
    if len(head) < PIECE_HEAD.size:
        raise TransportError(f"piece: expected {PIECE_HEAD.size} bytes and leaves, got {len(head)} bytes")
    upload, first = PIECE_HEAD.unpack(head)
    return upload, first, memoryview(rest[0]).cast("B")


def _progress(answer: bytes) -> tuple[int, int]:
    """Order answers by what they say: a refusal first, then that all is there, then by how many leaves are."""
    is_open = answer[0] == OPEN
    return (
        0 if is_open else 1 if answer[0] == ACCEPTED else 2,
        int.from_bytes(answer[3:], "little").bit_count() if is_open else 0,
    )
