"""`pet demo`: what it deals out, what it checks, and the whole of it in a short form."""

import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import typer
from lazy import Lazy

from pet.commands import demo_data
from pet.commands.demo_check import check_mean
from pet.commands.demo_participants import DemoParticipant, Ledger
from pet.commands.demo_run import DemoRun
from pet.commands.demo_scene import CONFIG, XaynetScene
from pet.errors import PetError, RemoteProtocolError, TransportError
from pet.protocol.events import RoundFailed, RoundReopened
from pet.protocol.participant_events import FollowedRound

demo = Lazy("pet.commands.demo")  # it imports matplotlib


@pytest.fixture(scope="module")
def data():
    """Deal out the samples; only who runs these tests imports scikit-learn for it."""
    return demo_data.load_data(demo.PARTICIPANT_COUNT, random_seed=7)


def test_every_training_sample_has_one_owner(data):
    assert sum(len(samples) for samples in data.participants) == len(data.pooled)
    assert sum(data.share(index) for index in range(demo.PARTICIPANT_COUNT)) == 1
    assert np.array_equal(sum(samples.label_counts() for samples in data.participants), data.pooled.label_counts())


def test_the_split_is_uneven_in_number_and_by_label(data):
    sizes = [len(samples) for samples in data.participants]
    assert max(sizes) > 3 * min(sizes)
    largest_label = [samples.label_counts().max() / len(samples) for samples in data.participants]
    assert np.mean(largest_label) > 0.25  # an even split has a tenth of each


def test_training_learns(data):
    start = demo_data.initial_weights()
    trained = demo_data.train(start, data.pooled, random_seed=0)
    assert not start.any()
    assert demo_data.accuracy(trained, data.test) > 0.9


def test_one_alone_learns_less_than_all_together(data):
    alone = [demo_data.initial_weights() for _ in data.participants]
    for number in range(3):
        alone = [demo_data.train(model, own, number) for model, own in zip(alone, data.participants, strict=True)]
    best_alone = max(demo_data.accuracy(model, data.test) for model in alone)
    assert best_alone < demo_data.accuracy(demo_data.train(demo_data.initial_weights(), data.pooled, 0), data.test)


@pytest.mark.parametrize("rounds", [2, 8, 10, 100])
def test_two_drop_out_on_the_way(rounds, data):
    drop_outs = demo._choose_drop_outs(data, rounds)
    assert len(drop_outs) == 2
    assert all(1 < leaves_in <= rounds for leaves_in in drop_outs.values())


def test_a_mean_passes_and_another_does_not():
    generator = np.random.default_rng(0)
    weights = [generator.uniform(-3, 3, 20).astype(np.float32) for _ in range(3)]
    scalars = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 8)]
    mean = sum(float(s) * w.astype(np.float64) for s, w in zip(scalars, weights, strict=True)) / float(sum(scalars))
    check = check_mean(mean, weights, scalars, CONFIG)
    assert check.is_passed
    assert check.tolerance < 1e-8
    for other in (mean + 2 * check.tolerance, mean * np.nan):
        assert not check_mean(other, weights, scalars, CONFIG).is_passed
    assert not check_mean(mean, weights[:2], scalars[:2], CONFIG).is_passed


class Reporter:
    def __init__(self):
        self.failed = []

    def round_failed(self, number, reason, description):
        self.failed.append((number, reason))


def test_rounds_may_fail_but_not_for_ever(data):
    reporter = Reporter()
    run = DemoRun(data, 3, XaynetScene(data, {}), reporter)
    failures = [RoundFailed(round_id=round_id, reason="timeout", description="nobody came") for round_id in range(1, 6)]
    failures.append(RoundReopened(round_id=6, description="nobody came"))
    for failure in failures[:5]:
        run._handle(failure)
    with pytest.raises(PetError, match="expected at most 5 failed rounds, got 6: nobody came"):
        run._handle(failures[5])
    assert reporter.failed == [*[(0, "timeout")] * 5, (0, "nobody joined")]


class UnreliableParticipant:
    """Wants a model; the global model fails in both ways that it can, and then is there."""

    public_key = bytes(32)
    round = FollowedRound(digest=bytes(32), config=CONFIG, model_length=demo_data.MODEL_LENGTH)

    def __init__(self):
        self.answers = [TransportError("away"), RemoteProtocolError("malformed_model", "cut off"), None]
        self.models = []

    def global_model(self):
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer

    def set_model(self, model):
        self.models.append(model)


def test_a_global_model_that_cannot_be_had_is_asked_for_again(data):
    participant = DemoParticipant(0, unreliable := UnreliableParticipant(), data.participants[0], Ledger())
    for expected in (0, 0, 1):
        participant.train()
        assert len(unreliable.models) == expected


def test_a_folder_that_cannot_be_written_to_is_told_before_the_training(tmp_path):
    with pytest.raises(PetError, match=r"pet-demo.png: expected a working directory that can be written to, got: No such file"):
        demo._require_writable(tmp_path / "gone" / "pet-demo.png")


def run_demo(folder, *arguments):
    code = "import sys; from pet.cli import main; main(sys.argv[1:])"
    answer = subprocess.run(
        [sys.executable, "-c", code, "demo", "--rounds", "3", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert max(len(line) for line in answer.stdout.splitlines() if " failed (" not in line) <= 80
    assert (folder / "pet-demo.png").read_bytes().startswith(b"\x89PNG")
    text = " ".join(answer.stdout.split())
    assert "Global models that equal the weighted mean of exactly the updates that were accepted: 3 of 3" in text
    assert "Alone, with its own samples and as many rounds, a participant reads" in text
    return text, answer.stderr.splitlines()


@pytest.mark.very_long  # .ci/run runs the demo itself
def test_the_demo_runs(tmp_path):
    text, warnings = run_demo(tmp_path)
    # One round in three hundred draws nobody to sum; the coordinator says so, and draws again.
    assert [line for line in warnings if " phase waits " not in line] == []
    assert text.count("drops out") == 2


@pytest.mark.long
def test_the_demo_of_pet_1_names_who_vanished_and_who_cheated(tmp_path):
    text, _ = run_demo(tmp_path, "--profile", "pet/1")
    assert "any 3 of North, South, East, West, Harbour" in text
    assert "member Harbour signs the list of updates, and vanishes before it answers" in text
    cheat = re.search(r"(participant \d+) sends an update whose box for South does not open", text)
    assert cheat is not None
    assert f"{cheat[1]} is left out: a member's complaint proves its update bad" in text


def test_another_profile_is_refused(data):
    with pytest.raises(typer.BadParameter, match="expected xaynet or pet/1, got 'pet/2'"):
        demo._choose_scene("pet/2", data, 3)
