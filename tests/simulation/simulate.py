"""Simulate many rounds, a new world for each seed, in several processes; ends with status 1 at the first violation.

python tests/simulation/simulate.py --rounds 100000 --processes 2
python tests/simulation/simulate.py --seed 17 --rounds 20 --processes 1     the world of one seed again
python tests/simulation/simulate.py --profile pet/1 --rounds 10000          rounds of pet/1 instead of xaynet's
python tests/simulation/simulate.py --profile federation --rounds 7000      a thousand sequences of a federation's rounds
"""

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import pet1_federation
import pet1_ledger
import pet1_simulator
import simulator

ROUNDS_PER_WORLD = {"xaynet": 20, "pet/1": 20, "federation": 7}


def simulate(task: tuple[str, int, int]) -> simulator.Outcome | pet1_simulator.Outcome | str:
    profile, seed, rounds = task
    logging.getLogger("pet").setLevel(logging.CRITICAL)  # the storage refuses on purpose
    try:
        if profile == "federation":
            happened = pet1_federation.FederationSequence(seed).run(rounds)
            completed = happened.pop("sums", 0)
            return pet1_simulator.Outcome(completed, rounds - completed, happened)
        if profile == "pet/1":
            return pet1_simulator.Simulation(seed).run(rounds)
        return simulator.Simulation(seed).run(rounds)
    except (simulator.Violation, pet1_ledger.Violation) as error:
        return f"seed {seed}: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=("xaynet", "pet/1", "federation"), default="xaynet")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first world; the others follow")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    rounds = min(ROUNDS_PER_WORLD[arguments.profile], arguments.rounds)
    tasks = [(arguments.profile, arguments.seed + number, rounds) for number in range(-(-arguments.rounds // rounds))]
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
            if number % 50 == 0:
                print(f"{completed + failed:,} rounds, {time.monotonic() - start:.0f} s", flush=True)
    print(
        f"{completed + failed:,} rounds in {time.monotonic() - start:.0f} s: {completed:,} with a result, {failed:,} without,"
        f" {restarts:,} restarts of the coordinator; no violation"
    )
    for what, count in happened.most_common():
        print(f"  {what}: {count:,}")


if __name__ == "__main__":
    main()
