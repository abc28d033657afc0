"""What a message costs on either side: sealing, opening, dictionaries, eligibility. Each result is checked once."""

import numpy as np
import pytest

from pet import MaskConfig, crypto, mask_model
from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.messages import (
    Message,
    Tag,
    UpdatePayload,
    decode_seed_dictionary,
    encode_seed_dictionary,
    open_message,
    seal_message,
)

SENDER = SigningKeyPair.from_seed(bytes(range(32)))
COORDINATOR = EncryptionKeyPair.from_seed(bytes(range(32, 64)))
LENGTHS = (1_000, 100_000)
SUM_PARTICIPANT_COUNT = 20


def update_message(length):
    weights = np.random.default_rng(1).uniform(-1, 1, length).astype(np.float32)
    _, masked_model = mask_model(weights, MaskConfig.parse("prime-f32-b0-m3"))
    payload = UpdatePayload(
        sum_signature=bytes(64),
        update_signature=bytes(64),
        masked_model=masked_model,
        local_seed_dictionary={i.to_bytes(32, "little"): bytes(80) for i in range(SUM_PARTICIPANT_COUNT)},
    )
    return Message(
        participant_public_key=SENDER.public_key,
        coordinator_public_key=COORDINATOR.public_key,
        payload=payload,
        tag=Tag.UPDATE,
    )


@pytest.mark.parametrize("length", LENGTHS)
def test_seal_update(benchmark, length):
    message = update_message(length)
    body = benchmark(seal_message, message, SENDER)
    assert open_message(bytearray(body), COORDINATOR, Tag.UPDATE) == message


@pytest.mark.parametrize("length", LENGTHS)
def test_open_update(benchmark, length):
    message = update_message(length)
    body = seal_message(message, SENDER)
    # Opening works in place and uses the body up, so every pass gets its own.
    opened = benchmark.pedantic(
        open_message, setup=lambda: ((bytearray(body), COORDINATOR, Tag.UPDATE), {}), rounds=20, warmup_rounds=1
    )
    assert opened == message


def test_decode_seed_dictionary(benchmark):
    seeds = {i.to_bytes(32, "little"): i.to_bytes(80, "little") for i in range(1_000)}
    assert benchmark(decode_seed_dictionary, encode_seed_dictionary(seeds)) == seeds


def test_eligibility(benchmark):
    signature = crypto.sign_task(SENDER, bytes(32), crypto.SUM_TASK)
    assert benchmark(crypto.is_eligible, signature, 1.0)


def test_verify_task(benchmark):
    signature = crypto.sign_task(SENDER, bytes(32), crypto.SUM_TASK)
    assert benchmark(crypto.verify_task, signature, SENDER.public_key, bytes(32), crypto.SUM_TASK)


def test_seal_and_open_a_mask_seed(benchmark):
    seed = bytes(range(32))
    assert benchmark(lambda: crypto.open_sealed(crypto.seal(seed, COORDINATOR.public_key), COORDINATOR)) == seed
