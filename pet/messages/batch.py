"""The bodies of many requests, opened together: what `open_message` does with each, in one call of compiled code for all.

Source: docs/spec/pet.md 4.1, 9.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pet.crypto import SEAL_BYTES, EncryptionKeyPair
from pet.crypto_batches import Opened, Places, open_signed_boxes
from pet.errors import RemoteProtocolError
from pet.messages.codec import XAYNET_PAYLOADS, PayloadCodec
from pet.messages.header import EXPECTED, EXPECTED_PLACE, PUBLIC_KEY_PLACE, MessageTag
from pet.messages.message import Message, open_message, read_opened

_PLACES: Final = Places(expected=EXPECTED_PLACE, key=PUBLIC_KEY_PLACE)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a body is no message that is taken.

    Attributes:
        reason: as of a RemoteProtocolError; not the error itself, whose traceback would keep the body in memory.
        description: the same for people.
    """

    reason: str
    description: str

    @classmethod
    def of(cls, error: RemoteProtocolError) -> Refused:
        """Keep what an error says."""
        return cls(error.reason, str(error))


def open_messages(
    bodies: Sequence[memoryview],
    keys: EncryptionKeyPair,
    accepted_tag: MessageTag | None,
    *,
    codec: PayloadCodec = XAYNET_PAYLOADS,
) -> list[Message | Refused]:
    """Decrypt, check and read bodies; each by itself is what `open_message` makes of it.

    Args:
        bodies: sealed messages in writable buffers, which belong to the messages from then on.
        keys: the coordinator's key pair of this round.
        accepted_tag: the tag that the phase accepts; None if it accepts none.
        codec: the payloads of the variant of the protocol.
    """
    if accepted_tag is None:  # there is no signature to verify
        return [_open_alone(body, keys, codec) for body in bodies]
    # A longer message than the field can say is refused when its header is read: there need not be a way to write it.
    expected = [EXPECTED.pack(max(0, len(body) - SEAL_BYTES) % 2**32, accepted_tag) for body in bodies]
    states = open_signed_boxes(bodies, keys, _PLACES, expected)
    return [_read(body, state, keys, accepted_tag, codec) for body, state in zip(bodies, states, strict=True)]


def _open_alone(body: memoryview, keys: EncryptionKeyPair, codec: PayloadCodec) -> Message | Refused:
    try:
        return open_message(body, keys, None, codec=codec)
    except RemoteProtocolError as error:
        return Refused.of(error)


def _read(
    body: memoryview, state: Opened, keys: EncryptionKeyPair, accepted_tag: MessageTag, codec: PayloadCodec
) -> Message | Refused:
    if state is Opened.CLOSED:
        return Refused("decryption", f"a box of {len(body)} bytes does not open: too short, damaged, or sealed for another key")
    is_valid = None if state is Opened.UNEXPECTED else state is Opened.SIGNED
    try:
        return read_opened(body[SEAL_BYTES:].toreadonly(), keys.public_key, accepted_tag, codec, is_valid=is_valid)
    except RemoteProtocolError as error:
        return Refused.of(error)
