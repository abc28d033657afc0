"""The linear algebra that keeps sums of rounds from showing a few peers, and which rounds may be forgotten."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
from pet1_rounds import reason_of

from pet.pet1.combinations import shows_few
from pet.pet1.federation import Called, derive_set_digest
from pet.pet1.ledger import MAX_NAMED_ROUNDS, LedgerEntry, RoundLedger

PEERS = [bytes([letter]) * 32 for letter in b"abcdef"]


def a_round(text: str) -> dict[bytes, int]:
    """'a1 b1 c2' as versions by peer."""
    return {pair[0].encode() * 32: int(pair[1:]) for pair in text.split()}


def calls_of(versions: dict[bytes, int], known: RoundLedger) -> list[Called]:
    """Return the answers of peers that know all sets of a ledger."""
    sets = tuple(sorted({derive_set_digest(entry.versions) for entry in known.entries.values()}))
    return [Called(peer=peer, number=9, version=version, sets=sets) for peer, version in sorted(versions.items())]


def entry_of(number: int, versions: dict[bytes, int], **changes: bool) -> LedgerEntry:
    return LedgerEntry(number=number, versions=versions, groups=1, members=frozenset(versions), **changes)


@pytest.mark.parametrize(
    ("rounds", "fewest"),
    [
        (["a1 b1 c1"], 3),
        (["a1 b1 c1", "a2 b1 c1"], 1),
        (["a1 b1 c1", "a2 b2 c1"], 2),
        (["a1 b1 c1", "a1 b1 c1 d1"], 1),
        (["a1 b1 c1 d1", "a2 b1 c1"], 2),
        # No two of these differ by one peer; together they are c alone.
        (["a1 b1 c1", "c1 d1 e1", "a1 b1 c1 d1 e1"], 1),
        (["a1 b1 c1 d1", "c1 d1 e1 f1", "a1 b1 c2 d2", "c2 d2 e2 f1"], 1),
        # No two of these differ by fewer than three; together they are a and b.
        (["a1 b1 c1 d1 e1", "c1 d1 e1 f1", "f1 a2 b2"], 2),
        (["a1 b1 c1 d1 e1", "a1 f1 d2 e2", "b1 c1 f1"], 3),
        # What earlier sums give by themselves is known already, or never will be.
        (["a1 b1 c1", "a2 b1 c1", "a2 b2 c2"], 2),
        (["a1 b1 c1", "a2 b1 c1", "a3 b3 c3"], 3),
    ],
)
def test_how_few_peers_a_combination_is_of(rounds: list[str], fewest: int) -> None:
    *earlier, now = map(a_round, rounds)
    for own in range(len(earlier) + 1):
        found = [shows_few(now, earlier[:own], earlier[own:], count) for count in range(1, 6)]
        assert found == [count >= fewest for count in range(1, 6)]


@pytest.mark.parametrize(
    ("own", "others", "now", "fewest"),
    [
        # The same sum once more, or one that follows from sums that this peer has answered, tells nothing new.
        (["a1 b1 c1", "a2 b1 c1"], [], "a2 b1 c1", None),
        (["a1 b1 c1 d1", "a1 b1 c1 e1", "a1 b1 f1 d1"], [], "a1 b1 f1 e1", None),
        # One that follows from sums that others say exist is judged with them: they may have been made up.
        (["a1 b1 c1"], ["a2 b1 c1"], "a2 b1 c1", 1),
        (["a1 b1 c1"], ["a2 b2 c1"], "a2 b2 c1", 2),
        (["a1 b1 c1 d1"], ["a1 b1 c1 e1", "a1 b1 f1 d1"], "a1 b1 f1 e1", 2),
    ],
)
def test_sums_that_follow_from_earlier_ones(own: list[str], others: list[str], now: str, fewest: int | None) -> None:
    rows = [a_round(text) for text in own], [a_round(text) for text in others]
    found = [shows_few(a_round(now), *rows, count) for count in range(1, 4)]
    assert found == [fewest is not None and count >= fewest for count in range(1, 4)]


def smallest_rank(rows: list[dict[bytes, int]], few: tuple[bytes, ...]) -> int:
    """Return the rank without the columns of some peers, over the rationals, by the schoolbook."""
    columns = sorted({pair for row in rows for pair in row.items() if pair[0] not in few})
    matrix, rank = [[Fraction(row.get(peer) == version) for peer, version in columns] for row in rows], 0
    for column in range(len(columns)):
        pivot = next((row for row in range(rank, len(matrix)) if matrix[row][column]), None)
        if pivot is None:
            continue
        matrix[rank], matrix[pivot] = matrix[pivot], matrix[rank]
        for row in range(rank + 1, len(matrix)):
            factor = matrix[row][column] / matrix[rank][column]
            matrix[row] = [one - factor * other for one, other in zip(matrix[row], matrix[rank], strict=True)]
        rank += 1
    return rank


def test_it_is_what_exact_arithmetic_finds_by_trying_all_sets_of_peers() -> None:
    draw, found = random.Random(9), 0
    for _ in range(120):
        rounds = [
            {peer: draw.randint(1, 2) for peer in draw.sample(PEERS, draw.randint(3, 5))} for _ in range(draw.randint(2, 5))
        ]
        now, place = rounds[-1], draw.randint(0, len(rounds) - 1)
        own, others = rounds[:place], rounds[place:-1]
        for count in (1, 2):
            tells_more = smallest_rank([*own, now], ()) > smallest_rank(own, ()) if own else True
            is_new = smallest_rank(rounds, ()) > smallest_rank(rounds[:-1], ())
            choices = list(itertools.combinations(PEERS, count))
            lost = (
                any(smallest_rank(rounds, few) == smallest_rank(rounds[:-1], few) for few in choices)
                if is_new
                else any(smallest_rank(rounds, few) < smallest_rank(rounds, ()) for few in choices)
            )
            assert shows_few(now, own, others, count) == (tells_more and lost)
            found += tells_more and lost
    assert 20 < found < 200, "both answers occur"


@pytest.mark.parametrize("least", [2, 3])
def test_rounds_that_no_longer_matter_may_go_and_no_others(least: int) -> None:
    """A ledger whose rounds were dropped as they settled refuses what the whole one refuses."""
    draw, dropped, refused = random.Random(least), 0, 0
    for _ in range(40):
        whole, kept, versions = RoundLedger(PEERS[0]), RoundLedger(PEERS[0]), dict.fromkeys(PEERS, 1)
        for number in range(1, 9):
            for peer in versions:
                versions[peer] += draw.random() < 0.3
            now = {peer: versions[peer] for peer in draw.sample(PEERS, draw.randint(3, 6))}
            calls = calls_of(now, whole)
            reason = reason_of(whole.require_hidden, calls, least)
            assert reason_of(kept.require_hidden, calls, least) == reason, (whole.entries, kept.entries, now)
            refused += reason is not None
            if reason is None:
                for ledger in (whole, kept):
                    ledger.enter(entry_of(number, now, published=True, answered=PEERS[0] in now))
                kept.settle(least)
        dropped += len(whole.entries) - len(kept.entries)
    assert dropped > 20
    assert refused > 10


def test_a_ledger_of_a_year_of_rounds_is_short_and_what_was_answered_is_named() -> None:
    ledger = RoundLedger(PEERS[0])
    for number in range(1, 200):
        now = {PEERS[0]: number, PEERS[1]: number // 3, PEERS[2]: 1, PEERS[3]: number}
        assert reason_of(ledger.require_hidden, calls_of(now, ledger)) is None
        ledger.enter(entry_of(number, now, answered=True, published=True))
        ledger.settle()
        assert len(ledger.entries) < 6
    named = ledger.call(200, 1).answered
    assert named == tuple(range(200 - MAX_NAMED_ROUNDS, 200))
    assert RoundLedger.decode(ledger.encode()).call(200, 1).answered == named


def test_what_was_answered_without_a_result_stays_until_the_own_statistics_are_new() -> None:
    ledger = RoundLedger(PEERS[0])
    ledger.enter(entry_of(1, a_round("a1 b1 c1"), answered=True))
    ledger.enter(entry_of(2, a_round("b2 c2 d2 e2")))
    ledger.settle()
    assert 1 in ledger.entries
    ledger.enter(entry_of(3, a_round("a2 b3 c3"), published=True))
    ledger.settle()
    assert 1 not in ledger.entries


def test_a_round_long_ago_is_struck_out_by_nobodys_silence() -> None:
    """A peer need not name for ever what it answered, so that it does not says nothing."""
    for behind, is_dead in ((1, True), (MAX_NAMED_ROUNDS, True), (MAX_NAMED_ROUNDS + 1, False)):
        ledger = RoundLedger(PEERS[0])
        ledger.enter(entry_of(7, a_round("a1 b1 c1 d1")))
        calls = [RoundLedger(peer).call(7 + behind, 1) for peer in PEERS[:4]]
        assert ledger.strike(calls) == ([7] if is_dead else [])


def test_many_rounds_of_many_peers_are_quick_to_judge() -> None:
    """A leader that calls different sets of the same thousand peers makes the largest matrices; it stalls nobody."""
    draw = random.Random(7)
    peers = [number.to_bytes(32, "big") for number in range(1000)]
    now, *earlier = [dict.fromkeys(draw.sample(peers, 900), 1) for _ in range(12)]
    assert not any(shows_few(now, earlier[:6], earlier[6:], count) for count in (1, 2))
