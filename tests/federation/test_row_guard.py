"""What a peer lets others see of its rows: by row count, against every version that left it."""

import numpy as np
import pytest

from pet.errors import StateError
from pet.federation.peer import row_guard
from pet.federation.peer.row_guard import RowGuard
from pet.federation.runtime import HeldBack
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

SCHEMA = Schema(tuple(Feature(name=name) for name in "abc"))


def statistics(rows, seed=1):
    return Statistics.of(np.random.default_rng(seed).random((rows, 3)), SCHEMA)


def new_guard(storage, least=8):
    return RowGuard(storage, lambda _: least)


class Peer:
    """Versions of statistics and what leaves."""

    def __init__(self, storage, least=8):
        self.guard, self.version = new_guard(storage, least), 0
        self.now = statistics(0)

    def has(self, rows, seed=None):
        self.version += 1
        self.now = statistics(rows, self.version if seed is None else seed)
        return self

    def shares(self):
        """Rows, version and whether they are new, of what leaves now; None for nothing."""
        offered = self.guard.offered(self.now, self.version)
        if offered is None:
            return None
        if offered.is_new:
            assert offered.statistics is self.now
            self.guard.note(offered.statistics, offered.version)
        return offered.statistics.rows, offered.version, offered.is_new

    def held(self):
        return self.guard.held_back(self.now, self.version)


def test_nothing_leaves_below_the_minimum_whatever_came_before(storage):
    peer = Peer(storage)
    assert peer.shares() is None
    assert peer.held() is None, "there is nothing to hold back"
    for rows in (1, 3, 7):
        assert peer.has(rows).shares() is None
        assert peer.held() == HeldBack(rows=rows, least=8)
    assert peer.has(8).shares() == (8, 4, True)
    assert peer.held() is None


def test_a_change_leaves_when_it_is_enough_rows_from_every_version_that_left(storage):
    peer = Peer(storage)
    assert peer.has(20).shares() == (20, 1, True)
    assert peer.has(27).shares() == (20, 1, False), "the last one again"
    assert peer.held() == HeldBack(rows=7, least=8)
    assert peer.has(28).shares() == (28, 3, True)
    assert peer.has(40).shares() == (40, 4, True)
    # 33 rows are far from the last version, and 5 from one before.
    assert peer.has(33).shares() == (40, 4, False)
    assert peer.held() == HeldBack(rows=5, least=8, forgets=True)
    assert peer.has(28).shares() == (40, 4, False), "as many rows as before, others: replaced rows add nothing"
    assert peer.held() == HeldBack(rows=0, least=8, forgets=True)
    assert peer.has(48).shares() == (48, 7, True)


def test_what_was_forgotten_is_pending_until_it_can_be_shared(storage):
    peer = Peer(storage)
    peer.has(20).shares()
    assert peer.has(13).shares() == (20, 1, False)
    assert peer.held() == HeldBack(rows=7, least=8, forgets=True)
    assert peer.has(5).shares() == (20, 1, False), "5 rows are below the minimum, however many are gone"
    assert peer.held() == HeldBack(rows=5, least=8, forgets=True)
    assert peer.has(12).shares() == (12, 4, True)
    assert peer.has(0).shares() is None, "all 12 are gone, and that may be seen"
    assert peer.held() is None


def test_all_rows_are_held_on_to_where_too_few_would_be_seen_to_go(storage):
    peer = Peer(storage, least=8)
    peer.has(8).shares()
    peer.has(16).shares()
    assert peer.has(0).shares() is None
    few = Peer(storage, least=20)
    assert few.has(0).shares() == (16, 2, False)
    assert few.held() == HeldBack(rows=8, least=20, forgets=True)


def test_a_user_lowers_the_limit_for_its_own_peer(storage):
    peer = Peer(storage, least=3)
    assert peer.has(2).shares() is None
    assert peer.has(3).shares() == (3, 2, True)
    assert peer.has(5).shares() == (3, 2, False)
    assert peer.has(6).shares() == (6, 4, True)


def test_what_left_is_remembered_through_a_restart(storage):
    peer = Peer(storage)
    peer.has(20).shares()
    first = peer.now
    again = Peer(storage)
    again.version = 1
    assert again.has(25).shares() == (20, 1, False)
    offered = again.guard.offered(again.now, again.version)
    np.testing.assert_array_equal(offered.statistics.values, first.values)
    for damaged in (b"[1, nonsense]", b'["8"]', b"[8.5]", b"[true]", b"[-1]", b'{"8": 8}'):
        storage.save_state("shared_counts", damaged)
        with pytest.raises(StateError, match="what was shared"):
            new_guard(storage)


def test_a_death_between_the_two_steps_of_a_note_never_shows_two_statistics_under_one_version(storage, monkeypatch):
    peer = Peer(storage)
    peer.has(20).shares()
    save, steps = type(storage).save_state, []

    def save_once(self, name, state):
        if steps:
            raise OSError("the disk is gone")
        steps.append(name)
        save(self, name, state)

    monkeypatch.setattr(type(storage), "save_state", save_once)
    with pytest.raises(OSError, match="disk"):
        peer.has(40).shares()
    monkeypatch.undo()
    again = Peer(storage)
    again.version, again.now = peer.version, peer.now
    assert again.shares() == (20, 1, False)


def test_a_peer_of_an_earlier_release_knows_its_last_version(storage):
    """It kept the row count of the last one, and in the plain exchange the statistics as well."""
    guard = RowGuard(storage, lambda _: 8, (4, 20))
    assert guard.held_back(statistics(25), 5) == HeldBack(rows=5, least=8)
    assert guard.offered(statistics(25), 5) is None, "there is nothing to show again"
    storage.save_state("sent", statistics(20).to_bytes(with_residues=True))
    offered = RowGuard(storage, lambda _: 8, (4, 20)).offered(statistics(25), 5)
    assert (offered.statistics.rows, offered.version, offered.is_new) == (20, 4, False)


def test_the_memory_is_bounded_and_full_means_held_back(storage, monkeypatch):
    monkeypatch.setattr(row_guard, "MAX_SHARED_VERSIONS", 2)
    peer = Peer(storage)
    peer.has(8).shares()
    peer.has(16).shares()
    assert peer.has(24).shares() == (16, 2, False)
