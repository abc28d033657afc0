"""What `pet bench` measures of pet-1: its kernels and whole calls for one mask config and length, each pass with other data.

Cases that do what one of xaynet's does have its name, so that both stand in one panel of the plot. The byte counts are those of
docs/spec/profile.md 3 and 4: a word of keystream for 32 bits of an element, or each byte that has to be read or written.

This file calls pet.kernels.fields and whole models; it neither times nor prints.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pet import kernels, parallel_fields
from pet.aggregation import Aggregation
from pet.commands.bench_kernels import Case, Limit
from pet.commands.bench_memory import rotation_bytes
from pet.commands.bench_workload import (
    MAX_SETS,
    SEED_COUNT,
    VECTOR_COUNT,
    Workload,
    fastest_backend,
    least_bytes,
    random_elements,
)
from pet.field_config import FieldConfig
from pet.kernels import fields
from pet.mask_choices import FieldValues
from pet.mask_config import MaskConfig
from pet.mask_object import Mask, MaskSeed, sum_masks
from pet.masking import mask_model

#: At least this number of models, and vectors: then two passes in a row share no data.
_MIN_SETS: Final = 2
_RANDOM_SEED: Final = 20_261_130


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRotation:
    """How many different vectors a workload holds.

    Attributes:
        models: models, with the aggregation and the mask of each.
        vectors: vectors that are added to, and to others.
    """

    models: int
    vectors: int

    @classmethod
    def of(cls, config: FieldConfig, length: int, wanted_bytes: int) -> FieldRotation:
        """Return the counts with which the kernels that read least rotate through `wanted_bytes`."""
        return cls(
            models=min(max(_MIN_SETS, -(-wanted_bytes // (length * config.dtype.itemsize))), MAX_SETS),
            vectors=min(max(_MIN_SETS, -(-wanted_bytes // (length * config.element_bytes))), MAX_SETS),
        )

    def total_bytes(self, config: FieldConfig, length: int) -> int:
        """Return the bytes that a workload takes at most, with what a call allocates for its result."""
        element, model = config.element_bytes, config.dtype.itemsize
        return length * (self.models * (model + 3 * element) + self.vectors * element + 2 * element + model)


class FieldWorkload:
    """Models, vectors and aggregations of one config of pet-1, made from a fixed seed; each call works on the next ones.

    Args:
        config: a config of pet-1.
        length: number of weights.
        threads: how many a call uses, but the inner product, which has one.
        wanted_bytes: how much data to rotate through; more than the caches hold if None.
    """

    def __init__(self, config: FieldConfig, length: int, threads: int = 1, wanted_bytes: int | None = None) -> None:
        self.config: Final = config
        self.length: Final = length
        self._threads = threads
        generator = np.random.default_rng(_RANDOM_SEED)
        sizes = FieldRotation.of(config, length, rotation_bytes() if wanted_bytes is None else wanted_bytes)
        self.sizes: Final = sizes
        seeds = [MaskSeed(generator.bytes(kernels.SEED_BYTES)) for _ in range(SEED_COUNT)]
        self._seeds = itertools.cycle(seeds)
        self._vectors = itertools.cycle(random_elements(generator, config, sizes.vectors, length))
        weights = _random_weights(generator, config, (sizes.models, length))
        self._weights = itertools.cycle(weights)
        with fastest_backend():
            sums = [_masked(model, config, seed) for model, seed in zip(weights, itertools.cycle(seeds), strict=False)]
        self._sums = itertools.cycle(sums)
        # What is encoded is what a total without its mask is: elements up to the largest level, for decoding.
        self._encoded = itertools.cycle([self._encode(model) for model in weights])

    def _encode(self, weights: kernels.Model, out: kernels.Packed | None = None) -> kernels.Packed:
        config = self.config
        if config.values is FieldValues.INT:
            return weights.view(np.uint8).reshape(-1, config.element_bytes)
        return fields.encode(weights, 1.0, config.bound, config.levels, config.order, out=out)[0]

    def _two_vectors(self) -> tuple[kernels.Packed, kernels.Packed]:
        return next(self._vectors), next(self._vectors)

    def expand(self) -> kernels.Packed:
        """Add the expansion of the next seed to the next vector."""
        vector: kernels.Packed = next(self._vectors)
        parallel_fields.expand_add(vector, 0, next(self._seeds).to_bytes(), self.config.order, self._threads)
        return vector

    def update(self) -> kernels.Packed:
        """Mask the next model with the next seed."""
        weights, seed = next(self._weights), next(self._seeds)
        return mask_model(weights, self.config, seed=seed, threads=self._threads)[1].vect

    def sum_masks(self) -> Mask:
        """Add the masks of the next seeds."""
        return sum_masks(list(itertools.islice(self._seeds, VECTOR_COUNT)), self.config, self.length, self._threads)

    def encode(self) -> kernels.Packed:
        """Encode the next model, into the next vector."""
        return self._encode(next(self._weights), out=next(self._vectors))

    def add(self) -> kernels.Packed:
        """Add the next vector to the one after it, which is checked meanwhile."""
        vector, total = self._two_vectors()
        parallel_fields.add(total, vector, self.config.order, self._threads)
        return total

    def decode(self) -> kernels.Model:
        """Decode the next total without its mask."""
        config, elements = self.config, next(self._encoded)
        return parallel_fields.decode(
            elements, config.bound, config.levels, config.levels, config.order, config.dtype, self._threads
        )

    def unmask(self) -> kernels.Model:
        """Take the mask off the next aggregation, and decode it."""
        total, mask = next(self._sums)
        return total.unmask(mask, threads=self._threads).to_array(threads=self._threads)

    def multiply_add(self) -> kernels.Packed:
        """Add the next vector, times a factor, to the one after it."""
        vector, total = self._two_vectors()
        parallel_fields.multiply_add(total, vector, self.config.order // 3, self.config.order, self._threads)
        return total

    def inner_product(self) -> int:
        """Multiply the next two vectors: what a fingerprint does with each answer."""
        return fields.dot(*self._two_vectors(), self.config.order)

    def cases(self) -> list[Case]:
        """Return every case, in the order of a round; integers are neither encoded nor decoded."""
        keystream = self.config.mean_keystream_bytes
        element, model = self.config.element_bytes, self.config.dtype.itemsize
        is_float = self.config.values is not FieldValues.INT
        return [
            self._case("expand", "keystream", keystream, self.expand),
            self._case("update", "keystream", keystream, self.update),
            self._case("mask sum", "keystream", keystream, self.sum_masks, vectors=VECTOR_COUNT),
            *([self._case("encode", "memory", model + element, self.encode, threads=1)] if is_float else []),
            self._case("aggregate 1", "memory", 3 * element, self.add),
            *([self._case("decode", "memory", element + model, self.decode)] if is_float else []),
            self._case("unmask", "memory", 2 * element + model, self.unmask),
            self._case("multiply-add", "memory", 3 * element, self.multiply_add),
            self._case("inner product", "reads", 2 * element, self.inner_product, threads=1),
        ]

    def _case(
        self, name: str, limit: Limit, limit_bytes: float, run: Any, *, vectors: int = 1, threads: int | None = None
    ) -> Case:
        count = self._threads if threads is None else threads
        return Case(name=name, limit=limit, limit_bytes=limit_bytes, units=self.length * vectors, threads=count, run=run)


def make_cases(config: MaskConfig, length: int, threads: int) -> list[Case]:
    """Return the cases of a config of either kind."""
    kind = FieldWorkload(config, length, threads) if isinstance(config, FieldConfig) else Workload(config, length, threads)
    return kind.cases()


def most_weights(config: MaskConfig, usable_bytes: int) -> int:
    """Return the number of weights above which even the smallest rotation of a config does not fit that memory."""
    if isinstance(config, FieldConfig):
        return usable_bytes // FieldRotation(models=_MIN_SETS, vectors=_MIN_SETS).total_bytes(config, 1)
    return usable_bytes // least_bytes(config)


def _masked(weights: kernels.Model, config: FieldConfig, seed: MaskSeed) -> tuple[Aggregation, Mask]:
    """Return an aggregation of one model, and its mask."""
    total = Aggregation(config, len(weights))
    total.add(mask_model(weights, config, seed=seed)[1])
    return total, seed.derive_mask(config, len(weights))


def _random_weights(generator: np.random.Generator, config: FieldConfig, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    if config.values is FieldValues.INT:
        return generator.integers(0, config.levels, shape, dtype=config.dtype, endpoint=True)
    return generator.uniform(-config.bound, config.bound, shape).astype(config.dtype)
