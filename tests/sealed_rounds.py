"""Participants of a round as sealed bodies: what tests of engines, services and servers send."""

from __future__ import annotations

import base64
import functools
import itertools
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np

from pet.crypto import SUM_TASK, UPDATE_TASK, EncryptionKeyPair, SigningKeyPair, is_eligible, open_sealed, seal, sign_task
from pet.mask_object import MaskSeed, sum_masks
from pet.masking import mask_model
from pet.messages import Message, Payload, RoundParameters, Sum2Payload, SumPayload, UpdatePayload, seal_message

WEIGHTS = np.array([0.5, -0.25, 0.75, 0.125], dtype=np.float32)


def seeds_path(public_key: bytes) -> str:
    return f"/seeds?pk={quote(base64.b64encode(public_key).decode(), safe='')}"


@functools.cache
def numbered_key(number: int) -> SigningKeyPair:
    """Return one of the keys that are tried; a round has hundreds of them looked at."""
    return SigningKeyPair.from_seed(number.to_bytes(32, "big"))


class SealedRound:
    """Makes the bodies of one round from its published parameters; keys are found by trying numbered ones."""

    def __init__(self, encoded_parameters: bytes) -> None:
        self.parameters = RoundParameters.from_bytes(encoded_parameters)

    def keys(self, task: str, count: int) -> list[SigningKeyPair]:
        """Return keys that are selected for "sum" or "update" in this round."""
        numbered = map(numbered_key, itertools.count())
        return list(itertools.islice((key for key in numbered if self._task(key) == task), count))

    def sum(self, key: SigningKeyPair) -> bytearray:
        ephemeral = EncryptionKeyPair.from_seed(key.public_key).public_key
        return self.seal(key, SumPayload(sum_signature=self._sign(key, SUM_TASK), ephemeral_public_key=ephemeral))

    def update(self, key: SigningKeyPair, sum_dictionary: Mapping[bytes, bytes], weights: np.ndarray = WEIGHTS) -> bytearray:
        seed, masked_model = mask_model(weights, self.parameters.mask_config, 1, MaskSeed(key.public_key))
        seeds = {public_key: seal(seed.to_bytes(), ephemeral) for public_key, ephemeral in sum_dictionary.items()}
        payload = UpdatePayload(
            sum_signature=self._sign(key, SUM_TASK),
            update_signature=self._sign(key, UPDATE_TASK),
            masked_model=masked_model,
            local_seed_dictionary=seeds,
        )
        return self.seal(key, payload)

    def sum2(self, key: SigningKeyPair, encrypted_seeds: Sequence[bytes]) -> bytearray:
        ephemeral = EncryptionKeyPair.from_seed(key.public_key)
        seeds = [MaskSeed(open_sealed(seed, ephemeral)) for seed in encrypted_seeds]
        mask = sum_masks(seeds, self.parameters.mask_config, self.parameters.model_length)
        return self.seal(key, Sum2Payload(sum_signature=self._sign(key, SUM_TASK), mask=mask))

    def seal(self, key: SigningKeyPair, payload: Payload) -> bytearray:
        message = Message(
            participant_public_key=key.public_key,
            coordinator_public_key=self.parameters.coordinator_public_key,
            payload=payload,
            tag=payload.tag,
        )
        return seal_message(message, key)

    def _task(self, key: SigningKeyPair) -> str:
        if is_eligible(self._sign(key, SUM_TASK), self.parameters.sum_probability):
            return "sum"
        return "update" if is_eligible(self._sign(key, UPDATE_TASK), self.parameters.update_probability) else "none"

    def _sign(self, key: SigningKeyPair, task: bytes) -> bytes:
        return sign_task(key, self.parameters.seed, task)
