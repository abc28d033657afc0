"""What a coordinator of pet/1 publishes, over HTTP: documents as the bytes that it hashed, and share headers in batches.

Nothing here is signed in the header `Pet-Signature`, whatever key the coordinator has: a round's record names its enrolment by
digest, the enrolment is signed by its authority or known by digest to who reads it, and everything else is bound to both by
digests and by its members' signatures. Who answers in the coordinator's place can therefore withhold documents, as the
coordinator itself can, and make none that a participant or member takes (docs/spec/profile.md 3, 6, 10).

Source: docs/spec/profile.md 15.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from typing import Final

from pet.errors import AnswerAbandonedError, MissingExtraError
from pet.pet1.header_batch import HeaderBatch
from pet.transports.paced_answers import PIECE_BYTES
from pet.transports.pet1 import Pet1Document, Pet1Endpoint

with MissingExtraError.naming("http"):
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

DOCUMENT_PREFIX: Final = "/pet/v1/"
HEADERS_PATH: Final = "/pet/v1/headers"
#: Names the number that a reader of headers goes on from.
NEXT_HEADER: Final = "Pet-Next"

_OCTET_STREAM: Final = "application/octet-stream"
#: A copy may be kept, and used after the coordinator was asked whether it is still the one.
_REVALIDATE: Final = {"cache-control": "no-cache"}
_VOLATILE: Final = {"cache-control": "no-store"}
#: The largest number of a header that can be asked for, and its digits.
_MAX_NUMBER: Final = 2**32 - 1
_MAX_DIGITS: Final = 10
#: Of each kind, the last documents that may still be being sent: a slow reader keeps all of one in memory.
_DOCUMENTS_STREAMED: Final = 3


class Pet1Reads:
    """The GET routes of pet/1.

    Args:
        endpoint: the coordinator.
    """

    def __init__(self, endpoint: Pet1Endpoint) -> None:
        self._endpoint: Final = endpoint
        #: Digests of the last documents of each kind, as they were asked for.
        self._latest: Final = {kind: deque[bytes](maxlen=_DOCUMENTS_STREAMED) for kind in Pet1Document}

    def routes(self) -> list[Route]:
        """Return all of them."""
        documents = [Route(DOCUMENT_PREFIX + each.value, partial(self._get_document, each)) for each in Pet1Document]
        return [*documents, Route(HEADERS_PATH, self._get_headers)]

    async def _get_document(self, kind: Pet1Document, request: Request) -> Response:
        """Answer with a document, or 204; 304 if the client has it."""
        document = self._endpoint.document(kind)
        if document is None:
            return Response(status_code=204, headers=_VOLATILE)
        self._note_latest(kind)
        etag = f'"{document.digest.hex()}"'
        headers = _REVALIDATE | {"etag": etag, "content-length": str(len(document.data))}
        if knows(request, etag):
            del headers["content-length"]
            return Response(status_code=304, headers=headers)
        data = memoryview(document.data).cast("B")
        if len(data) <= PIECE_BYTES:
            return Response(data, media_type=_OCTET_STREAM, headers=headers)  # of HEAD, the server leaves the body out
        pieces = (data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))
        return self._answer(request, kind, document.digest, pieces, headers)

    async def _get_headers(self, request: Request) -> Response:
        """Answer with share headers from number `after` on, or 204; 400 for what is no number."""
        text = request.query_params.get("after", "0")
        if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) <= _MAX_NUMBER):
            return Response(status_code=400)
        batch = self._endpoint.headers(int(text))
        headers = _VOLATILE | {NEXT_HEADER: str(batch.next_number)}
        current = self._note_latest(Pet1Document.ROUND)
        if not batch.headers:
            return Response(status_code=204, headers=headers)
        headers["content-length"] = str(batch.size_bytes)
        return self._answer(request, Pet1Document.ROUND, current, _joined(batch), headers)

    def _answer(
        self, request: Request, kind: Pet1Document, digest: bytes, pieces: Iterable[memoryview | bytes], headers: dict[str, str]
    ) -> Response:
        if request.method == "HEAD":
            return Response(media_type=_OCTET_STREAM, headers=headers)
        return StreamingResponse(self._stream(kind, digest, pieces), media_type=_OCTET_STREAM, headers=headers)

    async def _stream(
        self, kind: Pet1Document, digest: bytes, pieces: Iterable[memoryview | bytes]
    ) -> AsyncIterator[memoryview | bytes]:
        """Yield pieces as they are taken.

        Raises:
            AnswerAbandonedError: what is sent was replaced several times meanwhile.
        """
        for piece in pieces:
            self._note_latest(kind)
            if digest not in self._latest[kind]:
                raise AnswerAbandonedError(f"{kind.value}: expected it to be taken before others took its place")
            yield piece

    def _note_latest(self, kind: Pet1Document) -> bytes:
        """Remember which document is published now, and return its digest; empty if there is none."""
        document = self._endpoint.document(kind)
        digest = b"" if document is None else document.digest
        if digest not in self._latest[kind]:
            self._latest[kind].append(digest)
        return digest


def knows(request: Request, etag: str) -> bool:
    """Return whether a client says that it has what an ETag names."""
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    return etag in known or "*" in known


def _joined(batch: HeaderBatch) -> Iterator[bytes]:
    """Yield a batch in pieces: whole it would be a copy of megabytes for each reader."""
    piece = bytearray()
    for part in batch.parts():
        piece += part
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
