"""The interface between the REST service and the running peers.

The service calls a `FederationRuntime` and the `FederationPeer`s that it returns; a peer calls its `PeerStore`
(pet/federation/peer_store.py). Everything runs in one event loop; what takes long (rounds, statistics of many rows) goes to
threads inside. No HTTP and no NATS is known here.

Errors (pet/errors.py): `FederationValueError` for a value that cannot be used, `NotAdministratorError`, `TokenRefusedError`,
`FederationUnavailableError` when broker or admin cannot be reached in time, `FederationStateError` when the call does not fit
what is there (no statistics yet, too few rows, the peer was removed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pet.federation.formats.learning_records import PendingUnit, Piece, Taken
from pet.federation.formats.numbers import columns_by_name
from pet.federation.peer_store import PeerStore
from pet.federation.records import ContractRecord, FederationRecord, MemberList, SyncStatistics
from pet.federation.statistics.figures import Figure, Figures
from pet.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """A linear regression by least squares with intercept.

    Attributes:
        coefficients: by feature name.
        row_count: rows behind it.
        standard_errors: of the coefficients, by feature name; empty where they were not asked for.
        intercept_standard_error: of the intercept; None as above.
        r_squared: share of the target's variance that is explained; None as above.
        bounds: of the absolute errors, by the names of `pet.federation.statistics.regression.LinearRegression`.
        reasons: why a number is NaN, by the same names.
    """

    target: str
    intercept: float
    coefficients: Mapping[str, float]
    row_count: int
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    intercept_standard_error: float | None = None
    r_squared: float | None = None
    bounds: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def predict(self, columns: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the target that the regression expects for rows, given as columns by name (also a pandas table).

        Raises:
            FederationValueError: columns are missing or of different lengths, or a value is no number; names them.
        """
        matrix = columns_by_name(columns, tuple(self.coefficients))
        slopes = np.array(list(self.coefficients.values()), dtype=np.float64)
        return np.asarray(matrix @ slopes + self.intercept, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """What a peer keeps from the others for now, by the rule of minimum rows.

    Attributes:
        rows: that it has, or by which its statistics differ from those of a version that was shared.
        least: how many are needed.
        forgets: whether rows that it has forgotten are still in what the others see.
    """

    rows: int
    least: int
    forgets: bool = False


class ProjectView(Protocol):
    """A project of the statistics kind, the local or the federated one. Thread-safe; may be called outside the event loop."""

    @property
    def row_count(self) -> int:
        """The number of rows behind the statistics."""
        ...

    @property
    def features(self) -> Sequence[str]:
        """Feature names in the order of the schema."""
        ...

    def univariate(self, feature: str) -> Figures:
        """Return count, mean, variance, standard deviation, skewness, kurtosis, ...; NaN for what is undefined."""
        ...

    def covariance(self, first: str, second: str) -> Figure:
        """Return the population covariance."""
        ...

    def correlation(self, first: str, second: str) -> Figure:
        """Return the linear correlation."""
        ...

    def linear_regression(self, target: str, features: Sequence[str] | None) -> Regression:
        """Fit `target` on `features`, or on all others for None."""
        ...


class LocalProjectView(ProjectView, Protocol):
    """The local project: it also learns rows and forgets them again."""

    def take(self, source: Any, piece: Piece) -> Taken:
        """Take a piece of a table that is to be learned or forgotten; with the last one it is done, whole or not at all.

        Args:
            source: a table as `pet.federation.formats.tables.opened` takes it.
            piece: which one it is.

        Raises:
            FederationValueError: a column is missing, or a value lies outside the schema: names row and feature.
            FederationStateError: there is no schema yet; the table was learned already, or never; a piece that is not due.
        """
        ...

    @property
    def pending(self) -> Sequence[PendingUnit]:
        """The tables of which some pieces came and the last one did not."""
        ...

    @property
    def held_back(self) -> HeldBack | None:
        """What the rule of minimum rows keeps from the others for now; None for nothing."""
        ...

    @property
    def table_count(self) -> int:
        """How many different tables were learned and not forgotten."""
        ...

    def cancel(self, request: str) -> bool:
        """Drop an unfinished table; False if there is none under this id."""
        ...


class FederationPeer(Protocol):
    """One running member. The record is always the newest; every change was saved in the store before a call returns."""

    @property
    def record(self) -> FederationRecord:
        """What this peer knows now."""
        ...

    @property
    def statistics(self) -> SyncStatistics:
        """Counts since the federation was created or joined."""
        ...

    @property
    def broker_state(self) -> str:
        """Whether the broker can be used: "connected", or why not; it is tried again until it can."""
        ...

    @property
    def waits_for_admin(self) -> str | None:
        """That rounds wait for the admin, for people; None while it answers, or where there are no rounds."""
        ...

    @property
    def local_project(self) -> LocalProjectView:
        """This peer's rows.

        Raises:
            FederationStateError: the project is of the model kind.
        """
        ...

    @property
    def shared_rows(self) -> int:
        """How many rows the statistics had that the others hold of this peer; 0 before they hold any."""
        ...

    @property
    def federated_project(self) -> ProjectView:
        """The merge over the peers.

        Raises:
            FederationStateError: nothing was merged yet, or the project is of the model kind.
        """
        ...

    async def start_pulse(self) -> None:
        """Begin to pulse; nothing happens if it pulses."""
        ...

    async def stop_pulse(self) -> None:
        """End pulsing; nothing happens if it does not pulse."""
        ...

    async def new_schedule(self, text: str) -> None:
        """Change the schedule for all peers. Admin only."""
        ...

    async def request_full_sync(self) -> None:
        """Ask the others to synchronise now, outside the schedule; returns when the request is on its way."""
        ...

    async def set_contract(self, lines: Sequence[str]) -> None:
        """Replace the contract of all peers. Admin only.

        Raises:
            FederationValueError: the contract is invalid; the text says line and reason.
        """
        ...

    @property
    def proposed_contract(self) -> ContractRecord | None:
        """A change of the contract that waits for the consent of this peer's user."""
        ...

    async def accept_contract(self, number: int) -> None:
        """Let the proposed change of the contract count at this peer.

        Args:
            number: of the change that the user has seen.

        Raises:
            FederationStateError: there is none, or another one by now.
        """
        ...

    async def set_least_rows(self, rows: int) -> None:
        """Set this peer's own limit of the rule of minimum rows; 0 for attributes + 5."""
        ...

    async def validate_contract(self, lines: Sequence[str]) -> None:
        """Check names, types and syntax against the schema, not the data.

        Raises:
            FederationValueError: the contract is invalid; the text says line and reason.
        """
        ...

    async def allow_explore(self, allowed: bool) -> None:
        """Let the other peers explore this one's local project, or not."""
        ...

    async def explore(self, peer_uuid: str, function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have "univariate", "covariance", "correlation" computed on another peer's local project (spec 1.10).

        Raises:
            FederationStateError: that peer does not allow it, or the federation uses SMPC.
        """
        ...

    async def leave(self) -> None:
        """Tell the admin, and end; the admin cannot leave. The service removes what is stored afterwards."""
        ...

    async def remove_peer(self, member: str) -> None:
        """Remove another peer, by name, fingerprint or uuid, and give the rest a new federation key. Admin only."""
        ...

    async def members(self) -> MemberList:
        """Return all members as this peer sees them, with the code of the list."""
        ...

    async def confirm_member(self, member: str) -> None:
        """Note that this peer's user has compared the keys of a member with their owner.

        Raises:
            FederationValueError: no member has this name, fingerprint or uuid.
        """
        ...

    async def confirm_list(self, code: str) -> None:
        """Note that this peer's user has compared the code of the whole list with the others.

        Raises:
            FederationStateError: the list has another code; nobody was confirmed.
        """
        ...

    async def delete(self) -> None:
        """End the federation for everybody and remove its streams. Admin only; the service removes what is stored."""
        ...

    async def set_model(self, model: NDArray[np.float64], weight: float) -> None:
        """Give this peer's model vector for the next round, with its weight; for projects of the model kind."""
        ...

    def global_model(self) -> tuple[NDArray[np.float64], int]:
        """Return the last averaged model and the number of rounds so far.

        Raises:
            FederationStateError: there is none yet, or the project is of the statistics kind.
        """
        ...

    async def close(self) -> None:
        """Disconnect; what is stored stays, `is_pulsing` too, so that `restore` goes on with it."""
        ...


class FederationRuntime(Protocol):
    """Makes peers run."""

    async def create(self, record: FederationRecord, store: PeerStore) -> FederationPeer:
        """Begin a federation as its admin: connect, make the streams. Not pulsing afterwards.

        The service saves the record and opens the store before, and removes both if this raises.
        """
        ...

    async def join(self, record: FederationRecord, token: Secret, store: PeerStore) -> FederationPeer:
        """Join with a token; the answer's terms and peers replace those of the record. Not pulsing afterwards.

        Raises:
            TokenRefusedError: the admin refused; the token may still be good.
            FederationUnavailableError: broker or admin did not answer in time.
        """
        ...

    async def restore(self, record: FederationRecord, store: PeerStore) -> FederationPeer:
        """Run a stored peer again. A broker that is away is no error: it is waited for in the background."""
        ...

    async def require_accepted(self, record: FederationRecord) -> None:
        """Check that the broker takes the credential of a record; one that cannot be reached is no error.

        Raises:
            FederationStateError: the broker refuses it.
            FederationValueError: something in the record cannot be used.
        """
        ...
