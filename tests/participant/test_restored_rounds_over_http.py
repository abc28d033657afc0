"""Rounds over real HTTP in chunks, participants saved and restored between any two ticks, and nothing secret in any log."""

from __future__ import annotations

import base64
import logging
import os
import time
from fractions import Fraction

import numpy as np
from asgi_server import serving
from participant_driver import live_settings

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.crypto import SigningKeyPair
from pet.messages import Tag
from pet.participant import TickParticipant
from pet.protocol import MessageAccepted, ModelPublished
from pet.transports import asgi
from pet.transports.http import HttpTransport

LENGTH = 3000  # 18 kB in an update, so five chunks
COUNT = 8


class Entropy:
    """The system's randomness; keeps what it gave, to be looked for where it must not be."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        drawn = os.urandom(size)
        if size >= 16:  # the others are message ids
            self.given.append(drawn)
        return drawn


def forms(secret: bytes) -> list[str]:
    return [secret.hex(), base64.b64encode(secret).decode().rstrip("="), repr(secret)[2:-1], str(list(secret))]


def test_models_are_right_and_logs_hold_no_secret(caplog):
    caplog.set_level(logging.DEBUG)
    entropy = Entropy()
    keys = [SigningKeyPair.generate() for _ in range(COUNT)]
    shares = [Fraction(index + 1, 36) for index in range(COUNT)]
    generator = np.random.default_rng(0)
    models = [generator.uniform(-1, 1, LENGTH).astype(np.float32) for _ in range(COUNT)]
    events = []
    engine = CoordinatorEngine(live_settings(length=LENGTH, sum_probability=0.3), entropy=entropy)
    engine.subscribe(events.append)
    with serving(asgi.create_app(CoordinatorService(engine))) as url:
        transport = HttpTransport(url)
        participants = [
            TickParticipant(transport, signing_key=key, scalar=share, max_message_size=4096, entropy=entropy, threads=1)
            for key, share in zip(keys, shares, strict=True)
        ]
        deadline = time.monotonic() + 60
        while sum(isinstance(event, ModelPublished) for event in events) < 2 and time.monotonic() < deadline:
            for index in range(COUNT):
                participants[index].tick()
                participants[index] = TickParticipant.restore(participants[index].save(), transport, entropy=entropy, threads=1)
                if participants[index].should_set_model:
                    participants[index].set_model(models[index])
        transport.close()

    index_of = {key.public_key: index for index, key in enumerate(keys)}
    published = [event for event in events if isinstance(event, ModelPublished)]
    assert len(published) >= 2
    for event in published:
        accepted = [
            index_of[other.participant_public_key]
            for other in events
            if isinstance(other, MessageAccepted) and other.round_id == event.round_id and other.tag is Tag.UPDATE
        ]
        weights = [float(shares[index]) for index in accepted]
        expected = np.average([models[index].astype(np.float64) for index in accepted], axis=0, weights=weights)
        assert len(accepted) >= 3
        assert np.abs(event.model.to_array(np.float64) - expected).max() < 1e-7

    secrets = entropy.given + [key.secret_key[:32] for key in keys]
    assert len(secrets) > 2 * COUNT
    assert len(caplog.text) > 1000
    assert not [form for secret in secrets for form in forms(secret) if form in caplog.text]
