"""When statistics may leave a peer, and when an aggregate may be made: the rules that keep rows from being solved for.

Pure bookkeeping over counts; the same rules run at the peer that leads a round and, on the list of those who take part, at each
of the others.

Source: docs/spec/federation.md 1.7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pet.errors import SharingError
from pet.federation.schema import Schema
from pet.federation.statistics import Statistics

MIN_CONTRIBUTORS: Final = 3
MIN_CHANGED: Final = 2
#: How many aggregates are remembered; each next one is held against all of them.
MAX_AGGREGATES: Final = 64


def require_least_rows(schema: Schema, current: Statistics, shared: Statistics | None) -> None:
    """Check the statistics that a peer is about to show to others in the plain exchange, and their difference from the last.

    The rows behind a difference are at least the absolute difference of the row counts. That is what counts, so rows that are
    replaced by as many others have to wait until more come: learning and forgetting one row again and again adds nothing.

    Raises:
        SharingError: too few rows, all in all or in the difference.
    """
    least = schema.least_rows
    if current.rows < least:
        raise SharingError(f"rows: expected at least {least} (attributes + 5), got {current.rows}")
    if shared is not None and abs(current.rows - shared.rows) < least:
        changed = abs(current.rows - shared.rows)
        raise SharingError(f"changed rows: expected at least {least} (attributes + 5) since the last message, got {changed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What the leader of a round learns of one peer's statistics before they are masked.

    Row counts are cut off at attributes + 5, which is all that the rule needs: their sum reaches the limit exactly when the sum
    of the true counts does.

    Attributes:
        version: number of the state of the peer's statistics; equal versions are equal statistics.
        rows: rows in them, cut off.
        changed_rows: how many more or fewer rows the version in the last aggregate had, cut off; all rows if none had.
    """

    version: int
    rows: int
    changed_rows: int


@dataclass(slots=True)
class AggregateLedger:
    """Which versions of whose statistics were in each aggregate that was published.

    Attributes:
        aggregates: newest last; from each peer's name to its version.
        rows: of each peer in the last aggregate, cut off.
    """

    aggregates: list[dict[str, int]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    def require_aggregate(self, contributions: Mapping[str, Contribution], least_rows: int) -> None:
        """Check whether an aggregate of these contributions may be made; the leader of a round asks that.

        Raises:
            SharingError: as `require_hidden`; or the last aggregate differs from this one by nothing, or by too few rows.
        """
        self.require_hidden(contributions, least_rows)
        if not self.aggregates:
            return
        changed = _changed(self.aggregates[-1], _versions(contributions))
        if not changed:
            raise SharingError("change since the last aggregate: expected some, got none")
        changed_rows = sum(self._changed_rows(peer, contributions) for peer in changed)
        if changed_rows < least_rows:
            raise SharingError(f"changed rows: expected at least {least_rows} (attributes + 5), got {changed_rows}")

    def require_hidden(self, contributions: Mapping[str, Contribution], least_rows: int) -> None:
        """Check whether an aggregate hides each of these contributions; every peer asks that of its own ledger.

        Raises:
            SharingError: fewer than 3 peers; too few rows together; or an earlier aggregate that differs from this one by a
                single peer (who joined, stayed away or changed alone).
        """
        if len(contributions) < MIN_CONTRIBUTORS:
            raise SharingError(f"contributing peers: expected at least {MIN_CONTRIBUTORS}, got {len(contributions)}")
        rows = sum(contribution.rows for contribution in contributions.values())
        if rows < least_rows:
            raise SharingError(f"rows of all peers: expected at least {least_rows} (attributes + 5), got {rows}")
        for earlier in self.aggregates:
            changed = _changed(earlier, _versions(contributions))
            if 0 < len(changed) < MIN_CHANGED:
                raise SharingError(
                    f"change since an earlier aggregate: expected at least {MIN_CHANGED} peers, got {len(changed)}"
                )

    def record(self, contributions: Mapping[str, Contribution]) -> None:
        """Remember an aggregate that is about to be published."""
        self.record_versions(_versions(contributions))
        self.rows = {peer: contribution.rows for peer, contribution in contributions.items()}

    def record_versions(self, versions: Mapping[str, int]) -> None:
        """Remember an aggregate that somebody else published."""
        self.aggregates.append(dict(versions))
        del self.aggregates[:-MAX_AGGREGATES]

    def has_news(self, contributions: Mapping[str, Contribution]) -> bool:
        """Return whether an aggregate of these would differ from the last one."""
        return not self.aggregates or _versions(contributions) != self.aggregates[-1]

    def to_json(self) -> dict[str, object]:
        """Return the ledger for storage."""
        return {"aggregates": self.aggregates, "rows": self.rows}

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> AggregateLedger:
        """Read a ledger that `to_json` made."""
        aggregates, rows = record["aggregates"], record["rows"]
        assert isinstance(aggregates, Sequence), "to_json writes a list"
        assert isinstance(rows, Mapping), "to_json writes an object"
        return cls([dict(aggregate) for aggregate in aggregates], dict(rows))

    def _changed_rows(self, peer: str, contributions: Mapping[str, Contribution]) -> int:
        """Return how many rows a changed peer's part of the difference is made of: all of them if it came or went."""
        if peer not in contributions:
            return self.rows.get(peer, 0)
        contribution = contributions[peer]
        return contribution.changed_rows if peer in self.aggregates[-1] else contribution.rows


def _changed(earlier: Mapping[str, int], versions: Mapping[str, int]) -> set[str]:
    return {peer for peer in earlier.keys() | versions.keys() if earlier.get(peer) != versions.get(peer)}


def _versions(contributions: Mapping[str, Contribution]) -> dict[str, int]:
    return {peer: contribution.version for peer, contribution in contributions.items()}
