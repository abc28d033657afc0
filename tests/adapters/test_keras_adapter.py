"""Models of Keras as vectors, and back, on each back-end that is there."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("keras_round_trip.py")


@pytest.mark.very_long  # Keras takes ten seconds to import
@pytest.mark.parametrize("name", ["jax", "torch"])
def test_a_model_comes_back(name):
    for package in ("keras", name):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"without {package} (.ci/long runs these tests in an environment that has it)")
    environment = {**os.environ, "KERAS_BACKEND": name}
    ended = subprocess.run([sys.executable, PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.endswith(f"the same on {name}\n")
