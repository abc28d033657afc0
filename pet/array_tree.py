"""Structures of arrays: walked through in one order on every machine, rebuilt as what they were.

Frameworks keep a model as dictionaries, lists and tuples of arrays. What is taken here comes back exactly, or is refused: the
containers and their types, the keys and their order. Callers say what an array turns into (pet/layout.py, pet/packing.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pet.errors import ModelError

#: What can be taken: an array, or a dictionary, list or tuple of such.
ArrayTree: TypeAlias = "NDArray[Any] | Mapping[str, ArrayTree] | list[ArrayTree] | tuple[ArrayTree, ...]"

#: Where an array lies in its structure: keys and indices from the outside in. Never joined to one text outside of errors,
#: because {"a/b": x} and {"a": {"b": x}} are different structures, as are {"": {"w": x}} and {"w": x}.
Path: TypeAlias = tuple[str, ...]

#: Deeper nesting than this is taken for a structure that contains itself.
_MAX_DEPTH: Final = 64
#: Characters of an array's name, or of a key that is no text, in an error.
_MAX_SHOWN: Final = 80


def walk(node: Any, take: Callable[[NDArray[Any], Path], Any], path: Path = ()) -> Any:
    """Return the same structure with what `take` returns in place of each array.

    Dictionaries are taken in the order of their sorted keys, so that those who fill theirs in another order walk alike.

    Args:
        node: an array, or `dict` and `OrderedDict` (with text as keys), lists, tuples and named tuples of arrays, nested at
            will, some of them empty. Arrays are plain ones (`numpy.ndarray`) in the machine's byte order.
        take: called with each array and its path; what it returns is no dictionary, list or tuple.
        path: where `node` lies in the whole.

    Raises:
        ModelError: something else, among it subclasses of these types (`numpy.matrix`, masked arrays, `defaultdict`), which
            would not come back as what they were.
    """
    if len(path) > _MAX_DEPTH:
        raise ModelError(f"arrays: expected at most {_MAX_DEPTH} levels, got more at {show(path)}")
    if isinstance(node, np.ndarray):
        _validate_array(node, path)
        return take(node, path)
    if type(node) in (dict, OrderedDict):
        children = {key: walk(node[key], take, (*path, key)) for key in _sorted_keys(node, path)}
        return _rebuild(node, {key: children[key] for key in node})
    if type(node) in (list, tuple) or _is_named_tuple(node):
        return _rebuild(node, [walk(child, take, (*path, str(index))) for index, child in enumerate(node)])
    hint = ""
    if isinstance(node, Mapping):
        hint = ": convert it with dict(...)"
    elif isinstance(node, (list, tuple)):
        hint = ": convert it with list(...)"
    raise ModelError(f"{show(path)}: expected an array, a dictionary or a list, got {type(node).__name__}{hint}")


def build(tree: Any, make: Callable[[Any], Any]) -> Any:
    """Return the structure that `walk` returned with what `make` returns in place of each leaf."""
    if isinstance(tree, Mapping):
        return _rebuild(tree, {key: build(child, make) for key, child in tree.items()})
    if isinstance(tree, (list, tuple)):
        return _rebuild(tree, [build(child, make) for child in tree])
    return make(tree)


def digest(tree: Any, describe: Callable[[Any], Any], *more: object) -> str:
    """Return 16 hexadecimal digits that agree where keys, nesting and what `describe` says of each leaf agree.

    A list counts as a tuple here, and an `OrderedDict` as a dictionary.

    Args:
        tree: as `walk` returned it.
        describe: a leaf as text, numbers and tuples of them.
        more: what else the digest covers.
    """
    import hashlib  # here, because loading OpenSSL takes a fifth of the time that importing pet may take

    def of(node: Any) -> Any:
        if isinstance(node, Mapping):
            return "keys", [(key, of(node[key])) for key in sorted(node)]
        if isinstance(node, (list, tuple)):
            return "items", [of(child) for child in node]
        return describe(node)

    # `ascii` does not depend on the Unicode tables of a Python version.
    return hashlib.sha256(ascii((*more, of(tree))).encode()).hexdigest()[:16]


def show(path: Path) -> str:
    """Return the name of an array as people write it ('dense/kernel'), shortened; the whole structure has none."""
    shown = "/".join(path)
    return repr(shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}...") if path else "the model"


def _validate_array(array: NDArray[Any], path: Path) -> None:
    if type(array) is not np.ndarray:
        raise ModelError(
            f"array {show(path)}: expected a plain numpy.ndarray, got {type(array).__name__}: convert it first,"
            " for example with numpy.asarray (of a masked array, decide what stands for masked weights)"
        )
    if not array.dtype.isnative:
        raise ModelError(
            f"array {show(path)}: expected the machine's byte order, got {array.dtype.str}:"
            " convert it with array.astype(array.dtype.newbyteorder('='))"
        )


def _sorted_keys(node: Mapping[str, Any], path: Path) -> list[str]:
    for key in node:
        # A subclass of str could compare and sort in its own way.
        if type(key) is not str:
            raise ModelError(f"key in {show(path)}: expected text, got {repr(key)[:_MAX_SHOWN]}")
    return sorted(node)


def _is_named_tuple(node: Any) -> bool:
    """Return whether a value is a tuple of a class made by `namedtuple` or `NamedTuple`, with nothing added to it."""
    return type(node).__bases__ == (tuple,) and hasattr(node, "_make") and hasattr(node, "_fields")


def _rebuild(node: Any, children: Any) -> Any:
    """Return a container of the same type with other children: a dictionary of them for a dictionary, a list for the rest."""
    return node._make(children) if _is_named_tuple(node) else type(node)(children)
