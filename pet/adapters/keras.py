"""Keras, on any of its back-ends: a model's weights as vectors, and back.

from pet.adapters import keras as adapter

weights, counts, packing = adapter.pack(model)
adapter.load(model, packing, mean.to_array(), totals.to_array() / count)
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import DTypeLike, NDArray

from pet.errors import ModelError
from pet.packing import Packing
from pet.packing import pack as pack_arrays


def pack(
    model: keras.Model, *, trainable_only: bool = False, dtype: DTypeLike | None = None
) -> tuple[NDArray[Any], NDArray[Any], Packing]:
    """Pack a model's variables into a vector of weights and a vector of counts.

    Names of layers are made up by Keras and differ from process to process, so the variables are known by their order, shapes
    and dtypes.

    Args:
        model: a model that is built; `get_weights()` says what it has.
        trainable_only: only the variables that are trained; no statistics of batch normalisation, for example.
        dtype: as for `pet.pack`.

    Raises:
        ModelError: no model, or one without variables.
    """
    # Copies: what is packed once because it lies in the same memory is tied, and Keras has each variable once.
    arrays: list[Any] = [np.array(keras.ops.convert_to_numpy(variable)) for variable in _variables(model, trainable_only)]
    return pack_arrays(arrays, dtype=dtype)


def load(
    model: keras.Model,
    packing: Packing,
    weights: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    *,
    trainable_only: bool = False,
) -> None:
    """Put vectors into a model.

    Args:
        model: of the same layers.
        packing: what `pack` returned with the same `trainable_only`.
        weights: as for `Packing.unpack`.
        counts: as for `Packing.unpack`.
        trainable_only: as for `pack`.

    Raises:
        ModelError: as `Packing.unpack`; other variables. Nothing has changed then.
    """
    variables = _variables(model, trainable_only)
    arrays = packing.unpack(weights, counts)
    expected = [(array.shape, array.dtype.name) for array in arrays]
    got = [(tuple(variable.shape), np.dtype(variable.dtype).name) for variable in variables]
    if len(got) != len(expected):
        raise ModelError(f"model: expected {len(expected)} variables, got {len(got)}")
    for index, (one, other) in enumerate(zip(expected, got, strict=True)):
        if one != other:
            raise ModelError(f"model: expected {one} at {index}, got {other}")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _variables(model: object, trainable_only: bool) -> list[Any]:
    if not isinstance(model, keras.Model):
        raise ModelError(f"model: expected a keras.Model, got {type(model).__name__}")
    return list(model.trainable_variables if trainable_only else model.weights)
