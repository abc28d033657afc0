"""What a peer brings to a round and takes from it, where the project is of the model kind.

Source: docs/spec/federation.md 1.5 - 1.7.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationStateError, NothingNewError, RemoteProtocolError
from pet.federation.peer.calling import Contribution
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import Offer, RoundVector, note_shared
from pet.federation.peer.project import ModelProject
from pet.mask_config import MaskConfig


class ModelContributor:
    """A project of the model kind."""

    def __init__(self, context: PeerContext, project: ModelProject) -> None:
        self._context: Final = context
        self._project: Final = project
        self.least_rows: Final = 0

    @property
    def element_count(self) -> int:
        """Weights of a model."""
        return self._project.shape.length

    def round_config(self, peer_count: int) -> MaskConfig:
        """Return how models are masked: weights in z64."""
        return self._project.round_config(peer_count)

    @property
    def schema_digest(self) -> bytes:
        """A digest of what models have to agree in."""
        return self._project.shape.digest

    def offer(self) -> Offer:
        """Return the model, if it was not in the last average."""
        counters, version = self._context.counters, self._project.version
        if version <= counters.shared_version:
            raise NothingNewError("model: expected a new one, got none since the last round")
        vector, scalar = self._project.to_round()
        counters.offered_version, counters.offered_rows = version, 0
        self._context.count(send_count=1)
        return Offer(
            for_round=lambda _peer_count: RoundVector(numbers=vector, scalar=scalar),
            contribution=Contribution(version=version, rows=0, changed_rows=0),
        )

    def agree(self, offer: Offer) -> None:
        """Note nothing: versions of models are compared by the ledger alone."""

    def from_totals(self, totals: NDArray[Any], peer_count: int) -> NDArray[np.float64]:  # noqa: ARG002 - the interface's
        """Return the average, which the round has computed."""
        return self._project.checked_average(totals)

    def encode(self, aggregate: NDArray[np.float64]) -> bytes:
        """Return an average as the other peers get it: little-endian float64."""
        return aggregate.astype("<f8").tobytes()

    def decode(self, data: bytes, peer_count: int) -> NDArray[np.float64]:  # noqa: ARG002 - the interface's
        """Read an average."""
        if len(data) != 8 * self._project.shape.length:
            raise RemoteProtocolError("malformed_model", f"model: expected {self._project.shape.length} weights, got others")
        try:
            return self._project.checked_average(np.frombuffer(data, dtype="<f8").astype(np.float64))
        except FederationStateError as error:
            raise RemoteProtocolError("malformed_model", str(error)) from None

    def take(
        self,
        aggregate: NDArray[np.float64],
        round_id: int,
        contributors: dict[str, int],
        sender: str,  # noqa: ARG002 - the interface's
    ) -> bool:
        """Make an average the global model."""
        self._context.counters.aggregate_round = round_id
        self._context.count(receive_count=1)
        self._project.set_average(aggregate)
        note_shared(self._context, contributors)
        return True
