"""The parameters of a round, as the coordinator publishes them.

A record with a digest; the 136 bytes of bincode that xaynet serves as /params are one rendering of it. How the seed came about
or who fetched the record is not known here.

Source: docs/spec/pet.md 1.4, 5.3.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, ROUND_SEED_BYTES, hash_sha256
from pet.errors import ConfigError, CryptoError, RemoteProtocolError
from pet.mask_codec import VARIANT_INDICES_BYTES, decode_variant_indices, encode_variant_indices
from pet.mask_config import MaskConfigPair

_LAYOUT: Final = struct.Struct(
    f"<Q {PUBLIC_KEY_BYTES}s d d Q {ROUND_SEED_BYTES}s {VARIANT_INDICES_BYTES}s {VARIANT_INDICES_BYTES}s Q"
)
ROUND_PARAMETERS_BYTES: Final[int] = _LAYOUT.size
#: A mask object counts its elements in 32 bits, so no message of a round could carry a longer model.
MAX_MODEL_LENGTH: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundParameters:
    """What a participant must know of a round. A change of any field means that a new round has begun.

    Attributes:
        coordinator_public_key: X25519 key that messages of this round are sealed for, 32 bytes.
        sum_probability: share of the participants that are selected for the sum.
        update_probability: share of the others that are selected for the update.
        seed: 32 bytes, what task signatures sign.
        mask_config: how models are masked.
        model_length: number of weights.
    """

    coordinator_public_key: bytes
    sum_probability: float
    update_probability: float
    seed: bytes
    mask_config: MaskConfigPair
    model_length: int

    def __post_init__(self) -> None:
        for name, value, size in (
            ("coordinator_public_key", self.coordinator_public_key, PUBLIC_KEY_BYTES),
            ("seed", self.seed, ROUND_SEED_BYTES),
        ):
            if len(value) != size:
                raise CryptoError(f"{name}: expected {size} bytes, got {len(value)}")
        if math.isnan(self.sum_probability) or math.isnan(self.update_probability):
            raise ConfigError(f"probabilities: expected numbers, got {self.sum_probability} and {self.update_probability}")
        if not 0 <= self.model_length <= MAX_MODEL_LENGTH:
            raise ConfigError(f"model_length: expected 0 to {MAX_MODEL_LENGTH}, got {self.model_length}")

    def to_bytes(self) -> bytes:
        """Serialise in bincode, 136 bytes (spec 5.3)."""
        return _LAYOUT.pack(
            PUBLIC_KEY_BYTES,
            self.coordinator_public_key,
            self.sum_probability,
            self.update_probability,
            ROUND_SEED_BYTES,
            self.seed,
            encode_variant_indices(self.mask_config.vect),
            encode_variant_indices(self.mask_config.unit),
            self.model_length,
        )

    @classmethod
    def from_bytes(cls, data: Buffer) -> RoundParameters:
        """Read the bincode rendering.

        Raises:
            RemoteProtocolError: "malformed_parameters" (too short, a size that is not 32, a probability that is NaN, a model
                longer than a message can carry), "malformed_mask_config" or "trailing_bytes".
        """
        if len(data) != ROUND_PARAMETERS_BYTES:
            reason = "malformed_parameters" if len(data) < ROUND_PARAMETERS_BYTES else "trailing_bytes"
            raise RemoteProtocolError(reason, f"round parameters: expected {ROUND_PARAMETERS_BYTES} bytes, got {len(data)}")
        key_size, key, sum_probability, update_probability, seed_size, seed, vect, unit, length = _LAYOUT.unpack(data)
        if (key_size, seed_size) != (PUBLIC_KEY_BYTES, ROUND_SEED_BYTES):
            raise RemoteProtocolError(
                "malformed_parameters",
                f"round parameters: expected a key of {PUBLIC_KEY_BYTES} bytes and a seed of {ROUND_SEED_BYTES}, "
                f"got {key_size} and {seed_size}",
            )
        mask_config = MaskConfigPair(vect=decode_variant_indices(vect), unit=decode_variant_indices(unit))
        try:
            return cls(
                coordinator_public_key=key,
                sum_probability=sum_probability,
                update_probability=update_probability,
                seed=seed,
                mask_config=mask_config,
                model_length=length,
            )
        except ConfigError as error:
            raise RemoteProtocolError("malformed_parameters", f"round parameters: {error}") from None

    def digest(self) -> bytes:
        """Return the SHA-256 of the record, by which two parties can tell whether they mean the same round."""
        return hash_sha256(self.to_bytes())
