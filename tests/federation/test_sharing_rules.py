"""The rules that keep statistics from giving rows away."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from pet.errors import SharingError
from pet.federation.peer import sharing_rules
from pet.federation.peer.sharing_rules import AggregateLedger, Contribution

LEAST = 8


def contributions(**changes):
    """Peers a, b, c at version 1 with 100 rows (cut off at 8), and what is said otherwise: (version, rows, changed)."""
    peers = dict.fromkeys("abc", (1, 8, 8)) | changes
    return {peer: Contribution(version=v, rows=r, changed_rows=c) for peer, (v, r, c) in peers.items() if r is not None}


def after(*rounds):
    ledger = AggregateLedger()
    for one in rounds:
        ledger.require_aggregate(one, LEAST)
        ledger.record(one)
    return AggregateLedger.from_fields(json.loads(json.dumps(asdict(ledger))))


@pytest.mark.parametrize(
    ("earlier", "now", "problem"),
    [
        ([], contributions(c=(1, None, 0)), "contributing peers: expected at least 3, got 2"),
        ([], contributions(a=(1, 2, 2), b=(1, 2, 2), c=(1, 3, 3)), "rows of all peers.*got fewer"),
        ([contributions()], contributions(), "since the last aggregate: expected some"),
        ([contributions()], contributions(a=(2, 8, 8)), "at least 2 peers to change together, got peer [ad] alone"),
        ([contributions()], contributions(d=(1, 8, 8)), "at least 2 peers to change together, got peer [ad] alone"),
        ([contributions(d=(1, 8, 8))], contributions(), "at least 2 peers to change together, got peer [ad] alone"),
        ([contributions()], contributions(a=(2, 8, 3), b=(2, 8, 4)), "changed rows.*got fewer"),
        (
            [contributions(), contributions(a=(2, 8, 8), b=(2, 8, 8))],
            contributions(a=(2, 8, 8)),
            "version of peer b",
        ),
        (
            [contributions(), contributions(a=(1, None, 0), b=(1, None, 0), d=(1, 8, 8), e=(1, 8, 8))],
            contributions(d=(1, 8, 8), e=(1, 8, 8)),
            "got peer c alone",
        ),
    ],
)
def test_aggregates_that_would_give_somebody_away_are_refused(earlier, now, problem):
    with pytest.raises(SharingError, match=problem):
        after(*earlier).require_aggregate(now, LEAST)


@pytest.mark.parametrize(
    ("earlier", "now"),
    [
        ([], contributions(a=(1, 2, 2), b=(1, 3, 3), c=(1, 3, 3))),
        ([contributions()], contributions(a=(2, 8, 4), b=(2, 8, 4))),
        ([contributions()], contributions(a=(2, 8, 0), d=(1, 8, 8))),
        ([contributions(d=(1, 8, 8))], contributions(a=(2, 8, 0))),
    ],
)
def test_other_aggregates_are_made(earlier, now):
    ledger = after(*earlier)
    assert ledger.has_news(now)
    ledger.require_aggregate(now, LEAST)
    ledger.record(now)
    assert not ledger.has_news(now)


def test_cut_off_counts_decide_as_the_true_ones_would():
    random = np.random.default_rng(5)
    for _ in range(300):
        rows = random.integers(0, 12, 3)
        counts = {peer: (1, int(min(count, LEAST)), 0) for peer, count in zip("abc", rows, strict=True)}
        try:
            AggregateLedger().require_aggregate(contributions(**counts), LEAST)
            decided = True
        except SharingError:
            decided = False
        assert decided == (rows.sum() >= LEAST)


def test_a_round_counts_from_when_it_was_agreed_to_whether_or_not_a_result_was_shown():
    """Who leads a round may keep its result back, so a round without one is remembered like any other."""
    ledger = AggregateLedger()
    with_d = contributions(d=(1, 8, 8))
    ledger.agree(with_d)
    with pytest.raises(SharingError, match="got peer d alone"):
        ledger.require_hidden(contributions(), 0)
    ledger.require_hidden(with_d, 0)  # the same round may be called again
    ledger.require_aggregate(with_d, 0)
    ledger.require_hidden(contributions(a=(2, 8, 8)), 0)  # a changes as d goes: the sums hide both
    ledger.record(with_d)
    with pytest.raises(SharingError, match="expected some, got none"):
        ledger.require_aggregate(with_d, 0)


def test_a_ledger_of_an_earlier_release_is_read():
    ledger = AggregateLedger.from_fields({"aggregates": [{"a": 1, "b": 1, "c": 1}], "rows": {"a": 8, "b": 8, "c": 8}})
    assert not ledger.has_news(contributions())
    with pytest.raises(SharingError, match="got peer a alone"):
        ledger.require_hidden(contributions(a=(2, 8, 8)), 0)


def test_the_memory_is_bounded_and_full_means_refused(monkeypatch):
    monkeypatch.setattr(sharing_rules, "MAX_OPEN_ROUNDS", 2)
    ledger = AggregateLedger()
    for pair in ("de", "fg"):
        ledger.agree(contributions(**dict.fromkeys(pair, (1, 8, 8))))
    with pytest.raises(SharingError, match="at most 2, got one more"):
        ledger.require_hidden(contributions(h=(1, 8, 8), i=(1, 8, 8)), 0)
    ledger.require_hidden(contributions(d=(1, 8, 8), e=(1, 8, 8)), 0)
