"""Whole messages: from a payload to a sealed body, and from the body of a request back to a payload.

Both ways work within one buffer. Sending copies the payload once, into its place between seal, header and end, and signs and
encrypts it there; receiving decrypts where the body lies, and the payload is a view of it. Whether the sender may say what it
says is the coordinator's question (pet/protocol/); how the body travelled is a transport's.

Source: docs/spec/pet.md 4.1, 9.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from pet.buffers import Buffer
from pet.crypto import (
    PUBLIC_KEY_BYTES,
    SEAL_BYTES,
    EncryptionKeyPair,
    SigningKeyPair,
    open_sealed_in_place,
    seal_in_place,
    sign_in_place,
    verify_signed,
)
from pet.errors import CryptoError, LocalProtocolError, RemoteProtocolError
from pet.messages.chunks import Chunk, max_payload_bytes, split_payload
from pet.messages.codec import XAYNET_PAYLOADS, AnyVariantPayload, PayloadCodec
from pet.messages.header import HEADER_BYTES, MAX_MESSAGE_BYTES, Header, MessageTag

AnyPayload: TypeAlias = AnyVariantPayload | Chunk

#: A sealed body of fewer bytes cannot hold a message.
MIN_BODY_BYTES: Final = SEAL_BYTES + HEADER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message that was opened and verified, or is to be sent.

    Attributes:
        participant_public_key: Ed25519 key of the sender; after opening, the message is known to be signed with it.
        coordinator_public_key: X25519 key of the coordinator in this round.
        payload: what it says, or a chunk of that.
        tag: what the payload is, or is part of.
        signed_bytes: a whole message of a kind that is published, as it came, signature first; None for all others. Sum
            messages are, so that participants can be shown the keys that were really sent.
    """

    participant_public_key: bytes
    coordinator_public_key: bytes
    payload: AnyPayload
    tag: MessageTag
    signed_bytes: bytes | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, key in (("participant", self.participant_public_key), ("coordinator", self.coordinator_public_key)):
            if len(key) != PUBLIC_KEY_BYTES:
                raise CryptoError(f"public key of the {name}: expected {PUBLIC_KEY_BYTES} bytes, got {len(key)}")
        if not isinstance(self.payload, Chunk) and self.tag is not self.payload.tag:
            raise LocalProtocolError(f"message: expected the payload's tag {self.payload.tag.name}, got {self.tag.name}")

    @property
    def is_multipart(self) -> bool:
        """Whether the payload is a chunk."""
        return isinstance(self.payload, Chunk)


def split_message(message: Message, max_message_size: int | None, message_id: int) -> Iterator[Message]:
    """Yield a message as it is, or the messages of its chunks if it is too large (spec 4.7).

    Args:
        message: what to send; its payload must outlive the messages.
        max_message_size: bound on a sealed message in bytes; None means none.
        message_id: 16 random bits.

    Raises:
        ConfigError: `max_message_size` is below 194.
        LocalProtocolError: more than 65 536 chunks would be needed.
    """
    if max_message_size is None or message.payload.size_bytes <= max_payload_bytes(max_message_size):
        return iter((message,))
    chunks = split_payload(message.payload.encode_parts(), max_message_size, message_id)
    return (replace(message, payload=chunk) for chunk in chunks)


def encode_message(message: Message, key: SigningKeyPair) -> bytearray:
    """Serialise and sign a message.

    Raises:
        CryptoError: `key` is not that of the sender; a key or seed in the payload has another size than its kind.
        LocalProtocolError: the message has more bytes than its length field can say.
    """
    return _encode(message, key, 0)


def seal_message(message: Message, key: SigningKeyPair) -> bytearray:
    """Serialise, sign and encrypt a message to the coordinator whose key it names: the body of a request.

    Raises:
        CryptoError: as in `encode_message`, or the coordinator's key is of low order.
        LocalProtocolError: as in `encode_message`.
    """
    body = _encode(message, key, SEAL_BYTES)
    seal_in_place(body, message.coordinator_public_key)
    return body


def decode_payload(tag: MessageTag, is_multipart: bool, data: Buffer, codec: PayloadCodec = XAYNET_PAYLOADS) -> AnyPayload:
    """Read a payload; masks and masked models, and the data of a chunk, are views of the buffer.

    Args:
        tag: what the payload is, or is part of.
        is_multipart: whether it is a chunk. What a ChunkCollector has put together is none.
        data: the payload's bytes and no others.
        codec: the payloads of the variant of the protocol.

    Raises:
        RemoteProtocolError: whatever reason the payload's decoder gives.
    """
    if is_multipart:
        return Chunk.decode(data)
    payload: AnyVariantPayload = codec.decoders[tag](data)
    return payload


def open_message(
    body: Buffer, keys: EncryptionKeyPair, accepted_tag: MessageTag | None, *, codec: PayloadCodec = XAYNET_PAYLOADS
) -> Message:
    """Decrypt, check and read the body of a request (spec 9.1, up to payload parsing).

    Everything that can be refused cheaply is refused before the signature is verified, and that before the payload is read.

    Args:
        body: a sealed message. A writable buffer is decrypted in place and belongs to the message from then on, whose payload
            is a view of it; a read-only one is copied once.
        keys: the coordinator's key pair of this round.
        accepted_tag: the tag that the phase accepts; None if it accepts none.
        codec: the payloads of the variant of the protocol.

    Raises:
        RemoteProtocolError: with the first of these reasons that applies: "decryption", "message_too_short",
            "length_mismatch", "unknown_tag", "unexpected_message", "invalid_signature", "wrong_coordinator_key", then those of
            the payload's decoder.
    """
    box = memoryview(body)
    if box.readonly:
        box = memoryview(bytearray(body))
    try:
        signed = open_sealed_in_place(box, keys).toreadonly()
    except CryptoError as error:
        raise RemoteProtocolError("decryption", str(error)) from None
    return read_opened(signed, keys.public_key, accepted_tag, codec)


def read_opened(
    signed: memoryview,
    coordinator_public_key: bytes,
    accepted_tag: MessageTag | None,
    codec: PayloadCodec,
    *,
    is_valid: bool | None = None,
) -> Message:
    """Check and read a message that was decrypted.

    Args:
        signed: the message, signature first; its payload is a view of it.
        coordinator_public_key: the coordinator's key of this round.
        accepted_tag: as for `open_message`.
        codec: as for `open_message`.
        is_valid: whether its signature is; None if that was not found out yet.

    Raises:
        RemoteProtocolError: as `open_message`, but for "decryption".
    """
    header = Header.decode(signed, codec.tags)
    if header.tag is not accepted_tag:
        expected = "no message" if accepted_tag is None else accepted_tag.name
        raise RemoteProtocolError("unexpected_message", f"message: expected {expected} in this phase, got {header.tag.name}")
    if not (verify_signed(signed, header.participant_public_key) if is_valid is None else is_valid):
        raise RemoteProtocolError("invalid_signature", "message: not signed with the key that it names as its sender's")
    if header.coordinator_public_key != coordinator_public_key:
        raise RemoteProtocolError(
            "wrong_coordinator_key",
            f"message: expected coordinator key {coordinator_public_key.hex()}, got {header.coordinator_public_key.hex()}",
        )
    payload = decode_payload(header.tag, header.is_multipart, signed[HEADER_BYTES:], codec)
    return Message(
        participant_public_key=header.participant_public_key,
        coordinator_public_key=header.coordinator_public_key,
        payload=payload,
        tag=header.tag,
        # Small, and not part of the round's large messages: worth a copy, so that the body need not be kept for it.
        signed_bytes=bytes(signed) if header.tag in codec.published_tags and not header.is_multipart else None,
    )


def _encode(message: Message, key: SigningKeyPair, start: int) -> bytearray:
    """Serialise and sign a message into a buffer of its own, behind `start` free bytes."""
    if key.public_key != message.participant_public_key:
        raise CryptoError("message: the signing key is not that of its sender")
    length = HEADER_BYTES + message.payload.size_bytes
    if length > MAX_MESSAGE_BYTES:
        raise LocalProtocolError(f"message: expected at most {MAX_MESSAGE_BYTES} bytes, got {length}; send it in chunks")
    header = Header(
        participant_public_key=message.participant_public_key,
        coordinator_public_key=message.coordinator_public_key,
        length=length,
        tag=message.tag,
        is_multipart=message.is_multipart,
    )
    buffer = bytearray(start + length)
    with memoryview(buffer) as view:
        position = start
        for part in (header.encode(), *message.payload.encode_parts()):
            view[position : position + len(part)] = part
            position += len(part)
        sign_in_place(view[start:], key)
    return buffer
