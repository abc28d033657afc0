"""One test for each attack of the checklist in docs/security.md: what comes is counted by its reason, and changes nothing."""

import base64

import numpy as np
import pytest
from sealed_rounds import WEIGHTS, SealedRound
from test_engine import Clock, make_engine, pass_time, run_round

from pet.coordinator.allow_list import read_allow_list
from pet.coordinator.storage.memory import MemoryStorage
from pet.crypto import SUM_TASK, UPDATE_TASK, EncryptionKeyPair, SigningKeyPair, seal, sign_task
from pet.errors import ConfigError
from pet.mask_object import MaskSeed, sum_masks
from pet.masking import mask_model
from pet.messages import (
    Chunk,
    Message,
    Sum2Payload,
    SumPayload,
    Tag,
    UpdatePayload,
    decode_sum_dictionary,
    encode_message,
    seal_message,
)
from pet.protocol.strategies import ParticipantAllowList, Strategies


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def engine(clock):
    engine = make_engine(clock)
    engine.tick()
    return engine


def counts(engine):
    status = engine.status()
    return status["accepted"], status["rejected"]


def to_update(engine, clock, sums=1):
    """Bring an engine into the Update phase."""
    round_ = SealedRound(engine.parameters())
    keys = round_.keys("sum", sums)
    for key in keys:
        engine.handle_message(round_.sum(key))
    pass_time(engine, clock)
    return round_, keys, decode_sum_dictionary(engine.sums())


def to_sum2(engine, clock, sums):
    round_, keys, sum_dictionary = to_update(engine, clock, sums)
    seeds = []
    for key in round_.keys("update", 3):
        engine.handle_message(round_.update(key, sum_dictionary))
        seeds.append(MaskSeed(key.public_key))
    pass_time(engine, clock)
    return round_, keys, seeds


def update_payload(round_, key, seeds, weights=WEIGHTS):
    _, masked_model = mask_model(weights, round_.parameters.mask_config, 1, MaskSeed(key.public_key))
    return UpdatePayload(
        sum_signature=sign_task(key, round_.parameters.seed, SUM_TASK),
        update_signature=sign_task(key, round_.parameters.seed, UPDATE_TASK),
        masked_model=masked_model,
        local_seed_dictionary=seeds,
    )


def test_replay_within_the_round(engine, clock):
    round_, _, sum_dictionary = to_update(engine, clock)
    body = bytes(round_.update(round_.keys("update", 1)[0], sum_dictionary))
    for _ in range(3):
        engine.handle_message(bytearray(body))
    assert counts(engine) == (1, {"update_already_submitted": 2})


def test_replay_of_an_earlier_round_and_its_key(engine, clock):
    """Each round has a key of its own, so nothing sealed for an earlier one opens."""
    round_ = SealedRound(engine.parameters())
    body = bytes(round_.sum(round_.keys("sum", 1)[0]))
    run_round(engine, clock)
    pass_time(engine, clock)
    engine.handle_message(bytearray(body))
    assert counts(engine) == (0, {"decryption": 1})


def test_old_key_inside_a_body_sealed_for_the_new_one(engine, clock):
    old = SealedRound(engine.parameters())
    key = old.keys("sum", 1)[0]
    run_round(engine, clock)
    pass_time(engine, clock)
    new = SealedRound(engine.parameters())
    message = Message(
        participant_public_key=key.public_key,
        coordinator_public_key=old.parameters.coordinator_public_key,
        payload=SumPayload(
            sum_signature=sign_task(key, old.parameters.seed, SUM_TASK),
            ephemeral_public_key=EncryptionKeyPair.generate().public_key,
        ),
        tag=Tag.SUM,
    )
    signed = encode_message(message, key)
    engine.handle_message(bytearray(seal(signed, new.parameters.coordinator_public_key)))
    assert counts(engine) == (0, {"wrong_coordinator_key": 1})


def test_foreign_signature(engine):
    """A message in somebody else's name."""
    round_ = SealedRound(engine.parameters())
    victim, attacker = round_.keys("sum", 2)
    payload = SumPayload(
        sum_signature=sign_task(victim, round_.parameters.seed, SUM_TASK),
        ephemeral_public_key=EncryptionKeyPair.generate().public_key,
    )
    message = Message(
        participant_public_key=attacker.public_key,
        coordinator_public_key=round_.parameters.coordinator_public_key,
        payload=payload,
        tag=Tag.SUM,
    )
    signed = bytearray(encode_message(message, attacker))
    signed[64:96] = victim.public_key
    signed[:64] = attacker.sign(bytes(signed[64:]))
    engine.handle_message(bytearray(seal(bytes(signed), round_.parameters.coordinator_public_key)))
    assert counts(engine) == (0, {"invalid_signature": 1})


def test_forged_sum_signature(engine):
    """The task signature of another participant, who was selected."""
    round_ = SealedRound(engine.parameters())
    selected = round_.keys("sum", 1)[0]
    attacker = round_.keys("update", 1)[0]
    payload = SumPayload(
        sum_signature=sign_task(selected, round_.parameters.seed, SUM_TASK),
        ephemeral_public_key=EncryptionKeyPair.generate().public_key,
    )
    engine.handle_message(round_.seal(attacker, payload))
    assert counts(engine) == (0, {"not_sum_eligible": 1})


def test_forged_sum_signature_in_an_update(engine, clock):
    round_, _, sum_dictionary = to_update(engine, clock)
    key = round_.keys("update", 1)[0]
    payload = update_payload(round_, key, {public_key: bytes(80) for public_key in sum_dictionary})
    forged = UpdatePayload(
        sum_signature=bytes(64),
        update_signature=payload.update_signature,
        masked_model=payload.masked_model,
        local_seed_dictionary=payload.local_seed_dictionary,
    )
    engine.handle_message(round_.seal(key, forged))
    assert counts(engine) == (0, {"invalid_sum_signature": 1})


def test_low_order_key(engine):
    round_ = SealedRound(engine.parameters())
    key = round_.keys("sum", 1)[0]
    for low_order in (bytes(32), b"\x01" + bytes(31)):
        payload = SumPayload(sum_signature=sign_task(key, round_.parameters.seed, SUM_TASK), ephemeral_public_key=low_order)
        engine.handle_message(round_.seal(key, payload))
    assert counts(engine) == (0, {"low_order_key": 2})


def test_poisoned_seed_dictionary_of_the_wrong_participants(engine, clock):
    round_, keys, _ = to_update(engine, clock)
    key = round_.keys("update", 1)[0]
    for seeds in ({}, {bytes(32): bytes(80)}, {keys[0].public_key: bytes(80), bytes(32): bytes(80)}):
        engine.handle_message(round_.seal(key, update_payload(round_, key, seeds)))
    accepted, rejected = counts(engine)
    assert accepted == 0
    assert rejected == {"seed_dictionary_length": 2, "unknown_sum_participant": 1}


def test_poisoned_seed_costs_the_round_and_nothing_else(engine, clock):
    """A seed that does not open looks like a good one: the sum participant gives up, and the next round is whole."""
    round_, _, sum_dictionary = to_update(engine, clock)
    poisoner, *others = round_.keys("update", 3)
    engine.handle_message(
        round_.seal(poisoner, update_payload(round_, poisoner, {public_key: bytes(80) for public_key in sum_dictionary}))
    )
    for key in others:
        engine.handle_message(round_.update(key, sum_dictionary))
    pass_time(engine, clock)
    pass_time(engine, clock, 61)  # nobody can sum: the phase runs out
    assert engine.status()["rounds_failed"] == 1
    assert engine.model() is None
    run_round(engine, clock)
    assert engine.status()["rounds_completed"] == 1


def test_wrong_mask_vote_is_outvoted(engine, clock):
    round_, keys, seeds = to_sum2(engine, clock, sums=3)
    for key, mine in zip(keys, (seeds[:2], seeds, seeds), strict=True):
        mask = sum_of(mine, round_)
        payload = Sum2Payload(sum_signature=sign_task(key, round_.parameters.seed, SUM_TASK), mask=mask)
        engine.handle_message(round_.seal(key, payload))
    pass_time(engine, clock)
    assert np.allclose(engine.model().to_array(), WEIGHTS, atol=1e-6)


def test_wrong_mask_vote_without_a_majority_fails_the_round(engine, clock):
    """Two masks with a vote each: nobody can tell which is right, so there is no model rather than a wrong one."""
    round_, keys, seeds = to_sum2(engine, clock, sums=2)
    for key, mine in zip(keys, (seeds[:2], seeds), strict=True):
        payload = Sum2Payload(sum_signature=sign_task(key, round_.parameters.seed, SUM_TASK), mask=sum_of(mine, round_))
        engine.handle_message(round_.seal(key, payload))
    pass_time(engine, clock)
    assert engine.status()["rounds_failed"] == 1
    assert engine.model() is None


def sum_of(seeds, round_):
    return sum_masks(seeds, round_.parameters.mask_config, round_.parameters.model_length)


def test_oversize(engine):
    """A body that decrypts to more than it says, and one of zeros as large as allowed: both are read, and refused."""
    round_ = SealedRound(engine.parameters())
    engine.handle_message(bytearray(engine.max_body_bytes()))
    key = round_.keys("sum", 1)[0]
    payload = Chunk(chunk_id=0, message_id=1, is_last=True, data=bytes(engine.max_body_bytes()))
    message = Message(
        participant_public_key=key.public_key,
        coordinator_public_key=round_.parameters.coordinator_public_key,
        payload=payload,
        tag=Tag.SUM,
    )
    engine.handle_message(seal_message(message, key))
    assert counts(engine)[0] == 0
    assert sum(counts(engine)[1].values()) == 2


def test_flood_of_chunks_leaves_room_for_others(engine, clock):
    """One participant that signs validly and never ends its messages cannot keep another from sending one in chunks."""
    round_, _, sum_dictionary = to_update(engine, clock)
    flooder, honest = round_.keys("update", 2)
    for message_id in range(400):
        send_chunk(engine, round_, flooder, Chunk(chunk_id=1, message_id=message_id, is_last=False, data=bytes(15_000)))
    assert counts(engine)[1]["chunk_limit"] > 0
    payload = update_payload(round_, honest, seeds_for(honest, sum_dictionary))
    encoded = b"".join(payload.encode_parts())
    send_chunk(engine, round_, honest, Chunk(chunk_id=1, message_id=7, is_last=True, data=encoded[100:]))
    send_chunk(engine, round_, honest, Chunk(chunk_id=0, message_id=7, is_last=False, data=encoded[:100]))
    assert counts(engine)[0] == 1


def seeds_for(key, sum_dictionary):
    return {public_key: seal(key.public_key, ephemeral) for public_key, ephemeral in sum_dictionary.items()}


def test_chunks_of_the_uninvited_take_no_room(clock):
    """Keys that nobody invited fill neither the places of unfinished messages nor the storage; nor does what repeats itself."""
    storage, allowed = MemoryStorage(), set()

    def admit(key):
        ParticipantAllowList(frozenset(allowed))(key)

    engine = make_engine(clock, strategies=Strategies(admit=admit), storage=storage)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    repeating, honest = round_.keys("update", 2)
    allowed |= {key.public_key for key in [*round_.keys("sum", 1), honest, repeating]}
    to_update(engine, clock)
    chunk = Chunk(chunk_id=1, message_id=7, is_last=False, data=b"anything")
    send_chunk(engine, round_, repeating, chunk)
    written, commit = [], storage.commit
    storage.commit = lambda transaction: (written.extend(transaction.blobs), commit(transaction))
    for _ in range(20):
        send_chunk(engine, round_, SigningKeyPair.generate(), chunk)
        send_chunk(engine, round_, repeating, chunk)
    assert counts(engine)[1] == {"not_admitted": 20}
    assert written == []
    send_chunk(engine, round_, honest, chunk)
    assert len(written) == 1


def send_chunk(engine, round_, key, chunk):
    message = Message(
        participant_public_key=key.public_key,
        coordinator_public_key=round_.parameters.coordinator_public_key,
        payload=chunk,
        tag=Tag.UPDATE,
    )
    engine.handle_message(seal_message(message, key))


def test_uninvited_participants(clock, tmp_path):
    """With a list of those who may, another valid participant is refused."""
    file = tmp_path / "participants"
    probe = make_engine(clock)
    probe.tick()
    invited, uninvited = SealedRound(probe.parameters()).keys("sum", 2)
    file.write_text(f"# ours\n{invited.public_key.hex()}  # one\n{base64.b64encode(bytes(range(32))).decode()}\n")
    engine = make_engine(clock, strategies=Strategies(admit=read_allow_list(file)))
    engine.tick()
    round_ = SealedRound(engine.parameters())
    for key in (uninvited, invited):
        engine.handle_message(round_.sum(key))
    assert counts(engine) == (1, {"not_admitted": 1})


@pytest.mark.parametrize("text", ["", "# nobody\n", "no key\n", "00" * 31 + "\n", "zz" * 32 + "\n"])
def test_a_list_of_participants_that_cannot_be_used(tmp_path, text):
    file = tmp_path / "participants"
    file.write_text(text)
    with pytest.raises(ConfigError, match="public key"):
        read_allow_list(file)
    with pytest.raises(ConfigError, match="file of public keys"):
        read_allow_list(tmp_path / "absent")
