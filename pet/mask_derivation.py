"""From mask seeds to the sum of their masks, whole or in pieces: the one place that knows how a config's masks are derived.

xaynet's masks are drawn in order, the unit first (docs/spec/pet.md 3.2), so what stands before a piece has to be drawn and
thrown away. Elements of pet-1 can each be computed alone, and the unit is the last (docs/spec/profile.md 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, SupportsIndex

import numpy as np

from pet import kernels, parallel, parallel_fields
from pet.field_config import FieldConfig
from pet.mask_config import MaskConfigPair

#: Elements that are drawn at a time where nobody wants them.
_SKIPPED_LENGTH: Final = 1 << 16


class SummedMasks:
    """The sum of the masks of some seeds, from which pieces can be taken, in order.

    Args:
        seeds: 32 bytes each.
        config: mask configs of vector and unit.
        length: number of weights.

    Attributes:
        unit: of the sum.
        positions: of xaynet's masks: 32-bit words of each seed's keystream that are used up.
    """

    def __init__(self, seeds: Sequence[bytes], config: MaskConfigPair, length: int) -> None:
        self._config = config
        self._seeds = b"".join(seeds)
        self._drawn_length = 0
        if isinstance(config.vect, FieldConfig):
            self.unit = _field_unit(self._seeds, config.vect, length)
            self.positions = np.empty(0, dtype=np.uint64)
            return
        drawn = [draw_unit(seed, config) for seed in seeds]
        self.unit = sum(unit for unit, _ in drawn) % config.unit.order
        self.positions = np.array([position for _, position in drawn], dtype=np.uint64)

    def take(self, piece: slice, threads: SupportsIndex | None) -> kernels.Packed:
        """Return the elements of a range, packed; it begins where the last one ended, or later."""
        order = self._config.vect.order
        if isinstance(self._config.vect, FieldConfig):
            vector = parallel_fields.new_vector(piece.stop - piece.start, order)
            parallel_fields.expand_add(vector, piece.start, self._seeds, order, threads)
            return vector
        while self._drawn_length < piece.start:
            self._draw(min(_SKIPPED_LENGTH, piece.start - self._drawn_length), threads)
        return kernels.pack(self._draw(piece.stop - piece.start, threads), order)

    def _draw(self, length: int, threads: SupportsIndex | None) -> kernels.Total:
        total = kernels.new_total(length, self._config.vect.order)
        parallel.sum_next(total, self._seeds, self.positions, self._config.vect.order, threads)
        self._drawn_length += length
        return total


def derive(
    seeds: Sequence[bytes], config: MaskConfigPair, length: int, threads: SupportsIndex | None
) -> tuple[kernels.Packed, int]:
    """Return vector and unit of the sum of the masks of some seeds; no single mask is stored."""
    order = config.vect.order
    if len(seeds) == 1 and not isinstance(config.vect, FieldConfig):
        unit, position = draw_unit(seeds[0], config)
        return parallel.expand(seeds[0], order, length, position, threads), unit
    masks = SummedMasks(seeds, config, length)
    if isinstance(config.vect, FieldConfig):
        return masks.take(slice(0, length), threads), masks.unit
    total = kernels.new_total(length, order)
    parallel.sum_masks(total, b"".join(seeds), masks.positions, order, threads)
    return kernels.pack(total, order), masks.unit


def draw_unit(seed: bytes, config: MaskConfigPair) -> tuple[int, int]:
    """Draw the unit of a mask of xaynet, which comes before its vector.

    Returns:
        The unit, and the position in the keystream after it.
    """
    drawn, position = kernels.expand(seed, config.unit.order, 1)
    return int.from_bytes(drawn.tobytes(), "little"), position


def _field_unit(seeds: bytes, config: FieldConfig, length: int) -> int:
    unit = parallel_fields.new_vector(1, config.order)
    parallel_fields.expand_add(unit, length, seeds, config.order, 1)
    return int.from_bytes(unit.tobytes(), "little")
