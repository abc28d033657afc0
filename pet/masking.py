"""Masking a model: weights and a scalar in, a mask seed and a masked model out (docs/spec/pet.md 3.4).

The participant's half of the arithmetic; the coordinator's is pet/aggregation.py.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Final, Literal, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from pet import kernels, parallel
from pet.errors import ModelError
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_object import MaskedModel, MaskSeed, draw_unit

#: What a scalar may be given as. Everything is taken exactly: 0.1 is the float's dyadic fraction, Fraction(1, 10) a tenth.
Scalar = int | float | Fraction | np.integer[Any] | np.floating[Any]

#: A scalar's numerator and denominator may have this many bits. A float needs at most 1075; the kernels' buffers hold the
#: product with 10^324 of the widest config and leave room for the shifts.
_MAX_SCALAR_BITS: Final = 2048


def mask_model(
    weights: NDArray[Any],
    config: MaskConfig | MaskConfigPair,
    scalar: Scalar = 1,
    seed: MaskSeed | None = None,
    *,
    on_clip: Literal["count", "raise"] = "count",
    threads: SupportsIndex | None = None,
) -> tuple[MaskSeed, MaskedModel]:
    """Scale a model, encode it and hide it under a mask (spec 3.4).

    Args:
        weights: one dimension, of the config's data type (config.vect.data_type.dtype).
        config: mask config, or a pair for vector and scalar.
        scalar: the model's weight in the mean, 0 or more, exact; for example the participant's share of the samples.
        seed: seed of the mask; a fresh random one if None. A seed must never mask two models.
        on_clip: "count" clamps scaled weights, and the scalar, to the bound of the config and counts them in
            `MaskedModel.clipped_count`; "raise" refuses them.
        threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle. The result is the same
            for any number.

    Returns:
        The mask seed, to be encrypted to the sum participants, and the masked model.

    Raises:
        ModelError: wrong type, dtype or dimension; NaN or infinite weights; a negative or non-finite scalar; clipping that
            was to be refused.
        ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
    """
    pair = MaskConfigPair.of(config)
    _validate_choices(seed, on_clip)
    validate_weights(weights, pair.vect)
    exact_scalar = to_exact_scalar(scalar)
    clamped = min(exact_scalar, Fraction(pair.unit.add_shift))
    seed = MaskSeed.generate() if seed is None else seed
    unit_mask, position = draw_unit(seed, pair)
    vect, clipped_count = parallel.update(
        np.ascontiguousarray(weights), seed.to_bytes(), position, encoding_of(pair.vect, clamped), threads
    )
    if on_clip == "raise" and clamped != exact_scalar:
        raise ModelError(f"scalar: expected at most {pair.unit.add_shift}, the bound of {pair.unit}, got more")
    if on_clip == "raise" and clipped_count:
        raise ModelError(
            f"weights: expected scalar * weight within the bound of {pair.vect}, got {clipped_count} of {len(weights)} outside"
        )
    clipped_count += clamped != exact_scalar
    unit = (math.floor((clamped + pair.unit.add_shift) * pair.unit.exp_shift) + unit_mask) % pair.unit.order
    return seed, MaskedModel(pair, vect, unit, clipped_count)


def _validate_choices(seed: object, on_clip: object) -> None:
    if seed is not None and not isinstance(seed, MaskSeed):
        raise ModelError(f"seed: expected a MaskSeed or None, got {type(seed).__name__}")
    if on_clip not in ("count", "raise"):
        raise ModelError(f"on_clip: expected 'count' or 'raise', got {on_clip!r}")


def encoding_of(config: MaskConfig, scalar: Fraction) -> kernels.Encoding:
    """Return how weights become elements under a config and a scalar that is already clamped to the bound."""
    scale = scalar * config.exp_shift
    return kernels.Encoding(
        order=config.order,
        offset=config.add_shift * config.exp_shift,
        scale_numerator=scale.numerator,
        scale_denominator=scale.denominator,
    )


def validate_weights(weights: NDArray[Any], config: MaskConfig) -> None:
    """Check that weights are a vector of a config's data type.

    Raises:
        ModelError: they are not an array, have another dtype or more than one dimension.
    """
    expected = config.data_type.dtype
    if not isinstance(weights, np.ndarray):
        raise ModelError(f"weights: expected a NumPy array of {expected}, got {type(weights).__name__}")
    if isinstance(weights, np.ma.MaskedArray):
        raise ModelError("weights: expected an array without missing values, got a numpy.ma.MaskedArray: fill them first")
    if weights.dtype != expected or weights.ndim != 1:
        raise ModelError(f"weights: expected {expected} of one dimension, got {weights.dtype} of shape {weights.shape}")


def to_exact_scalar(scalar: Scalar) -> Fraction:
    """Return a scalar as an exact fraction.

    Raises:
        ModelError: negative, NaN, infinite, not a number, or a fraction of more than 2048 bits.
    """
    if not isinstance(scalar, (int, float, Fraction, np.integer, np.floating)):
        raise ModelError(f"scalar: expected an int, float or Fraction, got {type(scalar).__name__}")
    if isinstance(scalar, (float, np.floating)) and not math.isfinite(scalar):
        raise ModelError(f"scalar: expected a finite number, got {scalar}")
    # A NumPy float not through float(), which would round a long double.
    exact = Fraction(int(scalar)) if isinstance(scalar, np.integer) else Fraction(*scalar.as_integer_ratio())
    bits = max(exact.numerator.bit_length(), exact.denominator.bit_length())
    if bits > _MAX_SCALAR_BITS:
        raise ModelError(f"scalar: expected a fraction of at most {_MAX_SCALAR_BITS} bits, got {bits}")
    if exact < 0:
        raise ModelError(f"scalar: expected 0 or more, got {scalar}")
    return exact
