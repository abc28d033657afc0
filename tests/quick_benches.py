"""`pet bench` for a hundredth of a second a kernel: what is tested is not the figures."""

import functools
import os
from collections.abc import Callable

import pytest

from pet.commands import bench_ceiling, bench_kernels, bench_memory

measure_ceiling: Callable[[str, int], bench_ceiling.Ceiling] = bench_ceiling.measure_ceiling


@functools.cache
def remembered_ceiling(backend: str, threads: int, compiler: str | None, path: str) -> bench_ceiling.Ceiling:
    return measure_ceiling(backend, threads)


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure briefly, rotate through a megabyte, and compile the probe once for all tests of a process."""
    monkeypatch.setattr(bench_kernels, "CASE_SECONDS", 0.01)
    monkeypatch.setattr(bench_memory, "MIN_ROTATION_BYTES", 1 << 20)
    monkeypatch.setattr(bench_memory, "largest_cache_bytes", lambda: 0)

    def ceiling(backend: str, threads: int) -> bench_ceiling.Ceiling:
        return remembered_ceiling(backend, threads, os.environ.get("CC"), os.environ["PATH"])

    monkeypatch.setattr(bench_ceiling, "measure_ceiling", ceiling)
