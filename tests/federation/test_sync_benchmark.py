"""benchmarks/federation_sync.py runs, small, so that it does not rot."""

import runpy
from pathlib import Path

from nats_broker import run

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "federation_sync.py"


def test_the_benchmark_runs(broker, tmp_path):
    measure = runpy.run_path(str(BENCHMARK))["measure"]
    found = run(measure(broker.url, tmp_path, 3, 2, 1))
    assert (found["peers"], found["columns"], found["numbers"]) == (3, 2, 11)
    assert len(found["seconds"]) == 1
    assert found["median_cpu_seconds"] > 0
