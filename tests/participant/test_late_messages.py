"""Participants of every kind, and test drives, say so when a message comes too late, and do not count it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter

import pytest
from participant_driver import World, quick_settings, round_parameters, signing_key, wait_until, weights
from test_participant_status import QUICK, Accepting, tick
from test_tick_participant import AsyncOf, Blocking

from pet.crypto import EncryptionKeyPair
from pet.messages import encode_sum_dictionary
from pet.participant import AsyncParticipant, Participant, Task, TickParticipant, spawn_participant, test_drive
from pet.participant.test_drive import DummyFleet
from pet.protocol.events import MessageAccepted, MessageRefused
from pet.protocol.phases import Phase


@pytest.fixture(params=[TickParticipant, Blocking])
def make(request):
    return request.param


class UpdateIsOver(World):
    """A coordinator in sum2, and the identity of a participant whose update it would have taken before."""

    def __init__(self) -> None:
        super().__init__(quick_settings())
        self.others = [TickParticipant(self.transport, signing_key=signing_key(number)) for number in range(12)]
        for participant in self.others:
            participant.tick()
            participant.tick()
        late = self.others.pop(next(i for i, one in enumerate(self.others) if one.task is Task.UPDATE))
        self.late_key = late._machine._options.signing_key
        self.outcomes: Counter[type] = Counter()
        self.engine.subscribe(lambda event: self.outcomes.update([type(event)]))

    def go_to_sum2(self) -> None:
        while self.phase is not Phase.SUM2:
            for participant in self.others:
                tick(participant, 3)
            self.pass_phase()

    @property
    def refused(self) -> int:
        return self.outcomes[MessageRefused]


@pytest.fixture
def world() -> UpdateIsOver:
    return UpdateIsOver()


def test_an_update_that_finds_the_phase_over_is_late(make, world):
    participant = make(world.transport, signing_key=world.late_key)
    tick_to_model(participant)
    world.go_to_sum2()
    participant.set_model(weights(1))
    for _ in range(3):
        participant.tick()
    status = participant.status
    assert (status.phase, status.models_sent, status.messages_late, world.refused) == ("awaiting", 0, 1, 1)
    assert "messages that came too late: 1" in status.text


def tick_to_model(participant) -> None:
    while not participant.should_set_model:
        participant.tick()


def test_a_thread_says_that_its_update_is_late(world):
    begins, is_over = threading.Event(), threading.Event()

    class Slow(Participant):
        def train_round(self, _training_input):
            begins.set()
            assert is_over.wait(60)
            return weights(1)

    thread = spawn_participant(world.transport, Slow, signing_key=world.late_key, back_off=QUICK)
    assert begins.wait(60)
    world.go_to_sum2()
    is_over.set()
    wait_until(lambda: thread.status.messages_late == 1, 60)
    assert (thread.status.models_sent, world.refused) == (0, 1)
    thread.stop()
    assert thread.error is None


def test_an_asyncio_participant_says_that_its_update_is_late(world):
    async def take_part() -> tuple[int, int]:
        participant = AsyncParticipant(AsyncOf(world.transport), signing_key=world.late_key, back_off=QUICK)
        async with asyncio.timeout(60), participant:
            while not participant.is_model_wanted:
                await asyncio.sleep(0.005)
            world.go_to_sum2()
            participant.set_local_model(weights(1))
            while participant.status.messages_late == 0:
                await asyncio.sleep(0.005)
            return participant.status.models_sent, participant.status.messages_late

    assert asyncio.run(take_part()) == (0, 1)
    assert world.refused == 1


def test_a_fleet_counts_what_was_accepted_as_delivered_and_the_rest_as_late(monkeypatch):
    monkeypatch.setattr(test_drive, "_MAX_THREADS", 1)  # one after the other, so that the phase ends where it should
    world, outcomes = World(quick_settings()), Counter()
    world.engine.subscribe(lambda event: outcomes.update([type(event)]))

    class Closing:
        """Ends the update phase under the feet of the fourth update."""

        updates = 0

        def __getattr__(self, name):
            return getattr(world.transport, name)

        def send_message(self, body) -> None:
            self.updates += world.phase is Phase.UPDATE
            if self.updates == 4:
                world.pass_phase()
            world.transport.send_message(body)

    fleet = DummyFleet(Closing(), 30, period_seconds=0)

    def go_on(_) -> None:
        if world.phase is Phase.SUM2:
            fleet.stop()
        else:
            world.pass_phase()

    progress = fleet.run(None, go_on)
    assert progress.messages_delivered == outcomes[MessageAccepted]
    assert progress.messages_late == outcomes[MessageRefused] >= 1


class Ending(Accepting):
    """A coordinator whose round is over when a message has come."""

    @staticmethod
    def ends() -> bool:
        return True

    def send_message(self, body) -> None:
        super().send_message(body)
        if self.ends():
            self.new_round(self.sent)


def test_messages_that_always_come_too_late_are_warned_about_once(make, caplog):
    transport = Ending()
    participant = make(transport, on_clip="count")
    while participant.status.messages_late < 5:
        tick(participant, 1)
    assert participant.status.models_sent == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "the last 3 messages came too late for their phases" in warnings[0]


def test_one_late_message_among_others_is_no_warning(make, caplog):
    transport = Ending()
    transport.ends = lambda: transport.sent % 3
    participant = make(transport, on_clip="count")
    while transport.sent < 9:
        tick(participant, 1)
        if participant.status.models_sent == transport.sent // 3:
            transport.new_round(100 + transport.sent)
    assert participant.status.messages_late == 6
    assert not caplog.records


def test_a_sum_message_that_is_not_in_the_dictionary_is_late(make):
    transport = Accepting("sum")
    transport.sums = None
    participant = make(transport)
    tick(participant, 3)
    transport.sums = encode_sum_dictionary({b"s" * 32: EncryptionKeyPair.from_seed(bytes(32)).public_key})
    tick(participant, 3)
    assert (participant.status.messages_late, participant.status.phase) == (1, "sum2")
    assert participant.parameters == round_parameters("sum")
