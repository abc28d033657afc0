"""How fast a CSV file is learned, and with how much memory: a table of floats, written once, learned in processes of their own.

    python benchmarks/bench_csv.py [--rows 1e6] [--columns 10] [--repeats 3] [--against FOLDER]

`--against` names the source tree of another version of pet, measured in turn with this one, so that both see the same machine.
The peak of memory is that of the whole process, beside one that learns a hundredth of the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent

LEARN = """
import json, resource, sys, time
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics
path, columns = sys.argv[1], int(sys.argv[2])
schema = Schema(tuple(Feature(name=f"c{i}") for i in range(columns)))
begun = time.perf_counter()
rows = Statistics.of(path, schema).rows
seconds = time.perf_counter() - begun
print(json.dumps([rows, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def write_table(path: Path, rows: int, columns: int) -> None:
    """Write normal numbers with all their digits, as pandas and R would."""
    generator = np.random.default_rng(1)
    with path.open("w") as file:
        file.write(",".join(f"c{i}" for i in range(columns)) + "\n")
        for start in range(0, rows, 10_000):
            block = generator.normal(size=(min(10_000, rows - start), columns)).tolist()
            file.writelines(",".join(map(repr, row)) + "\n" for row in block)


def learn(tree: Path, path: Path, columns: int) -> tuple[int, float, float]:
    """Return rows, seconds and the peak of memory in MB of one process."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PET_BACKEND": "reference"}  # no kernel takes part
    done = subprocess.run(
        [sys.executable, "-c", LEARN, str(path), str(columns)],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        cwd=path.parent,
    )
    rows, seconds, peak = json.loads(done.stdout)
    return rows, seconds, peak


def main() -> None:
    """Write the table, learn it in turn, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    trees = {"this version": ROOT} | ({"the other one": options.against.resolve()} if options.against else {})
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "small.csv", Path(folder) / "rows.csv"]
        for path, rows in zip(paths, (int(options.rows) // 100, int(options.rows)), strict=True):
            write_table(path, rows, options.columns)
        print(f"{int(options.rows)} rows x {options.columns} columns, {paths[1].stat().st_size / 1e6:.0f} MB")
        for _ in range(options.repeats):
            for name, tree in trees.items():
                _, _, least = learn(tree, paths[0], options.columns)
                rows, seconds, peak = learn(tree, paths[1], options.columns)
                assert rows == int(options.rows)
                print(
                    f"{name}: {seconds:.2f} s, {peak:.0f} MB at the peak, {peak - least:.0f} MB more than for 1/100 of the rows"
                )


if __name__ == "__main__":
    main()
