"""Is a global model what it should be: the weighted mean of exactly the updates that were accepted?

Only a demo can ask that. It takes the models in clear, which no one in a real round has in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pet.commands.demo_data import Weights
from pet.mask_config import MaskConfig
from pet.masking import Scalar


@dataclass(frozen=True, slots=True)
class Check:
    """The largest error of a global model over its weights, and what is allowed."""

    error: float
    tolerance: float

    @property
    def is_passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


def check_mean(model: NDArray[np.float64], weights: Sequence[Weights], scalars: Sequence[Scalar], config: MaskConfig) -> Check:
    """Compare a global model with the plain weighted mean.

    Each of n models loses less than one step 1/E of the mask config to a floor, and so does each of n scalars (spec 3.7).
    With S the sum of the scalars and m the largest absolute weight, the mean is off by less than n * (1 + m) / (E * S);
    rounding the plain mean in double precision adds up to n * m * 2^-52.

    Args:
        model: the global model, float64.
        weights: the accepted models, in clear.
        scalars: their scalars.
        config: mask config of the round.
    """
    count = len(weights)
    scalar_sum = float(sum(map(float, scalars)))
    mean = sum(float(scalar) * vector.astype(np.float64) for scalar, vector in zip(scalars, weights, strict=True)) / scalar_sum
    largest = max(float(np.abs(vector).max()) for vector in weights)
    masking = count * (1 + largest) / (config.exp_shift * scalar_sum)
    rounding = count * largest * 2.0**-52
    return Check(error=float(np.abs(model - mean).max()), tolerance=masking + rounding)
