"""Peers that are killed at random instants of rounds: tests/federation_killer.py."""

import pytest
from federation_killer import kill_peers


@pytest.mark.parametrize(
    ("kills", "seed"), [pytest.param(3, 1, marks=pytest.mark.long), pytest.param(100, 2, marks=pytest.mark.very_long)]
)
def test_sums_are_exact_or_everybody_knows_why(tmp_path, kills, seed):
    happened = kill_peers(tmp_path, kills, seed)
    print(dict(happened))
    assert happened["merged"] >= kills // 4
    assert set(happened) <= {"merged", "refused", "failed", "the leader was killed"}
