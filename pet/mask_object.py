"""Masks, masked models and the seeds masks grow from (docs/spec/pet.md 3.2, 3.5 and 4.5).

A mask object is a packed vector and a unit (the masked scalar), each with its mask config. Nothing here adds masked models
or unmasks them; that is pet/aggregation.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final, Self, SupportsIndex

import nacl.bindings
import numpy as np
from numpy.typing import NDArray

from pet import kernels, parallel
from pet.buffers import Buffer
from pet.errors import AggregationError, CryptoError, ModelError, RemoteProtocolError
from pet.mask_codec import decode_mask_object, encode_mask_object, mask_object_bytes
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.numbers import shown_value

MASK_SEED_BYTES: Final = 32
#: Round parameters carry the length of models in 32 bits.
MAX_LENGTH: Final = 2**32 - 1


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

    def derive_mask(self, config: MaskConfig | MaskConfigPair, length: int, *, threads: SupportsIndex | None = None) -> Mask:
        """Derive the mask of a model: the unit is drawn first, then the vector (spec 3.2).

        Args:
            config: mask config, or a pair.
            length: number of weights.
            threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle. The result is the
                same for any number.

        Raises:
            ModelError: no length.
            ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
        """
        pair = MaskConfigPair.of(config)
        validate_length(length)
        unit, position = draw_unit(self, pair)
        return Mask(pair, parallel.expand(self._seed, pair.vect.order, length, position, threads), unit)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MaskSeed) and nacl.bindings.sodium_memcmp(self._seed, other._seed)

    def __hash__(self) -> int:
        return hash(self._seed)

    def __repr__(self) -> str:
        return "MaskSeed(<hidden>)"


class MaskObject:
    """A packed vector and a unit, each with its mask config: what masks and masked models have in common (spec 3.5).

    Attributes:
        config: the mask configs of vector and unit.
        vect: packed elements, uint8 of shape (length, config.vect.element_bytes). May be a read-only view of a message.
        unit: an integer; below the order of config.unit if the object is valid.
    """

    __slots__ = ("config", "unit", "vect")

    def __init__(self, config: MaskConfig | MaskConfigPair, vect: NDArray[np.uint8], unit: int) -> None:
        self.config = MaskConfigPair.of(config)
        expected_bytes = self.config.vect.element_bytes
        if vect.dtype != np.uint8 or vect.ndim != 2 or vect.shape[1] != expected_bytes or not vect.flags.c_contiguous:
            raise ModelError(
                f"vect: expected contiguous uint8 of shape (length, {expected_bytes}), got {vect.dtype} of shape {vect.shape}"
            )
        if not 0 <= unit < 256**self.config.unit.element_bytes:
            raise ModelError(
                f"unit: expected {self.config.unit.element_bytes} bytes without sign, got {unit.bit_length()} bits"
            )
        self.vect = vect
        self.unit = unit

    def __len__(self) -> int:
        return len(self.vect)

    @property
    def size_bytes(self) -> int:
        """Size of `to_bytes()`."""
        return mask_object_bytes(self.config, len(self))

    def to_parts(self) -> list[Buffer]:
        """Return the bytes of `to_bytes()` as buffers in order; the vector is not copied."""
        return encode_mask_object(self.config, self.vect, self.unit)

    def to_bytes(self) -> bytes:
        """Serialise as a mask object of the protocol (spec 4.5)."""
        return b"".join(self.to_parts())

    @classmethod
    def decode_prefix(cls, data: Buffer) -> tuple[Self, int]:
        """Read the object at the start of a buffer; its vector is a view of the buffer, which must outlive it.

        Elements are not compared with the order (see `validate`).

        Returns:
            The object, and how many bytes it takes.

        Raises:
            RemoteProtocolError: reasons "malformed_mask_object" and "malformed_mask_config".
        """
        config, vect, unit, used = decode_mask_object(data)
        return cls(config, vect, unit), used

    @classmethod
    def from_bytes(cls, data: Buffer) -> Self:
        """Read a buffer that holds one object and nothing else; otherwise as `decode_prefix`.

        Raises:
            RemoteProtocolError: besides those of `decode_prefix`, left-over bytes (reason "trailing_bytes").
        """
        decoded, used = cls.decode_prefix(data)
        if used != len(data):
            raise RemoteProtocolError("trailing_bytes", f"mask object: expected {used} bytes, got {len(data)}")
        return decoded

    def validate(self, *, threads: SupportsIndex | None = None) -> None:
        """Check that every element and the unit are below their orders (spec 3.5): one pass over the vector.

        Args:
            threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle.

        Raises:
            AggregationError: one is not (reason "invalid_object").
        """
        self.validate_unit()
        index = parallel.find_invalid(self.vect, self.config.vect.order, threads)
        if index is not None:
            raise AggregationError("invalid_object", f"element {index} is not below the order of {self.config.vect}")

    def validate_unit(self) -> None:
        """Check that the unit is below its order.

        Raises:
            AggregationError: it is not (reason "invalid_object").
        """
        if self.unit >= self.config.unit.order:
            raise AggregationError("invalid_object", f"the unit is not below the order of {self.config.unit}")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MaskObject)
            and type(self) is type(other)
            and self.config == other.config
            and self.unit == other.unit
            and np.array_equal(self.vect, other.vect)
        )

    __hash__ = None  # type: ignore[assignment]  # compared by content that may be large: not for dictionaries

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config.vect}, length={len(self)})"


class Mask(MaskObject):
    """What hides a masked model, or the sum of several: secret until the sum is published to the coordinator."""

    __slots__ = ()


class MaskedModel(MaskObject):
    """A masked model, or the sum of several: says nothing about a model without its mask.

    Attributes:
        clipped_count: how many weights (and the scalar, if it was) were clamped to the bound when it was made; None for one
            that came from bytes.
    """

    __slots__ = ("clipped_count",)

    def __init__(
        self, config: MaskConfig | MaskConfigPair, vect: NDArray[np.uint8], unit: int, clipped_count: int | None = None
    ) -> None:
        super().__init__(config, vect, unit)
        self.clipped_count = clipped_count


def draw_unit(seed: MaskSeed, config: MaskConfigPair) -> tuple[int, int]:
    """Draw the unit of a mask, which comes before its vector.

    Returns:
        The unit, and the position in the keystream after it.
    """
    drawn, position = kernels.expand(seed.to_bytes(), config.unit.order, 1)
    return int.from_bytes(drawn.tobytes(), "little"), position


def sum_masks(
    seeds: Iterable[MaskSeed], config: MaskConfig | MaskConfigPair, length: int, threads: SupportsIndex | None = None
) -> Mask:
    """Derive the masks of all seeds and add them; no single mask is ever stored (spec 3.2 and 3.6).

    Args:
        seeds: mask seeds; at most as many as the config's max_model_count. None at all gives a mask of zeros.
        config: mask config, or a pair.
        length: number of weights.
        threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle. The result is the same
            for any number.

    Raises:
        AggregationError: more seeds than the config allows models (reasons "too_many_models", "too_many_scalars").
        ModelError: something else than mask seeds, or no length.
        ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
    """
    pair = MaskConfigPair.of(config)
    seeds = list(seeds)
    _validate_seeds(seeds)
    validate_length(length)
    validate_count(pair, len(seeds))
    units_and_positions = [draw_unit(seed, pair) for seed in seeds]
    unit = sum(unit for unit, _ in units_and_positions) % pair.unit.order
    positions = np.array([position for _, position in units_and_positions], dtype=np.uint64)
    joined = b"".join(seed.to_bytes() for seed in seeds)
    order = pair.vect.order
    total = kernels.new_total(length, order)
    parallel.sum_masks(total, joined, positions, order, threads)
    return Mask(pair, kernels.pack(total, order), unit)


def _require_bytes(seed: Any) -> Buffer:
    if isinstance(seed, (bytes, bytearray, memoryview)):
        return seed
    raise CryptoError(f"mask seed: expected {MASK_SEED_BYTES} bytes, got {type(seed).__name__}")


def _validate_seeds(seeds: list[Any]) -> None:
    for seed in seeds:
        if not isinstance(seed, MaskSeed):
            raise ModelError(f"seeds: expected MaskSeed objects, got {type(seed).__name__}")


def validate_length(length: object) -> None:
    """Check a number of weights.

    Raises:
        ModelError: not an integer of 0 or more, or more than round parameters can announce.
    """
    is_whole = isinstance(length, (int, np.integer)) and not isinstance(length, bool)
    if not is_whole or not 0 <= length <= MAX_LENGTH:  # type: ignore[operator]
        raise ModelError(f"length: expected a whole number of 0 or more and at most {MAX_LENGTH}, got {shown_value(length)}")


def validate_count(config: MaskConfigPair, model_count: int) -> None:
    """Check that this number of models may be added under a config (spec 3.6, rows 4 and 5).

    Raises:
        AggregationError: reasons "too_many_models" and "too_many_scalars".
    """
    for reason, part in (("too_many_models", config.vect), ("too_many_scalars", config.unit)):
        if model_count > part.max_model_count:
            raise AggregationError(reason, f"{part} allows {part.max_model_count} models, got {model_count}")
