"""What a peer brings to a round and takes from it, for either kind of project.

Two small classes with the same methods. They keep the rule of minimum rows, check the contract on aggregates, and note what
was offered and shared; rounds and messages are not known here. The contract is never checked on what a peer contributes: taking
part or not would tell the others what it says of that peer's own rows.

Source: docs/spec/federation.md 1.5 - 1.7, 1.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pet.crypto import hash_sha256
from pet.errors import NothingNewError, RemoteProtocolError
from pet.federation.peer.context import PeerContext
from pet.federation.peer.local_project import LocalProject
from pet.federation.peer.project import FederatedProject, ModelProject
from pet.federation.peer.row_guard import Offered
from pet.federation.peer.sharing_rules import Contribution
from pet.federation.records import FailureAction, Mode
from pet.federation.statistics.contract import Contract
from pet.federation.statistics.statistics import Statistics

_Aggregate = TypeVar("_Aggregate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a peer brings to a round.

    Attributes:
        vector: float64.
        scalar: its weight.
        contribution: what the sharing rules need to know of it.
        offered: the statistics; None for a model.
    """

    vector: NDArray[np.float64]
    scalar: Fraction
    contribution: Contribution
    offered: Offered | None = None


class Contributor(Protocol[_Aggregate]):
    """A project as rounds see it, with the kind of aggregate that they make of it."""

    @property
    def vector_length(self) -> int:
        """Numbers in a vector.

        Raises:
            FederationStateError: not known yet.
        """
        ...

    @property
    def schema_digest(self) -> bytes:
        """32 bytes that are the same at all peers whose vectors may be added up.

        Raises:
            FederationStateError: not known yet.
        """
        ...

    @property
    def least_rows(self) -> int:
        """The limit of the combined rule; 0 where each peer keeps the rule of minimum rows for itself, or there are no rows."""
        ...

    def offer(self) -> Offer:
        """Return what there is to contribute, and note that it was offered.

        Raises:
            NothingNewError: nothing; the text is the same whatever the reason.
        """
        ...

    def agree(self, offer: Offer) -> None:
        """Note durably that an offer is about to leave this peer."""
        ...

    def from_round(self, means: NDArray[np.float64], scalar_sum: Fraction) -> _Aggregate:
        """Return the aggregate from the result of a round.

        Raises:
            FederationStateError: it cannot be a true result.
        """
        ...

    def encode(self, aggregate: _Aggregate) -> bytes:
        """Return an aggregate as the other peers get it."""
        ...

    def decode(self, data: bytes) -> _Aggregate:
        """Read an aggregate that another peer made.

        Raises:
            RemoteProtocolError: it is none.
        """
        ...

    def take(self, aggregate: _Aggregate, round_id: int, contributors: dict[str, int], sender: str) -> bool:
        """Take an aggregate; False if the contract forbids it."""
        ...


def check_contract(context: PeerContext, statistics: Statistics) -> str | None:
    """Return what is wrong with statistics, as one text; None if the contract holds."""
    failures = Contract.parse(context.terms.contract.lines).failures(statistics)
    return f"Contract validation failed: {'; '.join(failures)}" if failures else None


class StatisticsContributor:
    """A project of the statistics kind."""

    def __init__(self, context: PeerContext, local: LocalProject, federated: FederatedProject) -> None:
        self._context: Final = context
        self._local: Final = local
        self._federated: Final = federated

    @property
    def vector_length(self) -> int:
        """Numbers in a vector."""
        return self._local.snapshot().schema.layout.length

    @property
    def schema_digest(self) -> bytes:
        """The digest of the schema that this peer's rows are of."""
        return self._local.snapshot().schema.digest

    @property
    def least_rows(self) -> int:
        """The limit of the combined rule."""
        return 0 if self._context.terms.mode is Mode.NATIVE else self._local.snapshot().schema.least_rows

    def offer(self) -> Offer:
        """Return the statistics of this peer's rows: the newest, or those that were shared last, as the rule says."""
        context, counters = self._context, self._context.counters
        if (offered := self._local.offered()) is None:
            raise NothingNewError("rows: expected some to share, got none")
        statistics, limit = offered.statistics, offered.statistics.schema.least_rows
        rows, changed = statistics.rows, statistics.rows
        if counters.shared_version:
            changed = abs(statistics.rows - counters.shared_rows)
        if context.terms.mode is Mode.NATIVE:
            rows, changed = limit, limit if offered.is_new else 0  # its own rule holds, and nobody needs to know by how much
        contribution = Contribution(version=offered.version, rows=min(rows, limit), changed_rows=min(changed, limit))
        counters.offered_version, counters.offered_rows = offered.version, statistics.rows
        context.count(send_count=1)
        vector, scalar = statistics.to_round()
        return Offer(vector=vector, scalar=scalar, contribution=contribution, offered=offered)

    def agree(self, offer: Offer) -> None:
        """Note durably which version is about to leave this peer."""
        assert offer.offered is not None, "an offer of statistics"
        self._local.note_shared(offer.offered)

    def from_round(self, means: NDArray[np.float64], scalar_sum: Fraction) -> Statistics:
        """Return the merged statistics."""
        # Without the number of peers, which the announcement of an aggregate names anyway; see `take`.
        return Statistics.from_round(means, scalar_sum, self._local.snapshot().schema, peers=0)

    def encode(self, aggregate: Statistics) -> bytes:
        """Return merged statistics as the other peers get them."""
        return aggregate.to_bytes()

    def decode(self, data: bytes) -> Statistics:
        """Read merged statistics."""
        return Statistics.from_bytes(data, self._local.snapshot().schema)

    def take(self, aggregate: Statistics, round_id: int, contributors: dict[str, int], sender: str) -> bool:
        """Make merged statistics the federated project."""
        context, counters, statistics = self._context, self._context.counters, aggregate.copy()
        statistics.masked_peers = len(contributors)
        counters.aggregate_round = round_id
        context.count(receive_count=1)
        if (problem := check_contract(context, statistics)) is not None:
            context.count_receive_contract_error(sender)
            context.log_error(problem)
            if context.record.receive_failure_action is FailureAction.BLOCK:
                return False
        self._federated.set_aggregate(statistics)
        _note_shared(context, contributors)
        return True


class ModelContributor:
    """A project of the model kind."""

    def __init__(self, context: PeerContext, project: ModelProject) -> None:
        self._context: Final = context
        self._project: Final = project
        self.least_rows: Final = 0

    @property
    def vector_length(self) -> int:
        """Numbers in a vector."""
        return self._project.length

    @property
    def schema_digest(self) -> bytes:
        """A digest of the number of weights, which is all that models have to agree in."""
        return hash_sha256(f"model {self._project.length}".encode())

    def offer(self) -> Offer:
        """Return the model, if it was not in the last average."""
        counters, version = self._context.counters, self._project.version
        if version <= counters.shared_version:
            raise NothingNewError("model: expected a new one, got none since the last round")
        vector, scalar = self._project.to_round()
        counters.offered_version, counters.offered_rows = version, 0
        self._context.count(send_count=1)
        return Offer(vector=vector, scalar=scalar, contribution=Contribution(version=version, rows=0, changed_rows=0))

    def agree(self, offer: Offer) -> None:
        """Note nothing: versions of models are compared by the ledger alone."""

    def from_round(self, means: NDArray[np.float64], scalar_sum: Fraction) -> NDArray[np.float64]:  # noqa: ARG002 - the interface's
        """Return the average."""
        return means

    def encode(self, aggregate: NDArray[np.float64]) -> bytes:
        """Return an average as the other peers get it: little-endian float64."""
        return aggregate.astype("<f8").tobytes()

    def decode(self, data: bytes) -> NDArray[np.float64]:
        """Read an average."""
        if len(data) != 8 * self._project.length:
            raise RemoteProtocolError("malformed_model", f"model: expected {self._project.length} weights, got others")
        model = np.frombuffer(data, dtype="<f8").astype(np.float64)
        if not np.isfinite(model).all():
            raise RemoteProtocolError("malformed_model", "model: expected finite weights")
        return model

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
        _note_shared(self._context, contributors)
        return True


def _note_shared(context: PeerContext, contributors: dict[str, int]) -> None:
    """Note what of this peer is in the aggregate that was taken."""
    counters = context.counters
    counters.aggregate_contributors = contributors
    version = contributors.get(context.uuid)
    if version is None:
        counters.shared_version, counters.shared_rows = 0, 0
    elif version == counters.offered_version:
        counters.shared_version, counters.shared_rows = version, counters.offered_rows
    context.save()
