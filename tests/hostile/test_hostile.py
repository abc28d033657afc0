"""One address attacks a coordinator in every way it can; participants with other addresses finish their rounds meanwhile.

Each attack once, and three at the same time that are drawn from a seed: `PET_HOSTILE_SEED=...` repeats them. The long run, with
figures, is benchmarks/hostile.py.
"""

import os
import random

import pytest
from asgi_server import wait_until
from hostile_attacks import ATTACKS, attacked
from hostile_round import Coordinator, Watch, figures, play_round

#: What the service may need beyond what it has when nobody attacks it.
MAX_MORE_MEGABYTES = 150
MOST_BYTES = 1_750_000

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def coordinator():
    coordinator = Coordinator()
    try:
        play_round(coordinator.address)  # also what every later round needs of memory
        yield coordinator
    finally:
        coordinator.stop()


def withstand(coordinator, attacks):
    """Play a round while the service is attacked, and look at what it took."""
    before, idle_megabytes = figures(coordinator.address), coordinator.megabytes()
    watch = Watch(coordinator)
    attacker = f"127.0.0.{100 + ATTACKS.index(attacks[0])}"  # of its own, so that nothing is left of an attack before
    with attacked(coordinator.address, attacker, attacks, MOST_BYTES), watch():
        for attack in attacks:
            if attack.reasons:
                wait_until(lambda attack=attack: refusals(coordinator, attack) > refusals_in(before, attack), 60)
        play_round(coordinator.address)
    assert watch.most_megabytes - idle_megabytes < MAX_MORE_MEGABYTES
    assert len(watch.seconds) > 1
    wait_until(lambda: is_at_rest(coordinator), 60)


def refusals(coordinator, attack):
    return refusals_in(figures(coordinator.address), attack)


def refusals_in(found, attack):
    return sum(found[f'pet_refusals_total{{reason="{reason}"}}'] for reason in attack.reasons)


def is_at_rest(coordinator):
    found = figures(coordinator.address)
    return found["pet_memory_in_flight_bytes"] == found["pet_spooled_bytes"] == 0


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_a_round_goes_on_under(coordinator, attack):
    withstand(coordinator, (attack,))


def test_a_round_goes_on_under_three_attacks(coordinator):
    seed = os.environ.get("PET_HOSTILE_SEED") or str(random.SystemRandom().randrange(2**32))
    attacks = tuple(random.Random(seed).sample(ATTACKS, 3))
    print(f"PET_HOSTILE_SEED={seed}: {', '.join(attack.name for attack in attacks)}")
    withstand(coordinator, attacks)
