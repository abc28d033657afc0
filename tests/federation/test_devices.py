"""A device that is missing: the error says what, and nothing else needs it. These tests run without torch."""

import os

import fork_server
import numpy as np
import pytest
from federation_rest_server import KEY, federation_server
from test_missing_extras import BLOCK

from pet._extras import install_command
from pet.errors import DeviceError, FederationRefusedError
from pet.federation import Client
from pet.federation.peer.local_project import LocalProject
from pet.federation.peer.nats_runtime import NatsFederationRuntime
from pet.federation.statistics.devices import TorchDevice
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema

OPEN = "from pet.federation.statistics.devices import TorchDevice; TorchDevice().open()"
LEARN = (
    "import numpy, sys; from pet.federation import Feature, Schema, Statistics;"
    "print(Statistics.of(numpy.ones((3, 1)), Schema((Feature(name='x'),))).rows, 'torch' in sys.modules)"
)


def run(code, **environment):
    environ = {name: value for name, value in os.environ.items() if name != "PET_FORCE_DEVICE"} | environment
    return fork_server.run(code, imports=fork_server.WITHOUT_EXTRAS, environ=environ)


def test_without_torch_the_error_names_the_extra():
    done = run(BLOCK.format(blocked=["torch"]) + OPEN)
    assert done.stderr.splitlines()[-1] == ("pet.errors.DeviceError: torch is not installed: " + install_command("gpu"))


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:1000", "CPU", "cpu:0", "cpu\n"])
def test_an_unknown_device_is_refused_by_name(name):
    done = run(OPEN, PET_FORCE_DEVICE=name)
    assert done.stderr.splitlines()[-1] == (
        f"pet.errors.DeviceError: PET_FORCE_DEVICE: expected cpu, cuda or cuda:NUMBER, got {name!r}"
    )


def test_rows_are_learned_on_the_cpu_without_torch():
    done = run(BLOCK.format(blocked=["torch"]) + LEARN)
    assert done.stdout == "3 False\n", done.stderr


def test_a_federation_is_not_created_without_its_device(monkeypatch):
    monkeypatch.setenv("PET_FORCE_DEVICE", "tpu")
    with federation_server(runtime=NatsFederationRuntime()) as url, Client(url, "c1", KEY) as client:
        with pytest.raises(FederationRefusedError) as refusal:
            client.create("clinic", "C", nats_hosts="nats://127.0.0.1:1", fed_local_type="gpu")
        assert refusal.value.status == 400
        assert str(refusal.value) == (
            "fed_local_type: expected cpu, or a GPU to compute on: "
            "PET_FORCE_DEVICE: expected cpu, cuda or cuda:NUMBER, got 'tpu'"
        )
        assert client.projects() == []


def test_a_project_whose_device_is_gone_keeps_its_statistics_and_learns_nothing(monkeypatch, storage):
    schema, rows = Schema((Feature(name="x"),)), {"x": np.arange(8.0)}
    LocalProject(storage, schema).learn(rows)
    saved = storage.load_state("local")
    monkeypatch.setenv("PET_FORCE_DEVICE", "tpu")
    project = LocalProject(storage, schema, device=TorchDevice())
    for change in (project.learn, project.forget):
        with pytest.raises(DeviceError, match="got 'tpu'"):
            change(rows)
    assert (project.row_count, storage.load_state("local")) == (8, saved)
