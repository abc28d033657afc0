"""The calls of a `Pet1Transport` made of one method, `carry_out`, as pet/transports/requests.py makes those of a `Transport`.

Documents of pet/1 are signed by their own authors, so no call of theirs takes a verifier of the coordinator's answers.

Source: docs/spec/profile.md 7.3, 15.1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any

from pet.buffers import Buffer
from pet.pet1.header_batch import HeaderBatch
from pet.transports.pet1 import Pet1Document
from pet.transports.pet1_requests import GetDocument, GetHeaders, OpenUpdate, Pet1Request, SendPiece
from pet.transports.pinned import AnswerVerifier
from pet.transports.requests import AsyncCalls, BlockingCalls, TransportRequest


class BlockingPet1Calls(BlockingCalls):
    """The calls of a `Pet1Transport` that implements `carry_out`."""

    @abstractmethod
    def carry_out(self, request: TransportRequest | Pet1Request, *, verifier: AnswerVerifier | None = None) -> Any:
        """Do what a request says and return its answer; `verifier` is for those of xaynet's profile.

        Raises:
            TransportError: the coordinator cannot be reached or answers outside the protocol.
        """

    def get_document(self, document: Pet1Document, max_bytes: int | None = None) -> bytes | None:
        """Return a document, or None while there is none."""
        found: bytes | None = self.carry_out(GetDocument(document=document, max_bytes=max_bytes))
        return found

    def get_headers(self, after: int) -> HeaderBatch:
        """Return share headers from number `after` on; none while there are no further ones."""
        batch: HeaderBatch = self.carry_out(GetHeaders(after=after))
        return batch

    def open_update(self, sealed: Buffer) -> bytes:
        """Deliver the sealed part of an update, and return what the coordinator answers."""
        answer: bytes = self.carry_out(OpenUpdate(sealed=sealed))
        return answer

    def send_piece(self, piece: Sequence[Buffer]) -> bytes:
        """Deliver a piece of an open update, and return what the coordinator answers."""
        answer: bytes = self.carry_out(SendPiece(piece=piece))
        return answer


class AsyncPet1Calls(AsyncCalls):
    """The calls of an `AsyncPet1Transport` that implements `carry_out`."""

    @abstractmethod
    def carry_out(
        self, request: TransportRequest | Pet1Request, *, verifier: AnswerVerifier | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Do what a request says and return its answer; see `BlockingPet1Calls.carry_out`."""

    async def get_document(self, document: Pet1Document, max_bytes: int | None = None) -> bytes | None:
        """Return a document, or None while there is none."""
        found: bytes | None = await self.carry_out(GetDocument(document=document, max_bytes=max_bytes))
        return found

    async def get_headers(self, after: int) -> HeaderBatch:
        """Return share headers from number `after` on; none while there are no further ones."""
        batch: HeaderBatch = await self.carry_out(GetHeaders(after=after))
        return batch

    async def open_update(self, sealed: Buffer) -> bytes:
        """Deliver the sealed part of an update, and return what the coordinator answers."""
        answer: bytes = await self.carry_out(OpenUpdate(sealed=sealed))
        return answer

    async def send_piece(self, piece: Sequence[Buffer]) -> bytes:
        """Deliver a piece of an open update, and return what the coordinator answers."""
        answer: bytes = await self.carry_out(SendPiece(piece=piece))
        return answer
