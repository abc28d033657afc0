"""The global model of one round, as a coordinator publishes it; how it is stored is for pet/coordinator/model_store.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pet.global_model import GlobalModel


@dataclass(frozen=True, slots=True)
class RoundModel:
    """The global model of one round, as it is published.

    Attributes:
        round_id: the round that made it.
        round_seed: the seed of that round.
        model: the model itself.
    """

    round_id: int
    round_seed: bytes
    model: GlobalModel = field(repr=False)

    @property
    def etag(self) -> str:
        """A name that no other model has: the round seed is part of it."""
        return f"{self.round_id}-{self.round_seed.hex()[:16]}"

    @property
    def length(self) -> int:
        """The number of weights."""
        return len(self.model)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the weights."""
        return self.model.dtype

    def bincode_chunks(self) -> Iterator[bytes]:
        """Yield the body of spec 5.6 piece by piece."""
        return self.model.iter_bincode()

    def array_chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the weights piece by piece."""
        return self.model.iter_arrays()

    def to_array(self) -> np.ndarray[Any, Any]:
        """Return all weights in an array of their own."""
        return self.model.to_array()
