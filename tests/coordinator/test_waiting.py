"""What a coordinator says it waits for: what is missing, who was last seen, and what strangers cannot make it say."""

import asyncio
import itertools
import logging

import pytest
from sealed_rounds import WEIGHTS, SealedRound

from pet.coordinator import service as service_module
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.event_log import WaitLog
from pet.coordinator.service import CoordinatorService
from pet.coordinator.storage.memory import MemoryStorage
from pet.coordinator.waiting import duration
from pet.mask_config import MaskConfig
from pet.messages import decode_seed_dictionary, decode_sum_dictionary
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow


class Coordinator:
    """An engine with a clock of its own, and the participants of its round."""

    def __init__(self, sums=1, masks=1, min_seconds=0):
        self.now = 100.0
        self._storage = MemoryStorage()
        window = {"max_count": 10, "min_seconds": min_seconds, "max_seconds": 60}
        self._settings = RoundSettings.of(
            MaskConfig.parse("prime-f32-b0-m3"),
            len(WEIGHTS),
            sum_probability=0.25,
            update_probability=0.5,
            sum=PhaseWindow(min_count=sums, **window),
            sum2=PhaseWindow(min_count=masks, **window),
            update=PhaseWindow(min_count=3, max_count=10, min_seconds=0, max_seconds=600),
        )
        self._numbers = itertools.count(1)
        self.start()

    def start(self):
        self.engine = CoordinatorEngine(
            self._settings,
            clock=lambda: self.now,
            entropy=lambda size: next(self._numbers).to_bytes(size, "big"),
            storage=self._storage,
        )
        self.engine.tick()

    def wait(self, seconds):
        self.now += seconds
        self.engine.tick()

    @property
    def waiting(self):
        return self.engine.status()["waiting"]

    def to_update(self, sums=1):
        self.round = SealedRound(self.engine.parameters())
        self.sum_keys = self.round.keys("sum", sums)
        for key in self.sum_keys:
            self.engine.handle_message(self.round.sum(key))
        assert self.engine.status()["phase"] == "update"
        return self

    def to_sum2(self, sums=1):
        self.to_update(sums)
        sum_dictionary = decode_sum_dictionary(self.engine.sums())
        for key in self.round.keys("update", 3):
            self.engine.handle_message(self.round.update(key, sum_dictionary))
        assert self.engine.status()["phase"] == "sum2"
        return self

    def send_mask(self, key):
        self.engine.handle_message(self.mask_of(key))

    def mask_of(self, key):
        return self.round.sum2(key, list(decode_seed_dictionary(self.engine.seeds(key.public_key)).values()))


def test_sum_says_how_many_are_missing_and_that_nobody_came():
    coordinator = Coordinator(sums=2)
    coordinator.wait(40)
    assert coordinator.waiting == {
        "kind": "sum",
        "needed": 2,
        "present": 0,
        "missing": 2,
        "seconds": 40.0,
        "at_time_out": "reopen",
        "last_seen_seconds": None,
        "seeds_asked_seconds": None,
        "text": "waiting for 2 sum messages of 2, for 40 s; none has come yet",
        "advice": "Start more participants: on average 25% of them are drawn for this, so 2 such messages need"
        " about 8 participants. Otherwise the round is opened anew at its time-out, in 20 s, and everybody is drawn again.",
    }
    coordinator.wait(20)
    assert (coordinator.engine.status()["round"], coordinator.engine.status()["rounds_reopened"]) == (2, 1)
    assert coordinator.waiting["seconds"] == 0


def test_sum_with_too_few_says_that_its_time_out_fails_the_round():
    coordinator = Coordinator(sums=2)
    round_ = SealedRound(coordinator.engine.parameters())
    coordinator.engine.handle_message(round_.sum(round_.keys("sum", 1)[0]))
    coordinator.wait(15)
    waiting = coordinator.waiting
    assert (waiting["missing"], waiting["at_time_out"], waiting["last_seen_seconds"]) == (1, "failure", 15.0)
    assert waiting["text"] == "waiting for 1 sum message of 2, for 15 s; the last one came 15 s ago"
    assert "Otherwise the round fails at its time-out, in 45 s" in waiting["advice"]
    coordinator.start()
    assert coordinator.waiting["text"].endswith("; the others came before the coordinator was restarted")


def test_update_says_how_many_participants_it_takes():
    coordinator = Coordinator().to_update()
    coordinator.wait(300)
    waiting = coordinator.waiting
    assert waiting["text"] == "waiting for 3 update messages of 3, for 5 min; none has come yet"
    assert "on average 37.5% of them are drawn for this, so 3 such messages need about 8" in waiting["advice"]
    assert "Otherwise the round fails at its time-out, in 5 min" in waiting["advice"]


def test_sum2_says_when_the_sum_participant_was_last_seen():
    coordinator = Coordinator().to_sum2()
    coordinator.wait(40)
    waiting = coordinator.waiting
    assert waiting["last_seen_seconds"] == 40.0
    assert waiting["text"] == (
        "waiting for 1 sum2 message of 1, for 40 s; the sum participant was last seen 40 s ago; nobody has asked for its seeds"
    )
    assert "the round fails at its time-out, in 20 s" in waiting["advice"]
    assert "--fresh" in waiting["advice"]


def test_after_a_restart_it_says_what_it_knows():
    coordinator = Coordinator().to_sum2()
    coordinator.wait(40)
    coordinator.engine.shut_down()
    coordinator.now += 1e6
    coordinator.start()
    waiting = coordinator.waiting
    assert waiting["last_seen_seconds"] is None
    assert waiting["seconds"] == pytest.approx(40)
    assert "the sum participant was not seen since the coordinator was started" in waiting["text"]
    coordinator.engine.seeds(coordinator.sum_keys[0].public_key)
    coordinator.wait(3)
    assert coordinator.waiting["text"].endswith("its seeds were last asked for 3 s ago")
    coordinator.wait(18)
    assert coordinator.engine.status()["rounds_failed"] == 1, "goes on within the minute of the phase"


def test_whose_mask_came_before_a_restart_is_not_waited_for():
    coordinator = Coordinator(sums=3, masks=2).to_sum2(sums=3)
    coordinator.send_mask(coordinator.sum_keys[0])
    coordinator.start()
    assert "2 sum participants have sent none and were not seen" in coordinator.waiting["text"]


def test_a_stranger_cannot_make_a_sum_participant_seem_to_be_there():
    coordinator = Coordinator(masks=1).to_sum2()
    (key,) = coordinator.sum_keys
    early = bytes(coordinator.round.sum(key))
    coordinator.wait(40)
    # What anybody can send: a request with a key out of GET /sums, keys that nobody has, a copy of a message, and garbage.
    for public_key in (key.public_key, bytes(32)):
        coordinator.engine.seeds(public_key)
    for body in (early, bytes(300)):
        coordinator.engine.handle_message(bytearray(body))
    coordinator.wait(10)
    waiting = coordinator.waiting
    assert (waiting["last_seen_seconds"], waiting["seeds_asked_seconds"]) == (50.0, 10.0)
    assert waiting["text"].endswith("the sum participant was last seen 50 s ago; its seeds were last asked for 10 s ago")
    assert key.public_key.hex() not in str(coordinator.engine.status())


def test_only_those_whose_mask_is_missing_are_spoken_of():
    coordinator = Coordinator(sums=3, masks=2).to_sum2(sums=3)
    first, second, third = coordinator.sum_keys
    coordinator.send_mask(first)
    coordinator.wait(5)
    coordinator.engine.seeds(first.public_key)
    assert coordinator.waiting["seeds_asked_seconds"] is None
    coordinator.engine.seeds(second.public_key)
    assert coordinator.waiting["seeds_asked_seconds"] == 0
    assert coordinator.waiting["text"] == (
        "waiting for 1 sum2 message of 2, for 5 s; 2 sum participants have sent none and were last seen 5 s ago;"
        " their seeds were last asked for 0 s ago"
    )
    coordinator.send_mask(second)
    assert coordinator.engine.status()["rounds_completed"] == 1
    assert third.public_key not in coordinator.engine._sightings._sums, "a new round begins with nothing"


def test_masks_that_can_never_come_are_named():
    coordinator = Coordinator(sums=1, masks=2).to_sum2()
    coordinator.send_mask(coordinator.sum_keys[0])
    waiting = coordinator.waiting
    assert waiting["text"].endswith("every sum participant of this round has sent one")
    assert "fewer sum participants joined than sum2 messages are needed" in waiting["advice"]


def test_a_phase_with_enough_messages_waits_for_its_minimum_time():
    coordinator = Coordinator(min_seconds=5)
    round_ = SealedRound(coordinator.engine.parameters())
    coordinator.engine.handle_message(round_.sum(round_.keys("sum", 1)[0]))
    waiting = coordinator.waiting
    assert (waiting["missing"], waiting["advice"]) == (0, "")
    assert waiting["text"] == "1 sum message is there, enough; the phase goes on until its minimum time is over"


def test_a_phase_that_takes_no_messages_waits_for_nothing():
    coordinator = Coordinator()
    coordinator.engine.shut_down()
    assert coordinator.waiting is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119.4, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h")]
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def log_of(coordinator, caplog, seconds):
    caplog.set_level(logging.INFO, "pet.coordinator")
    log = WaitLog()
    for _ in range(seconds):
        coordinator.wait(1)
        log.look(coordinator.engine.status())
    return [record for record in caplog.records if record.getMessage().startswith("phase waits")]


def test_the_log_says_once_what_a_phase_waits_for(caplog):
    (line,) = log_of(Coordinator().to_sum2(), caplog, 59)
    assert line.levelname == "WARNING"
    assert (line.round_id, line.phase) == (1, "sum2")
    assert line.description.startswith("waiting for 1 sum2 message of 1, for 30 s; the sum participant was last seen 30 s ago")
    assert "Only sum participants of this round can send it" in line.description


def test_an_idle_coordinator_is_logged_once_and_again_after_a_round_that_ended_otherwise(caplog):
    coordinator = Coordinator()
    assert len(log_of(coordinator, caplog, 600)) == 1
    assert coordinator.engine.status()["rounds_reopened"] == 10
    coordinator.to_sum2().send_mask(coordinator.sum_keys[0])
    caplog.clear()
    assert [line.phase for line in log_of(coordinator, caplog, 300)] == ["sum"]


def test_a_phase_with_enough_messages_is_not_logged(caplog):
    coordinator = Coordinator(min_seconds=50)
    round_ = SealedRound(coordinator.engine.parameters())
    coordinator.engine.handle_message(round_.sum(round_.keys("sum", 1)[0]))
    assert log_of(coordinator, caplog, 49) == []


def test_a_running_service_logs_a_long_wait(caplog, monkeypatch):
    monkeypatch.setattr(service_module, "_POLL_SECONDS", 0.05)
    caplog.set_level(logging.INFO, "pet.coordinator")
    coordinator = Coordinator().to_sum2()

    async def run():
        async with CoordinatorService(coordinator.engine, workers=1):
            coordinator.now += 45
            async with asyncio.timeout(20):
                while "phase waits" not in caplog.text:
                    await asyncio.sleep(0.02)

    asyncio.run(run())
    assert "waiting for 1 sum2 message of 1, for 45 s" in caplog.text
