"""What a member still has to send of one message: sealed whole, or chunk by chunk where the way takes no large ones.

A part is sealed once, and sent again as it is. Sum and Check are forwarded as they were signed, so they never come in chunks.

Source: docs/spec/profile.md 7.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pet.crypto import SigningKeyPair, seal
from pet.errors import LocalProtocolError
from pet.messages import HEADER_BYTES, max_payload_bytes, split_payload
from pet.pet1.messages import Pet1Tag, coordinator_of, sign_message
from pet.protocol.participant_checks import smaller_message_size


class MemberOutbox:
    """One message on its way.

    Args:
        tag: what it is.
        message: signed.
        key: that it is signed with; chunks are, too.
        max_message_size: largest sealed message in bytes; None is unlimited.
        message_id: of the chunks, 16 random bits.

    Attributes:
        tag: what it is.
        body: the part to send now.

    Raises:
        LocalProtocolError: more chunks than can be numbered.
    """

    def __init__(
        self, tag: Pet1Tag, message: bytes, key: SigningKeyPair, max_message_size: int | None, message_id: int
    ) -> None:
        self.tag: Final = tag
        self._message, self._key, self._message_id = message, key, message_id
        self._coordinator_key: Final = coordinator_of(message)
        self._was_split = False
        self._begin(max_message_size)

    def advance(self) -> bool:
        """Note that the part arrived, and seal the next one. Returns False if that was the last."""
        part = next(self._parts, None)
        self.body = b"" if part is None else seal(part, self._coordinator_key)
        return part is not None

    def split(self) -> int | None:
        """Begin again in chunks, as the message was refused for its size; returns theirs, or None if that is of no use."""
        size = None if self._was_split or self.tag is not Pet1Tag.SUM2 else smaller_message_size(len(self.body))
        if size is None:
            return None
        self._was_split = True
        try:
            self._begin(size)
        except LocalProtocolError:
            return None
        return size

    def _begin(self, max_message_size: int | None) -> None:
        payload = memoryview(self._message)[HEADER_BYTES:]
        is_whole = max_message_size is None or len(payload) <= max_payload_bytes(max_message_size)
        if is_whole or max_message_size is None or self.tag is not Pet1Tag.SUM2:
            self._parts: Iterator[bytes] = iter([self._message])
        else:
            self._parts = self._sign_chunks(payload, max_message_size)
        self.advance()

    def _sign_chunks(self, payload: memoryview, max_message_size: int) -> Iterator[bytes]:
        chunks = split_payload([payload], max_message_size, self._message_id)
        return (
            sign_message(self._key, self._coordinator_key, self.tag, b"".join(chunk.encode_parts()), is_chunk=True)
            for chunk in chunks
        )
