"""How much faster a mask sum gets with more threads, measured in turns, so that a busy machine slows all alike.

    python benchmarks/mask_sum_threads.py --seeds 8 --length 1000000 --threads 1 2

Prints one JSON object: the median and the best time of each number of threads in ns per weight and seed, and the ratio of the
medians to the first number's.
"""

import argparse
import json
import statistics
import time

import pet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--length", type=int, default=1_000_000)
    parser.add_argument("--config", default="prime-f32-b0-m3")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--passes", type=int, default=9)
    arguments = parser.parse_args()
    config = pet.MaskConfig.parse(arguments.config)
    seeds = [pet.MaskSeed(bytes([i]) * 32) for i in range(arguments.seeds)]
    times: dict[int, list[float]] = {threads: [] for threads in arguments.threads}
    sums = set()
    for _ in range(arguments.passes):
        for threads in arguments.threads:
            start = time.perf_counter()
            mask = pet.sum_masks(seeds, config, arguments.length, threads=threads)
            times[threads].append(1e9 * (time.perf_counter() - start) / (arguments.length * arguments.seeds))
            sums.add(mask.to_bytes())
    assert len(sums) == 1, "the sum must not depend on the number of threads"
    medians = {threads: statistics.median(values) for threads, values in times.items()}
    first = medians[arguments.threads[0]]
    figures = {
        threads: {
            "median_ns": round(medians[threads], 2),
            "best_ns": round(min(values), 2),
            "ratio": round(first / medians[threads], 2),
        }
        for threads, values in times.items()
    }
    print(json.dumps({"config": str(config), "seeds": arguments.seeds, "length": arguments.length, "threads": figures}))


if __name__ == "__main__":
    main()
