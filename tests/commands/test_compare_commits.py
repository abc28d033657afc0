"""The comparison with an older commit: two processes that take turns, and what counts as slower."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pet

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PACKAGE = Path(pet.__file__).resolve().parent


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("compare_commits")
    sys.modules.pop("compare_commits")


@pytest.mark.long
def test_pet_is_as_fast_as_itself(script, tmp_path):
    """The folder of the older commit holds this pet, so nothing is built; the limit is one that no other load reaches."""
    (tmp_path / "pet").symlink_to(PACKAGE)
    arguments = ["--build", tmp_path, "--configs", "prime-i64-bmax-m12", "--turns", "2", "--pairs", "1", "--limit", "1000"]
    process = subprocess.run(
        [sys.executable, BENCHMARKS / "compare_commits.py", *arguments], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert [line[21:34].strip() for line in lines[1:-1]] == list(script.CALLS)
    assert all(0.001 < float(line[35:40]) < 1000 for line in lines[1:-1])
    assert lines[-1] == "0 of 6 lines are slower by more than 99900%"


def test_a_process_measures_the_pet_that_it_should(script, tmp_path):
    """A folder without pet leaves the installed one, which would be compared with itself unnoticed."""
    with pytest.raises(SystemExit, match="expected pet of "):
        script.Worker(tmp_path, "", 1000)


def test_the_pairs_of_turns_change_their_order(script):
    measured = []

    class Recorded:
        def __init__(self, name, time):
            self.name, self.time = name, time

        def measure(self, config, call):
            measured.append(self.name)
            return self.time

    assert script.compare(Recorded("old", 4.0), Recorded("new", 5.0), "config", "mask", 3) == [1.25] * 3
    assert measured == ["old", "new", "old", "new", "new", "old", "old", "new"]


@pytest.mark.parametrize(
    ("quartiles", "expected"),
    [
        ([1.06, 1.08, 1.1], "slower"),
        ([0.99, 1.08, 1.3], ""),  # noise
        ([1.02, 1.04, 1.05], ""),  # within the limit
        ([0.8, 0.9, 0.95], "faster"),
        ([0.8, 0.9, 1.05], ""),
    ],
)
def test_what_counts_as_slower(script, quartiles, expected):
    assert script.verdict(quartiles, 1.05) == expected
