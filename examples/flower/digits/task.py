"""Handwritten digits, and a perceptron of NumPy with a counter: what there is before Flower and before pet."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

PIXELS, LABELS = load_digits(return_X_y=True)
PIXELS = (PIXELS / 16).astype(np.float32)
ORDER = np.random.default_rng(0).permutation(len(PIXELS))
TEST, TRAIN = ORDER[:360], ORDER[360:]


def initial_model() -> dict[str, Any]:
    """Return the arrays that everybody starts from."""
    generator = np.random.default_rng(1)
    return {
        "w1": (generator.normal(size=(64, 24)) / 8).astype(np.float32),
        "b1": np.zeros(24, np.float32),
        "w2": (generator.normal(size=(24, 10)) / 5).astype(np.float32),
        "b2": np.zeros(10, np.float32),
        "steps": np.array(0, np.int64),
    }


def forward(model: dict[str, Any], rows: Any) -> tuple[Any, Any]:
    """Return what the hidden layer gives for rows of pixels, and the chance of each digit."""
    hidden = np.maximum(rows @ model["w1"] + model["b1"], 0)
    scores = hidden @ model["w2"] + model["b2"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, powers / powers.sum(axis=1, keepdims=True)


def fit(model: dict[str, Any], rows: Any, labels: Any, seed: int) -> float:
    """Train a model in place for one epoch; return the last loss."""
    generator, loss = np.random.default_rng(seed), 0.0
    for batch in np.array_split(generator.permutation(len(rows)), max(1, len(rows) // 16)):
        hidden, chance = forward(model, rows[batch])
        truth = labels[batch]
        loss = float(-np.log(chance[np.arange(len(batch)), truth] + 1e-9).mean())
        chance[np.arange(len(batch)), truth] -= 1
        chance /= len(batch)
        back = (chance @ model["w2"].T) * (hidden > 0)
        for name, change in (
            ("w2", hidden.T @ chance),
            ("b2", chance.sum(0)),
            ("w1", rows[batch].T @ back),
            ("b1", back.sum(0)),
        ):
            model[name] -= np.float32(0.2) * change
        model["steps"] = model["steps"] + 1
    return loss


def accuracy(model: dict[str, Any], rows: Any) -> float:
    """Return the share of rows whose digit is found."""
    return float((forward(model, PIXELS[rows])[1].argmax(1) == LABELS[rows]).mean())


def rows_of(index: int, count: int) -> Any:
    """Return the rows of a node; the later have more."""
    edges = np.cumsum([0] + [each + 3 for each in range(count)])
    edges = edges * len(TRAIN) // edges[-1]
    return TRAIN[edges[index] : edges[index + 1]]
