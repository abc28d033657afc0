"""What a comparison of pet with a peer is, and how both sides are timed: one thread each, in turns, in one run."""

from __future__ import annotations

import importlib.metadata
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pet.mask_config import MaskConfig

#: What pet masks with in every comparison: xaynet's default config.
CONFIG: Final = MaskConfig.parse("prime-f32-b0-m3")
#: How often each side has its turn; masks for 100 neighbours and encrypted models take their time.
TURNS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One thing that both can do; times are medians in nanoseconds per weight (and mask, where masks are summed).

    Attributes:
        peer: distribution and version.
        what: what was timed.
        length: weights of the model.
        peer_ns: the peer's time.
        pet_ns: ours.
        peer_bytes: bytes a weight that the peer sends, where that is compared.
        pet_bytes: ours.
        peer_error: largest error of a weight of the result, where that is compared.
        pet_error: ours.
    """

    peer: str
    what: str
    length: int
    peer_ns: float
    pet_ns: float
    peer_bytes: float | None = None
    pet_bytes: float | None = None
    peer_error: float | None = None
    pet_error: float | None = None

    @property
    def ratio(self) -> float:
        """How many times faster pet is."""
        return self.peer_ns / self.pet_ns


def distribution_name(distribution: str) -> str:
    """Return the name of an installed distribution with its version."""
    return f"{distribution} {importlib.metadata.version(distribution)}"


def random_weights(length: int, seed: int = 7) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a model of weights between -1 and 1."""
    return np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)


def median_ns(function: Callable[[], object]) -> float:
    """Return the median time of some calls in nanoseconds."""
    return statistics.median(elapsed_ns(function) for _ in range(TURNS))


def in_turns(theirs: Callable[[], object], ours: Callable[[], object]) -> tuple[float, float]:
    """Return both medians in nanoseconds; a busy machine slows both alike."""
    times = [(elapsed_ns(theirs), elapsed_ns(ours)) for _ in range(TURNS)]
    return statistics.median(pair[0] for pair in times), statistics.median(pair[1] for pair in times)


def elapsed_ns(function: Callable[[], object]) -> int:
    """Return the time of one call in nanoseconds."""
    begin = time.perf_counter_ns()
    function()
    return time.perf_counter_ns() - begin
