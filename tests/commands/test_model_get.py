"""`pet model get` and `pet test-drive` against a coordinator that runs for real, on loopback."""

import urllib.request

import numpy as np
import pytest
from pet1_parties import MODEL_LENGTH, NOW, Parties
from pet1_players import Players, read

from pet import MaskConfig, cli
from pet.commands.demo_server import open_listener, running_coordinator, url_of
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.pet1_engine import Pet1Engine
from pet.model_formats import decode_bincode, decode_npy, decode_safetensors
from pet.pet1.answers import read_piece
from pet.protocol.pet1_participant import RoundTerms
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports.pet1 import Pet1Document

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


def play_round(config):
    """Return an engine of pet/1 with the model of a round, in which four participants send ones."""
    players = Players(Parties(min_updates=4), update_count=0)
    parties, record = players.parties, Pet1Document.ROUND
    engine = Pet1Engine(players.settings(config=config, min_updates=4, min_count=2), threads=1)
    engine.tick()
    players.send_members(engine)
    assert engine.status()["waiting"]["needed"] == 4  # of the enrolment, which asks for more than the settings
    for number in range(4):
        participant = parties.participant(number, terms=RoundTerms(values=None))
        participant.join(read(engine, record), read(engine, Pet1Document.ENROLMENT), NOW)
        sent = participant.mask(read(engine, Pet1Document.COMMITTEE), np.ones(MODEL_LENGTH, config.dtype))
        opened = sent.read_answer(engine.open_update(sent.sealed).answer)
        for piece in sent.pieces(opened):
            engine.take_leaves(*read_piece(b"".join(piece)))
    players.send_members(engine)
    players.send_members(engine)
    assert engine.status()["rounds_completed"] == 1
    return engine


@pytest.mark.parametrize(
    ("config", "dtype", "weight"),
    [
        ("pet-1/z64,f64,bound=1,models=15", "f8", 1),
        ("pet-1/z64,int,models=15", "u8", 4),
        ("pet-1/z32,int,models=15", "u4", 4),
    ],
)
def test_models_of_pet1_have_the_type_of_their_rounds(tmp_path, config, dtype, weight):
    """Its parameters are made for clients that idle, and say float32 of all of them."""
    engine = play_round(MaskConfig.parse(config))
    with open_listener() as listener, running_coordinator(listener, engine, lambda event: None):
        for name, decode in (("model.npy", decode_npy), ("model.safetensors", decode_safetensors)):
            assert cli.run(["model", "get", "-u", url_of(listener), "-o", str(tmp_path / name)]) == 0
            model = decode((tmp_path / name).read_bytes())
            assert (model.dtype, model.tolist()) == (np.dtype(dtype), [weight] * MODEL_LENGTH)
        asked = urllib.request.Request(f"{url_of(listener)}/model", headers={"Accept": "application/vnd.safetensors"})
        with urllib.request.urlopen(asked) as answer:
            assert answer.status == 200
