"""Models of named arrays: one vector out of dictionaries and lists of arrays, and back.

Frameworks keep a model as many arrays; the protocol masks one vector. This file knows arrays only, nothing of masks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pet.errors import ModelError

#: What can be flattened: an array, or a dictionary or list of such.
ArrayTree: TypeAlias = "NDArray[Any] | Mapping[str, ArrayTree] | list[ArrayTree] | tuple[ArrayTree, ...]"

#: Deeper nesting than this is taken for a structure that contains itself.
_MAX_DEPTH: Final = 64
#: Characters of an array's name in an error.
_MAX_SHOWN: Final = 80


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

    Attributes:
        dtype: dtype of all arrays and of the vector.
        length: number of weights in all.
        digest: names, shapes and dtype in 16 hexadecimal digits: participants whose digests agree flatten alike.
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
            Dictionaries, lists and tuples as they were flattened, keys in their original order.

        Raises:
            ModelError: the vector is no array of that length.
        """
        if not isinstance(vector, np.ndarray) or vector.shape != (self.length,):
            got = f"shape {vector.shape}" if isinstance(vector, np.ndarray) else type(vector).__name__
            raise ModelError(f"vector: expected an array of shape ({self.length},), got {got}")

        def build(node: Any) -> Any:
            if isinstance(node, _Leaf):
                part = vector[node.start : node.stop].reshape(node.shape)
                return part.copy() if copy else part
            if isinstance(node, dict):
                return {name: build(child) for name, child in node.items()}
            return type(node)(build(child) for child in node)

        return build(self._tree)


def flatten(arrays: ArrayTree) -> tuple[NDArray[Any], Layout]:
    """Join the arrays of a model into one vector.

    Dictionaries are taken in the order of their sorted keys, so that participants that fill theirs in another order get the
    same vector.

    Args:
        arrays: an array, or dictionaries (with text keys), lists and tuples of arrays, nested at will; all of one dtype.

    Returns:
        A new vector, and the layout that turns a vector back into the structure.

    Raises:
        ModelError: something that is neither; dtypes that differ; no array at all.
    """
    import hashlib  # here, because loading OpenSSL takes a fifth of the time that importing pet may take

    found = list(_walk(arrays, "", 0))
    if not found:
        raise ModelError("arrays: expected at least one array, got none")
    first_name, first = found[0]
    for name, array in found:
        if array.dtype != first.dtype:
            raise ModelError(
                f"arrays: expected one dtype, got {first.dtype} in {_show(first_name)} and {array.dtype} in {_show(name)}"
            )
    leaves: dict[str, _Leaf] = {}
    position = 0
    for name, array in found:
        leaves[name] = _Leaf(position, array.shape)
        position = leaves[name].stop
    description = repr([(name, array.shape, first.dtype.str) for name, array in found])
    layout = Layout(
        dtype=first.dtype,
        length=position,
        digest=hashlib.sha256(description.encode()).hexdigest()[:16],
        _tree=_replace(arrays, "", leaves),
    )
    return np.concatenate([array.reshape(-1) for _, array in found]), layout


def _walk(node: Any, name: str, depth: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every array with its name, in the order of the vector."""
    if depth > _MAX_DEPTH:
        raise ModelError(f"arrays: expected at most {_MAX_DEPTH} levels, got more at {_show(name)}")
    if isinstance(node, np.ndarray):
        if node.dtype.kind not in "fi":
            raise ModelError(f"array {_show(name)}: expected floats or integers, got {node.dtype}")
        yield name, node
    elif isinstance(node, Mapping):
        for key in node:
            if not isinstance(key, str):
                raise ModelError(f"key in {_show(name)}: expected text, got {key!r}")
        for key in sorted(node):
            yield from _walk(node[key], _join(name, key), depth + 1)
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from _walk(child, _join(name, str(index)), depth + 1)
    else:
        raise ModelError(f"{_show(name)}: expected an array, a dictionary or a list, got {type(node).__name__}")


def _replace(node: Any, name: str, leaves: Mapping[str, _Leaf]) -> Any:
    """Return the same structure with a leaf in place of each array."""
    if isinstance(node, np.ndarray):
        return leaves[name]
    if isinstance(node, Mapping):
        return {key: _replace(child, _join(name, key), leaves) for key, child in node.items()}
    kind = list if isinstance(node, list) else tuple
    return kind(_replace(child, _join(name, str(index)), leaves) for index, child in enumerate(node))


def _join(name: str, part: str) -> str:
    # NUL cannot be mistaken for part of a name that people give, as "/" can ({"a/b": x} and {"a": {"b": x}} differ).
    return f"{name}\0{part}" if name else part


def _show(name: str) -> str:
    """Return the name of an array as people write it, shortened; the whole structure has none."""
    shown = name.replace("\0", "/")
    return repr(shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}...") if name else "the model"
