"""When an aggregate may be made: the rules that keep the sums of rounds from giving one peer away.

Pure bookkeeping over who takes part with which version of its statistics. The same rules run at the peer that leads a round
and, on the list of those who take part, at each of the others, with what each of them knows itself. What a peer lets others see
of its own rows is decided before, in row_guard.py.

Source: docs/spec/federation.md 1.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pet.errors import SharingError
from pet.federation.formats.json_form import JsonForm, Whole
from pet.federation.peer.rank_test import is_combination, newly_isolated, without_settled

MIN_CONTRIBUTORS: Final = 3
MIN_CHANGED: Final = 2
#: How many versions that were shared the rule for pairs of features remembers.
MAX_AGGREGATES: Final = 64
#: How many rounds that can still matter are remembered. Rounds of n peers that change nothing between them are at most n - 1.
MAX_OPEN_ROUNDS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What the leader of a round learns of one peer's statistics before they are masked.

    Row counts are cut off at attributes + 5, which is all that the combined rule needs: their sum reaches the limit exactly
    when the sum of the true counts does. Where each peer keeps the rule for itself, they say nothing but that it does.

    Attributes:
        version: number of the state of the peer's statistics; equal versions are equal statistics.
        rows: rows in them, cut off.
        changed_rows: how many more or fewer rows the version in the last aggregate had, cut off; all rows if none had.
    """

    version: Whole
    rows: Whole
    changed_rows: Whole


@dataclass(slots=True)
class AggregateLedger:
    """Which versions of whose statistics were in each round that somebody may know the sum of.

    That is every round that this peer agreed to contribute to, whether or not a result was shown to it, and every aggregate
    that it saw: who leads a round may keep its result back.

    Attributes:
        aggregates: those that can still matter, newest last; from each peer's uuid to its version.
        rows: of each peer in the last aggregate, cut off.
        published: the versions in the last aggregate that was published.
        newest: the newest version of each peer that it signed in a round of ours.
    """

    aggregates: list[dict[str, Whole]] = field(default_factory=list)
    rows: dict[str, Whole] = field(default_factory=dict)
    published: dict[str, Whole] = field(default_factory=dict)
    newest: dict[str, Whole] = field(default_factory=dict)

    def require_aggregate(self, contributions: Mapping[str, Contribution], least_rows: int) -> None:
        """Check whether an aggregate of these contributions may be made; the leader of a round asks that.

        Raises:
            SharingError: as `require_hidden`; or the last aggregate differs from this one by nothing, or by too few rows.
        """
        self.require_hidden(contributions, least_rows)
        if not self.published:
            return
        versions = _versions(contributions)
        changed = {peer for peer in self.published.keys() | versions.keys() if self.published.get(peer) != versions.get(peer)}
        if not changed:
            raise SharingError("change since the last aggregate: expected some, got none")
        if sum(self._changed_rows(peer, contributions) for peer in changed) < least_rows:
            raise SharingError(f"changed rows: expected at least {least_rows} (attributes + 5), got fewer")

    def require_hidden(self, contributions: Mapping[str, Contribution], least_rows: int) -> None:
        """Check whether an aggregate hides each of these contributions; every peer asks that of its own ledger.

        Args:
            contributions: by peer.
            least_rows: the limit of the combined rule; 0 where every peer keeps the rule of minimum rows for itself.

        Raises:
            SharingError: fewer than 3 peers; too few rows together; a version that was replaced; or a peer whose statistics, or
                their change, would follow from this sum and those of earlier rounds.
        """
        if len(contributions) < MIN_CONTRIBUTORS:
            raise SharingError(f"contributing peers: expected at least {MIN_CONTRIBUTORS}, got {len(contributions)}")
        if sum(contribution.rows for contribution in contributions.values()) < least_rows:
            raise SharingError(f"rows of all peers: expected at least {least_rows} (attributes + 5), got fewer")
        versions = _versions(contributions)
        for peer, version in versions.items():
            if version < self.newest.get(peer, 0):
                raise SharingError(f"version of peer {peer}: expected {self.newest[peer]} or a later one, got {version}")
        if alone := newly_isolated(self.aggregates, versions):
            raise SharingError(
                f"change since earlier rounds: expected at least {MIN_CHANGED} peers to change together, "
                f"got peer {alone[0]} alone"
            )
        if len(self.aggregates) >= MAX_OPEN_ROUNDS and not is_combination(self.aggregates, versions):
            raise SharingError(f"rounds that can be combined: expected at most {MAX_OPEN_ROUNDS}, got one more")

    def agree(self, contributions: Mapping[str, Contribution]) -> None:
        """Remember a round that this peer contributes to, before its vector leaves; save the ledger then."""
        versions = _versions(contributions)
        for peer, version in versions.items():
            self.newest[peer] = max(version, self.newest.get(peer, 0))
        self._remember(versions)

    def record(self, contributions: Mapping[str, Contribution]) -> None:
        """Remember an aggregate that is about to be published."""
        self.agree(contributions)
        self.published = _versions(contributions)
        self.rows = {peer: contribution.rows for peer, contribution in contributions.items()}

    def record_versions(self, versions: Mapping[str, int]) -> None:
        """Remember an aggregate that somebody else published."""
        self.published = dict(versions)
        self._remember(self.published)

    def _remember(self, versions: dict[str, int]) -> None:
        if not is_combination(self.aggregates, versions):
            self.aggregates.append(versions)
        self.aggregates = [dict(one) for one in without_settled(self.aggregates, self.newest)][-MAX_OPEN_ROUNDS:]

    def has_news(self, contributions: Mapping[str, Contribution]) -> bool:
        """Return whether an aggregate of these would differ from the last one."""
        return not self.published or _versions(contributions) != self.published

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> AggregateLedger:
        """Read a ledger as it is stored, by an earlier release too, which remembered published aggregates alone.

        Raises:
            FederationValueError: it is none.
        """
        ledger = _FORM.read(fields)
        if "published" not in fields and ledger.aggregates:
            ledger.published = dict(ledger.aggregates[-1])
        return ledger

    def _changed_rows(self, peer: str, contributions: Mapping[str, Contribution]) -> int:
        """Return how many rows a changed peer's part of the difference is made of: all of them if it came or went."""
        if peer not in contributions:
            return self.rows.get(peer, 0)
        contribution = contributions[peer]
        return contribution.changed_rows if peer in self.published else contribution.rows


_FORM: Final = JsonForm(AggregateLedger)


def _versions(contributions: Mapping[str, Contribution]) -> dict[str, int]:
    return {peer: contribution.version for peer, contribution in contributions.items()}
