import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet.errors import ConfigError
from pet.protocol.windows import PhaseWindow, WindowState

WINDOW = PhaseWindow(min_count=2, max_count=4, min_seconds=5, max_seconds=20)


@pytest.mark.parametrize(
    ("elapsed", "accepted", "state"),
    [
        (0, 0, WindowState.OPEN),
        (4.9, 4, WindowState.OPEN),  # the minimum time always lasts, whatever came
        (5, 2, WindowState.COMPLETE),
        (5, 4, WindowState.COMPLETE),
        (5, 1, WindowState.OPEN),
        (19.9, 1, WindowState.OPEN),
        (12, 2, WindowState.COMPLETE),
        (20, 1, WindowState.TIMED_OUT),
        (20, 2, WindowState.COMPLETE),
        (1e6, 0, WindowState.TIMED_OUT),
    ],
)
def test_state_follows_time_and_count(elapsed: float, accepted: int, state: WindowState) -> None:
    assert WINDOW.state(100, 100 + elapsed, accepted) is state


def test_is_full_from_the_maximum_count_on() -> None:
    assert [WINDOW.is_full(accepted) for accepted in (0, 3, 4, 5)] == [False, False, True, True]


def test_deadline_is_the_minimum_time_once_there_are_enough() -> None:
    assert WINDOW.deadline_seconds(100, 1) == 120
    assert WINDOW.deadline_seconds(100, 2) == 105


@given(
    started=st.floats(0, 1e9),
    min_seconds=st.floats(0, 1e4),
    more_seconds=st.floats(1e-3, 1e4),
    accepted=st.integers(0, 9),
)
def test_at_its_deadline_a_window_is_over(started: float, min_seconds: float, more_seconds: float, accepted: int) -> None:
    window = PhaseWindow(min_count=3, max_count=9, min_seconds=min_seconds, max_seconds=min_seconds + more_seconds)
    state = window.state(started, window.deadline_seconds(started, accepted), accepted)
    assert state is (WindowState.COMPLETE if accepted >= 3 else WindowState.TIMED_OUT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_count": 0}, r"min_count: must be 1 or more, got 0"),
        ({"max_count": 1}, r"max_count: must not be below min_count, got 1"),
        ({"min_seconds": -1}, r"min_seconds: must be a finite number, 0 or more, got -1"),
        ({"min_seconds": math.nan}, r"min_seconds: .* got nan"),
        ({"max_seconds": 4}, r"max_seconds: must be a finite number above 0 and not below min_seconds, got 4"),
        ({"min_seconds": 0, "max_seconds": 0}, r"max_seconds: .* got 0"),
        ({"max_seconds": math.inf}, r"max_seconds: .* got inf"),
        ({"max_seconds": math.nan}, r"max_seconds: .* got nan"),
        ({"min_count": 0, "max_seconds": 4}, r"min_count: .*; max_seconds: "),
    ],
)
def test_a_window_that_breaks_rules_names_each(changes: dict[str, float], message: str) -> None:
    numbers = {"min_count": 2, "max_count": 4, "min_seconds": 5, "max_seconds": 20, **changes}
    with pytest.raises(ConfigError, match=message):
        PhaseWindow(**numbers)  # type: ignore[arg-type]
