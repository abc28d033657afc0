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
_FLAGS_AND_VERSION: Final = slice(133, 136)
_SENDER: Final = slice(64, 96)
_COORDINATOR: Final = slice(96, 128)


def message_bytes(data: bytes, start: int) -> int:
    """Return how long the message at a place says it is; 0 if there is no whole header."""
    if start + HEADER_BYTES > len(data):
        return 0
    return int.from_bytes(data[start + _LENGTH.start : start + _LENGTH.stop], "big")


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
    is_whole = len(data) >= HEADER_BYTES and message_bytes(data, 0) == len(data)
    require(is_whole, "length_mismatch", f"message: expected the length that its header says, got {len(data)} bytes")
    require(data[_TAG] == tag, "unexpected_tag", f"message: expected tag {int(tag)}, got {data[_TAG]}")
    is_known = data[_FLAGS_AND_VERSION] == b"\0" + HEADER_VERSION
    require(is_known, "unknown_version", f"message: expected no flags and version 1, got {data[_FLAGS_AND_VERSION].hex()}")
    is_ours = data[_COORDINATOR] == coordinator_key
    require(is_ours, "wrong_coordinator_key", "message: expected the coordinator's key of this round, got another one")
    is_signed = verify_signed(data, data[_SENDER])
    require(is_signed, "invalid_signature", "message: not signed with the key that it names as its sender's")
    return data[_SENDER], data[HEADER_BYTES:]


def sign_message(key: SigningKeyPair, coordinator_key: bytes, tag: Pet1Tag, payload: Buffer) -> bytes:
    """Return a signed message."""
    header = Header(
        participant_public_key=key.public_key,
        coordinator_public_key=coordinator_key,
        length=HEADER_BYTES + len(payload),
        tag=tag,
        reserved=HEADER_VERSION,
    )
    message = bytearray(header.encode()) + payload
    sign_in_place(message, key)
    return bytes(message)
