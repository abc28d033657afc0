"""A transport without a wire: calls a coordinator in the same process.

For tests, for embedding, and as the shortest example of a transport. It knows no phase and no message.
"""

from __future__ import annotations

from typing import Any, assert_never

from pet.bodies.body import MemoryBody
from pet.buffers import Buffer
from pet.errors import AnswerTooLargeError, CoordinatorKeyError, MessageTooLargeError, StorageError, TransportError
from pet.model_formats import NPY, encode_npy
from pet.protocol.participant_events import GetParameters, GetSeeds, GetSums, SendMessage
from pet.transports.base import Endpoint
from pet.transports.pinned import AnswerVerifier
from pet.transports.requests import BlockingCalls, GetModel, TransportRequest


class InProcessTransport(BlockingCalls):
    """`Transport` on top of an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Attach to a coordinator; it is not closed with the transport."""
        self._endpoint = endpoint

    def carry_out(self, request: TransportRequest, *, verifier: AnswerVerifier | None = None) -> Any:
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

    def _deliver(self, body: Buffer) -> None:
        """Deliver one sealed message; the endpoint opens a copy, as the sender may need it again."""
        limit = self._endpoint.max_body_bytes()
        if len(body) > limit:
            raise MessageTooLargeError(f"message: expected at most {limit} bytes, got {len(body)}")
        try:
            self._endpoint.handle_message(MemoryBody(body))
        except StorageError as error:
            raise TransportError(str(error)) from None
