"""What `pet bench` measures: the kernels of one mask config and length, each with other data in every pass.

A kernel that reads the same model again and again reads it from a cache, which a coordinator that receives one update after
another never does. So there are many models, masks, masked models and totals, and each pass takes the next: together they are
larger than the caches (`bench_memory.rotation_bytes`). The byte counts of a case are those of docs/kernels.md: the mean
keystream of a draw, or each byte read or written once.

This file calls pet.kernels; it neither times nor prints.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pet import kernels, parallel
from pet.commands.bench_kernels import Case, Limit
from pet.commands.bench_memory import rotation_bytes
from pet.mask_config import BoundType, DataType, MaskConfig
from pet.mask_object import MaskSeed, sum_masks
from pet.masking import encoding_of, to_exact_scalar

#: How many seeds a mask sum adds, and how many vectors the wide aggregation.
VECTOR_COUNT: Final = 8
#: At least this number of models, and masked models, whatever their size: then two passes in a row share no data.
MIN_MODELS: Final = 2
MIN_MASKED_MODELS: Final = 2 * VECTOR_COUNT
#: Tiny models: more views than this would take longer to make than to measure.
MAX_SETS: Final = 1 << 14
SEED_COUNT: Final = 8 * VECTOR_COUNT
_RANDOM_SEED: Final = 20_240_229
#: Size and sign of a numerator and a denominator, and room for their limbs: see pet/global_model.py.
_FRACTION_OVERHEAD_BYTES: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationSizes:
    """How many different vectors of each kind a workload holds.

    Attributes:
        models: models, with a mask and the totals of each.
        masked_models: masked models that are added to totals.
    """

    models: int
    masked_models: int

    @classmethod
    def of(cls, config: MaskConfig, length: int, wanted_bytes: int) -> RotationSizes:
        """Return the counts with which the kernels that read least rotate through `wanted_bytes`."""
        element, model = config.element_bytes, config.data_type.dtype.itemsize
        return cls(
            models=min(max(MIN_MODELS, -(-wanted_bytes // (length * (element + model)))), MAX_SETS),
            masked_models=min(max(MIN_MASKED_MODELS, -(-wanted_bytes // (length * element))), MAX_SETS),
        )

    def total_bytes(self, config: MaskConfig, length: int) -> int:
        """Return the bytes that a workload takes at most, with what a kernel allocates for its result."""
        element, model = config.element_bytes, config.data_type.dtype.itemsize
        total = 8 * kernels.plane_count(config.order)
        rotating = self.models * (element + 2 * model + 2 * total) + self.masked_models * element
        result = max(_fraction_bytes(config) + element, total + element, 8 * self.models)
        return length * (rotating + result)


def workload_bytes(config: MaskConfig, length: int) -> int:
    """Return the bytes that a workload takes at most."""
    return RotationSizes.of(config, length, rotation_bytes()).total_bytes(config, length)


def least_bytes(config: MaskConfig) -> int:
    """Return the bytes that the smallest rotation takes for each weight."""
    return RotationSizes(models=MIN_MODELS, masked_models=MIN_MASKED_MODELS).total_bytes(config, 1)


@dataclass(frozen=True, slots=True)
class _ModelSet:
    """One model of the rotation: its weights, a mask, both masked and added to a zero total, and room for the result."""

    weights: kernels.Model
    mask: kernels.Packed
    reduced: kernels.Total
    result: kernels.Model


class Workload:
    """Models, masks and totals of one mask config and length, made from a fixed seed; each call works on the next ones.

    Args:
        config: mask config.
        length: number of weights.
        threads: how many a call uses, but that of fractions, which are written one after the other.
        wanted_bytes: how much data to rotate through; more than the caches hold if None.
    """

    def __init__(self, config: MaskConfig, length: int, threads: int = 1, wanted_bytes: int | None = None) -> None:
        self.config: Final = config
        self.length: Final = length
        self._threads = threads
        generator = np.random.default_rng(_RANDOM_SEED)
        self._encoding = encoding_of(config, to_exact_scalar(1))
        self.sizes: Final = RotationSizes.of(config, length, rotation_bytes() if wanted_bytes is None else wanted_bytes)
        seeds = [MaskSeed(generator.bytes(kernels.SEED_BYTES)) for _ in range(SEED_COUNT)]
        self._seeds = itertools.cycle(seeds)
        self._masked = itertools.cycle(random_elements(generator, config, self.sizes.masked_models, length))
        sets = self._make_sets(generator)
        self._sets = itertools.cycle(sets)
        self._current = sets[0]
        # A total is written again and again, as a coordinator's is, but it too is not in a cache when its turn comes.
        totals = np.zeros((self.sizes.models, kernels.plane_count(config.order), length), dtype=np.uint64)
        self._totals = itertools.cycle([_RunningTotal(total, config.order) for total in totals])

    def _make_sets(self, generator: np.random.Generator) -> list[_ModelSet]:
        count = self.sizes.models
        weights = _random_weights(generator, self.config, count * self.length).reshape(count, self.length)
        masks = random_elements(generator, self.config, count, self.length)
        totals = np.zeros((count, kernels.plane_count(self.config.order), self.length), dtype=np.uint64)
        results = np.zeros_like(weights)
        with fastest_backend():
            for model, mask, total in zip(weights, masks, totals, strict=True):
                kernels.aggregate(total, [kernels.mask_weights(model, mask, self._encoding)[0]], self.config.order)
        return [_ModelSet(*arrays) for arrays in zip(weights, masks, totals, results, strict=True)]

    @property
    def weights(self) -> kernels.Model:
        """The model that the last call worked on."""
        return self._current.weights

    def _next_set(self) -> _ModelSet:
        self._current = next(self._sets)
        return self._current

    def expand(self) -> kernels.Packed:
        """Draw the mask of the next seed."""
        return parallel.expand(next(self._seeds).to_bytes(), self.config.order, self.length, 0, self._threads)

    def update(self) -> kernels.Packed:
        """Mask the next model with the next seed."""
        weights = self._next_set().weights
        return parallel.update(weights, next(self._seeds).to_bytes(), 0, self._encoding, self._threads)[0]

    def mask_only(self) -> kernels.Packed:
        """Mask the next model with a mask that is there already, into the oldest masked model."""
        chosen = self._next_set()
        return kernels.mask_weights(chosen.weights, chosen.mask, self._encoding, out=next(self._masked))[0]

    def sum_masks(self) -> Any:
        """Add the masks of the next seeds."""
        seeds = list(itertools.islice(self._seeds, VECTOR_COUNT))
        return sum_masks(seeds, self.config, self.length, threads=self._threads)

    def aggregate(self, count: int) -> kernels.Total:
        """Add the next `count` masked models, all different, to the next running total."""
        total = next(self._totals)
        total.make_room(count)
        vectors = list(itertools.islice(self._masked, count))
        parallel.aggregate(total.values, vectors, self.config.order, self._threads)
        return total.values

    def unmask(self) -> kernels.Model:
        """Take the mask off the next total: the model as the data type of the config."""
        chosen, dtype = self._next_set(), self.config.data_type.dtype
        return parallel.unmask(chosen.reduced, chosen.mask, self._decoding(), dtype, self._threads, out=chosen.result)

    def encode_fractions(self) -> np.ndarray[Any, Any]:
        """Write the next model as exact fractions; returns the bytes written."""
        chosen = self._next_set()
        elements = kernels.unmask_elements(chosen.reduced, chosen.mask, self.config.order)
        output = np.empty(self.length * _fraction_bytes(self.config), dtype=np.uint8)
        written, _ = kernels.encode_fractions(output, elements, self._decoding())
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
                "reads",
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


class _RunningTotal:
    """A total, and a bound on the sum in it, as a multiple of the order."""

    def __init__(self, values: kernels.Total, order: int) -> None:
        self.values: Final = values
        self._order = order
        self._bound = 1

    def make_room(self, count: int) -> None:
        """Reduce the total if `count` more vectors might overflow it."""
        if self._bound + count > kernels.capacity(self._order):
            kernels.reduce(self.values, self._bound, self._order)
            self._bound = 1
        self._bound += count


@contextmanager
def fastest_backend() -> Iterator[None]:
    """Prepare with the best back-end of the machine, whichever is measured: the slow ones would take minutes."""
    before = kernels.active_backend()
    kernels.select_backend(kernels.available_backends()[0])
    try:
        yield
    finally:
        kernels.select_backend(before)


def _fraction_bytes(config: MaskConfig) -> int:
    """Return the bytes that one fraction takes at most."""
    return 2 * (config.element_bytes + 7) + _FRACTION_OVERHEAD_BYTES


def random_elements(generator: np.random.Generator, config: MaskConfig, count: int, length: int) -> kernels.Packed:
    """Return `count` vectors of elements below the order: random bytes, the top one below the top byte of the order.

    Drawing them from seeds would be exact and, with a wide config, take longer than all that is measured; additions and
    subtractions take the same time for every value.
    """
    elements = generator.integers(0, 256, (count, length, config.element_bytes), dtype=np.uint8)
    top = (config.order - 1) >> 8 * (config.element_bytes - 1)
    elements[:, :, -1] = generator.integers(0, max(top, 1), (count, length), dtype=np.uint8)
    return elements


def _random_weights(generator: np.random.Generator, config: MaskConfig, length: int) -> np.ndarray[Any, Any]:
    """Return weights over the whole range of a config; an unbounded one gets what the type can hold without overflow."""
    if config.data_type in (DataType.F32, DataType.F64):
        bound = 1e30 if config.bound_type is BoundType.BMAX else float(config.add_shift)
        return generator.uniform(-bound, bound, length).astype(config.data_type.dtype)
    highest = min(config.add_shift, np.iinfo(config.data_type.dtype).max)
    return generator.integers(-highest, highest, length, dtype=config.data_type.dtype, endpoint=True)
