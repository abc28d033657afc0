"""Models of arrays of any dtype: a vector of weights and a vector of counts out of them, and back.

A model of today has bfloat16 matrices, float32 norms, an int64 counter and two names for one array. Floats are widened exactly
into one vector of weights; integers and booleans go into one of counts, which masks exactly with a config for integers. An
array that stands in several places is packed once. Unpacking gives every array its shape and dtype again, and every name its
tie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pet.array_tree import ArrayTree, Path, build, digest, show, walk
from pet.errors import ModelError

#: Floats that float32 holds exactly, by name: ml_dtypes' bfloat16 is not known to NumPy by itself.
_NARROW_FLOATS: Final = frozenset({"float16", "bfloat16", "float32"})

_Kind: TypeAlias = Literal["weights", "counts"]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One place of an array: which vector it is in and where, and what it was."""

    kind: _Kind
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    path: Path

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Packing:
    """Where each array of a model lies in its two vectors, and what it was.

    Attributes:
        weights_dtype: float32 or float64.
        weight_count: length of the vector of weights.
        counts_dtype: int64, or uint64 where every integer array is unsigned or boolean.
        count_count: length of the vector of counts.
        digest: keys, nesting, shapes, dtypes and ties in 16 hexadecimal digits. Participants whose digests agree pack alike:
            compare them before a round, since masked vectors of other layouts add up without an error.
    """

    weights_dtype: np.dtype[Any]
    weight_count: int
    counts_dtype: np.dtype[Any]
    count_count: int
    digest: str
    _tree: Any

    def unpack(self, weights: NDArray[Any] | None = None, counts: NDArray[Any] | None = None) -> Any:
        """Give vectors the structure that was packed.

        Args:
            weights: one dimension, `weight_count` floats, for example of a global model; None if there are none.
            counts: one dimension, `count_count` integers, or floats such as a mean's, which are rounded to the nearest (half to
                even); None if there are none.

        Returns:
            The containers as they were packed. Arrays are new, in C order, of their own dtypes: floats are rounded to theirs.
            Names that were tied get one array.

        Raises:
            ModelError: a vector of another length or kind, or masked; a value that an array's dtype does not hold.
        """
        vectors = {
            "weights": _validate_vector("weights", weights, self.weight_count, "f"),
            "counts": _validate_vector("counts", counts, self.count_count, "iuf"),
        }
        made: dict[tuple[_Kind, int], NDArray[Any]] = {}

        def make(leaf: _Leaf) -> NDArray[Any]:
            if leaf.start == leaf.stop:
                return np.empty(leaf.shape, leaf.dtype)
            array = made.get((leaf.kind, leaf.start))
            if array is None:
                part = vectors[leaf.kind][leaf.start : leaf.stop]
                narrow = _to_floats if leaf.kind == "weights" else _to_integers
                array = made[leaf.kind, leaf.start] = narrow(part, leaf).reshape(leaf.shape)
            return array

        return build(self._tree, make)


def pack(arrays: ArrayTree, *, dtype: DTypeLike | None = None) -> tuple[NDArray[Any], NDArray[Any], Packing]:
    """Pack the arrays of a model into a vector of weights and a vector of counts.

    Arrays with the same memory, shape, strides and dtype are tied: they are packed once, and stay one after unpacking.

    Args:
        arrays: an array, or dictionaries (with text as keys), lists and tuples of arrays, as for `pet.flatten`. Arrays are
            plain ones (`numpy.ndarray`) of float16, bfloat16 (of ml_dtypes), float32, float64, bool or integers.
        dtype: of the weights, "float32" or "float64"; None means float64 where an array has it, else float32. Only float32
            for arrays of float64 rounds them.

    Returns:
        Weights, widened exactly (unless `dtype` says otherwise), and counts, each a new vector of one dimension, empty if there
        is no such array; and what unpacks them.

    Raises:
        ModelError: something else, or another dtype; no array at all; integers beyond int64 beside signed ones; floats beyond
            float32 where that was asked for.
    """
    collecting = _Collecting()
    tree = walk(arrays, collecting.take)
    if not collecting.leaves:
        raise ModelError("arrays: expected at least one array, got none")
    weights_dtype = _weights_dtype(dtype, collecting.dtypes("weights"))
    counts_dtype = np.dtype(np.uint64 if _are_unsigned(collecting.dtypes("counts")) else np.int64)
    packing = Packing(
        weights_dtype=weights_dtype,
        weight_count=collecting.lengths["weights"],
        counts_dtype=counts_dtype,
        count_count=collecting.lengths["counts"],
        # The names of dtypes are the same on every machine. Ties show in where a leaf begins.
        digest=digest(tree, lambda leaf: (leaf.kind, leaf.start, leaf.shape, leaf.dtype.name), weights_dtype.name),
        _tree=tree,
    )
    return collecting.fill("weights", weights_dtype), collecting.fill("counts", counts_dtype), packing


class _Collecting:
    """What was found so far on the walk through a structure.

    Attributes:
        leaves: every array that is packed, with its place.
        lengths: how many elements each vector has.
    """

    def __init__(self) -> None:
        self.leaves: list[tuple[_Leaf, NDArray[Any]]] = []
        self.lengths: dict[_Kind, int] = {"weights": 0, "counts": 0}
        self._packed: dict[object, _Leaf] = {}

    def take(self, array: NDArray[Any], path: Path) -> _Leaf:
        """Take the next array.

        Raises:
            ModelError: it is of a dtype that cannot be packed.
        """
        kind = _kind_of(array.dtype)
        if kind is None:
            raise ModelError(
                f"array {show(path)}: expected float16, bfloat16, float32, float64, bool or integers, got {array.dtype}"
            )
        identity = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.name)
        # Arrays without elements share their address by accident.
        if array.size and (tied := self._packed.get(identity)) is not None:
            return tied
        leaf = self._packed[identity] = _Leaf(kind, self.lengths[kind], array.shape, array.dtype, path)
        self.lengths[kind] = leaf.stop
        self.leaves.append((leaf, array))
        return leaf

    def dtypes(self, kind: _Kind) -> set[np.dtype[Any]]:
        return {leaf.dtype for leaf, _ in self.leaves if leaf.kind == kind}

    def fill(self, kind: _Kind, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return one of the vectors.

        Raises:
            ModelError: an array has a value that the vector's dtype does not hold.
        """
        vector = np.empty(self.lengths[kind], dtype)
        for leaf, array in self.leaves:
            if leaf.kind == kind:
                if array.dtype == np.uint64 and dtype == np.int64 and array.size and array.max() > np.iinfo(np.int64).max:
                    raise ModelError(f"array {show(leaf.path)}: expected at most 2^63 - 1 beside signed integers, got more")
                part = vector[leaf.start : leaf.stop]
                with np.errstate(over="ignore"):
                    part[:] = array.reshape(-1)
                if array.dtype == np.float64 and dtype == np.float32 and np.isinf(part).any() and not np.isinf(array).any():
                    raise ModelError(f"array {show(leaf.path)}: expected weights within float32, got larger ones")
        return vector


def _kind_of(dtype: np.dtype[Any]) -> _Kind | None:
    """Return which vector an array of that dtype goes to; None if to none."""
    if dtype.name in _NARROW_FLOATS or dtype == np.float64:
        return "weights"
    return "counts" if dtype.kind in "biu" else None


def _weights_dtype(wanted: object, found: set[np.dtype[Any]]) -> np.dtype[Any]:
    if wanted is None:
        return np.dtype(np.float64 if np.dtype(np.float64) in found else np.float32)
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        if wanted in (dtype, dtype.type, dtype.name):
            return dtype
    raise ModelError(f"dtype: expected float32 or float64, got {wanted!r}")


def _are_unsigned(dtypes: set[np.dtype[Any]]) -> bool:
    return bool(dtypes) and all(dtype.kind in "bu" for dtype in dtypes)


def _validate_vector(name: str, vector: object, length: int, kinds: str) -> NDArray[Any]:
    """Return a vector as a plain array.

    Raises:
        ModelError: it is none of that length and kind.
    """
    if vector is None and length == 0:
        return np.empty(0)
    expected = "integers or floats" if "i" in kinds else "floats"
    if not isinstance(vector, np.ndarray) or vector.shape != (length,) or vector.dtype.kind not in kinds:
        got = f"{vector.dtype} of shape {vector.shape}" if isinstance(vector, np.ndarray) else type(vector).__name__
        raise ModelError(f"{name}: expected {expected} of shape ({length},), got {got}")
    if isinstance(vector, np.ma.MaskedArray):
        raise ModelError(f"{name}: expected an array in which every element counts, got a masked one")
    return np.asarray(vector)


def _to_floats(part: NDArray[Any], leaf: _Leaf) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        array = part.astype(leaf.dtype)
    if leaf.dtype.itemsize < part.dtype.itemsize and (np.isinf(array) & ~np.isinf(part)).any():
        raise ModelError(f"array {show(leaf.path)}: expected weights within {leaf.dtype}, got larger ones")
    return array


def _to_integers(part: NDArray[Any], leaf: _Leaf) -> NDArray[Any]:
    if part.dtype.kind == "f":
        if not np.isfinite(part).all():
            raise ModelError(f"array {show(leaf.path)}: expected finite counts, got others")
        part = np.rint(part)
    low, high = (0, 1) if leaf.dtype.kind == "b" else (int(np.iinfo(leaf.dtype).min), int(np.iinfo(leaf.dtype).max))
    # As integers of Python: a float has no 2^63 - 1, and would compare as if it were 2^63.
    if not low <= int(part.min()) <= int(part.max()) <= high:
        raise ModelError(f"array {show(leaf.path)}: expected counts within {leaf.dtype}, got others")
    return part.astype(leaf.dtype)
