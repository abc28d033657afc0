"""Honest rounds of twenty participants while one address attacks the coordinator: each attack, then combinations of three.

    python benchmarks/hostile.py --seconds 30 --triples 20

Prints, for each: whole rounds, requests of honest participants that were refused, /healthz (99 of 100, and the slowest), memory
beyond the idle service's, and how long after the attack something is still held. Ends with status 1 where a bar is missed:
/healthz within 1 s, 150 MB, 10 s. The attacks are those of tests/hostile.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "hostile")]

from hostile_attacks import ATTACKS, Attack, attacked  # noqa: E402
from hostile_round import LENGTH, Coordinator, Watch, figures, play_round  # noqa: E402

MAX_HEALTH_SECONDS = 1.0
MAX_MORE_MEGABYTES = 150
MAX_REST_SECONDS = 10.0
_MOST_BYTES = 7 * LENGTH


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each attack, at least one round")
    parser.add_argument("--triples", type=int, default=10, help="combinations of three, drawn; -1 for all of them")
    parser.add_argument("--seed", type=int, default=None, help="what they are drawn from")
    parser.add_argument("--only", help="the name of one attack")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    triples = list(itertools.combinations(ATTACKS, 3))
    if arguments.triples >= 0:
        triples = random.Random(seed).sample(triples, min(arguments.triples, len(triples)))
    print(f"seed {seed}; {arguments.seconds:g} s each")
    coordinator = Coordinator()
    try:
        play_round(coordinator.address)
        kinds = [(attack,) for attack in ATTACKS] + triples
        if arguments.only is not None:
            kinds = [(attack,) for attack in ATTACKS if attack.name == arguments.only]
        missed = [attacks for attacks in kinds if not _withstands(coordinator, attacks, arguments.seconds)]
    finally:
        coordinator.stop()
    print(f"{len(kinds)} attacks, bars missed by {len(missed)}")
    return 1 if missed else 0


def _withstands(coordinator: Coordinator, attacks: tuple[Attack, ...], seconds: float) -> bool:
    """Attack for a while, and print what came of it."""
    idle_megabytes, watch, rounds, refused = coordinator.megabytes(), Watch(coordinator), 0, 0
    with attacked(coordinator.address, "127.0.0.66", attacks, _MOST_BYTES), watch():
        end = time.monotonic() + seconds
        while time.monotonic() < end or not rounds:
            refused += play_round(coordinator.address)
            rounds += 1
    rest_seconds = _rest_seconds(coordinator)
    health = sorted(watch.seconds)
    typical_seconds, more_megabytes = health[int(0.99 * (len(health) - 1))], watch.most_megabytes - idle_megabytes
    is_good = typical_seconds < MAX_HEALTH_SECONDS and more_megabytes < MAX_MORE_MEGABYTES and rest_seconds < MAX_REST_SECONDS
    print(
        f"{'ok  ' if is_good else 'MISS'} {' + '.join(attack.name for attack in attacks)}: {rounds} rounds, {refused} refused,"
        f" /healthz {typical_seconds * 1000:.0f} ms, at most {health[-1] * 1000:.0f} ms of {len(health)},"
        f" {more_megabytes:+.0f} MB, at rest after {rest_seconds:.1f} s",
        flush=True,
    )
    return is_good


def _rest_seconds(coordinator: Coordinator) -> float:
    began = time.monotonic()
    while True:
        found = figures(coordinator.address)
        if found["pet_memory_in_flight_bytes"] == found["pet_spooled_bytes"] == 0:
            return time.monotonic() - began
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
