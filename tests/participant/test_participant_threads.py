"""The class to inherit from, and the thread that runs it."""

from __future__ import annotations

import math
import re
import threading
import time

import numpy as np
import pytest
from participant_driver import F32, LiveCoordinator, LiveTransport, live_settings, round_parameters, wait_until, weights

from pet.errors import ConfigError, LocalProtocolError, ModelError, StateError, TransportError
from pet.model_formats import NPY, encode_npy
from pet.participant import BackOff, LocalModelConfig, Participant, ParticipantThread, TickParticipant, spawn_participant

QUICK = BackOff(initial_seconds=0.005, max_seconds=0.02)


class Trainer(Participant):
    def __init__(self, weight: float, length: int = 4, *, is_willing: bool = True) -> None:
        self.weight = weight
        self.length = length
        self.is_willing = is_willing
        self.inputs: list[object] = []
        self.models: list[object] = []
        self.is_stopped = threading.Event()
        INSTANCES.append(self)

    def train_round(self, training_input):
        self.inputs.append(training_input)
        return np.full(self.length, self.weight, np.float32)

    def participate_in_update_task(self) -> bool:
        return self.is_willing

    def on_new_global_model(self, global_model) -> None:
        self.models.append(global_model)

    def on_stop(self) -> None:
        self.is_stopped.set()


class Converting(Trainer):
    def deserialize_training_input(self, global_model):
        return global_model.tolist()

    def train_round(self, training_input):
        super().train_round(training_input)
        return [self.weight] * self.length

    def serialize_training_result(self, training_result):
        return np.array(training_result, np.float32)


INSTANCES: list[Trainer] = []


@pytest.fixture(autouse=True)
def _no_instances():
    INSTANCES.clear()


class Scripted:
    """One endless round in which everybody has the update task."""

    def __init__(self, model=None, parameters=None) -> None:
        self.parameters = parameters or round_parameters("update")
        self.model = model
        self.fetches = 0
        self.times: list[float] = []

    def get_parameters(self) -> bytes:
        self.times.append(time.monotonic())
        return self.parameters.to_bytes()

    def get_sums(self) -> bytes | None:
        return None

    def get_model(self, max_bytes=None):
        self.fetches += 1
        if isinstance(self.model, Exception):
            raise self.model
        return self.model

    def close(self) -> None:
        pass


def test_threads_finish_rounds_together_and_see_the_global_model():
    with LiveCoordinator(live_settings(sum_probability=0.4)) as coordinator:
        kinds = [Trainer, Converting] * 4
        threads = [
            spawn_participant(LiveTransport(coordinator), kind, (number / 8,), {"length": 4}, back_off=QUICK, threads=2)
            for number, kind in enumerate(kinds)
        ]
        try:
            wait_until(lambda: coordinator.engine.status()["rounds_completed"] >= 2)
            wait_until(lambda: all(trainer.models and trainer.models[-1] is not None for trainer in INSTANCES))
        finally:
            states = [thread.stop() for thread in threads]
    assert all(thread.error is None and not thread.is_alive() for thread in threads)
    assert all(trainer.is_stopped.is_set() for trainer in INSTANCES)
    assert any(isinstance(trainer.models[-1], list) for trainer in INSTANCES)
    for trainer in INSTANCES:
        model = np.array(trainer.models[-1])
        assert np.allclose(model, model[0])
        assert -1e-6 <= model[0] <= 7 / 8 + 1e-6
    assert len(set(states)) == 8
    assert threads[0].stop() == states[0]


def test_a_stopped_participant_goes_on_from_its_state():
    transport = Scripted()
    first = spawn_participant(transport, Trainer, (0.5,), scalar=0.25, back_off=QUICK)
    wait_until(lambda: bool(INSTANCES and INSTANCES[0].inputs))
    state = first.stop()
    second = spawn_participant(transport, Trainer, (0.5,), state=state, back_off=QUICK, threads=1)
    wait_until(lambda: bool(len(INSTANCES) == 2 and INSTANCES[1].inputs))
    second.stop()
    restored = TickParticipant.restore(state, transport)
    assert restored._machine.scalar == 0.25
    assert second.name == first.name == f"pet-participant-{restored.public_key.hex()[:8]}"


def test_an_unwilling_participant_does_not_train():
    transport = Scripted()
    thread = spawn_participant(transport, Trainer, (0.5,), {"is_willing": False}, back_off=QUICK)
    wait_until(lambda: len(transport.times) > 5)
    thread.stop()
    assert INSTANCES[0].inputs == []
    assert INSTANCES[0].models == [None]


def test_training_waits_for_a_fetch_that_failed():
    transport = Scripted(TransportError("away"))
    thread = spawn_participant(transport, Trainer, (0.5,), back_off=QUICK)
    wait_until(lambda: transport.fetches > 3)
    assert INSTANCES[0].models == INSTANCES[0].inputs == []
    transport.model = (NPY, b"garbage")
    fetches = transport.fetches
    wait_until(lambda: transport.fetches > fetches + 3)
    assert INSTANCES[0].models == INSTANCES[0].inputs == []
    transport.model = (NPY, encode_npy(weights(1)))
    wait_until(lambda: bool(INSTANCES[0].inputs))
    thread.stop()
    assert np.array_equal(INSTANCES[0].models[0], weights(1))
    assert np.array_equal(INSTANCES[0].inputs[0], weights(1))
    assert thread.error is None


def test_a_model_of_an_earlier_configuration_counts_as_none():
    transport = Scripted((NPY, encode_npy(weights(1, length=7))))
    thread = spawn_participant(transport, Trainer, (0.5,), back_off=QUICK)
    wait_until(lambda: bool(INSTANCES and INSTANCES[0].inputs))
    thread.stop()
    assert INSTANCES[0].models == INSTANCES[0].inputs == [None]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "expected a NumPy array of float32, got NoneType"),
        ([0.5] * 4, "expected a NumPy array of float32, got list"),
        (np.zeros(3, np.float32), "expected 4 weights, got 3"),
        (np.zeros(4), "expected float32 of one dimension, got float64"),
        (np.zeros((2, 2), np.float32), r"expected float32 of one dimension, got float32 of shape \(2, 2\)"),
        (np.full(4, np.nan, np.float32), "expected finite weights, got NaN"),
        (np.ma.array(np.zeros(4, np.float32), mask=True), "without missing values"),
    ],
    ids=["none", "list", "length", "dtype", "shape", "nan", "masked"],
)
def test_a_model_that_cannot_be_used_ends_the_thread_after_one_training(model, message):
    class Wrong(Trainer):
        def train_round(self, training_input):
            super().train_round(training_input)
            return model

    thread = spawn_participant(Scripted(), Wrong, (0.5,), back_off=QUICK)
    thread.join(60)
    assert not thread.is_alive()
    assert isinstance(thread.error, ModelError)
    assert re.search(message, str(thread.error))
    assert thread.status.ended_by is thread.error
    assert len(INSTANCES[0].inputs) == 1
    thread.stop()


def test_the_shape_of_a_model_is_known_in_the_first_training():
    class Learning(Trainer):
        def train_round(self, training_input):
            shapes.append(threading.current_thread().local_model_config)
            return super().train_round(training_input)

    shapes: list[LocalModelConfig] = []
    thread = spawn_participant(Scripted(), Learning, (0.5,), back_off=QUICK)
    wait_until(lambda: bool(shapes))
    thread.stop()
    assert shapes[0] == LocalModelConfig(np.dtype(np.float32), 4)


def test_a_scalar_beyond_the_bound_of_the_round_ends_the_thread():
    thread = spawn_participant(Scripted(), Trainer, (0.5,), scalar=2, back_off=QUICK)
    thread.join(60)
    assert isinstance(thread.error, ModelError)
    assert "scalar: expected at most 1, the bound of prime-f32-b0-m3, got 2" in str(thread.error)
    assert INSTANCES[0].inputs == []
    thread.stop()


def test_an_exception_of_the_participant_ends_its_thread_and_is_kept(caplog):
    class Broken(Trainer):
        def train_round(self, training_input):
            raise ZeroDivisionError("no samples")

    thread = spawn_participant(Scripted(), Broken, (0.5,), back_off=QUICK)
    thread.join(60)
    assert isinstance(thread.error, ZeroDivisionError)
    assert "no samples" in caplog.text
    assert thread.stop()
    assert INSTANCES[0].is_stopped.is_set()


def test_an_exception_of_the_constructor_is_kept_too(caplog):
    thread = spawn_participant(Scripted(), Trainer, back_off=QUICK)
    thread.join(60)
    assert isinstance(thread.error, TypeError)
    assert thread.stop()


def test_stop_from_its_own_thread_is_refused():
    class Stopping(Trainer):
        def train_round(self, training_input):
            threading.current_thread().stop()

    thread = spawn_participant(Scripted(), Stopping, (0.5,), back_off=QUICK)
    thread.join(60)
    assert isinstance(thread.error, LocalProtocolError)
    thread.stop()


def test_stop_interrupts_a_long_wait():
    thread = spawn_participant(Scripted(), Trainer, (0.5,), back_off=BackOff(initial_seconds=50, max_seconds=50))
    wait_until(lambda: bool(INSTANCES))
    started = time.monotonic()
    thread.stop()
    assert time.monotonic() - started < 5
    assert isinstance(thread, ParticipantThread)


def test_options_are_checked_before_the_thread_starts():
    with pytest.raises(ConfigError):
        spawn_participant("nowhere", Trainer)
    with pytest.raises(ModelError):
        spawn_participant(Scripted(), Trainer, scalar=-1)
    with pytest.raises(ConfigError):
        spawn_participant(Scripted(), Trainer, max_message_size=193)
    with pytest.raises(StateError):
        spawn_participant(Scripted(), Trainer, state=b"")


def test_the_hooks_may_be_left_out():
    class Least(Participant):
        def train_round(self, training_input):
            return np.zeros(4, F32.data_type.dtype)

    participant = Least()
    assert participant.participate_in_update_task()
    assert participant.on_new_global_model(None) is None
    assert participant.on_stop() is None
    array = weights(1)
    assert participant.serialize_training_result(array) is array
    assert participant.deserialize_training_input(array) is array


def test_waits_grow_while_nothing_happens_and_vanish_with_progress():
    back_off = BackOff()
    waits = [0.0]
    for _ in range(40):
        waits.append(back_off.next_seconds(waits[-1], made_progress=False, is_new_round=False))
    assert waits[1:4] == pytest.approx([0.1, 0.12, 0.144])
    assert waits[-1] == 10
    assert back_off.next_seconds(10, made_progress=True, is_new_round=False) == 0
    assert back_off.next_seconds(10, made_progress=True, is_new_round=True) == 0.1


@pytest.mark.parametrize(
    "options",
    [
        *({"initial_seconds": 0}, {"initial_seconds": 11}, {"factor": 0.9}, {"initial_seconds": math.nan}, {"max_seconds": -1}),
        *(
            {"max_seconds": math.inf},
            {"max_seconds": 10**400},
            {"factor": math.inf},
            {"jitter": 2},
            {"give_up_seconds": math.nan},
        ),
    ],
)
def test_impossible_waits_are_refused(options):
    with pytest.raises(ConfigError, match=r"back-off: .*expected"):
        BackOff(**options)
