"""What a peer brings to a round and takes from it, for either kind of project; and what it is with statistics.

Two small classes with the same methods, that of models in model_contributor.py. They keep the rule of minimum rows, check the
contract on aggregates, and note what was offered and shared; rounds and messages are not known here. The contract is never
checked on what a peer contributes: taking part or not would tell the others what it says of that peer's own rows.

Source: docs/spec/federation.md 1.5 - 1.7, 1.9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Protocol, TypeVar

from numpy.typing import NDArray

from pet.errors import NothingNewError, RemoteProtocolError, StatisticsError
from pet.federation.peer.calling import Contribution
from pet.federation.peer.context import PeerContext
from pet.federation.peer.local_project import LocalProject
from pet.federation.peer.project import FederatedProject
from pet.federation.peer.row_guard import Offered
from pet.federation.records import FailureAction, Mode
from pet.federation.statistics.contract import Contract
from pet.federation.statistics.round_integers import RoundIntegers
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics
from pet.mask_config import MaskConfig

_Aggregate = TypeVar("_Aggregate")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundVector:
    """What is masked for a round of pet/1, under `Contributor.round_config`.

    Attributes:
        numbers: uint64 of statistics, which are added up as they are; float64 of a model, of which a round makes a weighted
            mean.
        scalar: the weight; 1 for statistics.
    """

    numbers: NDArray[Any]
    scalar: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a peer brings to a round.

    Attributes:
        for_round: returns the vector for a round of a number of peers, in a tenth of a second for millions of numbers;
            StatisticsError where this peer has more rows than such a round takes.
        contribution: what the sharing rules need to know of it.
        offered: the statistics; None for a model.
    """

    for_round: Callable[[int], RoundVector]
    contribution: Contribution
    offered: Offered | None = None


class Contributor(Protocol[_Aggregate]):
    """A project as rounds see it, with the kind of aggregate that they make of it."""

    @property
    def element_count(self) -> int:
        """Elements of a vector of pet/1, the unit not counted; the same for any number of peers.

        Raises:
            FederationStateError: not known yet.
        """
        ...

    def round_config(self, peer_count: int) -> MaskConfig:
        """Return how vectors are masked in a round of that number of peers.

        Raises:
            FederationStateError: not known yet; or more peers than there may be.
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

    def from_totals(self, totals: NDArray[Any], peer_count: int) -> _Aggregate:
        """Return the aggregate from what the model of a round of pet/1 decodes to.

        Args:
            totals: uint64 totals under a config of integers, float64 means under one of weights; `element_count` of them.
            peer_count: how many contributed.

        Raises:
            FederationStateError: it cannot be a true result.
        """
        ...

    def encode(self, aggregate: _Aggregate) -> bytes:
        """Return an aggregate as the other peers get it."""
        ...

    def decode(self, data: bytes, peer_count: int) -> _Aggregate:
        """Read an aggregate that another peer made from a round of that number of peers.

        Raises:
            RemoteProtocolError: it is none, or cannot be a true result.
        """
        ...

    def take(self, aggregate: _Aggregate, round_id: int, contributors: dict[str, int], sender: str) -> bool:
        """Take an aggregate; False if the contract forbids it."""
        ...


def check_contract(context: PeerContext, statistics: Statistics) -> str | None:
    """Return what is wrong with statistics, as one text; None if the contract holds."""
    failures = Contract.parse(context.terms.contract.lines).failures(statistics)
    return f"Contract validation failed: {'; '.join(failures)}" if failures else None


def note_shared(context: PeerContext, contributors: dict[str, int]) -> None:
    """Note what of this peer is in the aggregate that was taken."""
    counters = context.counters
    counters.aggregate_contributors = contributors
    version = contributors.get(context.uuid)
    if version is None:
        counters.shared_version, counters.shared_rows = 0, 0
    elif version == counters.offered_version:
        counters.shared_version, counters.shared_rows = version, counters.offered_rows
    context.save()


class StatisticsContributor:
    """A project of the statistics kind."""

    def __init__(self, context: PeerContext, local: LocalProject, federated: FederatedProject) -> None:
        self._context: Final = context
        self._local: Final = local
        self._federated: Final = federated

    @property
    def element_count(self) -> int:
        """Elements of a vector of pet/1, the unit not counted."""
        return RoundIntegers(self._schema, 1).length

    def round_config(self, peer_count: int) -> MaskConfig:
        """Return how statistics are masked: integers in z64."""
        return RoundIntegers(self._schema, peer_count).config

    @property
    def _schema(self) -> Schema:
        return self._local.snapshot().schema

    @property
    def schema_digest(self) -> bytes:
        """The digest of the schema that this peer's rows are of."""
        return self._schema.digest

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

        def for_round(peer_count: int) -> RoundVector:
            return RoundVector(numbers=RoundIntegers(statistics.schema, peer_count).encode(statistics), scalar=Fraction(1))

        return Offer(contribution=contribution, offered=offered, for_round=for_round)

    def agree(self, offer: Offer) -> None:
        """Note durably which version is about to leave this peer."""
        assert offer.offered is not None, "an offer of statistics"
        self._local.note_shared(offer.offered)

    def from_totals(self, totals: NDArray[Any], peer_count: int) -> Statistics:
        """Return the merged statistics, exactly."""
        return RoundIntegers(self._schema, peer_count).decode(totals)

    def encode(self, aggregate: Statistics) -> bytes:
        """Return merged statistics as the other peers get them."""
        return aggregate.to_bytes()

    def decode(self, data: bytes, peer_count: int) -> Statistics:
        """Read merged statistics."""
        statistics = Statistics.from_bytes(data, self._schema)
        try:
            RoundIntegers(self._schema, peer_count).require_result(statistics)
        except StatisticsError as error:
            raise RemoteProtocolError("impossible_statistics", str(error)) from None
        return statistics

    def take(self, aggregate: Statistics, round_id: int, contributors: dict[str, int], sender: str) -> bool:
        """Make merged statistics the federated project."""
        context, counters = self._context, self._context.counters
        counters.aggregate_round = round_id
        context.count(receive_count=1)
        if (problem := check_contract(context, aggregate)) is not None:
            context.count_receive_contract_error(sender)
            context.log_error(problem)
            if context.record.receive_failure_action is FailureAction.BLOCK:
                return False
        self._federated.set_aggregate(aggregate)
        note_shared(context, contributors)
        return True
