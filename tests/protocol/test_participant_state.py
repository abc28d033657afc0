"""Saving a participant in every state, and refusing everything that is not such a saved state."""

from __future__ import annotations

import hashlib
import json
import struct
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from participant_driver import Script, counting_entropy, make_machine, round_parameters, step, steps, take_events, weights

from pet.crypto import EncryptionKeyPair, seal
from pet.errors import StateError, TransportError
from pet.messages import Tag, encode_seed_dictionary, encode_sum_dictionary
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import MessageDelivered, ModelWanted
from pet.protocol.participant_state import ParticipantState, SavedOutbox, SavedParticipant

SUMS = encode_sum_dictionary({b"s" * 32: EncryptionKeyPair.from_seed(bytes([9]) * 32).public_key})
PREFIX = struct.Struct("<8sHI")


def restore(data: bytes) -> ParticipantMachine:
    return ParticipantMachine.restore(data, entropy=counting_entropy(77_000))


def save_at_every_step(task: str, max_message_size: int | None) -> list[bytes]:
    """Run a whole round with a save, restore and failure before each step; returns what was saved."""
    saved = []
    machine = make_machine(scalar=Fraction(1, 3), max_message_size=max_message_size)
    script = Script(round_parameters(task, length=40), sums=SUMS)
    for _ in range(200):
        data = machine.save()
        saved.append(data)
        machine = restore(data)
        assert machine.save() == data
        if machine.state is ParticipantState.UPDATE:
            assert any(isinstance(event, ModelWanted) for event in take_events(machine))
            machine.set_model(weights(1, length=40))
        if machine.state is ParticipantState.SUM2:
            boxes = {b"u" * 32: seal(b"m" * 32, machine._round._ephemeral_keys().public_key)}
            script.seeds = encode_seed_dictionary(boxes)
        step(machine, script)
        if machine.state is ParticipantState.AWAITING:
            break
    events = take_events(machine)
    assert events == [MessageDelivered(tag=Tag.UPDATE if task == "update" else Tag.SUM2)]
    return saved


@pytest.mark.parametrize("max_message_size", [None, 250])
def test_a_participant_that_is_saved_and_restored_before_every_step_finishes_its_task(max_message_size):
    saved = save_at_every_step("sum", max_message_size) + save_at_every_step("update", max_message_size)
    states = {SavedParticipant.decode(data).state for data in saved}
    assert states == set(ParticipantState)


def test_a_restored_participant_sends_the_failed_part_as_it_was():
    for max_message_size in (None, 300):
        machine = make_machine(max_message_size=max_message_size)
        script = Script(round_parameters("update", length=40), sums=SUMS)
        steps(machine, script, 2)
        machine.set_model(weights(1, length=40))
        step(machine, script)
        script.receipt = TransportError("reset")
        step(machine, script)
        script.receipt = None
        machine = restore(machine.save())
        step(machine, script)
        assert script.received[0] == script.received[1]


def test_a_restored_participant_keeps_identity_scalar_and_size_and_signs_no_second_update():
    machine = make_machine(scalar=Fraction(1, 3), max_message_size=300)
    script = Script(round_parameters("update"), sums=SUMS)
    steps(machine, script, 2)
    machine.set_model(weights(1))
    step(machine, script)
    while machine.state is not ParticipantState.AWAITING:
        step(machine, script)
    restored = restore(machine.save())
    assert restored.public_key == machine.public_key
    assert restored.scalar == Fraction(1, 3)
    assert restored._round.max_message_size == 300
    first = script.parameters
    script.parameters = round_parameters("none", seed=9)
    step(restored, script)
    script.parameters = first
    restored.set_model(weights(2))
    steps(restored, script, 3)
    assert take_events(restored)[-1].reason == "already_signed"


def test_secrets_are_not_in_the_repr():
    machine, script = make_machine(), Script(round_parameters("sum"))
    steps(machine, script, 3)
    saved = SavedParticipant.decode(machine.save())
    for secret in (saved.signing_seed, saved.ephemeral_seed):
        assert repr(secret) not in repr(saved)
        assert secret.hex() not in repr(saved)


def sending_update(max_message_size: int | None = 300) -> bytes:
    machine = make_machine(max_message_size=max_message_size)
    script = Script(round_parameters("update", length=40), sums=SUMS)
    steps(machine, script, 2)
    machine.set_model(weights(1, length=40))
    step(machine, script)
    return machine.save()


def test_every_damaged_byte_and_every_prefix_is_refused():
    data = sending_update()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(StateError, match="saved participant: expected"):
            restore(bytes(damaged))
        with pytest.raises(StateError, match="saved participant: expected"):
            restore(data[:position])
    with pytest.raises(StateError, match="saved participant: expected"):
        restore(data + b"\0")


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=400))
def test_other_bytes_are_refused(data):
    with pytest.raises(StateError):
        restore(data)


def rewritten(
    data: bytes, header: object = None, *, version: int = 2, header_bytes: int | None = None, **changes: object
) -> bytes:
    """Change the header and make the digest right again, as a broken or hostile writer could."""
    _, _, length = PREFIX.unpack_from(data)
    old = json.loads(data[PREFIX.size : PREFIX.size + length])
    new = json.dumps({**old, **changes} if header is None else header).encode()
    body = PREFIX.pack(b"PETPARTC", version, len(new) if header_bytes is None else header_bytes) + new
    body += data[PREFIX.size + length : -32]
    return body + hashlib.sha256(body).digest()


def outbox_with(data: bytes, **changes: object) -> dict[str, object]:
    _, _, length = PREFIX.unpack_from(data)
    return {**json.loads(data[PREFIX.size : PREFIX.size + length])["outbox"], **changes}


def test_a_rewritten_state_with_nothing_changed_is_accepted():
    assert restore(rewritten(sending_update())).state is ParticipantState.SENDING_UPDATE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, "expected version 2, got 1"),
        ({"header_bytes": 10**6}, "expected a header of 1000000 bytes"),
        ({"header": []}, "complete and consistent|round parameters: expected"),
        ({"header": {}}, "complete and consistent|round parameters: expected"),
        ({"state": "dancing"}, "complete and consistent|round parameters: expected"),
        ({"state": "sum"}, "the message to send in state sum"),
        ({"state": "sending_sum"}, "the message to send in state sending_sum"),
        ({"signing_seed": "00"}, "1 bytes stand where 32 should"),
        ({"signing_seed": None}, "complete and consistent|round parameters: expected"),
        ({"scalar": ["0x1", "0x0"]}, "complete and consistent|round parameters: expected"),
        ({"scalar": ["-0x1", "0x2"]}, "expected 0 or more"),
        ({"scalar": "half"}, "complete and consistent|round parameters: expected"),
        ({"max_message_size": 10}, "expected 194 or more"),
        ({"max_message_size": "many"}, "complete and consistent|round parameters: expected"),
        ({"max_message_size": None}, "expected a limit"),
        ({"parameters": None}, "needs round parameters"),
        ({"parameters": "00"}, "complete and consistent|round parameters: expected"),
        ({"ephemeral_seed": "11" * 32}, "an ephemeral key in state sending_update: True"),
        ({"signed_round": None}, "signed for another round"),
        ({"signed_round": "11" * 32}, "signed for another round"),
        ({"outbox": None}, "bytes of messages follow where 0 should"),
        ({"outbox": 5}, "complete and consistent|round parameters: expected"),
    ],
)
def test_headers_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(StateError, match=message):
        restore(rewritten(sending_update(), **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"message_id": 2**16}, "the message id is 65536"),
        ({"next_chunk_id": -1}, "the next chunk is -1"),
        ({"payload_bytes": 1}, "bytes of messages follow where"),
        ({"tag": 7}, "complete and consistent|round parameters: expected"),
        ({"tag": 1}, "the message to send in state sending_update"),
    ],
)
def test_outboxes_that_do_not_fit_are_refused(changes, message):
    data = sending_update()
    with pytest.raises(StateError, match=message):
        restore(rewritten(data, outbox=outbox_with(data, **changes)))


def test_a_state_with_nothing_left_to_send_is_refused():
    saved = SavedParticipant.decode(sending_update())
    payload = saved.outbox.payload
    emptied = SavedParticipant(
        state=saved.state,
        signing_seed=saved.signing_seed,
        scalar=saved.scalar,
        max_message_size=saved.max_message_size,
        parameters=saved.parameters,
        ephemeral_seed=None,
        signed_round=saved.signed_round,
        outbox=SavedOutbox(tag=Tag.UPDATE, message_id=1, next_chunk_id=2**16, payload=payload, sealed=b""),
    )
    with pytest.raises(StateError, match="expected a part left to send"):
        restore(emptied.encode())


def test_a_chunk_that_was_not_sealed_yet_is_sealed_on_restore():
    saved = SavedParticipant.decode(sending_update())
    payload = saved.outbox.payload
    rewound = SavedParticipant(
        state=saved.state,
        signing_seed=saved.signing_seed,
        scalar=saved.scalar,
        max_message_size=saved.max_message_size,
        parameters=saved.parameters,
        ephemeral_seed=None,
        signed_round=saved.signed_round,
        outbox=SavedOutbox(tag=Tag.UPDATE, message_id=1, next_chunk_id=0, payload=payload, sealed=b""),
    )
    assert restore(rewound.encode())._round.outbox.save().next_chunk_id == 1
