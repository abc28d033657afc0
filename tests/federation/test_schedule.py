"""Schedules: syntax, alignment, missed ticks, changes."""

import pytest

from pet.errors import FederationValueError
from pet.federation.formats.schedule import Schedule, ScheduleState


@pytest.mark.parametrize(
    ("text", "seconds"), [("m1", 60), ("m30", 1800), ("h3", 10_800), ("d7", 604_800), ("d366", 31_622_400)]
)
def test_a_schedule_is_a_period(text, seconds):
    assert Schedule.parse(text).period_seconds == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "m0",
        "m01",
        "s5",
        "M1",
        " m1",
        "m1 ",
        "m1\n",
        "-m1",
        "m-1",
        "m1.5",
        "m٣",
        "d367",
        "h9999999999",
        "m1h1",
        None,
        5,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(FederationValueError, match="schedule"):
        Schedule.parse(text)


def test_ticks_are_aligned_with_utc():
    schedule = Schedule.parse("h1")
    assert schedule.next_tick_seconds(3600 * 5 + 1) == 3600 * 6
    assert schedule.next_tick_seconds(3600 * 5) == 3600 * 6
    assert schedule.last_tick(3600 * 5) == 5
    assert schedule.last_tick(3600 * 5 - 0.001) == 4


def test_missed_ticks_are_one():
    state = ScheduleState(Schedule.parse("m1"), 0, done_until_seconds=600)
    assert not state.is_due(659.9)
    assert state.is_due(660)
    assert state.is_due(6000)
    assert not state.done(6000).is_due(6059)
    assert state.done(6000).is_due(6060)
    assert not state.done(6000).done(700).is_due(6059), "a clock that goes back does not bring ticks again"


def test_a_change_counts_from_its_first_tick_and_the_highest_counter_wins():
    state = ScheduleState(Schedule.parse("m1"), 3, done_until_seconds=600)
    assert state.changed(Schedule.parse("m5"), 3, 610) is state
    changed = state.changed(Schedule.parse("m5"), 4, 890)
    assert not changed.is_due(899)
    assert changed.is_due(900)
