"""A peer's ledger of a federation's rounds: what keeps sums of rounds in a row from showing single peers.

The same statistics are masked in one round after the other, which outside of federations is forbidden. In its place stand five
rules: what a peer has taken part in (F1), what it says of that (F2), which rounds cannot have given a sum (F3), which it will
never answer (F4), and which set it may take part in next (F5).

Numbers only; it is durable where its owner stores it before anything is sent.

Source: docs/spec/profile.md 6.5 (F1 to F5).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pet.errors import StateError
from pet.pet1.combinations import connected, shows_few
from pet.pet1.federation import Called, derive_set_digest
from pet.pet1.refusing import require
from pet.plan import Plan

#: Peers that every combination of sums must be of, unless settings ask for more: the rule of federation.md 1.7.
MIN_CHANGED: Final = 2
#: Silent members that prove that a round has no sum: two of them are honest and of one group.
_MIN_SILENT: Final = 3
#: Rounds this far behind a call are not struck out any longer, so that their numbers need not be named for ever.
MAX_NAMED_ROUNDS: Final = 32
#: Most sets that an answer to a call names, the newest.
MAX_NAMED_SETS: Final = 32
#: Sets of rounds that are no longer needed here and still named, as others may need them: of as many as come with a result.
_MAX_SETTLED_SETS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """A round that a peer took part in, or has seen the result of.

    Attributes:
        number: of the round.
        versions: the set: versions of the statistics of the listed peers, by key.
        groups: of the committee.
        members: of the committee.
        answered: whether this peer has sent Sum2.
        published: whether it has seen a result.
        precedes_pet1: whether it was a round of xaynet's profile: nothing signed says what its set was, so who joined later
            cannot learn of it, and is not asked to (F5 a).
    """

    number: int
    versions: Mapping[bytes, int]
    groups: int
    members: frozenset[bytes]
    answered: bool = False
    published: bool = False
    precedes_pet1: bool = False

    @classmethod
    def of(cls, number: int, calls: Sequence[Called], plan: Plan, members: Iterable[bytes]) -> LedgerEntry:
        """Return the entry of a round from the answers to its call."""
        versions = {call.peer: call.version for call in calls}
        return cls(number=number, versions=versions, groups=plan.groups, members=frozenset(members))

    def is_dead(self, calls: Sequence[Called], least_changed: int) -> bool:
        """Return whether the answers to one call prove that the round's sum does not exist (F3).

        Of its members enough have not answered it, and never will, that two honest ones of one group are among them.
        """
        # A call says nothing of its own round, nor of later ones: those may still be answered (F4). Of rounds long ago it need
        # not say that they were answered.
        silent = sum(
            call.peer in self.members
            and call.number - MAX_NAMED_ROUNDS <= self.number < call.number
            and self.number not in call.answered
            for call in calls
        )
        return not self.published and silent >= max(least_changed, _MIN_SILENT) + self.groups - 1


class RoundLedger:
    """The rounds that are left of what a peer took part in.

    Attributes:
        own: the peer's identity key.
        entries: by number, ascending.
        newest: the newest version of each peer's statistics in any round that was entered, by key.
        last_called: highest number of a call that it has answered; None before the first.
        called_version: of its statistics in that answer.
        unknown: highest number of a call that it has answered, as a result shows, and knows nothing of; None for none. Its
            state is older than what it has sent, so its word (F2) would not be true.
    """

    def __init__(
        self,
        own: bytes,
        entries: Iterable[LedgerEntry] = (),
        last_called: int | None = None,
        called_version: int | None = None,
        settled: Iterable[int] = (),
        newest: Mapping[bytes, int] | None = None,
        crowds: Mapping[frozenset[bytes], int] | None = None,
        unknown: int | None = None,
        settled_sets: Mapping[bytes, int] | None = None,
    ) -> None:
        self.own = own
        self.entries = {entry.number: entry for entry in sorted(entries, key=lambda entry: entry.number)}
        self.last_called, self.called_version, self.unknown = last_called, called_version, unknown
        self.newest = dict(newest or {})
        for entry in self.entries.values():
            self._note_versions(entry)
        #: Rounds that were answered and whose entries have gone.
        self._settled = set(settled)
        #: Of entries that have gone: which peers came together with this one, and its version then.
        self._crowds = dict(crowds or {})
        #: Digests of the sets of entries that have gone, with the number of the last round of each.
        self._settled_sets = dict(settled_sets or {})

    def call(self, number: int, version: int) -> Called:
        """Return this peer's answer to a call: what it has answered, and which sets it knows (F2); signed once it is durable.

        From then on it never sends Sum2 for a round with a lower number (F4).

        Raises:
            RemoteProtocolError: "wrong_round": a number below that of an earlier call, or the same with another version: the
                leader could show either answer, and a peer must know which set it was in.
        """
        is_next = self.last_called is None or number >= self.last_called
        require(is_next, "wrong_round", f"call: expected round {self.last_called} or a later one, got {number}")
        is_same = number != self.last_called or version == self.called_version
        require(is_same, "wrong_round", f"call: expected version {self.called_version} in round {number} again, got {version}")
        self.last_called, self.called_version = number, version
        self._settled = {each for each in self._settled if each >= number - MAX_NAMED_ROUNDS}
        answered = self._settled | {entry.number for entry in self.entries.values() if entry.answered}
        named = tuple(sorted(each for each in answered if each < number))
        return Called(peer=self.own, number=number, version=version, answered=named, sets=self._named_sets())

    def _named_sets(self) -> tuple[bytes, ...]:
        found = self._settled_sets | {derive_set_digest(each.versions): each.number for each in self.entries.values()}
        return tuple(sorted(sorted(found, key=found.__getitem__)[-MAX_NAMED_SETS:]))

    def knows_result(self, number: int) -> bool:
        """Return whether this peer has seen a round's result, or needs it no longer."""
        if (entry := self.entries.get(number)) is not None:
            return entry.published
        return number in self._settled or number in self._settled_sets.values()

    def unaware(self, calls: Sequence[Called]) -> set[bytes]:
        """Return the peers that do not say that they know the set of a round whose peers come again with the same statistics.

        Those that have answered it would refuse them (F5 a).
        """
        versions = {call.peer: call.version for call in calls}
        near = (each for each in self.entries.values() if each.published and each.versions.items() & versions.items())
        return set[bytes]().union(*(_unaware(entry, calls) for entry in near if entry.versions != versions))

    def strike(self, calls: Sequence[Called], least_changed: int = MIN_CHANGED) -> list[int]:
        """Strike out the rounds that the answers to one call prove dead (F3); return their numbers."""
        dead = [number for number, entry in self.entries.items() if entry.is_dead(calls, least_changed)]
        for number in dead:
            del self.entries[number]
        return dead

    def require_hidden(self, calls: Sequence[Called], least_changed: int = MIN_CHANGED) -> None:
        """Test the set of a round before Sum, or before Update of a peer that is no member (F5).

        Args:
            calls: the answers of all its peers.
            least_changed: peers that every combination of sums must be of.

        Raises:
            RemoteProtocolError: "answered_before" (a round without a result that this peer has answered may be known to others:
                its set must be the same, or the own statistics new), "unseen_result" (a listed peer does not know the set of
                a round that this peer took part in, so it could not judge combinations with it), "too_few_changes" (some
                combination of the sums that may be known would be of fewer than `least_changed` peers), "too_few_again" (too
                few of the peers of an earlier round come again to exclude another set without any of these).
        """
        versions = {call.peer: call.version for call in calls}
        own_version = versions.get(self.own)
        for entry in self.entries.values():
            if own_version is not None and entry.versions.get(self.own) == own_version and entry.versions != versions:
                expected = f"set: expected that of round {entry.number}, or new statistics of this peer"
                require(entry.published or not entry.answered, "answered_before", expected)
                strangers = sorted(key.hex()[:8] for key in _unaware(entry, calls) - {self.own})
                problem = f"{expected}, or peers that all know its set, which {', '.join(strangers)} did not say"
                require(not strangers, "unseen_result", problem)
        near = connected(versions, [entry.versions for entry in self.entries.values()])
        own = [entry.versions for entry in self.entries.values() if entry.answered and entry.versions in near]
        is_hidden = not shows_few(versions, own, [each for each in near if each not in own], least_changed - 1)
        require(is_hidden, "too_few_changes", f"set: expected {least_changed} or more peers to change together, got fewer")
        self._require_most_again(versions, least_changed)

    def _require_most_again(self, versions: Mapping[bytes, int], least_changed: int) -> None:
        """Test that the set has most of the peers of each round that this peer was in with the same statistics.

        Sums of two sets that have no peer in common are known to nobody but who hides both, and with that of all their peers
        and one more they show that one. Of two sets that each have most of the peers, somebody honest is in both.
        """
        own = versions.get(self.own)
        crowds = self._crowds | {
            frozenset(entry.versions): entry.versions[self.own] for entry in self.entries.values() if self.own in entry.versions
        }
        for peers, version in crowds.items():
            if version == own:
                again, least = len(peers & versions.keys()), (len(peers) + least_changed) // 2
                require(
                    again >= least,
                    "too_few_again",
                    f"set: expected {least} of {len(peers)} peers of an earlier round, or new statistics of this peer,"
                    f" got {again}",
                )

    def enter(self, entry: LedgerEntry) -> None:
        """Note a round before the Update is sent, or with its result (F1); what is known of it already stays so.

        Raises:
            RemoteProtocolError: "wrong_round": the round is known with another set. Calls say nothing of the set, so a leader
                could show several, and the one that gave a sum must not be forgotten.
        """
        known = self.entries.get(entry.number)
        is_same = known is None or known.versions == entry.versions
        require(is_same, "wrong_round", f"round {entry.number}: expected the set that is known of it, got another")
        self.entries[entry.number] = entry
        if known is not None:
            self.mark(entry.number, answered=known.answered, published=known.published)
        self.entries = dict(sorted(self.entries.items()))
        self._note_versions(entry)

    def note_calls(self, calls: Iterable[Called]) -> None:
        """Compare the answers to the call of a round that has a result with what this peer remembers of its own."""
        for call in calls:
            if call.peer == self.own and call.number > (self.last_called or 0):
                self.unknown = max(call.number, self.unknown or 0)

    def settle(self, least_changed: int = MIN_CHANGED) -> None:
        """Drop the entries that no later set can be combined with (F5).

        Statistics are never again of an older version than the newest: a set with one is to be refused. So a round with such
        pairs of `least_changed` peers that no other round here has is in no combination of fewer: those remain. One that hangs
        together with no pair that can come again, directly or through others, is in no combination with a later one. What was
        answered is still named (F2), and what was answered without a result stays while the own version is the same. Who came
        together in it is remembered while this peer may come again with the same statistics.
        """
        while (gone := self._next_settled(least_changed)) is not None:
            entry = self.entries.pop(gone)
            self._settled_sets[derive_set_digest(entry.versions)] = gone
            if entry.answered:
                self._settled.add(gone)
                self._crowds[frozenset(entry.versions)] = entry.versions[self.own]
        self._crowds = {peers: version for peers, version in self._crowds.items() if version >= self.newest[self.own]}
        self._settled_sets = dict(sorted(self._settled_sets.items(), key=lambda each: each[1])[-_MAX_SETTLED_SETS:])

    def _next_settled(self, least_changed: int) -> int | None:
        may_go = [entry for entry in self.entries.values() if not self._is_waiting(entry)]
        holders = Counter(pair for entry in self.entries.values() for pair in entry.versions.items())
        reached = {pair for pair in holders if pair[1] >= self.newest[pair[0]]}
        while near := {
            pair
            for entry in self.entries.values()
            if reached & entry.versions.items()
            for pair in entry.versions.items()
            if pair not in reached
        }:
            reached |= near
        for entry in may_go:
            over = sum(holders[pair] == 1 and pair[1] < self.newest[pair[0]] for pair in entry.versions.items())
            if over >= least_changed or not reached & entry.versions.items():
                return entry.number
        return None

    def _is_waiting(self, entry: LedgerEntry) -> bool:
        """Return whether the same set has to come again, or other statistics of this peer."""
        own = entry.versions.get(self.own)
        return entry.answered and not entry.published and own is not None and own >= self.newest[self.own]

    def _note_versions(self, entry: LedgerEntry) -> None:
        for peer, version in entry.versions.items():
            self.newest[peer] = max(version, self.newest.get(peer, 0))

    def mark(self, number: int, *, answered: bool = False, published: bool = False) -> None:
        """Note that a round that was entered is answered, before Sum2 is sent, or has a result (F1)."""
        entry = self.entries[number]
        self.entries[number] = replace(entry, answered=entry.answered or answered, published=entry.published or published)

    def encode(self) -> bytes:
        """Return the ledger as JSON."""
        entries = [
            {
                "number": entry.number,
                "versions": {peer.hex(): version for peer, version in entry.versions.items()},
                "groups": entry.groups,
                "members": sorted(peer.hex() for peer in entry.members),
                "answered": entry.answered,
                "published": entry.published,
                "precedes_pet1": entry.precedes_pet1,
            }
            for entry in self.entries.values()
        ]
        record = {
            "format": 2,
            "own": self.own.hex(),
            "last_called": self.last_called,
            "called_version": self.called_version,
            "entries": entries,
            "settled": sorted(self._settled),
            "newest": {peer.hex(): version for peer, version in self.newest.items()},
            "unknown": self.unknown,
            "settled_sets": {each.hex(): number for each, number in self._settled_sets.items()},
            "crowds": [[sorted(peer.hex() for peer in peers), version] for peers, version in self._crowds.items()],
        }
        return json.dumps(record).encode()

    @classmethod
    def decode(cls, data: bytes) -> RoundLedger:
        """Read what `encode` wrote, or the earlier format, which has no sets of rounds whose entries have gone.

        Raises:
            StateError: it is something else.
        """
        with StateError.reading("saved ledger"):
            record: dict[str, Any] = json.loads(data)
            if record["format"] not in (1, 2):
                raise StateError(f"expected format 1 or 2, got {record['format']}")
            entries = [
                LedgerEntry(
                    number=int(entry["number"]),
                    versions={bytes.fromhex(peer): int(version) for peer, version in entry["versions"].items()},
                    groups=int(entry["groups"]),
                    members=frozenset(map(bytes.fromhex, entry["members"])),
                    answered=bool(entry["answered"]),
                    published=bool(entry["published"]),
                    precedes_pet1=bool(entry.get("precedes_pet1", False)),
                )
                for entry in record["entries"]
            ]
            last, version, unknown = record["last_called"], record["called_version"], record["unknown"]
            return cls(
                bytes.fromhex(record["own"]),
                entries,
                None if last is None else int(last),
                None if version is None else int(version),
                map(int, record["settled"]),
                {bytes.fromhex(peer): int(newest) for peer, newest in record["newest"].items()},
                {frozenset(map(bytes.fromhex, peers)): int(version) for peers, version in record["crowds"]},
                None if unknown is None else int(unknown),
                {bytes.fromhex(each): int(number) for each, number in record.get("settled_sets", {}).items()},
            )


def _unaware(entry: LedgerEntry, calls: Iterable[Called]) -> set[bytes]:
    """Return the peers whose answers do not name the set of a round, and should."""
    if entry.precedes_pet1:
        return set()
    known = derive_set_digest(entry.versions)
    return {call.peer for call in calls if known not in call.sets}
