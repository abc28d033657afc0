"""States that were saved and come back damaged: every reader raises StateError and nothing else.

Three kinds of damage: cut off anywhere, bits that flipped, and a value that nobody wrote in a place where checksums are right.
"""

import copy
import hashlib
import json
import random
import struct

import numpy as np
import pytest
from coordinator_driver import Session, counting_entropy
from participant_driver import Script, make_machine, round_parameters, step, steps, weights

from pet.aggregation import Aggregation
from pet.coordinator.framing import frame_state
from pet.coordinator.model_file import decode_model
from pet.coordinator.restore import restore
from pet.coordinator.storage.base import Transaction
from pet.coordinator.storage.memory import MemoryStorage
from pet.coordinator.storage.sqlite import DATABASE_NAME, SqliteStorage
from pet.crypto import EncryptionKeyPair
from pet.errors import StateError
from pet.federation.formats.model_shape import ModelShape
from pet.federation.formats.record_codec import decode_record, encode_record
from pet.federation.peer.context import Counters
from pet.federation.peer.local_project import LocalProject
from pet.federation.peer.project import FederatedProject, ModelProject
from pet.federation.server.request_maps import MapContext, created_record
from pet.federation.server.store import FederationStore
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics
from pet.mask_config import MaskConfig
from pet.masking import mask_model
from pet.messages import encode_sum_dictionary
from pet.participant import Participant, spawn_participant
from pet.protocol.participant import ParticipantMachine
from pet.protocol.saved_state import save_state

#: What may stand in the place of anything.
VALUES = [None, True, -1, 0, 3, 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "x", "ff" * 32, "\ud800", "m1"]
VALUES += [[], {}, [[]], {"a": {}}, [1, 2], ["0x1", "0x0"], ["0x-1", "0x1"], ["0x1", "0x" + "f" * 400]]
NESTED = "[" * 100_000
PREFIX = struct.Struct("<8sHI")
RANDOM = random.Random(20261130)


def places(value, path=()):
    """Yield the path of everything in a record."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def damaged_records(record):
    """Yield a record with each place missing, or with each of `VALUES` in it."""
    for path in places(record):
        for value in VALUES:
            changed = copy.deepcopy(record)
            if not path:
                yield value
                continue
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = value
            yield changed
        if path and isinstance(path[-1], str):
            changed = parent = copy.deepcopy(record)
            for key in path[:-1]:
                parent = parent[key]
            del parent[path[-1]]
            yield changed


def damaged_bytes(data, count=300):
    """Yield prefixes, flipped bits and random bytes in places."""
    lengths = range(len(data)) if len(data) <= count else sorted(RANDOM.sample(range(len(data)), count))
    yield from (data[:length] for length in lengths)
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(RANDOM.choice([1, 1, 3])):
            changed[RANDOM.randrange(len(changed))] ^= 1 << RANDOM.randrange(8)
        yield bytes(changed)
    yield data + b"\0"


def check(read, state, *arguments):
    """Read a damaged state: it is refused, or good enough to be read."""
    try:
        return read(state, *arguments)
    except StateError as error:
        text = str(error)
        assert len(text) < 1000
        assert "11" * 16 not in text, "a key"
        return None
    except Exception as error:
        pytest.fail(f"{type(error).__name__}: {error} for {repr(state)[:300]}")


# ---- participants -----------------------------------------------------------------------------------------------------


def participant_states():
    sums = encode_sum_dictionary({b"s" * 32: EncryptionKeyPair.from_seed(bytes([9]) * 32).public_key})
    yield make_machine().save()
    for task in ("sum", "update"):
        machine = make_machine(max_message_size=300)
        script = Script(round_parameters(task, length=40), sums=sums)
        steps(machine, script, 2)
        yield machine.save()
        if task == "update":
            machine.set_model(weights(1, length=40))
        step(machine, script)
        yield machine.save()


def restore_participant(data):
    return ParticipantMachine.restore(data, entropy=counting_entropy())


@pytest.mark.parametrize("number", range(5))
def test_participants(number):
    data = list(participant_states())[number]  # made here: keys are drawn, and parameters must be the same in every process
    for changed in damaged_bytes(data, 100):
        check(restore_participant, changed)
    length = PREFIX.unpack_from(data)[2]
    header, blobs = data[PREFIX.size : PREFIX.size + length], data[PREFIX.size + length : -32]
    for text in [*map(json.dumps, damaged_records(json.loads(header))), NESTED, NESTED.replace("[", '{"a":'), "{", "\udcff"]:
        encoded = text.encode(errors="surrogateescape")
        body = PREFIX.pack(*PREFIX.unpack_from(data)[:2], len(encoded)) + encoded + blobs
        machine = check(restore_participant, body + hashlib.sha256(body).digest())
        if machine is not None:
            machine.save()


class Idle(Participant):
    def train_round(self, training_input):
        return training_input


@pytest.mark.parametrize("content", [b"", b"\0", NESTED.encode()])
def test_a_state_file_that_is_damaged_is_no_new_participant(tmp_path, content):
    path = tmp_path / "participant.state"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StateError):
        spawn_participant("http://127.0.0.1:1", Idle, state_file=path)
    assert path.read_bytes() == content


# ---- coordinators -----------------------------------------------------------------------------------------------------


def restore_coordinator(state):
    storage = MemoryStorage()
    storage.commit(Transaction(sequence=1, state=state))
    found = restore(storage, Session().settings, now_seconds=5.0, entropy=counting_entropy(), writer=b"writer")
    assert found is not None
    found[0].announce_again()
    return found


@pytest.mark.parametrize("start", [None, "to_sum"])
def test_coordinators(start):
    session = Session()
    if start:
        getattr(session, start)()
    record = {
        "coordinator": json.loads(json.dumps(save_state(session.coordinator, session.now))),
        "model": None,
        "entries": 0,
        "folded": 0,
        "writer": "77",
    }
    data = frame_state(record)
    restore_coordinator(data)
    for changed in damaged_bytes(data, 200):
        check(restore_coordinator, changed)
    for other in damaged_records(record):
        check(restore_coordinator, frame_state(other))


def test_the_database_of_a_coordinator(tmp_path):
    def load(data):
        folder = tmp_path / "state"
        for path in folder.glob(f"{DATABASE_NAME}*"):
            path.unlink()
        file.write_bytes(data)
        storage = SqliteStorage(folder)
        try:
            return storage.load()
        finally:
            storage.close()

    storage = SqliteStorage(tmp_path / "state")
    storage.commit(Transaction(sequence=1, state=b"state" * 100, entries=[b"entry"], blobs={"a": [b"blob"]}))
    storage.close()
    file = tmp_path / "state" / DATABASE_NAME
    for changed in damaged_bytes(file.read_bytes(), 25):
        check(load, changed)


def test_models_of_a_model_store(tmp_path):
    for data in (b"", b"\0" * 100, b"pet model 1 " + bytes(100)):
        check(decode_model, data)


# ---- aggregations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["prime-f32-b0-m3", "power2-f64-b2-m6", "integer-i32-bmax-m3"])
def test_aggregations(config):
    parsed = MaskConfig.parse(config)
    total = Aggregation(parsed, 5)
    total.add(mask_model(np.zeros(5, parsed.data_type.dtype), parsed)[1])
    data = total.to_bytes()
    assert Aggregation.from_bytes(data).to_bytes() == data
    for changed in damaged_bytes(data):
        check(Aggregation.from_bytes, changed)


# ---- federations ------------------------------------------------------------------------------------------------------

ENTRIES = {"fed_name": "a b", "sync_sched": "m1", "nats_hosts": "nats://127.0.0.1:4222", "nats_sec_token": "hush"}


def federation_record():
    return created_record(ENTRIES, MapContext(customer_id="alice", project_id="p"))


def test_records_of_federations():
    text = encode_record(federation_record())
    for other in damaged_records(json.loads(text)):
        check(decode_record, json.dumps(other))
    for changed in [*damaged_bytes(text.encode(), 200), NESTED.encode()]:
        check(decode_record, changed.decode(errors="replace"))


def test_counters_of_a_peer():
    data = Counters(applied={"a": 1}, aggregate_contributors={"b": 2}).to_bytes()
    for other in damaged_records(json.loads(data)):
        if (counters := check(Counters.from_bytes, json.dumps(other).encode())) is not None:
            assert Counters.from_bytes(counters.to_bytes()) == counters
    for changed in [*damaged_bytes(data), NESTED.encode()]:
        check(Counters.from_bytes, changed)


class Store:
    """A part of a store that gives back one thing for every name."""

    def __init__(self, data):
        self.data = data

    def load_state(self, name):
        return self.data

    def save_state(self, name, data):
        self.data = data


SCHEMA = Schema((Feature(name="x"), Feature(name="y")))


def test_statistics_of_peers():
    statistics = Statistics.of({"x": [1.0, 2.0], "y": [3.0, 4.0]}, SCHEMA)
    store = Store(struct.pack(">Q", 1) + statistics.to_bytes(with_residues=True))
    for changed in damaged_bytes(store.data):
        check(lambda data: LocalProject(Store(data), SCHEMA), changed)
    merged = store.data[8:]
    for changed in damaged_bytes(merged):
        check(lambda data: FederatedProject(Store(data), None, ["bob"]).load(SCHEMA), changed)


def test_models_of_peers():
    store = Store(None)
    ModelProject(store, ModelShape(3)).set_model(np.arange(3.0), 0.5)
    for changed in damaged_bytes(store.data):
        check(lambda data: ModelProject(Store(data), ModelShape(3)), changed)


def test_the_database_of_a_federation_server(tmp_path):
    def load(data):
        for path in (tmp_path / "state").glob("federations.sqlite3*"):
            path.unlink()
        file.write_bytes(data)
        file.chmod(0o600)
        store = FederationStore(tmp_path / "state")
        try:
            store.server_keys()
            return [storage.load_state("local") for _, storage in store.peers()]
        finally:
            store.close()

    file = tmp_path / "state" / "federations.sqlite3"
    store = FederationStore(tmp_path / "state")
    store.server_keys()
    store.add(federation_record(), persist=True).confirm()
    store.close()
    data = file.read_bytes()
    assert load(data) == [None]
    for changed in damaged_bytes(data, 40):
        check(load, changed)
