"""What the released version stored is gone on with, exactly: coordinators, participants, and objects of masking."""

import contextlib
import shutil

import numpy as np
import pytest
import redis
from participant_driver import SetClock
from redis_server import redis_server
from vector_files import VECTORS, load_vectors

from pet.aggregation import Aggregation
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.model_store import FolderModelStore
from pet.coordinator.storage.redis import RedisStorage
from pet.coordinator.storage.sqlite import SqliteStorage
from pet.mask_config import MaskConfig
from pet.mask_object import Mask, MaskedModel
from pet.participant import Task, TickParticipant
from pet.participant.state_file import StateFile
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports.in_process import InProcessTransport

RELEASED = VECTORS / "released_state"
EXPECTED = load_vectors("released_state/coordinator.json")
LENGTH = 10
#: Other windows than those of the stored round, which keeps its own.
SETTINGS = RoundSettings.of(
    MaskConfig.parse("prime-f32-b0-m3"),
    LENGTH,
    sum_probability=0.3,
    update_probability=1.0,
    sum=PhaseWindow(min_count=7, max_count=100, min_seconds=20, max_seconds=30),
)
#: What a restored participant says it does; one whose message was accepted has nothing left to do.
TASKS = {"sum": Task.SUM, "accepted": Task.NONE, "signed": Task.UPDATE, "partly_sent": Task.UPDATE, "waiting": Task.UPDATE}


class Restarted:
    """Today's coordinator on a copy of a stored folder, or on a Redis server with the keys that were stored."""

    def __init__(self, stored, folder, redis_url=None):
        copy_private(stored, folder)
        self.clock = SetClock()
        self.storage = SqliteStorage(folder) if redis_url is None else RedisStorage(redis_url)
        self.engine = CoordinatorEngine(
            SETTINGS, clock=self.clock, storage=self.storage, model_store=FolderModelStore(folder / "models", 5)
        )
        self.engine.tick()
        self.transport = InProcessTransport(self.engine)

    def pass_phase(self):
        self.clock.now_seconds += 1.5
        self.engine.tick()

    def model(self):
        participant = TickParticipant(self.transport)
        participant.tick()
        return participant.global_model().tolist()


def copy_private(source, target):
    """Copy a folder; a repository keeps no permissions, and state must be its owner's only."""
    shutil.copytree(source, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)


@pytest.fixture
def restarted(tmp_path):
    opened = []

    def restart(name, redis_url=None):
        opened.append(Restarted(RELEASED / name, tmp_path / "state", redis_url))
        return opened[-1]

    yield restart
    for each in opened:
        each.storage.close()


def model_of(participant_number):
    return ((np.arange(LENGTH) - 5 + participant_number) / 16).astype(np.float32)


def restore_all(transport):
    """Return today's participants: kind -> [(number, participant)]."""
    found = {}
    for path in sorted((RELEASED / "participants").glob("*.state")):
        kind, _, number = path.stem.partition("-")
        participant = TickParticipant.restore(path.read_bytes(), transport)
        assert participant.task is TASKS[kind]
        found.setdefault(kind, []).append((int(number), participant))
    assert found.keys() == TASKS.keys()
    return found


def go_on(members):
    for number, participant in members:
        for _ in range(30):
            participant.tick()
            assert participant.last_error is None
            if participant.should_set_model:
                participant.set_model(model_of(number))


@pytest.fixture(params=["sqlite", "redis"])
def under_way(request, restarted, tmp_path):
    if request.param == "sqlite":
        yield restarted("coordinator")
        return
    with redis_server(tmp_path) as server:
        client = redis.Redis.from_url(server.url)
        for key, stored in load_vectors("released_state/redis.json").items():
            write_key(client, key, *stored.popitem())
        client.close()
        yield restarted("coordinator", server.url)


def write_key(client, key, kind, contents):
    match kind:
        case "hash":
            client.hset(key, mapping={bytes.fromhex(name): bytes.fromhex(value) for name, value in contents.items()})
        case "list":
            client.rpush(key, *map(bytes.fromhex, contents))
        case "set":
            client.sadd(key, *map(bytes.fromhex, contents))
        case "string":
            client.set(key, bytes.fromhex(contents))


def test_a_round_under_way_ends_with_the_model_that_it_would_have_ended_with(under_way):
    coordinator, expected = under_way, EXPECTED["under_way"]
    status = coordinator.engine.status()
    assert coordinator.engine.was_restored
    assert {name: status[name] for name in expected["status"]} == expected["status"]
    assert coordinator.model() == expected["first_model"]

    members = restore_all(coordinator.transport)
    go_on(members["accepted"])
    assert coordinator.engine.status()["accepted"] == 2, "what was accepted is not sent again"
    go_on(members["signed"] + members["partly_sent"] + members["waiting"])
    assert coordinator.engine.status()["accepted"] == 5
    coordinator.pass_phase()
    go_on(members["sum"])
    coordinator.pass_phase()
    status = coordinator.engine.status()
    assert (status["rounds_completed"], status["rounds_failed"], status["rejected"]) == (2, 0, {})
    assert coordinator.model() == expected["second_model"]
    assert coordinator.engine.status()["round"] == 3


def test_a_coordinator_that_was_stopped_between_rounds_goes_on(restarted):
    coordinator, expected = restarted("finished"), EXPECTED["finished"]
    status = coordinator.engine.status()
    assert {name: status[name] for name in expected["status"]} == expected["status"]
    assert coordinator.model() == expected["first_model"]


@pytest.mark.parametrize("path", sorted((RELEASED / "participants").glob("*.state")), ids=lambda path: path.stem)
def test_a_state_file_of_a_participant_is_read(tmp_path, path):
    file = tmp_path / "participant.state"
    shutil.copyfile(path, file)
    file.chmod(0o600)
    with contextlib.closing(StateFile(file)) as state:
        assert state.load() == path.read_bytes()


def test_serialised_objects_of_masking_are_read_and_unmask_to_the_same_model():
    stored = {name: bytes.fromhex(value) for name, value in EXPECTED["masks"].items() if name != "global_model"}
    aggregation, mask = Aggregation.from_bytes(stored["aggregation"]), Mask.from_bytes(stored["mask"])
    assert aggregation.count == 3
    assert aggregation.unmask(mask).to_array().tolist() == EXPECTED["masks"]["global_model"]
    assert (aggregation.to_bytes(), mask.to_bytes()) == (stored["aggregation"], stored["mask"])
    assert MaskedModel.from_bytes(stored["masked_model"]).to_bytes() == stored["masked_model"]
