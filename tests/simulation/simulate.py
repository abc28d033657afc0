"""Simulate many rounds, a new world for each seed, in several processes; ends with status 1 at the first violation.

python tests/simulation/simulate.py --rounds 100000 --processes 2
python tests/simulation/simulate.py --seed 17 --rounds 20 --processes 1     the world of one seed again
"""

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from simulator import Outcome, Simulation, Violation

ROUNDS_PER_WORLD = 20


def simulate(task: tuple[int, int]) -> Outcome | str:
    seed, rounds = task
    logging.getLogger("pet").setLevel(logging.CRITICAL)  # the storage refuses on purpose
    try:
        return Simulation(seed).run(rounds)
    except Violation as error:
        return f"seed {seed}: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first world; the others follow")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    worlds = -(-arguments.rounds // ROUNDS_PER_WORLD)
    tasks = [(arguments.seed + number, min(ROUNDS_PER_WORLD, arguments.rounds)) for number in range(worlds)]
    start = time.monotonic()
    completed = failed = restarts = 0
    happened: Counter[str] = Counter()
    with multiprocessing.Pool(arguments.processes) as pool:
        for number, outcome in enumerate(pool.imap_unordered(simulate, tasks), start=1):
            if isinstance(outcome, str):
                pool.terminate()
                raise SystemExit(f"violation: {outcome}")
            completed += outcome.rounds_completed
            failed += outcome.rounds_failed
            restarts += outcome.restarts
            happened += outcome.happened
            if number % 250 == 0:
                print(f"{completed + failed:,} rounds, {time.monotonic() - start:.0f} s", flush=True)
    print(
        f"{completed + failed:,} rounds in {time.monotonic() - start:.0f} s: {completed:,} with a model, {failed:,} without,"
        f" {restarts:,} restarts of the coordinator; no violation"
    )
    for what, count in happened.most_common():
        print(f"  {what}: {count:,}")


if __name__ == "__main__":
    main()
