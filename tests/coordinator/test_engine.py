"""The engine with a clock of ours: what it publishes when, and that nobody has to wait for anybody."""

import itertools
import logging
import threading
import time

import numpy as np
import pytest
from sealed_rounds import WEIGHTS, SealedRound

from pet.bodies.body import MemoryBody
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.event_log import EventLog
from pet.coordinator.model_store import MemoryModelStore
from pet.coordinator.storage.memory import MemoryStorage
from pet.errors import StorageError
from pet.mask_config import MaskConfig
from pet.messages import decode_seed_dictionary, decode_sum_dictionary
from pet.protocol.events import ModelPublished, PhaseEntered
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports.base import Endpoint

CONFIG = MaskConfig.parse("prime-f32-b0-m3")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def make_engine(clock, **arguments):
    window = PhaseWindow(min_count=1, max_count=10, min_seconds=1, max_seconds=60)
    settings = RoundSettings.of(
        CONFIG,
        len(WEIGHTS),
        sum=window,
        sum2=window,
        update=PhaseWindow(min_count=3, max_count=10, min_seconds=1, max_seconds=60),
    )
    numbers = itertools.count(1)
    return CoordinatorEngine(settings, clock=clock, entropy=lambda size: next(numbers).to_bytes(size, "big"), **arguments)


def pass_time(engine, clock, seconds=1.0):
    clock.now += seconds
    engine.tick()


def run_round(engine, clock, sums=2, updates=3):
    """Run a whole round and return it; the engine is in the next one afterwards."""
    round_ = SealedRound(engine.parameters())
    sum_keys, update_keys = round_.keys("sum", sums), round_.keys("update", updates)
    for key in sum_keys:
        engine.handle_message(round_.sum(key))
    pass_time(engine, clock)
    sum_dictionary = decode_sum_dictionary(engine.sums())
    for index, key in enumerate(update_keys):
        engine.handle_message(round_.update(key, sum_dictionary, WEIGHTS * (index / 4)))
    pass_time(engine, clock)
    for key in sum_keys:
        seeds = decode_seed_dictionary(engine.seeds(key.public_key))
        engine.handle_message(round_.sum2(key, list(seeds.values())))
    pass_time(engine, clock)
    return round_


def test_a_round(clock):
    engine = make_engine(clock)
    assert isinstance(engine, Endpoint)
    assert (engine.parameters(), engine.sums(), engine.seeds(bytes(32)), engine.model()) == (None,) * 4
    assert engine.status()["phase"] == "idle"
    assert engine.seconds_until_tick() <= 0
    engine.tick()
    assert engine.seconds_until_tick() == 60
    round_ = run_round(engine, clock)
    model = engine.model()
    assert (model.round_id, model.length) == (1, len(WEIGHTS))
    np.testing.assert_allclose(model.to_array(), WEIGHTS * 0.25, atol=1e-8)
    assert b"".join(model.bincode_chunks())[:8] == len(WEIGHTS).to_bytes(8, "little")
    assert model.etag == f"1-{round_.parameters.seed.hex()[:16]}"
    status = engine.status()
    assert status.pop("waiting")["text"] == "waiting for 1 sum message of 1, for 0 s; none has come yet"
    assert status == {
        "round": 2,
        "phase": "sum",
        "accepted": 0,
        "rejected": {},
        "discarded": 0,
        "seconds_left": 60.0,
        "rounds_completed": 1,
        "rounds_failed": 0,
        "rounds_reopened": 0,
    }
    assert (engine.sums(), engine.seeds(round_.keys("sum", 1)[0].public_key)) == (None, None)
    assert engine.parameters() != round_.parameters.to_bytes()


def test_dictionaries_are_for_members_and_phases(clock):
    engine = make_engine(clock)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    (key,) = round_.keys("sum", 1)
    engine.handle_message(round_.sum(key))
    assert engine.sums() is None
    pass_time(engine, clock)
    assert decode_sum_dictionary(engine.sums()).keys() == {key.public_key}
    assert engine.seeds(key.public_key) is None
    for update_key in round_.keys("update", 3):
        engine.handle_message(round_.update(update_key, decode_sum_dictionary(engine.sums())))
    pass_time(engine, clock)
    assert len(decode_seed_dictionary(engine.seeds(key.public_key))) == 3
    assert engine.seeds(key.public_key) is engine.seeds(key.public_key)
    assert engine.seeds(bytes(32)) is None


def test_bad_messages_are_counted_and_nothing_else(clock):
    engine = make_engine(clock)
    engine.handle_message(bytearray(300))
    assert engine.status()["rejected"] == {"unexpected_message": 1}
    engine.tick()
    round_ = SealedRound(engine.parameters())
    (key,) = round_.keys("sum", 1)
    engine.handle_message(bytearray())
    engine.handle_message(bytearray(300))
    engine.handle_message(round_.update(*round_.keys("update", 1), {}))
    body = round_.sum(key)
    engine.handle_message(bytearray(body))
    engine.handle_message(bytearray(body))
    status = engine.status()
    assert status["accepted"] == 1
    assert status["rejected"] == {"decryption": 2, "unexpected_message": 1, "already_registered": 1}


def test_time_left_is_that_of_the_moment(clock):
    engine = make_engine(clock)
    engine.tick()
    clock.now += 7
    assert engine.status()["seconds_left"] == 53.0
    clock.now += 70
    assert engine.status()["seconds_left"] == 0.0


def test_room_for_the_largest_message(clock):
    engine = make_engine(clock)
    engine.tick()
    smallest = engine.max_body_bytes()
    round_ = SealedRound(engine.parameters())
    for key in round_.keys("sum", 10):
        engine.handle_message(round_.sum(key))
    pass_time(engine, clock)
    assert engine.max_body_bytes() == smallest + 10 * 112
    body = round_.update(*round_.keys("update", 1), decode_sum_dictionary(engine.sums()))
    assert len(body) + 8 + 184 < engine.max_body_bytes() < len(body) + 5000


def test_phases_are_announced_before_their_dictionary(clock):
    engine = make_engine(clock)
    seen = []

    def look(event):
        if isinstance(event, PhaseEntered):
            seen.append((event.phase, engine.sums() is not None, engine.status()["phase"]))

    engine.subscribe(look)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    engine.handle_message(round_.sum(*round_.keys("sum", 1)))
    pass_time(engine, clock)
    assert (Phase.UPDATE, False, "update") in seen
    assert engine.sums() is not None


def test_a_failing_subscriber_stops_nothing(clock, caplog):
    engine = make_engine(clock)
    events = []

    def fail(event):
        raise RuntimeError("observer")

    engine.subscribe(fail)
    engine.subscribe(events.append)
    engine.tick()
    run_round(engine, clock)
    assert any(isinstance(event, ModelPublished) for event in events)
    assert "a subscriber failed at PhaseEntered" in caplog.text


def test_storage_carries_the_round_and_the_model_over(clock):
    storage, model_store = MemoryStorage(), MemoryModelStore()
    engine = make_engine(clock, storage=storage, model_store=model_store)
    assert not engine.was_restored
    engine.tick()
    run_round(engine, clock)
    engine.shut_down()
    following = make_engine(clock, storage=storage, model_store=model_store)
    assert following.was_restored
    assert following.model().round_id == 1
    following.tick()
    assert following.parameters() == engine.parameters()
    assert following.status()["round"] == 2


class FailingStorage(MemoryStorage):
    """A storage that can be made to refuse."""

    def __init__(self):
        super().__init__()
        self.is_down = False
        self.commits = 0

    def commit(self, transaction):
        if self.is_down:
            raise StorageError("no space left")
        super().commit(transaction)
        self.commits += 1


class FailingModelStore(MemoryModelStore):
    is_down = False

    def save(self, model):
        if self.is_down:
            raise StorageError("no bucket")
        return super().save(model)


def test_what_the_storage_refuses_is_published_later(clock, caplog):
    storage = FailingStorage()
    engine = make_engine(clock, storage=storage)
    engine.tick()
    parameters = engine.parameters()
    storage.is_down = True
    with pytest.raises(StorageError, match="no space"):
        pass_time(engine, clock, 61)  # the round fails, the next one begins
    assert engine.parameters() == parameters
    assert engine.status()["round"] == 1
    assert engine.seconds_until_tick() == 0
    engine.handle_message(bytearray(300))  # raises nothing, as it is refused whatever happens to the rest
    assert "cannot be stored yet" in caplog.text
    storage.is_down = False
    engine.tick()
    assert engine.parameters() != parameters
    assert engine.seconds_until_tick() > 0
    run_round(engine, clock)
    assert engine.model().round_id == 2


def test_a_message_that_cannot_be_stored_is_not_acknowledged(clock):
    storage = FailingStorage()
    engine = make_engine(clock, storage=storage)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    first, second = round_.keys("sum", 2)
    storage.is_down = True
    with pytest.raises(StorageError, match="does not take it now"):
        engine.handle_message(round_.sum(first))
    with pytest.raises(StorageError):
        engine.handle_message(round_.sum(second))
    assert engine.status()["accepted"] == 0
    storage.is_down = False
    engine.handle_message(round_.sum(first))  # as its sender does; it was not lost meanwhile
    assert (engine.status()["accepted"], engine.status()["rejected"]) == (1, {"already_registered": 1})
    engine.handle_message(round_.sum(second))
    assert engine.status()["accepted"] == 2


def test_a_model_that_cannot_be_stored_is_published_later(clock):
    model_store = FailingModelStore()
    engine = make_engine(clock, storage=MemoryStorage(), model_store=model_store)
    engine.tick()
    model_store.is_down = True
    with pytest.raises(StorageError, match="no bucket"):
        run_round(engine, clock)
    assert (engine.model(), engine.status()["phase"]) == (None, "sum2")
    model_store.is_down = False
    engine.tick()
    assert (engine.model().round_id, engine.status()["rounds_completed"]) == (1, 1)


def test_refused_messages_write_nothing(clock):
    storage = FailingStorage()
    engine = make_engine(clock, storage=storage)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    (key,) = round_.keys("sum", 1)
    engine.handle_message(round_.sum(key))
    commits = storage.commits
    engine.handle_message(round_.sum(key))
    engine.handle_message(bytearray(300))
    assert storage.commits == commits
    clock.now += 1
    engine.tick()
    assert storage.commits == commits + 1


def test_messages_that_wait_together_are_stored_together(clock):
    class SlowStorage(FailingStorage):
        def commit(self, transaction):
            if transaction.entries:
                may_go_on.wait(60)
            super().commit(transaction)

    may_go_on = threading.Event()
    storage = SlowStorage()
    engine = make_engine(clock, storage=storage)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    threads = [threading.Thread(target=engine.handle_message, args=(round_.sum(key),)) for key in round_.keys("sum", 10)]
    for thread in threads:
        thread.start()
    while len(engine._queue) < 9:
        time.sleep(0.001)
    commits = storage.commits
    may_go_on.set()
    for thread in threads:
        thread.join(60)
    assert engine.status()["accepted"] == 10
    assert storage.commits == commits + 2


def test_a_batch_is_stored_in_one_commit_whatever_is_in_it(clock):
    storage = FailingStorage()
    engine = make_engine(clock, storage=storage)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    (not_eligible,) = round_.keys("update", 1)
    bodies = [round_.sum(key) for key in round_.keys("sum", 4)] + [bytearray(300), round_.sum(not_eligible)]
    commits = storage.commits
    assert engine.handle_messages([MemoryBody(body) for body in bodies]) == [None] * 6
    assert storage.commits == commits + 1
    assert engine.status()["accepted"] == 4
    assert engine.status()["rejected"] == {"decryption": 1, "not_sum_eligible": 1}
    storage.is_down = True
    again = [MemoryBody(round_.sum(key)) for key in round_.keys("sum", 6)[4:]] + [MemoryBody(bytearray(300))]
    assert [error is None for error in engine.handle_messages(again)] == [False, False, True]
    assert engine.status()["accepted"] == 4


def test_a_message_that_waits_while_its_round_ends_is_checked_against_the_next_one(clock):
    engine = make_engine(clock)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    (key,) = round_.keys("sum", 1)
    with engine._lock:
        thread = threading.Thread(target=engine.handle_message, args=(round_.sum(key),))
        thread.start()
        while not engine._queue:
            time.sleep(0.001)
        clock.now += 61  # nobody joined: the message finds the next round
        engine._rounds.advance_time(clock.now)
    thread.join(30)
    assert engine.status()["round"] == 2
    assert engine.status()["rejected"] == {"wrong_coordinator_key": 1}


def test_a_completed_round_is_counted_when_its_model_is_there(clock):
    seen = []

    class WatchedModelStore(MemoryModelStore):
        def save(self, model):
            seen.append((engine.status()["rounds_completed"], engine.model()))
            return super().save(model)

    engine = make_engine(clock, model_store=WatchedModelStore())
    engine.tick()
    run_round(engine, clock)
    assert seen == [(0, None)]
    assert engine.status()["rounds_completed"] == 1


def test_a_message_that_memory_does_not_suffice_for_is_counted(clock, monkeypatch, caplog):
    engine = make_engine(clock)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    (key,) = round_.keys("sum", 1)

    def run_out_of_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("pet.protocol.xaynet.take_payload", run_out_of_memory)
        engine.handle_message(round_.sum(key))
    assert engine.status()["rejected"] == {"internal_error": 1}
    assert "a message could not be handled" in caplog.text
    engine.handle_message(round_.sum(key))
    assert engine.status()["accepted"] == 1


def test_unmasking_that_runs_out_of_memory_is_tried_again(clock, monkeypatch):
    engine = make_engine(clock)
    engine.tick()

    def run_out_of_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("pet.aggregation.Aggregation.unmask", run_out_of_memory)
        with pytest.raises(MemoryError):
            run_round(engine, clock)
        engine.handle_message(bytearray(300))
        assert engine.status()["phase"] == "unmask"
        assert engine.seconds_until_tick() <= 0
    engine.tick()
    assert engine.model().round_id == 1


def test_after_shutdown_messages_are_refused(clock):
    engine = make_engine(clock)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    engine.shut_down()
    assert engine.seconds_until_tick() is None
    engine.handle_message(round_.sum(*round_.keys("sum", 1)))
    assert engine.status()["phase"] == "shutdown"
    assert engine.status()["rejected"] == {"unexpected_message": 1}


def test_many_threads(clock):
    engine = make_engine(clock)
    engine.tick()
    round_ = SealedRound(engine.parameters())
    bodies = [round_.sum(key) for key in round_.keys("sum", 10)] + [bytearray(400) for _ in range(10)]
    threads = [threading.Thread(target=engine.handle_message, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    status = engine.status()
    assert (status["accepted"], status["rejected"]) == (10, {"decryption": 10})


def test_log_lines_say_round_phase_reason_and_counts(clock, caplog):
    caplog.set_level(logging.DEBUG, "pet.coordinator")
    engine = make_engine(clock)
    engine.subscribe(EventLog())
    engine.tick()
    engine.handle_message(bytearray(300))
    engine.handle_message(bytearray(300))
    run_round(engine, clock, sums=1)
    round_ = SealedRound(engine.parameters())
    for key in round_.keys("sum", 11):
        engine.handle_message(round_.sum(key))
    for _ in range(3):
        pass_time(engine, clock, 70)
    lines = [record.getMessage() for record in caplog.records if record.name == "pet.coordinator"]
    assert "phase entered round_id=1 phase=sum" in lines
    refused = [record for record in caplog.records if record.getMessage().startswith("message refused round_id")]
    assert [record.levelname for record in refused] == ["WARNING", "DEBUG"]
    assert (refused[0].round_id, refused[0].phase, refused[0].reason) == (1, "sum", "decryption")
    assert "phase ended round_id=1 phase=sum accepted=1 discarded=0 rejected={'decryption': 2}" in lines
    assert "phase ended round_id=2 phase=sum accepted=10 discarded=1 rejected={}" in lines
    assert "model published round_id=1 length=4 models=3" in lines
    assert any(line.startswith("round failed round_id=2 reason=timeout description=") for line in lines)
    assert "round reopened round_id=3 description=phase sum: expected 1 messages within 60 seconds, nobody joined" in lines
