"""The kernels of pet-1 as shares of what the machine can do at most, in turns with it: other work slows both down alike.

    python benchmarks/field_shares.py --lengths 1e6 1e7 --backends avx512 avx2 --passes 30

The ceilings are those of pet/commands/ceiling.c, compiled for the back-end's instruction set: ChaCha20 alone for what draws,
a triad past the caches (24 bytes counted per element) for what waits for memory. A pass measures the ceilings and then each
kernel on the next of several vectors, which together no cache holds. Times are the CPU time of the one thread.

Printed are, by order and length, ns per element (best) and two shares: of the best times, and the median over the passes of the
ratio within a pass. A share of 1 is the ceiling; for encode, multiply_add and dot the figure is how many times the keystream of
an element they take (of a narrow one for encode). `two_threads` is how many times as fast two threads add the expansions of one
key and of eight, in wall time of turns beside one thread: that alone needs a second core that is free.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pet import kernels, parallel_fields
from pet.commands.bench_ceiling import SOURCE, find_compiler
from pet.kernels import fields

FLAGS = {"avx512": ["-mavx512f"], "avx2": ["-mavx2"]}
#: The probe's functions under names that can be found in a shared library; called through a pointer, so that they are compiled
#: as in the program.
PROBE = f"""
#define main ceiling_main
#include "{SOURCE}"
static void *(*volatile work)(void *);
void keystream(void) {{ job mine = {{0, 1, 0, 0}}; work = run_keystream; work(&mine); }}
void triad(double *memory, size_t bytes) {{ job mine = {{0, 1, bytes, memory}}; work = run_streaming_triad; work(&mine); }}
"""
KEYSTREAM_KIB = 4096  # of a call of the probe
KEY_COUNT = 8
ORDERS = {"z32": fields.Z32, "z64": fields.Z64}


def load_probe(backend: str, folder: Path) -> ctypes.CDLL:
    compiler = find_compiler()
    if compiler is None:
        raise SystemExit("expected a C compiler, got none")
    source, library = folder / f"{backend}.c", folder / f"{backend}.so"
    source.write_text(PROBE, encoding="utf-8")
    flags = ["-O3", *FLAGS.get(backend, []), "-shared", "-fPIC", "-pthread"]
    subprocess.run([*compiler, *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class Vectors:
    """Valid vectors, weights and room for a model, in turn: what comes next is in no cache."""

    def __init__(self, order: int, length: int, rotation_bytes: int) -> None:
        self.order, self.length, self.width = order, length, fields.element_bytes(order)
        self.dtype = np.dtype(np.float32 if self.width == 4 else np.float64)
        count = max(4, rotation_bytes // (length * self.width))
        generator = np.random.default_rng(5)
        self.keys = generator.bytes(32 * KEY_COUNT)
        self.vectors = [parallel_fields.new_vector(length, order) for _ in range(count)]
        for number, vector in enumerate(self.vectors):
            fields.expand_add(vector, 0, number.to_bytes(32, "little"), order)
        self.weights = [generator.uniform(-1.01, 1.01, length).astype(np.float32) for _ in range(4)]
        self.models = [kernels.new_array((length,), self.dtype) for _ in range(4)]
        self.next = 0

    def turn(self) -> "Arrays":
        self.next += 1
        n, count = self.next, len(self.vectors)
        return self.vectors[2 * n % count], self.vectors[(2 * n + 1) % count], self.weights[n % 4], self.models[n % 4]


#: A total, a vector, weights and room for a model.
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def kernels_of(data: Vectors) -> dict[str, tuple[str, float, Callable[[Arrays], Any]]]:
    """Return by name: the ceiling, how many bytes of it an element takes, and the call."""
    order, width, keys = data.order, data.width, data.keys
    top = (1 << 22) if width == 4 else (1 << 52)
    used = np.dtype(data.dtype).itemsize + width
    return {
        "expand_add": ("keystream", width, lambda a: fields.expand_add(a[0], 0, keys[:32], order)),
        "expand_add_8_keys": ("keystream", width * KEY_COUNT, lambda a: fields.expand_add(a[0], 0, keys, order)),
        "encode_f32": ("keystream", 4, lambda a: fields.encode(a[2], 0.7, 1.0, top, order, out=a[0])),
        "add": ("memory", 3 * width, lambda a: fields.add(a[0], a[1], order)),
        "subtract": ("memory", 3 * width, lambda a: fields.subtract(a[0], a[1], order)),
        "decode": ("memory", used, lambda a: fields.decode(a[1], 1.0, order - 1, 12345, order, data.dtype, out=a[3])),
        "multiply_add": ("keystream", width, lambda a: fields.multiply_add(a[0], a[1], order // 3, order)),
        "dot": ("keystream", width, lambda a: fields.dot(a[0], a[1], order)),
    }


def time_kernel(call: Callable[[Arrays], Any], data: Vectors) -> float:
    """Return ns per element. A few elements come first: the triad has driven what the interpreter needs out of the caches."""
    total, vector, weights, model = data.turn()
    call((total[:16], vector[:16], weights[:16], model[:16]))
    return timed(lambda: call((total, vector, weights, model))) / data.length


def timed(call: Callable[[], Any]) -> int:
    start = time.thread_time_ns()
    call()
    return time.thread_time_ns() - start


def time_threads(data: Vectors, key_count: int) -> float:
    """Return by how much two threads add expansions faster than one; a first turn wakes the second core and its wide units."""
    times = []
    for threads in (2, 1, 2):
        total, _, _, _ = data.turn()
        start = time.perf_counter_ns()
        parallel_fields.expand_add(total, 0, data.keys[: 32 * key_count], data.order, threads)
        times.append(time.perf_counter_ns() - start)
    return times[1] / times[2]


def measure(data: Vectors, probe: ctypes.CDLL, memory: np.ndarray, passes: int) -> dict[str, dict[str, float]]:
    ceilings: dict[str, list[float]] = {"keystream": [], "memory": []}  # ns per byte
    times: dict[str, list[float]] = {}  # ns per element
    gains: dict[int, list[float]] = {1: [], KEY_COUNT: []}
    for number in range(passes + 1):
        array_bytes = memory.nbytes // 3 // 64 * 64
        triad = timed(lambda size=array_bytes: probe.triad(memory.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(size)))
        # Last, because wide units sleep while nothing needs them, and the first kernel draws.
        keystream = timed(probe.keystream) / (1024 * KEYSTREAM_KIB)
        results = {name: time_kernel(call, data) for name, (_, _, call) in kernels_of(data).items()}
        if number == 0:
            continue  # wakes wide units
        ceilings["keystream"].append(keystream)
        ceilings["memory"].append(triad / (3 * array_bytes))
        for name, value in results.items():
            times.setdefault(name, []).append(value)
        for key_count, gained in gains.items():
            gained.append(time_threads(data, key_count))
    report = {}
    for name, (limit, limit_bytes, _) in kernels_of(data).items():
        floors = [limit_bytes * value for value in ceilings[limit]]
        ratios = [floor / value for floor, value in zip(floors, times[name], strict=True)]
        best, median = min(floors) / min(times[name]), statistics.median(ratios)
        if name.startswith(("encode", "multiply_add", "dot")):
            best, median = 1 / best, 1 / median
        report[name] = {"ns": round(min(times[name]), 3), "of_best": round(best, 3), "median": round(median, 3)}
    report["two_threads"] = {f"{key_count}_keys": round(statistics.median(gained), 3) for key_count, gained in gains.items()}
    report["ceilings"] = {
        "keystream_ns_per_kib": round(1024 * min(ceilings["keystream"]), 1),
        "memory_gb_per_s": round(1 / min(ceilings["memory"]), 2),
    }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=float, nargs="+", default=[1e6, 1e7])
    parser.add_argument("--backends", nargs="+", default=[kernels.active_backend()])
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--rotation", type=float, default=288e6, help="bytes of different vectors, and of the triad's arrays")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pet-shares-") as name:
        for length in map(int, arguments.lengths):
            for order_name, order in ORDERS.items():
                kernels.select_backend(None)
                data = Vectors(order, length, int(arguments.rotation))
                memory = np.ones(int(arguments.rotation) // 8, dtype=np.float64)
                for backend in arguments.backends:
                    kernels.select_backend(backend)
                    report = measure(data, load_probe(f"{backend}", Path(name)), memory, arguments.passes)
                    for kernel, figures in report.items():
                        print(f"{backend:8} {order_name} {length:9} {kernel:24} {json.dumps(figures)}", flush=True)


if __name__ == "__main__":
    main()
