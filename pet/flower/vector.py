"""An update of Flower as one vector, and a mean of such vectors as an update: deltas of floats, then integers and metrics.

Floats travel as what training changed, in the data type of the round's config. Each integer (its change) and each metric takes
two elements, a coarse and a fine one, so that a mean of integers is right to the last digit whatever the step for floats is.

Layout: floats by name; integers and booleans by name; METRIC_COUNT metrics by name, the rest 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import ModelError
from pet.field_config import FieldConfig
from pet.packing import Packing, pack

#: Numbers beside the weights that an update of any app may report.
METRIC_COUNT: Final = 16
#: The largest absolute value of a metric.
METRIC_BOUND: Final = 2.0**20
#: The largest change of an integer in one round.
COUNT_BOUND: Final = 2.0**31
#: Steps of the coarse element between 0 and 1.
_COARSE: Final = 2.0**12


@dataclass(frozen=True, slots=True)
class UpdateLayout:
    """Where the parts of an update lie in its vector.

    Attributes:
        packing: of the arrays that a round starts from.
        weights: these arrays' floats.
        counts: their integers.
        bound: A of the round's config: what is beyond it is clamped.
        dtype: of a vector, that config's.
    """

    packing: Packing
    weights: NDArray[Any]
    counts: NDArray[Any]
    bound: float
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], config: FieldConfig) -> UpdateLayout:
        """Return the layout of the updates of a round that starts from these arrays.

        Raises:
            ModelError: `pet.pack` refuses them.
        """
        weights, counts, packing = pack(dict(arrays))
        return cls(packing, weights, counts, config.bound, config.dtype)

    @property
    def length(self) -> int:
        """Elements of a vector."""
        return self.packing.weight_count + 2 * (self.packing.count_count + METRIC_COUNT)

    def base_bytes(self) -> bytes:
        """Return what the digest of the round's model covers: floats, then integers."""
        return b"".join([self.weights.data, self.counts.data])

    def digest(self, metric_names: Sequence[str]) -> str:
        """Return what updates that can be added have in common."""
        return hashlib.sha256(ascii((self.packing.digest, sorted(metric_names))).encode()).hexdigest()[:16]

    def encode(self, arrays: Mapping[str, NDArray[Any]], metrics: Mapping[str, float]) -> NDArray[Any]:
        """Return an update as a vector.

        Args:
            arrays: after training.
            metrics: numbers by name, without the weight.

        Raises:
            ModelError: arrays of another layout, a change or a metric that is not finite or too large, too many metrics.
        """
        weights, counts, packing = pack(dict(arrays))
        if packing.digest != self.packing.digest:
            raise ModelError("arrays: expected names, shapes, dtypes and ties as the server sent them, got others")
        if len(metrics) > METRIC_COUNT:
            raise ModelError(f"metrics: expected at most {METRIC_COUNT} beside the weight, got {len(metrics)}")
        vector = np.zeros(self.length, self.dtype)
        floats, integers, numbers = self._parts(vector)
        exact = np.result_type(weights, self.dtype)  # a difference of float32 in float64, where the vector is
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            np.subtract(weights, self.weights, out=floats, dtype=exact, casting="same_kind")
        if not np.isfinite(floats).all():
            raise ModelError("arrays: expected finite changes, got others: the model diverged")
        _split(counts.astype(np.float64) - self.counts.astype(np.float64), COUNT_BOUND, self.bound, integers, "integers")
        values = np.array([float(metrics[name]) for name in sorted(metrics)])
        _split(values, METRIC_BOUND, self.bound, numbers[: 2 * len(values)], "metrics")
        return vector

    def decode(self, mean: NDArray[Any], metric_names: Sequence[str]) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
        """Return the mean update as arrays, with their dtypes, and as metrics.

        Raises:
            ModelError: a value that an array's dtype does not hold.
        """
        floats, integers, numbers = self._parts(mean.astype(np.float64))
        weights = self.weights.astype(np.float64) + floats
        counts = self.counts.astype(np.float64) + _join(integers, COUNT_BOUND, self.bound)
        values = _join(numbers, METRIC_BOUND, self.bound)
        return self.packing.unpack(weights, counts), dict(zip(sorted(metric_names), values.tolist(), strict=False))

    def _parts(self, vector: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        first = self.packing.weight_count
        second = first + 2 * self.packing.count_count
        return vector[:first], vector[first:second], vector[second:]


def _split(values: NDArray[Any], most: float, bound: float, out: NDArray[Any], name: str) -> None:
    """Write each value as two: multiples of 1/4096 of `most`, and what is left, enlarged; both within half the bound or it."""
    if not (np.abs(values) <= most).all():
        raise ModelError(f"{name}: expected finite numbers, changed by at most {most:g}, got others")
    shares = values / most
    coarse = np.round(shares * _COARSE) / _COARSE
    out[0::2] = coarse * bound
    out[1::2] = (shares - coarse) * _COARSE * bound


def _join(pairs: NDArray[Any], most: float, bound: float) -> NDArray[Any]:
    return (pairs[0::2] + pairs[1::2] / _COARSE) / bound * most
