"""What `pet demo` learns from: handwritten digits, dealt out unevenly, and multinomial logistic regression on them.

Plain NumPy and scikit-learn; nothing here knows that a model is going to be masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

LABELS: Final = 10
_PIXELS: Final = 64
#: One column of weights and one bias for each label.
MODEL_LENGTH: Final = (_PIXELS + 1) * LABELS

_TEST_SHARE: Final = 0.25
#: Below 1, a participant sees few of the ten labels often and the others hardly ever.
_LABEL_CONCENTRATION: Final = 0.35
_MIN_SAMPLES: Final = 12
_LEARNING_RATE: Final = 0.5
_BATCH: Final = 16
#: Passes over one's own samples in each round.
_EPOCHS: Final = 5

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Samples:
    """Images, one row of 64 numbers between 0 and 1 each, and the digits they show."""

    images: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def label_counts(self) -> NDArray[np.int64]:
        """Return how many samples there are of each label."""
        return np.bincount(self.labels, minlength=LABELS)


@dataclass(frozen=True, slots=True)
class DemoData:
    """The training samples of each participant, all of them pooled, and a test set that nobody trains on."""

    participants: Sequence[Samples]
    pooled: Samples
    test: Samples

    def share(self, participant: int) -> Fraction:
        """Return a participant's share of all training samples: the scalar of its updates."""
        return Fraction(len(self.participants[participant]), len(self.pooled))


def load_data(participant_count: int, random_seed: int) -> DemoData:
    """Load scikit-learn's bundled digits and deal them out, unevenly in number and by label."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    train_images, test_images, train_labels, test_labels = train_test_split(
        digits.data / 16.0, digits.target, test_size=_TEST_SHARE, stratify=digits.target, random_state=random_seed
    )
    pooled = Samples(train_images, train_labels)
    owners = _deal(train_labels, participant_count, np.random.default_rng(random_seed))
    participants = [Samples(train_images[owners == i], train_labels[owners == i]) for i in range(participant_count)]
    return DemoData(participants, pooled, Samples(test_images, test_labels))


def _deal(labels: NDArray[np.int64], participant_count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the owner of each sample: each label is split in its own proportions, and some owners get more of everything."""
    appetite = generator.uniform(0.3, 1.7, participant_count)
    while True:
        owners = np.empty(len(labels), dtype=np.int64)
        for label in range(LABELS):
            proportions = generator.dirichlet(_LABEL_CONCENTRATION * appetite)
            chosen = np.flatnonzero(labels == label)
            owners[chosen] = generator.choice(participant_count, size=len(chosen), p=proportions)
        if np.bincount(owners, minlength=participant_count).min() >= _MIN_SAMPLES:
            return owners


def initial_weights() -> Weights:
    """Return the model that everybody starts from."""
    return np.zeros(MODEL_LENGTH, dtype=np.float32)


def train(weights: Weights, samples: Samples, random_seed: int) -> Weights:
    """Return the model after a few passes of stochastic gradient descent over samples; the one passed in stays."""
    generator = np.random.default_rng(random_seed)
    matrix = weights.astype(np.float64).reshape(_PIXELS + 1, LABELS)
    images = np.hstack([samples.images, np.ones((len(samples), 1))])
    targets = np.eye(LABELS)[samples.labels]
    for _ in range(_EPOCHS):
        order = generator.permutation(len(samples))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            error = _probabilities(images[batch] @ matrix) - targets[batch]
            matrix -= _LEARNING_RATE / len(batch) * images[batch].T @ error
    return matrix.astype(np.float32).reshape(-1)


def accuracy(weights: Weights | NDArray[np.float64], samples: Samples) -> float:
    """Return the share of samples whose digit a model tells."""
    matrix = weights.reshape(_PIXELS + 1, LABELS)
    scores = samples.images @ matrix[:_PIXELS] + matrix[_PIXELS]
    return float(np.mean(scores.argmax(axis=1) == samples.labels))


def _probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalised: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return normalised
