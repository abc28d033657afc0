"""The rules that keep statistics from giving rows away."""

import json

import numpy as np
import pytest

from pet.errors import SharingError
from pet.federation.schema import Feature, Schema
from pet.federation.sharing_rules import AggregateLedger, Contribution, require_least_rows
from pet.federation.statistics import Statistics

SCHEMA = Schema(tuple(Feature(name=name) for name in "abc"))
LEAST = 8


def statistics(rows):
    return Statistics.of(np.random.default_rng(rows).random((rows, 3)), SCHEMA)


def test_plain_statistics_need_attributes_and_five_rows_also_in_their_difference():
    assert SCHEMA.least_rows == LEAST
    require_least_rows(SCHEMA, statistics(8), None)
    require_least_rows(SCHEMA, statistics(24), statistics(16))
    require_least_rows(SCHEMA, statistics(16), statistics(24))
    with pytest.raises(SharingError, match=r"at least 8.*got 7"):
        require_least_rows(SCHEMA, statistics(7), None)
    with pytest.raises(SharingError, match=r"changed rows.*got 7"):
        require_least_rows(SCHEMA, statistics(23), statistics(16))


def contributions(**changes):
    """Peers a, b, c at version 1 with 100 rows (cut off at 8), and what is said otherwise: (version, rows, changed)."""
    peers = dict.fromkeys("abc", (1, 8, 8)) | changes
    return {peer: Contribution(version=v, rows=r, changed_rows=c) for peer, (v, r, c) in peers.items() if r is not None}


def after(*rounds):
    ledger = AggregateLedger()
    for one in rounds:
        ledger.require_aggregate(one, LEAST)
        ledger.record(one)
    return AggregateLedger.from_json(json.loads(json.dumps(ledger.to_json())))


@pytest.mark.parametrize(
    ("earlier", "now", "problem"),
    [
        ([], contributions(c=(1, None, 0)), "contributing peers: expected at least 3, got 2"),
        ([], contributions(a=(1, 2, 2), b=(1, 2, 2), c=(1, 3, 3)), "rows of all peers.*got 7"),
        ([contributions()], contributions(), "since the last aggregate: expected some"),
        ([contributions()], contributions(a=(2, 8, 8)), "at least 2 peers, got 1"),
        ([contributions()], contributions(d=(1, 8, 8)), "at least 2 peers, got 1"),
        ([contributions(d=(1, 8, 8))], contributions(), "at least 2 peers, got 1"),
        ([contributions()], contributions(a=(2, 8, 3), b=(2, 8, 4)), "changed rows.*got 7"),
        ([contributions(), contributions(a=(2, 8, 8), b=(2, 8, 8))], contributions(a=(2, 8, 8)), "an earlier aggregate.*got 1"),
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
