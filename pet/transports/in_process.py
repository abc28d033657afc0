"""A transport without a wire: calls a coordinator in the same process.

For tests, for embedding, and as the shortest example of a transport. It knows no phase and no message.
"""

from __future__ import annotations

from typing import Any

from pet.bodies.body import MemoryBody
from pet.buffers import Buffer
from pet.errors import AnswerTooLargeError, MessageTooLargeError, StorageError, TransportError
from pet.model_formats import NPY, encode_npy
from pet.transports.base import Endpoint


class InProcessTransport:
    """`Transport` on top of an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Attach to a coordinator; it is not closed with the transport."""
        self._endpoint = endpoint

    def get_parameters(self) -> bytes:
        """Return the encoded round parameters."""
        parameters = self._endpoint.parameters()
        if parameters is None:
            raise TransportError("round parameters: expected some, got none: the first round has not begun")
        return parameters

    def get_sums(self) -> bytes | None:
        """Return the encoded sum dictionary, or None while there is none."""
        return self._endpoint.sums()

    def get_seeds(self, public_key: bytes) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant, or None while there is none for it."""
        return self._endpoint.seeds(public_key)

    def get_model(self, max_bytes: int | None = None) -> tuple[str, bytes] | None:
        """Return the last global model as .npy, or None while there is none."""
        model = self._endpoint.model()
        if model is None:
            return None
        data = encode_npy(model.to_array())
        if max_bytes is not None and len(data) > max_bytes:
            raise AnswerTooLargeError(f"global model: expected at most {max_bytes} bytes, got {len(data)}")
        return NPY, data

    def get_status(self) -> dict[str, Any]:
        """Return the record of `GET /status`."""
        return self._endpoint.status()

    def send_message(self, body: Buffer) -> None:
        """Deliver one sealed message; the endpoint opens a copy, as the sender may need it again."""
        limit = self._endpoint.max_body_bytes()
        if len(body) > limit:
            raise MessageTooLargeError(f"message: expected at most {limit} bytes, got {len(body)}")
        try:
            self._endpoint.handle_message(MemoryBody(body))
        except StorageError as error:
            raise TransportError(str(error)) from None

    def close(self) -> None:
        """Do nothing: there is no connection."""
