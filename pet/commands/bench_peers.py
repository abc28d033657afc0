"""What `pet bench --peers` compares: pet beside the peers that are installed, one thread each, in turns in the same run.

Flower's SecAgg+ masks a model with one private mask and one for each neighbour, drawn by NumPy's Mersenne twister, which is no
cryptographic generator: its primitives are called as its client does. TenSEAL encrypts homomorphically (bench_ckks.py). The
real xaynet SDK takes part in a round of a real `pet coordinator`, beside a participant of ours with the same model
(bench_sdk_round.py).

This file compares; it knows neither tables nor files. A peer that is not installed is named, not imitated.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from pet.aggregation import Aggregation
from pet.commands import bench_ckks, bench_sdk_round
from pet.commands.bench_comparison import CONFIG, Comparison, distribution_name, in_turns, median_ns, random_weights
from pet.mask_object import MaskSeed, sum_masks
from pet.masking import mask_model

#: The quantisation that Flower's workflow has by default.
_CLIPPING_RANGE, _TARGET_RANGE, _MODULUS_RANGE = 8.0, 1 << 22, 1 << 32
NEIGHBOUR_COUNTS: Final = (3, 100)

FLOWER: Final = "flwr"
TENSEAL: Final = bench_ckks.TENSEAL
XAYNET: Final = "xaynet-sdk-python"


def missing_peers() -> list[str]:
    """Return the distributions that are not installed."""
    modules = {FLOWER: "flwr", TENSEAL: "tenseal", XAYNET: "xaynet_sdk"}
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
    if TENSEAL not in missing:
        yield from bench_ckks.compare(length)
    if XAYNET not in missing:
        yield from _compare_xaynet(length, seed_count)


def _compare_flower(length: int, neighbour_count: int) -> Comparison:
    """Mask a model for all neighbours and add it to a sum, as `_collect_masked_vectors` and the server's workflow do."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
    from flwr.common.secure_aggregation.quantization import quantize
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    weights: Any = random_weights(length)  # Flower's type says float64; its clients pass what their framework has
    seeds = [os.urandom(32) for _ in range(neighbour_count + 1)]  # the private mask's, and each neighbour's
    flower_sum = [np.zeros(length, dtype=np.int64)]

    def mask_and_add_theirs() -> None:
        masked = quantize([weights], _CLIPPING_RANGE, _TARGET_RANGE)
        for seed in seeds:
            masked = arithmetic.parameters_addition(masked, pseudo_rand_gen(seed, _MODULUS_RANGE, [(length,)]))
        masked = arithmetic.parameters_mod(masked, _MODULUS_RANGE)
        arithmetic.parameters_mod(arithmetic.parameters_addition(flower_sum, masked), _MODULUS_RANGE)

    total = Aggregation(CONFIG, length)
    theirs, ours = in_turns(mask_and_add_theirs, lambda: _mask_and_add(weights, total))
    return Comparison(
        peer=distribution_name(FLOWER),
        what=f"mask and add an update, {neighbour_count} neighbours",
        length=length,
        peer_ns=theirs / length,
        pet_ns=ours / length,
    )


def _mask_and_add(weights: np.ndarray[Any, Any], total: Aggregation) -> None:
    total.add(mask_model(weights, CONFIG, threads=1)[1])


def _compare_xaynet(length: int, seed_count: int) -> Iterator[Comparison]:
    """Play a round with a real participant of each task beside ours."""
    weights = random_weights(length)
    found = bench_sdk_round.play(CONFIG, weights, seed_count)
    peer = distribution_name(XAYNET)
    masking = median_ns(lambda: mask_model(weights, CONFIG, threads=1))
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
    summing = median_ns(lambda: sum_masks(seeds, CONFIG, length, threads=1))
    yield Comparison(
        peer=peer,
        what=f"sum the masks of {seed_count} seeds",
        length=length,
        peer_ns=found.sdk_sum_ns / length / seed_count,
        pet_ns=summing / length / seed_count,
    )
