"""Masks, masked models and the seeds masks grow from (docs/spec/pet.md 3.2, 3.5 and 4.5).

A mask object is a packed vector and a unit (the masked scalar), each with its mask config (pet/packed_object.py). Nothing here
adds masked models or unmasks them; that is pet/aggregation.py. How masks are derived is for pet/mask_derivation.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Self, SupportsIndex

import nacl.bindings
import numpy as np
from numpy.typing import NDArray

from pet import kernels, parallel, parallel_fields
from pet.buffers import Buffer
from pet.errors import AggregationError, CryptoError, ModelError
from pet.field_config import FieldConfig
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_derivation import SummedMasks, derive
from pet.packed_object import MaskObject as MaskObject
from pet.packed_object import resolve_piece, validate_length

MASK_SEED_BYTES: Final = 32
#: Weights of a piece where the caller does not say: 4 MB of z32, enough for every thread of a large machine.
DEFAULT_PIECE_LENGTH: Final = 1 << 20


class MaskSeed:
    """32 secret bytes from which a mask is derived. Shown by nobody: `repr` hides it, equality takes constant time.

    Raises:
        CryptoError: not 32 bytes.
    """

    __slots__ = ("_seed",)

    def __init__(self, seed: Buffer) -> None:
        if len(_require_bytes(seed)) != MASK_SEED_BYTES:
            raise CryptoError(f"mask seed: expected {MASK_SEED_BYTES} bytes, got {len(seed)}")
        self._seed = bytes(seed)

    @classmethod
    def generate(cls) -> Self:
        """Return a seed from the operating system's randomness."""
        return cls(os.urandom(MASK_SEED_BYTES))

    def to_bytes(self) -> bytes:
        """Return the secret itself, for encryption to a sum participant."""
        return self._seed

    def derive_mask(
        self,
        config: MaskConfig | MaskConfigPair,
        length: int,
        *,
        piece: slice | None = None,
        threads: SupportsIndex | None = None,
    ) -> Mask:
        """Derive the mask of a model (docs/spec/pet.md 3.2; docs/spec/profile.md 3).

        Args:
            config: mask config, or a pair.
            length: number of weights.
            piece: which of them; None means all. Equal to the same slice of the whole mask; with a config of pet-1 nothing
                else is computed.
            threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle. The result is the
                same for any number.

        Raises:
            ModelError: no length, or no piece of it.
            ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
        """
        return sum_masks([self], config, length, threads, piece=piece)

    def __getstate__(self) -> object:
        # Without this, pickle's protocols 0 and 1 refuse classes with slots.
        return super().__getstate__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MaskSeed) and nacl.bindings.sodium_memcmp(self._seed, other._seed)

    def __hash__(self) -> int:
        return hash(self._seed)

    def __repr__(self) -> str:
        return "MaskSeed(<hidden>)"


class Mask(MaskObject):
    """What hides a masked model, or the sum of several: secret until the sum is published to the coordinator."""

    __slots__ = ()

    def __add__(self, other: Mask) -> Mask:
        """Return the sum of two masks: what hides the sum of what they hide.

        Raises:
            AggregationError: another config or length (reasons "model_mismatch", "scalar_mismatch"), or an invalid element
                (reason "invalid_object").
        """
        if not isinstance(other, Mask):
            return NotImplemented
        if self.config.vect != other.config.vect or len(self) != len(other):
            expected, got = f"{self.config.vect} of {len(self)} weights", f"{other.config.vect} of {len(other)}"
            raise AggregationError("model_mismatch", f"mask: expected {expected}, got {got}")
        if self.config.unit != other.config.unit:
            raise AggregationError("scalar_mismatch", f"mask: expected {self.config.unit}, got {other.config.unit}")
        self.validate()
        other.validate()
        order = self.config.vect.order
        if isinstance(self.config.vect, FieldConfig):
            vect = self.vect.copy()
            parallel_fields.add(vect, other.vect, order, None)
        else:
            total = kernels.new_total(len(self), order)
            parallel.aggregate(total, [self.vect, other.vect], order, None)
            parallel.reduce(total, 2, order, None)
            vect = kernels.pack(total, order)
        counts = self.seed_count, other.seed_count
        seed_count = None if counts[0] is None or counts[1] is None else counts[0] + counts[1]
        return Mask(self.config, vect, (self.unit + other.unit) % self.config.unit.order, seed_count)


class MaskedModel(MaskObject):
    """A masked model, or the sum of several: says nothing about a model without its mask.

    Attributes:
        clipped_count: how many weights (and the scalar, if it was) were clamped to the bound when it was made; None for one
            that came from bytes.
    """

    __slots__ = ("clipped_count",)

    def __init__(
        self,
        config: MaskConfig | MaskConfigPair,
        vect: NDArray[np.uint8],
        unit: int,
        clipped_count: int | None = None,
        seed_count: int | None = None,
    ) -> None:
        super().__init__(config, vect, unit, seed_count)
        self.clipped_count = clipped_count


def sum_masks(
    seeds: Iterable[MaskSeed],
    config: MaskConfig | MaskConfigPair,
    length: int,
    threads: SupportsIndex | None = None,
    *,
    piece: slice | None = None,
) -> Mask:
    """Derive the masks of all seeds and add them; no single mask is ever stored (spec 3.2 and 3.6).

    Args:
        seeds: mask seeds; for a config of xaynet, at most as many as its max_model_count. None at all gives a mask of zeros.
        config: mask config, or a pair.
        length: number of weights.
        threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle. The result is the same
            for any number.
        piece: which weights; None means all. With a config of pet-1 nothing else is computed, with one of xaynet what
            stands before them.

    Raises:
        AggregationError: more seeds than the config allows models (reasons "too_many_models", "too_many_scalars").
        ModelError: something else than mask seeds, or no length, or no piece of it.
        ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
    """
    pair, raw = _prepare(seeds, config, length)
    if piece is None:
        return Mask(pair, *derive(raw, pair, length, threads), len(raw))
    own = resolve_piece(piece, length)
    masks = SummedMasks(raw, pair, length)
    return Mask(pair, masks.take(own, threads), masks.unit, len(raw))


def iter_sum_masks(
    seeds: Iterable[MaskSeed],
    config: MaskConfig | MaskConfigPair,
    length: int,
    *,
    piece_length: int = DEFAULT_PIECE_LENGTH,
    threads: SupportsIndex | None = None,
) -> Iterator[Mask]:
    """Yield the sum of the masks of all seeds in pieces, never whole in memory: `mask[0:piece_length]` and so on.

    Each piece unmasks the same piece of an aggregation, `aggregation[a:b].unmask(piece)`, or an aggregation of `b - a` weights.

    Args:
        seeds: as `sum_masks`.
        config: as `sum_masks`.
        length: number of weights of the whole.
        piece_length: number of weights of a piece; the last may have fewer.
        threads: as `sum_masks`.

    Raises:
        AggregationError: as `sum_masks`, before the first piece.
        ModelError: as `sum_masks`, and a piece of no whole number of 1 or more.
        ConfigError: as `sum_masks`.
    """
    pair, raw = _prepare(seeds, config, length)
    validate_length(piece_length, "piece_length")
    if piece_length < 1:
        raise ModelError(f"piece_length: expected 1 or more, got {piece_length}")
    masks = SummedMasks(raw, pair, length)

    def pieces() -> Iterator[Mask]:
        for start in range(0, length, piece_length):
            vect = masks.take(slice(start, min(start + piece_length, length)), threads)
            yield Mask(pair, vect, masks.unit, len(raw))

    return pieces()


def _prepare(
    seeds: Iterable[MaskSeed], config: MaskConfig | MaskConfigPair, length: int
) -> tuple[MaskConfigPair, Sequence[bytes]]:
    pair = MaskConfigPair.of(config)
    seeds = validate_seeds(seeds)
    validate_length(length)
    if not isinstance(pair.vect, FieldConfig):
        validate_count(pair, len(seeds))
    return pair, [seed.to_bytes() for seed in seeds]


def _require_bytes(seed: Any) -> Buffer:
    if isinstance(seed, (bytes, bytearray, memoryview)):
        return seed
    raise CryptoError(f"mask seed: expected {MASK_SEED_BYTES} bytes, got {type(seed).__name__}")


def validate_seeds(seeds: Any) -> list[MaskSeed]:
    """Return seeds of any iterable as a list.

    Raises:
        ModelError: not several, or one is something else than a mask seed.
    """
    if not isinstance(seeds, Iterable):
        raise ModelError(f"seeds: expected several MaskSeed objects, got {type(seeds).__name__}")
    listed = list(seeds)
    for seed in listed:
        if not isinstance(seed, MaskSeed):
            raise ModelError(f"seeds: expected MaskSeed objects, got {type(seed).__name__}")
    return listed


def validate_count(config: MaskConfigPair, model_count: int) -> None:
    """Check that this number of models may be added under a config (spec 3.6, rows 4 and 5).

    Raises:
        AggregationError: reasons "too_many_models" and "too_many_scalars".
    """
    for reason, part in (("too_many_models", config.vect), ("too_many_scalars", config.unit)):
        if model_count > part.max_model_count:
            raise AggregationError(reason, f"{part} allows {part.max_model_count} models, got {model_count}")
