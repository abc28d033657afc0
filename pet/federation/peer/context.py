"""What the parts of a running peer share: its record, its counters, its logs, the time. What changes is saved at once.

Source: docs/spec/federation.md 1.5, 2.15, 2.16.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from pet.errors import StateError
from pet.federation.formats.json_form import Amount, JsonForm, Whole
from pet.federation.formats.schedule import Schedule, ScheduleState
from pet.federation.peer.clock import Clock
from pet.federation.peer.messages import MAX_IDS, MessageCodec
from pet.federation.peer_store import PeerStore
from pet.federation.records import Confirm, FederationRecord, FederationTerms, LogKind, Mode, PeerIdentity, SyncStatistics

COUNTERS: Final = "counters"


@dataclass(slots=True)
class Counters:
    """What a peer must remember besides its record and its statistics.

    Attributes:
        terms_version: of the terms it knows; the admin's grows with each change.
        round_id: number of the last round that it called or joined.
        aggregate_round: round of the aggregate it has.
        shared_version: version of its statistics in that aggregate, or last sent; 0 for none.
        shared_rows: rows in it.
        offered_version: version of its statistics that it enrolled with last.
        offered_rows: rows in it.
        sequence: of its own last message in the plain exchange.
        applied: sequence of the last message taken from each other peer.
        done_until_seconds: Unix time up to which ticks are dealt with.
        statistics: the counts of `syncStats`.
        aggregate_contributors: versions in the last aggregate, by peer.
        aggregate_rows: rows of each peer in it, cut off; known to who led its round.
        least_changed: how many peers every combination of sums must be of, from the longest list of confirmed members so far.
    """

    terms_version: Whole = 0
    round_id: Whole = 0
    aggregate_round: Whole = 0
    shared_version: Whole = 0
    shared_rows: Whole = 0
    offered_version: Whole = 0
    offered_rows: Whole = 0
    sequence: Whole = 0
    applied: dict[str, Whole] = field(default_factory=dict)
    done_until_seconds: Amount = 0.0
    statistics: SyncStatistics = field(default_factory=SyncStatistics)
    aggregate_contributors: dict[str, Whole] = field(default_factory=dict)
    aggregate_rows: dict[str, Whole] = field(default_factory=dict)
    least_changed: Whole = 0

    def to_bytes(self) -> bytes:
        """Return the counters for storage."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Counters:
        """Read what `to_bytes` made.

        Raises:
            StateError: something else.
        """
        with StateError.reading("counters of a peer"):
            record: dict[str, Any] = json.loads(data)
            # Up to release 0.2 the ledger stood here, too (earlier_ledger.py takes over the rest of it).
            return _FORM.read({"aggregate_rows": record.get("ledger", {}).get("rows", {})} | record)


_FORM: Final = JsonForm(Counters)


class PeerContext:
    """A peer's own facts.

    Args:
        record: as it was saved last.
        store: where it goes.
        clock: the time of this peer.
        confirm: whose word is taken for who is a member; None means a person's in native mode, and the admin's in
            compatibility mode, whose clients know no confirmation.
        least_changed: how many peers every combination of sums must be of; None lets the list of confirmed members decide.

    Attributes:
        record: the newest.
        counters: change them, then `save`.
    """

    def __init__(
        self,
        record: FederationRecord,
        store: PeerStore,
        clock: Clock,
        confirm: Confirm | None = None,
        least_changed: int | None = None,
    ) -> None:
        self.record = record
        self.store: Final = store
        self.clock: Final = clock
        self.codec: Final = MessageCodec(record.keys, store.replay_guard(MAX_IDS))
        self.confirm: Final = confirm or (Confirm.ADMIN if record.terms.mode is Mode.COMPAT else Confirm.PERSON)
        self.least_changed: Final = least_changed
        saved = store.load_state(COUNTERS)
        self.counters: Final = Counters(done_until_seconds=clock.now_seconds()) if saved is None else Counters.from_bytes(saved)

    @property
    def terms(self) -> FederationTerms:
        """What the admin decided."""
        return self.record.terms

    @property
    def uuid(self) -> str:
        """This peer's name in the federation."""
        return self.record.keys.uuid

    @property
    def members(self) -> Mapping[str, PeerIdentity]:
        """All members by uuid, this peer included."""
        return {peer.uuid: peer for peer in self.record.peers}

    @property
    def others(self) -> list[PeerIdentity]:
        """All members but this one."""
        return [peer for peer in self.record.peers if peer.uuid != self.uuid]

    def admin(self) -> PeerIdentity:
        """Return the identity of the admin."""
        assert self.terms.admin is not None, "known since the join"
        return self.terms.admin

    def find_member(self, uuid: str, _shown_key: bytes | None = None) -> PeerIdentity | None:
        """Return a member; its key is the one that the admin vouched for, whatever a message shows."""
        return self.members.get(uuid)

    def is_confirmed(self, member: PeerIdentity) -> bool:
        """Return whether this peer takes part with a member: its user, or where that is enough the admin, vouches for it."""
        return (
            self.confirm is Confirm.ADMIN
            or member.fingerprint in self.record.confirmed
            or member.fingerprint == self.record.keys.identity().fingerprint
        )

    @property
    def unconfirmed(self) -> list[PeerIdentity]:
        """The members that this peer takes part in nothing with."""
        return [peer for peer in self.others if not self.is_confirmed(peer)]

    def name_of(self, uuid: str) -> str:
        """Return what a log calls a peer: its name, as far as it is known, and the beginning of its fingerprint or uuid."""
        member = self.members.get(uuid)
        return uuid[:8] if member is None else member.name

    def save(self) -> None:
        """Save the counters."""
        self.store.save_state(COUNTERS, self.counters.to_bytes())

    def set_record(self, record: FederationRecord) -> None:
        """Take a new record."""
        self.store.save_record(record)
        self.record = record

    @property
    def schedule(self) -> ScheduleState:
        """When to synchronise."""
        terms = self.terms.schedule
        return ScheduleState(Schedule.parse(terms.text), terms.counter, self.counters.done_until_seconds)

    def log_sync(self, text: str) -> None:
        """Add a line to the sync log."""
        self.store.append_log(LogKind.SYNC, f"{text} at {self._now_text()}")

    def log_error(self, text: str) -> None:
        """Add a line to the error log."""
        self.store.append_log(LogKind.ERROR, f"{text} at {self._now_text()}")

    def count(self, **more: int) -> None:
        """Add to the counts of `syncStats`, and save."""
        statistics = self.counters.statistics
        changes: dict[str, Any] = {name: getattr(statistics, name) + number for name, number in more.items()}
        self.counters.statistics = replace(statistics, **changes)
        self.save()

    def count_receive_contract_error(self, peer: str) -> None:
        """Count a message whose statistics broke the contract."""
        statistics = self.counters.statistics
        errors = statistics.receive_contract_errors
        self.counters.statistics = replace(statistics, receive_contract_errors=errors | {peer: errors.get(peer, 0) + 1})
        self.save()

    def _now_text(self) -> str:
        return datetime.fromtimestamp(self.clock.now_seconds(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
