"""What was taken stays taken over a restart: requests that somebody recorded, and messages of peers."""

from __future__ import annotations

import stat
import time

import httpx
import pytest
from federation_rest_server import Clock, federation_server
from test_federation_store import record
from test_peer_messages import NOW, RECEIVER, make, open_, reason_of
from test_rest_refusals import HOSTS, KEY, send, signed

from pet.errors import StorageError
from pet.federation import Client
from pet.federation.formats.replay_guard import MEMORY_SECONDS
from pet.federation.peer.messages import MessageCodec
from pet.federation.server import replay_log
from pet.federation.server.replay_log import ReplayLog
from pet.federation.server.store import FederationStore


@pytest.fixture
def clock():
    return Clock(NOW)


@pytest.fixture
def reopen(tmp_path, clock):
    """Return what opens the log as a server does after the one before was killed: nothing was closed."""
    opened = []

    def open_again():
        opened.append(ReplayLog(tmp_path, clock))
        return opened[-1]

    yield open_again
    for log in opened:
        log.close()


def test_a_request_that_was_recorded_does_not_work_again_after_a_restart(tmp_path):
    clock = Clock(time.time())
    with federation_server(tmp_path, clock=clock) as url, Client(url, "c1", KEY, clock=clock) as client:
        client.create("admin", "f", nats_hosts=HOSTS)
        recorded = signed(url)
        assert send(recorded) == (200, "OK")
    with federation_server(tmp_path, clock=clock) as url:
        again = httpx.Request("GET", url + recorded.url.path, headers=recorded.headers)  # the host that was signed, too
        assert send(again) == (401, "Invalid Signature")
        assert send(signed(url)) == (200, "OK")


def test_a_message_of_a_peer_opens_once_over_restarts(tmp_path, clock):
    data = make()
    for restart in range(3):
        store = FederationStore(tmp_path, clock)
        storage = store.peers()[0][1] if restart else store.add(record(), persist=True)
        storage.confirm()
        codec = MessageCodec(RECEIVER, storage.replay_guard(10))
        if restart == 0:
            open_(data, codec=codec)
        assert reason_of(data, codec=codec) == "replayed"
        store.close()


def test_a_peer_that_leaves_no_trace_leaves_none_here(tmp_path, clock):
    store = FederationStore(tmp_path, clock)
    storage = store.add(record(), persist=False)
    assert storage.replay_guard(10).remember("somebody", "message-id", NOW)
    store.close()
    assert not [path for path in tmp_path.iterdir() if b"message-id" in path.read_bytes()]


def test_each_guard_has_its_own_ids_and_gets_them_back(reopen):
    log = reopen()
    first, second = log.guard("first", 10), log.guard("second", 10)
    assert first.remember("a", "id", NOW)
    assert second.remember("a", "id", NOW)
    assert first.remember("b", "\ud800\n", NOW)
    assert log.guard("first", 10) is first
    for _ in range(2):
        log = reopen()
        first, second = log.guard("first", 10), log.guard("second", 10)
        answers = [guard.remember(sender, "id", NOW + 1) for guard in (first, second) for sender in ("a", "b")]
        assert answers == [False, True, False, True] if _ == 0 else [False] * 4
        assert not first.remember("b", "\ud800\n", NOW + 1)


def test_ids_are_forgotten_when_they_count_no_longer_and_the_files_stay_small(tmp_path, reopen, clock):
    guard, step, total = reopen().guard("rest", 1000), 10, 300
    window = int(MEMORY_SECONDS) // step
    sizes = []
    for number in range(total):
        clock.now = NOW + number * step
        assert guard.remember("a", str(number), clock.now)
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
        if number % 50 == 0:  # also by way of a restart
            guard = reopen().guard("rest", 1000)
    assert max(sizes) < 2 * (window + 2) * 50
    guard = reopen().guard("rest", 1000)
    remembered = [not guard.remember("a", str(number), clock.now) for number in range(total)]
    assert remembered == [False] * (total - window - 1) + [True] * (window + 1)


@pytest.mark.parametrize(
    "damage",
    [b'["rest", "a", "cut o', b"\xff\n", b"5\n", b"[1, 2, 3, 4]\n", b'["rest", "a"]\n', b"[" * 100_000 + b"\n"],
    ids=["cut off", "no text", "a number", "numbers", "too few", "nested"],
)
def test_a_damaged_line_costs_no_other_and_is_reported_once(tmp_path, reopen, damage, caplog):
    assert reopen().guard("rest", 10).remember("a", "before", NOW)
    with (tmp_path / "taken-0.jsonl").open("ab") as file:
        file.write(damage)
    is_cut_off = not damage.endswith(b"\n")  # by a crash, before anything was acted on
    for number in range(2):
        log = reopen()
        assert log.damaged_count == (0 if is_cut_off else 1)
        assert [record.levelname for record in caplog.records] == [] if is_cut_off else ["WARNING"] * (number + 1)
        assert log.guard("rest", 10).remember("a", f"after{number}", NOW)
    if not is_cut_off:
        assert "taken-0.jsonl: 1 of 2 lines are damaged" in caplog.records[0].getMessage()
    guard = reopen().guard("rest", 10)
    assert [guard.remember("a", identifier, NOW) for identifier in ("before", "after0", "after1")] == [False] * 3


def test_what_cannot_be_noted_is_not_taken(tmp_path, reopen, monkeypatch, clock):
    clock.now = NOW - 10
    guard = reopen().guard("rest", 10)

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(replay_log, "sync_data", fail)
        with pytest.raises(StorageError, match="No space left on device"):
            guard.remember("a", "id", NOW)
    assert guard.remember("a", "id", NOW)


def test_a_line_that_did_not_fit_damages_no_other(tmp_path, reopen):
    resource = pytest.importorskip("resource")
    guard = reopen().guard("rest", 10)
    assert guard.remember("a", "before", NOW)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "taken-0.jsonl").stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(StorageError, match="wrote a part"):
            guard.remember("a", "id", NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert guard.remember("a", "after", NOW)
    log = reopen()
    assert log.damaged_count == 0
    assert [log.guard("rest", 10).remember("a", each, NOW) for each in ("before", "id", "after")] == [False, True, False]


def test_it_is_synchronised_once_a_second(reopen, monkeypatch):
    synced = []
    monkeypatch.setattr(replay_log, "sync_data", synced.append)
    guard = reopen().guard("rest", 10_000)
    for number in range(1000):
        guard.remember("a", str(number), NOW + number / 100)
    assert 8 <= len(synced) <= 10


def test_only_the_owner_reads_it(tmp_path, reopen):
    reopen().guard("rest", 10).remember("a", "id", NOW)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o600}


def test_a_folder_that_cannot_be_used(tmp_path, clock):
    (tmp_path / "taken-1.jsonl").mkdir()
    with pytest.raises(StorageError, match="expected a file for what was taken"):
        ReplayLog(tmp_path, clock)
