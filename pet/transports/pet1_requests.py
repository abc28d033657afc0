"""What a participant or a member of pet/1 asks of a transport, as values; beside those of pet/transports/requests.py.

Source: docs/spec/profile.md 7.3, 15.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, assert_never, final

from pet.buffers import Buffer
from pet.protocol.participant_events import SendMessage
from pet.transports.pet1 import AsyncPet1Transport, Pet1Document, Pet1Transport


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetDocument:
    """Fetch a document; answer with its bytes, or None while there is none.

    Attributes:
        document: which one.
        max_bytes: a larger answer is refused before it is read; None leaves the limit to the transport.
    """

    document: Pet1Document
    max_bytes: int | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetHeaders:
    """Fetch share headers from number `after` on; answer with a `HeaderBatch`."""

    after: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenUpdate:
    """Deliver the sealed part of an update; answer with what the coordinator says. The body must not be changed."""

    sealed: Buffer = field(repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SendPiece:
    """Deliver a piece of an open update, buffers one behind the other; answer with what the coordinator says."""

    piece: Sequence[Buffer] = field(repr=False)


Pet1Request: TypeAlias = GetDocument | GetHeaders | OpenUpdate | SendPiece | SendMessage


def carry_out_pet1(transport: Pet1Transport | AsyncPet1Transport, request: Pet1Request) -> Any:
    """Make the call that a request stands for; returns what it returns, which of an `AsyncPet1Transport` is to be awaited."""
    match request:
        case GetDocument():
            return transport.get_document(request.document, request.max_bytes)
        case GetHeaders():
            return transport.get_headers(request.after)
        case OpenUpdate():
            return transport.open_update(request.sealed)
        case SendPiece():
            return transport.send_piece(request.piece)
        case SendMessage():
            return transport.send_message(request.body)
        case _:
            assert_never(request)
