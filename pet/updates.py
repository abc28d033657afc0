"""What a participant does to its vector before it masks it: taking the difference, bounding its norm.

Vectors are those of `pet.pack` or `pet.flatten`. A difference from the last global model is smaller than the model, so that a
config with a smaller bound, and finer steps, does for it; and its norm is what limits how far one participant moves the mean.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet.errors import ModelError
from pet.numbers import shown_value


def delta(after: NDArray[Any], before: NDArray[Any]) -> NDArray[Any]:
    """Return what training changed: `after - before`, a new vector.

    Args:
        after: floats of one dimension.
        before: as many, of the same dtype.

    Raises:
        ModelError: other arrays, or a difference that is not finite.
    """
    for name, vector in (("after", after), ("before", before)):
        _validate(name, vector)
    if after.shape != before.shape or after.dtype != before.dtype:
        raise ModelError(
            f"before: expected {after.dtype} of shape {after.shape}, as after has, got {before.dtype} of shape {before.shape}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        change: NDArray[Any] = np.asarray(after) - np.asarray(before)
    if not np.isfinite(change).all():
        raise ModelError("delta: expected finite differences, got others: the model diverged")
    return change


def clip_norm(vector: NDArray[Any], bound: float) -> NDArray[Any]:
    """Return a vector with a Euclidean norm of at most `bound`: itself, or scaled down.

    Args:
        vector: floats of one dimension, finite.
        bound: 0 or more, finite.

    Returns:
        The vector itself if its norm is within the bound, else a new one with the same direction and dtype. The norm, computed
        in double precision, does not exceed the bound.

    Raises:
        ModelError: another vector, or another bound.
    """
    _validate("vector", vector)
    if not isinstance(bound, (int, float, np.integer, np.floating)) or not 0 <= bound < math.inf:
        raise ModelError(f"bound: expected a finite number of 0 or more, got {shown_value(bound)}")
    wide = np.asarray(vector, np.float64)
    largest = float(np.abs(wide).max(initial=0.0))
    if not math.isfinite(largest):
        raise ModelError("vector: expected finite weights, got others")
    if largest == 0 or _norm(wide, largest) <= bound:
        return vector
    clipped = wide * (bound / _norm(wide, largest))
    scaled = clipped.astype(vector.dtype)
    # Rounding may have made it longer, by a few parts in 2^24 or 2^53; numbers below the normal ones, by up to a half of it.
    shrink = float(np.finfo(vector.dtype).eps)
    while (top := float(np.abs(scaled).max())) and _norm(scaled.astype(np.float64), top) > bound:
        clipped *= 1 - shrink
        shrink = min(2 * shrink, 0.5)
        scaled = clipped.astype(vector.dtype)
    return scaled


def _norm(vector: NDArray[np.float64], largest: float) -> float:
    """Return the norm of a vector without overflow on the way; `largest` is that of its absolute values."""
    return largest * float(np.linalg.norm(vector / largest))


def _validate(name: str, vector: object) -> None:
    if isinstance(vector, np.ma.MaskedArray):
        raise ModelError(f"{name}: expected an array in which every element counts, got a masked one")
    if not isinstance(vector, np.ndarray) or vector.ndim != 1 or vector.dtype not in (np.float32, np.float64):
        got = f"{vector.dtype} of shape {vector.shape}" if isinstance(vector, np.ndarray) else type(vector).__name__
        raise ModelError(f"{name}: expected float32 or float64 of one dimension, got {got}")
