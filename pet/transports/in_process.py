"""A transport without a wire: calls a coordinator in the same process.

For tests, for embedding, and as the shortest example of a transport. It knows no phase and no message.
"""

from __future__ import annotations

from typing import Any, assert_never

from pet.bodies.body import MemoryBody
from pet.buffers import Buffer
from pet.errors import (
    AnswerTooLargeError,
    CoordinatorKeyError,
    MessageTooLargeError,
    StorageError,
    TransportError,
    UnknownProfileError,
)
from pet.model_formats import NPY, encode_npy
from pet.pet1.answers import read_piece
from pet.protocol.participant_events import GetParameters, GetSeeds, GetSums, SendMessage
from pet.transports.base import Endpoint
from pet.transports.pet1 import Pet1Endpoint, first_piece
from pet.transports.pet1_calls import BlockingPet1Calls
from pet.transports.pet1_requests import GetDocument, GetHeaders, OpenUpdate, Pet1Request, SendPiece
from pet.transports.pinned import AnswerVerifier
from pet.transports.requests import GetModel, TransportRequest


class InProcessTransport(BlockingPet1Calls):
    """`Transport` on top of an endpoint, and `Pet1Transport` on top of one of pet/1."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Attach to a coordinator; it is not closed with the transport."""
        self._endpoint = endpoint

    def carry_out(self, request: TransportRequest | Pet1Request, *, verifier: AnswerVerifier | None = None) -> Any:
        """Do what a request says; nothing is signed on the way from one object to another.

        Raises:
            CoordinatorKeyError: a signature is asked for.
        """
        if verifier is not None:
            raise CoordinatorKeyError("coordinator key: expected a transport that carries signatures, got one in process")
        match request:
            case GetParameters():
                parameters = self._endpoint.parameters()
                if parameters is None:
                    raise TransportError("round parameters: expected some, got none: the first round has not begun")
                return parameters
            case GetSums():
                return self._endpoint.sums()
            case GetSeeds():
                return self._endpoint.seeds(request.public_key)
            case GetModel():
                return self._fetch_model(request.max_bytes)
            case SendMessage():
                return self._deliver(request.body)
            case GetDocument() | GetHeaders() | OpenUpdate() | SendPiece():
                return self._ask_pet1(request)
            case _:
                assert_never(request)

    def get_status(self) -> dict[str, Any]:
        """Return the record of `GET /status`."""
        return self._endpoint.status()

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _fetch_model(self, max_bytes: int | None) -> tuple[str, bytes] | None:
        """Return the last global model as .npy, or None while there is none."""
        model = self._endpoint.model()
        if model is None:
            return None
        data = encode_npy(model.to_array())
        if max_bytes is not None and len(data) > max_bytes:
            raise AnswerTooLargeError(f"global model: expected at most {max_bytes} bytes, got {len(data)}")
        return NPY, data

    def _ask_pet1(self, request: GetDocument | GetHeaders | OpenUpdate | SendPiece) -> Any:
        """Do what a request of pet/1 says.

        Raises:
            UnknownProfileError: the endpoint does not speak it.
        """
        endpoint = self._endpoint
        if not isinstance(endpoint, Pet1Endpoint):
            raise UnknownProfileError(f"endpoint: expected one that speaks pet/1, got {type(endpoint).__name__}")
        try:
            match request:
                case GetDocument():
                    return _read_document(endpoint, request)
                case GetHeaders():
                    return endpoint.headers(request.after)
                case OpenUpdate():
                    return endpoint.open_update(MemoryBody(request.sealed)).answer
                case SendPiece():
                    return endpoint.take_leaves(*read_piece(b"".join(first_piece(request.piece))))
        except StorageError as error:
            raise TransportError(str(error)) from None

    def _deliver(self, body: Buffer) -> None:
        """Deliver one sealed message; the endpoint opens a copy, as the sender may need it again."""
        limit = self._endpoint.max_body_bytes()
        if len(body) > limit:
            raise MessageTooLargeError(f"message: expected at most {limit} bytes, got {len(body)}")
        try:
            self._endpoint.handle_message(MemoryBody(body))
        except StorageError as error:
            raise TransportError(str(error)) from None


def _read_document(endpoint: Pet1Endpoint, request: GetDocument) -> bytes | None:
    found, limit = endpoint.document(request.document), request.max_bytes
    if found is None:
        return None
    if limit is not None and len(found.data) > limit:
        raise AnswerTooLargeError(f"{request.document.value}: expected at most {limit} bytes, got {len(found.data)}")
    return bytes(found.data)
