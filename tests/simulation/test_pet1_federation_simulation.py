"""Sequences of rounds of a federation: whatever peers and leaders do, the sums that exist show no single peer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from pet1_federation import FederationSequence
from pet1_ledger import Violation

from pet.pet1.federation import Called
from pet.pet1.ledger import LedgerEntry, RoundLedger
from pet.protocol.pet1_federation_peer import Pet1Peer
from pet.protocol.pet1_member import MemberMachine

ROUNDS = 7


def played(seeds: range) -> Counter[str]:
    happened: Counter[str] = Counter()
    for seed in seeds:
        happened += FederationSequence(seed).run(ROUNDS)
    return happened


def test_sums_of_a_federation_show_no_single_peer() -> None:
    assert played(range(8))["sums"] >= 4


@pytest.mark.long
def test_sums_of_a_federation_show_no_single_peer_in_many_sequences() -> None:
    happened = played(range(100, 160))
    assert happened["sums"] >= 60, "sequences in which hardly a sum exists prove nothing"
    for what in (
        *("vanished before call", "vanished before join", "vanished before mask", "vanished before sign_check"),
        *("vanished before answer", "restarts", "rounds left for another", "called again", "answered without a sum"),
        *("join: answered_before", "join: too_few_changes", "join: wrong_round", "join: enrolment_rolled_back"),
    ):
        assert happened[what] > 1, what


def strikes_its_own_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call of a round that was answered denies it: an answer to a call names earlier rounds only."""

    def is_dead(self: LedgerEntry, calls: Sequence[Called], least_changed: int) -> bool:
        silent = sum(call.peer in self.members and self.number not in call.answered for call in calls)
        return not self.published and silent >= max(least_changed, 3) + self.groups - 1

    monkeypatch.setattr(LedgerEntry, "is_dead", is_dead)


def forgets_that_it_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = RoundLedger.mark

    def forget(self: RoundLedger, number: int, *, answered: bool = False, published: bool = False) -> None:
        mark(self, number, published=published)

    monkeypatch.setattr(RoundLedger, "mark", forget)


def answers_older_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """F4 is left out."""
    call = Pet1Peer.call

    def call_and_go_on(self: Pet1Peer, number: int, version: int) -> bytes:
        joined = self._joined
        signed = call(self, number, version)
        self._joined = joined
        return signed

    monkeypatch.setattr(Pet1Peer, "call", call_and_go_on)
    monkeypatch.setattr(MemberMachine, "note_call", lambda _self, _number: None)


@pytest.mark.parametrize(
    ("plant", "seeds"),
    [
        (strikes_its_own_round, range(35, 60)),
        (forgets_that_it_answered, range(9, 30)),
        (answers_older_calls, range(71, 100)),
    ],
)
def test_a_planted_mistake_of_a_peer_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Violation):
        played(seeds)
