"""What a participant still has to send of one message: sealed whole, or chunk by chunk, strictly in order.

A part is sealed once. If sending it fails it is kept and sent again as it is: the coordinator then sees the very same bytes,
and the message is not signed a second time. This file knows nothing of phases or of how parts are sent.

Source: docs/spec/pet.md 4.7 (encoder) and 8.1 (SendingSum, SendingUpdate, SendingSum2).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, StateError
from pet.messages import AnyPayload, Chunk, Message, Payload, Tag, max_payload_bytes, seal_message, split_payload
from pet.protocol.participant_state import SavedOutbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What all parts of a message have in common: from whom, to whom, and how large a part may be."""

    signing_key: SigningKeyPair
    coordinator_public_key: bytes
    max_message_size: int | None

    def seal(self, payload: AnyPayload, tag: Tag) -> bytearray:
        """Sign and seal one message."""
        message = Message(
            participant_public_key=self.signing_key.public_key,
            coordinator_public_key=self.coordinator_public_key,
            payload=payload,
            tag=tag,
        )
        return seal_message(message, self.signing_key)

    def is_chunked(self, payload_bytes: int) -> bool:
        """Return whether a payload of that size must be split."""
        return self.max_message_size is not None and payload_bytes > max_payload_bytes(self.max_message_size)

    def split(self, payload: bytes, message_id: int) -> Iterator[Chunk]:
        """Cut a payload into chunks.

        Raises:
            ConfigError: the size of messages is not limited.
            LocalProtocolError: more chunks than can be numbered.
        """
        if self.max_message_size is None:
            raise ConfigError("max_message_size: expected a limit for a message in chunks, got None")
        return split_payload([payload], self.max_message_size, message_id)


class Outbox:
    """One message on its way."""

    def __init__(self, envelope: Envelope, saved: SavedOutbox, whole: Payload | None = None) -> None:
        """Go on with a message where `saved` says.

        Args:
            envelope: what all parts have in common.
            saved: what is left to send.
            whole: the payload, so that the message can still be split; None after a restart.

        Raises:
            LocalProtocolError: more chunks than can be numbered.
            StateError, ConfigError: nothing is left to send, or there are chunks without a limit that asks for them.
        """
        self.tag = saved.tag
        self._envelope = envelope
        self._message_id = saved.message_id
        self._payload = saved.payload
        self._next_chunk_id = saved.next_chunk_id
        self._sealed = saved.sealed
        self._whole = whole
        self._chunks: Iterator[Chunk] = iter(())
        if saved.payload:
            self._chunks = itertools.islice(envelope.split(saved.payload, saved.message_id), saved.next_chunk_id, None)
        if not self._sealed:
            self._seal_next()
        if not self._sealed:
            raise StateError(f"saved participant: expected a part left to send, got none after chunk {saved.next_chunk_id}")

    @classmethod
    def of(cls, envelope: Envelope, payload: Payload, message_id: int) -> Outbox:
        """Prepare a message; it, or its first chunk, is signed and sealed here.

        Raises:
            LocalProtocolError: too large for one message, or for the number of chunks there can be.
        """
        plain, sealed = b"", bytearray()
        if envelope.is_chunked(payload.size_bytes):
            plain = b"".join(payload.encode_parts())
        else:
            # The saved state has the sealed message only, or it would be twice as large. In memory the payload stays, as big
            # as it is: a proxy that refuses the message for its size may take it in chunks, and a box cannot be opened again.
            sealed = envelope.seal(payload, payload.tag)
        saved = SavedOutbox(tag=payload.tag, message_id=message_id, next_chunk_id=0, payload=plain, sealed=sealed)
        return cls(envelope, saved, payload)

    def split(self, envelope: Envelope, message_id: int) -> Outbox | None:
        """Return the same message from its beginning, in the chunks that another envelope asks for.

        Returns:
            None if the payload is no longer there, or needs no chunks under that envelope.

        Raises:
            LocalProtocolError: more chunks than can be numbered.
        """
        if self._whole is None or not envelope.is_chunked(self._whole.size_bytes):
            return None
        return Outbox.of(envelope, self._whole, message_id)

    @property
    def body(self) -> bytes | bytearray:
        """The part to send now."""
        return self._sealed

    @property
    def is_begun(self) -> bool:
        """Whether the part to send now is another chunk than the first."""
        return self._next_chunk_id > 1

    def advance(self) -> bool:
        """Note that the part arrived and seal the next one. Returns False if that was the last."""
        self._sealed = b""
        self._seal_next()
        return bool(self._sealed)

    def save(self) -> SavedOutbox:
        """Return what is left to send."""
        return SavedOutbox(
            tag=self.tag,
            message_id=self._message_id,
            next_chunk_id=self._next_chunk_id,
            payload=self._payload,
            sealed=self._sealed,
        )

    def _seal_next(self) -> None:
        for chunk in itertools.islice(self._chunks, 1):
            self._sealed = self._envelope.seal(chunk, self.tag)
            self._next_chunk_id += 1
