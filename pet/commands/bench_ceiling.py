"""The ceilings of this machine, from benchmarks/ceiling.c: compiled on demand into a temporary directory, and run.

Without a C compiler, or without the source (it is in the repository, not in the package), there are no ceilings.
"""

from __future__ import annotations

import json
import shutil
import subprocess  # compiles and runs our own probe, with arguments that are all constants of this file
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pet
from pet.commands.bench_kernels import Case

#: A back-end is held against what its own instruction set can do; numba compiles for the machine it runs on.
_FLAGS: Final = {"avx2": ("-mavx2",), "avx512": ("-mavx512f",), "numba": ("-march=native",)}
_TIMEOUT_SECONDS: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """What the machine can do at most with one instruction set and number of threads, all threads together."""

    flags: str
    threads: int
    vector_bytes: int
    keystream_ns_per_kib: float
    memory_gb_per_s: float

    def nanoseconds(self, case: Case) -> float:
        """Return the least time per weight that a case could take."""
        if case.limit == "keystream":
            return case.limit_bytes * self.keystream_ns_per_kib / 1024
        return case.limit_bytes / self.memory_gb_per_s


def find_source() -> Path | None:
    """Return the probe's source: beside the package where that lies in the repository, else below the working directory."""
    for root in (Path(pet.__file__).parent.parent, Path.cwd()):
        source = root / "benchmarks" / "ceiling.c"
        if source.is_file():
            return source
    return None


def measure_ceiling(backend: str, threads: int) -> Ceiling | None:
    """Compile and run the probe for a back-end; None if that is not possible here."""
    compiler, source = shutil.which("cc") or shutil.which("gcc"), find_source()
    if compiler is None or source is None:
        return None
    flags = ("-O3", *_FLAGS.get(backend, ()))
    with tempfile.TemporaryDirectory(prefix="pet-bench-") as directory:
        program = str(Path(directory) / "ceiling")
        try:
            subprocess.run(  # noqa: S603
                [compiler, *flags, "-pthread", str(source), "-o", program],
                check=True,
                capture_output=True,
                timeout=_TIMEOUT_SECONDS,
            )
            answer = subprocess.run(  # noqa: S603
                [program, str(threads)], check=True, capture_output=True, timeout=_TIMEOUT_SECONDS
            )
        except (OSError, subprocess.SubprocessError):
            return None
    found = json.loads(answer.stdout)
    return Ceiling(flags=" ".join(flags), **found)
