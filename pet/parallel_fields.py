"""The kernels of pet-1 in several threads, with the result of one thread to the bit.

Every element of an expansion can be computed alone, so all of them are split by ranges of the vector, which begin where a batch
of keystream does. `threads` is always that of pet/threads.py. Errors are those of one thread.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any, Final, SupportsIndex

import numpy as np

from pet import kernels, parallel
from pet.errors import AggregationError, ModelError, UnmaskError
from pet.kernels import fields
from pet.threads import occupy

#: Elements of a batch of keystream; those of 8 bytes have half as many.
_BATCH_LENGTH: Final = 256
#: Elements that are encoded and masked, or drawn and multiplied, while they stay in the second-level cache. In pieces of 2^14
#: a third of the time went into calls, and two threads, which wait for each other there, were slower than one.
_PIECE_LENGTH: Final = 1 << 17


def new_vector(length: int, order: int) -> kernels.Packed:
    """Return a vector of zeros."""
    return kernels.new_array((length, fields.element_bytes(order)), np.uint8, is_zeroed=True)


def expand_add(
    vector: kernels.Packed, first: int, keys: bytes, order: int, threads: SupportsIndex | None, factor: int = 1
) -> None:
    """Add expansions as `fields.expand_add` does."""
    key_count = len(keys) // fields.KEY_BYTES

    def add(part: slice) -> None:
        fields.expand_add(vector[part], first + part.start, keys, order, factor)

    _split_draws(add, len(vector), key_count, threads, first)


def mask(
    weights: kernels.Model,
    keys: bytes,
    scalar: float,
    bound: float,
    levels: int,
    order: int,
    threads: SupportsIndex | None,
    out: kernels.Packed | None = None,
) -> tuple[kernels.Packed, int]:
    """Encode weights and add the expansions of all keys from element 0 on; return the vector and how many were clipped.

    The vector is made in `out`, or in an array of its own.

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    vector = kernels.new_array((len(weights), fields.element_bytes(order)), np.uint8) if out is None else out
    clipped_counts: list[int] = []

    def mask_range(part: slice) -> None:
        for start in range(part.start, part.stop, _PIECE_LENGTH):
            piece = slice(start, min(start + _PIECE_LENGTH, part.stop))
            clipped_counts.append(fields.encode(weights[piece], scalar, bound, levels, order, out=vector[piece])[1])
            fields.expand_add(vector[piece], start, keys, order)

    try:
        _split_draws(mask_range, len(weights), 1 + len(keys) // fields.KEY_BYTES, threads)
    except ModelError:
        fields.encode(weights, scalar, bound, levels, order, out=vector)  # says which weight is the first, of the whole model
        raise
    return vector, sum(clipped_counts)


def add(total: kernels.Packed, vector: kernels.Packed, order: int, threads: SupportsIndex | None) -> None:
    """Add a vector as `fields.add` does: an invalid element leaves the total as it was."""
    _change(fields.add, fields.subtract, total, vector, order, threads)


def subtract(total: kernels.Packed, vector: kernels.Packed, order: int, threads: SupportsIndex | None) -> None:
    """Subtract a vector as `fields.subtract` does: an invalid element leaves the total as it was."""
    _change(fields.subtract, fields.add, total, vector, order, threads)


_Change = Callable[[kernels.Packed, kernels.Packed, int], None]


def _change(
    change: _Change, undo: _Change, total: kernels.Packed, vector: kernels.Packed, order: int, threads: SupportsIndex | None
) -> None:
    changed: list[slice] = []

    def change_range(part: slice) -> None:
        change(total[part], vector[part], order)
        changed.append(part)

    try:
        parallel.split(change_range, len(total), threads)
    except AggregationError:
        for part in changed:
            undo(total[part], vector[part], order)
        change(total, vector, order)  # says which element is the first, of the whole vector
        raise


def multiply_add(total: kernels.Packed, vector: kernels.Packed, factor: int, order: int, threads: SupportsIndex | None) -> None:
    """Add a multiple as `fields.multiply_add` does."""
    parallel.split(lambda part: fields.multiply_add(total[part], vector[part], factor, order), len(total), threads)


def find_above(elements: kernels.Packed, highest: int, order: int, threads: SupportsIndex | None) -> int | None:
    """Look for an element as `fields.find_above` does."""
    found: list[int] = []

    def search(part: slice) -> None:
        index = fields.find_above(elements[part], highest, order)
        if index is not None:
            found.append(part.start + index)

    parallel.split(search, len(elements), threads)
    return min(found, default=None)


def decode(
    elements: kernels.Packed,
    bound: float,
    highest: int,
    unit: int,
    order: int,
    dtype: np.dtype[Any],
    threads: SupportsIndex | None,
) -> kernels.Model:
    """Decode a total as `fields.decode` does.

    Raises:
        UnmaskError: an element above `highest` (reason "out_of_range").
    """
    model = kernels.new_array((len(elements),), dtype)

    def decode_range(part: slice) -> None:
        fields.decode(elements[part], bound, highest, unit, order, dtype, out=model[part])

    try:
        parallel.split(decode_range, len(elements), threads)
    except UnmaskError:
        fields.decode(elements, bound, highest, unit, order, dtype, out=model)  # says which is the first, of the whole total
        raise
    return model


def fingerprints(
    vectors: list[kernels.Packed], first: int, keys: list[bytes], order: int, threads: SupportsIndex | None
) -> list[list[int]]:
    """Return the inner product of each vector with elements `first` and following of the expansion of each key."""
    length = len(vectors[0]) if vectors else 0
    sums = [[0] * len(keys) for _ in vectors]
    adding = threading.Lock()

    def add_range(part: slice) -> None:
        own = [[0] * len(keys) for _ in vectors]
        for start in range(part.start, part.stop, _PIECE_LENGTH):
            piece = slice(start, min(start + _PIECE_LENGTH, part.stop))
            for k, key in enumerate(keys):
                random = new_vector(piece.stop - start, order)
                fields.expand_add(random, first + start, key, order)
                for row, vector in zip(own, vectors, strict=True):
                    row[k] += fields.dot(random, vector[piece], order)
        with adding:
            for row, more in zip(sums, own, strict=True):
                row[:] = [(a + b) % order for a, b in zip(row, more, strict=True)]

    _split_draws(add_range, length, len(keys) * (1 + len(vectors)), threads, first)
    return sums


def _split_draws(work: Callable[[slice], None], length: int, draws: int, threads: SupportsIndex | None, first: int = 0) -> None:
    """Call `work` on ranges that together are 0 to length, one for each thread that is worth it.

    Args:
        work: takes a range.
        length: elements of the vector.
        draws: how many passes over a range the work takes.
        threads: as everywhere.
        first: element of the expansion that index 0 stands for: ranges begin with a batch of it, so that none is drawn twice.
    """
    with occupy(threads, length * draws // parallel.ELEMENTS_WORTH_A_THREAD) as count:
        inner = [(first + length * i // count) // _BATCH_LENGTH * _BATCH_LENGTH - first for i in range(1, count)]
        bounds = [0, *(max(0, bound) for bound in inner), length]
        parallel.run_shares(work, [slice(a, b) for a, b in itertools.pairwise(bounds) if a < b], count)
