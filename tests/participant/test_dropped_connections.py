"""Messages in chunks over connections that drop: before a chunk arrives, or after it, when only its answer is lost.

What failed is sent again byte for byte, so a chunk may arrive twice, also the last one; each model still counts once.
"""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from asgi_server import serving

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.errors import TransportError
from pet.participant.test_drive import DummyFleet
from pet.transports.http import HttpTransport

LENGTH = 200
UPDATES = 5


class DroppingTransport(HttpTransport):
    """Fails two of five deliveries: one before anything is sent, one after everything arrived."""

    def __init__(self, url):
        super().__init__(url)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.lost_answers = 0

    def send_message(self, body):
        with self._lock:
            number = next(self._numbers)
        if number % 5 == 1:
            raise TransportError("dropped before the body was sent")
        super().send_message(body)
        if number % 5 == 3:
            self.lost_answers += 1
            raise TransportError("dropped before the answer came")


@pytest.mark.parametrize("max_message_size", [400, None])
def test_every_model_counts_once(max_message_size):
    # Chance may draw nobody for the sums; then a new round begins soon.
    sums = {"count": {"min": 1, "max": 1}, "time": {"min": 0, "max": 3}}
    updates = {"count": {"min": UPDATES, "max": UPDATES}, "time": {"min": 0, "max": 60}}
    settings = Settings(
        pet={"sum": {"prob": 0.2, **sums}, "update": {"prob": 1.0, **updates}, "sum2": sums}, model={"length": LENGTH}
    )
    app = create_app(settings)
    refused = []
    with serving(app) as url:
        app.state.service.engine.subscribe(lambda event: refused.append(getattr(event, "reason", None)))
        transport = DroppingTransport(url)
        fleet = DummyFleet(transport, 14, weight=0.25, period_seconds=0.01, max_message_size=max_message_size)
        fleet.run(1)
        transport.close()
        model = app.state.service.endpoint.model().model
    assert transport.lost_answers > 0
    assert model.model_count == UPDATES
    np.testing.assert_allclose(model.to_array(), np.full(LENGTH, 0.25), atol=1e-6)
    # ("decryption" and "unexpected_message" are answers to what was sent again after its phase or round was over.)
    assert not {"chunk_conflict", "chunk_limit", "internal_error", "malformed_update"} & set(refused)
