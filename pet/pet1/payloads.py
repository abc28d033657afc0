"""Payloads of pet/1 on their way through a coordinator's machine: bytes with a tag, which the round's rules read.

What a payload means depends on the round (its record, committee, certificate), so nothing is decoded here.

Source: docs/spec/profile.md 7.1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pet.buffers import Buffer
from pet.crypto import EncryptionKeyPair, open_sealed_in_place, verify_signed
from pet.errors import CryptoError, RemoteProtocolError
from pet.messages import HEADER_BYTES, Chunk, Message, MessageTag, PayloadCodec
from pet.pet1.messages import Pet1Tag, read_header
from pet.pet1.refusing import require


@dataclass(frozen=True, slots=True)
class Pet1Payload:
    """What a message says, or what its chunks say together.

    Attributes:
        tag: what kind of message it is.
        data: its bytes.
        head: what stands before them in a whole message, the signature first; empty where the payload came in chunks.
    """

    tag: MessageTag
    data: Buffer = field(repr=False)
    head: bytes = field(default=b"", repr=False, compare=False)

    @property
    def size_bytes(self) -> int:
        """Size of the serialised payload."""
        return memoryview(self.data).nbytes

    def encode_parts(self) -> list[Buffer]:
        """Return the serialised payload as buffers to be sent one after the other."""
        return [self.data]


PET1_PAYLOADS: Final = PayloadCodec(
    tags=Pet1Tag,
    decoders=MappingProxyType({tag: functools.partial(Pet1Payload, tag) for tag in Pet1Tag}),
    published_tags=frozenset({Pet1Tag.SUM, Pet1Tag.CHECK}),
)


def open_pet1_message(body: Buffer, keys: EncryptionKeyPair, accepted_tag: MessageTag | None) -> Message:
    """Decrypt, check and read the body of a request; only Sum2 may come in chunks.

    Args:
        body: a sealed message. A writable buffer is decrypted in place and belongs to the message from then on.
        keys: the coordinator's key pair of this round.
        accepted_tag: the tag that the phase accepts; None if it accepts none. Updates travel another way (7.3).

    Raises:
        RemoteProtocolError: "decryption", then as `read_pet1_message`.
    """
    box = memoryview(body)
    if box.readonly:
        box = memoryview(bytearray(body))
    try:
        signed = open_sealed_in_place(box, keys).toreadonly()
    except CryptoError as error:
        raise RemoteProtocolError("decryption", str(error)) from None
    return read_pet1_message(signed, keys.public_key, accepted_tag)


def read_pet1_message(data: Buffer, coordinator_key: bytes, accepted_tag: MessageTag | None) -> Message:
    """Check and read a message that is open already.

    Args:
        data: the message, signature first; the result's payload is a view of it.
        coordinator_key: the coordinator's key of this round.
        accepted_tag: as for `open_pet1_message`.

    Raises:
        RemoteProtocolError: as `read_message`, and the reasons of chunks.
    """
    signed = memoryview(data).toreadonly()
    tag = Pet1Tag(accepted_tag) if accepted_tag is not None and accepted_tag is not Pet1Tag.UPDATE else None
    sender, is_chunk = read_header(signed, coordinator_key, tag)
    require(
        verify_signed(signed, sender), "invalid_signature", "message: not signed with the key that it names as its sender's"
    )
    assert tag is not None, "no tag is that of a phase that takes none"
    payload = signed[HEADER_BYTES:]
    return Message(
        participant_public_key=sender,
        coordinator_public_key=coordinator_key,
        payload=Chunk.decode(payload) if is_chunk else Pet1Payload(tag, payload, bytes(signed[:HEADER_BYTES])),
        tag=tag,
        signed_bytes=bytes(signed) if tag in PET1_PAYLOADS.published_tags else None,
    )
