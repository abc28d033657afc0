"""JAX: pytrees as vectors, and back; Flax modules' states and parameters are pytrees.

    from pet.adapters import jax as adapter

    weights, counts, packing = adapter.pack(params)
    params = packing.unpack(mean.to_array(), totals.to_array() / count)

Arrays on any device are copied to the CPU. JAX has no tied arrays: a pytree that has one twice has it twice afterwards, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import DTypeLike, NDArray

from pet.adapters.framework_packing import FrameworkPacking
from pet.array_tree import show
from pet.errors import ModelError
from pet.packing import pack as pack_arrays


@dataclass(frozen=True, slots=True)
class JaxPacking(FrameworkPacking):
    """Where each array of a pytree lies in its two vectors, and what it was.

    Attributes:
        packing: that of the arrays, by the names that JAX gives them.
        structure: of the pytree.
    """

    structure: Any
    _names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """As `Packing.digest`; the names are the paths that `jax.tree_util.keystr` makes."""
        return self.packing.digest

    def unpack(self, weights: NDArray[Any] | None = None, counts: NDArray[Any] | None = None) -> Any:
        """Return the pytree, with arrays of JAX on the default device.

        Args:
            weights: as for `Packing.unpack`.
            counts: as for `Packing.unpack`.

        Raises:
            ModelError: as `Packing.unpack`.
        """
        arrays = self.packing.unpack(weights, counts)
        return jax.tree_util.tree_unflatten(self.structure, [jax.numpy.asarray(arrays[name]) for name in self._names])


def pack(tree: Any, *, dtype: DTypeLike | None = None) -> tuple[NDArray[Any], NDArray[Any], JaxPacking]:
    """Pack a pytree of arrays into a vector of weights and a vector of counts.

    Args:
        tree: for example a Flax module's parameters, or the state of `nnx.state(model)`. Arrays are of JAX or NumPy.
        dtype: as for `pet.pack`.

    Returns:
        Weights, counts, and what unpacks them.

    Raises:
        ModelError: a leaf that is no array, or one of random keys; two leaves of one name; a dtype that `pet.pack` refuses;
            nothing to pack.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    arrays: dict[str, NDArray[Any]] = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        if name in arrays:
            raise ModelError(f"pytree: expected different names, got {show((name,))} twice")
        arrays[name] = _to_array(leaf, name)
    weights, counts, packing = pack_arrays(arrays, dtype=dtype)
    return weights, counts, JaxPacking(packing, structure, tuple(arrays))


def _to_array(leaf: Any, name: str) -> NDArray[Any]:
    """Return an array of NumPy with the values of a leaf, which no other leaf shares."""
    if not isinstance(leaf, (jax.Array, np.ndarray)):
        raise ModelError(f"leaf {show((name,))}: expected an array, got {type(leaf).__name__}")
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise ModelError(f"leaf {show((name,))}: expected numbers, got random keys: leave them out of the pytree")
    try:
        return np.array(leaf)
    except RuntimeError as error:
        raise ModelError(f"leaf {show((name,))}: expected an array whose values are at hand, got none: {error}") from error
