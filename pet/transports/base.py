"""The interfaces between a participant, the wire, and a coordinator: what a transport must do, and what it may call.

A participant talks to a `Transport`, a transport carries bytes to an `Endpoint`. Bytes go through as they are: nothing here
knows a phase, a key or a message, and no implementation may.

Who writes a transport implements these calls, or one method for all of them (pet/transports/requests.py).

The order of the calls, and what an answer of `None` means, is docs/spec/pet.md 5.1 (`None` is HTTP's 204).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pet.bodies.body import SealedBody
from pet.buffers import Buffer


@runtime_checkable
class Transport(Protocol):
    """The way to one coordinator, for callers that block.

    Calls may come from several threads at once. Every method raises `TransportError` if the coordinator cannot be reached or
    answers outside the protocol, and nothing else.
    """

    def get_parameters(self) -> bytes:
        """Return the encoded round parameters."""
        ...

    def get_sums(self) -> bytes | None:
        """Return the encoded sum dictionary, or None while there is none."""
        ...

    def get_seeds(self, public_key: bytes) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant, or None while there is none for it.

        Args:
            public_key: the participant's signing key, 32 bytes.
        """
        ...

    def get_model(self, max_bytes: int | None = None) -> tuple[str, bytes] | None:
        """Return the media type and the bytes of the last global model, or None while there is none.

        A coordinator that names no media type sends bincode: `pet.model_formats.BINCODE` stands for it.

        Args:
            max_bytes: a larger answer is refused before it is read; None leaves the limit to the transport.

        Raises:
            AnswerTooLargeError: the answer is larger.
        """
        ...

    def send_message(self, body: Buffer) -> None:
        """Deliver one sealed message. Returning means that it arrived, not that it was accepted."""
        ...

    def close(self) -> None:
        """Give back connections. Calling it twice does no harm; no other call may follow."""
        ...


@runtime_checkable
class AsyncTransport(Protocol):
    """`Transport` for asyncio: the same calls and the same errors."""

    async def get_parameters(self) -> bytes:
        """Return the encoded round parameters."""
        ...

    async def get_sums(self) -> bytes | None:
        """Return the encoded sum dictionary, or None while there is none."""
        ...

    async def get_seeds(self, public_key: bytes) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant, or None while there is none for it."""
        ...

    async def get_model(self, max_bytes: int | None = None) -> tuple[str, bytes] | None:
        """Return the media type and the bytes of the last global model, or None while there is none."""
        ...

    async def send_message(self, body: Buffer) -> None:
        """Deliver one sealed message. Returning means that it arrived, not that it was accepted."""
        ...

    async def aclose(self) -> None:
        """Give back connections. Calling it twice does no harm; no other call may follow."""
        ...


class PublishedModel(Protocol):
    """The global model of a finished round, as an endpoint publishes it; immutable."""

    @property
    def round_id(self) -> int:
        """The round that made it."""
        ...

    @property
    def etag(self) -> str:
        """A name for exactly this model, without quotation marks: another model never has the same."""
        ...

    @property
    def length(self) -> int:
        """The number of weights."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the weights."""
        ...

    def bincode_chunks(self) -> Iterator[bytes]:
        """Yield the body of spec 5.6 piece by piece."""
        ...

    def array_chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the weights piece by piece."""
        ...

    def to_array(self) -> np.ndarray[Any, Any]:
        """Return all weights in an array of their own."""
        ...


@runtime_checkable
class Endpoint(Protocol):
    """What a transport on the coordinator's side calls: a coordinator with its clock and threads around it.

    Thread-safe and synchronous. Whatever it returns is immutable and may be sent while the round goes on.
    """

    def max_body_bytes(self) -> int:
        """Return the size of the largest message that could be accepted now; a transport reads no more than that."""
        ...

    def handle_message(self, body: SealedBody | Buffer) -> None:
        """Take one sealed message; the body is left to the caller, who closes it.

        Raises nothing for a bad message: it is counted, and the sender learns nothing (spec 9.3).
        """
        ...

    def parameters(self) -> bytes | None:
        """Return the encoded round parameters, or None before the first round."""
        ...

    def sums(self) -> bytes | None:
        """Return the encoded sum dictionary while it is published."""
        ...

    def seeds(self, public_key: bytes) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant while it is published."""
        ...

    def model(self) -> PublishedModel | None:
        """Return the last global model."""
        ...

    def status(self) -> dict[str, Any]:
        """Return the record that `GET /status` shows, ready for JSON."""
        ...
