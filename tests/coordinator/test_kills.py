"""A few kills of a real coordinator in every run; tests/coordinator_killer.py does two hundred of them."""

import pytest
from coordinator_killer import run


@pytest.mark.parametrize("storage", ["sqlite", pytest.param("redis", marks=pytest.mark.long)])
def test_a_killed_coordinator_loses_and_doubles_nothing(tmp_path, storage):
    result = run(tmp_path, kills=4, storage=storage, seed=7, longest_seconds=1.0, patience_seconds=300)
    assert result["kills"] == 4
    assert result["rounds_checked"] >= 1


@pytest.mark.long
@pytest.mark.parametrize("storage", ["sqlite", "redis"])
def test_a_killed_coordinator_of_pet1_loses_and_doubles_nothing(tmp_path, storage):
    result = run(tmp_path, kills=3, storage=storage, participants="pet/1", seed=5, longest_seconds=1.0, patience_seconds=300)
    assert result["kills"] == 3
    assert result["rounds_checked"] >= 1
