"""Messages of profile pet/1: xaynet's header with tags and a version of the profile's own, read without ignoring anything.

Sum and Check messages are forwarded as they were signed, inside committees and certificates, and are read there; so this works
on opened messages, and sealing is pet/messages/message.py's.

Source: docs/spec/profile.md 7.1.
"""

from __future__ import annotations

from typing import Final

from pet.buffers import Buffer
from pet.crypto import SigningKeyPair, sign_in_place, verify_signed
from pet.messages import HEADER_BYTES, Header, MessageTag
from pet.pet1.refusing import require


class Pet1Tag(MessageTag):
    """What a message of the profile is about."""

    SUM = 0x11
    UPDATE = 0x12
    CHECK = 0x13
    SUM2 = 0x14


#: Bytes 134 and 135 of the header.
HEADER_VERSION: Final = b"\0\1"
#: Where the header says its length, its tag, flags and version.
_LENGTH: Final = slice(128, 132)
_TAG: Final = 132
_FLAGS: Final = 133
_VERSION: Final = slice(134, 136)
_SENDER: Final = slice(64, 96)
_COORDINATOR: Final = slice(96, 128)


def message_bytes(data: bytes, start: int) -> int:
    """Return how long the message at a place says it is; 0 if there is no whole header."""
    if start + HEADER_BYTES > len(data):
        return 0
    return int.from_bytes(data[start + _LENGTH.start : start + _LENGTH.stop], "big")


def coordinator_of(message: bytes) -> bytes:
    """Return the coordinator's key of the round that a message with a whole header says it is for."""
    return message[_COORDINATOR]


def read_header(data: Buffer, coordinator_key: bytes, tag: Pet1Tag | None) -> tuple[bytes, bool]:
    """Check the header of a whole message, or of a chunk of a Sum2; not its signature.

    Args:
        data: the message, signature first.
        coordinator_key: the coordinator's key of the round.
        tag: the kind that is expected; None if none is.

    Returns:
        The sender's public key, and whether it is a chunk.

    Raises:
        RemoteProtocolError: "length_mismatch", "unexpected_tag", "unknown_version", "wrong_coordinator_key".
    """
    size = len(data)
    is_whole = size >= HEADER_BYTES and int.from_bytes(data[_LENGTH], "big") == size
    require(is_whole, "length_mismatch", f"message: expected the length that its header says, got {size} bytes")
    expected = "none" if tag is None else str(int(tag))
    require(data[_TAG] == tag, "unexpected_tag", f"message: expected tag {expected}, got {data[_TAG]}")
    flags, version = data[_FLAGS], bytes(data[_VERSION])
    is_known = flags in ((0, 1) if tag is Pet1Tag.SUM2 else (0,)) and version == HEADER_VERSION
    require(is_known, "unknown_version", f"message: expected version 1 and no unknown flags, got {version.hex()} and {flags}")
    is_ours = data[_COORDINATOR] == coordinator_key
    require(is_ours, "wrong_coordinator_key", "message: expected the coordinator's key of this round, got another one")
    return bytes(data[_SENDER]), flags == 1


def read_message(data: Buffer, coordinator_key: bytes, tag: Pet1Tag) -> tuple[bytes, bytes]:
    """Check a whole message, which is no chunk, and its signature.

    Args:
        data: its bytes, signature first.
        coordinator_key: the coordinator's key of the round.
        tag: the kind that is expected.

    Returns:
        The sender's public key, and the payload.

    Raises:
        RemoteProtocolError: with the first of these reasons that applies: "length_mismatch", "unexpected_tag",
            "unknown_version", "wrong_coordinator_key", "invalid_signature".
    """
    data = bytes(data)
    sender, is_chunk = read_header(data, coordinator_key, tag)
    require(not is_chunk, "unknown_version", "message: expected a whole one, got a chunk")
    require(verify_signed(data, sender), "invalid_signature", "message: not signed with the key that it names as its sender's")
    return sender, data[HEADER_BYTES:]


def sign_message(
    key: SigningKeyPair, coordinator_key: bytes, tag: Pet1Tag, payload: Buffer, *, is_chunk: bool = False
) -> bytes:
    """Return a signed message; only a Sum2 may come in chunks."""
    header = Header(
        participant_public_key=key.public_key,
        coordinator_public_key=coordinator_key,
        length=HEADER_BYTES + len(payload),
        tag=tag,
        is_multipart=is_chunk,
        reserved=HEADER_VERSION,
    )
    message = bytearray(header.encode()) + payload
    sign_in_place(message, key)
    return bytes(message)
