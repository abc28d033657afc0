"""The participant for asyncio."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from participant_driver import AsyncLiveTransport, LiveCoordinator, live_settings, round_parameters, weights

from pet.errors import LocalProtocolError, ModelError, TransportError
from pet.model_formats import NPY, encode_npy
from pet.participant import AsyncParticipant, BackOff, LocalModelConfig

QUICK = BackOff(initial_seconds=0.005, max_seconds=0.02)


class Scripted:
    def __init__(self, model=None) -> None:
        self.parameters: object = round_parameters("update").to_bytes()
        self.model = model
        self.asked_sums = 0
        self.fetches = 0
        self.is_closed = False

    async def get_parameters(self) -> bytes:
        if isinstance(self.parameters, Exception):
            raise self.parameters
        return self.parameters

    async def get_sums(self) -> bytes | None:
        self.asked_sums += 1
        return None

    async def get_model(self, max_bytes=None):
        self.fetches += 1
        if isinstance(self.model, Exception):
            raise self.model
        return self.model

    async def aclose(self) -> None:
        self.is_closed = True


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_participants_on_one_event_loop_finish_rounds():
    async def take_part(coordinator: LiveCoordinator, weight: float) -> list[np.ndarray]:
        models: list[np.ndarray] = []
        async with AsyncParticipant(AsyncLiveTransport(coordinator), back_off=QUICK, threads=2) as participant:
            async for model in participant.global_models():
                models += [] if model is None else [model]
                if len(models) == 2:
                    break
                participant.set_local_model(np.full(4, weight, np.float32))
                while not participant.new_global_model.is_set():
                    if participant.is_model_wanted:
                        participant.set_local_model(np.full(4, weight, np.float32))
                    await asyncio.sleep(0.01)
        return models

    async def run() -> list[list[np.ndarray]]:
        with LiveCoordinator(live_settings(sum_probability=0.4)) as coordinator:
            async with asyncio.timeout(40), asyncio.TaskGroup() as group:
                tasks = [group.create_task(take_part(coordinator, number / 8)) for number in range(8)]
            return [task.result() for task in tasks]

    for models in asyncio.run(run()):
        assert len(models) == 2
        for model in models:
            assert np.allclose(model, model[0])
            assert -1e-6 <= model[0] <= 7 / 8 + 1e-6


def test_the_event_is_set_by_a_new_round_and_cleared_by_the_fetch():
    async def run() -> None:
        transport = Scripted((NPY, encode_npy(weights(1))))
        participant = AsyncParticipant(transport, back_off=QUICK)
        assert participant.local_model_config == LocalModelConfig(np.dtype(np.float32), 0)
        with pytest.raises(ModelError):
            participant.set_local_model(weights(1))
        participant.start()
        with pytest.raises(LocalProtocolError, match="start: expected to be called once"):
            participant.start()
        await asyncio.wait_for(participant.new_global_model.wait(), 30)
        assert np.array_equal(await participant.get_global_model(), weights(1))
        assert not participant.new_global_model.is_set()
        await until(lambda: participant.is_model_wanted)
        participant.set_local_model(weights(2))
        assert not participant.is_model_wanted
        state = await participant.stop()
        assert await participant.stop() == state
        assert not transport.is_closed
        restored = AsyncParticipant(transport, state=state)
        assert restored.is_model_wanted
        assert await restored.stop() == state

    asyncio.run(run())


def test_setting_a_model_ends_the_wait():
    async def run() -> None:
        transport = Scripted()
        async with AsyncParticipant(
            transport, back_off=BackOff(initial_seconds=0.05, factor=1000, max_seconds=50)
        ) as participant:
            await until(lambda: participant.is_model_wanted)
            await asyncio.sleep(0.2)
            participant.set_local_model(weights(1))
            await until(lambda: transport.asked_sums > 0)

    asyncio.run(run())


def test_failed_fetches_are_made_up_for_in_the_same_round(caplog):
    async def run() -> np.ndarray:
        transport = Scripted(TransportError("away"))
        async with AsyncParticipant(transport, back_off=QUICK) as participant:
            models = participant.global_models()
            next_model = asyncio.create_task(anext(models))
            await until(lambda: transport.fetches > 3)
            assert str(participant.last_error) == str(participant.status.last_error) == "away"
            transport.model = (NPY, b"garbage")
            fetches = transport.fetches
            await until(lambda: transport.fetches > fetches + 3)
            transport.model = (NPY, encode_npy(weights(1)))
            model = await asyncio.wait_for(next_model, 30)
            assert participant.last_error is None
            await models.aclose()
            return model

    assert np.array_equal(asyncio.run(run()), weights(1))
    assert caplog.text.count("global model: away") == 1


@pytest.mark.parametrize("model", [None, (NPY, encode_npy(weights(1, length=7)))], ids=["none", "of another configuration"])
def test_without_a_global_model_none_stands_for_it(model):
    async def run() -> object:
        async with AsyncParticipant(Scripted(model), back_off=QUICK) as participant:
            return await asyncio.wait_for(anext(participant.global_models()), 30)

    assert asyncio.run(run()) is None


def test_a_participant_restored_in_a_round_gets_its_global_model():
    async def run() -> np.ndarray:
        transport = Scripted((NPY, encode_npy(weights(1))))
        participant = AsyncParticipant(transport, back_off=QUICK)
        participant.start()
        await until(lambda: participant.is_model_wanted)
        state = await participant.stop()
        async with AsyncParticipant(transport, state=state, back_off=QUICK) as restored:
            return await asyncio.wait_for(anext(restored.global_models()), 30)

    assert np.array_equal(asyncio.run(run()), weights(1))


def test_the_iterator_ends_when_the_participant_does():
    async def run() -> None:
        participant = AsyncParticipant(Scripted(), back_off=QUICK)
        with pytest.raises(LocalProtocolError, match="expected a participant that was started"):
            await anext(participant.global_models())
        participant.start()
        waiting = asyncio.create_task(_collect(participant))
        await asyncio.sleep(0.05)
        await participant.stop()
        assert await asyncio.wait_for(waiting, 30) == [None]

    asyncio.run(run())


async def _collect(participant: AsyncParticipant) -> list[np.ndarray | None]:
    return [model async for model in participant.global_models()]


def test_an_error_that_ended_the_ticks_is_raised_once_by_stop():
    async def run() -> None:
        transport = Scripted()
        transport.parameters = ZeroDivisionError("a broken transport")
        participant = AsyncParticipant(transport, back_off=QUICK)
        participant.start()
        assert await asyncio.wait_for(_collect(participant), 30) == []
        assert isinstance(participant.status.ended_by, ZeroDivisionError)
        assert participant.status.text == "ended by ZeroDivisionError: a broken transport"
        with pytest.raises(ZeroDivisionError):
            await participant.stop()
        assert await participant.stop()

    asyncio.run(run())


def test_an_unreachable_coordinator_is_tried_again():
    async def run() -> None:
        participant = AsyncParticipant("http://127.0.0.1:1", scalar=0.5, max_message_size=4096, back_off=QUICK)
        participant.start()
        await asyncio.sleep(0.1)
        assert await participant.stop()

    asyncio.run(run())
