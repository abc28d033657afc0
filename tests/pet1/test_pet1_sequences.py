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

from pet.pet1.federation import Called
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
            calls = [Called(peer=key_of(other), number=9, version=1, answered=rounds) for other, rounds in said.items()]
            ledger = RoundLedger(key_of(peer), entries)
            ledger.strike(calls, self.least_changed)
            versions = dict.fromkeys(map(key_of, listed), 1)
            self._judged[question] = reason_of(ledger.require_hidden, versions, self.least_changed) is None
        return self._judged[question]


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


def hidden_rounds_that_show_one(peers: int, sequences: int, least_changed: int = 2) -> int:
    """Return how many of some sequences of rounds, published or hidden by chance, show a peer."""
    draw, shown = random.Random(peers), 0
    for _ in range(sequences):
        ledgers = [RoundLedger(key_of(peer)) for peer in range(peers)]
        summed: list[tuple[int, ...]] = []
        for number in range(1, 30):
            listed = chosen_set(draw, peers, summed)
            keys = [key_of(peer) for peer in listed]
            versions = dict.fromkeys(keys, 1)
            if any(reason_of(ledgers[peer].require_hidden, versions, least_changed) for peer in listed):
                continue
            is_published = draw.random() < 0.5
            for peer in range(peers) if is_published else listed:
                ledgers[peer].enter(LedgerEntry(number=number, versions=versions, groups=1, members=frozenset(keys)))
                ledgers[peer].mark(number, answered=peer in listed, published=is_published)
            summed.append(listed)
        shown += shows_one(frozenset(summed), peers)
    return shown


def test_hidden_sums_of_sets_that_nobody_is_in_two_of_show_no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hidden_rounds_that_show_one(8, 50) == 0
    monkeypatch.setattr(RoundLedger, "_require_most_again", lambda *_: None)
    assert hidden_rounds_that_show_one(8, 50) > 0, "without the rule that most peers of an earlier round come again"


def test_results_that_some_peers_see_and_others_do_not_can_show_a_peer() -> None:
    """Where the protection ends: who sees a result takes it for known to all, and uses its statistics in another set."""
    sets = [(0, 1, 2, 3), (4, 5, 6), (1, 2, 3, 4, 5, 6)]
    ledgers, entries = [RoundLedger(key_of(peer)) for peer in range(7)], []
    for number, listed in enumerate(sets, 1):
        versions = {key_of(peer): 1 for peer in listed}
        entries.append(LedgerEntry(number=number, versions=versions, groups=1, members=frozenset(versions), published=True))
        for peer in listed:
            assert reason_of(ledgers[peer].require_hidden, versions, 3) is None
            ledgers[peer].enter(entries[-1])
            ledgers[peer].mark(number, answered=True)
    assert shows_one(frozenset(sets), 7), "the first sum and the second, less the third"
    witness = RoundLedger(key_of(4), entries[:2])
    assert reason_of(witness.require_hidden, entries[2].versions, 3) == "too_few_changes", "who has seen both refuses"
