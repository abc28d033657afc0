"""What pet/1 asks of a transport and of an endpoint, beyond what xaynet's profile does.

A coordinator of pet/1 publishes *documents*, each as the bytes that it hashed, and the share headers of updates as they are
accepted. Updates come in two parts: what is sealed, and then the leaves of their vectors, in any order. Bytes go through as
they are: no implementation knows a phase, a key or a message.

Source: docs/spec/profile.md 7.3, 15.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol, runtime_checkable

from pet.bodies.body import SealedBody
from pet.buffers import Buffer
from pet.pet1.answers import PIECE_HEAD
from pet.pet1.header_batch import HeaderBatch
from pet.pet1.leaves import LEAF_BYTES, MAX_PIECE_LEAVES
from pet.transports.base import AsyncTransport, Endpoint, Transport

#: Leaves of one call. A transport that sends them one by one has nothing under way when it returns, and would send sixteen with
#: a full window half of the time. Beyond this nothing is gained, and a slow participant takes a minute for 64 MiB.
MAX_CALL_LEAVES: Final = 128


class Pet1Document(Enum):
    """What a coordinator of pet/1 publishes in one piece; the value is the last part of its path."""

    ROUND = "round"
    ENROLMENT = "enrolment"
    COMMITTEE = "committee"
    MANIFEST = "manifest"
    CERTIFICATE = "certificate"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class PublishedDocument:
    """A document as it is served; immutable.

    Attributes:
        data: its bytes.
        digest: its digest, which names exactly these bytes.
    """

    data: Buffer = field(repr=False)
    digest: bytes


@dataclass(frozen=True, slots=True)
class UpdateSizes:
    """The two parts of every update of a round, in bytes; known before the first byte comes."""

    sealed_bytes: int
    vector_bytes: int


@dataclass(frozen=True, slots=True)
class OpenedUpdate:
    """What the sealed part of an update came to.

    Attributes:
        answer: for its sender, as pet.pet1.answers reads it.
        upload: the header digest that its leaves are brought with; None if it is refused, or accepted already.
    """

    answer: bytes
    upload: bytes | None


@runtime_checkable
class Pet1Transport(Transport, Protocol):
    """The way to a coordinator of pet/1, for callers that block; errors as those of `Transport`."""

    def get_document(self, document: Pet1Document, max_bytes: int | None = None) -> bytes | None:
        """Return a document, or None while there is none.

        Args:
            document: which one.
            max_bytes: a larger answer is refused before it is read; None leaves the limit to the transport.

        Raises:
            AnswerTooLargeError: the answer is larger.
            UnknownProfileError: the coordinator does not speak pet/1.
        """
        ...

    def get_headers(self, after: int) -> HeaderBatch:
        """Return share headers from number `after` on; none while there are no further ones."""
        ...

    def open_update(self, sealed: Buffer) -> bytes:
        """Deliver the sealed part of an update, and return what the coordinator answers.

        Raises:
            BackPressureError: there is no room for it now.
        """
        ...

    def send_piece(self, piece: Sequence[Buffer]) -> bytes:
        """Deliver a piece of an open update, and return what the coordinator answers; errors as `open_update`.

        Args:
            piece: its bytes, as buffers one behind the other. It may have up to `MAX_CALL_LEAVES` leaves: a transport whose
                requests carry pieces sends `first_piece` of it, and the answer says what is missing.
        """
        ...


def first_piece(piece: Sequence[Buffer]) -> list[Buffer]:
    """Return what one request may carry of a piece that has more leaves; nothing is copied."""
    parts, left_bytes = list[Buffer](), PIECE_HEAD.size + MAX_PIECE_LEAVES * LEAF_BYTES
    for part in piece:
        parts.append(memoryview(part).cast("B")[:left_bytes])
        left_bytes -= len(parts[-1])
    return parts


@runtime_checkable
class AsyncPet1Transport(AsyncTransport, Protocol):
    """`Pet1Transport` for asyncio: the same calls and the same errors."""

    async def get_document(self, document: Pet1Document, max_bytes: int | None = None) -> bytes | None:
        """Return a document, or None while there is none."""
        ...

    async def get_headers(self, after: int) -> HeaderBatch:
        """Return share headers from number `after` on; none while there are no further ones."""
        ...

    async def open_update(self, sealed: Buffer) -> bytes:
        """Deliver the sealed part of an update, and return what the coordinator answers."""
        ...

    async def send_piece(self, piece: Sequence[Buffer]) -> bytes:
        """Deliver a piece of an open update, and return what the coordinator answers."""
        ...


class IncomingPiece(Protocol):
    """Leaves of one update as they come from one sender, in order, and one call at a time.

    What was taken and has no answer yet is durable, and in the round, only after `finish`: call it whatever happens.
    """

    def take(self, first: int, leaves: Buffer, *, is_last: bool) -> bytes | None:
        """Take whole leaves.

        Args:
            first: number of the first of them.
            leaves: their bytes; only the vector's last one is shorter.
            is_last: whether none comes behind them, so that all are to be answered now.

        Returns:
            The answer for the sender, once there is one: after `is_last`, a refusal, the last leaf that was missing, or as many
            leaves as a piece has. None while more of them are wanted.
        """

    def finish(self) -> bytes | None:
        """Return the answer to what was taken since the last one; None if nothing was."""


@runtime_checkable
class Pet1Endpoint(Endpoint, Protocol):
    """What a transport on the coordinator's side calls under pet/1: thread-safe and synchronous.

    A body that is handed over is left to the caller. What can only be stored later raises StorageError, and is sent again.
    """

    def document(self, document: Pet1Document) -> PublishedDocument | None:
        """Return what is published, or None while there is none."""
        ...

    def headers(self, after: int) -> HeaderBatch:
        """Return share headers from number `after` on, as many as one answer takes."""
        ...

    def update_sizes(self) -> UpdateSizes | None:
        """Return the sizes of the parts of this round's updates; None before its committee is known."""
        ...

    def open_update(self, sealed: SealedBody | Buffer) -> OpenedUpdate:
        """Take the sealed part of an update; what is wrong with it is counted, and stands in the answer."""
        ...

    def take_leaves(self, upload: bytes, first: int, leaves: Buffer) -> bytes:
        """Take whole leaves of an open update in a row; those that are right are durable when this returns.

        Args:
            upload: the header digest.
            first: number of the first of them.
            leaves: their bytes; only the vector's last one is shorter.

        Returns:
            The answer for the sender, as pet.pet1.answers reads it: after a refusal nothing behind these leaves is wanted.
        """
        ...

    def begin_piece(self, upload: bytes) -> IncomingPiece:
        """Begin to take leaves of an open update as they come; raises nothing, whatever `upload` is."""
        ...
