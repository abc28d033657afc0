"""Models of participants that train nothing: the same for all of them, and others in each round."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.protocol.participant_events import FollowedRound

#: Models of whole numbers have weights of this size at most, or as large as the mask config allows.
_MAX_WEIGHT: Final = 1000


def make_dummy_model(followed: FollowedRound, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a model whose weights are within the bound of a round.

    Args:
        followed: the round; its digest is what the weights are drawn with.
        dtype: of the weights.
    """
    generator = np.random.default_rng(int.from_bytes(followed.digest, "little"))
    bound, length = followed.config.largest_value, followed.model_length
    model: NDArray[Any]
    if dtype.kind == "f":
        model = generator.random(length, dtype=dtype.type) * dtype.type(min(1.0, float(bound)))
    elif dtype.kind == "u":
        model = generator.integers(0, min(_MAX_WEIGHT, int(bound)), length, dtype=dtype.type, endpoint=True)
    else:
        # Below zero: the mean of whole numbers arrives a little too low, and is truncated towards zero.
        model = generator.integers(-min(_MAX_WEIGHT, int(bound)), 1, length, dtype=dtype.type)
    return model
