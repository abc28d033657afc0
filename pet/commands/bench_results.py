"""What `pet bench` found, and everything that makes its figures worth quoting: the machine, the versions and the command."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import pet
from pet.commands.bench_ceiling import Ceiling
from pet.commands.bench_comparison import Comparison
from pet.commands.bench_kernels import Case, Limit, Measurement
from pet.commands.bench_profiles import ProfileComparison
from pet.mask_config import MaskConfig
from pet.threads import available_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of the table; times in nanoseconds per weight (and vector, where a kernel takes several)."""

    kernel: str
    config: str
    backend: str
    size: int
    threads: int
    best_ns: float
    median_ns: float
    spread: float
    passes: int
    limit: Limit
    limit_bytes: float
    ceiling_ns: float | None

    @classmethod
    def of(cls, case: Case, config: MaskConfig, backend: str, size: int, timing: Measurement) -> Result:
        """Return the line of a case that was measured, without its ceiling."""
        return cls(
            kernel=case.name,
            config=str(config),
            backend=backend,
            size=size,
            threads=case.threads,
            best_ns=timing.best,
            median_ns=timing.median,
            spread=timing.spread,
            passes=timing.passes,
            limit=case.limit,
            limit_bytes=case.limit_bytes,
            ceiling_ns=None,
        )

    def beside(self, ceilings: Mapping[tuple[str, int], Ceiling]) -> Result:
        """Return the line with its ceiling, if there is one for its back-end and number of threads."""
        ceiling = ceilings.get((self.backend, self.threads))
        return self if ceiling is None else replace(self, ceiling_ns=ceiling.nanoseconds(self.limit, self.limit_bytes))

    @property
    def share(self) -> float | None:
        """The share of the ceiling that is reached: 1 is as fast as the machine."""
        return None if self.ceiling_ns is None else self.ceiling_ns / self.best_ns


def report(
    results: Sequence[Result],
    ceilings: Mapping[tuple[str, int], Ceiling],
    comparisons: Sequence[Comparison],
    profiles: Sequence[ProfileComparison],
) -> dict[str, Any]:
    """Return the content of the JSON file."""
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "platform": platform.platform(),
        "versions": {
            "pet": pet.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "cffi": importlib.metadata.version("cffi"),
        },
        "command": " ".join(["pet", *sys.argv[1:]]),
        "unit": "nanoseconds per weight (and vector)",
        "ceilings": [{"backend": backend, **asdict(found)} for (backend, _), found in ceilings.items()],
        "results": [{**asdict(result), "share": result.share} for result in results],
        "peers": [{**asdict(found), "ratio": found.ratio} for found in comparisons],
        "profiles": [asdict(found) for found in profiles],
    }


def cpu_model() -> str:
    """Return what the processor calls itself, as far as the platform reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
