"""Real clients and answers of 503: they send the same part again until it is taken, and the round gets every model.

Their models are large enough to come in chunks, the way real clients send nearly everything; every second request is refused.
"""

import contextlib
import itertools

import httpx
import numpy as np
import test_real_clients
from asgi_server import serving
from test_real_clients import RealParticipant, wait_for

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.errors import ServiceBusyError

LENGTH = 2000
COUNT = 6


def test_refused_parts_are_sent_again(monkeypatch):
    def model(i, dtype):
        return np.full(LENGTH, (i + 1) / 10, dtype=dtype)

    monkeypatch.setattr(test_real_clients, "local_model", model)
    window = {"count": {"min": 1, "max": COUNT}, "time": {"min": 1, "max": 8}}
    update = {"prob": 1.0, "count": {"min": 3, "max": COUNT}, "time": {"min": 3, "max": 20}}
    app = create_app(Settings(pet={"sum": {"prob": 0.4, **window}, "update": update}, model={"length": LENGTH}))
    service = app.state.service
    handle_message, numbers = service.handle_message, itertools.count()
    refused = 0

    async def handle_every_second_message(body):
        nonlocal refused
        if next(numbers) % 2 == 0:
            refused += 1
            raise ServiceBusyError("full")
        await handle_message(body)

    monkeypatch.setattr(service, "handle_message", handle_every_second_message)
    with serving(app) as url, contextlib.ExitStack() as stack:
        participants = [stack.enter_context(contextlib.closing(RealParticipant(url, i, np.dtype("f4")))) for i in range(COUNT)]
        wait_for(lambda: service.endpoint.model() is not None, "a global model")
        assert service.endpoint.model().model.model_count >= 3
        weights = service.endpoint.model().to_array()
        wait_for(lambda: any(participant.models for participant in participants), "a participant that has it")
        status = httpx.get(f"{url}/status").json()
    assert np.ptp(weights) < 1e-6
    assert 0.1 < weights[0] < 0.6
    assert refused >= 5
    assert not status["rejected"].keys() & {"decryption", "invalid_signature", "chunk_conflict", "malformed_update"}
