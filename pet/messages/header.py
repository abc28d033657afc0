"""The first 136 bytes of every message: who sent it, to whom, how long it is and what it is about.

Knows nothing of payloads, and does not check signatures: the signature's place is skipped here, because signing and verifying
work on the whole message in its buffer (pet/messages/message.py).

Source: docs/spec/pet.md 4.1.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from pet.errors import RemoteProtocolError


class MessageTag(enum.IntEnum):
    """What a message is about; the numbers are those of the wire. A chunk carries the tag of the message it is part of.

    Each variant of the protocol has tags of its own, which are members of a subclass.
    """


class Tag(MessageTag):
    """The tags of PET as xaynet speaks it."""

    SUM = 1
    UPDATE = 2
    SUM2 = 3


_LAYOUT: Final = struct.Struct(f">{SIGNATURE_BYTES}x {PUBLIC_KEY_BYTES}s {PUBLIC_KEY_BYTES}s I B B 2s")
_MULTIPART_FLAG: Final = 0x01

HEADER_BYTES: Final[int] = _LAYOUT.size
#: Where the sender's key lies.
PUBLIC_KEY_PLACE: Final = SIGNATURE_BYTES
#: Length and tag, which who has a message can know before it is open, and where they lie.
EXPECTED: Final = struct.Struct(">I B")
EXPECTED_PLACE: Final = SIGNATURE_BYTES + 2 * PUBLIC_KEY_BYTES
#: What the length field can say.
MAX_MESSAGE_BYTES: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header of a message, without its signature.

    Attributes:
        participant_public_key: Ed25519 key of the sender.
        coordinator_public_key: X25519 key of the coordinator in this round.
        length: bytes of the whole message, header included.
        tag: what the payload is, or is part of.
        is_multipart: the payload is a chunk.
        reserved: two bytes that are signed but mean nothing yet. Kept apart as a version: zero is the one there is.
    """

    participant_public_key: bytes
    coordinator_public_key: bytes
    length: int
    tag: MessageTag
    is_multipart: bool = False
    reserved: bytes = bytes(2)

    @classmethod
    def decode(cls, message: Buffer, tags: type[MessageTag] = Tag) -> Header:
        """Read the header of a whole message. Flags without a meaning are ignored, as the reference does.

        Args:
            message: its bytes, and no others.
            tags: those that the variant of the protocol knows.

        Raises:
            RemoteProtocolError: "message_too_short", "length_mismatch" (the length field is not the size of the message) or
                "unknown_tag".
        """
        if len(message) < HEADER_BYTES:
            raise RemoteProtocolError(
                "message_too_short", f"message: expected at least {HEADER_BYTES} bytes of header, got {len(message)}"
            )
        participant_public_key, coordinator_public_key, length, tag, flags, reserved = _LAYOUT.unpack_from(message)
        # A longer message would carry bytes that no signature covers; one whose field says less than a header crashes xaynet.
        if length != len(message):
            raise RemoteProtocolError("length_mismatch", f"message: its length field says {length} bytes, got {len(message)}")
        try:
            tag = tags(tag)
        except ValueError:
            known = ", ".join(str(int(each)) for each in tags)
            raise RemoteProtocolError("unknown_tag", f"message tag: expected one of {known}, got {tag}") from None
        return cls(
            participant_public_key=participant_public_key,
            coordinator_public_key=coordinator_public_key,
            length=length,
            tag=tag,
            is_multipart=bool(flags & _MULTIPART_FLAG),
            reserved=reserved,
        )

    def encode(self) -> bytes:
        """Return the 136 bytes of the header, the signature's 64 as zeros."""
        flags = _MULTIPART_FLAG if self.is_multipart else 0
        return _LAYOUT.pack(
            self.participant_public_key, self.coordinator_public_key, self.length, self.tag, flags, self.reserved
        )
