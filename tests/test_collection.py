"""Two processes collect the same tests with the same values: pytest -n needs it, and so does the next look at a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.long
def test_no_parameter_depends_on_chance_or_on_the_process(tmp_path):
    files = [tmp_path / name for name in ("one", "other")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider", "-p", "collected"],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY / "tests"),
                "PYTHONHASHSEED": str(number + 1),
                "COLLECTED_TESTS": str(file),
            },
            stdout=subprocess.DEVNULL,
        )
        for number, file in enumerate(files)
    ]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    one, other = (file.read_text().splitlines() for file in files)
    assert [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]] == []
    assert len(set(one)) == len(one) > 5_000
