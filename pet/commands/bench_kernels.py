"""What a case of `pet bench` is, and how it is timed.

This file takes times; it knows neither the data of a case nor tables, plots or ceilings.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

#: A case runs for about this long, between these numbers of passes.
CASE_SECONDS: Final = 0.4
_PASSES: Final = (5, 200)
#: One pass this long is enough: the reference back-end would take minutes for more.
_SLOW_PASS_SECONDS: Final = 2.0

#: What a case runs against: the rounds of ChaCha20, a triad over three arrays, or eight arrays added to a ninth.
Limit = Literal["keystream", "memory", "reads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to time.

    Attributes:
        name: the kernel, as in the table.
        limit: which of the machine's ceilings it runs against.
        limit_bytes: bytes of that kind per weight (and vector).
        units: weights times vectors that one call works on.
        threads: how many threads one call uses.
        run: does it once.
    """

    name: str
    limit: Limit
    limit_bytes: float
    units: int
    threads: int
    run: Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Nanoseconds per weight (and vector) of a case over its passes."""

    best: float
    median: float
    spread: float  # (slowest quarter - fastest quarter) / median
    passes: int


def measure(case: Case) -> Measurement:
    """Time a case: one warm-up (compiles, wakes wide units), then passes until they have taken CASE_SECONDS.

    Each pass works on the next data of the case's rotation.
    """
    start = time.perf_counter()
    case.run()
    if (elapsed := time.perf_counter() - start) > _SLOW_PASS_SECONDS:
        start = time.perf_counter()
        case.run()
        elapsed = min(elapsed, time.perf_counter() - start)
        return Measurement(best=elapsed * 1e9 / case.units, median=elapsed * 1e9 / case.units, spread=0.0, passes=1)
    least, most = _PASSES
    times: list[float] = []
    while len(times) < least or (sum(times) < CASE_SECONDS * 1e9 and len(times) < most):
        begin = time.perf_counter_ns()
        case.run()
        times.append(time.perf_counter_ns() - begin)
    quarters = statistics.quantiles(times, n=4)
    median = statistics.median(times)
    return Measurement(
        best=min(times) / case.units,
        median=median / case.units,
        spread=(quarters[2] - quarters[0]) / median,
        passes=len(times),
    )
