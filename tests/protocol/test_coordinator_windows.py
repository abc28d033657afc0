"""When phases of a coordinator end, and which messages still count (docs/spec/pet.md 6.3)."""

from dataclasses import replace

import pytest
from coordinator_driver import SUM_WINDOW, UPDATE_WINDOW, Session, small_settings

from pet.errors import RemoteProtocolError
from pet.protocol import MessageAccepted, MessageDiscarded, Phase, PhaseEntered, PhaseWindow, SeedDictionaryPublished


def test_a_late_call_does_not_shorten_the_phase_that_follows() -> None:
    session = Session().to_sum()
    key = session.round.keys("sum", 1)[0]
    session.send(session.round.sum(key))
    session.wait(1e6)
    assert session.coordinator.phase is Phase.UPDATE
    assert session.coordinator.next_deadline_seconds() == session.now + UPDATE_WINDOW.max_seconds


def test_the_minimum_time_lasts_even_if_the_maximum_count_is_reached() -> None:
    session = Session().to_sum()
    for key in session.round.keys("sum", 3):
        session.send(session.round.sum(key))
    session.wait(4.9)
    assert session.coordinator.phase is Phase.SUM
    assert session.coordinator.next_deadline_seconds() == 1000.0 + SUM_WINDOW.min_seconds
    session.wait(0.2)
    assert session.coordinator.phase is Phase.UPDATE


def test_after_the_minimum_time_the_message_that_was_missing_ends_the_phase() -> None:
    session = Session().to_update()
    keys = session.round.keys("update", 3)
    session.wait(30)
    for key in keys[:2]:
        session.send(session.round.update(key, session.sum_dictionary))
    assert session.coordinator.phase is Phase.UPDATE
    events = session.send(session.round.update(keys[2], session.sum_dictionary))
    assert [type(event) for event in events] == [MessageAccepted, PhaseEntered, SeedDictionaryPublished]
    assert session.coordinator.phase is Phase.SUM2


def test_without_a_minimum_time_a_phase_takes_exactly_the_minimum_count() -> None:
    window = PhaseWindow(min_count=2, max_count=3, min_seconds=0, max_seconds=60)
    session = Session(small_settings(sum=window)).to_sum()
    for key in session.round.keys("sum", 2):
        session.send(session.round.sum(key))
    assert session.coordinator.phase is Phase.UPDATE


def test_beyond_the_maximum_count_messages_are_discarded_unread() -> None:
    session = Session().to_sum()
    *keys, surplus = session.round.keys("sum", 4)
    for key in keys:
        session.send(session.round.sum(key))
    # Not even its signature is looked at.
    with pytest.raises(RemoteProtocolError) as caught:
        session.send(session.round.sum(surplus, sum_signature=bytes(64)))
    assert caught.value.reason == "discarded"
    assert session.collect() == [MessageDiscarded(round_id=1, phase=Phase.SUM)]
    status = session.coordinator.status(session.now)
    assert (status.accepted, status.discarded, status.rejected) == (3, 1, {})


def test_deadlines_that_passed_unnoticed_pass_before_a_message_is_taken() -> None:
    session = Session().to_sum()
    key = session.round.keys("sum", 1)[0]
    message = session.round.sum(key)
    session.now += SUM_WINDOW.max_seconds
    with pytest.raises(RemoteProtocolError) as caught:
        session.send(message)
    # The round failed meanwhile, and the next one has other keys.
    assert caught.value.reason == "wrong_coordinator_key"
    assert session.coordinator.round_id == 2


def test_a_phase_with_two_of_three_updates_still_waits() -> None:
    settings = small_settings(update=replace(UPDATE_WINDOW, min_seconds=0))
    session = Session(settings).to_update()
    for key in session.round.keys("update", 2):
        session.send(session.round.update(key, session.sum_dictionary))
    session.wait(50)
    assert session.coordinator.phase is Phase.UPDATE
