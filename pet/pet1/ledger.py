"""A peer's ledger of a federation's rounds: what keeps sums of rounds in a row from showing single peers.

The same statistics are masked in one round after the other, which outside of federations is forbidden. In its place stand five
rules: what a peer has taken part in (F1), what it says of that (F2), which rounds cannot have given a sum (F3), which it will
never answer (F4), and which set it may take part in next (F5).

Numbers only; it is durable where its owner stores it before anything is sent.

Source: docs/spec/profile.md 6.5 (F1 to F5).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pet.errors import StateError
from pet.pet1.federation import Called
from pet.pet1.refusing import require
from pet.plan import Plan

#: Peers that every combination of sums must be of, unless settings ask for more: the rule of federation.md 1.7.
MIN_CHANGED: Final = 2
#: Silent members that prove that a round has no sum: two of them are honest and of one group.
_MIN_SILENT: Final = 3
#: Ranks are computed modulo this prime.
_PRIME: Final = 2**61 - 1


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
    """

    number: int
    versions: Mapping[bytes, int]
    groups: int
    members: frozenset[bytes]
    answered: bool = False
    published: bool = False

    @classmethod
    def of(cls, number: int, calls: Sequence[Called], plan: Plan, members: Iterable[bytes]) -> LedgerEntry:
        """Return the entry of a round from the answers to its call."""
        versions = {call.peer: call.version for call in calls}
        return cls(number=number, versions=versions, groups=plan.groups, members=frozenset(members))

    def is_dead(self, calls: Sequence[Called], least_changed: int) -> bool:
        """Return whether the answers to one call prove that the round's sum does not exist (F3).

        Of its members enough have not answered it, and never will, that two honest ones of one group are among them.
        """
        # A call says nothing of its own round, nor of later ones: those may still be answered (F4).
        silent = sum(
            call.peer in self.members and self.number < call.number and self.number not in call.answered for call in calls
        )
        return not self.published and silent >= max(least_changed, _MIN_SILENT) + self.groups - 1


class RoundLedger:
    """The rounds that are left of what a peer took part in.

    Attributes:
        own: the peer's identity key.
        entries: by number, ascending.
        last_called: highest number of a call that it has answered; None before the first.
        called_version: of its statistics in that answer.
    """

    def __init__(
        self,
        own: bytes,
        entries: Iterable[LedgerEntry] = (),
        last_called: int | None = None,
        called_version: int | None = None,
    ) -> None:
        self.own = own
        self.entries = {entry.number: entry for entry in sorted(entries, key=lambda entry: entry.number)}
        self.last_called, self.called_version = last_called, called_version

    def call(self, number: int, version: int) -> Called:
        """Return this peer's answer to a call, which names all rounds that it has answered (F2); signed once it is durable.

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
        answered = tuple(entry.number for entry in self.entries.values() if entry.answered and entry.number < number)
        return Called(peer=self.own, number=number, version=version, answered=answered)

    def strike(self, calls: Sequence[Called], least_changed: int = MIN_CHANGED) -> list[int]:
        """Strike out the rounds that the answers to one call prove dead (F3); return their numbers."""
        dead = [number for number, entry in self.entries.items() if entry.is_dead(calls, least_changed)]
        for number in dead:
            del self.entries[number]
        return dead

    def require_hidden(self, versions: Mapping[bytes, int], least_changed: int = MIN_CHANGED) -> None:
        """Test the set of a round before Sum, or before Update of a peer that is no member (F5).

        Raises:
            RemoteProtocolError: "answered_before" (a round without a result that this peer has answered may be known to others:
                its set must be the same, or the own statistics new), "too_few_changes" (some combination of the sums that may
                be known would be of fewer than `least_changed` peers).
        """
        for entry in self.entries.values():
            if entry.answered and not entry.published:
                is_hidden = dict(entry.versions) == dict(versions) or entry.versions[self.own] != versions[self.own]
                require(
                    is_hidden, "answered_before", f"set: expected that of round {entry.number}, or new statistics of this peer"
                )
        sets = _connected(versions, [entry.versions for entry in self.entries.values()])
        columns = sorted({pair for each in sets for pair in each.items()})
        rows = [[int(each.get(peer) == version) for peer, version in columns] for each in sets]
        full = _rank(rows)
        for few in itertools.combinations(sorted({peer for peer, _ in columns}), least_changed - 1):
            kept = [index for index, (peer, _) in enumerate(columns) if peer not in few]
            is_hidden = _rank([[row[index] for index in kept] for row in rows]) == full
            require(is_hidden, "too_few_changes", f"set: expected {least_changed} or more peers to change, got fewer")

    def enter(self, entry: LedgerEntry) -> None:
        """Note a round before the Update is sent, or with its result (F1); what is known of it already stays so."""
        known = self.entries.get(entry.number)
        self.entries[entry.number] = entry
        if known is not None:
            self.mark(entry.number, answered=known.answered, published=known.published)
        self.entries = dict(sorted(self.entries.items()))

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
            }
            for entry in self.entries.values()
        ]
        record = {"format": 1, "own": self.own.hex(), "last_called": self.last_called, "called_version": self.called_version}
        return json.dumps(record | {"entries": entries}).encode()

    @classmethod
    def decode(cls, data: bytes) -> RoundLedger:
        """Read what `encode` wrote.

        Raises:
            StateError: it is something else.
        """
        with StateError.reading("saved ledger"):
            record: dict[str, Any] = json.loads(data)
            if record["format"] != 1:
                raise StateError(f"expected format 1, got {record['format']}")
            entries = [
                LedgerEntry(
                    number=int(entry["number"]),
                    versions={bytes.fromhex(peer): int(version) for peer, version in entry["versions"].items()},
                    groups=int(entry["groups"]),
                    members=frozenset(map(bytes.fromhex, entry["members"])),
                    answered=bool(entry["answered"]),
                    published=bool(entry["published"]),
                )
                for entry in record["entries"]
            ]
            last, version = record["last_called"], record["called_version"]
            if last is None:
                return cls(bytes.fromhex(record["own"]), entries)
            return cls(bytes.fromhex(record["own"]), entries, int(last), int(version))


def _connected(own: Mapping[bytes, int], others: Sequence[Mapping[bytes, int]]) -> list[Mapping[bytes, int]]:
    """Return a set and those that hang together with it by shared pairs of peer and version; others cannot matter."""
    found, reached, left = [own], set(own.items()), list(others)
    while near := [each for each in left if reached & each.items()]:
        found += near
        left = [each for each in left if not reached & each.items()]
        reached |= {pair for each in near for pair in each.items()}
    return found


def _rank(rows: Sequence[Sequence[int]]) -> int:
    """Return the rank of a matrix modulo a prime."""
    work, rank = [list(row) for row in rows], 0
    for column in range(len(work[0])):
        pivot = next((index for index in range(rank, len(work)) if work[index][column]), None)
        if pivot is None:
            continue
        work[rank], work[pivot] = work[pivot], work[rank]
        inverse = pow(work[rank][column], -1, _PRIME)
        for index in range(rank + 1, len(work)):
            factor = work[index][column] * inverse
            work[index] = [(a - factor * b) % _PRIME for a, b in zip(work[index], work[rank], strict=True)]
        rank += 1
    return rank
