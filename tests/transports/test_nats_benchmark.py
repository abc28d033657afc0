"""benchmarks/bench_nats.py runs, small, so that it does not rot."""

import subprocess
import sys
from pathlib import Path

import pytest
from programs import require_program

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bench_nats.py"


@pytest.mark.long
def test_the_benchmark_runs():
    require_program("nats-server")
    command = [sys.executable, str(BENCHMARK), "--megabytes", "3", "--senders", "1", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ways = [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:] if line.startswith("|")]
    assert ways == ["bare", "hashed", "pet1", "direct", "stream", "http"]
    assert "pet1 to hashed, 1 senders: " in done.stdout
