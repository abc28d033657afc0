"""Packs a model of Keras, loads it into another one, and trains a step: a program, because a process has one back-end.

KERAS_BACKEND=torch python tests/adapters/keras_round_trip.py
"""

import keras
import numpy as np

from pet.adapters import keras as adapter
from pet.errors import ModelError


def make(seed, units=4):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(units),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1, dtype="bfloat16"),
        ]
    )
    model.compile(optimizer="sgd", loss="mse")
    return model


def refused(call):
    try:
        call()
    except ModelError as error:
        return str(error)
    raise AssertionError("expected a refusal")


def main():
    model, other = make(0), make(1)
    model.train_on_batch(np.ones((2, 3)), np.ones((2, 1)))
    weights, counts, packing = adapter.pack(model)
    assert weights.dtype == np.float32, weights.dtype
    assert len(weights) == packing.weight_count == sum(array.size for array in model.get_weights())
    adapter.load(other, packing, weights, counts)
    pairs = list(zip(model.get_weights(), other.get_weights(), strict=True))
    assert all(one.dtype == two.dtype and np.array_equal(one, two) for one, two in pairs)
    assert adapter.pack(make(2))[2].digest == packing.digest

    trained, _, trained_packing = adapter.pack(model, trainable_only=True)
    assert len(trained) == sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) < len(weights)
    adapter.load(other, trained_packing, trained * 0, trainable_only=True)
    assert not any(np.asarray(keras.ops.convert_to_numpy(variable), float).any() for variable in other.trainable_variables)

    before = make(3, units=5).get_weights()
    wide = make(3, units=5)
    assert "expected ((3, 4), 'float32') at 0, got ((3, 5), 'float32')" in refused(
        lambda: adapter.load(wide, packing, weights, counts)
    )
    assert all(np.array_equal(one, two) for one, two in zip(before, wide.get_weights(), strict=True))
    assert "expected 6 variables, got 8" in refused(lambda: adapter.load(model, trained_packing, trained))
    assert "expected a keras.Model, got list" in refused(lambda: adapter.pack([]))
    print("the same on", keras.backend.backend())


if __name__ == "__main__":
    main()
