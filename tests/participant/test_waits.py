"""How long participants wait: long only while nothing can be expected."""

from __future__ import annotations

import pytest

from pet.errors import ConfigError
from pet.participant import BackOff


def longest(back_off: BackOff, **outlook: bool) -> float:
    """Return the wait after a minute in which nothing happened."""
    seconds = waited = 0.0
    while waited < 60:
        seconds = back_off.next_seconds(seconds, made_progress=False, is_new_round=False, **outlook)
        waited += seconds
    return seconds


def test_after_a_quiet_minute_no_phase_of_four_seconds_is_missed():
    assert longest(BackOff(), is_answered=True, has_task=True) == 1
    assert longest(BackOff(), is_answered=True, has_task=False) == 2
    assert longest(BackOff(phase_seconds=40), is_answered=True, has_task=True) == 10


def test_a_coordinator_that_does_not_answer_is_waited_for_longer():
    assert longest(BackOff(), is_answered=False, has_task=True) == 10


def test_a_phase_has_a_length():
    with pytest.raises(ConfigError, match="phase_seconds"):
        BackOff(phase_seconds=0)
