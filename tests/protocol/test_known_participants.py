"""Rounds whose participants are known beforehand: a list of keys per task in place of chance."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from coordinator_driver import Session, numbered_key
from participant_driver import Script, make_machine, round_parameters, step, take_events

from pet.crypto import SUM_TASK, UPDATE_TASK
from pet.errors import ConfigError, RemoteProtocolError
from pet.protocol import ModelPublished, Phase, Strategies
from pet.protocol.participant_events import SumSelected, UpdateSelected
from pet.protocol.strategies import ParticipantAllowList, TaskAllowList, take_assigned_task

SUM_KEYS = [numbered_key(number) for number in (1, 2)]
UPDATE_KEYS = [numbered_key(number) for number in (3, 4, 5)]
LISTS = TaskAllowList(frozenset(key.public_key for key in SUM_KEYS), frozenset(key.public_key for key in UPDATE_KEYS))


def session():
    return Session(strategies=Strategies(check_task=LISTS)).to_sum()


def send_sums(started):
    for key in SUM_KEYS:
        started.send(started.round.sum(key))
    started.wait(started.settings.sum.min_seconds)
    assert started.coordinator.phase is Phase.UPDATE
    return started


def test_a_round_of_known_participants():
    started = send_sums(session())
    for key in UPDATE_KEYS:
        started.send(started.round.update(key, started.sum_dictionary, [0.25, 0.5, 1.0], Fraction(1, 3)))
    started.wait(started.settings.update.min_seconds)
    for key in SUM_KEYS:
        started.send(started.round.sum2(key, started.seed_dictionary[key.public_key]))
    events = started.wait(started.settings.sum2.min_seconds)
    (published,) = [event for event in events if isinstance(event, ModelPublished)]
    np.testing.assert_allclose(published.model.to_array(), [0.25, 0.5, 1.0])


def test_who_is_not_on_the_list_of_its_task_is_refused():
    started = session()
    for key in (UPDATE_KEYS[0], numbered_key(9)):
        with pytest.raises(RemoteProtocolError, match="announced with") as refusal:
            started.send(started.round.sum(key))
        assert refusal.value.reason == "not_sum_eligible"
    send_sums(started)
    for key in (SUM_KEYS[0], numbered_key(9)):
        with pytest.raises(RemoteProtocolError) as refusal:
            started.send(started.round.update(key, started.sum_dictionary))
        assert refusal.value.reason == "not_update_eligible"


def test_a_signature_of_another_round_is_refused():
    started = session()
    message = started.round.sum(SUM_KEYS[0], sum_signature=bytes(64))
    with pytest.raises(RemoteProtocolError) as refusal:
        started.send(message)
    assert refusal.value.reason == "not_sum_eligible"
    send_sums(started)
    message = started.round.update(UPDATE_KEYS[0], started.sum_dictionary)
    with pytest.raises(RemoteProtocolError) as refusal:
        started.send(replace(message, payload=replace(message.payload, update_signature=bytes(64))))
    assert refusal.value.reason == "not_update_eligible"


def test_a_key_has_one_task():
    with pytest.raises(ConfigError, match="1 for two"):
        TaskAllowList(frozenset([b"a" * 32]), frozenset([b"a" * 32, b"b" * 32]))


@pytest.mark.parametrize(("task", "event"), [(SUM_TASK, SumSelected), (UPDATE_TASK, UpdateSelected)])
@pytest.mark.parametrize("by_chance", ["sum", "update", "none"])
def test_a_participant_takes_the_task_it_was_made_for(task, event, by_chance):
    machine = make_machine(choose_task=take_assigned_task(task))
    script = Script(round_parameters(by_chance))
    step(machine, script)
    step(machine, script)
    assert event in [type(happened) for happened in take_events(machine)]


def test_a_list_of_participants_lets_nobody_else_in():
    admit = ParticipantAllowList(frozenset({bytes(32)}))
    admit(bytes(32))
    with pytest.raises(RemoteProtocolError) as refused:
        admit(bytes(31) + b"\x01")
    assert refused.value.reason == "not_admitted"
