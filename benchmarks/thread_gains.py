"""How much faster one call gets with more threads, measured in turns, so that a busy machine slows all alike.

    python benchmarks/thread_gains.py --seeds 8 --length 1000000 --threads 1 2

Prints one JSON object: for one mask, one masked model, a sum of masks, adding a masked model and unmasking, the median and the
best time of each number of threads in ns per weight (and seed), the CPU time, and the ratio of the medians to the first
number's. Twice the CPU time of one thread over that of two is the ratio that a machine without other work could show.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import pet


def operations(config: pet.MaskConfig, length: int, seed_count: int) -> dict[str, tuple[int, Callable[[int], Any]]]:
    """Return by name: how many weights one call works on, and the call, for a number of threads."""
    seeds = [pet.MaskSeed(bytes([i]) * 32) for i in range(seed_count)]
    weights = np.linspace(-1, 1, length).astype(config.data_type.dtype)
    masked_model = pet.mask_model(weights, config, 1, seeds[0])[1]
    aggregation = pet.Aggregation(config, length)
    unmasked = pet.Aggregation(config, length)
    unmasked.add(masked_model)
    model = unmasked.unmask(seeds[0].derive_mask(config, length))

    def add(threads: int) -> None:
        if aggregation.count == config.max_model_count:
            aggregation.subtract(masked_model)
        aggregation.add(masked_model, threads=threads)

    return {
        "mask": (length, lambda threads: seeds[0].derive_mask(config, length, threads=threads).vect),
        "masked model": (length, lambda threads: pet.mask_model(weights, config, 1, seeds[0], threads=threads)[1].vect),
        "mask sum": (length * seed_count, lambda threads: pet.sum_masks(seeds, config, length, threads).vect),
        "add": (length, add),
        "unmask": (length, lambda threads: model.to_array(threads=threads)),
    }


def measure(units: int, call: Callable[[int], Any], thread_counts: list[int], passes: int) -> dict[int, dict[str, float]]:
    times: dict[int, list[tuple[float, float]]] = {threads: [] for threads in thread_counts}
    results = set()
    for _ in range(passes):
        for threads in thread_counts:
            start, cpu_start = time.perf_counter(), time.process_time()
            result = call(threads)
            times[threads].append((time.perf_counter() - start, time.process_time() - cpu_start))
            results.add(None if result is None else result.tobytes())
    assert len(results) == 1, "the result must not depend on the number of threads"
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
    for name, (units, call) in operations(config, arguments.length, arguments.seeds).items():
        report[name] = measure(units, call, arguments.threads, arguments.passes)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
