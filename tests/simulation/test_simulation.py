"""Rounds in a world that fails all the time: nothing accepted is lost or counted twice; and planted mistakes are found."""

import logging

import pytest
from simulator import Simulation, Violation, forgets_to_write, forgets_who_was_counted

ROUNDS_PER_WORLD = 20
#: Enough of everything that a world may bring; .ci/long has tests/simulation/simulate.py play thousands of rounds.
WORLDS = 5


@pytest.fixture(autouse=True)
def _quiet():
    """The storage refuses on purpose, and the engine says so each time."""
    logger = logging.getLogger("pet")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


def test_nothing_accepted_is_lost_or_counted_twice():
    completed = restarts = 0
    for seed in range(WORLDS):
        outcome = Simulation(seed).run(ROUNDS_PER_WORLD)
        completed += outcome.rounds_completed
        restarts += outcome.restarts
    assert completed > 50, "a world in which hardly a round ends proves nothing"
    assert restarts > 5


def test_a_seed_decides_everything():
    first, second = Simulation(3).run(5), Simulation(3).run(5)
    assert first == second
    assert Simulation(4).run(5).digest != first.digest


@pytest.mark.parametrize("bug", [pytest.param(forgets_to_write, marks=pytest.mark.long), forgets_who_was_counted])
def test_a_planted_mistake_is_found_within_a_thousand_rounds(bug):
    with pytest.raises(Violation):
        simulate_a_thousand_rounds(bug)


def simulate_a_thousand_rounds(bug):
    for seed in range(1000 // ROUNDS_PER_WORLD):
        Simulation(seed, bug=bug).run(ROUNDS_PER_WORLD)
