"""Whatever is signed counts once, and only while it is recent."""

import pytest

from pet.federation.formats.replay_guard import ReplayGuard, is_recent


def test_an_id_serves_once_and_is_forgotten_late():
    guard = ReplayGuard(max_ids=10)
    assert guard.remember("first", "id", 0)
    assert not guard.remember("first", "id", 419)
    assert guard.remember("second", "id", 419)
    assert guard.remember("first", "id", 421)


def test_a_sender_uses_up_its_own_room_alone():
    """Who sends more than anybody needs to is refused, and nobody else; nothing is forgotten before it is too old."""
    guard = ReplayGuard(max_ids=3)
    assert [guard.remember("flooder", str(number), 0) for number in range(5)] == [True] * 3 + [False] * 2
    assert guard.remember("another", "0", 0)
    assert not guard.remember("another", "0", 0)
    assert not guard.remember("flooder", "0", 400)
    assert guard.remember("flooder", "5", 500)


@pytest.mark.parametrize(("age", "expected"), [(-60.5, False), (-60, True), (0, True), (300, True), (300.5, False)])
def test_what_is_recent(age, expected):
    assert is_recent(age) is expected


def test_an_id_is_remembered_as_long_as_it_could_come_again():
    """From the first moment at which it is recent to the last."""
    sent = 1_000_000.0
    guard = ReplayGuard(max_ids=10)
    times = [at / 2 for at in range(int(2 * sent) - 200, int(2 * sent) + 800) if is_recent(at / 2 - sent)]
    assert [guard.remember("sender", "id", now) for now in times] == [True] + [False] * (len(times) - 1)
