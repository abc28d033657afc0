"""How much slower or faster pet is than an older commit, config by config: both in one run, in turns, so that neither other
work nor the clock of the processor favours one of them.

    python benchmarks/compare_commits.py                     a choice of mask configs, beside the last commit before pet-1
    python benchmarks/compare_commits.py --all               all 240: some 20 minutes
    python benchmarks/compare_commits.py --commit v1.2 --configs prime-f32-b0-m3 --backend avx2

The older commit is taken from git and built into a temporary folder (--build keeps it); the newer one is the pet of this
environment. Each of the two has a process of its own, which waits while the other one measures: old, new, new, old. A turn is
some passes over data that rotates, in CPU time of one thread, and the fastest of them counts. Where memory lies differs from
process to process and changes times by some percent, so several pairs of processes measure everything, one after the other. A
line is the median of the ratios of neighbouring turns of all pairs, new by old, and their quartiles; "slower" stands where the
median is above the limit and even the lower quartile above 1. The exit status is then 1.

With --worker this file is one of the two processes; it uses only what both commits have.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
#: The last commit before the derivation pet-1 came.
OLD_COMMIT = "b4d43c2c98135b13bc5ceb9abc340b3b22f20d74"
#: Every width of element, group and data type once.
CHOICE = (
    "prime-f32-b0-m3",
    "prime-f32-b0-m6",
    "power2-f32-b0-m6",
    "integer-f32-b4-m12",
    "prime-f64-b0-m3",
    "power2-f64-b6-m9",
    "prime-i32-b0-m3",
    "power2-i64-b2-m6",
    "prime-i64-bmax-m12",
    "prime-f32-bmax-m3",
    "prime-f64-bmax-m3",
)
GROUPS, DATA = ("integer", "prime", "power2"), ("f32", "f64", "i32", "i64")
BOUNDS, MODELS = ("b0", "b2", "b4", "b6", "bmax"), ("m3", "m6", "m9", "m12")
CALLS = ("mask", "masked model", "mask sum", "add", "check", "unmask")
#: Keystream of one mask in bytes, which says how long vectors are; and the most weights, so that adding leaves the caches.
KEYSTREAM_BYTES, MOST_WEIGHTS = 2 << 20, 200_000
SEED_COUNT = 4
#: A turn lasts as long as this, but has at least these passes.
TURN_SECONDS, LEAST_PASSES = 0.01, 3
#: Different models and totals that the calls take in turn.
ROTATION = 4


# ---- one of the two processes ---------------------------------------------------------------------------------------


class Data:
    """What the calls of one config work on."""

    def __init__(self, name: str, keystream_bytes: int, pet: Any) -> None:
        self.pet, self.config = pet, pet.MaskConfig.parse(name)
        self.length = max(64, min(MOST_WEIGHTS, int(keystream_bytes / self.config.mean_keystream_bytes)))
        self.seeds = [pet.MaskSeed(bytes([number]) * 32) for number in range(1, 1 + SEED_COUNT)]
        source, dtype = np.random.default_rng(5), self.config.data_type.dtype
        bound = min(float(self.config.add_shift), 1e30)
        highest = int(min(bound, np.iinfo(dtype).max if dtype.kind == "i" else bound))
        draws = [source.uniform(-1, 1, self.length) * (0.99 * highest) for _ in range(ROTATION)]
        pairs = [pet.mask_model(draw.astype(dtype), self.config, 1, self.seeds[0], threads=1) for draw in draws]
        self.weights = itertools.cycle([draw.astype(dtype) for draw in draws])
        self.masked = itertools.cycle([masked for _, masked in pairs])
        self.totals = itertools.cycle([pet.Aggregation(self.config, self.length) for _ in range(ROTATION)])
        mask = self.seeds[0].derive_mask(self.config, self.length, threads=1)
        self.models = itertools.cycle([self._unmasked(masked, mask) for _, masked in pairs])

    def _unmasked(self, masked: Any, mask: Any) -> Any:
        total = self.pet.Aggregation(self.config, self.length)
        total.add(masked, threads=1)
        return total.unmask(mask, threads=1)

    def mask(self) -> Any:
        return self.seeds[0].derive_mask(self.config, self.length, threads=1)

    def masked_model(self) -> Any:
        return self.pet.mask_model(next(self.weights), self.config, 1, self.seeds[0], threads=1)

    def mask_sum(self) -> Any:
        return self.pet.sum_masks(self.seeds, self.config, self.length, 1)

    def add(self) -> None:
        total = next(self.totals)
        total.count = 0  # as many additions as we like: what is added does not matter here
        total.add(next(self.masked), threads=1)

    def check(self) -> None:
        next(self.masked).validate(threads=1)

    def unmask(self) -> Any:
        return next(self.models).to_array(threads=1)

    def calls(self) -> dict[str, tuple[int, Callable[[], Any]]]:
        """Return by name how many weights a call works on, and the call."""
        one, several = self.length, self.length * len(self.seeds)
        return {
            "mask": (one, self.mask),
            "masked model": (one, self.masked_model),
            "mask sum": (several, self.mask_sum),
            "add": (one, self.add),
            "check": (one, self.check),
            "unmask": (one, self.unmask),
        }


def time_turn(units: int, call: Callable[[], Any]) -> float:
    """Return the nanoseconds per weight of the fastest pass of a turn."""
    times: list[float] = []
    while len(times) < LEAST_PASSES or sum(times) < TURN_SECONDS:
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return min(times) * 1e9 / units


def work(keystream_bytes: int) -> None:
    """Answer each line of the input, a config and the name of a call, with a time."""
    import pet

    print(json.dumps([str(Path(pet.__file__).resolve().parent), pet.kernels.active_backend()]), flush=True)
    name, data = None, None
    for line in sys.stdin:
        config, call = json.loads(line)
        if config != name or data is None:
            name, data = config, Data(config, keystream_bytes, pet)
        print(json.dumps(time_turn(*data.calls()[call])), flush=True)


# ---- the program ----------------------------------------------------------------------------------------------------


class Worker:
    """One of the two processes."""

    def __init__(self, folder: Path | None, backend: str, keystream_bytes: int) -> None:
        environment = {**os.environ, "PET_THREADS": "1", **({"PET_BACKEND": backend} if backend else {})}
        if folder is not None:
            environment["PYTHONPATH"] = str(folder)
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", "--keystream", str(keystream_bytes)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=tempfile.gettempdir(), text=True
        )
        self.package, self.backend = self._read()
        if folder is not None and Path(self.package).resolve() != (folder / "pet").resolve():
            self.close()
            raise SystemExit(f"expected pet of {folder}, got that of {self.package}")

    def _read(self) -> Any:
        assert self.process.stdout is not None, "it was asked for"
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process that measures has ended; what it printed stands above")
        return json.loads(line)

    def measure(self, config: str, call: str) -> float:
        assert self.process.stdin is not None, "it was asked for"
        self.process.stdin.write(json.dumps([config, call]) + "\n")
        self.process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        self.process.communicate()  # an end of its input ends it


@contextlib.contextmanager
def built(commit: str, folder: Path | None) -> Iterator[Path]:
    """Give a folder with pet as it was at a commit, compiled; one that holds it already is taken as it is."""
    with tempfile.TemporaryDirectory(prefix="pet-compare-") as temporary:
        target = Path(temporary) / "built" if folder is None else folder.resolve()
        if not (target / "pet").is_dir():
            source = Path(temporary) / "source"
            archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(source, filter="data")
            print(f"building {commit[:12]}", file=sys.stderr, flush=True)
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-compile"]
            subprocess.run([*install, "--target", str(target), str(source)], check=True)
        yield target


def compare(old: Worker, new: Worker, config: str, call: str, turns: int) -> list[float]:
    """Return the ratios new by old of some pairs of turns, the second pair in reverse order, and so on."""
    for worker in (old, new):  # warms up: memory, wide units, compiled loops
        worker.measure(config, call)
    ratios = []
    for turn in range(turns):
        pair = (old, new) if turn % 2 == 0 else (new, old)
        times = {id(worker): worker.measure(config, call) for worker in pair}
        ratios.append(times[id(new)] / times[id(old)])
    return ratios


def measure(folder: Path, options: argparse.Namespace, lines: list[tuple[str, str]]) -> list[list[float]]:
    """Return the ratios of each line, of all pairs of processes."""
    ratios: list[list[float]] = [[] for _ in lines]
    for number in range(1, 1 + options.pairs):
        with (
            contextlib.closing(Worker(folder, options.backend, options.keystream)) as old,
            contextlib.closing(Worker(None, options.backend, options.keystream)) as new,
        ):
            print(f"pair {number} of {options.pairs}, back-ends {old.backend} and {new.backend}", file=sys.stderr, flush=True)
            for own, (config, call) in zip(ratios, lines, strict=True):
                own += compare(old, new, config, call, options.turns)
    return ratios


def verdict(quartiles: list[float], limit: float) -> str:
    lower, median, upper = quartiles
    if median > limit and lower > 1:
        return "slower"
    return "faster" if median < 1 / limit and upper < 1 else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default=OLD_COMMIT, help="the older commit")
    parser.add_argument("--configs", default=",".join(CHOICE), help="mask configs, joined with commas")
    parser.add_argument("--all", action="store_true", help="all 240 configs")
    parser.add_argument("--calls", default="", help="some of the calls; all if not given")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of processes")
    parser.add_argument("--turns", type=int, default=5, help="pairs of turns of each line in each pair of processes")
    parser.add_argument("--limit", type=float, default=1.05, help="ratio from which on a line counts as slower")
    parser.add_argument(
        "--keystream", type=int, default=KEYSTREAM_BYTES, help="bytes of keystream of a mask: how long models are"
    )
    parser.add_argument("--backend", default="", help="PET_BACKEND of both")
    parser.add_argument("--build", type=Path, help="folder for the older commit, used again where it exists")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.keystream)
        return 0
    every = ["-".join(choice) for choice in itertools.product(GROUPS, DATA, BOUNDS, MODELS)]
    calls = options.calls.split(",") if options.calls else CALLS
    lines = list(itertools.product(every if options.all else options.configs.split(","), calls))
    with built(options.commit, options.build) as folder:
        ratios = measure(folder, options, lines)
    print(f"new by old ({options.commit[:12]}), CPU time of one thread, {options.pairs} pairs of processes")
    slower = 0
    for (config, call), own in zip(lines, ratios, strict=True):
        lower, median, upper = quartiles = statistics.quantiles(own, n=4)
        found = verdict(quartiles, options.limit)
        slower += found == "slower"
        print(f"{config:20} {call:13} {median:5.2f}  ({lower:.2f} to {upper:.2f})  {found}".rstrip())
    print(f"{slower} of {len(lines)} lines are slower by more than {options.limit - 1:.0%}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
