"""A message counts as delivered only while nothing says that it came too late."""

from __future__ import annotations

import pytest
from participant_driver import Script, make_machine, round_parameters, step, take_events, weights

from pet.crypto import EncryptionKeyPair, seal
from pet.errors import TransportError, TransportRefusedError
from pet.messages import Tag, encode_seed_dictionary, encode_sum_dictionary
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import (
    AnswerRefused,
    GetParameters,
    GetSeeds,
    GetSums,
    MessageDelivered,
    MessageLate,
    NewRound,
    SendMessage,
)
from pet.protocol.participant_state import ParticipantState

SUM_PARTICIPANT = b"s" * 32
SUMS = encode_sum_dictionary({SUM_PARTICIPANT: EncryptionKeyPair.from_seed(bytes([9]) * 32).public_key})
BOX = bytes(80)
AWAY = TransportError("away")
LENGTH = 40


def sending(task: str, max_message_size: int | None = None) -> tuple[ParticipantMachine, Script]:
    """Bring a machine before its first message of a round in which all have the task."""
    machine, script = make_machine(max_message_size=max_message_size), Script(round_parameters(task, length=LENGTH))
    script.sums = SUMS if task == "update" else None
    while machine.state not in (ParticipantState.SENDING_SUM, ParticipantState.SENDING_UPDATE):
        step(machine, script)
        if machine.state is ParticipantState.UPDATE:
            machine.set_model(weights(1, length=LENGTH))
    take_events(machine)
    return machine, script


class Turning(Script):
    """A coordinator that does something else as soon as a message was sent."""

    def __init__(self, script: Script, **then: object) -> None:
        super().__init__(script.parameters, script.sums, script.seeds, script.receipt)
        self.then = then

    def answer(self, request):
        answer = super().answer(request)
        if isinstance(request, SendMessage):
            for name, value in self.then.items():
                setattr(self, name, value)
        return answer


def last_tag(task: str) -> Tag:
    return Tag.SUM if task == "sum" else Tag.UPDATE


TASKS = pytest.mark.parametrize("task", ["sum", "update"])


@TASKS
def test_a_message_is_delivered_while_its_phase_is_open(task):
    machine, script = sending(task)
    question = GetSums() if task == "sum" else GetSeeds(public_key=SUM_PARTICIPANT)
    requests = step(machine, script)
    assert [requests[0], *requests[2:]] == [GetParameters(), GetParameters(), question]
    assert take_events(machine) == [MessageDelivered(tag=last_tag(task))]
    assert [type(request) for request in step(machine, script)][:1] == [GetParameters]
    assert take_events(machine) == []


@TASKS
@pytest.mark.parametrize("max_message_size", [None, 250])
def test_a_message_whose_round_is_over_before_the_whole_of_it_is_there_was_late(task, max_message_size):
    machine, script = sending(task, max_message_size)
    script = Turning(script, parameters=round_parameters("none", seed=9, length=LENGTH))
    while machine.state is not ParticipantState.NEW_ROUND:
        step(machine, script)
    assert len(script.received) == 1
    assert take_events(machine) == [MessageLate(tag=last_tag(task)), NewRound(parameters=script.parameters)]


@TASKS
def test_a_phase_whose_dictionary_lacks_the_message_was_over(task):
    machine, script = sending(task)
    others = encode_seed_dictionary({b"u" * 32: BOX})
    step(machine, Turning(script, sums=SUMS, seeds=others))
    assert take_events(machine) == [MessageLate(tag=last_tag(task))]
    # It only informs: the task goes on as it would without.
    assert machine.state is (ParticipantState.SUM2 if task == "sum" else ParticipantState.AWAITING)
    step(machine, script)
    assert take_events(machine) == []


@TASKS
def test_a_phase_whose_dictionary_has_the_message_took_it(task):
    machine, script = sending(task)
    ephemeral_public_key = machine._round._ephemeral_keys().public_key if task == "sum" else b"k" * 32
    own = encode_sum_dictionary({machine.public_key: ephemeral_public_key})
    seeds = encode_seed_dictionary({b"u" * 32: BOX, machine.public_key: BOX})
    step(machine, Turning(script, sums=own, seeds=seeds))
    assert take_events(machine) == [MessageDelivered(tag=last_tag(task))]


def test_a_sum_message_with_another_ephemeral_key_counted_in_place_of_this_one():
    machine, script = sending("sum")
    other = encode_sum_dictionary({machine.public_key: EncryptionKeyPair.from_seed(bytes(32)).public_key})
    step(machine, Turning(script, sums=other))
    assert take_events(machine) == [MessageLate(tag=Tag.SUM)]


@TASKS
def test_nothing_is_said_of_a_message_before_the_round_is_known(task):
    machine, script = sending(task)
    script = Turning(script, parameters=AWAY)
    step(machine, script)
    assert machine.made_progress  # the message is gone
    step(machine, script)
    assert not machine.made_progress
    assert take_events(machine) == []
    script.parameters = round_parameters(task, length=LENGTH)
    step(machine, script)
    assert machine.made_progress
    assert take_events(machine) == [MessageDelivered(tag=last_tag(task))]


@TASKS
@pytest.mark.parametrize("answer", [AWAY, TransportRefusedError("got 403", 403), b"<html>", bytes(1 << 18)])
def test_a_dictionary_that_cannot_be_had_holds_nothing_up(task, answer):
    machine, script = sending(task)
    step(machine, Turning(script, sums=answer, seeds=answer))
    *refused, delivered = take_events(machine)
    assert delivered == MessageDelivered(tag=last_tag(task))
    assert [type(event) for event in refused] == [AnswerRefused] * isinstance(answer, bytes)
    script.sums = SUMS
    if task == "sum":
        script.seeds = encode_seed_dictionary({b"u" * 32: seal(b"m" * 32, machine._round._ephemeral_keys().public_key)})
        step(machine, script)
        assert machine.state is ParticipantState.SENDING_SUM2


def test_too_many_seeds_are_not_taken_apart():
    machine, script = sending("update")
    answer = encode_seed_dictionary({number.to_bytes(32, "big"): BOX for number in range(1001)})
    step(machine, Turning(script, seeds=answer))
    refused, delivered = take_events(machine)
    assert refused.reason == "too_many_seeds"
    assert delivered == MessageDelivered(tag=Tag.UPDATE)


def test_a_mask_is_delivered_though_the_next_round_begins_at_once():
    machine, script = sending("sum")
    step(machine, script)
    script.seeds = encode_seed_dictionary({b"u" * 32: seal(b"m" * 32, machine._round._ephemeral_keys().public_key)})
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_SUM2
    take_events(machine)
    assert [type(request) for request in step(machine, script)] == [GetParameters, SendMessage]
    assert take_events(machine) == [MessageDelivered(tag=Tag.SUM2)]
    script.parameters = round_parameters("none", seed=9, length=LENGTH)
    step(machine, script)
    assert take_events(machine) == [NewRound(parameters=script.parameters)]


def test_an_update_restored_in_the_middle_is_judged_by_its_round_alone():
    machine, script = sending("update")
    restored = ParticipantMachine.restore(machine.save(), entropy=bytes)
    requests = step(restored, script)
    assert [type(request) for request in requests] == [GetParameters, SendMessage, GetParameters]
    assert take_events(restored) == [MessageDelivered(tag=Tag.UPDATE)]


def test_a_participant_restored_after_its_message_goes_on():
    machine, script = sending("sum")
    step(machine, Turning(script, parameters=AWAY))
    restored = ParticipantMachine.restore(machine.save(), entropy=bytes)
    step(restored, script)
    assert take_events(restored) == []
    assert restored.state is ParticipantState.SUM2
