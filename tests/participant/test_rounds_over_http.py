"""Whole rounds over real HTTP: pet's participants of every kind against pet's coordinator, behind a path prefix too."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest
from asgi_server import serving
from participant_driver import live_settings
from starlette.applications import Starlette
from starlette.routing import Mount

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.errors import TransportRefusedError
from pet.participant import AsyncParticipant, BackOff, Participant, spawn_participant
from pet.participant.test_drive import DummyFleet
from pet.transports import asgi
from pet.transports.http import HttpTransport

QUICK = BackOff(initial_seconds=0.01, max_seconds=0.05)


class Trainer(Participant):
    def train_round(self, training_input):
        return np.full(4, 0.25, np.float32)


@pytest.fixture
def url():
    service = CoordinatorService(CoordinatorEngine(live_settings(sum_probability=0.4)))
    app = Starlette(routes=[Mount("/pet", app=asgi.create_app(service))], lifespan=service.lifespan)
    with serving(app) as url:
        yield url + "/pet/"


@pytest.mark.long
def test_threads_tasks_and_dummies_share_rounds(url):
    transport = HttpTransport(url)
    fleet = DummyFleet(transport, 4, weight=0.25, period_seconds=0.02, max_message_size=300)
    threads = [spawn_participant(url, Trainer, back_off=QUICK, max_message_size=size) for size in (None, 250)]

    async def take_part() -> np.ndarray:
        async with AsyncParticipant(url, back_off=QUICK) as participant:
            while not participant.local_model_config.length:
                await asyncio.sleep(0.01)
            participant.set_local_model(np.full(4, 0.25, np.float32))
            async with asyncio.timeout(60):
                async for model in participant.global_models():
                    return model
        raise AssertionError("no model came")

    try:
        progress = fleet.run(2)
        model = asyncio.run(take_part())
    finally:
        states = [thread.stop() for thread in threads]
        transport.close()
    assert progress.rounds_finished == 2
    assert np.allclose(model, 0.25, atol=1e-6)
    assert all(thread.error is None for thread in threads)
    assert len(set(states)) == 2


def test_a_coordinator_that_comes_late_is_waited_for(url):
    transport = HttpTransport("http://127.0.0.1:1")
    errors = []
    fleet = DummyFleet(transport, 2, period_seconds=0.01)

    def stop_after_three(progress) -> None:
        errors.append(progress.last_error)
        if len(errors) == 3:
            fleet.stop()

    fleet.run(1, stop_after_three)
    transport.close()
    assert all("ConnectError" in error for error in errors)


class Limited:
    """What a proxy with a limit on bodies does: it answers 413 to whatever is larger, and passes on the rest."""

    def __init__(self, app, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.refused: list[int] = []

    async def __call__(self, scope, receive, send) -> None:
        length = next((int(value) for name, value in scope.get("headers", ()) if name == b"content-length"), 0)
        if length <= self.max_bytes:
            await self.app(scope, receive, send)
            return
        self.refused.append(length)
        await send({"type": "http.response.start", "status": 413, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"<html>too large</html>"})


@pytest.mark.parametrize("max_bytes", [300_000, 10_000], ids=["chunks pass", "nothing passes"])
def test_messages_too_large_for_a_proxy_go_out_in_chunks_or_end_with_a_reason(max_bytes):
    service = CoordinatorService(CoordinatorEngine(live_settings(sum_probability=0.4, length=100_000)))
    proxy = Limited(asgi.create_app(service), max_bytes)
    with serving(proxy) as url, contextlib.closing(HttpTransport(url)) as transport:
        fleet = DummyFleet(transport, 8, weight=0.25, period_seconds=0.05)
        passes = max_bytes > 2**18
        fleet.run(1 if passes else None, lambda progress: None if passes or progress.warning_count < 2 else fleet.stop())
        progress = fleet.run()
    assert 1 <= len(proxy.refused) <= 8 * (1 if passes else 2 * progress.sweeps)
    assert "413" in progress.last_warning
    assert "client_max_body_size" in progress.last_warning
    assert "max_message_size" in progress.last_warning
    if passes:
        assert max(proxy.refused) > 600_000
        assert progress.rounds_finished == 1
    else:
        assert "task abandoned" in progress.last_warning


def test_a_path_that_is_not_the_coordinators_stands_in_the_status(url, caplog):
    thread = spawn_participant(url + "elsewhere", Trainer, back_off=QUICK)
    try:
        thread.join(60)
        assert isinstance(thread.error, TransportRefusedError)
        assert "GET /params: expected status 200 or 204, got 404" in thread.status.text
    finally:
        thread.stop()
    assert "got 404" in caplog.text
