"""The load benchmarks in small: every update counts once, whatever is refused and sent again on the way."""

import subprocess
import sys
from pathlib import Path

import fork_server
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("load_many.py", ["--participants", "150", "--length", "1000"]),
        ("load_large.py", ["--participants", "4", "--length", "400000", "--senders", "4"]),  # 2.8 MB each: through the spool
    ],
)
def test_nothing_is_lost(script, arguments):
    process = fork_server.run(fork_server.PROGRAM, BENCHMARKS / script, *arguments, timeout=120)
    assert process.returncode == 0, process.stderr
    assert "lost: nothing" in process.stdout
    assert "peak memory of the coordinator" in process.stdout


@pytest.mark.parametrize(
    "kind", [pytest.param("update", marks=pytest.mark.long), pytest.param("sum", marks=pytest.mark.very_long)]
)
def test_coordinators_stand_beside_each_other(kind):
    """The command of docs/performance.md, with this environment's coordinator twice."""
    command = f"{sys.executable} -m pet coordinator -c {{settings}}"
    arguments = ["--kind", kind, "--messages", "20", "--length", "100", "--rounds", "2", "--connections", "1", "4"]
    process = subprocess.run(
        [sys.executable, BENCHMARKS / "beside_another_coordinator.py", f"one={command}", f"other={command}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert [line.split()[0] for line in lines if "messages/s  CPU" in line] == ["one", "other"] * 2
    assert len([line for line in lines if "beside one: " in line]) == 2


@pytest.mark.long
def test_a_round_of_pet1_says_what_each_role_pays():
    process = fork_server.run(
        fork_server.PROGRAM, BENCHMARKS / "pet1_round.py", "--participants", "4", "--length", "1e3", timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert "rounds completed: 1" in process.stdout
    assert {line.split(":")[0] for line in process.stdout.splitlines()[2:]} == {"participant", "coordinator", "member"}
