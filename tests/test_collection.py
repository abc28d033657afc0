"""Processes collect the same tests with the same values: pytest -n needs it, and so does running a failure once more."""

import os

import pytest
from collected import folder_of


def test_no_parameter_depends_on_chance_or_on_the_process(request):
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) < 2:
        pytest.skip("in one process (pytest -n compares what several have collected, each with hashes of its own)")
    collected = [path.read_text().splitlines() for path in sorted(folder_of(request.config).glob("collected-*"))]
    assert len(collected) >= 2
    for other in collected[1:]:
        assert [pair for pair in zip(collected[0], other, strict=True) if pair[0] != pair[1]] == []
    assert len(set(collected[0])) == len(collected[0])
    assert request.node.nodeid in {line.rpartition(" ")[0] for line in collected[0]}
