"""Whole rounds of pet/1 over a real nats-server: the same bits as in process and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nats_broker import FEDERATION, Broker, running_broker
from numpy.typing import NDArray
from pet1_drivers import weights
from pet1_served import QUICK, ServedRounds, served_over_nats, served_rounds

from pet.participant import AsyncParticipant, Participant, TickParticipant, spawn_participant
from pet.transports.nats import AsyncNatsTransport, NatsSettings, NatsTransport, Subjects, connect


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


class Trainer(Participant):
    """The first weights; others from the second round on."""

    def __init__(self) -> None:
        self.number = 0

    def train_round(self, training_input: Any) -> Any:
        self.number += 10
        return weights(self.number - 10)


def play_over_http(rounds: ServedRounds) -> bytes:
    """Play a round of ticks; returns its model."""
    with rounds.members():
        keys = rounds.parties.participant_keys
        ticks = [TickParticipant(rounds.url, signing_key=key, enrolment=rounds.parties.enrolment, threads=1) for key in keys]
        while rounds.rounds_completed == 0:
            tick_and_train(ticks)
        for each in ticks:
            each.close()
        (model,) = rounds.models()
        return model


def tick_and_train(ticks: list[TickParticipant], first: int = 0) -> None:
    for number, each in enumerate(ticks, first):
        each.tick()
        if each.should_set_model:
            each.set_model(weights(number))


def test_a_round_of_every_kind_of_participant_is_the_same_as_over_http(broker: Broker, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("nats", "http")]
    for folder in folders:
        folder.mkdir()
    with served_rounds(folders[1]) as rounds:
        expected = play_over_http(rounds)
    settings = NatsSettings(hosts=(broker.url,))
    with served_over_nats(folders[0], settings) as rounds, rounds.members():
        model = asyncio.run(asyncio.wait_for(play_over_nats(rounds, settings), 60))
    assert model is not None
    assert model.tobytes() == expected


async def play_over_nats(rounds: ServedRounds, settings: NatsSettings) -> NDArray[np.float32] | None:
    """Play a round of a thread, ticks and a task, each with a transport of its own; returns its model."""
    keys = rounds.parties.participant_keys
    options: dict[str, Any] = {"enrolment": rounds.parties.enrolment, "threads": 1}
    with contextlib.ExitStack() as stack:
        ways = [stack.enter_context(contextlib.closing(NatsTransport(settings, FEDERATION))) for _ in range(2)]
        thread = spawn_participant(ways[0], Trainer, signing_key=keys[0], back_off=QUICK, **options)
        ticks = TickParticipant(ways[1], signing_key=keys[2], **options)
        async with await connect(settings, "task") as connection:
            way = AsyncNatsTransport(connection, Subjects(FEDERATION))
            async with AsyncParticipant(way, signing_key=keys[1], back_off=QUICK, **options) as participant:
                models = participant.global_models()
                assert await anext(models) is None
                participant.set_local_model(weights(1))
                while rounds.rounds_completed == 0:
                    await asyncio.to_thread(tick_and_train, [ticks], 2)
                    await asyncio.sleep(0.01)
                model = await anext(models)
        await asyncio.to_thread(thread.stop)
        assert thread.error is None
        return model
