"""The transport without a wire."""

from __future__ import annotations

import numpy as np
import pytest
from participant_driver import World, quick_settings

from pet.coordinator.engine import CoordinatorEngine
from pet.errors import AnswerTooLargeError, TransportError
from pet.model_formats import NPY, decode_npy
from pet.transports.base import Endpoint, Transport
from pet.transports.in_process import InProcessTransport


class Published:
    round_id = 1
    etag = "1"
    length = 4

    def bincode_chunks(self):
        yield b""

    def to_array(self):
        return np.arange(4, dtype=np.float32)


def test_it_is_a_transport_and_the_engine_an_endpoint():
    world = World()
    assert isinstance(world.transport, Transport)
    assert isinstance(world.engine, Endpoint)


def test_there_are_no_parameters_before_the_first_round():
    transport = InProcessTransport(CoordinatorEngine(quick_settings()))
    with pytest.raises(TransportError, match="the first round has not begun"):
        transport.get_parameters()


def test_nothing_is_published_at_first():
    transport = World().transport
    assert len(transport.get_parameters()) == 136
    assert transport.get_sums() is None
    assert transport.get_seeds(bytes(32)) is None
    assert transport.get_model() is None


def test_the_model_comes_as_npy_within_the_limit():
    world = World()
    world.engine._model = Published()
    media_type, data = world.transport.get_model()
    assert media_type == NPY
    assert decode_npy(data).tolist() == [0, 1, 2, 3]
    assert world.transport.get_model(len(data)) == (NPY, data)
    with pytest.raises(AnswerTooLargeError, match=f"expected at most {len(data) - 1} bytes, got {len(data)}"):
        world.transport.get_model(len(data) - 1)


def test_a_message_is_copied_and_bounded():
    world = World()
    body = bytearray(300)
    world.transport.send_message(body)
    assert body == bytearray(300)
    assert world.engine.status()["rejected"] == {"decryption": 1}
    limit = world.engine.max_body_bytes()
    with pytest.raises(TransportError, match=f"message: expected at most {limit} bytes, got {limit + 1}"):
        world.transport.send_message(bytes(limit + 1))


def test_closing_twice_does_no_harm():
    transport = World().transport
    transport.close()
    transport.close()
