"""What `pet bench` measures: one case per kernel, all on the same random model, and how a case is timed.

This file calls pet.kernels and takes times; it knows neither tables nor plots nor ceilings. The byte counts of a case are what
docs/kernels.md counts: the mean keystream of a draw, or each byte read or written once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from pet import kernels, parallel
from pet.mask_config import BoundType, DataType, MaskConfig
from pet.mask_object import MaskSeed, sum_masks
from pet.masking import encoding_of, to_exact_scalar

#: How many seeds a mask sum adds, and how many vectors the wide aggregation.
VECTOR_COUNT: Final = 8
#: A case runs for about this long, between these numbers of passes.
CASE_SECONDS: Final = 0.4
_PASSES: Final = (5, 200)
#: One pass this long is enough: the reference back-end would take minutes for more.
_SLOW_PASS_SECONDS: Final = 2.0
_RANDOM_SEED: Final = 20_240_229
#: Size and sign of a numerator and a denominator, and room for their limbs: see pet/global_model.py.
_FRACTION_OVERHEAD_BYTES: Final = 18

Limit = Literal["keystream", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to time.

    Attributes:
        name: the kernel, as in the table.
        limit: which of the machine's two ceilings it runs against.
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


class Workload:
    """A model, masks and totals of one mask config and length, made from a fixed seed.

    Args:
        config: mask config.
        length: number of weights.
        threads: how many a call uses, but that of fractions, which are written one after the other.
    """

    def __init__(self, config: MaskConfig, length: int, threads: int = 1) -> None:
        self.config: Final = config
        self.length: Final = length
        self._threads = threads
        generator = np.random.default_rng(_RANDOM_SEED)
        self._seeds = [MaskSeed(generator.bytes(kernels.SEED_BYTES)) for _ in range(VECTOR_COUNT)]
        self.weights: Final = _random_weights(generator, config, length)
        self._encoding = encoding_of(config, to_exact_scalar(1))
        # Written again and again, as the total is: a fresh one each time would measure how the system hands out pages.
        self._model = np.empty(length, dtype=config.data_type.dtype)
        self._mask = self.expand()
        self._masked = self.update()
        self._total = kernels.new_total(length, config.order)
        self._reduced = kernels.new_total(length, config.order)
        kernels.aggregate(self._reduced, [self._masked], config.order)
        kernels.reduce(self._reduced, 2, config.order)
        self._total_bound = 1

    def expand(self) -> kernels.Packed:
        """Draw the mask of one seed."""
        return parallel.expand(self._seeds[0].to_bytes(), self.config.order, self.length, 0, self._threads)

    def update(self) -> kernels.Packed:
        """Mask the model with that seed."""
        return parallel.update(self.weights, self._seeds[0].to_bytes(), 0, self._encoding, self._threads)[0]

    def mask_only(self) -> kernels.Packed:
        """Mask the model with a mask that is there already."""
        return kernels.mask_weights(self.weights, self._mask, self._encoding, out=self._masked)[0]

    def sum_masks(self) -> Any:
        """Add the masks of all seeds."""
        return sum_masks(self._seeds, self.config, self.length, threads=self._threads)

    def aggregate(self, count: int) -> kernels.Total:
        """Add the masked model `count` times to a running total."""
        if self._total_bound + count > kernels.capacity(self.config.order):
            kernels.reduce(self._total, self._total_bound, self.config.order)
            self._total_bound = 1
        self._total_bound += count
        parallel.aggregate(self._total, [self._masked] * count, self.config.order, self._threads)
        return self._total

    def unmask(self) -> kernels.Model:
        """Take the mask off again: the model as the data type of the config."""
        dtype = self.config.data_type.dtype
        return parallel.unmask(self._reduced, self._mask, self._decoding(), dtype, self._threads, out=self._model)

    def encode_fractions(self) -> np.ndarray[Any, Any]:
        """Write the model as exact fractions; returns the bytes written."""
        elements = kernels.unmask_elements(self._reduced, self._mask, self.config.order)
        decoding = self._decoding()
        output = np.empty(self.length * (2 * (self.config.element_bytes + 7) + _FRACTION_OVERHEAD_BYTES), dtype=np.uint8)
        written, _ = kernels.encode_fractions(output, elements, decoding)
        return output[:written]

    def cases(self) -> list[Case]:
        """Return every case, in the order of a round."""
        keystream = self.config.mean_keystream_bytes
        element, total = self.config.element_bytes, 8 * kernels.plane_count(self.config.order)
        model = self.config.data_type.dtype.itemsize
        fractions = len(self.encode_fractions()) / self.length
        return [
            self._case("expand", "keystream", keystream, self.expand),
            self._case("update", "keystream", keystream, self.update),
            self._case("mask sum", "keystream", keystream, self.sum_masks, VECTOR_COUNT),
            self._case("mask only", "memory", model + 2 * element, self.mask_only, threads=1),
            self._case("aggregate 1", "memory", element + total, lambda: self.aggregate(1)),
            self._case(
                f"aggregate {VECTOR_COUNT}",
                "memory",
                element + total / VECTOR_COUNT,
                lambda: self.aggregate(VECTOR_COUNT),
                VECTOR_COUNT,
            ),
            self._case("unmask", "memory", total + element + model, self.unmask),
            self._case("fractions", "memory", total + 2 * element + fractions, self.encode_fractions, threads=1),
        ]

    def _case(
        self,
        name: str,
        limit: Limit,
        limit_bytes: float,
        run: Callable[[], Any],
        vectors: int = 1,
        threads: int | None = None,
    ) -> Case:
        count = self._threads if threads is None else threads
        return Case(name=name, limit=limit, limit_bytes=limit_bytes, units=self.length * vectors, threads=count, run=run)

    def _decoding(self) -> kernels.Decoding:
        """Return how one masked model with scalar 1 unmasks: exact, so nothing is out of range."""
        offset = self.config.add_shift * self.config.exp_shift
        return kernels.Decoding(
            order=self.config.order,
            offset=offset,
            numerator=1,
            denominator=self.config.exp_shift,
            lowest=0,
            highest=2 * offset,
        )


def measure(case: Case) -> Measurement:
    """Time a case: one warm-up (compiles, wakes wide units), then passes until they have taken CASE_SECONDS."""
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


def _random_weights(generator: np.random.Generator, config: MaskConfig, length: int) -> np.ndarray[Any, Any]:
    """Return weights over the whole range of a config; an unbounded one gets what the type can hold without overflow."""
    if config.data_type in (DataType.F32, DataType.F64):
        bound = 1e30 if config.bound_type is BoundType.BMAX else float(config.add_shift)
        return generator.uniform(-bound, bound, length).astype(config.data_type.dtype)
    highest = min(config.add_shift, np.iinfo(config.data_type.dtype).max)
    return generator.integers(-highest, highest, length, dtype=config.data_type.dtype, endpoint=True)
