"""What a participant of any kind knows and asks for, over HTTP, TLS and NATS."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from participant_driver import wait_until
from served_rounds import WAYS, Others, Served, served_over

from pet.crypto import SigningKeyPair
from pet.participant import AsyncParticipant, BackOff, Participant, ParticipantThread, TickParticipant, spawn_participant
from pet.participant.test_drive import DummyFleet
from pet.protocol.phases import Phase

#: Weights of a model whose message goes out in more than fifty chunks of 300 bytes.
LENGTH = 1500
CHUNK = 300
QUICK = BackOff(initial_seconds=0.005, max_seconds=0.02)
#: From the second wait on ten minutes, if nothing could be expected.
LONG_WAITS = BackOff(initial_seconds=0.01, factor=1e5, max_seconds=600, jitter=0)


@pytest.fixture(params=WAYS)
def served(request, tmp_path) -> Iterator[Served]:
    with served_over(request.param, tmp_path, LENGTH) as served:
        yield served


class Counting:
    """A way to a coordinator that counts how often parameters are asked for, in all and since the first chunk was sent."""

    def __init__(self, transport) -> None:
        self._transport = transport
        self.asked = self.asked_while_sending = self.sent = 0
        self._began_seconds = 0.0

    def __getattr__(self, name: str):
        return getattr(self._transport, name)

    def get_parameters(self, **options):
        self.asked += 1
        self.asked_while_sending += self.sent > 0
        return self._transport.get_parameters(**options)

    def send_message(self, body):
        self._began_seconds = self._began_seconds or time.monotonic()
        self.sent += 1
        return self._transport.send_message(body)

    def check(self, participants: int = 1, others_ask: int = 0) -> None:
        """At most once a second, and each once when it begins, and to see whether its message came in time."""
        assert self.sent > 50
        assert self.asked_while_sending <= participants * (time.monotonic() - self._began_seconds + 3) + others_ask


class Zeros(Participant):
    def train_round(self, _training_input):
        return np.zeros(LENGTH, np.float32)


def send_from_thread(served: Served, key: SigningKeyPair) -> None:
    with contextlib.closing(served.open()) as transport:
        counting = Counting(transport)
        thread = spawn_participant(counting, Zeros, signing_key=key, max_message_size=CHUNK, back_off=QUICK)
        wait_until(lambda: thread.status.models_sent == 1, 60)
        counting.check()
        thread.stop()


def send_from_task(served: Served, key: SigningKeyPair) -> None:
    async def send() -> None:
        async with asyncio.timeout(120), served.open_async() as transport:
            counting = Counting(transport)
            participant = AsyncParticipant(counting, signing_key=key, max_message_size=CHUNK, back_off=QUICK)
            participant.start()
            while not participant.is_model_wanted:
                await asyncio.sleep(0.005)
            participant.set_local_model(np.zeros(LENGTH, np.float32))
            while participant.status.models_sent == 0:
                await asyncio.sleep(0.005)
            counting.check()
            await participant.stop()

    asyncio.run(send())


def send_from_ticks(served: Served, key: SigningKeyPair) -> None:
    with contextlib.closing(served.open()) as transport:
        counting = Counting(transport)
        participant = TickParticipant(counting, signing_key=key, max_message_size=CHUNK)
        while participant.status.models_sent == 0:
            participant.tick()
            if participant.should_set_model:
                participant.set_model(np.zeros(LENGTH, np.float32))
        counting.check()


def send_from_fleet(served: Served, _key: SigningKeyPair) -> None:
    with contextlib.closing(served.open()) as transport:
        counting = Counting(transport)
        fleet = DummyFleet(counting, 12, max_message_size=CHUNK, period_seconds=0.05)
        fleet.run(None, lambda progress: fleet.stop() if progress.messages_delivered else None)
        counting.check(12, others_ask=100)  # those who were not drawn wait for a round; with a request a chunk it would be 600


KINDS = {"thread": send_from_thread, "asyncio": send_from_task, "ticks": send_from_ticks, "test-drive": send_from_fleet}


@pytest.mark.parametrize(
    ("served", "send"),
    [
        ("HTTP", "thread"),
        ("HTTP", "asyncio"),
        pytest.param("HTTP", "test-drive", marks=pytest.mark.long),
        ("TLS", "ticks"),
        pytest.param("NATS", "thread", marks=pytest.mark.long),
        ("NATS", "asyncio"),
    ],
    indirect=["served"],
)
def test_a_message_in_many_chunks_asks_for_the_parameters_once_a_second(served, send):
    with contextlib.closing(Others(served)) as others:
        others.go_to(Phase.UPDATE)
        KINDS[send](served, others.update_key)


def test_the_shape_of_a_model_is_known_in_the_first_training(served):
    shapes: list[tuple[str, int]] = []

    class Asking(Participant):
        def train_round(self, _training_input):
            config = threads[0].local_model_config
            shapes.append((config.dtype.name, config.length))
            return np.zeros(config.length, config.dtype)

    with contextlib.closing(Others(served)) as others, contextlib.closing(served.open()) as transport:
        others.go_to(Phase.UPDATE)
        threads: list[ParticipantThread] = []
        threads.append(spawn_participant(transport, Asking, signing_key=others.update_key, back_off=QUICK))
        wait_until(lambda: shapes or not threads[0].is_alive(), 60)
        threads[0].stop()
    assert shapes == [("float32", LENGTH)]


def begin_another_round(served: Served) -> None:
    before = served.engine.parameters()

    def let_time_pass() -> bool:
        served.clock.now_seconds += 61
        served.engine.tick()
        return served.engine.parameters() != before

    wait_until(let_time_pass)


def test_a_thread_sees_a_new_round_soon_though_nothing_happened_for_long(served):
    rounds = threading.Semaphore(0)

    class Waiting(Zeros):
        def participate_in_update_task(self) -> bool:
            return False

        def on_new_global_model(self, _global_model) -> None:
            rounds.release()

    with contextlib.closing(Others(served)) as others, contextlib.closing(served.open()) as transport:
        counting = Counting(transport)
        thread = spawn_participant(counting, Waiting, signing_key=others.update_key, back_off=LONG_WAITS)
        assert rounds.acquire(timeout=60)
        wait_until(lambda: counting.asked >= 4)
        begin_another_round(served)
        assert rounds.acquire(timeout=60)
        thread.stop()


def test_a_task_sees_a_new_round_soon_though_nothing_happened_for_long(served):
    async def see(key: SigningKeyPair) -> None:
        async with asyncio.timeout(120), served.open_async() as transport:
            counting = Counting(transport)
            participant = AsyncParticipant(counting, signing_key=key, back_off=LONG_WAITS)
            participant.start()
            await participant.new_global_model.wait()
            participant.new_global_model.clear()
            while counting.asked < 4:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(begin_another_round, served)
            await participant.new_global_model.wait()
            await participant.stop()

    with contextlib.closing(Others(served)) as others:
        asyncio.run(see(others.update_key))
