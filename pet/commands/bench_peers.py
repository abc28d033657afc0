"""What `pet bench --peers` compares: pet beside the peers that are installed, one thread each, in turns in the same run.

Two peers are known. Flower's SecAgg+ masks a model with one private mask and one for each neighbour, drawn by NumPy's Mersenne
twister, which is no cryptographic generator: its primitives are called as its client does. The real xaynet SDK takes part in a
round of a real `pet coordinator`, beside a participant of ours with the same model (bench_sdk_round.py).

This file times and compares; it knows neither tables nor files. A peer that is not installed is named, not imitated.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pet.aggregation import Aggregation
from pet.commands import bench_sdk_round
from pet.mask_config import MaskConfig
from pet.mask_object import MaskSeed, sum_masks
from pet.masking import mask_model

#: What both sides mask: xaynet's default config, and the quantisation that Flower's workflow has by default.
CONFIG: Final = MaskConfig.parse("prime-f32-b0-m3")
_CLIPPING_RANGE, _TARGET_RANGE, _MODULUS_RANGE = 8.0, 1 << 22, 1 << 32
NEIGHBOUR_COUNTS: Final = (3, 100)
#: How often each side has its turn; masks for 100 neighbours take their time.
_TURNS: Final = 5

FLOWER: Final = "flwr"
XAYNET: Final = "xaynet-sdk-python"


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


def missing_peers() -> list[str]:
    """Return the distributions that are not installed."""
    modules = {FLOWER: "flwr", XAYNET: "xaynet_sdk"}
    return [name for name, module in modules.items() if importlib.util.find_spec(module) is None]


def compare(length: int, seed_count: int) -> Iterator[Comparison]:
    """Compare with every peer that is installed.

    Args:
        length: weights of the model, at least 1.
        seed_count: how many masks a sum participant sums, at least 3.
    """
    missing = missing_peers()
    if FLOWER not in missing:
        for count in NEIGHBOUR_COUNTS:
            yield _compare_flower(length, count)
    if XAYNET not in missing:
        yield from _compare_xaynet(length, seed_count)


def _name(distribution: str) -> str:
    return f"{distribution} {importlib.metadata.version(distribution)}"


def _weights(length: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(7).uniform(-1, 1, length).astype(np.float32)


def _compare_flower(length: int, neighbour_count: int) -> Comparison:
    """Mask a model for all neighbours and add it to a sum, as `_collect_masked_vectors` and the server's workflow do."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
    from flwr.common.secure_aggregation.quantization import quantize
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    weights: Any = _weights(length)  # Flower's type says float64; its clients pass what their framework has
    seeds = [os.urandom(32) for _ in range(neighbour_count + 1)]  # the private mask's, and each neighbour's
    flower_sum = [np.zeros(length, dtype=np.int64)]

    def mask_and_add_theirs() -> None:
        masked = quantize([weights], _CLIPPING_RANGE, _TARGET_RANGE)
        for seed in seeds:
            masked = arithmetic.parameters_addition(masked, pseudo_rand_gen(seed, _MODULUS_RANGE, [(length,)]))
        masked = arithmetic.parameters_mod(masked, _MODULUS_RANGE)
        arithmetic.parameters_mod(arithmetic.parameters_addition(flower_sum, masked), _MODULUS_RANGE)

    total = Aggregation(CONFIG, length)
    theirs, ours = _in_turns(mask_and_add_theirs, lambda: _mask_and_add(weights, total))
    return Comparison(
        peer=_name(FLOWER),
        what=f"mask and add an update, {neighbour_count} neighbours",
        length=length,
        peer_ns=theirs / length,
        pet_ns=ours / length,
    )


def _mask_and_add(weights: np.ndarray[Any, Any], total: Aggregation) -> None:
    total.add(mask_model(weights, CONFIG, threads=1)[1])


def _compare_xaynet(length: int, seed_count: int) -> Iterator[Comparison]:
    """Play a round with a real participant of each task beside ours."""
    weights = _weights(length)
    found = bench_sdk_round.play(CONFIG, weights, seed_count)
    peer = _name(XAYNET)
    masking = _median(lambda: mask_model(weights, CONFIG, threads=1))
    yield Comparison(
        peer=peer, what="mask an update", length=length, peer_ns=found.sdk_masking_ns / length, pet_ns=masking / length
    )
    yield Comparison(
        peer=peer,
        what="from set_model to the posted update",
        length=length,
        peer_ns=found.sdk_update_ns / length,
        pet_ns=found.pet_update_ns / length,
    )
    seeds = [MaskSeed.generate() for _ in range(seed_count)]
    summing = _median(lambda: sum_masks(seeds, CONFIG, length, threads=1))
    yield Comparison(
        peer=peer,
        what=f"sum the masks of {seed_count} seeds",
        length=length,
        peer_ns=found.sdk_sum_ns / length / seed_count,
        pet_ns=summing / length / seed_count,
    )


def _median(function: Callable[[], object]) -> float:
    return statistics.median(_elapsed(function) for _ in range(_TURNS))


def _in_turns(theirs: Callable[[], object], ours: Callable[[], object]) -> tuple[float, float]:
    """Return both medians in nanoseconds; a busy machine slows both alike."""
    times = [(_elapsed(theirs), _elapsed(ours)) for _ in range(_TURNS)]
    return statistics.median(pair[0] for pair in times), statistics.median(pair[1] for pair in times)


def _elapsed(function: Callable[[], object]) -> int:
    begin = time.perf_counter_ns()
    function()
    return time.perf_counter_ns() - begin
