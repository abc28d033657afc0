"""The engine of the test driver."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from participant_driver import F32, I64, LiveCoordinator, LiveTransport, live_settings, round_parameters, wait_until

from pet.errors import CertificateError, ConfigError, ModelError, TransportError, TransportRefusedError
from pet.model_formats import NPY, encode_npy
from pet.participant.fleet_progress import FleetProgress
from pet.participant.test_drive import DummyFleet


@pytest.mark.parametrize(("config", "weight"), [(F32, 0.5), (I64, -7)])
def test_a_fleet_finishes_rounds(config, weight):
    seen: list[FleetProgress] = []
    with LiveCoordinator(live_settings(config)) as coordinator:
        fleet = DummyFleet(LiveTransport(coordinator), 8, weight=weight, period_seconds=0.02, max_message_size=300)
        progress = fleet.run(2, seen.append)
        model = coordinator.engine.model().to_array()
    assert progress.rounds_finished == 2
    assert progress.sum_tasks >= 2
    assert progress.update_tasks >= 6
    assert progress.messages_delivered >= 2 * (1 + 3 + 1)
    assert progress.last_error is None
    assert seen[-1] == progress
    assert [progress.sweeps for progress in seen] == list(range(1, len(seen) + 1))
    assert np.allclose(model, weight, atol=1e-6)


def test_a_fleet_outlives_a_restart_of_the_coordinator():
    errors: list[str | None] = []
    with LiveCoordinator() as coordinator:
        fleet = DummyFleet(LiveTransport(coordinator), 8, period_seconds=0.02)
        thread = threading.Thread(target=fleet.run, args=(3, lambda progress: errors.append(progress.last_error)))
        thread.start()
        wait_until(lambda: fleet._progress.rounds_finished >= 1)
        coordinator.is_away = True
        wait_until(lambda: errors[-1] == "the coordinator is away")
        coordinator.restart()
        coordinator.is_away = False
        thread.join(60)
        assert not thread.is_alive()
    assert errors[-1] is None
    assert fleet._progress.rounds_given_up >= 1


def test_a_fleet_runs_until_it_is_stopped():
    with LiveCoordinator() as coordinator:
        fleet = DummyFleet(LiveTransport(coordinator), 3, period_seconds=100)
        thread = threading.Thread(target=fleet.run)
        thread.start()
        wait_until(lambda: fleet._progress.sweeps == 1)
        fleet.stop()
        thread.join(60)
        assert not thread.is_alive()
        assert fleet.run().sweeps == 1


def test_a_length_that_the_coordinator_does_not_announce_is_an_error():
    with LiveCoordinator(live_settings(sum_probability=0.01)) as coordinator:
        fleet = DummyFleet(LiveTransport(coordinator), 8, model_length=5, period_seconds=0.02)
        with pytest.raises(ModelError, match="model length: expected 5 as asked for, got 4"):
            fleet.run()
        DummyFleet(LiveTransport(coordinator), 1, model_length=4)


def test_many_participants_share_few_threads():
    with LiveCoordinator(live_settings(sum_probability=0.01)) as coordinator:
        fleet = DummyFleet(LiveTransport(coordinator), 300, period_seconds=0.02)
        before = threading.active_count()  # other tests may have left threads that end later
        counts: list[int] = []
        fleet.run(1, lambda _: counts.append(threading.active_count()))
    assert max(counts) - before < 30


def test_a_round_without_a_global_model_is_given_up():
    with LiveCoordinator() as coordinator:
        transport = LiveTransport(coordinator)
        transport.get_model = lambda max_bytes=None: None
        fleet = DummyFleet(transport, 8, period_seconds=0.02)
        thread = threading.Thread(target=fleet.run)
        thread.start()
        wait_until(lambda: fleet._progress.rounds_given_up >= 1)
        fleet.stop()
        thread.join(60)
    assert fleet._progress.rounds_finished == 0


def test_a_coordinator_that_shows_a_new_round_at_each_look_does_not_hold_the_fleet_for_ever():
    class Fickle:
        looks = 0

        def get_parameters(self) -> bytes:
            self.looks += 1
            return replace(round_parameters("none"), seed=self.looks.to_bytes(32, "big")).to_bytes()

        def get_model(self, max_bytes=None):
            raise TransportError("away")

    transport = Fickle()
    fleet = DummyFleet(transport, 1, period_seconds=0)
    progress: list[FleetProgress] = []

    def stop_after_two(latest: FleetProgress) -> None:
        progress.append(latest)
        if len(progress) == 2:
            fleet.stop()

    fleet.run(None, stop_after_two)
    assert transport.looks == 2000
    assert progress[-1].rounds_given_up == 1999


def test_a_global_model_that_cannot_be_fetched_makes_no_finished_round():
    with LiveCoordinator() as coordinator:
        transport = LiveTransport(coordinator)

        def fail(max_bytes=None):
            raise TransportError("away")

        transport.get_model = fail
        fleet = DummyFleet(transport, 8, period_seconds=0.02)
        fleet.run(None, lambda progress: fleet.stop() if progress.rounds_given_up else None)
    assert fleet._progress.rounds_finished == 0


def test_stopping_ends_a_turn_between_two_ticks():
    with LiveCoordinator() as coordinator:
        transport = LiveTransport(coordinator)
        fleet = DummyFleet(transport, 1, period_seconds=0)

        def stop_first() -> bytes:
            fleet.stop()
            return round_parameters("none").to_bytes()

        transport.get_parameters = stop_first
        fleet.run()
    assert fleet._participants[0].task.value == "none"
    assert fleet._participants[0].new_global_model


@pytest.mark.parametrize(
    ("count", "period", "message"),
    [(0, 1.0, "participant count: expected 1 or more, got 0"), (1, -1.0, "period: expected 0"), (1, float("nan"), "period")],
)
def test_impossible_fleets_are_refused(count, period, message):
    with pytest.raises(ConfigError, match=message):
        DummyFleet(LiveTransport(None), count, period_seconds=period)
    with pytest.raises(ConfigError, match="threads: expected 1 or more, got 0"):
        DummyFleet(LiveTransport(None), 1, threads=0)


def test_a_model_that_was_there_before_finishes_no_round():
    class Stale(LiveTransport):
        def get_model(self, max_bytes=None):
            return NPY, encode_npy(np.zeros(4, np.float32))

    with LiveCoordinator() as coordinator:
        fleet = DummyFleet(Stale(coordinator), 8, period_seconds=0.02)
        progress = fleet.run(None, lambda progress: fleet.stop() if progress.rounds_given_up >= 2 else None)
        assert coordinator.engine.status()["rounds_completed"] >= 1
    assert progress.rounds_finished == 0


@pytest.mark.parametrize("error", [CertificateError("not trusted"), TransportRefusedError("got 404", 404)])
def test_an_error_that_does_not_go_away_ends_the_fleet_unless_it_waits(error):
    class Wrong(LiveTransport):
        def get_parameters(self):
            raise error

    with pytest.raises(type(error), match=str(error)):
        DummyFleet(Wrong(None), 2, period_seconds=0).run()
    fleet = DummyFleet(Wrong(None), 2, period_seconds=0, waits_for_repair=True)
    progress = fleet.run(None, lambda progress: fleet.stop() if progress.sweeps == 3 else None)
    assert progress.last_error == str(error)
