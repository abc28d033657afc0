"""What the three messages of a round say: sum, update and sum2 payloads, and their bytes.

A payload is read where it lies: masks and masked models are views of the buffer they were decoded from. Whether what a payload
says may be believed (who is eligible, whether elements are below the order) is decided elsewhere; nothing here knows a
round, a phase or a signing key.

Source: docs/spec/pet.md 4.2, 4.3, 4.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeAlias

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from pet.errors import CryptoError, RemoteProtocolError
from pet.mask_codec import mask_object_bytes
from pet.mask_config import MaskConfigPair
from pet.mask_object import Mask, MaskedModel
from pet.messages.dictionaries import (
    ENCRYPTED_SEED_BYTES,
    decode_local_seed_dictionary,
    encode_local_seed_dictionary,
    local_seed_dictionary_bytes,
)
from pet.messages.header import Tag

_SUM_PAYLOAD_BYTES: Final = SIGNATURE_BYTES + PUBLIC_KEY_BYTES


def update_payload_bytes(config: MaskConfigPair, model_length: int, entry_count: int) -> int:
    """Return the size of an update payload with `entry_count` sum participants (spec 4.8): the largest payload there is."""
    return 2 * SIGNATURE_BYTES + mask_object_bytes(config, model_length) + local_seed_dictionary_bytes(entry_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class SumPayload:
    """A participant takes part as sum participant (spec 4.2).

    Attributes:
        sum_signature: 64 bytes, the proof of being selected.
        ephemeral_public_key: 32 bytes, the X25519 key that mask seeds are to be encrypted for.
    """

    tag: ClassVar[Tag] = Tag.SUM

    sum_signature: bytes
    ephemeral_public_key: bytes

    def __post_init__(self) -> None:
        _require_size("sum signature", self.sum_signature, SIGNATURE_BYTES)
        _require_size("ephemeral public key", self.ephemeral_public_key, PUBLIC_KEY_BYTES)

    @property
    def size_bytes(self) -> int:
        """Size of the serialised payload."""
        return _SUM_PAYLOAD_BYTES

    def encode_parts(self) -> list[Buffer]:
        """Return the serialised payload as buffers to be sent one after the other."""
        return [self.sum_signature, self.ephemeral_public_key]

    @classmethod
    def decode(cls, data: Buffer) -> SumPayload:
        """Read a whole payload.

        Raises:
            RemoteProtocolError: "malformed_sum" or "trailing_bytes".
        """
        _require_at_least("malformed_sum", "sum payload", data, _SUM_PAYLOAD_BYTES)
        _require_end("sum payload", data, _SUM_PAYLOAD_BYTES)
        return cls(
            sum_signature=bytes(data[:SIGNATURE_BYTES]),
            ephemeral_public_key=bytes(data[SIGNATURE_BYTES:]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePayload:
    """A masked model, and the seed of its mask encrypted for every sum participant (spec 4.3).

    Attributes:
        sum_signature: 64 bytes, shows that the sender was not selected as sum participant.
        update_signature: 64 bytes, the proof of being selected for the update.
        masked_model: after decoding a view of the message, which must outlive it.
        local_seed_dictionary: public signing key of each sum participant, and the mask seed encrypted for it.
        encrypted_seed_bytes: size of an encrypted seed, as the profile states.
    """

    tag: ClassVar[Tag] = Tag.UPDATE

    sum_signature: bytes
    update_signature: bytes
    masked_model: MaskedModel
    local_seed_dictionary: Mapping[bytes, bytes] = field(repr=False)
    encrypted_seed_bytes: int = field(default=ENCRYPTED_SEED_BYTES, repr=False)

    def __post_init__(self) -> None:
        _require_size("sum signature", self.sum_signature, SIGNATURE_BYTES)
        _require_size("update signature", self.update_signature, SIGNATURE_BYTES)

    @property
    def size_bytes(self) -> int:
        """Size of the serialised payload."""
        dictionary_bytes = local_seed_dictionary_bytes(len(self.local_seed_dictionary), self.encrypted_seed_bytes)
        return 2 * SIGNATURE_BYTES + self.masked_model.size_bytes + dictionary_bytes

    def encode_parts(self) -> list[Buffer]:
        """Return the serialised payload as buffers to be sent one after the other; the vector is not copied.

        Raises:
            CryptoError: a key or an encrypted seed of the dictionary has another size than its kind.
        """
        dictionary = encode_local_seed_dictionary(self.local_seed_dictionary, self.encrypted_seed_bytes)
        return [self.sum_signature, self.update_signature, *self.masked_model.to_parts(), dictionary]

    @classmethod
    def decode(cls, data: Buffer, encrypted_seed_bytes: int = ENCRYPTED_SEED_BYTES) -> UpdatePayload:
        """Read a whole payload.

        Raises:
            RemoteProtocolError: "malformed_update", "malformed_mask_object", "malformed_mask_config",
                "malformed_seed_dictionary", "duplicate_key" or "trailing_bytes".
        """
        view = memoryview(data)
        _require_at_least("malformed_update", "update payload", view, 2 * SIGNATURE_BYTES)
        masked_model, used = MaskedModel.decode_prefix(view[2 * SIGNATURE_BYTES :])
        position = 2 * SIGNATURE_BYTES + used
        dictionary, used = decode_local_seed_dictionary(view[position:], encrypted_seed_bytes)
        _require_end("update payload", view, position + used)
        return cls(
            sum_signature=bytes(view[:SIGNATURE_BYTES]),
            update_signature=bytes(view[SIGNATURE_BYTES : 2 * SIGNATURE_BYTES]),
            masked_model=masked_model,
            local_seed_dictionary=dictionary,
            encrypted_seed_bytes=encrypted_seed_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum2Payload:
    """The sum of all masks of a round, as one sum participant computed it (spec 4.4).

    Attributes:
        sum_signature: 64 bytes, the proof of being selected.
        mask: after decoding a view of the message, which must outlive it.
    """

    tag: ClassVar[Tag] = Tag.SUM2

    sum_signature: bytes
    mask: Mask

    def __post_init__(self) -> None:
        _require_size("sum signature", self.sum_signature, SIGNATURE_BYTES)

    @property
    def size_bytes(self) -> int:
        """Size of the serialised payload."""
        return SIGNATURE_BYTES + self.mask.size_bytes

    def encode_parts(self) -> list[Buffer]:
        """Return the serialised payload as buffers to be sent one after the other; the vector is not copied."""
        return [self.sum_signature, *self.mask.to_parts()]

    @classmethod
    def decode(cls, data: Buffer) -> Sum2Payload:
        """Read a whole payload.

        Raises:
            RemoteProtocolError: "malformed_sum2", "malformed_mask_object", "malformed_mask_config" or "trailing_bytes".
        """
        view = memoryview(data)
        _require_at_least("malformed_sum2", "sum2 payload", view, SIGNATURE_BYTES)
        mask, used = Mask.decode_prefix(view[SIGNATURE_BYTES:])
        _require_end("sum2 payload", view, SIGNATURE_BYTES + used)
        return cls(sum_signature=bytes(view[:SIGNATURE_BYTES]), mask=mask)


#: What a whole message can carry.
Payload: TypeAlias = SumPayload | UpdatePayload | Sum2Payload


def _require_size(what: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise CryptoError(f"{what}: expected {size} bytes, got {len(value)}")


def _require_at_least(reason: str, what: str, data: Buffer, size: int) -> None:
    if len(data) < size:
        raise RemoteProtocolError(reason, f"{what}: expected at least {size} bytes, got {len(data)}")


def _require_end(what: str, data: Buffer, end: int) -> None:
    if len(data) != end:
        raise RemoteProtocolError("trailing_bytes", f"{what}: expected {end} bytes, got {len(data)}")
