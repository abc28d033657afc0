"""What a participant asks of a transport, as values, and the five calls of `Transport` made of them.

A transport of pet implements one method, `carry_out`; `BlockingCalls` and `AsyncCalls` make the calls of it. A transport of
a user's own may implement the calls themselves (pet/transports/base.py): `carry_out` asks for nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never, final

from pet.buffers import Buffer
from pet.protocol.participant_events import GetParameters, GetSeeds, GetSums, Request, SendMessage

if TYPE_CHECKING:
    from pet.transports.base import AsyncTransport, Transport
    from pet.transports.pinned import AnswerVerifier


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetModel:
    """Fetch the last global model; answer with its media type and bytes, or None while there is none.

    Attributes:
        max_bytes: a larger answer is refused before it is read; None leaves the limit to the transport.
    """

    max_bytes: int | None = None


TransportRequest = Request | GetModel


def carry_out(transport: Transport | AsyncTransport, request: TransportRequest, **options: Any) -> Any:
    """Make the call that a request stands for; returns what it returns, which of an `AsyncTransport` is to be awaited.

    Args:
        transport: any transport.
        request: what is asked for.
        options: keyword arguments of questions, such as `verifier`; a message has none.
    """
    match request:
        case GetParameters():
            return transport.get_parameters(**options)
        case GetSums():
            return transport.get_sums(**options)
        case GetSeeds():
            return transport.get_seeds(request.public_key, **options)
        case GetModel():
            return transport.get_model(request.max_bytes, **options)
        case SendMessage():
            return transport.send_message(request.body)
        case _:
            assert_never(request)


class BlockingCalls(ABC):
    """The calls of a `Transport` that implements `carry_out`."""

    @abstractmethod
    def carry_out(self, request: TransportRequest, *, verifier: AnswerVerifier | None = None) -> Any:
        """Do what a request says and return its answer.

        Raises:
            TransportError: the coordinator cannot be reached or answers outside the protocol.
        """

    def get_parameters(self, *, verifier: AnswerVerifier | None = None) -> bytes:
        """Return the encoded round parameters."""
        parameters: bytes = self.carry_out(GetParameters(), verifier=verifier)
        return parameters

    def get_sums(self, *, verifier: AnswerVerifier | None = None) -> bytes | None:
        """Return the encoded sum dictionary, or None while there is none."""
        sums: bytes | None = self.carry_out(GetSums(), verifier=verifier)
        return sums

    def get_seeds(self, public_key: bytes, *, verifier: AnswerVerifier | None = None) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant, or None while there is none for it."""
        seeds: bytes | None = self.carry_out(GetSeeds(public_key=public_key), verifier=verifier)
        return seeds

    def get_model(self, max_bytes: int | None = None, *, verifier: AnswerVerifier | None = None) -> tuple[str, bytes] | None:
        """Return media type and bytes of the last global model, or None while there is none; .npy is preferred."""
        model: tuple[str, bytes] | None = self.carry_out(GetModel(max_bytes=max_bytes), verifier=verifier)
        return model

    def send_message(self, body: Buffer) -> None:
        """Deliver one sealed message. Returning means that it arrived, not that it was accepted."""
        self.carry_out(SendMessage(body=body))


class AsyncCalls(ABC):
    """The calls of an `AsyncTransport` that implements `carry_out`."""

    @abstractmethod
    def carry_out(self, request: TransportRequest, *, verifier: AnswerVerifier | None = None) -> Coroutine[Any, Any, Any]:
        """Do what a request says and return its answer; see `BlockingCalls.carry_out`."""

    async def get_parameters(self, *, verifier: AnswerVerifier | None = None) -> bytes:
        """Return the encoded round parameters."""
        parameters: bytes = await self.carry_out(GetParameters(), verifier=verifier)
        return parameters

    async def get_sums(self, *, verifier: AnswerVerifier | None = None) -> bytes | None:
        """Return the encoded sum dictionary, or None while there is none."""
        sums: bytes | None = await self.carry_out(GetSums(), verifier=verifier)
        return sums

    async def get_seeds(self, public_key: bytes, *, verifier: AnswerVerifier | None = None) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant, or None while there is none for it."""
        seeds: bytes | None = await self.carry_out(GetSeeds(public_key=public_key), verifier=verifier)
        return seeds

    async def get_model(
        self, max_bytes: int | None = None, *, verifier: AnswerVerifier | None = None
    ) -> tuple[str, bytes] | None:
        """Return media type and bytes of the last global model, or None while there is none; .npy is preferred."""
        model: tuple[str, bytes] | None = await self.carry_out(GetModel(max_bytes=max_bytes), verifier=verifier)
        return model

    async def send_message(self, body: Buffer) -> None:
        """Deliver one sealed message. Returning means that it arrived, not that it was accepted."""
        await self.carry_out(SendMessage(body=body))
