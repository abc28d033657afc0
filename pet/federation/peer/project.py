"""What can be asked of a project with statistics, the merge over all peers; and, of the other kind, a model vector.

They hold numbers and save them; they send nothing and know no message. Thread-safe: statistics are replaced, never changed
while somebody reads them.

Source: docs/spec/federation.md 1.1, 1.5 (receive rule 4), 1.9.
"""

from __future__ import annotations

import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationStateError, FederationValueError, StateError
from pet.federation.formats.model_shape import ModelShape
from pet.federation.formats.numbers import to_floats
from pet.federation.peer_store import PeerStore
from pet.federation.runtime import Regression
from pet.federation.statistics import analysis
from pet.federation.statistics.figures import Figure, Figures
from pet.federation.statistics.possibility import MAX_PEERS
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics
from pet.field_config import FieldConfig
from pet.mask_choices import Derivation, FieldValues

_VERSION: Final = struct.Struct(">Q")
_FEDERATED: Final = "federated"
_MODEL: Final = "model"
_AVERAGE: Final = "average"


class StatisticsView(ABC):
    """What can be asked of a project with statistics."""

    @abstractmethod
    def snapshot(self) -> Statistics:
        """Return the statistics as they are now; nobody changes them afterwards.

        Raises:
            FederationStateError: there are none yet.
        """

    @property
    def row_count(self) -> int:
        """The number of rows behind the statistics."""
        return self.snapshot().rows

    @property
    def features(self) -> Sequence[str]:
        """Feature names in the order of the schema."""
        return self.snapshot().schema.names

    def univariate(self, feature: str) -> Figures:
        """Return count, mean, variance and so on (see `analysis.Univariate`); NaN for what is undefined."""
        found = analysis.univariate(self.snapshot(), feature)
        numbers = {key: value for key, value in asdict(found).items() if isinstance(value, int | float)}
        return Figures(numbers, bounds=found.bounds, reasons=found.reasons)

    def covariance(self, first: str, second: str) -> Figure:
        """Return the population covariance."""
        return analysis.covariance(self.snapshot(), [first, second]).figure(0, 1)

    def correlation(self, first: str, second: str) -> Figure:
        """Return the linear correlation."""
        return analysis.correlation(self.snapshot(), [first, second]).figure(0, 1)

    def linear_regression(self, target: str, features: Sequence[str] | None) -> Regression:
        """Fit `target` on `features`, or on all others for None; see `regression.linear_regression`."""
        fit = analysis.linear_regression(self.snapshot(), target, features)
        return Regression(
            target=target,
            intercept=fit.intercept,
            coefficients=dict(zip(fit.features, map(float, fit.coefficients), strict=True)),
            row_count=fit.rows,
            standard_errors=dict(zip(fit.features, map(float, fit.standard_errors), strict=True)),
            intercept_standard_error=fit.intercept_standard_error,
            r_squared=fit.r_squared,
            bounds=fit.bounds,
            reasons=fit.reasons,
        )


class FederatedProject(StatisticsView):
    """The merge over the peers: an aggregate that came from a round, or the local project and the latest of each other peer.

    Args:
        store: where it is kept.
        local: what others may see of this peer's own rows; None where aggregates come from rounds.
        peers: whose latest statistics may be in the store.
    """

    def __init__(self, store: PeerStore, local: StatisticsView | None, peers: Iterable[str]) -> None:
        self._store: Final = store
        self._local: Final = local
        self._lock: Final = threading.Lock()
        self._latest: dict[str, Statistics] = {}
        self._aggregate: Statistics | None = None
        self._peers = tuple(peers)

    def load(self, schema: Schema) -> None:
        """Read what the store has, now that the schema is known."""
        with self._lock, StateError.reading("merged statistics"):
            if (saved := self._store.load_state(_FEDERATED)) is not None:
                self._aggregate = Statistics.from_bytes(saved, schema)
                # Earlier versions did not keep how many peers a round had; at most as many as there are rows.
                if not self._aggregate.masked_peers:
                    self._aggregate.decimal_peers = self._aggregate.decimal_peers or self._aggregate.rows
            for peer in self._peers:
                if (saved := self._store.load_state(f"{_FEDERATED}.{peer}")) is not None:
                    self._latest[peer] = Statistics.from_bytes(saved, schema)

    def snapshot(self) -> Statistics:
        """Return the merged statistics.

        Raises:
            FederationStateError: nothing was merged yet.
        """
        with self._lock:
            if self._local is None:
                if self._aggregate is None:
                    raise FederationStateError("federated project: expected a finished round, got none yet")
                return self._aggregate
            if not self._latest:
                raise FederationStateError("federated project: expected statistics of another peer, got none yet")
            return sum(self._latest.values(), start=self._local.snapshot())  # the same at all peers

    def set_aggregate(self, aggregate: Statistics) -> None:
        """Take the result of a round."""
        with self._lock:
            self._store.save_state(_FEDERATED, aggregate.to_bytes(with_residues=True))
            self._aggregate = aggregate

    def latest(self, peer: str) -> Statistics | None:
        """Return what a peer sent last, all in all."""
        return self._latest.get(peer)

    def set_latest(self, peer: str, statistics: Statistics | None) -> None:
        """Take the statistics of another peer in place of earlier ones; None for a peer that is gone."""
        with self._lock:
            saved = None if statistics is None else statistics.to_bytes(with_residues=True)
            self._store.save_state(f"{_FEDERATED}.{peer}", saved)
            if statistics is None:
                self._latest.pop(peer, None)
            else:
                self._latest[peer] = statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalAverage:
    """The last averaged model.

    Attributes:
        model: the weighted mean.
        rounds: how many there were.
    """

    model: NDArray[np.float64]
    rounds: int


class ModelProject:
    """A project of the model kind: this peer's model vector with its weight, and the last average.

    Args:
        store: where they are kept.
        shape: of the federation's models.

    Attributes:
        version: grows with every model that is set.
        average: the last average; None before the first.
    """

    def __init__(self, store: PeerStore, shape: ModelShape) -> None:
        self.shape: Final = shape
        self._store: Final = store
        self.version = 0
        self._model: NDArray[np.float64] | None = None
        self._weight = 0.0
        self.average: GlobalAverage | None = None
        with StateError.reading("model of this peer"):
            if (saved := store.load_state(_MODEL)) is not None:
                self.version, self._weight = struct.unpack_from(">Qd", saved)
                self._model = self._read_weights(saved, 16)
                if not 0 < self._weight <= shape.max_weight:
                    raise StateError(f"expected a weight above 0 and at most {shape.max_weight:g}, got {self._weight}")
            if (saved := store.load_state(_AVERAGE)) is not None:
                model = self._read_weights(saved, _VERSION.size)
                self.average = GlobalAverage(model=model, rounds=_VERSION.unpack_from(saved)[0])

    def _read_weights(self, saved: bytes, start: int) -> NDArray[np.float64]:
        if len(saved) != start + 8 * self.shape.length:
            raise StateError(f"expected {self.shape.length} weights, got {len(saved)} bytes")
        weights = np.frombuffer(saved, dtype="<f8", offset=start).astype(np.float64)
        if not np.isfinite(weights).all():
            raise StateError("expected finite weights, got others")
        return weights

    def set_model(self, model: NDArray[Any], weight: float) -> None:
        """Take a model for the next round.

        Raises:
            FederationValueError: another length, values that are not finite or beyond the bound, or a weight that is not
                above 0 or beyond the largest.
        """
        shape = self.shape
        values = to_floats(model, "model")
        if values.shape != (self.shape.length,):
            raise FederationValueError(f"model: expected {self.shape.length} weights, got an array of shape {values.shape}")
        if not (np.abs(values) <= shape.bound).all():
            raise FederationValueError(f"model: expected weights from {-shape.bound:g} to {shape.bound:g}")
        if not 0 < weight <= shape.max_weight:
            raise FederationValueError(f"weight: expected above 0 and at most {shape.max_weight:g}, got {weight}")
        data = struct.pack(">Qd", self.version + 1, weight) + values.astype("<f8").tobytes()
        self._store.save_state(_MODEL, data)
        self._model, self._weight, self.version = values.copy(), float(weight), self.version + 1

    def to_round(self) -> tuple[NDArray[np.float64], Fraction]:
        """Return what goes into a round: the model, and weight / max_weight as the scalar.

        Raises:
            FederationStateError: no model was set.
        """
        if self._model is None:
            raise FederationStateError("model: expected one to contribute, got none yet")
        return self._model, Fraction(self._weight) / Fraction(self.shape.max_weight)

    def round_config(self, peer_count: int) -> FieldConfig:
        """Return how models are masked: weights in z64, for twice as many models, so that totals of rubbish are noticed.

        Raises:
            FederationStateError: more peers than a round may have.
        """
        if not 1 <= peer_count <= MAX_PEERS:
            raise FederationStateError(f"peers of a round: expected 1 to {MAX_PEERS}, got {peer_count}")
        return FieldConfig(Derivation.Z64, FieldValues.F64, 2 * peer_count, self.shape.bound)

    def checked_average(self, means: NDArray[Any]) -> NDArray[np.float64]:
        """Return the means of a round, if models can have them.

        Raises:
            FederationStateError: another length, or values that are not finite or beyond those of models.
        """
        if means.shape != (self.shape.length,) or means.dtype != np.float64:
            raise FederationStateError(
                f"average: expected {self.shape.length} float64, got {means.dtype} of shape {means.shape}"
            )
        # What encoding loses may lift a mean over the bound; a leader that made one up could as well have stayed below.
        bound = self.shape.bound
        if not (np.abs(means) <= 2 * bound).all():
            raise FederationStateError(f"average: expected weights from {-bound:g} to {bound:g}, got others")
        return means

    def set_average(self, model: NDArray[np.float64]) -> None:
        """Take the result of a round."""
        rounds = 1 if self.average is None else self.average.rounds + 1
        self._store.save_state(_AVERAGE, _VERSION.pack(rounds) + model.astype("<f8").tobytes())
        self.average = GlobalAverage(model=model, rounds=rounds)
