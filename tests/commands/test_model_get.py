"""`pet model get` and `pet test-drive` against a coordinator that runs for real, on loopback."""

import urllib.request

import numpy as np
import pytest

from pet import MaskConfig, cli
from pet.commands.demo_server import open_listener, running_coordinator, url_of
from pet.coordinator.engine import CoordinatorEngine
from pet.model_formats import decode_bincode, decode_npy, decode_safetensors
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow

LENGTH = 4


def window(min_count):
    return PhaseWindow(min_count=min_count, max_count=100, min_seconds=0.3, max_seconds=10)


@pytest.fixture(scope="module")
def url():
    settings = RoundSettings.of(
        MaskConfig.parse("prime-f32-b0-m3"),
        LENGTH,
        sum_probability=0.4,
        update_probability=1.0,
        sum=window(1),
        update=window(3),
        sum2=window(1),
    )
    with open_listener() as listener, running_coordinator(listener, CoordinatorEngine(settings), lambda event: None):
        yield url_of(listener)


def test_a_coordinator_without_a_model(capsys, tmp_path, url):
    assert cli.run(["model", "get", "-u", url, "-o", str(tmp_path / "model.npy")]) == 1
    assert capsys.readouterr().err == f"error: {url}: expected a global model, got none: no round has finished yet\n"


def test_models_of_a_finished_round(capsys, tmp_path, url):
    drive = ["test-drive", "-u", url, "-n", "10", "-p", "0.05", "--rounds", "1", "-l", str(LENGTH)]
    assert cli.run(drive) == 0
    assert "1 rounds finished" in capsys.readouterr().out
    with urllib.request.urlopen(f"{url}/model") as answer:
        published = decode_bincode(answer.read(), np.dtype(np.float32))  # the exact fractions, as real clients get them
    # The dummies of one round all send the same weights, drawn from 0 to 1; masking rounds by less than a step.
    assert ((published > -1e-6) & (published < 1 + 1e-6)).all()
    assert published.any()
    for name, decode in (("model.npy", decode_npy), ("model.safetensors", decode_safetensors)):
        assert cli.run(["model", "get", "-u", url, "-o", str(tmp_path / name)]) == 0
        model = decode((tmp_path / name).read_bytes())
        assert model.dtype == np.float32
        assert model.tolist() == published.tolist()


def test_another_length_than_the_coordinator_has(capsys, url):
    assert cli.run(["test-drive", "-u", url, "-n", "5", "-p", "0.05", "--rounds", "1", "-l", "5"]) == 1
    assert "model length: expected 5 as asked for, got 4" in capsys.readouterr().err


def test_an_unknown_suffix_is_a_usage_error(capsys, url):
    assert cli.run(["model", "get", "-u", url, "-o", "model.onnx"]) == 2
    assert "model.onnx" in capsys.readouterr().err


def test_nobody_there(capsys, tmp_path):
    with open_listener() as listener:
        nowhere = url_of(listener)
    assert cli.run(["model", "get", "-u", nowhere, "-o", str(tmp_path / "model.npy")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {nowhere}: expected an answer, got ")
