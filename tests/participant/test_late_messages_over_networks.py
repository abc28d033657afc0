"""Messages that come too late, over TLS and NATS: the coordinator takes and drops them, and their senders find out."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest
from participant_driver import signing_key, wait_until, weights
from served_rounds import Others, Served, served_over

from pet.participant import AsyncParticipant, BackOff, Participant, Task, TickParticipant, spawn_participant, test_drive
from pet.participant.test_drive import DummyFleet
from pet.protocol.events import MessageAccepted, MessageRefused
from pet.protocol.phases import Phase
from pet.transports.nats import server

QUICK = BackOff(initial_seconds=0.005, max_seconds=0.02)


@pytest.fixture(params=["TLS", "NATS"])
def served(request, tmp_path) -> Iterator[Served]:
    with served_over(request.param, tmp_path) as served:
        yield served


@pytest.fixture
def others(served) -> Iterator[Others]:
    with contextlib.closing(Others(served)) as others:
        yield others


def test_a_participant_that_is_ticked_says_that_its_update_is_late(served, others):
    with contextlib.closing(served.open()) as transport:
        participant = TickParticipant(transport, signing_key=others.update_key)

        def tick() -> bool:
            participant.tick()
            return participant.should_set_model

        wait_until(tick)
        others.go_to(Phase.SUM2)
        participant.set_model(weights(1))
        wait_until(lambda: participant.tick() is None or participant.status.messages_late == 1)
    status = participant.status
    assert (status.phase, status.models_sent, served.outcomes[MessageRefused]) == ("awaiting", 0, 1)


def test_a_thread_says_that_its_update_is_late(served, others):
    begins, is_over = threading.Event(), threading.Event()

    class Slow(Participant):
        def train_round(self, _training_input):
            begins.set()
            assert is_over.wait(60)
            return weights(1)

    with contextlib.closing(served.open()) as transport:
        thread = spawn_participant(transport, Slow, signing_key=others.update_key, back_off=QUICK)
        assert begins.wait(60)
        others.go_to(Phase.SUM2)
        is_over.set()
        wait_until(lambda: thread.status.messages_late == 1, 60)
        thread.stop()
    assert (thread.status.models_sent, served.outcomes[MessageRefused]) == (0, 1)
    assert thread.error is None


def test_an_asyncio_participant_says_that_its_update_is_late(served, others):
    async def take_part() -> tuple[int, int]:
        async with (
            asyncio.timeout(120),
            served.open_async() as transport,
            AsyncParticipant(transport, signing_key=others.update_key, back_off=QUICK) as participant,
        ):
            while not participant.is_model_wanted:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(others.go_to, Phase.SUM2)
            participant.set_local_model(weights(1))
            while participant.status.messages_late == 0:
                await asyncio.sleep(0.005)
            return participant.status.models_sent, participant.status.messages_late

    assert asyncio.run(take_part()) == (0, 1)
    assert served.outcomes[MessageRefused] == 1


def test_a_sum_message_is_late_whose_phase_the_broker_does_not_know_to_be_over_yet(monkeypatch, tmp_path):
    monkeypatch.setattr(server, "_POLL_SECONDS", 3600.0)  # the coordinator publishes only what a confirmed message needs
    with served_over("NATS", tmp_path) as served, contextlib.closing(served.open()) as transport:
        participants = [TickParticipant(transport, signing_key=signing_key(number)) for number in range(20)]
        for participant in participants:
            wait_until(lambda one=participant: one.tick() is None or one.parameters is not None)
            participant.tick()
        punctual, late = [one for one in participants if one.task is Task.SUM][:2]
        for participant in (punctual, late):
            wait_until(lambda one=participant: one.tick() is None or one.status.phase == "sum2")
            if participant is punctual:
                served.pass_phase()
    assert (punctual.status.messages_late, late.status.messages_late) == (0, 1)
    assert served.outcomes[MessageRefused] == 1


def test_a_fleet_counts_what_was_accepted_as_delivered_and_the_rest_as_late(monkeypatch, served):
    monkeypatch.setattr(test_drive, "_MAX_THREADS", 1)  # one after the other, so that the phase ends where it should

    class Closing:
        """Ends the update phase under the feet of the fourth update."""

        updates = 0

        def __getattr__(self, name):
            return getattr(transport, name)

        def send_message(self, body) -> None:
            if served.phase is Phase.UPDATE:
                self.updates += 1
                if self.updates == 4:
                    served.pass_phase()
            transport.send_message(body)

    def go_on(_) -> None:
        if served.phase is Phase.SUM2:
            fleet.stop()
        else:
            served.pass_phase_if_ready()

    with contextlib.closing(served.open()) as transport:
        fleet = DummyFleet(Closing(), 30, period_seconds=0)
        progress = fleet.run(None, go_on)
    assert progress.messages_delivered == served.outcomes[MessageAccepted]
    assert progress.messages_late == served.outcomes[MessageRefused] >= 1
