"""Rounds over a real nats-server: the same bits as over HTTP, dummies that find their way, and large dictionaries."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from asgi_server import serving
from nats_broker import FEDERATION, running_broker, serving_nats
from participant_driver import SetClock, counting_entropy, live_settings, quick_settings, signing_key, weights

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.errors import (
    AnswerTooLargeError,
    CounterpartOfflineError,
    MessageTooLargeError,
    TransportError,
    TransportRefusedError,
)
from pet.model_formats import decode_npy
from pet.participant.test_drive import DummyFleet
from pet.participant.ticks import TickParticipant
from pet.protocol.windows import PhaseWindow
from pet.transports import asgi
from pet.transports.http import HttpTransport
from pet.transports.nats import NatsSettings, NatsTransport
from pet.transports.nats.frames import Verdict
from pet.transports.nats.sender import require_accepted
from pet.transports.status import StatusTransport

LENGTH = 50_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


def settings_for(broker, **options):
    return NatsSettings(hosts=(broker.url,), request_timeout_seconds=5, **options)


def eventually(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return result


def play_round(transport, engine, clock):
    """Play one round whose every random byte is known; returns the global model as bytes."""
    play_to_sum2(transport, engine, clock)
    media_type, data = eventually(transport.get_model)
    eventually(lambda: transport.get_parameters() == engine.parameters())
    assert media_type == "application/x-npy"
    return data


def play_to_sum2(transport, engine, clock):
    """Play one round up to the end of its last phase."""

    def pass_phase():
        clock.now_seconds += 1.5
        engine.tick()

    def accepted(count):
        return lambda: engine.status()["accepted"] == count

    participants = [
        TickParticipant(
            transport, signing_key=signing_key(number), entropy=counting_entropy(number * 10_000), scalar=number / 8
        )
        for number in range(1, 9)
    ]
    eventually(lambda: transport.get_parameters() == engine.parameters())
    for participant in participants:
        participant.tick()
        participant.tick()
        if participant.should_set_model:
            participant.set_model(weights(participant.public_key[0], participant.local_model_config.length))
    sum_participants = [participant for participant in participants if participant.task.value == "sum"]
    updaters = [participant for participant in participants if participant.task.value == "update"]
    assert sum_participants
    assert len(updaters) >= 3
    tick_until(sum_participants, accepted(len(sum_participants)))
    pass_phase()
    eventually(lambda: transport.get_sums() == engine.sums() is not None)
    for participant in updaters:
        if participant.should_set_model:
            participant.set_model(weights(participant.public_key[0], participant.local_model_config.length))
    tick_until(updaters, accepted(len(updaters)))
    pass_phase()
    eventually(lambda: engine.status()["phase"] == "sum2")
    tick_until(sum_participants, accepted(len(sum_participants)))
    pass_phase()


def tick_until(participants, condition):
    def tick():
        for participant in participants:
            participant.tick()
            assert participant.last_error is None, participant.last_error
        return condition()

    eventually(tick)


def make_service(length=LENGTH):
    clock = SetClock()
    engine = CoordinatorEngine(quick_settings(length=length), clock=clock, entropy=counting_entropy(77))
    return CoordinatorService(engine), engine, clock


@pytest.mark.parametrize("mode", ["direct", "stream"])
def test_a_round_gives_the_same_bits_over_nats_and_over_http(broker, mode):
    service, engine, clock = make_service()
    http_service, http_engine, http_clock = make_service()
    with serving(asgi.create_app(http_service)) as url:
        http = HttpTransport(url)
        expected = play_round(http, http_engine, http_clock)
        http.close()
    settings = settings_for(broker, mode=mode, chunk_bytes=2**16)
    with serving_nats(service, settings):
        transport = NatsTransport(settings, FEDERATION)
        try:
            model = play_round(transport, engine, clock)
        finally:
            transport.close()
    assert bytes(model) == bytes(expected)
    assert np.any(decode_npy(model))


def test_a_model_that_goes_another_way_is_not_published(broker):
    clock = SetClock()
    engine = CoordinatorEngine(quick_settings(), clock=clock, entropy=counting_entropy(77))
    transport = NatsTransport(settings_for(broker), "quietmodels00000")
    try:
        with serving_nats(CoordinatorService(engine), settings_for(broker), "quietmodels00000", publishes_model=False):
            play_to_sum2(transport, engine, clock)
            eventually(lambda: engine.model() is not None and transport.get_parameters() == engine.parameters())
            assert transport.get_model() is None
    finally:
        transport.close()


def test_dummies_play_rounds(broker):
    service = CoordinatorService(CoordinatorEngine(live_settings(sum_probability=0.4)))
    transport = NatsTransport(settings_for(broker), "dummies000000000")
    try:
        with pytest.raises(TransportError, match="round parameters"):
            transport.get_parameters()
        with serving_nats(service, settings_for(broker), "dummies000000000"):
            progress = DummyFleet(transport, 6, weight=0.25, period_seconds=0.02, max_message_size=300).run(2)
            assert progress.rounds_finished == 2
            _, model = transport.get_model()
            assert np.allclose(decode_npy(model), 0.25, atol=1e-6)
            with pytest.raises(AnswerTooLargeError):
                transport.get_model(10)
            with pytest.raises(TransportError, match="too_large"):
                transport.send_message(bytes(10_000))
    finally:
        transport.close()
    transport.close()
    with pytest.raises(TransportError, match="closed"):
        transport.get_sums()


@pytest.mark.parametrize("storage", ["file", pytest.param("memory", marks=pytest.mark.long)])
def test_rounds_go_on_after_the_broker_was_killed(tmp_path, storage):
    """Killed in the middle of a round, twice; listeners and senders find it again, and with memory its streams are new."""
    with running_broker(tmp_path) as broker:
        settings = settings_for(broker, storage=storage)
        service = CoordinatorService(CoordinatorEngine(live_settings(sum_probability=0.4)))
        transport = NatsTransport(settings, FEDERATION)
        fleet = DummyFleet(transport, 8, weight=0.25, period_seconds=0.02)
        progress = []
        try:
            with serving_nats(service, settings):
                thread = threading.Thread(target=lambda: progress.append(fleet.run(3)))
                thread.start()
                for phase in ("update", "sum2"):
                    eventually(lambda phase=phase: service.engine.status()["phase"] == phase)
                    broker.kill()
                    time.sleep(0.1)
                    broker.start()
                    time.sleep(1)
                thread.join(60)
                fleet.stop()
                thread.join()
        finally:
            transport.close()
    assert progress[0].rounds_finished >= 3


def test_the_status_is_that_of_http_and_knows_who_asked_for_seeds_over_nats(broker):
    patient = PhaseWindow(min_count=1, max_count=100, min_seconds=0.1, max_seconds=600)
    service = CoordinatorService(CoordinatorEngine(replace(live_settings(), sum2=patient)))
    settings = settings_for(broker)
    transport = NatsTransport(settings, FEDERATION)
    participants = [TickParticipant(transport) for _ in range(12)]
    try:
        with serving_nats(service, settings):
            assert isinstance(transport, StatusTransport)
            assert transport.get_status().keys() == service.engine.status().keys()
            for participant in itertools.cycle(participants):
                if service.engine.status()["phase"] == "sum2":
                    break
                participant.tick()
                if participant.should_set_model:
                    participant.set_model(weights(participant.local_model_config.length))
            transport.get_seeds(next(iter(service.engine._seeds)))
            waiting = transport.get_status()["waiting"]
            assert waiting["seeds_asked_seconds"] < 60
            assert "were last asked for" in waiting["text"]
    finally:
        transport.close()


def test_an_absent_coordinator_is_told(broker):
    transport = NatsTransport(settings_for(broker), "nobody0000000000", patience_seconds=0.3)
    try:
        with pytest.raises(CounterpartOfflineError):
            transport.get_seeds(bytes(32))
        with pytest.raises(CounterpartOfflineError):
            transport.send_message(b"anything")
    finally:
        transport.close()


def test_a_message_refused_for_its_size_is_not_sent_again(broker):
    service = CoordinatorService(CoordinatorEngine(quick_settings()))
    transport = NatsTransport(settings_for(broker), FEDERATION)
    with serving_nats(service, settings_for(broker)), contextlib.closing(transport):
        started = time.monotonic()
        with pytest.raises(MessageTooLargeError, match="upload: expected it to be taken, got 'too_large'") as raised:
            transport.send_message(bytes(3_000_000))
        assert time.monotonic() - started < 5, "the request timeout: it was tried again"
    assert not raised.value.is_temporary


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("too_large", MessageTooLargeError),
        ("unknown_kind", TransportRefusedError),
        ("wrong_digest", TransportError),
        ("", None),
    ],
)
def test_a_refusal_says_whether_another_attempt_may_help(reason, kind):
    verdict = Verdict(is_accepted=not reason, reason=reason)
    if kind is None:
        require_accepted(verdict)
        return
    with pytest.raises(TransportError, match=reason) as raised:
        require_accepted(verdict)
    assert type(raised.value) is kind
    assert raised.value.is_temporary is (reason == "wrong_digest")
