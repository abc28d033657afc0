"""Real clients and rounds that nobody joins: they follow from one to the next, and take part as soon as somebody is drawn."""

import contextlib
from dataclasses import replace

import httpx
import numpy as np
import pytest
import test_real_clients
from asgi_server import serving
from test_real_clients import RealParticipant, wait_for

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings

COUNT = 6
LENGTH = 10
#: Nobody is drawn for the sum task, as good as never.
RARE = 1e-6


@pytest.mark.long
def test_real_clients_follow_into_the_round_that_is_joined(monkeypatch):
    monkeypatch.setattr(test_real_clients, "local_model", lambda i, dtype: np.full(LENGTH, (i + 1) / 10, dtype=dtype))
    window = {"count": {"min": 1, "max": COUNT}, "time": {"min": 1, "max": 4}}
    update = {"prob": 1.0, "count": {"min": 3, "max": COUNT}, "time": {"min": 3, "max": 20}}
    app = create_app(
        Settings(
            pet={"sum": {"prob": RARE, **window}, "update": update, "sum2": {**window, "time": {"min": 0, "max": 20}}},
            model={"length": LENGTH},
        )
    )
    engine = app.state.service.engine
    with serving(app) as url, contextlib.ExitStack() as stack:
        participants = [stack.enter_context(contextlib.closing(RealParticipant(url, i, np.dtype("f4")))) for i in range(COUNT)]
        wait_for(lambda: engine.status()["rounds_reopened"] >= 2, "rounds that nobody joins")
        assert engine.status()["rounds_failed"] == 0
        # What an operator does: other settings, from the next round on.
        engine._protocol.next_settings = replace(engine.settings, sum_probability=0.4)
        wait_for(lambda: engine.model() is not None, "a global model")
        assert engine.model().model.model_count >= 3
        wait_for(lambda: any(participant.models for participant in participants), "a participant that has it")
        status = httpx.get(f"{url}/status").json()
    assert status["rounds_reopened"] >= 2
    assert not status["rejected"].keys() & {"invalid_signature", "malformed_sum", "wrong_coordinator_key"}
