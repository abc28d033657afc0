"""All kinds of participants against a coordinator that behaves as xaynet's (original_coordinator.py).

Participant i masks a model that is 0 but for its own place i, with scalars and weights that masking does not round, so that
every global model is known exactly from whose updates are in it.
"""

import asyncio
import contextlib
import logging
import threading
from fractions import Fraction

import httpx
import numpy as np
import pytest
from original_coordinator import original_coordinator
from test_real_clients import COUNT as LENGTH
from test_real_clients import SCALARS, OwnParticipant, RealParticipant, local_model, wait_for

from pet import cli
from pet.commands._coordinator_status import what_it_waits_for
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.model_formats import decode_bincode
from pet.participant import AsyncParticipant, BackOff, Participant, spawn_participant
from pet.protocol import Phase, PhaseWindow, RoundSettings
from pet.transports.http import HttpTransport

F32 = np.dtype("f4")
COUNT = 8
QUICK = BackOff(initial_seconds=0.1, max_seconds=0.2)


def settings(max_seconds=10.0, **changes):
    window = {"min_count": 1, "max_count": 100, "min_seconds": 0.4, "max_seconds": max_seconds}
    values = {
        "sum_probability": 0.4,
        "update_probability": 0.9,
        "mask_config": MaskConfigPair.of(MaskConfig.parse("prime-f32-b0-m3")),
        "model_length": LENGTH,
        "sum": PhaseWindow(**window),
        "update": PhaseWindow(**window | {"min_count": 3}),
        "sum2": PhaseWindow(**window),
    }
    return RoundSettings(**values | changes)


class ThreadParticipant:
    """A participant in a thread, and the global models it was given."""

    def __init__(self, url, i):
        models = self.models = []

        class OneHot(Participant):
            def train_round(self, _training_input):
                return local_model(i, F32)

            def on_new_global_model(self, global_model):
                if global_model is not None:
                    models.append(global_model.tolist())

        self.thread = spawn_participant(url, OneHot, scalar=SCALARS[i], back_off=QUICK)

    def close(self):
        self.thread.stop()
        assert self.thread.error is None


class AsyncioParticipant:
    """A participant in an event loop of its own, and the global models it yielded."""

    def __init__(self, url, i):
        self.models, self.url, self.i, self.error = [], url, i, None
        self.loop, self.is_stopped = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self.run_loop)
        self.thread.start()

    def run_loop(self):
        try:
            self.loop.run_until_complete(self.run())
        except Exception as error:
            self.error = error
        finally:
            self.loop.close()

    async def run(self):
        async with AsyncParticipant(self.url, scalar=SCALARS[self.i], back_off=QUICK) as participant:
            taking = asyncio.create_task(self.take_models(participant))
            await asyncio.to_thread(self.is_stopped.wait)
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def take_models(self, participant):
        async for model in participant.global_models():
            if model is not None:
                self.models.append(model.tolist())
            participant.set_local_model(local_model(self.i, F32))

    def close(self):
        self.is_stopped.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        assert self.error is None


KINDS = {
    "thread": ThreadParticipant,
    "asyncio": AsyncioParticipant,
    "ticks": lambda url, i: OwnParticipant(url, i, F32),
    "sdk": lambda url, i: RealParticipant(url, i, F32),
}


def check_models(published, participants):
    """Each published model is exactly the mean of the updates that are in it; each downloaded one is one of them."""
    for model in published:
        places = [i for i, weight in enumerate(model.fractions) if weight]
        assert len(places) == len(model.contributors) >= 3
        total = sum(Fraction(SCALARS[i]) for i in places)
        assert model.fractions == [Fraction(3, 4) * Fraction(SCALARS[i]) / total if i in places else 0 for i in range(LENGTH)]
    known = [decode_bincode(model.body, F32).tolist() for model in published]
    for participant in participants:
        for model in participant.models:
            assert np.array(model, F32).tolist() in known


def wait_for_models(coordinator, count):
    wait_for(lambda: len(coordinator.models) >= count, f"{count} models")


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(list(KINDS), marks=pytest.mark.long),
        *(pytest.param([kind], marks=pytest.mark.very_long) for kind in KINDS),
    ],
    ids="-".join,
)
def test_rounds_that_fail_and_a_restart_with_an_older_model(kinds):
    failing = {(1, Phase.SUM), (2, Phase.UPDATE), (3, Phase.SUM2)}
    with contextlib.ExitStack() as stack:
        url, coordinator, paths = stack.enter_context(original_coordinator(settings(), fails=lambda *where: where in failing))
        assert httpx.get(f"{url}/model").status_code == 204
        participants = [KINDS[kinds[i % len(kinds)]](url, i) for i in range(COUNT)]
        for participant in participants:
            stack.callback(participant.close)
        wait_for_models(coordinator, 2)
        assert len(coordinator.failed_phases) >= 3
        failing.clear()
        older, before = coordinator.models[0].body, len(coordinator.models)
        coordinator.restart(older, away_seconds=0.5)
        wait_for_models(coordinator, before + 1)
        wait_for(lambda: all(participant.models for participant in participants), "models that everybody has")
    check_models(coordinator.models, participants)
    assert not coordinator.outcomes.keys() & {"invalid_signature", "malformed_sum", "malformed_update", "crypto"}
    assert paths["/status"] == 0


def test_a_message_that_nobody_takes_is_answered_as_any_other():
    with original_coordinator(settings()) as (url, coordinator, _), httpx.Client(base_url=url) as client:
        for body in (b"", b"x", bytes(500)):
            answer = client.post("/message", content=body)
            assert (answer.status_code, answer.content) == (200, b"")
        assert sum(coordinator.outcomes.values()) == 3
        assert coordinator.outcomes["accepted"] == 0
        codes = {
            "/status": 404,
            "/sums": 204,
            "/seeds": 500,
            "/seeds?pk=AAAA": 400,
            "/model": 204,
            "/params": 200,
            "/message": 500,
        }
        assert {path: client.get(path).status_code for path in codes} == codes


def test_a_test_drive_counts_the_rounds_that_gave_a_model(capsys):
    failing = {(1, Phase.UPDATE), (2, Phase.SUM2)}
    with original_coordinator(settings(), fails=lambda *where: where in failing) as (url, coordinator, _):
        assert cli.run(["test-drive", "-u", url, "-n", str(COUNT), "-p", "0.1", "--rounds", "2"]) == 0
        made, failed = len(coordinator.models), len(coordinator.failed_phases)
    # The commands of a process may follow each other: none may silence the log of the next.
    assert logging.getLogger("pet.participant.test_drive").level == logging.NOTSET
    printed = capsys.readouterr().out
    assert "2 rounds finished" in printed
    assert made >= 2
    assert failed >= 1
    for model in coordinator.models:
        # All dummies of a round have the same model, so that the mean is that model but for the rounding of masking.
        weights = decode_bincode(model.body, F32)
        assert 0 <= weights.min() < weights.max() < 1
    assert len({model.body for model in coordinator.models}) == made


def test_a_coordinator_without_a_status_is_asked_and_says_nothing():
    with original_coordinator(settings()) as (url, _, paths), contextlib.closing(HttpTransport(url)) as transport:
        assert what_it_waits_for(transport, 4) is None
        assert paths["/status"] == 1


@pytest.mark.long
def test_a_participant_that_comes_into_the_gap_loses_its_message_and_takes_part_later():
    """Visible dictionaries do not mean that messages are taken yet: the sender hears 200, and must not wait for ever."""
    with (
        original_coordinator(settings(max_seconds=3.0), gap_seconds=0.4) as (url, coordinator, _),
        contextlib.ExitStack() as stack,
    ):
        participants = [stack.enter_context(contextlib.closing(OwnParticipant(url, i, F32))) for i in range(COUNT)]
        wait_for(lambda: coordinator.outcomes["unexpected_message"] >= 3, "messages that are dropped")
        coordinator.gap_seconds = 0.0
        wait_for_models(coordinator, 1)
        wait_for(lambda: all(participant.models for participant in participants), "models that everybody has")
    check_models(coordinator.models, participants)
