"""A device that is missing: the error says what, and nothing else needs it. These tests run without torch."""

import os
import subprocess
import sys

import pytest
from test_missing_extras import BLOCK

OPEN = "from pet.federation.devices import TorchDevice; TorchDevice().open()"
LEARN = (
    "import numpy, sys; from pet.federation.schema import Feature, Schema; from pet.federation.statistics import Statistics;"
    "print(Statistics.of(numpy.ones((3, 1)), Schema((Feature(name='x'),))).rows, 'torch' in sys.modules)"
)


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PET_FORCE_DEVICE"} | environment,
    )


def test_without_torch_the_error_names_the_extra():
    done = run(BLOCK.format(blocked=["torch"]) + OPEN)
    assert done.stderr.splitlines()[-1] == ("pet.errors.DeviceError: torch is not installed: pip install 'pet-protocol[gpu]'")


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:1000", "CPU", "cpu:0", "cpu\n"])
def test_an_unknown_device_is_refused_by_name(name):
    done = run(OPEN, PET_FORCE_DEVICE=name)
    assert done.stderr.splitlines()[-1] == (
        f"pet.errors.DeviceError: PET_FORCE_DEVICE: expected cpu, cuda or cuda:NUMBER, got {name!r}"
    )


def test_rows_are_learned_on_the_cpu_without_torch():
    done = run(BLOCK.format(blocked=["torch"]) + LEARN)
    assert done.stdout == "3 False\n", done.stderr
