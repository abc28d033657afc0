"""A coordinator of pet/1 that is stopped at every step goes on: over every storage, with its leaves and evidence in files.

Source: docs/spec/profile.md 13 (K1, K6), 14.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asgi_server import wait_until
from pet1_parties import NOW, Parties, spoil_box
from pet1_players import Players, read
from redis_server import redis_server
from sealed_rounds import WEIGHTS, SealedRound
from test_engine import make_engine, pass_time, run_round
from test_pet1_engine import LONG, Clock

import pet
from pet.coordinator.evidence_folder import FolderEvidenceStore, read_evidence
from pet.coordinator.leaf_folder import FolderLeafStore
from pet.coordinator.model_store import FolderModelStore
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.storage.base import Storage
from pet.coordinator.storage.memory import MemoryStorage
from pet.coordinator.storage.redis import RedisStorage
from pet.coordinator.storage.sqlite import SqliteStorage
from pet.crypto import SigningKeyPair, open_sealed, seal
from pet.errors import StateError, StorageError
from pet.messages import HEADER_BYTES, split_payload
from pet.pet1.answers import UpdateAccepted, UpdateOpen, build_piece, read_piece
from pet.pet1.hashes import digest
from pet.pet1.leaves import LEAF_BYTES, build_update
from pet.pet1.messages import Pet1Tag, sign_message
from pet.pet1.round_record import RoundRecord
from pet.protocol.pet1_evidence import Evidence, WrongAnswer
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.protocol.pet1_publications import TotalPublished
from pet.transports.pet1 import Pet1Document


class Machine:
    """What outlives a coordinator: a storage, and a folder."""

    def __init__(self, players: Players, folder: Path, open_storage: Callable[[], Storage], **settings: Any) -> None:
        self.players, self.folder, self.open_storage, self.chosen = players, folder, open_storage, settings
        self.clock = Clock()
        self.events: list[Any] = []
        self.engine = self._start()

    def _start(self, **changes: Any) -> Pet1Engine:
        self.storage = self.open_storage()
        self.leaves = FolderLeafStore(self.folder / "leaves")
        engine = Pet1Engine(
            self.players.settings(**self.chosen | changes),
            clock=self.clock,
            entropy=self.players.parties.random.randbytes,
            first_number=7,
            threads=1,
            storage=self.storage,
            model_store=FolderModelStore(self.folder / "models", 3),
            leaf_store=self.leaves,
            evidence_store=FolderEvidenceStore(self.folder / "evidence"),
        )
        engine.subscribe(self.events.append)
        engine.tick()
        return engine

    def kill(self, **changes: Any) -> None:
        """Close the files as the system does those of a process that is gone, and start another one."""
        self.close()
        self.engine = self._start(**changes)

    def close(self) -> None:
        self.storage.close()
        self.leaves.close()

    def totals(self) -> dict[int, tuple[int, ...]]:
        """Return the sums that were published, by round."""
        published = [event for event in self.events if isinstance(event, TotalPublished)]
        return {event.round_id: (*map(int, event.model.to_array()), int(event.model.scalar_sum)) for event in published}


def kept_in_memory() -> Callable[[], Storage]:
    storage = MemoryStorage()
    return lambda: storage


@pytest.fixture(params=["memory", "sqlite", "redis"])
def open_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Storage]]:
    if request.param == "redis":
        (tmp_path / "redis").mkdir()
        with redis_server(tmp_path / "redis") as server:
            yield lambda: RedisStorage(server.url)
    elif request.param == "sqlite":
        yield lambda: SqliteStorage(tmp_path / "state")
    else:
        yield kept_in_memory()


def test_it_goes_on_after_every_step(open_storage: Callable[[], Storage], tmp_path: Path) -> None:
    players = Players()
    machine = Machine(players, tmp_path, open_storage)
    for slot in range(3):
        players.send_members(machine.engine, [slot])
        machine.kill()
    for player in players.updates:
        assert player.step(machine.engine) == UpdateAccepted()
        machine.kill()
    for slot in (0, 1, 2, 0, 1, 2):  # Check, Sum2
        players.send_members(machine.engine, [slot])
        machine.kill()
    players.play(machine.engine)
    machine.kill()
    assert machine.totals() == {7: players.sum_of(7), 8: players.sum_of(8)}
    assert read(machine.engine, Pet1Document.MODEL) == np.array(players.sum_of(8), dtype="<u4").tobytes()
    assert machine.engine.was_restored
    assert not machine.engine.keeps_earlier_settings
    assert list((tmp_path / "leaves").glob("*.leaves")) == []
    machine.close()


def test_leaves_that_were_answered_need_not_come_again_and_torn_ones_do(tmp_path: Path) -> None:
    players = Players()
    machine = Machine(players, tmp_path, kept_in_memory(), model_length=LONG)
    players.send_members(machine.engine)
    sent = players.updates[0].mask(machine.engine)
    assert sent is not None
    opened = machine.engine.open_update(sent.sealed)
    for index in (2, 0):
        machine.engine.take_leaves(*read_piece(b"".join(build_piece(sent.header.digest, range(index, index + 1), sent.vector))))
    (path,) = (tmp_path / "leaves").glob("*.leaves")
    with path.open("r+b") as file:  # as power that was lost between the mark and its leaf leaves it
        file.write(bytes(100))
    machine.kill()
    assert machine.engine.take_leaves(*read_piece(b"".join(build_piece(sent.header.digest, range(1), sent.vector))))[1:] == (
        b"unknown_upload"
    )
    opened = machine.engine.open_update(sent.sealed)
    assert sent.read_answer(opened.answer) == UpdateOpen(8, (False, False, True))
    assert players.updates[0].step(machine.engine) == UpdateAccepted()
    assert path.stat().st_blocks * 512 <= len(sent.vector) + 4 * 4096
    machine.kill()
    assert machine.engine.status()["accepted"] == 1
    machine.close()


def in_chunks(key: SigningKeyPair, message: bytes, coordinator_key: bytes) -> list[bytes]:
    """Return a Sum2 message in chunks, each signed and sealed."""
    bodies = []
    for chunk in split_payload([message[HEADER_BYTES:]], 700, 7):
        part = bytearray(sign_message(key, coordinator_key, Pet1Tag.SUM2, b"".join(chunk.encode_parts())))
        part[133] = 1  # a chunk of several
        part[:64] = key.sign(bytes(part[64:]))
        bodies.append(seal(bytes(part), coordinator_key))
    return bodies


def test_chunks_of_an_answer_need_not_come_again(open_storage: Callable[[], Storage], tmp_path: Path) -> None:
    players = Players()
    machine = Machine(players, tmp_path, open_storage, model_length=500)
    players.send_members(machine.engine)
    players.send_updates(machine.engine)
    players.send_members(machine.engine)
    record = RoundRecord.from_bytes(read(machine.engine, Pet1Document.ROUND) or b"")
    answer = players.members[0].machine.answer(read(machine.engine, Pet1Document.CERTIFICATE) or b"")
    assert answer is not None
    bodies = in_chunks(players.parties.member_keys[0], answer, record.coordinator_key)
    assert len(bodies) > 2
    for body in bodies[:-1]:
        machine.engine.handle_message(body)
        machine.kill()
    assert [slot["answered"] for slot in machine.engine.status()["slots"]] == [False, False, True]
    machine.engine.handle_message(bodies[-1])
    machine.kill()
    assert [slot["answered"] for slot in machine.engine.status()["slots"]] == [True, False, True]
    players.send_members(machine.engine, [1])
    assert machine.engine.status()["rounds_completed"] == 1
    machine.close()


def test_a_damaged_leaf_of_a_complete_update_is_named(tmp_path: Path) -> None:
    store = FolderLeafStore(tmp_path / "leaves")
    leaf = os.urandom(LEAF_BYTES)
    store.put(bytes(32), 1, memoryview(leaf))
    assert store.get(bytes(32), 1) == leaf
    (path,) = (tmp_path / "leaves").glob("*.leaves")
    with path.open("r+b") as file:
        file.seek(LEAF_BYTES + 5000)
        file.write(b"other")
    with pytest.raises(StateError, match="expected leaf 1 with its checksum"):
        store.get(bytes(32), 1)
    with pytest.raises(StateError, match="expected leaf 0 with its checksum"):
        store.get(bytes(32), 0)
    store.drop(bytes(32))
    store.drop(bytes(32))
    assert store.uploads() == ()
    store.put(bytes(32), 0, memoryview(b"late"))  # as a thread does that had begun before
    assert store.get(bytes(32), 0) == b"late"
    store.drop(bytes(32))
    with pytest.raises(StorageError, match="expected a leaf of an update"):
        store.get(bytes(32), 1)
    store.close()


def test_what_was_dropped_is_removed_in_the_end(tmp_path: Path) -> None:
    (tmp_path / f"{bytes(32).hex()}.dropped").write_bytes(b"by a process that was killed")
    store = FolderLeafStore(tmp_path)
    store.put(bytes([1]) * 32, 0, memoryview(b"leaf"))
    store.drop(bytes([1]) * 32)
    wait_until(lambda: [path.name for path in tmp_path.iterdir()] == ["lock"], 60)
    store.close()
    store.close()


def test_leaves_of_one_upload_come_from_several_threads(tmp_path: Path) -> None:
    store = FolderLeafStore(tmp_path / "leaves")
    leaves = {index: bytes([index]) * 1000 for index in range(16)}
    threads = [threading.Thread(target=store.put, args=[bytes(32), i, memoryview(leaf)]) for i, leaf in leaves.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(store.held(bytes(32))) == set(leaves)
    store.close()
    again = FolderLeafStore(tmp_path / "leaves")
    assert again.uploads() == (bytes(32),)
    assert {index: again.get(bytes(32), index) for index in again.held(bytes(32))} == leaves
    with pytest.raises(StorageError, match="another coordinator keeps leaves"):
        FolderLeafStore(tmp_path / "leaves")
    again.close()


def test_a_disk_that_is_full_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full is a disk without room, which writes as other files do."""
    store = FolderLeafStore(tmp_path / "leaves")
    real = os.open
    monkeypatch.setattr("pet.coordinator.leaf_folder.open_private", lambda _path, _flags: real("/dev/full", os.O_RDWR))
    with pytest.raises(StorageError, match="expected room for a leaf of an update, got: No space left"):
        store.put(bytes(32), 0, memoryview(b"leaf"))
    assert store.held(bytes(32)) == ()
    store.close()


FLOATS = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=15")


def play_float_round(players: Players, engine: Pet1Engine, length: int = 3) -> None:
    """Play a round whose participants refuse to start from another model than the record names."""
    players.send_members(engine)
    for player in players.updates:
        record, model = read(engine, Pet1Document.ROUND), read(engine, Pet1Document.MODEL)
        assert record is not None
        assert player.machine.join(record, read(engine, Pet1Document.ENROLMENT) or b"", NOW) is not None
        if model is not None:
            player.machine.check_model(model)
        weights = np.array([player.parties.random.uniform(-1, 1) for _ in range(length)], dtype=np.float32)
        sent = player.machine.mask(read(engine, Pet1Document.COMMITTEE) or b"", weights)
        opened = sent.read_answer(engine.open_update(sent.sealed).answer)
        assert isinstance(opened, UpdateOpen)
        for piece in sent.pieces(opened):
            engine.take_leaves(*read_piece(b"".join(piece)))
    players.send_members(engine)
    players.send_members(engine)
    assert engine.status()["phase"] == "sum"


def float_players(seed: int) -> Players:
    players = Players(Parties(seed=seed))
    for player in players.updates:
        player.machine = player.parties.participant(player.number, terms=None)
    return players


def test_the_next_record_names_the_last_model_after_a_restart_too(tmp_path: Path) -> None:
    players = float_players(seed=5)
    machine = Machine(players, tmp_path, kept_in_memory(), config=FLOATS)
    for _ in range(2):
        play_float_round(players, machine.engine)
        published, shown = read(machine.engine, Pet1Document.MODEL), machine.engine.model()
        assert published is not None
        assert shown is not None
        machine.kill()
        assert read(machine.engine, Pet1Document.MODEL) == published
        again = machine.engine.model()
        assert again is not None
        assert (again.etag, again.to_array().tobytes()) == (shown.etag, published)
    record = RoundRecord.from_bytes(read(machine.engine, Pet1Document.ROUND) or b"")
    assert record.model_digest == digest("pet-1 model", published)
    machine.close()


def test_profiles_alternate_by_round(open_storage: Callable[[], Storage], tmp_path: Path) -> None:
    """The number of the round, the counters and the last model are gone on with; nothing else passes from one to the other."""
    players, length = float_players(seed=6), len(WEIGHTS)
    machine = Machine(players, tmp_path, open_storage, config=FLOATS, model_length=length)
    for turn in (1, 2):
        play_float_round(players, machine.engine, length)
        machine.close()
        made, storage = machine.engine.model(), open_storage()
        assert made is not None
        xaynet = make_engine(machine.clock, storage=storage, model_store=FolderModelStore(tmp_path / "models", 3))
        assert xaynet.was_restored
        assert xaynet.model().etag == made.etag
        xaynet.tick()
        assert xaynet.status()["round"] == made.round_id + 2  # the round that began in between had nobody's update
        run_round(xaynet, machine.clock)
        assert xaynet.status()["rounds_completed"] == 2 * turn
        mean = xaynet.model().to_array()
        storage.close()
        machine.engine = machine._start()
        assert read(machine.engine, Pet1Document.MODEL) == mean.tobytes()
        record = RoundRecord.from_bytes(read(machine.engine, Pet1Document.ROUND) or b"")
        assert record.model_digest == digest("pet-1 model", mean.tobytes())
    machine.close()


def test_what_is_wrong_is_kept_as_evidence_and_forgotten_after_its_rounds(tmp_path: Path) -> None:
    players = Players(update_count=5)
    machine = Machine(players, tmp_path, kept_in_memory(), min_count=5, max_count=5, evidence_rounds=2)
    players.send_members(machine.engine)
    liar = players.updates[0]
    sent = liar.mask(machine.engine)
    assert sent is not None
    liar.sent = with_bad_box(machine.engine, sent, players.parties.participant_keys[0], slot=1)
    players.send_updates(machine.engine)
    players.send_members(machine.engine)
    players.send_members(machine.engine)
    assert machine.engine.status()["rounds_completed"] == 1
    path = tmp_path / "evidence" / "7.evidence"
    evidence = read_evidence(path)
    assert evidence.accused() == {players.parties.participant_keys[0].public_key: (1,)}
    machine.kill()
    for _ in range(2):
        assert path.exists()
        machine.clock.now += 601  # nobody joins
        machine.engine.tick()
    assert not path.exists()
    machine.close()


def with_bad_box(engine: Pet1Engine, sent: OutgoingUpdate, key: SigningKeyPair, slot: int) -> OutgoingUpdate:
    """Return an update as its participant makes it that seals rubbish for a member."""
    current = engine._coordinator.state.round
    assert current is not None
    assert current.committee is not None
    message = open_sealed(sent.sealed, current.keys)
    header = spoil_box(sent.header, key, slot)
    rest = message[HEADER_BYTES + len(header.data) :]
    leaves = [rest[place : place + 32] for place in range(32, len(rest), 32)]
    spoilt = build_update(key, current.committee, header, rest[:32], leaves)
    return replace(sent, header=header, sealed=seal(spoilt, current.record.coordinator_key))


def test_evidence_in_files(tmp_path: Path) -> None:
    evidence = Evidence(
        round_id=9,
        record=b"record",
        enrolment=b"enrolment",
        committee=b"",
        certificate=b"certificate",
        excluded_headers=(b"one", b"two"),
        wrong_answers=(WrongAnswer(slot=2, member=bytes(32), message=b"answer"),),
    )
    store = FolderEvidenceStore(tmp_path)
    store.keep(evidence)
    store.keep(replace(evidence, round_id=10, wrong_answers=()))
    assert read_evidence(tmp_path / "9.evidence") == evidence
    again = FolderEvidenceStore(tmp_path)
    assert again.wrong_members() == {bytes(32)}
    again.forget(before=10)
    assert (again.wrong_members(), [path.name for path in tmp_path.iterdir()]) == (frozenset(), ["10.evidence"])
    data = (tmp_path / "10.evidence").read_bytes()
    for place in range(0, len(data), 7):
        (tmp_path / "10.evidence").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(StateError, match=r"10\.evidence"):
            read_evidence(tmp_path / "10.evidence")


def test_a_round_of_the_other_profile_is_refused_by_name_once_it_has_more_than_announcements(tmp_path: Path) -> None:
    players, open_storage = Players(), kept_in_memory()
    machine = Machine(players, tmp_path, open_storage)
    players.send_members(machine.engine)
    machine.close()
    match = r"profile xaynet, got one of pet/1 in phase update: .*pet\.profile\.name = 'pet/1'.*--fresh"
    with pytest.raises(StateError, match=match):
        make_engine(machine.clock, storage=open_storage())
    other = kept_in_memory()
    xaynet = make_engine(machine.clock, storage=other())
    xaynet.tick()
    round_ = SealedRound(xaynet.parameters() or b"")
    xaynet.handle_message(round_.sum(round_.keys("sum", 1)[0]))
    pass_time(xaynet, machine.clock)
    match = r"profile pet/1, got one of xaynet in phase update: .*pet\.profile\.name = 'xaynet'.*--fresh"
    with pytest.raises(StateError, match=match):
        Machine(players, tmp_path, other)


def test_a_round_whose_result_could_not_be_kept_is_finished_by_the_next_process(tmp_path: Path) -> None:
    """A leaf cannot be read in the middle of the work."""
    players = Players(update_count=4)
    machine = Machine(players, tmp_path, kept_in_memory())
    players.send_members(machine.engine)
    players.send_updates(machine.engine)
    players.send_members(machine.engine)
    gone = next((tmp_path / "leaves").glob("*.leaves"))
    kept = gone.read_bytes()
    gone.unlink()
    players.send_members(machine.engine)
    assert machine.engine.status()["rounds_completed"] == 0
    gone.write_bytes(kept)
    machine.kill()
    assert machine.totals() == {7: players.sum_of(7)}
    machine.close()


def test_new_settings_count_from_the_next_round_on(tmp_path: Path) -> None:
    players = Players()
    machine = Machine(players, tmp_path, kept_in_memory())
    players.send_members(machine.engine)
    machine.kill(model_length=5)
    assert machine.engine.keeps_earlier_settings
    assert machine.engine.status()["phase"] == "update"
    machine.clock.now += 601
    machine.engine.tick()
    assert RoundRecord.from_bytes(read(machine.engine, Pet1Document.ROUND) or b"").model_length == 5
    assert not machine.engine.keeps_earlier_settings
    machine.close()
