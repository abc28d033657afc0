"""An engine that is stopped anywhere, and another one on the same storage: the same round, with everything acknowledged."""

import itertools
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from asgi_server import serving
from redis_server import redis_server
from sealed_rounds import SealedRound

from pet.bodies.spool import Spool
from pet.coordinator import framing, journal
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.model_store import FolderModelStore, MemoryModelStore
from pet.coordinator.service import CoordinatorService
from pet.coordinator.storage.memory import MemoryStorage
from pet.coordinator.storage.redis import RedisStorage
from pet.coordinator.storage.sqlite import SqliteStorage
from pet.crypto import EncryptionKeyPair
from pet.errors import StateError, StorageError
from pet.mask_config import MaskConfig
from pet.mask_object import MaskSeed
from pet.messages import (
    Sum2Payload,
    decode_seed_dictionary,
    decode_sum_dictionary,
    open_message,
    seal_message,
    split_message,
)
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports import asgi

sys.path.append(str(Path(__file__).parents[1] / "protocol"))
from coordinator_driver import snapshot

LENGTH = 60
CONFIG = MaskConfig.parse("power2-f32-b0-m6")
WINDOW = PhaseWindow(min_count=1, max_count=20, min_seconds=1, max_seconds=60)
SETTINGS = RoundSettings.of(
    CONFIG,
    LENGTH,
    sum=WINDOW,
    sum2=WINDOW,
    update=PhaseWindow(min_count=3, max_count=20, min_seconds=1, max_seconds=60),
)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Killed(BaseException):
    """The process is gone: nothing may catch it."""


class MortalStorage:
    """Ends the process before or after one of the commits."""

    def __init__(self, storage, fatal=None, *, is_after=False):
        self._storage = storage
        self._fatal, self._is_after = fatal, is_after
        self.commits = 0

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def commit(self, transaction):
        self.commits += 1
        if self.commits == self._fatal and not self._is_after:
            raise Killed
        self._storage.commit(transaction)
        if self.commits == self._fatal:
            raise Killed


class Life:
    """A coordinator whose storage outlives it, and the participants of its rounds."""

    def __init__(self, storage, settings=SETTINGS):
        self.storage, self.settings = storage, settings
        self.model_store = MemoryModelStore()
        self.clock = Clock()
        self._numbers = itertools.count(1)
        self.engine = None
        self.start()

    def start(self, storage=None):
        self.clock.now += 1e6  # a long time down, on a clock that knows nothing of the one before
        self.engine = CoordinatorEngine(
            self.settings,
            clock=self.clock,
            entropy=lambda size: next(self._numbers).to_bytes(size, "big"),
            storage=storage or self.storage,
            model_store=self.model_store,
        )
        self.engine.tick()

    @property
    def state(self):
        return self.engine._protocol.state

    def wait(self, seconds=1.0):
        self.clock.now += seconds
        self.engine.tick()

    def round(self):
        return SealedRound(self.engine.parameters())

    def send(self, body):
        self.engine.handle_message(bytearray(body))

    def chunks(self, body, key, message_id=7, size=400):
        keys = self.state.round.keys
        message = open_message(bytearray(body), keys, self.engine._gate.accepted_tag)
        return [seal_message(each, key) for each in split_message(message, size, message_id)]


def comparable(life):
    """The state, with the time that the phase has lasted in place of when it began."""
    seen = snapshot(life.state)
    seen["phase_started_seconds"] = round(life.clock.now - life.state.phase_started_seconds, 6)
    if seen["round"]:
        seen["round"]["aggregation"].pop("_total")
        for payload in seen["round"]["chunks"]["_payloads"].values():
            payload.pop("grown_seconds")  # the patience with it begins anew
        seen["round"]["total"] = b"".join(bytes(part) for part in life.state.round.aggregation.to_parts())
    return seen


def weights_of(index):
    """Each update has a bit of its own in the sum: which were added, and how often, can be read from it."""
    return np.full(LENGTH, 2.0**-index, dtype=np.float32)


def assert_is_mean_of_five(model):
    assert model.model.model_count == 5
    np.testing.assert_allclose(model.to_array(), np.full(LENGTH, sum(2.0**-i for i in range(5)) / 5), atol=1e-6)


def steps(life):
    """Let a round happen step by step; yields after each. Votes: the right mask twice, a wrong one three times at first."""
    round_ = life.round()
    sum_keys, update_keys = round_.keys("sum", 5), round_.keys("update", 6)
    for key in sum_keys:
        life.send(round_.sum(key))
        yield
    life.wait(1.5)
    yield
    sums = decode_sum_dictionary(life.engine.sums())
    for index, key in enumerate(update_keys[:4]):
        life.send(round_.update(key, sums, weights_of(index)))
        yield
    for number, chunk in enumerate(life.chunks(round_.update(update_keys[4], sums, weights_of(4)), update_keys[4])):
        life.send(chunk)
        life.clock.now += 0.01 * number
        yield
    for chunk in life.chunks(round_.update(update_keys[5], sums), update_keys[5])[:2]:  # never completed
        life.send(chunk)
        yield
    life.wait(1.5)
    yield
    wrong = MaskSeed(bytes(32)).derive_mask(round_.parameters.mask_config, LENGTH)
    yield from votes(life, round_, sum_keys, wrong)
    life.wait(1.5)
    yield


def votes(life, round_, sum_keys, wrong):
    for index, key in enumerate(sum_keys):
        if index in (0, 2):
            signature = round_._sign(key, b"sum")
            life.send(round_.seal(key, Sum2Payload(sum_signature=signature, mask=wrong)))
        else:
            seeds = decode_seed_dictionary(life.engine.seeds(key.public_key))
            life.send(round_.sum2(key, list(seeds.values())))
        yield


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def storage(request, tmp_path):
    if request.param == "memory":
        storage = MemoryStorage()
    elif request.param == "sqlite":
        storage = SqliteStorage(tmp_path / "pet-state")
    else:
        storage = RedisStorage(request.getfixturevalue("redis_url"), is_fresh=True)
    yield storage
    storage.close()


@pytest.fixture(params=["folded at once", "kept", "kept sealed"])
def folding(request, monkeypatch):
    """How masked models are kept: added to a stored total, or stored one by one, alone or in the bodies they came in."""
    if request.param == "folded at once":
        monkeypatch.setattr(journal, "FOLD_BYTES", 1)
        monkeypatch.setattr(journal, "FOLD_COUNT", 1)
    elif request.param == "kept sealed":
        monkeypatch.setattr(journal, "SEALED_BYTES", 1)
    return request.param


def test_every_step_of_a_round_survives(storage, folding):
    life = Life(storage)
    phases = set()
    for _ in steps(life):
        phases.add(life.engine.status()["phase"])
        life.clock.now += 0.001
        before = comparable(life)
        published = life.engine.parameters(), life.engine.sums(), life.engine.status()
        sum_keys = list(life.state.round.sum_dictionary)
        seeds = [life.engine.seeds(key) for key in sum_keys]
        model = life.engine.model()
        life.start()
        # What was not stored yet is the time since the last write.
        after = comparable(life)
        assert 0 <= before.pop("phase_started_seconds") - after.pop("phase_started_seconds") < 1.0
        assert after == before
        status = life.engine.status()
        for each in (status, published[2]):
            each["seconds_left"] = round(each["seconds_left"])
            # When participants were last seen is not stored (tests/coordinator/test_waiting.py).
            each["waiting"] = {name: each["waiting"][name] for name in ("kind", "needed", "present", "at_time_out")}
        assert (life.engine.parameters(), life.engine.sums(), status) == published
        assert [life.engine.seeds(key) for key in sum_keys] == seeds
        assert life.engine.model() == model
    assert phases == {"sum", "update", "sum2"}
    assert_is_mean_of_five(life.engine.model())


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_commit_loses_and_doubles_nothing(is_after, folding):
    """Participants repeat what was not acknowledged; a message that was stored and not acknowledged is refused as known."""
    reference = Life(MortalStorage(MemoryStorage()))
    for _ in steps(reference):
        pass
    # Of the two ways that keep models, each commit is tried before it or after it; of the third, both.
    first, step = (2, 1) if folding == "folded at once" else (2 + is_after, 2)
    for fatal in range(first, reference.storage.commits + 1, step):
        storage = MemoryStorage()
        life = Life(MortalStorage(storage, fatal, is_after=is_after))
        run_through_a_crash(life, storage)
        assert_is_mean_of_five(life.engine.model())
        assert life.engine.status()["rounds_completed"] == 1


def place(life):
    return life.engine.status()["round"], life.engine.status()["phase"]


def run_through_a_crash(life, storage):
    """Repeat each step in which the process dies, on a new one."""
    send, wait = life.send, life.wait

    def persist(call):
        def repeat(*arguments):
            where = place(life)
            try:
                call(*arguments)
            except Killed:
                life.start(storage)
                if place(life) == where:
                    call(*arguments)

        return repeat

    life.send, life.wait = persist(send), persist(wait)
    for _ in steps(life):
        pass


def test_the_time_left_is_that_before_the_crash_whatever_time_it_is_now(storage):
    life = Life(storage)
    for _ in range(20):
        life.wait(0.9)
    left = life.engine.status()["seconds_left"]
    assert left == pytest.approx(60 - 18)
    life.start()
    assert 0 <= life.engine.status()["seconds_left"] - left <= 1
    parameters = life.engine.parameters()
    for _ in range(43):
        life.wait(1.0)
    # Nobody had joined: the round was opened anew, and that outlives the next crash too.
    assert life.engine.parameters() != parameters
    for _ in range(2):
        status = life.engine.status()
        assert (status["round"], status["rounds_reopened"], status["rounds_failed"]) == (2, 1, 0)
        life.start()


def test_a_round_that_somebody_joined_before_the_crash_is_not_opened_anew_after_it(storage):
    life = Life(storage)
    round_ = life.round()
    life.send(round_.sum(round_.keys("sum", 1)[0]))
    life.start()
    for _ in range(61):
        life.wait(1.0)
    assert life.engine.status()["rounds_reopened"] == 0


def test_a_clean_stop_is_gone_on_with_to_the_instant(storage):
    life = Life(storage)
    life.clock.now += 0.75
    life.engine.shut_down()
    assert life.engine.status()["phase"] == "shutdown"
    life.start()
    assert life.engine.status()["seconds_left"] == pytest.approx(59.25)
    assert life.engine.status()["phase"] == "sum"


def test_refusals_counted_up_to_the_last_write_survive(storage):
    life = Life(storage)
    for _ in range(3):
        life.send(bytes(300))
    life.wait(1.0)
    life.send(bytes(300))
    life.start()
    assert life.engine.status()["rejected"] == {"decryption": 3}


def test_chunks_that_gave_way_do_not_come_back(storage):
    life = Life(storage, replace(SETTINGS, max_chunked_messages=1, chunk_patience_seconds=1.0))
    round_ = life.round()
    (sum_key,), update_keys = round_.keys("sum", 1), round_.keys("update", 2)
    life.send(round_.sum(sum_key))
    life.wait(1.5)
    sums = decode_sum_dictionary(life.engine.sums())
    for key in update_keys:
        chunks = life.chunks(round_.update(key, sums, weights_of(0)), key)
        life.send(chunks[0])
        life.wait(2.0)
    kept = [public_key for public_key, _ in life.state.round.chunks._payloads]
    assert kept == [update_keys[1].public_key]
    life.start()
    assert [public_key for public_key, _ in life.state.round.chunks._payloads] == kept
    for chunk in chunks[1:]:
        life.send(chunk)
    assert life.state.round.aggregation.count == 1


def test_changed_settings_count_from_the_next_round_on(storage):
    life = Life(storage)
    run = steps(life)
    for _ in range(8):
        next(run)
    other = PhaseWindow(min_count=2, max_count=2, min_seconds=3, max_seconds=9)
    life.settings = RoundSettings.of(CONFIG, 7, sum=other, sum2=other)
    life.start()
    assert life.engine.keeps_earlier_settings
    assert life.engine.max_body_bytes() > LENGTH * 7
    for _ in run:
        pass
    assert life.engine.model().length == LENGTH
    assert not life.engine.keeps_earlier_settings
    assert life.round().parameters.model_length == 7
    assert life.engine.status()["seconds_left"] == 9
    life.start()
    assert life.engine.model().length == LENGTH
    assert life.round().parameters.model_length == 7


def test_the_same_settings_are_no_change(storage):
    life = Life(storage)
    assert not life.engine.was_restored
    life.start()
    assert life.engine.was_restored
    assert not life.engine.keeps_earlier_settings


def test_subscribers_hear_of_a_restored_round(storage):
    life = Life(storage)
    run = steps(life)
    while life.engine.status()["phase"] != "sum2":
        next(run)
    life.engine.shut_down()
    heard = []
    engine = CoordinatorEngine(SETTINGS, clock=life.clock, storage=storage, model_store=life.model_store)
    engine.subscribe(heard.append)
    engine.tick()
    kinds = ["PhaseEntered", "ParametersPublished", "SumDictionaryPublished", "SeedDictionaryPublished"]
    assert [type(event).__name__ for event in heard] == kinds


def test_before_the_first_round_there_is_nothing_to_go_on_with(storage):
    engine = CoordinatorEngine(SETTINGS, clock=Clock(), storage=storage)
    engine.shut_down()
    assert storage.load() is None


def test_a_failed_stop_says_so_and_loses_nothing_acknowledged(caplog):
    class FullStorage(MemoryStorage):
        is_full = False

        def commit(self, transaction):
            if self.is_full:
                raise StorageError("no space left")
            super().commit(transaction)

    storage = FullStorage()
    life = Life(storage)
    round_ = life.round()
    life.send(round_.sum(*round_.keys("sum", 1)))
    storage.is_full = True
    life.engine.shut_down()
    assert "could not be stored: no space left" in caplog.text
    life.start()
    assert life.engine.status()["accepted"] == 1


def test_the_messages_of_a_restored_round_are_those_of_the_keys_before(storage):
    life = Life(storage)
    round_ = life.round()
    body = round_.sum(*round_.keys("sum", 1))
    life.start()
    life.send(body)
    assert life.engine.status()["accepted"] == 1
    assert isinstance(life.state.round.keys, EncryptionKeyPair)


def test_disk_use_does_not_grow_with_the_number_of_updates(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "FOLD_BYTES", 1)
    monkeypatch.setattr("pet.coordinator.storage.sqlite.MAX_ROW_BYTES", 100)
    storage = SqliteStorage(tmp_path)
    life = Life(storage)
    round_ = life.round()
    life.send(round_.sum(*round_.keys("sum", 1)))
    life.wait()
    sums = decode_sum_dictionary(life.engine.sums())
    most = 0
    for key in round_.keys("update", 20):
        life.send(round_.update(key, sums, weights_of(0)))
        most = max(most, len(list((tmp_path / "blobs").iterdir())))
    assert 1 <= most <= journal.FOLD_COUNT + 1
    life.start()
    assert life.state.round.aggregation.count == 20
    storage.close()


def other_round(storage):
    """A round with two votes for different masks and a chunk, written to a storage."""
    life = Life(storage)
    run = steps(life)
    while life.engine.status()["phase"] != "sum2":
        next(run)
    next(run)
    next(run)
    return life


def test_damage_to_anything_stored_is_noticed():
    storage = MemoryStorage()
    other_round(storage)
    pieces = [("state", None), *(("entry", index) for index in range(len(storage._entries)))]
    pieces += [("blob", name) for name in storage._blobs]
    assert len(pieces) > 12
    for kind, place in pieces:
        for damage in (
            lambda data: data[:-1],
            lambda data: data + b"x",
            lambda data: bytes([data[0] ^ 1]) + data[1:],
            lambda _: b"",
        ):
            damaged = MemoryStorage()
            damaged._sequence, damaged._state = storage._sequence, storage._state
            damaged._entries, damaged._blobs = list(storage._entries), dict(storage._blobs)
            if kind == "state":
                damaged._state = damage(damaged._state)
            elif kind == "entry":
                damaged._entries[place] = damage(damaged._entries[place])
            else:
                damaged._blobs[place] = damage(damaged._blobs[place])
            with pytest.raises(StateError, match="--fresh"):
                Life(damaged)


def test_missing_and_foreign_parts_are_noticed():
    storage, foreign = MemoryStorage(), MemoryStorage()
    other_round(storage)
    stranger = Life(
        foreign,
        RoundSettings.of(
            MaskConfig.parse("prime-f64-b2-m3"), 9, sum=WINDOW, sum2=WINDOW, update=SETTINGS.update, sum_probability=0.4
        ),
    )
    round_ = stranger.round()
    stranger.send(round_.sum(*round_.keys("sum", 1)))
    for change in (
        lambda s: s._entries.pop(),
        lambda s: s._entries.pop(0),
        lambda s: s._entries.append(s._entries[-1]),
        lambda s: s._entries.__setitem__(slice(0, 2), s._entries[1::-1]),
        lambda s: s._entries.__setitem__(0, foreign._entries[0]),
        lambda s: s._blobs.pop("update/5"),
        lambda s: s._blobs.__setitem__("update/5", s._blobs["update/6"]),
        lambda s: [s._blobs.pop(name) for name in list(s._blobs) if name.startswith("mask/")],
        lambda s: setattr(s, "_state", foreign._state),
        lambda s: setattr(s, "_state", b"something else"),
    ):
        damaged = MemoryStorage()
        damaged._sequence, damaged._state = storage._sequence, storage._state
        damaged._entries, damaged._blobs = list(storage._entries), dict(storage._blobs)
        change(damaged)
        with pytest.raises(StateError):
            Life(damaged)


def test_a_total_of_another_config_or_count_is_noticed(monkeypatch):
    monkeypatch.setattr(journal, "FOLD_BYTES", 1)
    monkeypatch.setattr(journal, "FOLD_COUNT", 1)
    storage = MemoryStorage()
    life = other_round(storage)
    (name,) = [name for name in storage._blobs if name.startswith("total/")]
    aggregation = life.state.round.aggregation
    other = type(aggregation)(MaskConfig.parse("prime-f64-b2-m3"), LENGTH)
    fewer = type(aggregation)(CONFIG, LENGTH)
    for total in (other, fewer):
        storage._blobs[name] = b"".join(bytes(part) for part in framing.frame_blob(life.state.seed, name, total.to_parts()))
        with pytest.raises(StateError, match="expected a"):
            Life(storage)


def test_a_storage_that_somebody_else_wrote_to_is_left_alone(caplog):
    storage = MemoryStorage()
    life = Life(storage)
    Life(storage).wait(61)  # another engine goes on with the same storage
    round_ = life.round()
    with pytest.raises(StorageError):
        life.send(round_.sum(*round_.keys("sum", 1)))
    assert "another coordinator uses this storage" in caplog.text
    with pytest.raises(StateError, match="another coordinator"):
        life.engine.tick()


def test_no_secret_in_logs_or_errors(caplog):
    caplog.set_level(logging.DEBUG)
    storage = MemoryStorage()
    life = other_round(storage)
    secret = life.state.round.keys.secret_key
    storage._entries.pop()
    with pytest.raises(StateError) as caught:
        Life(storage)
    shown = caplog.text + repr(storage.load()) + str(caught.value)
    assert secret.hex() not in shown


def large_body(life, body, spool):
    """Write a body to a file, as one that is large."""
    spooled = spool.create(len(body))
    spooled.write(body)
    return spooled


def test_large_bodies_are_kept_as_they_came(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SEALED_BYTES", 100)
    monkeypatch.setattr("pet.coordinator.storage.sqlite.MAX_ROW_BYTES", 100)
    storage = SqliteStorage(tmp_path)
    life = Life(storage)
    spool = Spool(tmp_path / "spool", 1 << 20)
    round_ = life.round()
    life.send(round_.sum(*round_.keys("sum", 1)))
    life.wait()
    sums = decode_sum_dictionary(life.engine.sums())
    bodies = [round_.update(key, sums, weights_of(index)) for index, key in enumerate(round_.keys("update", 2))]
    for body in bodies:
        spooled = large_body(life, body, spool)
        life.engine.handle_message(spooled)
        spooled.close()
    assert sorted(path.read_bytes() for path in (tmp_path / "blobs").iterdir()) == sorted(map(bytes, bodies))
    before = comparable(life)
    life.start()
    assert comparable(life)["round"] == before["round"]
    storage.close()


@pytest.mark.parametrize("is_known", [False, True], ids=["was not made", "was made"])
def test_a_body_that_is_gone_when_the_storage_is_back(tmp_path, monkeypatch, is_known):
    """What is tried again is what the body said."""
    monkeypatch.setattr(journal, "SEALED_BYTES", 100)

    class Unreliable(MemoryStorage):
        is_down = False

        def commit(self, transaction):
            if not self.is_down or is_known:
                super().commit(transaction)
            if self.is_down:
                raise StorageError("no answer")

    storage = Unreliable()
    life = Life(storage)
    spool = Spool(tmp_path / "spool", 1 << 20)
    round_ = life.round()
    life.send(round_.sum(*round_.keys("sum", 1)))
    life.wait()
    (key,) = round_.keys("update", 1)
    spooled = large_body(life, round_.update(key, decode_sum_dictionary(life.engine.sums()), weights_of(0)), spool)
    storage.is_down = True
    with pytest.raises(StorageError):
        life.engine.handle_message(spooled)
    spooled.close()
    storage.is_down = False
    life.engine.tick()
    assert storage.load().blob_names == ({"sealed/1"} if is_known else {"update/1"})
    before = comparable(life)
    life.start()
    assert comparable(life)["round"] == before["round"]


def test_a_body_of_another_participant_is_noticed(monkeypatch):
    monkeypatch.setattr(journal, "SEALED_BYTES", 100)
    storage = MemoryStorage()
    other_round(storage)
    storage._blobs["sealed/5"], storage._blobs["sealed/6"] = storage._blobs["sealed/6"], storage._blobs["sealed/5"]
    with pytest.raises(StateError, match="expected the body of this participant"):
        Life(storage)
    storage._blobs["sealed/5"] = bytes(300)
    with pytest.raises(StateError, match="does not open"):
        Life(storage)


def test_a_last_model_that_is_gone_or_another_one_is_noticed(tmp_path):
    storage = MemoryStorage()
    life = Life(storage)
    life.model_store = FolderModelStore(tmp_path, history=2)
    life.start()
    for _ in steps(life):
        pass
    life.start()
    assert_is_mean_of_five(life.engine.model())
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    for damage in (data[:-1], bytes([data[0] ^ 1]) + data[1:], data[:200] + b"x" + data[201:]):
        path.write_bytes(damage)
        with pytest.raises(StateError, match="--fresh begins without one"):
            life.start()
    path.unlink()
    with pytest.raises(StateError, match="expected the last global model, got no file"):
        life.start()


def test_over_http_an_outage_is_503_and_nothing_is_lost():
    class Switched(MemoryStorage):
        is_down = False

        def commit(self, transaction):
            if self.is_down:
                raise StorageError("no connection")
            super().commit(transaction)

    storage = Switched()
    window = PhaseWindow(min_count=1, max_count=5, min_seconds=0, max_seconds=60)
    engine = CoordinatorEngine(RoundSettings.of(CONFIG, LENGTH, sum=window, sum2=window), storage=storage)
    with serving(asgi.create_app(CoordinatorService(engine))) as url, httpx.Client(base_url=url) as client:
        round_ = SealedRound(client.get("/params").content)
        body = bytes(round_.sum(*round_.keys("sum", 1)))
        storage.is_down = True
        refused = client.post("/message", content=body)
        assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
        assert client.get("/status").json()["phase"] == "sum"
        assert client.get("/sums").status_code == 204
        deadline = time.monotonic() + 20
        while client.get("/healthz").status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        storage.is_down = False
        while client.get("/status").json()["phase"] != "update":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert client.get("/healthz").status_code == 200
        assert client.post("/message", content=body).status_code == 200
        assert round_.keys("sum", 1)[0].public_key in decode_sum_dictionary(client.get("/sums").content)
