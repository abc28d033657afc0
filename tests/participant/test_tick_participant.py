"""Participants that are driven by ticks, blocking and on asyncio: flags, models, errors, save and restore."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from participant_driver import F32, I64, World, quick_settings, round_parameters, signing_key, weights

from pet.aggregation import Aggregation
from pet.errors import AnswerTooLargeError, ConfigError, ModelError, RemoteProtocolError, StateError, TransportError
from pet.global_model import GlobalModel
from pet.mask_config import MaskConfig
from pet.mask_object import sum_masks
from pet.masking import mask_model
from pet.messages import encode_seed_dictionary, encode_sum_dictionary
from pet.model_formats import BINCODE, NPY, SAFETENSORS, encode_npy, encode_safetensors
from pet.participant import AsyncTickParticipant, LocalModelConfig, Task, TickParticipant
from pet.participant.model_answer import decode_global_model, max_model_bytes
from pet.protocol.participant_events import ModelMasked, NewRound
from pet.transports.base import Transport


class AsyncOf:
    """A blocking transport as an asyncio one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str):
        async def call(*args):
            return getattr(self._transport, name)(*args)

        return call

    async def aclose(self) -> None:
        self._transport.close()


class Blocking:
    """An asyncio participant behind the interface of the blocking one, so that one suite tests both."""

    def __init__(self, coordinator, *, inner: AsyncTickParticipant | None = None, **options) -> None:
        self.inner = inner or AsyncTickParticipant(self.adapt(coordinator), **options)

    @staticmethod
    def adapt(coordinator):
        return coordinator if isinstance(coordinator, str) else AsyncOf(coordinator)

    @classmethod
    def restore(cls, state: bytes, coordinator, **options):
        return cls(None, inner=AsyncTickParticipant.restore(state, cls.adapt(coordinator), **options))

    def __getattr__(self, name: str):
        attribute = getattr(self.inner, name)
        if not asyncio.iscoroutinefunction(attribute):
            return attribute
        return lambda *args: asyncio.run(attribute(*args))

    def close(self) -> None:
        asyncio.run(self.inner.aclose())


@pytest.fixture(params=[TickParticipant, Blocking])
def make(request) -> Callable:
    return request.param


class Fixed:
    """A transport with fixed answers; an answer that is an exception is raised."""

    def __init__(self, parameters=None, model=None) -> None:
        self.parameters = parameters or round_parameters("update").to_bytes()
        self.sums = None
        self.model = model
        self.max_bytes: int | None = None
        self.is_closed = False

    @staticmethod
    def give(answer):
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_parameters(self) -> bytes:
        return self.give(self.parameters)

    def get_sums(self) -> bytes | None:
        return self.give(self.sums)

    def get_seeds(self, public_key: bytes) -> bytes | None:
        return None

    def get_model(self, max_bytes: int | None = None):
        self.max_bytes = max_bytes
        return self.give(self.model)

    def send_message(self, body) -> None:
        raise TransportError("refused")

    def close(self) -> None:
        self.is_closed = True


def run_round(world: World, participants: list, model: np.ndarray) -> None:
    for _ in range(3):
        for participant in participants:
            participant.tick()
            while participant.made_progress:
                participant.tick()
                if participant.should_set_model:
                    participant.set_model(model)
                    participant.tick()
        world.pass_phase()


@pytest.mark.parametrize("config", [F32, I64, MaskConfig.parse("prime-f64-b2-m3"), MaskConfig.parse("integer-i32-b6-m3")])
def test_whole_rounds_and_the_flags_around_them(make, config):
    world = World(quick_settings(config))
    participants = [make(world.transport, signing_key=signing_key(number)) for number in range(10)]
    assert all(participant.made_progress for participant in participants)
    assert participants[0].local_model_config == LocalModelConfig(np.dtype(np.float32), 0)
    assert {participant.task for participant in participants} == {Task.NONE}
    model = weights(1, 4, config)

    participants[0].tick()
    assert participants[0].new_global_model
    assert participants[0].local_model_config == LocalModelConfig(config.data_type.dtype, 4)
    assert participants[0].global_model() is None
    assert not participants[0].new_global_model

    run_round(world, participants, model)
    assert {participant.task for participant in participants} <= {Task.SUM, Task.UPDATE, Task.NONE}
    assert {Task.SUM, Task.UPDATE} <= {participant.task for participant in participants}
    assert world.engine.status()["rounds_completed"] == 1

    for participant in participants:
        (event,) = participant.tick()
        assert isinstance(event, NewRound)
        assert participant.task is Task.NONE
        assert participant.new_global_model
    got = participants[0].global_model()
    assert got.dtype == config.data_type.dtype
    assert np.allclose(got, model, atol=1e-6 if got.dtype.kind == "f" else 1)
    assert not participants[0].new_global_model


def test_a_new_round_takes_back_the_request_for_a_model(make):
    transport = Fixed()
    participant = make(transport)
    participant.tick()
    participant.tick()
    assert participant.should_set_model
    assert participant.task is Task.UPDATE
    transport.parameters = round_parameters("none", seed=9).to_bytes()
    participant.tick()
    assert not participant.should_set_model
    participant.tick()
    assert participant.task is Task.NONE


def test_setting_a_model_clears_the_request_unless_it_is_refused(make):
    participant = make(Fixed())
    participant.tick()
    participant.tick()
    with pytest.raises(ModelError):
        participant.set_model(np.zeros(3, np.float32))
    assert participant.should_set_model
    participant.set_model(weights(1))
    assert not participant.should_set_model


def test_an_unreachable_coordinator_is_no_error_but_can_be_seen(make):
    transport = Fixed(parameters=TransportError("away"))
    participant = make(transport)
    assert participant.tick() == []
    assert not participant.made_progress
    assert str(participant.last_error) == "away"
    transport.parameters = round_parameters("sum").to_bytes()
    participant.tick()
    assert participant.last_error is None
    for _ in range(3):
        participant.tick()
    assert str(participant.last_error) == "refused"


def test_a_refused_answer_and_an_abandoned_task_are_logged(make, caplog):
    transport = Fixed(parameters=b"short")
    participant = make(transport)
    participant.tick()
    assert "answer refused: round parameters: expected 136 bytes, got 5" in caplog.text
    transport.parameters = round_parameters("sum").to_bytes()
    participant.tick()
    transport.get_seeds = lambda public_key: encode_seed_dictionary({bytes(32): bytes(80)})
    transport.send_message = lambda body: None
    for _ in range(4):
        participant.tick()
    assert "task abandoned: expected 1 seeds that open" in caplog.text
    assert participant.task is Task.NONE


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize("task", ["sum", "update", "none"])
def test_a_restored_participant_has_the_task_and_the_request_it_had(make, task, count):
    transport = Fixed(parameters=round_parameters(task).to_bytes())
    participant = make(transport)
    for _ in range(count):
        participant.tick()
    restored = make.restore(participant.save(), transport)
    assert restored.public_key == participant.public_key
    assert restored.task is participant.task
    assert restored.should_set_model is participant.should_set_model
    assert restored.parameters == participant.parameters


def test_a_state_that_is_none_is_refused(make):
    with pytest.raises(StateError):
        make.restore(b"nothing", Fixed())


def test_urls_and_options_are_checked(make):
    with pytest.raises(ConfigError, match="coordinator URL"):
        make("localhost")
    with pytest.raises(ConfigError, match="max_message_size"):
        make(Fixed(), max_message_size=10)
    with pytest.raises(ModelError, match="scalar"):
        make(Fixed(), scalar=-1)


def test_only_a_transport_of_its_own_is_closed(make):
    transport = Fixed()
    make(transport).close()
    assert not transport.is_closed
    participant = make("http://127.0.0.1:1")
    participant.tick()
    assert "ConnectError" in str(participant.last_error)
    participant.close()
    assert make.restore(participant.save(), "http://127.0.0.1:1").public_key == participant.public_key


def test_failed_fetches_keep_the_flag(make):
    transport = Fixed(model=TransportError("away"))
    participant = make(transport)
    participant.tick()
    with pytest.raises(TransportError, match="away"):
        participant.global_model()
    assert participant.new_global_model
    transport.model = (NPY, b"garbage")
    with pytest.raises(RemoteProtocolError) as raised:
        participant.global_model()
    assert raised.value.reason == "malformed_model"
    assert participant.new_global_model
    transport.model = AnswerTooLargeError("too large")
    with pytest.raises(RemoteProtocolError) as raised:
        participant.global_model()
    assert raised.value.reason == "model_mismatch"
    assert participant.new_global_model
    transport.model = (NPY, encode_npy(weights(1)))
    assert np.array_equal(participant.global_model(), weights(1))
    assert not participant.new_global_model


def test_a_model_can_be_fetched_before_the_first_tick(make):
    transport = Fixed(model=(NPY, encode_npy(weights(1))))
    assert np.array_equal(make(transport).global_model(), weights(1))
    assert transport.max_bytes == max_model_bytes(round_parameters("update"))


def test_models_are_read_in_every_format():
    parameters = round_parameters("update")
    expected = np.array([-1.5, 0, 2, 0.25], np.float32)
    bincode = bytes.fromhex(
        "0400000000000000"
        "ff010000000000000003000000 01010000000000000002000000"
        "000000000000000000 01010000000000000001000000"
        "01010000000000000002000000 01010000000000000001000000"
        "01010000000000000001000000 01010000000000000004000000"
    )
    for answer in (
        (NPY, encode_npy(expected)),
        (SAFETENSORS, encode_safetensors(expected)),
        (BINCODE, bincode),
        ("text/html", bincode),
    ):
        assert np.array_equal(decode_global_model(answer, parameters), expected)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (np.zeros(5, np.float32), "model_mismatch"),
        (np.zeros(4, np.float64), "model_mismatch"),
        (np.array([0, 0, 0, np.nan], np.float32), "malformed_model"),
    ],
)
def test_models_of_another_shape_are_refused(model, reason):
    with pytest.raises(RemoteProtocolError) as raised:
        decode_global_model((NPY, encode_npy(model)), round_parameters("update"))
    assert raised.value.reason == reason


@pytest.mark.parametrize("text", ["prime-f32-b0-m3", "power2-f32-bmax-m12", "integer-i64-bmax-m9", "prime-f64-bmax-m3"])
def test_no_model_is_larger_than_the_limit(text):
    """Extreme sums and scalars, as exact fractions and as .npy."""
    config = MaskConfig.parse(text)
    dtype = config.data_type.dtype
    value = min(config.add_shift, 2**62) * 0.7 if dtype.kind == "i" else min(config.add_shift, 1e30) * 0.7
    for scalar in (1e-9, 0.999, 1):
        total = Aggregation(config, 3)
        masks = []
        for _ in range(3):
            seed, masked = mask_model(np.full(3, -value).astype(dtype), config, scalar)
            total.add(masked)
            masks.append(seed)
        model: GlobalModel = total.unmask(sum_masks(masks, config, 3))
        parameters = round_parameters("update", length=3, config=config)
        assert sum(map(len, model.iter_bincode())) <= max_model_bytes(parameters)
    assert len(encode_npy(np.zeros(3, dtype))) <= max_model_bytes(parameters)


def test_events_come_back_from_the_tick(make):
    transport = Fixed()
    participant = make(transport, scalar=0.5)
    participant.tick()
    participant.tick()
    participant.set_model(np.array([2.5, 2, -1, 0], np.float32))  # half of the first lies beyond the bound 1 of this config
    transport.sums = encode_sum_dictionary({bytes(32): bytes(32)})
    assert participant.tick() == [ModelMasked(clipped_count=1)]
