"""What the store keeps, for whom, and what a token is good for."""

import dataclasses
import json
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from federation_rest_server import Clock

from pet.errors import ProjectExistsError, StateError, TokenRefusedError
from pet.federation.formats.record_codec import decode_record, encode_record
from pet.federation.records import ContractRecord, LogKind, Mode, PeerKeys
from pet.federation.server.request_maps import MapContext, created_record
from pet.federation.server.store import MAX_LOG_LINES, FederationStore
from pet.transports.nats_settings import NatsSettings

ENTRIES = {
    "fed_name": "a b",
    "sync_sched": "m1",
    "nats_hosts": "nats://127.0.0.1:4222",
    "nats_sec_user": "u",
    "nats_sec_passwd": "hush-password",
}


def record(pid="p", cid="c1", **more):
    return created_record(ENTRIES | more, MapContext(customer_id=cid, project_id=pid))


@pytest.fixture
def clock():
    return Clock(1_767_225_600.0)


@pytest.fixture
def store(tmp_path, clock):
    store = FederationStore(tmp_path / "state", clock)
    yield store
    store.close()


#: Made when a test asks for it: a record has keys of its own, and parameters of tests must be the same in every process.
RECORDS = {
    "statistics": record,
    "model": lambda: record(
        fed_project_kind="model", fed_model_length="5", nats_sec_user="", nats_sec_passwd="", nats_sec_token="hush"
    ),
    "compatible": lambda: dataclasses.replace(
        record(),
        nats=NatsSettings(hosts=("nats://192.0.2.1",), ca_file=Path("/ca.pem"), allow_plaintext=True),
        terms=dataclasses.replace(
            record().terms, admin=None, mode=Mode.COMPAT, contract=ContractRecord(lines=("COUNT(x) > 5",), counter=3)
        ),
    ),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_comes_back(kind):
    found = RECORDS[kind]()
    assert decode_record(encode_record(found)) == found
    assert "hush" not in repr(found)


def test_the_way_to_the_broker_is_stored_under_the_names_of_earlier_versions():
    stored = json.loads(encode_record(RECORDS["compatible"]()))["nats"]
    names = {"hosts", "user", "password", "token", "nkey_seed", "request_timeout_seconds", "stream_max_bytes"}
    assert stored.keys() == names | {"authority_file"}
    assert stored["authority_file"] == "/ca.pem"


def test_damaged_records_are_refused_without_their_contents():
    text = encode_record(record())
    for bad in ["", "[]", "{}", text[:-1], text.replace('"version":1', '"version":2'), text.replace('"keys":', '"kays":')]:
        with pytest.raises(StateError, match="record of a federation: expected version 1") as raised:
            decode_record(bad)
        assert "hush" not in str(raised.value)
        assert raised.value.__context__ is None


def test_everything_survives_a_restart(tmp_path, clock):
    store, found = FederationStore(tmp_path, clock), record()
    storage = store.add(found, persist=True)
    storage.save_state("rows", b"\x00\x01")
    storage.append_log(LogKind.SYNC, "one\nline ")
    storage.confirm()
    keys = store.server_keys()
    store.close()
    store = FederationStore(tmp_path, clock)
    [(again, storage)] = store.peers()
    assert again == found
    assert storage.load_state("rows") == b"\x00\x01"
    assert storage.load_state("other") is None
    assert storage.log_lines(LogKind.SYNC) == ["one line"]
    assert storage.log_lines(LogKind.ERROR) == []
    assert store.server_keys() == keys
    store.close()


def test_what_was_not_confirmed_or_must_not_persist_is_gone_after_a_restart(tmp_path, clock):
    store = FederationStore(tmp_path, clock)
    store.add(record("half"), persist=True)
    store.add(record("volatile"), persist=False).confirm()
    assert [found.project_id for found, _ in store.peers()] == ["half", "volatile"]
    store.close()
    store = FederationStore(tmp_path, clock)
    assert store.peers() == []
    store.add(record("half"), persist=True)
    store.close()


def test_a_name_is_taken_once_per_user_whether_it_persists_or_not(store):
    store.add(record(), persist=False)
    store.add(record(cid="c2"), persist=True)
    with pytest.raises(ProjectExistsError):
        store.add(record(), persist=True)
    with pytest.raises(ProjectExistsError):
        store.add(record(cid="c2"), persist=False)


def test_files_are_for_their_owner_only(tmp_path, clock):
    directory = tmp_path / "state"
    store = FederationStore(directory, clock)
    store.add(record(), persist=True).confirm()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    files = sorted(directory.iterdir())
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    store.close()


def test_a_file_of_another_kind_is_refused(tmp_path, clock):
    (tmp_path / "federations.sqlite3").write_bytes(b"x" * 4096)
    with pytest.raises(StateError, match="expected the store of a federation server"):
        FederationStore(tmp_path, clock)


def test_a_store_of_another_version_is_refused(tmp_path, clock):
    FederationStore(tmp_path, clock).close()
    with sqlite3.connect(tmp_path / "federations.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError, match="expected a store of version 3, got 99"):
        FederationStore(tmp_path, clock)


def test_logs_are_capped_and_cleared_apart(store):
    storage, other = store.add(record(), persist=True), store.add(record("q"), persist=True)
    for i in range(MAX_LOG_LINES + 3):
        storage.append_log(LogKind.ERROR, f"line {i}")
    storage.append_log(LogKind.SYNC, "fine")
    other.append_log(LogKind.ERROR, "x" * 5000)
    lines = storage.log_lines(LogKind.ERROR)
    assert (len(lines), lines[0], lines[-1]) == (1000, "line 3", "line 1002")
    storage.clear_log(LogKind.ERROR)
    assert storage.log_lines(LogKind.ERROR) == []
    assert storage.log_lines(LogKind.SYNC) == ["fine"]
    assert other.log_lines(LogKind.ERROR) == ["x" * 1000]


def test_nothing_comes_back_for_a_peer_that_was_removed(store):
    storage = store.add(record(), persist=True)
    storage.save_state("rows", b"1")
    store.remove("c1", "p")
    storage.save_record(record())
    storage.save_state("rows", b"2")
    storage.append_log(LogKind.SYNC, "late")
    assert store.peers() == []
    assert storage.load_state("rows") is None
    assert storage.log_lines(LogKind.SYNC) == []


def test_what_was_shared_is_there_again_for_the_same_user_in_the_same_federation(store):
    one, other = record("p", "alice"), record("p", "bob")
    in_other = dataclasses.replace(other, customer_id="alice", project_id="q")
    store.add(one, persist=True).save_state("shared_counts", b"[60]")
    store.add(other, persist=True).save_state("shared_counts", b"[7]")
    assert store.add(in_other, persist=True).load_state("shared_counts") is None, "neither bob's, nor of another federation"
    store.remove("alice", "p")
    again = store.add(dataclasses.replace(one, project_id="r"), persist=True)
    assert again.load_state("shared_counts") == b"[60]"


@pytest.mark.parametrize("persists", [(True, False, True), (False, True, False)])
def test_the_newest_of_what_was_shared_is_remembered_however_often_a_peer_comes_back(store, persists):
    one = record()
    for number, persist in enumerate(persists):
        storage = store.add(one, persist=persist)
        assert storage.load_state("shared_counts") == (b"%d" % number if number else None)
        storage.save_state("shared_counts", b"%d" % (number + 1))
        store.remove("c1", "p")


def joined(storage, token, keys=None):
    keys = keys or PeerKeys.generate()
    before = record()
    after = dataclasses.replace(before, peers=(*before.peers, keys.identity("joined")))
    storage.redeem_token(token, keys.identity(), after)
    return after


def test_a_token_works_once_and_the_peer_is_recorded_with_it(store):
    storage = store.add(record(), persist=True)
    storage.issue_token("t1", b"j", 1_767_232_800)
    keys = PeerKeys.generate()
    after = joined(storage, "t1", keys)
    assert store.record("c1", "p") == after
    storage.redeem_token("t1", keys.identity(), record())  # the answer was lost, the same peer asks again
    assert store.record("c1", "p") == after
    with pytest.raises(TokenRefusedError, match=r"^Invalid federation token$") as raised:
        joined(storage, "t1")
    assert raised.value.reason == "used"
    assert store.record("c1", "p") == after


@pytest.mark.parametrize(("seconds", "reason"), [(7201, "expired"), (7200 + 90000, "unknown")])
def test_tokens_expire_and_are_forgotten(store, clock, seconds, reason):
    storage = store.add(record(), persist=True)
    storage.issue_token("t1", b"j", clock.now + 7200)
    clock.now += seconds
    storage.issue_token("t2", b"j", clock.now + 7200)
    with pytest.raises(TokenRefusedError) as raised:
        joined(storage, "t1")
    assert raised.value.reason == reason
    joined(storage, "t2")


def test_revoked_and_foreign_tokens_are_refused(store, clock):
    storage, other = store.add(record(), persist=True), store.add(record("q"), persist=True)
    storage.issue_token("t1", b"j", clock.now + 1)
    other.issue_token("t2", b"j", clock.now + 1)
    storage.revoke_tokens()
    reasons = []
    for token in ["t1", "t2", "never"]:
        with pytest.raises(TokenRefusedError) as raised:
            joined(storage, token)
        reasons.append(raised.value.reason)
    assert reasons == ["revoked", "unknown", "unknown"]
    joined(other, "t2")


def test_of_many_at_once_one_wins(store, clock):
    storage = store.add(record(), persist=True)
    storage.issue_token("t1", b"j", clock.now + 1)
    outcomes = []

    def attempt():
        try:
            joined(storage, "t1")
        except TokenRefusedError as error:
            outcomes.append(error.reason)
        else:
            outcomes.append("joined")

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["joined", *["used"] * 7]


def test_no_token_stands_in_the_file(tmp_path, clock):
    store = FederationStore(tmp_path, clock)
    store.add(record(), persist=True).issue_token("FEDTOKEN0123456789abcdef", b"j", clock.now)
    store.close()
    assert b"FEDTOKEN" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
