"""How much faster one call gets with more threads, in turns and with other data each time, so that neither other
work nor a cache favours one of them.

    python benchmarks/thread_gains.py --seeds 8 --length 1000000 --threads 1 2

Prints one JSON object: for one mask, one masked model, a sum of masks, adding a masked model and unmasking, the median and the
best time of each number of threads in ns per weight (and seed), the CPU time, and the ratio of the medians to the first
number's. Twice the CPU time of one thread over that of two is the ratio that a machine without other work could show.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import pet

#: Different models, masked models and totals that the calls take in turn: nothing is in a cache when its turn comes again.
ROTATION = 16


class Data:
    """What the calls work on: each takes the next of ROTATION."""

    def __init__(self, config: pet.MaskConfig, length: int, seed_count: int) -> None:
        self.config, self.length = config, length
        generator = np.random.default_rng(3)
        self.seeds = [pet.MaskSeed(generator.bytes(32)) for _ in range(seed_count)]
        self.weights = [generator.uniform(-1, 1, length).astype(config.dtype) for _ in range(ROTATION)]
        pairs = [pet.mask_model(weights, config) for weights in self.weights]
        self.masked_models = [masked_model for _, masked_model in pairs]
        self.totals = [pet.Aggregation(config, length) for _ in range(ROTATION)]
        self.models = []
        for seed, masked_model in pairs:
            total = pet.Aggregation(config, length)
            total.add(masked_model)
            self.models.append(total.unmask(seed.derive_mask(config, length)))

    def mask(self, index: int, threads: int) -> Any:
        return self.seeds[index % len(self.seeds)].derive_mask(self.config, self.length, threads=threads).vect

    def masked_model(self, index: int, threads: int) -> Any:
        return pet.mask_model(self.weights[index], self.config, 1, self.seeds[0], threads=threads)[1].vect

    def mask_sum(self, index: int, threads: int) -> Any:
        """Add the masks of all seeds; the order, which changes nothing, is another one each time."""
        seeds = self.seeds[index % len(self.seeds) :] + self.seeds[: index % len(self.seeds)]
        return pet.sum_masks(seeds, self.config, self.length, threads).vect

    def add(self, index: int, threads: int) -> None:
        if self.totals[index].count == self.config.max_model_count:
            self.totals[index] = pet.Aggregation(self.config, self.length)
        self.totals[index].add(self.masked_models[index], threads=threads)

    def unmask(self, index: int, threads: int) -> Any:
        return self.models[index].to_array(threads=threads)

    def operations(self) -> dict[str, tuple[int, Callable[[int, int], Any]]]:
        """Return by name: how many weights one call works on, and the call, for an index and a number of threads."""
        return {
            "mask": (self.length, self.mask),
            "masked model": (self.length, self.masked_model),
            "mask sum": (self.length * len(self.seeds), self.mask_sum),
            "add": (self.length, self.add),
            "unmask": (self.length, self.unmask),
        }


def measure(units: int, call: Callable[[int, int], Any], thread_counts: list[int], passes: int) -> dict[int, dict[str, float]]:
    results = [call(0, threads) for threads in thread_counts]
    assert all(result is None or np.array_equal(result, results[0]) for result in results), "threads must not matter"
    times: dict[int, list[tuple[float, float]]] = {threads: [] for threads in thread_counts}
    index = itertools.cycle(range(ROTATION))
    for _ in range(passes):
        for threads in thread_counts:
            chosen = next(index)
            start, cpu_start = time.perf_counter(), time.process_time()
            call(chosen, threads)
            times[threads].append((time.perf_counter() - start, time.process_time() - cpu_start))
    medians = {threads: statistics.median(wall for wall, _ in values) for threads, values in times.items()}
    return {
        threads: {
            "median_ns": round(1e9 * medians[threads] / units, 2),
            "best_ns": round(1e9 * min(wall for wall, _ in values) / units, 2),
            "cpu_ns": round(1e9 * min(cpu for _, cpu in values) / units, 2),
            "ratio": round(medians[thread_counts[0]] / medians[threads], 2),
        }
        for threads, values in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--length", type=int, default=1_000_000)
    parser.add_argument("--config", default="prime-f32-b0-m3")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--passes", type=int, default=9)
    arguments = parser.parse_args()
    config = pet.MaskConfig.parse(arguments.config)
    report: dict[str, Any] = {"config": str(config), "seeds": arguments.seeds, "length": arguments.length}
    for name, (units, call) in Data(config, arguments.length, arguments.seeds).operations().items():
        report[name] = measure(units, call, arguments.threads, arguments.passes)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
