"""The ceilings of this machine, from ceiling.c beside this file: compiled on demand into a temporary folder, and run.

Without a C compiler there are no ceilings; the error says what is missing, and figures are shown without them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess  # compiles and runs our own probe, with arguments that are all constants of this file
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pet.commands.bench_kernels import Limit
from pet.commands.bench_memory import rotation_bytes
from pet.errors import PetError

#: The probe's source, which every wheel contains.
SOURCE: Final = Path(__file__).with_name("ceiling.c")
#: A back-end is compared with what its own instruction set can do; numba compiles for the machine it runs on.
_FLAGS: Final = {"avx2": ("-mavx2",), "avx512": ("-mavx512f",), "numba": ("-march=native",)}
_COMPILERS: Final = ("cc", "gcc", "clang")
_TIMEOUT_SECONDS: Final = 120
#: Of a compiler's message, what fits a line.
_MAX_REASON_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """What the machine can do at most with one instruction set and number of threads, all threads together.

    Attributes:
        flags: of the compiler.
        threads: how many ran the probe at once.
        vector_bytes: width of a vector.
        keystream_ns_per_kib: ChaCha20 alone, nothing drawn.
        memory_gb_per_s: a triad over three arrays that no cache holds.
        reads_gb_per_s: eight different arrays, which no cache holds either, added to a ninth.
    """

    flags: str
    threads: int
    vector_bytes: int
    keystream_ns_per_kib: float
    memory_gb_per_s: float
    reads_gb_per_s: float

    def nanoseconds(self, limit: Limit, limit_bytes: float) -> float:
        """Return the least time per weight of a case that moves `limit_bytes` of a kind per weight."""
        if limit == "keystream":
            return limit_bytes * self.keystream_ns_per_kib / 1024
        return limit_bytes / (self.reads_gb_per_s if limit == "reads" else self.memory_gb_per_s)

    def best_of(self, other: Ceiling) -> Ceiling:
        """Return the better of two measurements, figure by figure: other programs can only make them worse."""
        return replace(
            self,
            keystream_ns_per_kib=min(self.keystream_ns_per_kib, other.keystream_ns_per_kib),
            memory_gb_per_s=max(self.memory_gb_per_s, other.memory_gb_per_s),
            reads_gb_per_s=max(self.reads_gb_per_s, other.reads_gb_per_s),
        )


class Ceilings:
    """The ceilings of a run: each is measured before and after the kernels that are compared with it, and the better counts.

    Attributes:
        found: by back-end and number of threads.
        reasons: why there is none, by back-end and number of threads.
    """

    def __init__(self) -> None:
        self.found: Final[dict[tuple[str, int], Ceiling]] = {}
        self.reasons: Final[dict[tuple[str, int], str]] = {}

    def measure(self, backend: str, thread_counts: Iterable[int]) -> None:
        """Measure the ceilings of a back-end, or keep the reason why that cannot be done here."""
        for key in [(backend, threads) for threads in thread_counts]:
            if key in self.reasons:
                continue
            try:
                ceiling = measure_ceiling(*key)
            except PetError as error:
                self.reasons[key] = str(error)
            else:
                self.found[key] = ceiling.best_of(self.found.get(key, ceiling))


def find_compiler() -> list[str] | None:
    """Return the command of a C compiler: that of CC, else the first of the usual names; None if there is none."""
    for name in filter(None, (os.environ.get("CC", ""), *_COMPILERS)):
        words = shlex.split(name)
        path = shutil.which(words[0]) if words else None
        if path is not None:
            return [path, *words[1:]]
    return None


def measure_ceiling(backend: str, threads: int) -> Ceiling:
    """Compile and run the probe for a back-end.

    Raises:
        PetError: there is no C compiler, or the probe does not compile or run here; says why.
    """
    compiler = find_compiler()
    if compiler is None:
        raise PetError(f"expected a C compiler ({', '.join(_COMPILERS)}) on the path, got none")
    flags = ("-O3", *_FLAGS.get(backend, ()))
    with tempfile.TemporaryDirectory(prefix="pet-bench-") as folder:
        program = str(Path(folder) / "ceiling")
        _run("the probe to compile", [*compiler, *flags, "-pthread", str(SOURCE), "-o", program])
        found = json.loads(_run("the probe to run", [program, str(threads), str(rotation_bytes())]))
    return Ceiling(flags=" ".join(flags), **found)


def _run(expected: str, command: list[str]) -> bytes:
    """Run a program and return what it prints; an error says what was expected and what the program said."""
    try:
        return subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_SECONDS).stdout  # noqa: S603
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.decode(errors="replace").split()) or f"exit status {error.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    raise PetError(f"expected {expected}, got {said[:_MAX_REASON_CHARACTERS]}")
