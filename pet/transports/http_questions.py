"""The routes of both profiles as values: what both HTTP clients ask and send, and how they read what is answered.

Source: docs/spec/pet.md 5.1, docs/spec/profile.md 7.3, 15.1.

Pure functions; nothing here asks.
"""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

from pet.buffers import Buffer
from pet.errors import RemoteProtocolError, TransportError
from pet.model_formats import BINCODE, NPY
from pet.pet1.header_batch import MAX_HEADER_BATCH_BYTES, HeaderBatch
from pet.protocol.participant_events import GetParameters, GetSeeds, GetSums, SendMessage
from pet.transports.http_answers import PET1_PREFIX, require_parameters
from pet.transports.pet1 import Pet1Document, first_piece
from pet.transports.pet1_requests import GetDocument, GetHeaders, OpenUpdate, SendPiece
from pet.transports.requests import GetModel
from pet.transports.signed_answers import MODEL_ROUTE, PARAMETERS_ROUTE, SEEDS_ROUTE, SUMS_ROUTE
from pet.transports.status import MAX_STATUS_BYTES

#: The record has 136 bytes; room for an error page of a proxy is not needed, since its status is refused first.
_MAX_PARAMETERS_BYTES: Final = 4096
#: More than a million sum participants; a participant makes an update for no more of them.
_MAX_SUMS_BYTES: Final = 1 << 27
#: Exact fractions cost many times the bytes of the array they are made into. xaynet does not look at the header.
_MODEL_ACCEPT: Final = f"{NPY}, {BINCODE};q=0.5"

#: What a coordinator says to a message is empty; a proxy may say more.
_MAX_RECEIPT_BYTES: Final = 1 << 16
#: One byte, and a bit for each of the 65,536 leaves of the longest vector.
_MAX_UPDATE_ANSWER_BYTES: Final = 1 << 14
#: A batch, or one header of as many parts and boxes as there can be, which travels alone.
_MAX_HEADERS_BYTES: Final = MAX_HEADER_BATCH_BYTES + (1 << 20)
#: What documents can have at most where a caller does not know it better: a record; two million participants; 255 members; two
#: million updates, and as many complaints.
_MAX_DOCUMENT_BYTES: Final = {
    Pet1Document.ROUND: 192,
    Pet1Document.ENROLMENT: 1 << 26,
    Pet1Document.COMMITTEE: 1 << 16,
    Pet1Document.MANIFEST: 1 << 27,
    Pet1Document.CERTIFICATE: 1 << 28,
}
#: Per write of a body: large enough for the system calls, small enough not to double memory.
_PIECE_BYTES: Final = 1 << 18

#: Media type and bytes; None for an answer that says that there is nothing now.
HttpAnswer = tuple[str, bytes] | None


def _bytes_of(answer: HttpAnswer) -> bytes | None:
    return answer[1] if answer else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A GET request.

    Attributes:
        target: path and query.
        route: what the signature of an answer names; empty where answers are not signed.
        accept: media types.
        max_bytes: larger answers are refused; None leaves that to the client.
        read: makes of an answer what the caller gets.
    """

    target: str
    route: str = ""
    accept: str = "*/*"
    max_bytes: int | None = None
    read: Callable[[HttpAnswer], Any] = _bytes_of


STATUS: Final = Question(target="/status", max_bytes=MAX_STATUS_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A POST request.

    Attributes:
        target: path.
        parts: the body, buffers one behind the other.
        max_bytes: larger answers are refused.
        read: makes of an answer what the caller gets.
    """

    target: str
    parts: Sequence[Buffer]
    max_bytes: int
    read: Callable[[HttpAnswer], Any]

    @property
    def headers(self) -> dict[str, str]:
        """What goes before the body."""
        return {"Content-Length": str(sum(memoryview(part).nbytes for part in self.parts))}

    def pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces."""
        for part in self.parts:
            view = memoryview(part).cast("B")
            for start in range(0, len(view), _PIECE_BYTES):
                yield bytes(view[start : start + _PIECE_BYTES])


def delivery_of(request: SendMessage | OpenUpdate | SendPiece) -> Delivery:
    """Return how something is sent."""
    match request:
        case SendMessage():
            return Delivery(target="/message", parts=[request.body], max_bytes=_MAX_RECEIPT_BYTES, read=_nothing)
        case OpenUpdate():
            return _update_delivery("open", [request.sealed])
        case SendPiece():
            return _update_delivery("leaves", first_piece(request.piece))
        case _:
            assert_never(request)


def _update_delivery(name: str, parts: Sequence[Buffer]) -> Delivery:
    target = f"{PET1_PREFIX}update/{name}"
    return Delivery(
        target=target, parts=parts, max_bytes=_MAX_UPDATE_ANSWER_BYTES, read=lambda answer: _bytes_of(answer) or b""
    )


def _nothing(_: HttpAnswer) -> None:
    """Any status that is no error means that a message arrived."""


def question_of(request: GetParameters | GetSums | GetSeeds | GetModel | GetDocument | GetHeaders) -> Question:
    """Return how a request is asked for."""
    match request:
        case GetParameters():
            return Question(target="/params", route=PARAMETERS_ROUTE, max_bytes=_MAX_PARAMETERS_BYTES, read=require_parameters)
        case GetSums():
            return Question(target="/sums", route=SUMS_ROUTE, max_bytes=_MAX_SUMS_BYTES)
        case GetSeeds():
            # Escaped by hand: "+" unescaped would be read as a space (spec 5.1).
            key = urllib.parse.quote(base64.b64encode(request.public_key), safe="")
            return Question(target=f"/seeds?pk={key}", route=SEEDS_ROUTE + request.public_key.hex())
        case GetModel():
            return Question(
                target="/model",
                route=MODEL_ROUTE,
                accept=_MODEL_ACCEPT,
                max_bytes=request.max_bytes,
                read=lambda answer: answer,
            )
        case GetDocument(document=document):
            most = request.max_bytes if request.max_bytes is not None else _MAX_DOCUMENT_BYTES.get(document)
            return Question(target=PET1_PREFIX + document.value, max_bytes=most)
        case GetHeaders(after=after):
            target = f"{PET1_PREFIX}headers?after={after}"
            return Question(target=target, max_bytes=_MAX_HEADERS_BYTES, read=lambda answer: _read_headers(answer, after))
        case _:
            assert_never(request)


def _read_headers(answer: HttpAnswer, after: int) -> HeaderBatch:
    """Read share headers. The header that names the next one is not looked at: it follows from how many came.

    Raises:
        TransportError: their lengths do not fit the answer.
    """
    try:
        return HeaderBatch.decode(_bytes_of(answer) or b"", after)
    except RemoteProtocolError as error:
        raise TransportError(f"GET {PET1_PREFIX}headers: {error}") from None
