"""What a participant does not take: announcements without bound, weights and scalars beyond theirs, refused messages again."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from participant_driver import (
    COORDINATOR_KEYS,
    F32,
    Script,
    exchange_option,
    make_machine,
    round_parameters,
    step,
    steps,
    take_events,
    weights,
)

from pet.crypto import EncryptionKeyPair
from pet.errors import ConfigError, MessageTooLargeError, ModelError, TransportRefusedError
from pet.mask_config import MaskConfig
from pet.messages import Tag, UpdatePayload, encode_seed_dictionary, encode_sum_dictionary, open_message
from pet.protocol import participant_checks
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_checks import MAX_SUMS_BYTES, MAX_VECTOR_BYTES, smaller_message_size
from pet.protocol.participant_events import AnswerRefused, MessageDelivered, MessageSplit, ModelWanted, NewRound, TaskAbandoned
from pet.protocol.participant_state import ParticipantState

SUMS = encode_sum_dictionary({b"s" * 32: EncryptionKeyPair.from_seed(bytes([9]) * 32).public_key})
TOO_LARGE = MessageTooLargeError("POST /message: expected a status below 400, got 413", 413)
FORBIDDEN = TransportRefusedError("POST /message: expected a status below 400, got 403", 403)


@pytest.mark.parametrize("text", ["prime-f32-b0-m3", "power2-f64-bmax-m12"])
def test_a_model_length_beyond_the_bound_is_refused_before_anything_is_made_for_it(text):
    config = MaskConfig.parse(text)
    most = MAX_VECTOR_BYTES // config.element_bytes
    script = Script(round_parameters("update", length=most + 1, config=config))
    machine = make_machine()
    step(machine, script)
    (event,) = take_events(machine)
    assert isinstance(event, AnswerRefused)
    assert event.reason == "model_too_long"
    assert f"at most {most} weights" in event.description
    assert machine.parameters is None
    script.parameters = round_parameters("update", length=most, config=config)
    step(machine, script)
    assert isinstance(take_events(machine)[0], NewRound)


def test_the_bound_on_the_model_length_can_be_chosen():
    machine = make_machine(max_model_length=3)
    step(machine, Script(round_parameters("update", length=4)))
    assert take_events(machine)[0].reason == "model_too_long"
    step(machine, Script(round_parameters("update", length=3)))
    assert machine.parameters is not None
    restored = ParticipantMachine.restore(machine.save(), entropy=bytes, max_model_length=2)
    before = restored.save()
    step(restored, Script(round_parameters("update", length=3, seed=8)))
    assert restored.save() == before


@pytest.mark.parametrize("most", [-1, 2**32, 1.5, "4"])
def test_options_out_of_range_are_refused(most):
    with pytest.raises(ConfigError, match="max_model_length: expected a whole number"):
        make_machine(max_model_length=most)
    state = make_machine().save()
    with pytest.raises(ConfigError, match="max_model_length: expected"):
        ParticipantMachine.restore(state, entropy=bytes, max_model_length=most)
    with pytest.raises(ConfigError, match="on_clip: expected 'count' or 'raise', got 'warn'"):
        make_machine(on_clip="warn")


def in_update(**options) -> tuple[ParticipantMachine, Script]:
    length = options.pop("length", 4)
    machine, script = make_machine(**options), Script(round_parameters("update", length=length), sums=SUMS)
    steps(machine, script, 2)
    return machine, script


def test_a_sum_dictionary_beyond_the_bound_is_refused_before_it_is_read(monkeypatch):
    machine, script = in_update()
    machine.set_model(weights(1))
    take_events(machine)
    monkeypatch.setattr(participant_checks, "MAX_SUMS_BYTES", len(SUMS) - 1)
    step(machine, script)
    assert take_events(machine)[0].reason == "too_many_sums"
    assert machine.has_model
    monkeypatch.setattr(participant_checks, "MAX_SUMS_BYTES", MAX_SUMS_BYTES)
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_UPDATE


def test_seeds_beyond_the_mask_config_are_not_even_opened():
    machine, script = make_machine(), Script(round_parameters("sum"))
    steps(machine, script, 4)
    script.seeds = encode_seed_dictionary({number.to_bytes(32, "big"): bytes(80) for number in range(1001)})
    step(machine, script)
    assert take_events(machine)[-1].reason == "too_many_seeds"


@pytest.mark.parametrize(
    ("scalar", "shown"), [(2, "got 2;"), (Fraction(3, 2), "got 1.5;"), (10**30, "got 1e\\+30;"), (2**1100, "got more than 10")]
)
def test_a_scalar_beyond_the_bound_of_the_round_is_an_error(scalar, shown):
    machine = make_machine(scalar=scalar)
    before = machine.save()
    for _ in range(2):
        with pytest.raises(ModelError, match=f"scalar: expected at most 1, the bound of {F32}, {shown}.*pet config advise"):
            step(machine, Script(round_parameters("update")))
        assert machine.next_request() is None
    assert machine.save() == before
    assert make_machine(scalar=1).scalar == 1


def test_a_restored_participant_whose_scalar_is_beyond_the_bound_masks_nothing():
    machine, script = in_update()
    exchange_option(machine, scalar=Fraction(2))  # as an earlier version took it
    restored = ParticipantMachine.restore(machine.save(), entropy=bytes)
    restored.set_model(weights(1))
    take_events(restored)
    with pytest.raises(ModelError, match="scalar: expected at most 1"):
        step(restored, script)
    assert restored.state is ParticipantState.UPDATE
    assert not restored.has_model


def test_weights_beyond_the_bound_can_be_an_error():
    machine, script = in_update(on_clip="raise")
    machine.set_model(np.array([2, 0, 0, 0], np.float32))
    take_events(machine)
    with pytest.raises(ModelError, match="within the bound of prime-f32-b0-m3, got 1 of 4 outside"):
        step(machine, script)
    assert machine.state is ParticipantState.UPDATE
    assert isinstance(take_events(machine)[0], ModelWanted)
    machine.set_model(weights(1))
    assert machine.next_request() is None  # the step that failed is over
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_UPDATE


def test_a_model_set_while_another_one_fails_is_kept():
    machine, script = in_update(on_clip="raise")
    machine.set_model(np.array([2, 0, 0, 0], np.float32))
    entropy = machine._round._options.entropy

    def set_another_model(size: int) -> bytes:
        machine.set_model(weights(2))
        return entropy(size)

    exchange_option(machine, entropy=set_another_model)
    with pytest.raises(ModelError, match="bound"):
        step(machine, script)
    assert machine.has_model


def sending(state: ParticipantState, **options) -> tuple[ParticipantMachine, Script]:
    machine = make_machine(**options)
    script = Script(round_parameters("update" if "update" in state.value else "sum", length=3000), sums=SUMS)
    while machine.state is not state:
        step(machine, script)
        if machine.state is ParticipantState.UPDATE:
            machine.set_model(weights(1, length=3000))
        script.seeds = encode_seed_dictionary({})
    take_events(machine)
    script.received.clear()
    return machine, script


SENDING = [ParticipantState.SENDING_SUM, ParticipantState.SENDING_UPDATE, ParticipantState.SENDING_SUM2]


@pytest.mark.parametrize("state", SENDING)
def test_a_refused_message_is_not_repeated_and_ends_the_task(state):
    machine, script = sending(state)
    script.receipt = FORBIDDEN
    step(machine, script)
    assert machine.state is ParticipantState.AWAITING
    (event,) = take_events(machine)
    assert event == TaskAbandoned(reason="message_refused", description=str(FORBIDDEN))
    steps(machine, script, 3)
    assert len(script.received) == 1
    assert machine.save()


@pytest.mark.parametrize("request_kind", ["parameters", "sums"])
def test_other_refused_requests_are_made_again(request_kind):
    machine, script = in_update()
    machine.set_model(weights(1))
    before = machine.save()
    good = script.parameters
    setattr(script, request_kind, FORBIDDEN)
    step(machine, script)
    assert machine.save() == before
    script.parameters, script.sums = good, SUMS
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_UPDATE


@pytest.mark.parametrize("max_message_size", [None, 10_000])
def test_a_message_refused_for_its_size_goes_out_in_chunks(max_message_size):
    machine, script = sending(ParticipantState.SENDING_UPDATE, max_message_size=max_message_size)
    script.receipt = TOO_LARGE
    step(machine, script)
    (event,) = take_events(machine)
    size = len(script.received.pop()) // 2
    assert event == MessageSplit(max_message_size=size, description=str(TOO_LARGE))
    assert machine.made_progress
    script.receipt = None
    machine = ParticipantMachine.restore(machine.save(), entropy=bytes)
    while machine.state is not ParticipantState.AWAITING:
        step(machine, script)
    assert take_events(machine) == [MessageDelivered(tag=Tag.UPDATE)]
    assert max(map(len, script.received)) <= size
    chunks = [open_message(body, COORDINATOR_KEYS, Tag.UPDATE).payload for body in script.received]
    payload = UpdatePayload.decode(b"".join(bytes(chunk.data) for chunk in chunks))
    assert len(payload.masked_model) == 3000

    # What was learned holds for the rounds that follow.
    script.parameters = replace(script.parameters, seed=bytes([9]) * 32)
    script.received.clear()
    machine.set_model(weights(2, length=3000))
    while not script.received:
        step(machine, script)
    assert len(script.received[0]) == size


def test_chunks_refused_for_their_size_end_the_task_in_this_round_and_the_next():
    machine, script = sending(ParticipantState.SENDING_UPDATE)
    script.receipt = TOO_LARGE
    steps(machine, script, 2)
    split, abandoned = take_events(machine)
    assert isinstance(split, MessageSplit)
    assert abandoned == TaskAbandoned(reason="message_too_large", description=str(TOO_LARGE))
    assert machine.state is ParticipantState.AWAITING
    script.parameters = replace(script.parameters, seed=bytes([9]) * 32)
    machine.set_model(weights(2, length=3000))
    steps(machine, script, 6)
    assert len(script.received) == 3
    assert take_events(machine)[-1].reason == "message_too_large"


def test_a_small_message_is_not_split():
    machine, script = sending(ParticipantState.SENDING_SUM)
    script.receipt = TOO_LARGE
    step(machine, script)
    assert [event.reason for event in take_events(machine)] == ["message_too_large"]
    assert smaller_message_size(2**30) == 2**18


def test_a_restored_message_cannot_be_split_and_ends_the_task():
    machine, script = sending(ParticipantState.SENDING_UPDATE)
    restored = ParticipantMachine.restore(machine.save(), entropy=bytes)
    script.receipt = TOO_LARGE
    step(restored, script)
    assert [event.reason for event in take_events(restored)] == ["message_too_large"]


def test_a_message_of_too_many_chunks_is_not_split(monkeypatch):
    machine, script = sending(ParticipantState.SENDING_UPDATE)
    monkeypatch.setattr("pet.messages.chunks.MAX_CHUNK_COUNT", 1)
    script.receipt = TOO_LARGE
    step(machine, script)
    assert [event.reason for event in take_events(machine)] == ["message_too_large"]
