"""Models of arrays of one dtype: one vector out of dictionaries and lists of arrays, and back.

Frameworks keep a model as many arrays; the protocol masks one vector. What is flattened comes back exactly, or is refused:
the containers and their types, the keys and their order, the shape and the dtype of every array. This file knows arrays only,
nothing of masks. Models of several dtypes are packed (pet/packing.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet.array_tree import ArrayTree, Path, build, digest, show, walk
from pet.errors import ModelError


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One array: its place in the vector, and its shape."""

    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each array of a model lies in its vector.

    An array is known by the keys and indices that lead to it, each for itself; no name is made of them, so no two arrays can
    have the same one. Errors show them with slashes in between ("dense/kernel"), for people only.

    Attributes:
        dtype: dtype of all arrays and of the vector.
        length: number of weights in all.
        digest: keys, nesting, shapes and dtype in 16 hexadecimal digits: participants whose digests agree flatten alike. A
            list counts as a tuple here, and an `OrderedDict` as a dictionary.
    """

    dtype: np.dtype[Any]
    length: int
    digest: str
    _tree: Any

    def unflatten(self, vector: NDArray[Any], *, copy: bool = False) -> Any:
        """Give a vector the structure that was flattened.

        Args:
            vector: one dimension, `length` weights of any dtype; the arrays get the vector's dtype.
            copy: return copies; otherwise the arrays are views of the vector.

        Returns:
            The containers as they were flattened, keys in their original order, arrays in C order.

        Raises:
            ModelError: the vector is no array of that length, or hides some of its weights behind a mask.
        """
        if not isinstance(vector, np.ndarray) or vector.shape != (self.length,):
            got = f"shape {vector.shape}" if isinstance(vector, np.ndarray) else type(vector).__name__
            raise ModelError(f"vector: expected an array of shape ({self.length},), got {got}")
        if isinstance(vector, np.ma.MaskedArray):
            raise ModelError("vector: expected an array in which every weight counts, got a masked one")
        plain = np.asarray(vector)  # a memory-mapped file becomes ordinary views of the file

        def make(leaf: _Leaf) -> NDArray[Any]:
            part = plain[leaf.start : leaf.stop].reshape(leaf.shape)
            return part.copy() if copy else part

        return build(self._tree, make)


def flatten(arrays: ArrayTree) -> tuple[NDArray[Any], Layout]:
    """Join the arrays of a model into one vector.

    Dictionaries are taken in the order of their sorted keys, so that participants that fill theirs in another order get the
    same vector. An array that stands in two places is written twice, and comes back as two arrays.

    Args:
        arrays: an array, or `dict` and `OrderedDict` (with text as keys), lists, tuples and named tuples of arrays, nested at
            will, some of them empty. Arrays are plain `numpy.ndarray` of any shape and memory order, of one dtype: floats or
            signed integers in the machine's byte order.

    Returns:
        A new vector, and the layout that turns a vector back into the structure.

    Raises:
        ModelError: something else, among it subclasses of these types (`numpy.matrix`, masked arrays, `defaultdict`), which
            would not come back as what they were; dtypes that differ; no array at all.
    """
    flattening = _Flattening()
    tree = walk(arrays, flattening.take)
    if not flattening.arrays:
        raise ModelError("arrays: expected at least one array, got none")
    dtype = flattening.arrays[0].dtype
    vector = np.concatenate([array.reshape(-1) for array in flattening.arrays])
    # The name of a dtype is the same on every machine.
    described = digest(tree, lambda leaf: leaf.shape, dtype.name)
    return vector, Layout(dtype=dtype, length=flattening.length, digest=described, _tree=tree)


class _Flattening:
    """What was found so far on the walk through a structure.

    Attributes:
        arrays: every array, in the order of the vector.
        length: number of weights in them.
    """

    def __init__(self) -> None:
        self.arrays: list[NDArray[Any]] = []
        self.length = 0
        self._first_path: Path = ()

    def take(self, array: NDArray[Any], path: Path) -> _Leaf:
        """Take the next array.

        Raises:
            ModelError: it has no numbers that a config can mask, or another dtype than those before it.
        """
        if array.dtype.kind not in "fi":
            raise ModelError(f"array {show(path)}: expected floats or integers, got {array.dtype}")
        if not self.arrays:
            self._first_path = path
        elif array.dtype != self.arrays[0].dtype:
            raise ModelError(
                f"arrays: expected one dtype, got {self.arrays[0].dtype} in {show(self._first_path)}"
                f" and {array.dtype} in {show(path)}: pet.pack takes several"
            )
        leaf = _Leaf(self.length, array.shape)
        self.arrays.append(array)
        self.length = leaf.stop
        return leaf
