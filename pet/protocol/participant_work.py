"""The work of the two tasks: from what the coordinator published to the payload that answers it.

Pure functions of their arguments and of the entropy they are given; they know no state and no request.

Source: docs/spec/pet.md 8.1 (Sum, Update and Sum2), with the handling of low-order keys of 9.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from numpy.typing import NDArray

from pet import crypto
from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import CryptoError, UnusableSeedsError
from pet.mask_object import MASK_SEED_BYTES, MaskSeed, sum_masks
from pet.masking import mask_model
from pet.messages import ENCRYPTED_SEED_BYTES, RoundParameters, Sum2Payload, SumPayload, UpdatePayload


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSignatures:
    """The two signatures that decide the task of a participant in a round (spec 1.7)."""

    sum_signature: bytes
    update_signature: bytes

    @classmethod
    def sign(cls, key: SigningKeyPair, parameters: RoundParameters) -> TaskSignatures:
        """Sign both tasks of a round; Ed25519 is deterministic, so the outcome is the same each time."""
        return cls(
            sum_signature=crypto.sign_task(key, parameters.seed, crypto.SUM_TASK),
            update_signature=crypto.sign_task(key, parameters.seed, crypto.UPDATE_TASK),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateWork:
    """What goes into an update besides what the coordinator published."""

    model: NDArray[Any] = field(repr=False)
    scalar: Fraction
    entropy: Callable[[int], bytes]
    threads: int | None = None
    on_clip: Literal["count", "raise"] = "count"


def build_sum(signatures: TaskSignatures, ephemeral_keys: EncryptionKeyPair) -> SumPayload:
    """Announce the key that mask seeds are to be encrypted for."""
    return SumPayload(sum_signature=signatures.sum_signature, ephemeral_public_key=ephemeral_keys.public_key)


def build_update(
    signatures: TaskSignatures, parameters: RoundParameters, sum_dictionary: Mapping[bytes, bytes], work: UpdateWork
) -> UpdatePayload:
    """Mask a model under a fresh seed and encrypt the seed for every sum participant.

    Raises:
        ModelError: weights lie beyond the bound, and `on_clip` says that this is an error.
    """
    seed = MaskSeed(work.entropy(MASK_SEED_BYTES))
    _, masked_model = mask_model(
        work.model, parameters.mask_config, work.scalar, seed, on_clip=work.on_clip, threads=work.threads
    )
    encrypted_seeds = {
        public_key: _encrypt_seed(seed, ephemeral_public_key, work.entropy)
        for public_key, ephemeral_public_key in sum_dictionary.items()
    }
    return UpdatePayload(
        sum_signature=signatures.sum_signature,
        update_signature=signatures.update_signature,
        masked_model=masked_model,
        local_seed_dictionary=encrypted_seeds,
    )


def build_sum2(
    signatures: TaskSignatures,
    parameters: RoundParameters,
    seed_dictionary: Mapping[bytes, bytes],
    ephemeral_keys: EncryptionKeyPair,
    threads: int | None,
) -> Sum2Payload:
    """Open all seeds and add up their masks.

    Raises:
        UnusableSeedsError: a seed cannot be opened, or there are more than the mask config allows. One bad seed spoils the
            whole sum: without it the mask would not match (spec 13).
    """
    most = parameters.mask_config.max_model_count
    if len(seed_dictionary) > most:  # before any of them is opened
        raise UnusableSeedsError("too_many_seeds", f"expected at most {most} seeds, got {len(seed_dictionary)}")
    try:
        seeds = [MaskSeed(crypto.open_sealed(box, ephemeral_keys)) for box in seed_dictionary.values()]
    except CryptoError:
        raise UnusableSeedsError(
            "unusable_seed", f"expected {len(seed_dictionary)} seeds that open, got one that does not"
        ) from None
    mask = sum_masks(seeds, parameters.mask_config, parameters.model_length, threads)
    return Sum2Payload(sum_signature=signatures.sum_signature, mask=mask)


def _encrypt_seed(seed: MaskSeed, ephemeral_public_key: bytes, entropy: Callable[[int], bytes]) -> bytes:
    try:
        return crypto.seal(seed.to_bytes(), ephemeral_public_key)
    except CryptoError:
        # A key of low order: nobody could open a box for it, and xaynet's participants send no usable one either. The entry
        # must be there nevertheless, or the coordinator refuses the whole message (spec 9.3).
        return entropy(ENCRYPTED_SEED_BYTES)
