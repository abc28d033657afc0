"""Kernels in several threads, with the result of one thread to the bit.

What works element by element is split into ranges; what draws is split by pet/parallel_draws.py. `threads` is always that of
pet/threads.py: None means as many as are free. Small vectors stay with the calling thread. Errors are those of one thread:
where one of several fails, the kernel is called once more as a whole and says what is wrong.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from pet import kernels
from pet.errors import AggregationError, ModelError, UnmaskError
from pet.parallel_draws import draw_together, threads_worth_drawing
from pet.threads import occupy, run_together

_Share = TypeVar("_Share")

#: Fewer elements than this for each thread take less time than waking another one.
ELEMENTS_WORTH_A_THREAD: Final = 1 << 18
#: Elements that threads sum together before they join their sums. At 16 bytes an element 1 MiB for each thread, which stays in
#: its cache and bounds what a sum needs beside its result; long enough that joining costs nothing beside the drawing.
_PIECE_LENGTH: Final = 1 << 16


# ---- drawing --------------------------------------------------------------------------------------------------------


def expand(seed: bytes, order: int, length: int, position: int, threads: SupportsIndex | None) -> kernels.Packed:
    """Draw as `kernels.expand` does."""
    with occupy(threads, threads_worth_drawing(order, length)) as count:
        if count == 1:
            return kernels.expand(seed, order, length, position)[0]
        elements = kernels.new_array((length, kernels.element_bytes(order)), np.uint8)

        def put(start: int, piece: kernels.Packed) -> None:
            elements[start : start + len(piece)] = piece

        draw_together(seed, order, length, position, count, put)
        return elements


def update(
    weights: kernels.Model, seed: bytes, position: int, encoding: kernels.Encoding, threads: SupportsIndex | None
) -> tuple[kernels.Packed, int]:
    """Mask weights as `kernels.update` does; returns the masked elements and how many weights the clamp changed.

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    length = len(weights)
    with occupy(threads, threads_worth_drawing(encoding.order, length)) as count:
        if count > 1:
            masked = kernels.new_array((length, kernels.element_bytes(encoding.order)), np.uint8)
            clipped_counts: list[int] = []

            def mask(start: int, piece: kernels.Packed) -> None:
                own = slice(start, start + len(piece))
                clipped_counts.append(kernels.mask_weights(weights[own], piece, encoding, out=masked[own])[1])

            try:
                draw_together(seed, encoding.order, length, position, count, mask)
                return masked, sum(clipped_counts)
            except ModelError:
                pass  # said again below, with the first index
        masked, _, clipped_count = kernels.update(weights, seed, position, encoding)
        return masked, clipped_count


def sum_masks(
    total: kernels.Total, seeds: bytes, positions: NDArray[np.uint64], order: int, threads: SupportsIndex | None
) -> None:
    """Add masks as `kernels.sum_masks` does, but leave the positions as they are.

    Each thread draws for as many seeds as every other. Seeds that are left over then are drawn by all threads together.
    """
    seed_count, length = len(positions), total.shape[1]
    with occupy(threads, threads_worth_drawing(order, length * seed_count)) as count:
        if count == 1:
            kernels.sum_masks(total, seeds, positions.copy(), order)
            return
        split = seed_count // count * count
        if split:
            _sum_by_seeds(total, seeds[: kernels.SEED_BYTES * split], positions[:split].copy(), order, count)
        for k in range(split, seed_count):
            seed = seeds[kernels.SEED_BYTES * k : kernels.SEED_BYTES * (k + 1)]

            def add(start: int, piece: kernels.Packed) -> None:
                kernels.aggregate(total[:, start : start + len(piece)], [piece], order)

            draw_together(seed, order, length, int(positions[k]), count, add)
            _run_in_ranges(lambda part: kernels.reduce(total[:, part], 2, order), length, count)


def sum_next(
    total: kernels.Total, seeds: bytes, positions: NDArray[np.uint64], order: int, threads: SupportsIndex | None
) -> None:
    """Add masks as `kernels.sum_masks` does and move the positions on, so that a vector can be drawn in pieces."""
    worth = threads_worth_drawing(order, total.shape[1] * len(positions))
    with occupy(threads, max(1, min(worth, len(positions)))) as count:
        if count == 1:
            kernels.sum_masks(total, seeds, positions, order)
        else:
            _sum_by_seeds(total, seeds, positions, order, count)


def _sum_by_seeds(total: kernels.Total, seeds: bytes, positions: NDArray[np.uint64], order: int, count: int) -> None:
    """Split the seeds among threads; each adds its part a piece of the vector at a time, so that partial sums stay small.

    The threads wait for each other only while one adds a finished piece, which is short beside drawing it. The positions
    move on.
    """
    bounds = [len(positions) * i // count for i in range(count + 1)]
    adding = threading.Lock()

    def add_share(own: slice) -> None:
        own_seeds = seeds[kernels.SEED_BYTES * own.start : kernels.SEED_BYTES * own.stop]
        sums = kernels.new_total(min(_PIECE_LENGTH, total.shape[1]), order)
        for start in range(0, total.shape[1], _PIECE_LENGTH):
            piece = total[:, start : start + _PIECE_LENGTH]
            partial = sums[:, : piece.shape[1]]
            partial.fill(0)
            kernels.sum_masks(partial, own_seeds, positions[own], order)
            packed = kernels.pack(partial, order)
            with adding:
                kernels.aggregate(piece, [packed], order)
                kernels.reduce(piece, 2, order)

    run_shares(add_share, list(map(slice, bounds, bounds[1:])), count)


# ---- element by element ---------------------------------------------------------------------------------------------


def find_invalid(elements: kernels.Packed, order: int, threads: SupportsIndex | None) -> int | None:
    """Look for an invalid element as `kernels.find_invalid` does."""
    found: list[int] = []

    def search(part: slice) -> None:
        index = kernels.find_invalid(elements[part], order)
        if index is not None:
            found.append(part.start + index)

    split(search, len(elements), threads)
    return min(found, default=None)


def aggregate(total: kernels.Total, vectors: Sequence[kernels.Packed], order: int, threads: SupportsIndex | None) -> None:
    """Add vectors as `kernels.aggregate` does.

    Raises:
        AggregationError: an element is not below the order (reason "invalid_object"); the total is as before.
    """
    if is_for_one(total.shape[1], threads):  # then the views below would take as long as the kernel
        kernels.aggregate(total, vectors, order)
        return
    added: list[slice] = []

    def add(part: slice) -> None:
        kernels.aggregate(total[:, part], [vector[part] for vector in vectors], order)
        added.append(part)

    try:
        split(add, total.shape[1], threads)
    except AggregationError:
        for part in added:
            _take_back(total[:, part], [vector[part] for vector in vectors], order)
        # An element of another range is invalid: a look at all of them finds which vector has the first.
        kernels.aggregate(total, vectors, order)


def _take_back(total: kernels.Total, vectors: Sequence[kernels.Packed], order: int) -> None:
    """Undo an addition that went well: rare, so in NumPy, and piece by piece."""
    for start in range(0, total.shape[1], _PIECE_LENGTH):
        piece = total[:, start : start + _PIECE_LENGTH]
        added = kernels.new_total(piece.shape[1], order)
        kernels.aggregate(added, [vector[start : start + _PIECE_LENGTH] for vector in vectors], order)
        borrow = np.zeros(piece.shape[1], dtype=np.uint64)
        for plane, subtrahend in zip(piece, added, strict=True):
            difference = plane - subtrahend
            result = difference - borrow
            borrow = ((plane < subtrahend) | (difference < borrow)).astype(np.uint64)
            plane[:] = result


def reduce(total: kernels.Total, bound: int, order: int, threads: SupportsIndex | None) -> None:
    """Reduce a total as `kernels.reduce` does."""
    split(lambda part: kernels.reduce(total[:, part], bound, order), total.shape[1], threads)


def unmask(
    total: kernels.Total,
    mask: kernels.Packed,
    decoding: kernels.Decoding,
    dtype: np.dtype[Any],
    threads: SupportsIndex | None,
    out: kernels.Model | None = None,
) -> kernels.Model:
    """Unmask as `kernels.unmask` does; on an error the model may hold some weights already.

    Raises:
        UnmaskError: a difference outside the bounds (reason "out_of_range").
    """
    model = kernels.new_array((total.shape[1],), dtype) if out is None else out

    def unmask_range(part: slice) -> None:
        kernels.unmask(total[:, part], mask[part], decoding, dtype, out=model[part])

    try:
        split(unmask_range, len(model), threads)
    except UnmaskError:
        kernels.unmask(total, mask, decoding, dtype, out=model)  # says which weight is the first, of the whole model
    return model


# ---- sharing out ----------------------------------------------------------------------------------------------------


def split(work: Callable[[slice], None], length: int, threads: SupportsIndex | None) -> None:
    """Call `work` on ranges that together are 0 to length: one for each thread that is asked for, free and worth it.

    An error of one of them is raised; ranges that were not begun by then are left out.
    """
    if is_for_one(length, threads):
        work(slice(0, length))  # to count the thread as busy would take longer
        return
    with occupy(threads, length // ELEMENTS_WORTH_A_THREAD) as count:
        _run_in_ranges(work, length, count)


def is_for_one(length: int, threads: SupportsIndex | None) -> bool:
    """Return whether a vector stays with the thread that has it: it is short, and nobody asked for a number of threads."""
    return length < 2 * ELEMENTS_WORTH_A_THREAD and threads is None and not os.environ.get("PET_THREADS")


def _run_in_ranges(work: Callable[[slice], None], length: int, count: int) -> None:
    bounds = [length * i // count for i in range(count + 1)]
    run_shares(work, list(map(slice, bounds, bounds[1:])), count)


def run_shares(work: Callable[[_Share], None], shares: Sequence[_Share], count: int) -> None:
    """Call `work` once for every share, in `thread_count` threads; an error ends it, but not what others have begun."""
    if count == 1:
        for share in shares:
            work(share)
        return
    waiting = list(reversed(shares))

    def take_shares() -> None:
        try:
            while True:
                try:
                    share = waiting.pop()  # atomic
                except IndexError:
                    return
                work(share)
        except BaseException:
            waiting.clear()
            raise

    run_together(take_shares, count)
