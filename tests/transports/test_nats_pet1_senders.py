"""Whose turn it is to send an update of pet/1 over NATS: no clock and no broker."""

from __future__ import annotations

import pytest

from pet.transports.nats import pet1_senders
from pet.transports.nats.pet1_senders import MAX_LEAVES, SILENT_SECONDS, Pet1Senders

LEAVES = 64
STALL_SECONDS = 30.0


@pytest.fixture
def senders() -> Pet1Senders:
    made = Pet1Senders(2, STALL_SECONDS)
    assert made.may_send("a", LEAVES, 0)
    assert made.may_send("b", LEAVES, 0)
    return made


def bring(senders: Pet1Senders, peer: str, count: int, now_seconds: float) -> int:
    """Bring leaves, each answered at once; returns how many were taken."""
    taken = 0
    for _ in range(count):
        if senders.take_leaf(peer, LEAVES, now_seconds):
            taken += 1
            senders.end_leaf(peer, now_seconds)
    return taken


def test_turns_go_round_in_the_order_of_asking(senders: Pet1Senders) -> None:
    assert not senders.may_send("c", LEAVES, 0)
    assert not senders.may_send("d", LEAVES, 0)
    senders.end_turn("a")
    assert not senders.may_send("d", LEAVES, 0)
    assert not senders.may_send("a", LEAVES, 0)  # behind both
    assert senders.may_send("c", LEAVES, 0)
    senders.end_turn("b")
    assert not senders.may_send("a", LEAVES, 0)
    assert senders.may_send("d", LEAVES, 0)
    assert senders.may_send("d", LEAVES, 0)


def test_who_went_away_is_not_waited_for(senders: Pet1Senders) -> None:
    assert not senders.may_send("gone", LEAVES, 0)
    for seconds in range(15):
        assert bring(senders, "a", 1, seconds) == bring(senders, "b", 1, seconds) == 1
    assert not senders.may_send("c", LEAVES, 14)
    senders.end_turn("a")
    assert not senders.may_send("c", LEAVES, 15)
    assert senders.may_send("c", LEAVES, 15.1)


def test_a_silent_turn_ends_and_one_that_is_worked_on_does_not(senders: Pet1Senders) -> None:
    assert senders.take_leaf("a", LEAVES, 0)  # not answered yet
    assert not senders.may_send("c", LEAVES, SILENT_SECONDS)
    assert senders.may_send("c", LEAVES, SILENT_SECONDS + 0.1)  # that of b
    assert not senders.may_send("b", LEAVES, SILENT_SECONDS + 0.1)
    assert senders.may_send("a", LEAVES, SILENT_SECONDS + 0.1)


def test_who_opens_and_brings_nothing_takes_its_turn_like_others(senders: Pet1Senders) -> None:
    """Two that do nothing but open, and one that waits: it has the first turn that ends."""
    seconds, has_turn = 0.0, False
    while not has_turn:
        seconds += 0.1
        assert seconds < SILENT_SECONDS + 0.2
        *_, has_turn = [senders.may_send(peer, LEAVES, seconds) for peer in ("a", "b", "honest")]


def test_a_sender_has_no_more_under_way_than_its_share(senders: Pet1Senders) -> None:
    assert [senders.take_leaf("a", LEAVES, 0) for _ in range(MAX_LEAVES + 2)] == [True] * MAX_LEAVES + [False] * 2
    senders.end_leaf("a", 0)
    assert senders.take_leaf("a", LEAVES, 0)
    assert senders.take_leaf("b", LEAVES, 0)


def test_leaves_under_way_count_after_their_turn_as_well(senders: Pet1Senders) -> None:
    """A refusal ends a turn: who has leaves refused while the disk is slow must not bring more and more."""
    for _ in range(5):
        while senders.take_leaf("a", LEAVES, 0):
            pass
        senders.end_turn("a")
    for peer in ("c", "d", "e"):
        while senders.take_leaf(peer, LEAVES, 0):
            pass
        senders.end_turn(peer)
    assert senders.count_under_way() == 2 * MAX_LEAVES
    for _ in range(MAX_LEAVES):
        senders.end_leaf("a", 0)
    assert senders.take_leaf("a", LEAVES, 0)


def test_the_same_leaves_again_and_again_end_a_turn_when_others_wait(senders: Pet1Senders) -> None:
    most = LEAVES + 2 * MAX_LEAVES
    assert bring(senders, "a", 2 * most, 1) == 2 * most
    bring(senders, "b", 1, 1)
    assert senders.may_send("c", LEAVES, 1) is False
    assert bring(senders, "a", 1, 1) == 0
    assert senders.may_send("c", LEAVES, 1)


def test_while_others_wait_a_sixteenth_of_an_update_has_to_come(senders: Pet1Senders) -> None:
    leaves, seconds = 1600, 0

    def bring_one(peer: str) -> bool:
        is_taken = senders.take_leaf(peer, leaves, seconds)
        senders.end_leaf(peer, seconds)
        return is_taken

    while seconds < STALL_SECONDS:
        assert not senders.may_send("c", leaves, seconds)
        seconds += 1
        assert all(bring_one("a") for _ in range(10))
        assert bring_one("b")  # thirty in as many seconds, of a hundred
    seconds += 1
    assert bring_one("a")
    assert not bring_one("b")
    assert senders.may_send("c", leaves, seconds)
    assert bring_one("a")


def test_only_so_many_are_remembered(senders: Pet1Senders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pet1_senders, "_MAX_WAITING", 3)
    for number in range(10):
        assert not senders.may_send(f"w{number}", LEAVES, 0)
    assert len(senders._waiting) == 3
