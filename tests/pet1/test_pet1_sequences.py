"""All sequences of three rounds of a federation whose sums come to be known: they show no single honest peer.

Peers that collude deny what they have answered; a sum is known if its leader publishes it, or has it and hides it. With one
colluding peer more than `least_changed` bears, some sequences do show one. With more peers there are sets that nobody is in two
of, and there are too many sequences for all: some at random.

Source: docs/spec/profile.md 6.5.
"""

from __future__ import annotations

import functools
import itertools
import random
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from pet1_rounds import reason_of
from test_pet1_views import eliminate

from pet.pet1 import ledger
from pet.pet1.federation import Called, derive_set_digest
from pet.pet1.ledger import LedgerEntry, RoundLedger


class Known(NamedTuple):
    """A round whose sum is known to its leader.

    Attributes:
        listed: its peers.
        answered: honest ones that say so; of those that collude nobody knows.
        is_published: whether everybody sees it.
    """

    listed: tuple[int, ...]
    answered: frozenset[int]
    is_published: bool


@dataclass
class Sequences:
    """Rounds of some peers whose statistics stay the same.

    Attributes:
        peers: how many there are; the first are honest.
        colluding: how many are not.
        least_changed: what the honest ones ask for.
    """

    peers: int
    colluding: int
    least_changed: int
    _judged: dict[object, bool] = field(default_factory=dict)

    @property
    def honest(self) -> range:
        return range(self.peers - self.colluding)

    def count(self) -> tuple[int, int]:
        """Return how many sequences there are, and how many of them show an honest peer."""
        count = shown = 0
        rounds = list(self._rounds())
        for first in rounds:
            if not self._is_accepted([], first):
                continue
            for second in rounds:
                if not self._is_accepted([first], second):
                    continue
                for third in rounds:
                    if self._is_accepted([first, second], third):
                        count += 1
                        shown += shows_one(frozenset(each.listed for each in (first, second, third)), len(self.honest))
        return count, shown

    def _rounds(self) -> list[Known]:
        """Return all rounds of two honest peers or more that have a sum; one of them may not have answered."""
        found = []
        for size in range(3, self.peers + 1):
            for listed in itertools.combinations(range(self.peers), size):
                honest = frozenset(listed) & frozenset(self.honest)
                if len(honest) >= 2:
                    found += [Known(listed, honest, True), Known(listed, honest, False)]
                    found += [Known(listed, honest - {silent}, False) for silent in sorted(honest)]
        return found

    def _is_accepted(self, earlier: list[Known], last: Known) -> bool:
        return all(self._accepts(peer, earlier, last.listed) for peer in last.listed if peer in self.honest)

    def _accepts(self, peer: int, earlier: list[Known], listed: tuple[int, ...]) -> bool:
        """Return whether a peer takes part, by its own ledger and the answers to the call."""
        about = tuple((each, peer in each.answered) for each in earlier if each.is_published or peer in each.listed)
        question = peer, listed, about
        if question not in self._judged:
            entries = [
                LedgerEntry(
                    number=number,
                    versions=dict.fromkeys(map(key_of, each.listed), 1),
                    groups=1,
                    members=frozenset(map(key_of, each.listed)),
                    answered=has_answered,
                    published=each.is_published,
                )
                for number, (each, has_answered) in enumerate(about, 1)
            ]
            said = {
                other: tuple(n for n, (each, _) in enumerate(about, 1) if other in each.answered and not each.is_published)
                for other in listed
            }
            calls = [
                Called(peer=key_of(other), number=9, version=1, answered=rounds, sets=self._known(other, about))
                for other, rounds in said.items()
            ]
            ledger = RoundLedger(key_of(peer), entries)
            ledger.strike(calls, self.least_changed)
            self._judged[question] = reason_of(ledger.require_hidden, calls, self.least_changed) is None
        return self._judged[question]

    def _known(self, peer: int, about: tuple[tuple[Known, bool], ...]) -> tuple[bytes, ...]:
        """Return which of some sets a peer says that it knows; one that colludes says it of all."""
        known = (each.listed for each, _ in about if each.is_published or peer in each.listed or peer not in self.honest)
        return tuple(sorted({derive_set_digest(dict.fromkeys(map(key_of, listed), 1)) for listed in known}))


@functools.cache
def shows_one(sets: frozenset[tuple[int, ...]], honest: int) -> bool:
    """Return whether some combination of sums is of one honest peer."""
    rows = [[int(peer in listed) for peer in range(honest)] for listed in sets]
    _, rank = eliminate(rows, honest)
    singles = ([int(peer == other) for peer in range(honest)] for other in range(honest))
    return any(eliminate([*rows, single], honest)[1] == rank for single in singles)


def key_of(peer: int) -> bytes:
    return bytes([peer + 1]) * 32


@pytest.mark.parametrize(
    ("peers", "colluding", "least_changed"),
    [
        (4, 0, 2),
        (4, 1, 3),
        pytest.param(5, 1, 3, marks=pytest.mark.long),
        (5, 2, 4),
        pytest.param(5, 0, 2, marks=pytest.mark.long),
    ],
)
def test_no_sequence_of_three_rounds_shows_a_peer(peers: int, colluding: int, least_changed: int) -> None:
    count, shown = Sequences(peers, colluding, least_changed).count()
    assert (count > 200, shown) == (True, 0)


def test_one_colluding_peer_more_is_too_many() -> None:
    count, shown = Sequences(4, 1, 2).count()
    assert 0 < shown < count


def chosen_set(draw: random.Random, peers: int, earlier: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return a set as somebody chooses it who is after one peer: any, a part of an earlier one, or the rest and some more."""
    chosen = draw.sample(range(peers), draw.randint(3, peers))
    if earlier and draw.random() < 0.7:
        base = draw.choice(earlier)
        rest = [peer for peer in range(peers) if peer not in base]
        chosen = draw.sample(base, draw.randint(3, len(base)))
        if draw.random() < 0.5:
            chosen = rest + draw.sample(base, draw.randint(max(0, 3 - len(rest)), len(base)))
    return tuple(sorted(chosen))


@dataclass
class Shown:
    """Rounds of some peers in a row; their leader shows each result to whom it likes, and keeps some.

    Attributes:
        draw: by chance.
        peers: how many there are; the first `colluding` are not honest: they deny what they answered, and know all sets.
        settles: whether honest ones forget what they can.
    """

    draw: random.Random
    peers: int
    colluding: int
    settles: bool
    sums: list[dict[bytes, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.least_changed = self.colluding + 2
        self.versions = [1] * self.peers
        self.ledgers = {peer: RoundLedger(key_of(peer)) for peer in range(self.colluding, self.peers)}

    def call(self, number: int) -> None:
        """Call a set, and run a round of it if its honest peers take part."""
        draw = self.draw
        self.versions = [version + (draw.random() < 0.05) for version in self.versions]
        earlier = [tuple(sorted(key[0] - 1 for key in versions)) for versions in self.sums]
        listed = chosen_set(draw, self.peers, earlier)
        versions = {key_of(peer): self.versions[peer] for peer in listed}
        honest = [peer for peer in listed if peer in self.ledgers]
        if len(honest) < 2 or not self._is_accepted(number, listed, honest):
            return
        silent = draw.choice(honest) if draw.random() < 0.2 else None
        entry = LedgerEntry(number=number, versions=versions, groups=1, members=frozenset(versions))
        for peer in honest:
            self.ledgers[peer].enter(entry)
            self.ledgers[peer].mark(number, answered=peer != silent)
        self.sums.append(versions)
        seeing = draw.choice([list(self.ledgers), honest, [], [peer for peer in self.ledgers if draw.random() < 0.5]])
        for peer in seeing:
            self.ledgers[peer].enter(entry)
            self.ledgers[peer].mark(number, published=True)
            if self.settles:
                self.ledgers[peer].settle(self.least_changed)

    def _is_accepted(self, number: int, listed: tuple[int, ...], honest: list[int]) -> bool:
        known = tuple(sorted(map(derive_set_digest, self.sums)))
        calls = [
            self.ledgers[peer].call(number, self.versions[peer])
            if peer in self.ledgers
            else Called(peer=key_of(peer), number=number, version=self.versions[peer], sets=known)
            for peer in listed
        ]
        for peer in honest:
            ledger = self.ledgers[peer]
            ledger.strike(calls, self.least_changed)
            if any(call.version < ledger.newest.get(call.peer, 0) for call in calls):
                return False
            if reason_of(ledger.require_hidden, calls, self.least_changed):
                return False
        return True

    def shows_one(self) -> bool:
        """Return whether some combination of the sums is of one honest peer."""
        pairs = sorted({pair for sums in self.sums for pair in sums.items() if pair[0][0] > self.colluding})
        rows = [[int(sums.get(peer) == version) for peer, version in pairs] for sums in self.sums]
        _, rank = eliminate(rows, len(pairs))
        for single in self.ledgers:
            kept = [place for place, (peer, _) in enumerate(pairs) if peer != key_of(single)]
            if eliminate([[row[place] for place in kept] for row in rows], len(kept))[1] < rank:
                return True
        return False


def sequences_that_show_one(seeds: range, rounds: int = 4) -> tuple[int, int]:
    """Return how many sums some sequences have, and how many of the sequences show a peer."""
    sums = shown = 0
    for seed in seeds:
        draw = random.Random(seed)
        peers = draw.choice((3, 4, 5, 6, 7, 7, 7))
        played = Shown(draw, peers, draw.choice((0, 0, 1)) if peers > 3 else 0, draw.random() < 0.3)
        for number in range(1, 10 * rounds):
            if len(played.sums) < rounds:
                played.call(number)
        sums += len(played.sums)
        shown += played.shows_one()
    return sums, shown


def test_results_that_some_peers_see_and_others_do_not_show_no_peer() -> None:
    sums, shown = sequences_that_show_one(range(150))
    assert (sums > 300, shown) == (True, 0)


@pytest.mark.very_long
def test_many_results_that_some_peers_see_and_others_do_not_show_no_peer() -> None:
    sums, shown = sequences_that_show_one(range(1000, 6000))
    assert (sums > 10_000, shown) == (True, 0)


SETS = [(0, 1, 2, 3), (4, 5, 6), (1, 2, 3, 4, 5, 6)]


def judged_after_two_shown_apart(known_to_all: bool) -> list[str | None]:
    """Return what the peers of the third set say after two results that only those saw who were in the round."""
    ledgers, entries = [RoundLedger(key_of(peer)) for peer in range(7)], []
    for number, listed in enumerate(SETS[:2], 1):
        versions = {key_of(peer): 1 for peer in listed}
        entries.append(LedgerEntry(number=number, versions=versions, groups=1, members=frozenset(versions), published=True))
        for peer in range(7) if known_to_all else listed:
            ledgers[peer].enter(entries[-1])
            ledgers[peer].mark(number, answered=peer in listed)
    calls = [ledgers[peer].call(3, 1) for peer in SETS[2]]
    return [reason_of(ledgers[peer].require_hidden, calls, 3) for peer in SETS[2]]


def test_a_leader_that_shows_two_results_to_their_own_peers_alone_reads_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shows_one(frozenset(SETS), 7), "the first sum and the second, less the third"
    assert judged_after_two_shown_apart(known_to_all=False) == ["unseen_result"] * 6
    assert set(judged_after_two_shown_apart(known_to_all=True)) == {"too_few_changes"}
    monkeypatch.setattr(ledger, "_unaware", lambda *_: set())
    assert judged_after_two_shown_apart(known_to_all=False) == [None] * 6, "without the rule that all know the sets"
