"""Rounds of pet/1 in which everybody vanishes, lies, repeats and restarts: sums are exact, and keys sign once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pet1_ledger import Violation
from pet1_simulated import KilledDisk
from pet1_simulator import Simulation

from pet.pet1 import certificate
from pet.pet1.checks import judge_complaint

ROUNDS_PER_WORLD = 20


def played(seeds: range, rounds: int) -> Counter[str]:
    happened: Counter[str] = Counter()
    for seed in seeds:
        outcome = Simulation(seed).run(rounds)
        happened += outcome.happened
        happened["sums"] += outcome.rounds_completed
    return happened


def test_sums_are_exact_and_keys_sign_once() -> None:
    happened = played(range(3), 6)
    assert happened["sums"] >= 3


@pytest.mark.very_long
def test_sums_are_exact_and_keys_sign_once_in_hundreds_of_rounds() -> None:
    happened = played(range(10, 26), ROUNDS_PER_WORLD)
    assert happened["sums"] >= 80, "worlds in which hardly a round ends prove nothing"
    for what in (
        *("restarts of peers", "killed before a write", "killed after a write", "coordinator killed before it answered"),
        *(
            "leaders that lie",
            "lists of the leader's own",
            "certificates of the leader's own",
            "committees of the leader's own",
        ),
        *("members that lie", "participants that lie", "members that vanish before Check", "messages sent twice"),
        *("failed: no_quorum", "failed: wrong_share", "failed: too_few_members", "failed: too_few_updates"),
        "failed: too_few_answers",
    ):
        assert happened[what] > 2, what


def test_a_seed_decides_everything() -> None:
    first, again = Simulation(3).run(4), Simulation(3).run(4)
    assert first == again
    assert Simulation(4).run(4) != first


def forgets_what_it_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that says that a state is durable while it is not."""
    right = KilledDisk.__call__

    def write(disk: KilledDisk, state: bytes) -> None:
        if disk._chance.source.random() < 0.7:
            right(disk, state)

    monkeypatch.setattr(KilledDisk, "__call__", write)


def believes_every_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A complaint counts if its point is proven, whether the box opens or not."""

    def judge(*arguments: Any) -> None:
        try:
            judge_complaint(*arguments)
        except ValueError as error:
            if getattr(error, "reason", "") != "unfounded_complaint":
                raise

    monkeypatch.setattr(certificate, "judge_complaint", judge)


@pytest.mark.parametrize("plant", [pytest.param(forgets_what_it_wrote, marks=pytest.mark.long), believes_every_proof])
def test_a_planted_mistake_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(Violation):
        played(range(2, 50), ROUNDS_PER_WORLD)
