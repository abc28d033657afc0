"""The ledger of a federation's rounds (F1 to F5): the vectors, and that no sequence of sums shows one peer."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction

import pytest
from pet1_rounds import reason_of
from vector_files import load_vectors

from pet.errors import StateError
from pet.pet1.federation import Called, derive_set_digest, federation_plan
from pet.pet1.ledger import LedgerEntry, RoundLedger

VECTORS, CHOICES = load_vectors("pet1/federation.json"), load_vectors("pet1/choices.json")
PEERS = [bytes([number]) * 32 for number in range(1, 6)]


def entry_of(entry: dict, **changes: object) -> LedgerEntry:
    versions = {bytes.fromhex(key): version for key, version in entry["versions"].items()}
    values = {"groups": 1, "members": frozenset(versions), "answered": entry["answered"], "published": entry["published"]}
    return LedgerEntry(number=entry["number"], versions=versions, **values | changes)


def answers_of(versions: Mapping[bytes, int], known: Iterable[Mapping[bytes, int]] = ()) -> list[Called]:
    """Return the answers to a call of peers who all know some sets."""
    sets = tuple(sorted({derive_set_digest(each) for each in known}))
    return [Called(peer=peer, number=9, version=version, sets=sets) for peer, version in sorted(versions.items())]


def test_sets_of_the_vectors() -> None:
    for case in VECTORS["sets"]:
        ledger = RoundLedger(bytes.fromhex(case["own"]), map(entry_of, case["ledger"]))
        versions = {bytes.fromhex(key): version for key, version in case["versions"].items()}
        # All know all sets, as after published results: what the vectors judge is the set.
        calls = answers_of(versions, [entry.versions for entry in ledger.entries.values()])
        assert reason_of(ledger.require_hidden, calls, case["least_changed"]) == case["refused"], case["what"]
    assert {case["refused"] for case in VECTORS["sets"]} == {None, "answered_before", "too_few_changes"}


def test_rounds_of_the_vectors_that_are_struck_out() -> None:
    for case in VECTORS["struck"] + CHOICES["struck"]:
        members = frozenset(map(bytes.fromhex, case["entry"]["members"]))
        entry = LedgerEntry(
            number=case["entry"]["number"],
            versions=dict.fromkeys(members, 1),
            groups=case["entry"]["groups"],
            members=members,
            published=case["entry"]["published"],
        )
        calls = [
            Called(peer=bytes.fromhex(call["peer"]), number=call.get("number", 9), version=1, answered=tuple(call["answered"]))
            for call in case["calls"]
        ]
        ledger = RoundLedger(PEERS[0], [entry])
        assert ledger.strike(calls, case["least_changed"]) == ([entry.number] if case["dead"] else []), case["what"]
        assert bool(ledger.entries) is not case["dead"]


def test_calls_of_the_vectors() -> None:
    for case in CHOICES["called"]:
        ledger = RoundLedger(PEERS[0])
        ledger.call(*case["before"])
        assert reason_of(ledger.call, *case["call"]) == case["refused"], case["what"]


def test_what_is_known_of_a_round_stays_known() -> None:
    ledger = RoundLedger(PEERS[0])
    entry = LedgerEntry.of(7, [call_of(peer, 7) for peer in PEERS[:3]], federation_plan(3), PEERS[:3])
    ledger.enter(entry)
    ledger.mark(7, answered=True)
    ledger.enter(entry)  # the peer was restarted, and joins the round again
    assert ledger.entries[7].answered


def call_of(peer: bytes, number: int, version: int = 1, answered: tuple[int, ...] = (), sets: tuple[bytes, ...] = ()) -> Called:
    return Called(peer=peer, number=number, version=version, answered=answered, sets=sets)


def test_others_have_to_know_the_set_of_a_round_that_a_peer_was_in() -> None:
    """A leader shows a result to those alone who were in the round: for the others, its sum would be in no combination."""
    before, now = dict.fromkeys(PEERS[:4], 1), dict.fromkeys([PEERS[0], *PEERS[2:5]], 1) | {PEERS[2]: 2, PEERS[3]: 2}
    for answered, published in ((True, True), (False, True), (False, False)):
        ledger = RoundLedger(PEERS[0], [LedgerEntry(number=3, versions=before, groups=1, members=frozenset(before))])
        ledger.mark(3, answered=answered, published=published)
        everybody = answers_of(now, [before])
        assert reason_of(ledger.require_hidden, everybody) is None
        for place in range(1, 4):
            calls = [replace(call, sets=()) if number == place else call for number, call in enumerate(everybody)]
            assert reason_of(ledger.require_hidden, calls) == "unseen_result"
            assert ledger.unaware(calls) == ({calls[place].peer} if published else set())
        assert reason_of(ledger.require_hidden, answers_of(now | {PEERS[0]: 2})) is None, "its own statistics are new"
        assert reason_of(ledger.require_hidden, answers_of(before)) is None, "the same set again"
    ledger.mark(3, answered=True)
    assert reason_of(ledger.require_hidden, everybody) == "answered_before", "its result may be hidden from all others"


def test_sets_are_named_as_long_as_others_may_need_them() -> None:
    ledger = RoundLedger(PEERS[0])
    sets = [dict.fromkeys(PEERS, version) for version in range(1, 60)]
    for number, versions in enumerate(sets, 1):
        ledger.enter(LedgerEntry(number=number, versions=versions, groups=1, members=frozenset(PEERS), published=True))
        ledger.settle()
    again = RoundLedger.decode(ledger.encode())
    # All but the last can be in no combination with a later round; eight of them are named nevertheless.
    named = {derive_set_digest(versions) for versions in sets[-9:]}
    assert (list(again.entries), set(again.call(99, 60).sets)) == ([59], named)
    assert [number for number in range(1, 62) if again.knows_result(number)] == list(range(51, 60))
    # A federation whose sets change without new statistics: of many sets that are needed, the newest are named.
    many = [dict.fromkeys(PEERS[:3], 60 + number) for number in range(40)]
    entries = [LedgerEntry(number=number, versions=each, groups=1, members=frozenset(each)) for number, each in enumerate(many)]
    assert set(RoundLedger(PEERS[0], entries).call(99, 1).sets) == {derive_set_digest(each) for each in many[-32:]}


def test_a_ledger_of_the_earlier_format_is_read() -> None:
    ledger = RoundLedger(PEERS[0], [LedgerEntry(number=3, versions={PEERS[0]: 1}, groups=1, members=frozenset(PEERS))])
    record = json.loads(ledger.encode()) | {"format": 1}
    del record["settled_sets"]
    again = RoundLedger.decode(json.dumps(record).encode())
    assert again.entries == ledger.entries
    assert again.call(9, 1).sets == (derive_set_digest({PEERS[0]: 1}),)


def test_a_peer_says_what_it_has_answered_and_answers_no_older_call() -> None:
    ledger = RoundLedger(PEERS[0])
    calls = [call_of(peer, 7) for peer in PEERS[:3]]
    ledger.enter(LedgerEntry.of(7, calls, federation_plan(3), PEERS[:3]))
    ledger.enter(LedgerEntry.of(5, calls, federation_plan(3), PEERS[:3]))
    assert list(ledger.entries) == [5, 7]
    known = (derive_set_digest(ledger.entries[7].versions),)  # of both rounds
    assert ledger.call(8, 1) == call_of(PEERS[0], 8, sets=known)
    ledger.mark(7, answered=True)
    ledger.mark(7, published=True)
    assert (ledger.entries[7].answered, ledger.entries[7].published) == (True, True)
    assert ledger.call(9, 2) == call_of(PEERS[0], 9, 2, (7,), known)
    assert ledger.call(9, 2).number == 9  # the leader asks again
    again = RoundLedger.decode(ledger.encode())
    assert (again.own, again.entries, again.last_called, again.called_version) == (ledger.own, ledger.entries, 9, 2)
    assert reason_of(again.call, 8, 2) == "wrong_round"
    assert RoundLedger.decode(RoundLedger(PEERS[0]).encode()).last_called is None


@pytest.mark.parametrize(("least", "again"), [(2, 4), (3, 5)])
def test_most_peers_of_an_earlier_round_come_again(least: int, again: int) -> None:
    """A leader that hides two sums of sets that nobody is in both of subtracts them from one that all know: the rest is one."""
    everybody = [bytes([number]) * 32 for number in range(7)]
    ledger = RoundLedger(everybody[0])
    versions = dict.fromkeys(everybody, 1)
    ledger.enter(LedgerEntry(number=1, versions=versions, groups=1, members=frozenset(everybody), published=True))
    ledger.mark(1, answered=True)
    for count in range(3, 8 - least):
        listed = dict.fromkeys(everybody[:count], 1)
        assert reason_of(ledger.require_hidden, answers_of(listed, [versions]), least) == (
            "too_few_again" if count < again else None
        )
        assert reason_of(ledger.require_hidden, answers_of(listed | {everybody[0]: 2}), least) is None, (
            "it has new statistics itself"
        )
    # It is remembered beyond the entry, which no combination needs once two of its pairs are older.
    newer = versions | dict.fromkeys(everybody[-least:], 2)
    ledger.enter(LedgerEntry(number=2, versions=newer, groups=1, members=frozenset(everybody), published=True))
    ledger.settle(least)
    assert list(ledger.entries) == [2]
    ledger.enter(LedgerEntry(number=3, versions=dict.fromkeys(everybody, 3), groups=1, members=frozenset(everybody)))
    ledger.entries.clear()
    again_from_disk = RoundLedger.decode(ledger.encode())
    few = answers_of(dict.fromkeys(everybody[:3], 1))
    assert reason_of(again_from_disk.require_hidden, few, least) == "too_few_again"
    again_from_disk.settle(least)  # all have newer ones
    assert reason_of(again_from_disk.require_hidden, few, least) is None


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"format": 3}', b'{"format": 1, "own": "zz", "last_called": null, "entries": []}']
)
def test_ledgers_that_are_none(data: bytes) -> None:
    with pytest.raises(StateError):
        RoundLedger.decode(data)


def smallest_support(rows: list[dict[bytes, int]], peers: list[bytes]) -> int:
    """Return the fewest peers that a combination of sums is of, by exact arithmetic and by trying all sets of peers."""
    columns = sorted({pair for row in rows for pair in row.items()})

    def rank(matrix: list[list[Fraction]]) -> int:
        found = 0
        for column in range(len(matrix[0]) if matrix else 0):
            pivot = next((row for row in range(found, len(matrix)) if matrix[row][column]), None)
            if pivot is None:
                continue
            matrix[found], matrix[pivot] = matrix[pivot], matrix[found]
            for row in range(found + 1, len(matrix)):
                factor = matrix[row][column] / matrix[found][column]
                matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[found], strict=True)]
            found += 1
        return found

    whole = [[Fraction(row.get(peer) == version) for peer, version in columns] for row in rows]
    for count in range(1, len(peers) + 1):
        for few in itertools.combinations(peers, count):
            kept = [index for index, (peer, _) in enumerate(columns) if peer not in few]
            if rank([[row[index] for index in kept] for row in whole]) < rank([row[:] for row in whole]):
                return count
    return len(peers) + 1


def test_no_combination_of_published_sums_is_of_fewer_peers_than_asked_for() -> None:
    """Rounds at random among five peers whose statistics change now and then: exact arithmetic agrees with each decision."""
    for seed in range(4):
        source = random.Random(seed)
        least = source.choice([2, 3])
        versions = dict.fromkeys(PEERS, 1)
        ledger, published, refused = RoundLedger(PEERS[0]), [], 0
        for number in range(1, 9):
            for peer in PEERS:
                versions[peer] += source.random() < 0.2
            others = source.sample(PEERS[1:], source.choice([2, 3, 4]))
            listed = {peer: versions[peer] for peer in sorted([PEERS[0], *others])}
            reason = reason_of(ledger.require_hidden, answers_of(listed, published), least)
            assert (smallest_support([*published, listed], PEERS) < least) is (reason == "too_few_changes")
            if reason is None:
                entry = LedgerEntry(number=number, versions=listed, groups=1, members=frozenset(listed), published=True)
                ledger.enter(entry)
                published.append(listed)
            refused += reason is not None
        assert published


def test_rounds_of_the_earlier_profile_need_not_be_known_to_who_joined_later() -> None:
    """Nothing signed says what their sets were, so nobody could show them to a newcomer: it would wait for ever."""
    before, now = dict.fromkeys(PEERS[:3], 1), dict.fromkeys(PEERS[:4], 1) | {PEERS[1]: 2}
    for precedes, reason in ((True, None), (False, "unseen_result")):
        entry = LedgerEntry(
            number=1, versions=before, groups=1, members=frozenset(before), published=True, precedes_pet1=precedes
        )
        ledger = RoundLedger.decode(RoundLedger(PEERS[0], [entry]).encode())
        assert reason_of(ledger.require_hidden, answers_of(now)) == reason
        assert bool(ledger.unaware(answers_of(now))) == (not precedes)
