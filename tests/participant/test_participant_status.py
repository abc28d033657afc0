"""What participants say of themselves: the status, and warnings that come once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from participant_driver import F32, SetClock, World, quick_settings, round_parameters, wait_until, weights
from test_tick_participant import Blocking, Fixed

from pet.crypto import EncryptionKeyPair
from pet.errors import (
    BackPressureError,
    CertificateError,
    ConfigError,
    MessageTooLargeError,
    ModelError,
    PetError,
    RemoteProtocolError,
    TransportConfigError,
    TransportError,
    TransportRefusedError,
)
from pet.messages import encode_sum_dictionary
from pet.participant import AsyncParticipant, BackOff, Participant, ParticipantStatus, Task, TickParticipant, spawn_participant
from pet.participant.fleet_progress import FleetProgress
from pet.participant.status import Contact
from pet.participant.test_drive import DummyFleet

QUICK = BackOff(initial_seconds=0.005, max_seconds=0.02)
SUMS = encode_sum_dictionary({b"s" * 32: EncryptionKeyPair.from_seed(bytes([9]) * 32).public_key})
TOO_WIDE = np.array([2.5, 2, -2, -3], np.float32)


@pytest.fixture(params=[TickParticipant, Blocking])
def make(request):
    return request.param


class Accepting(Fixed):
    """An endless round in which every message is delivered."""

    def __init__(self, task: str = "update") -> None:
        super().__init__(round_parameters(task).to_bytes())
        self.sums = SUMS
        self.answer: TransportError | None = None
        self.sent = 0

    def send_message(self, body) -> None:
        self.sent += 1
        self.give(self.answer)

    def new_round(self, seed: int, task: str = "update") -> None:
        self.parameters = round_parameters(task, seed=seed).to_bytes()


def tick(participant, count: int) -> None:
    for _ in range(count):
        participant.tick()
        if participant.should_set_model:
            participant.set_model(TOO_WIDE)


def test_the_status_follows_a_participant(make):
    transport = Accepting()
    participant = make(transport)
    assert participant.status == ParticipantStatus(
        phase="awaiting",
        task=Task.NONE,
        round=None,
        is_connected=False,
        last_error=None,
        error_since=None,
        last_refusal=None,
        models_sent=0,
        messages_late=0,
        last_clipped_count=None,
        rounds=0,
    )
    assert participant.status.text == "not connected yet; no round yet; models sent: 0 in 0 rounds with a task"
    participant.tick()
    participant.tick()
    status = participant.status
    assert (status.phase, status.task, status.is_connected, status.rounds) == ("update", Task.UPDATE, True, 1)
    assert status.round == round_parameters("update").digest().hex()[:16]
    participant.set_model(TOO_WIDE)
    tick(participant, 2)
    status = participant.status
    assert (status.phase, status.models_sent, status.last_clipped_count) == ("awaiting", 1, 4)
    assert status.text.startswith(f"connected; round {status.round}: task update, awaiting; models sent: 1 in 1 rounds")
    assert status.text.endswith("4 weights of the last one were clamped")
    assert str(status) == status.text


def test_an_error_stands_in_the_status_with_its_beginning(make):
    transport = Fixed(parameters=TransportError("nobody there"))
    participant = make(transport)
    participant.tick()
    began = participant.status.error_since
    participant.tick()
    status = participant.status
    assert (str(status.last_error), status.error_since, status.is_connected) == ("nobody there", began, False)
    assert "no usable answer since 20" in status.text
    assert "UTC: nobody there; no round yet" in status.text
    transport.parameters = b"<html>"
    participant.tick()
    assert isinstance(participant.status.last_error, RemoteProtocolError)
    assert participant.status.error_since == began
    transport.parameters = round_parameters("none").to_bytes()
    participant.tick()
    assert participant.status.is_connected
    assert participant.status.last_error is None


def test_a_problem_is_logged_once_then_seldom_and_once_when_it_is_over(caplog):
    clock = SetClock()
    contact = Contact("coordinator", clock, lambda: 1_800_000_000 + clock.now_seconds)
    began = clock.now_seconds
    logged_at = []
    for second in range(0, 10_000, 5):
        clock.now_seconds = began + second
        before = len(caplog.records)
        contact.note(TransportError("nobody there"))
        if len(caplog.records) > before:
            logged_at.append(second)
    assert logged_at == [0, 60, 180, 420, 900, 1860, 3780, 7380]
    assert caplog.records[0].getMessage() == "coordinator: nobody there; trying again"
    assert caplog.records[1].getMessage() == "coordinator: still without success since 2027-01-15 08:01:40 UTC: nobody there"
    contact.note(None)
    contact.note(None)
    assert caplog.records[-1].getMessage() == "coordinator: works again after 9995 s"
    assert len(caplog.records) == len(logged_at) + 1
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    contact.note(TransportError("nobody there"))
    assert caplog.records[-1].getMessage().endswith("trying again")


def test_another_reason_is_news_and_reasons_that_alternate_are_not(caplog):
    contact = Contact("coordinator", SetClock())
    for number in range(100):
        contact.note(TransportError(f"reason {number % 2}"))
    assert len(caplog.records) == 2
    for number in range(100):
        contact.note(TransportError(f"reason {number}"))
    assert len(caplog.records) == 8


def test_a_busy_coordinator_is_no_news_for_a_while(caplog):
    clock = SetClock()
    contact = Contact("coordinator", clock)
    contact.note(BackPressureError("busy"))
    contact.note(None)
    assert not caplog.records
    contact.note(BackPressureError("busy"))
    clock.now_seconds += 11
    contact.note(BackPressureError("busy"))
    assert caplog.records[0].getMessage() == "coordinator: busy; trying again"


def test_clipping_is_warned_about_once_a_round(make, caplog):
    transport = Accepting()
    participant = make(transport)
    for seed in (1, 2):
        transport.new_round(seed)
        tick(participant, 6)
        assert participant.status.last_clipped_count == 4
    assert participant.status.models_sent == 2
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    for message in messages:
        assert "4 of 4 weights were clipped" in message
        assert "stay within 1, the bound of prime-f32-b0-m3, and the scalar is 1" in message
        assert "pet config advise" in message


@pytest.mark.parametrize("on_clip", ["count", "raise"])
def test_clipping_may_be_counted_or_refused(make, caplog, on_clip):
    transport = Accepting()
    participant = make(transport, on_clip=on_clip)
    tick(participant, 2)
    if on_clip == "count":
        tick(participant, 2)
        assert participant.status.last_clipped_count == 4
        assert participant.status.models_sent == 1
    else:
        with pytest.raises(ModelError, match="within the bound of prime-f32-b0-m3, got 4 of 4 outside"):
            participant.tick()
        participant.tick()
        assert participant.should_set_model
        participant.set_model(weights(1))
        participant.tick()
        participant.tick()
        assert participant.status.models_sent == 1
    assert not caplog.records


def test_what_the_application_decides_is_no_part_of_a_state(make):
    transport = Accepting()
    participant = make(transport, on_clip="raise")
    state = participant.save()
    restored = make.restore(state, transport)
    tick(restored, 4)
    assert restored.status.last_clipped_count == 4
    strict = make.restore(state, transport, on_clip="raise")
    tick(strict, 2)
    with pytest.raises(ModelError, match="bound"):
        strict.tick()
    bounded = make.restore(state, transport, max_model_length=3)
    bounded.tick()
    assert bounded.parameters is None
    for create in (make, lambda _, **options: make.restore(state, transport, **options)):
        with pytest.raises(ConfigError, match="on_clip: expected 'warn', 'count' or 'raise', got 'ignore'"):
            create(transport, on_clip="ignore")


def test_a_restored_participant_may_have_missed_a_global_model(make):
    transport = Accepting()
    participant = make(transport)
    assert not make.restore(participant.save(), transport).new_global_model
    participant.tick()
    assert make.restore(participant.save(), transport).new_global_model


def test_a_refused_message_ends_the_task_with_a_reason_that_is_logged_once(make, caplog):
    transport = Accepting()
    transport.answer = TransportRefusedError("POST /message: expected a status below 400, got 403", 403)
    participant = make(transport, on_clip="count")
    for seed in (1, 2, 3):
        transport.new_round(seed)
        tick(participant, 8)
        assert participant.task is Task.NONE
        assert participant.status.last_refusal == f"task abandoned: {transport.answer}"
        assert participant.status.is_connected
    assert transport.sent == 3
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [f"task abandoned: {transport.answer}"]
    transport.answer = None
    transport.new_round(4)
    tick(participant, 8)
    assert participant.status.last_refusal is None
    assert participant.status.models_sent == 1


def test_a_message_refused_for_its_size_is_sent_in_chunks(make, caplog):
    transport = Accepting()
    length = 3000
    transport.parameters = round_parameters("update", length=length).to_bytes()
    participant = make(transport)
    participant.tick()
    participant.tick()
    participant.set_model(weights(1, length=length))
    transport.answer = MessageTooLargeError("got 413", 413)
    participant.tick()
    participant.tick()
    transport.answer = None
    assert participant.made_progress
    assert "message refused, sending it in chunks of" in caplog.text
    assert "sending it in chunks" in participant.status.text
    tick(participant, 4)
    assert participant.status.models_sent == 1


def test_a_model_too_long_is_refused_before_the_first_tick_and_in_it(make, caplog):
    transport = Fixed(round_parameters("update", length=2**32 - 1).to_bytes())
    participant = make(transport)
    for _ in range(3):
        participant.tick()
    assert "expected models of at most 178956970 weights (max_model_length), got 4294967295" in participant.status.text
    with pytest.raises(RemoteProtocolError, match="max_model_length"):
        participant.global_model()
    assert len(caplog.records) == 2  # one of each kind
    assert participant.local_model_config.length == 0


def test_how_long_the_coordinator_asks_to_wait_is_known(make):
    transport = Fixed(parameters=BackPressureError("busy", 7.5))
    participant = make(transport)
    assert participant.retry_after_seconds == 0
    participant.tick()
    assert participant.retry_after_seconds == 7.5
    transport.parameters = BackPressureError("busy")
    participant.tick()
    assert participant.retry_after_seconds == 0


def test_a_dropped_model_is_reported(make, caplog):
    transport = Accepting("none")
    participant = make(transport)
    participant.tick()
    participant.set_model(weights(1))
    transport.parameters = round_parameters("none", length=5).to_bytes()
    participant.tick()
    assert "model dropped: model: expected 5 weights, got 4" in caplog.text


class Wide(Participant):
    def train_round(self, training_input):
        return TOO_WIDE


@pytest.mark.parametrize("on_clip", ["warn", "count", "raise"])
def test_threads_say_that_they_clip(caplog, on_clip):
    transport = Accepting()
    thread = spawn_participant(transport, Wide, back_off=QUICK, on_clip=on_clip)
    wait_until(lambda: thread.status.models_sent == 1 or thread.status.ended_by is not None)
    thread.stop()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (on_clip == "warn")
    if on_clip == "raise":
        assert isinstance(thread.error, ModelError)
        assert "ended by ModelError" in thread.status.text
        assert transport.sent == 0
    else:
        assert thread.error is None
        assert thread.status.last_clipped_count == 4


def test_threads_say_why_there_is_no_coordinator(caplog):
    transport = Fixed(parameters=TransportError("nobody there"))
    thread = spawn_participant(transport, Wide, back_off=QUICK)
    wait_until(lambda: thread.last_error is not None)
    assert str(thread.last_error) == str(thread.status.last_error) == "nobody there"
    wait_until(lambda: "nobody there" in caplog.text)
    thread.stop()
    assert caplog.text.count("nobody there") == 1


def test_a_thread_waits_as_long_as_it_is_asked_to():
    transport = Accepting()
    asked = threading.Event()

    def be_busy() -> bytes:
        asked.set()
        raise BackPressureError("busy", 100)

    transport.get_parameters = be_busy
    thread = spawn_participant(transport, Wide, back_off=QUICK)
    assert asked.wait(60)
    asked.clear()
    assert not asked.wait(0.3)
    thread.stop()


def test_asyncio_participants_say_that_they_clip_or_why_they_ended(caplog):
    class AsyncAccepting:
        def __init__(self) -> None:
            self.inner = Accepting()

        def __getattr__(self, name: str):
            async def call(*arguments):
                return getattr(self.inner, name)(*arguments)

            return call

    async def take_part(on_clip: str) -> ParticipantStatus:
        participant = AsyncParticipant(AsyncAccepting(), back_off=QUICK, on_clip=on_clip)
        participant.start()
        async with asyncio.timeout(20):
            await anext(participant.global_models())
            with pytest.raises(ModelError):
                participant.set_local_model(None)
            participant.set_local_model(TOO_WIDE)
            while participant.status.models_sent == 0 and participant.status.ended_by is None:
                await asyncio.sleep(0.005)
        status = participant.status
        if status.ended_by is not None:
            with pytest.raises(ModelError):
                await participant.stop()
        else:
            await participant.stop()
        return status

    assert asyncio.run(take_part("warn")).last_clipped_count == 4
    assert caplog.text.count("4 of 4 weights were clipped") == 1
    caplog.clear()
    assert asyncio.run(take_part("count")).last_clipped_count == 4
    assert not caplog.records
    assert isinstance(asyncio.run(take_part("raise")).ended_by, ModelError)


def run_fleet(world: World, fleet: DummyFleet, rounds: int) -> FleetProgress:
    return fleet.run(rounds, lambda _: world.pass_phase())


def test_a_fleet_warns_of_clipping_once_a_round(caplog):
    world = World(quick_settings())
    progress = run_fleet(world, DummyFleet(world.transport, 10, weight=8.0, period_seconds=0), 2)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "4 of 4 weights were clipped" in lines[0]
    assert 2 <= len(lines) <= progress.rounds_finished + progress.rounds_given_up + 1
    assert progress.warning_count == len(lines)
    assert progress.last_warning == lines[-1]


def test_a_fleet_may_count_or_refuse_what_is_clipped():
    world = World(quick_settings())
    fleet = DummyFleet(world.transport, 10, weight=8.0, period_seconds=0, on_clip="count")
    assert run_fleet(world, fleet, 1).warning_count == 0
    world = World(quick_settings())
    fleet = DummyFleet(world.transport, 10, weight=8.0, period_seconds=0, on_clip="raise")
    with pytest.raises(ModelError, match=f"within the bound of {F32}"):
        run_fleet(world, fleet, 1)
    fleet = DummyFleet(World(quick_settings()).transport, 10, scalar=2)
    with pytest.raises(ModelError, match="scalar: expected at most 1"):
        fleet.run(1)


def test_a_fleet_reports_a_refusal_once(caplog):
    transport = Accepting("sum")
    transport.answer = TransportRefusedError("got 403", 403)
    fleet = DummyFleet(transport, 3, period_seconds=0)
    seen: list[FleetProgress] = []

    def go_on(progress: FleetProgress) -> None:
        seen.append(progress)
        transport.new_round(len(seen), "sum")
        if len(seen) == 4:
            fleet.stop()

    fleet.run(None, go_on)
    assert transport.sent == 12
    assert seen[-1].warning_count == 1
    assert seen[-1].last_warning == "task abandoned: got 403"
    assert seen[-1].last_error is None
    assert caplog.text.count("task abandoned") == 1


def test_a_fleet_refuses_models_longer_than_allowed():
    world = World(quick_settings(length=4))
    fleet = DummyFleet(world.transport, 2, max_model_length=3, period_seconds=0)
    seen: list[FleetProgress] = []
    fleet.run(None, lambda progress: (seen.append(progress), fleet.stop()))
    assert "max_model_length" in seen[0].last_error


FOREIGN = [CertificateError("not trusted"), TransportRefusedError("got 404", 404), TransportConfigError("not http"), b"<html>"]


@pytest.mark.parametrize("answer", FOREIGN, ids=["certificate", "404", "another protocol", "another answer"])
def test_an_error_that_does_not_go_away_ends_participants_unless_they_wait(answer):
    transport = Fixed(parameters=answer)
    thread = spawn_participant(transport, Wide, back_off=QUICK)
    thread.join(60)
    assert not thread.is_alive()
    assert thread.error is not None
    assert thread.error is thread.last_error
    assert str(thread.error) in thread.status.text
    thread.stop()

    async def take_part(back_off: BackOff) -> ParticipantStatus:
        participant = AsyncParticipant(Blocking.adapt(transport), back_off=back_off)
        participant.start()
        async with asyncio.timeout(60):
            while participant.status.ended_by is None and participant.last_error is None:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        status = participant.status
        with contextlib.suppress(PetError):
            await participant.stop()
        return status

    assert str(asyncio.run(take_part(QUICK)).ended_by) == str(thread.error)
    patient = replace(QUICK, waits_for_repair=True)
    assert asyncio.run(take_part(patient)).ended_by is None
    thread = spawn_participant(transport, Wide, back_off=patient)
    wait_until(lambda: thread.last_error is not None)
    transport.parameters = round_parameters("none").to_bytes()
    wait_until(lambda: thread.status.is_connected)
    thread.stop()
    assert thread.error is None


def test_a_participant_that_was_connected_waits_a_minute_before_such_an_error_ends_it(make):
    transport = Fixed()
    participant = make(transport)
    participant.tick()
    transport.parameters = TransportRefusedError("got 404", 404)
    participant.tick()
    participant.raise_permanent_error()
    contact = participant.inner._contact if isinstance(participant, Blocking) else participant._contact
    contact._began_seconds -= 61
    with pytest.raises(TransportRefusedError, match="got 404"):
        participant.raise_permanent_error()
    transport.parameters = round_parameters("none", length=2**32 - 1).to_bytes()
    participant.tick()
    participant.raise_permanent_error()  # a coordinator may announce another length in the next round


def test_a_message_in_many_chunks_asks_for_the_parameters_once_a_second(make):
    transport = Accepting()
    transport.parameters = round_parameters("update", length=3000).to_bytes()
    participant = make(transport, max_message_size=300)
    participant.tick()
    participant.tick()
    participant.set_model(weights(1, length=3000))
    asked = []
    clock = SetClock()
    core = participant.inner if isinstance(participant, Blocking) else participant
    core._clock = clock
    get_parameters = transport.get_parameters

    def note() -> bytes:
        asked.append(clock.now_seconds)
        return get_parameters()

    transport.get_parameters = note
    while participant.status.models_sent == 0:
        participant.tick()
        clock.now_seconds += 0.03125
    assert transport.sent > 100
    sending = asked[2:-1]  # the last one is asked when all is sent: whether it came in time
    assert len(sending) < transport.sent / 30
    assert min(later - earlier for earlier, later in pairwise(sending)) >= 1
