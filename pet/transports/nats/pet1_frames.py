"""What a coordinator of pet/1 publishes at a broker, byte by byte: documents as events, and share headers in batches.

    published = 00 | 01 || digest 32 || bytes | 02 || digest 32 || where the bytes are (`BlobReference`) | 03

The digest is that of the document; in front of share headers it is that of their round's record, so that those of the round
before, which the broker still has, are none of this one. Pure functions of bytes and text.

Source: docs/spec/profile.md 15.1, 15.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pet.buffers import Buffer
from pet.errors import TransportError
from pet.pet1.hashes import DIGEST_BYTES
from pet.transports.nats.answers import decode_answer, encode_answer
from pet.transports.nats.broadcasts import BlobReference
from pet.transports.nats.subjects import Subjects
from pet.transports.pet1 import Pet1Document

#: What an answer has that says only "not now": ask again later.
NO_ROOM: Final = b""
#: What is published where there is nothing.
NOTHING: Final = encode_answer(None)
#: What a coordinator of xaynet's profile says in place of a round. That there is no event says nothing: it may have been lost,
#: or be on its way, and who takes part must not give up for that.
OTHER_PROFILE: Final = b"\x03"
#: Share headers in a batch, and the numbers that batches begin with are multiples of this.
BATCH_HEADERS: Final = 64


def event_name(document: Pet1Document) -> str:
    """Return the name of the event that carries a document."""
    return f"pet1-{document.value}"


def headers_subject(subjects: Subjects, first: int) -> str:
    """Return where share headers from a number on are: one of them, or where it begins a batch and that is full, all of it."""
    return subjects.model(f"pet1-headers-{first}")


@dataclass(frozen=True, slots=True)
class Published:
    """Something at the broker.

    Attributes:
        digest: says what the bytes are.
        content: the bytes, or where they are.
    """

    digest: bytes
    content: bytes | BlobReference = field(repr=False)


def encode_published(digest: bytes, content: Buffer | BlobReference) -> bytes:
    """Return what is stored at the broker."""
    data = encode_answer(content if isinstance(content, BlobReference) else bytes(content))
    return data[:1] + digest + data[1:]


def decode_published(data: bytes, what: str) -> Published | None:
    """Read what `encode_published` wrote; None where nothing is published.

    Raises:
        TransportError: it is something else.
    """
    answer = decode_answer(data[:1] + data[1 + DIGEST_BYTES :], what)
    if answer is None and len(data) == 1:
        return None
    if answer is None or len(data) <= DIGEST_BYTES:
        raise TransportError(f"{what}: expected a digest and bytes or a reference, got {data[:20]!r}")
    return Published(data[1 : 1 + DIGEST_BYTES], answer)
