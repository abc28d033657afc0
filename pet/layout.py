"""Models of named arrays: one vector out of dictionaries and lists of arrays, and back.

Frameworks keep a model as many arrays; the protocol masks one vector. What is flattened comes back exactly, or is refused:
the containers and their types, the keys and their order, the shape and the dtype of every array. This file knows arrays only,
nothing of masks.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pet.errors import ModelError

#: What can be flattened: an array, or a dictionary, list or tuple of such.
ArrayTree: TypeAlias = "NDArray[Any] | Mapping[str, ArrayTree] | list[ArrayTree] | tuple[ArrayTree, ...]"

#: Deeper nesting than this is taken for a structure that contains itself.
_MAX_DEPTH: Final = 64
#: Characters of an array's name, or of a key that is no text, in an error.
_MAX_SHOWN: Final = 80

#: Where an array lies in its structure: keys and indices from the outside in. Never joined to one text outside of errors,
#: because {"a/b": x} and {"a": {"b": x}} are different structures, as are {"": {"w": x}} and {"w": x}.
_Path: TypeAlias = tuple[str, ...]


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

        def build(node: Any) -> Any:
            if isinstance(node, _Leaf):
                part = plain[node.start : node.stop].reshape(node.shape)
                return part.copy() if copy else part
            if isinstance(node, Mapping):
                return _rebuild(node, {key: build(child) for key, child in node.items()})
            return _rebuild(node, [build(child) for child in node])

        return build(self._tree)


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
    import hashlib  # here, because loading OpenSSL takes a fifth of the time that importing pet may take

    flattening = _Flattening()
    tree = flattening.take(arrays, ())
    if not flattening.arrays:
        raise ModelError("arrays: expected at least one array, got none")
    dtype = flattening.arrays[0].dtype
    # The name of a dtype is the same on every machine; `ascii` does not depend on the Unicode tables of a Python version.
    description = ascii((dtype.name, _describe(tree)))
    digest = hashlib.sha256(description.encode()).hexdigest()[:16]
    vector = np.concatenate([array.reshape(-1) for array in flattening.arrays])
    return vector, Layout(dtype=dtype, length=flattening.length, digest=digest, _tree=tree)


class _Flattening:
    """What was found so far on the walk through a structure.

    Attributes:
        arrays: every array, in the order of the vector.
        length: number of weights in them.
    """

    def __init__(self) -> None:
        self.arrays: list[NDArray[Any]] = []
        self.length = 0
        self._first_path: _Path = ()

    def take(self, node: Any, path: _Path) -> Any:
        """Walk through a part of the structure; returns the same part with a leaf in place of each array.

        Raises:
            ModelError: it holds something that would not come back as it is.
        """
        if len(path) > _MAX_DEPTH:
            raise ModelError(f"arrays: expected at most {_MAX_DEPTH} levels, got more at {_show(path)}")
        if isinstance(node, np.ndarray):
            return self._take_array(node, path)
        if type(node) in (dict, OrderedDict):
            children = {key: self.take(node[key], (*path, key)) for key in _sorted_keys(node, path)}
            return _rebuild(node, {key: children[key] for key in node})
        if type(node) in (list, tuple) or _is_named_tuple(node):
            return _rebuild(node, [self.take(child, (*path, str(index))) for index, child in enumerate(node)])
        hint = ""
        if isinstance(node, Mapping):
            hint = ": convert it with dict(...)"
        elif isinstance(node, (list, tuple)):
            hint = ": convert it with list(...)"
        raise ModelError(f"{_show(path)}: expected an array, a dictionary or a list, got {type(node).__name__}{hint}")

    def _take_array(self, array: NDArray[Any], path: _Path) -> _Leaf:
        if type(array) is not np.ndarray:
            raise ModelError(
                f"array {_show(path)}: expected a plain numpy.ndarray, got {type(array).__name__}: convert it first,"
                " for example with numpy.asarray (of a masked array, decide what stands for masked weights)"
            )
        if array.dtype.kind not in "fi":
            raise ModelError(f"array {_show(path)}: expected floats or integers, got {array.dtype}")
        if not array.dtype.isnative:
            raise ModelError(
                f"array {_show(path)}: expected the machine's byte order, got {array.dtype.str}:"
                " convert it with array.astype(array.dtype.newbyteorder('='))"
            )
        if not self.arrays:
            self._first_path = path
        elif array.dtype != self.arrays[0].dtype:
            raise ModelError(
                f"arrays: expected one dtype, got {self.arrays[0].dtype} in {_show(self._first_path)}"
                f" and {array.dtype} in {_show(path)}"
            )
        leaf = _Leaf(self.length, array.shape)
        self.arrays.append(array)
        self.length = leaf.stop
        return leaf


def _sorted_keys(node: Mapping[str, Any], path: _Path) -> list[str]:
    for key in node:
        # A subclass of str could compare and sort in its own way.
        if type(key) is not str:
            raise ModelError(f"key in {_show(path)}: expected text, got {repr(key)[:_MAX_SHOWN]}")
    return sorted(node)


def _is_named_tuple(node: Any) -> bool:
    """Return whether a value is a tuple of a class made by `namedtuple` or `NamedTuple`, with nothing added to it."""
    return type(node).__bases__ == (tuple,) and hasattr(node, "_make") and hasattr(node, "_fields")


def _rebuild(node: Any, children: Any) -> Any:
    """Return a container of the same type with other children: a dictionary of them for a dictionary, a list for the rest."""
    return node._make(children) if _is_named_tuple(node) else type(node)(children)


def _describe(tree: Any) -> Any:
    """Return what the digest covers of a structure, in an order that does not depend on who filled a dictionary how."""
    if isinstance(tree, _Leaf):
        return tree.shape
    if isinstance(tree, Mapping):
        return "keys", [(key, _describe(tree[key])) for key in sorted(tree)]
    return "items", [_describe(child) for child in tree]


def _show(path: _Path) -> str:
    """Return the name of an array as people write it, shortened; the whole structure has none."""
    shown = "/".join(path)
    return repr(shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}...") if path else "the model"
