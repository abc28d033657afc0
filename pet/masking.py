"""Masking a model: weights and a scalar in, a mask seed and a masked model out (docs/spec/pet.md 3.4).

The participant's half of the arithmetic; the coordinator's is pet/aggregation.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, Protocol, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from pet import kernels, parallel, parallel_fields
from pet.errors import ModelError
from pet.field_config import FieldConfig
from pet.mask_choices import FieldValues
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_derivation import SummedMasks, derive, draw_unit
from pet.mask_object import MaskedModel, MaskSeed, validate_seeds

#: What a scalar may be given as. Everything is taken exactly: 0.1 is the float's dyadic fraction, Fraction(1, 10) a tenth.
Scalar = int | float | Fraction | np.integer[Any] | np.floating[Any]

#: kDLCPU of DLPack.
_DLPACK_CPU: Final = 1
#: Weights that stay in the cache between two passes over them.
_PIECE_LENGTH: Final = 1 << 17

#: A scalar's numerator and denominator may have this many bits. A float needs at most 1075; the kernels' buffers hold the
#: product with 10^324 of the widest config and leave room for the shifts.
_MAX_SCALAR_BITS: Final = 2048


class SupportsDlpack(Protocol):
    """An array of another library whose memory can be shared (DLPack, as in the Python array API standard)."""

    def __dlpack__(self) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, Any]: ...


@overload
def mask_model(
    weights: NDArray[Any] | SupportsDlpack,
    config: MaskConfig | MaskConfigPair,
    scalar: Scalar = 1,
    seed: MaskSeed | None = None,
    *,
    on_clip: Literal["count", "raise"] = "count",
    threads: SupportsIndex | None = None,
    out: NDArray[np.uint8] | None = None,
) -> tuple[MaskSeed, MaskedModel]: ...


@overload
def mask_model(
    weights: NDArray[Any] | SupportsDlpack,
    config: MaskConfig | MaskConfigPair,
    scalar: Scalar = 1,
    *,
    seed: Sequence[MaskSeed],
    on_clip: Literal["count", "raise"] = "count",
    threads: SupportsIndex | None = None,
    out: NDArray[np.uint8] | None = None,
) -> tuple[tuple[MaskSeed, ...], MaskedModel]: ...


def mask_model(
    weights: NDArray[Any] | SupportsDlpack,
    config: MaskConfig | MaskConfigPair,
    scalar: Scalar = 1,
    seed: MaskSeed | Sequence[MaskSeed] | None = None,
    *,
    on_clip: Literal["count", "raise"] = "count",
    threads: SupportsIndex | None = None,
    out: NDArray[np.uint8] | None = None,
) -> tuple[MaskSeed | tuple[MaskSeed, ...], MaskedModel]:
    """Scale a model, encode it and hide it under a mask (docs/spec/pet.md 3.4; docs/spec/profile.md 4).

    Args:
        weights: one dimension, of the config's data type (config.vect.dtype); with a config for integers of pet-1 also signed
            ones of that size, none of them negative. An array of NumPy, or whatever offers `__dlpack__` and lies in the memory
            of the CPU; it is not copied.
        config: mask config, or a pair for vector and scalar.
        scalar: the model's weight in the mean, 0 or more, exact; for example the participant's share of the samples. With a
            config of pet-1 at most 1 (see `ShareWeight`), with one for integers a whole number of 1 or more.
        seed: seed of the mask, or several, whose masks are all added (parts); a fresh random one if None. A seed must never
            mask two models.
        on_clip: "count" clamps scaled weights, and the scalar, to the bound of the config and counts them in
            `MaskedModel.clipped_count`; "raise" refuses them. Integers of pet-1 are never clamped.
        threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle. The result is the same
            for any number.
        out: with a config of pet-1, where the packed vector goes: contiguous uint8 of shape (length, element_bytes), such as
            the beginning of a message. Its content is undefined after an error. None makes a new array.

    Returns:
        The mask seed, to be encrypted to the sum participants, and the masked model. Several seeds come back as a tuple.

    Raises:
        ModelError: wrong type, dtype or dimension, or an array on a device; NaN or infinite weights; a negative or non-finite
            scalar, or one outside those of the config; no seed, or one twice; clipping that was to be refused; `out` of another
            type or shape, or with a config of xaynet.
        ConfigError: `threads`, or PET_THREADS, is no whole number of 1 or more.
    """
    pair = MaskConfigPair.of(config)
    used = _validate_choices(seed, on_clip)
    array = as_array(weights, pair.vect.dtype)
    validate_weights(array, pair.vect)
    exact_scalar = to_exact_scalar(scalar)
    raw = [each.to_bytes() for each in (used if isinstance(used, tuple) else (used,))]
    array = np.ascontiguousarray(array)
    _require_out(out, len(array), pair.vect)
    if isinstance(pair.vect, FieldConfig):
        masked = _mask_in_field(array, pair, exact_scalar, raw, threads, out)
    else:
        masked = _mask_in_group(array, pair, exact_scalar, raw, threads)
    vect, unit, clipped_count, is_scalar_clipped = masked
    if on_clip == "raise" and is_scalar_clipped:
        raise ModelError(f"scalar: expected at most {pair.unit.add_shift}, the bound of {pair.unit}, got more")
    if on_clip == "raise" and clipped_count:
        raise ModelError(
            f"weights: expected scalar * weight within the bound of {pair.vect}, got {clipped_count} of {len(array)} outside"
        )
    return used, MaskedModel(pair, vect, unit, clipped_count + is_scalar_clipped, len(raw))


def _require_out(out: NDArray[np.uint8] | None, length: int, config: MaskConfig) -> None:
    """Refuse an array that a vector of this length cannot be made in."""
    if out is None:
        return
    if not isinstance(config, FieldConfig):
        raise ModelError(f"out: expected none with a config of xaynet, got one with {config}")
    shape = (length, config.element_bytes)
    is_array = isinstance(out, np.ndarray) and out.dtype == np.uint8 and out.shape == shape
    if not (is_array and out.flags.c_contiguous and out.flags.writeable):
        found = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ModelError(f"out: expected writable contiguous uint8 of shape {shape}, got {found}")


def _mask_in_group(
    weights: NDArray[Any], pair: MaskConfigPair, scalar: Fraction, seeds: Sequence[bytes], threads: SupportsIndex | None
) -> tuple[kernels.Packed, int, int, bool]:
    """Mask with a config of xaynet; return vector, unit, how many weights were clipped, and whether the scalar was."""
    clamped = min(scalar, Fraction(pair.unit.add_shift))
    encoding = encoding_of(pair.vect, clamped)
    if len(seeds) == 1:
        unit_mask, position = draw_unit(seeds[0], pair)
        vect, clipped_count = parallel.update(weights, seeds[0], position, encoding, threads)
    else:
        mask, unit_mask = derive(seeds, pair, len(weights), threads)
        vect, clipped_count = kernels.mask_weights(weights, mask, encoding, out=mask)
    unit = (math.floor((clamped + pair.unit.add_shift) * pair.unit.exp_shift) + unit_mask) % pair.unit.order
    return vect, unit, clipped_count, clamped != scalar


def _mask_in_field(
    weights: NDArray[Any],
    pair: MaskConfigPair,
    scalar: Fraction,
    seeds: Sequence[bytes],
    threads: SupportsIndex | None,
    out: kernels.Packed | None,
) -> tuple[kernels.Packed, int, int, bool]:
    """Mask with a config of pet-1 (docs/spec/profile.md 4); otherwise as `_mask_in_group`."""
    config = pair.vect
    assert isinstance(config, FieldConfig), "the caller has looked"
    order, levels = config.order, config.levels
    keys = b"".join(seeds)
    if config.values is FieldValues.INT:
        if scalar.denominator != 1 or not 1 <= scalar <= levels:
            raise ModelError(f"scalar: expected a whole number from 1 to {levels} with {config}, got another")
        unit, clipped_count = scalar.numerator, 0
        vect = _integers(weights, config, threads, out)
        parallel_fields.expand_add(vect, 0, keys, order, threads)
    else:
        if scalar > 1:
            raise ModelError(f"scalar: expected at most 1 with {config}, got more: divide all by the largest (pet.ShareWeight)")
        share = float(scalar)
        unit = math.floor(share * float(levels) + 0.5)
        vect, clipped_count = parallel_fields.mask(weights, keys, share, config.bound, levels, order, threads, out)
    return vect, (unit + SummedMasks(seeds, pair, len(weights)).unit) % order, clipped_count, False


def _integers(
    weights: NDArray[Any], config: FieldConfig, threads: SupportsIndex | None, out: kernels.Packed | None
) -> kernels.Packed:
    """Return integers as packed elements, in `out` or an array of their own.

    Raises:
        ModelError: one is negative, or too large for the number of models.
    """
    width = config.element_bytes
    if weights.dtype.kind == "i" and len(weights) and weights.min() < 0:
        raise ModelError(f"weights: expected integers of 0 to {config.levels}, got {weights.min()}")
    vect = kernels.new_array((len(weights), width), np.uint8) if out is None else out
    vect.view(f"<u{width}")[:, 0] = weights
    index = parallel_fields.find_above(vect, config.levels, config.order, threads)
    if index is not None:
        raise ModelError(f"weights: expected integers of at most {config.levels}, got a larger one at index {index}")
    return vect


def _validate_choices(seed: object, on_clip: object) -> MaskSeed | tuple[MaskSeed, ...]:
    """Return the seed or the seeds to mask with."""
    if on_clip not in ("count", "raise"):
        raise ModelError(f"on_clip: expected 'count' or 'raise', got {on_clip!r}")
    if seed is None:
        return MaskSeed.generate()
    if isinstance(seed, MaskSeed):
        return seed
    if not isinstance(seed, Sequence) or isinstance(seed, (bytes, bytearray, memoryview, str)):
        raise ModelError(f"seed: expected a MaskSeed, several or None, got {type(seed).__name__}")
    validate_seeds(seed)
    if not seed:
        raise ModelError("seed: expected one or more, got none: nothing would hide the model")
    if len(set(seed)) != len(seed):
        raise ModelError("seed: expected different seeds, got one twice")
    return tuple(seed)


@dataclass(frozen=True, slots=True)
class ShareWeight:
    """How weights of any size become scalars of at most 1: `share(samples)` for `share = ShareWeight(most_samples)`.

    All that mask for one aggregation take the same `max_weight`; their mean is that of the weights themselves. Scalars whose
    largest is 1 lose no precision, shares that add up to 1 lose log2(models) bits (docs/spec/profile.md 4.1).

    Args:
        max_weight: the largest weight that anybody has, above 0, exact.

    Raises:
        ModelError: not a finite number above 0.
    """

    max_weight: Scalar

    def __post_init__(self) -> None:
        if to_exact_scalar(self.max_weight, "max_weight") == 0:
            raise ModelError("max_weight: expected more than 0, got 0")

    def __call__(self, weight: Scalar) -> Fraction:
        """Return a weight as a scalar, exact.

        Raises:
            ModelError: not a finite number from 0 to `max_weight`.
        """
        share = to_exact_scalar(weight, "weight") / to_exact_scalar(self.max_weight)
        if share > 1:
            raise ModelError(f"weight: expected at most {self.max_weight}, got {weight}")
        return share

    def total(self, scalar_sum: Fraction) -> Fraction:
        """Return the sum of the weights that a sum of scalars stands for, within the error of encoding."""
        return scalar_sum * to_exact_scalar(self.max_weight)


def encoding_of(config: MaskConfig, scalar: Fraction) -> kernels.Encoding:
    """Return how weights become elements under a config and a scalar that is already clamped to the bound."""
    scale = scalar * config.exp_shift
    return kernels.Encoding(
        order=config.order,
        offset=config.add_shift * config.exp_shift,
        scale_numerator=scale.numerator,
        scale_denominator=scale.denominator,
    )


def as_array(weights: object, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return weights as an array of NumPy that shares their memory; `dtype` is for the error.

    Raises:
        ModelError: neither an array of NumPy nor one that offers `__dlpack__`; one on a device, or one that NumPy cannot share.
    """
    if isinstance(weights, np.ndarray):
        return weights
    if not hasattr(weights, "__dlpack__") or not hasattr(weights, "__dlpack_device__"):
        raise ModelError(f"weights: expected a NumPy array of {dtype}, or one with __dlpack__, got {type(weights).__name__}")
    try:
        device, _ = weights.__dlpack_device__()
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise ModelError(f"weights: expected an array on the CPU, got {type(weights).__name__}: {error}") from error
    if device != _DLPACK_CPU:
        raise ModelError(f"weights: expected an array on the CPU, got one on device type {int(device)} of DLPack: call .cpu()")
    try:
        array: NDArray[Any] = np.from_dlpack(weights)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise ModelError(f"weights: expected an array that NumPy can share, got {type(weights).__name__}: {error}") from error
    return array


def validate_weights(weights: NDArray[Any], config: MaskConfig) -> None:
    """Check that weights are a vector of a config's data type.

    Raises:
        ModelError: they are not an array, have missing values, another dtype or more than one dimension.
    """
    expected = config.dtype
    # What counts is signed in most frameworks; that none is negative is checked with the values.
    allowed = {expected, np.dtype(f"i{expected.itemsize}")} if _is_for_integers(config) else {expected}
    if not isinstance(weights, np.ndarray):
        raise ModelError(f"weights: expected a NumPy array of {expected}, got {type(weights).__name__}")
    if isinstance(weights, np.ma.MaskedArray):
        raise ModelError("weights: expected an array without missing values, got a numpy.ma.MaskedArray: fill them first")
    if weights.dtype not in allowed or weights.ndim != 1:
        raise ModelError(f"weights: expected {expected} of one dimension, got {weights.dtype} of shape {weights.shape}")


def copy_finite(
    weights: NDArray[Any],
    memory: NDArray[np.uint8] | None = None,
    look: Callable[[NDArray[Any]], None] | None = None,
) -> NDArray[Any]:
    """Return a copy of weights of one dimension.

    Args:
        weights: finite numbers.
        memory: that the copy lies at the beginning of; its own if None.
        look: is called with each piece of the copy, while it is in the cache; all but the last have 2^17 weights.

    Raises:
        ModelError: NaN or infinity among them.
    """
    memory = kernels.new_array((weights.nbytes,), np.uint8) if memory is None else memory
    copy = memory[: weights.nbytes].view(weights.dtype)
    finite = np.empty(min(_PIECE_LENGTH, len(weights)), dtype=np.bool_)
    for start in range(0, len(weights), _PIECE_LENGTH):
        piece = copy[start : start + _PIECE_LENGTH]
        piece[:] = weights[start : start + _PIECE_LENGTH]  # looked at while it is in the cache
        if not np.isfinite(piece, out=finite[: len(piece)]).all():
            raise ModelError("model: expected finite weights, got NaN or infinity")
        if look is not None:
            look(piece)
    return copy


def _is_for_integers(config: MaskConfig) -> bool:
    return isinstance(config, FieldConfig) and config.values is FieldValues.INT


def to_exact_scalar(scalar: Scalar, name: str = "scalar") -> Fraction:
    """Return a scalar as an exact fraction; `name` is for errors.

    Raises:
        ModelError: negative, NaN, infinite, not a number, or a fraction of more than 2048 bits.
    """
    if not isinstance(scalar, (int, float, Fraction, np.integer, np.floating)):
        raise ModelError(f"{name}: expected an int, float or Fraction, got {type(scalar).__name__}")
    if isinstance(scalar, (float, np.floating)) and not math.isfinite(scalar):
        raise ModelError(f"{name}: expected a finite number, got {scalar}")
    # A NumPy float not through float(), which would round a long double.
    exact = Fraction(int(scalar)) if isinstance(scalar, np.integer) else Fraction(*scalar.as_integer_ratio())
    bits = max(exact.numerator.bit_length(), exact.denominator.bit_length())
    if bits > _MAX_SCALAR_BITS:
        raise ModelError(f"{name}: expected a fraction of at most {_MAX_SCALAR_BITS} bits, got {bits}")
    if exact < 0:
        raise ModelError(f"{name}: expected 0 or more, got {scalar}")
    return exact
