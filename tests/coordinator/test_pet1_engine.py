"""The engine of pet/1 with a clock of ours: what it publishes when, and that leaves keep nobody waiting.

Source: docs/spec/profile.md 7.3, 12, 13 (K1, K4, K5), 15.1, 15.3.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pet1_parties import CONFIG, MODEL_LENGTH, Parties
from pet1_players import Players, read

from pet.coordinator.event_log import EventLog
from pet.coordinator.leaf_folder import FolderLeafStore
from pet.coordinator.observation import Observation
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.service import CoordinatorService
from pet.crypto import seal
from pet.errors import StorageError
from pet.mask_config import MaskConfig
from pet.messages import RoundParameters
from pet.pet1.answers import UpdateAccepted, UpdateOpen, UpdateRefused, build_piece, read_piece
from pet.pet1.enrolment import split_signed
from pet.pet1.hashes import digest
from pet.pet1.header_batch import MAX_HEADER_BATCH_BYTES
from pet.pet1.leaves import LEAF_BYTES
from pet.pet1.round_record import RoundRecord
from pet.protocol.pet1_leaf_store import MemoryLeafStore
from pet.protocol.pet1_publications import HeaderPublished, TotalPublished
from pet.transports.base import Endpoint
from pet.transports.pet1 import Pet1Document, Pet1Endpoint, UpdateSizes

#: Two leaves and a bit.
LONG = 2 * LEAF_BYTES // CONFIG.element_bytes + 5


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_engine(players: Players, clock: Clock | None = None, **options: Any) -> Pet1Engine:
    changes = {name: options.pop(name) for name in ("model_length", "sum", "update", "check", "sum2") if name in options}
    engine = Pet1Engine(
        players.settings(**changes),
        clock=clock or Clock(),
        entropy=players.parties.random.randbytes,
        threads=1,
        **{"first_number": 7} | options,
    )
    engine.tick()
    return engine


def test_a_round_from_its_record_to_its_model() -> None:
    players = Players()
    engine = make_engine(players)
    assert isinstance(engine, Endpoint)
    assert isinstance(engine, Pet1Endpoint)
    events: list[Any] = []
    engine.subscribe(events.append)
    engine.subscribe(EventLog())
    observation = Observation(engine)
    players.play(engine)
    (total,) = [event for event in events if isinstance(event, TotalPublished)]
    *totals, weight = players.sum_of(7)
    assert [int(number) for number in total.model.to_array()] == totals
    assert (total.update_count, int(total.model.scalar_sum)) == (4, weight)
    model, published = engine.model(), read(engine, Pet1Document.MODEL)
    assert model is not None
    assert (model.round_id, model.length, model.dtype) == (7, MODEL_LENGTH, np.uint32)
    assert published == np.array([*totals, weight], dtype="<u4").tobytes()
    status = engine.status()
    assert (status["round"], status["phase"], status["rounds_completed"]) == (8, "sum", 1)
    assert observation.snapshot()["rounds"][0]["models"] == 4
    assert observation.snapshot()["window"]["min_count"] == players.parties.enrolment.plan.quorum
    players.play(engine)  # and the next one
    assert read(engine, Pet1Document.MODEL) == np.array(players.sum_of(8), dtype="<u4").tobytes()


def test_documents_come_with_their_phases_and_are_named_by_their_digests() -> None:
    players = Players()
    engine = make_engine(players)
    there = [set[Pet1Document]()]

    def look() -> None:
        there.append({document for document in Pet1Document if engine.document(document) is not None})

    look()
    assert engine.update_sizes() is None
    record, enrolment = read(engine, Pet1Document.ROUND), read(engine, Pet1Document.ENROLMENT)
    assert record is not None
    assert enrolment is not None
    assert RoundRecord.from_bytes(record).enrolment_digest == split_signed(enrolment)[0].digest
    players.send_members(engine)
    look()
    sent = players.updates[0].mask(engine)
    assert sent is not None
    assert engine.update_sizes() == UpdateSizes(len(sent.sealed), len(sent.vector))
    players.send_updates(engine)
    look()
    assert engine.headers(0).headers == tuple(player.sent.header.data for player in players.updates if player.sent)
    names = {document: engine.document(document).digest for document in there[-1]}  # type: ignore[union-attr]
    players.send_members(engine)
    look()
    players.send_members(engine)
    look()
    new = [after - before for before, after in itertools.pairwise(there)]
    begin = {Pet1Document.ROUND, Pet1Document.ENROLMENT}
    assert new == [
        begin,
        {Pet1Document.COMMITTEE},
        {Pet1Document.MANIFEST},
        {Pet1Document.CERTIFICATE},
        {Pet1Document.MODEL},
    ]
    # The round is over: its committee and headers go, what peers look at afterwards stays until the next has its own.
    assert there[-2] - there[-1] == {Pet1Document.COMMITTEE}
    assert engine.document(Pet1Document.MANIFEST).digest == names[Pet1Document.MANIFEST]  # type: ignore[union-attr]
    assert engine.document(Pet1Document.ROUND).digest != names[Pet1Document.ROUND]  # type: ignore[union-attr]
    assert names[Pet1Document.ROUND] == digest("pet-1 round", record)
    assert (engine.headers(0).headers, engine.update_sizes()) == ((), None)


def test_real_xaynet_clients_are_shown_a_round_in_which_nobody_is_selected() -> None:
    players = Players()
    engine = make_engine(players)
    shown = engine.parameters()
    assert shown is not None
    assert len(shown) == 136
    parameters, record = RoundParameters.from_bytes(shown), RoundRecord.from_bytes(read(engine, Pet1Document.ROUND) or b"")
    assert (parameters.sum_probability, parameters.update_probability) == (0.0, 0.0)
    assert (parameters.coordinator_public_key, parameters.seed) == (record.coordinator_key, record.seed)
    assert (parameters.model_length, parameters.mask_config.vect) == (MODEL_LENGTH, MaskConfig.parse("prime-f32-b0-m3"))
    assert (engine.sums(), engine.seeds(bytes(32)), engine.model()) == (None, None, None)


def test_headers_of_one_answer_are_bounded_and_go_on_where_it_says() -> None:
    engine = make_engine(Players())
    size = MAX_HEADER_BATCH_BYTES // 3 - 4  # three fit exactly
    headers = [bytes([number]) * size for number in range(4)] + [bytes(MAX_HEADER_BATCH_BYTES + 1), b"last"]
    for number, header in enumerate(headers):
        engine._update_snapshots(HeaderPublished(round_id=7, number=number, header=header))
    batches, after = [], 0
    while (batch := engine.headers(after)).headers:
        batches.append(len(batch.headers))
        assert batch.headers == tuple(headers[after : batch.next_number])
        after = batch.next_number
    assert batches == [3, 1, 1, 1]
    assert (after, engine.headers(10**9).next_number, engine.headers(-1).headers) == (6, 10**9, ())


def test_an_update_in_pieces_is_answered_by_what_is_missing() -> None:
    players = Players()
    engine = make_engine(players, model_length=LONG)
    players.send_members(engine)
    sent = players.updates[0].mask(engine)
    assert sent is not None
    opened = engine.open_update(sent.sealed)
    assert opened.upload == sent.header.digest
    assert sent.read_answer(opened.answer) == UpdateOpen(8, (False, False, False))

    def send(leaves: range, spoilt: int = 0) -> Any:
        name, first, data = read_piece(b"".join(build_piece(sent.header.digest, leaves, sent.vector)))
        mutable = bytearray(data)
        mutable[0] ^= spoilt
        return sent.read_answer(engine.take_leaves(name, first, mutable))

    assert send(range(2, 3)) == UpdateOpen(8, (False, False, True))
    assert send(range(1), spoilt=1) == UpdateRefused("wrong_leaf")
    assert send(range(2)) == UpdateAccepted()
    assert send(range(1)) == UpdateAccepted()
    again = engine.open_update(sent.sealed)
    assert (sent.read_answer(again.answer), again.upload) == (UpdateAccepted(), None)
    refused = engine.open_update(seal(b"rubbish", bytes(31) + b"\x09"))
    assert (sent.read_answer(refused.answer), refused.upload) == (UpdateRefused("length_mismatch"), None)
    assert engine.status()["rejected"] == {"wrong_leaf": 1, "length_mismatch": 1}


class SlowStore(MemoryLeafStore):
    """Lets nobody through until its gate opens, and counts who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.gate = threading.Semaphore(0), threading.Event()

    def put(self, upload: bytes, index: int, leaf: memoryview) -> None:
        self.waiting.release()
        assert self.gate.wait(60)
        super().put(upload, index, leaf)


def test_two_leaves_at_a_time_and_neither_messages_nor_status_nor_time_wait_for_them() -> None:
    players, clock, store = Players(), Clock(), SlowStore()
    engine = make_engine(players, clock, leaf_store=store)
    players.send_members(engine)
    threads = [threading.Thread(target=player.step, args=[engine]) for player in players.updates[:2]]
    for thread in threads:
        thread.start()
    assert all(store.waiting.acquire(timeout=60) for _ in threads)  # both hash and write at the same time
    members = players.members[0]
    members.step(engine)  # whatever it sends is answered
    engine.tick()
    assert (engine.status()["accepted"], engine.headers(0).headers) == (0, ())
    store.gate.set()
    for thread in threads:
        thread.join(60)
    assert engine.status()["accepted"] == 2


def test_leaves_that_are_written_when_their_phase_is_over_go_again() -> None:
    players, clock, store = Players(), Clock(), SlowStore()
    engine = make_engine(players, clock, leaf_store=store)
    players.send_members(engine)
    answers: list[Any] = []
    late = threading.Thread(target=lambda: answers.append(players.updates[0].step(engine)))
    late.start()
    assert store.waiting.acquire(timeout=60)
    clock.now += 601  # too few updates: the round fails, and the next one begins
    engine.tick()
    assert engine.status()["rounds_failed"] == 1
    store.gate.set()
    late.join(60)
    assert answers == [UpdateRefused("wrong_phase")]
    assert store.leaves == {}


def test_leaves_in_any_order_twice_in_parallel_and_a_strangers_between_them(tmp_path: Path) -> None:
    """Whatever threads bring, each update is counted once, and its vector is the one that was signed."""
    players = Players()
    store = FolderLeafStore(tmp_path)
    engine = make_engine(players, model_length=LONG, leaf_store=store)
    players.send_members(engine)
    jobs: list[tuple[bytes, int, bytes]] = []
    for player in players.updates:
        sent = player.mask(engine)
        assert sent is not None
        engine.open_update(sent.sealed)
        for index in (0, 1, 2, 0, 1, 2):
            name, first, leaf = read_piece(b"".join(build_piece(sent.header.digest, range(index, index + 1), sent.vector)))
            jobs += [(name, first, bytes(leaf)), (name, (first + 1) % 3, bytes(leaf)), (name, first, bytes(len(leaf)))]
    players.parties.random.shuffle(jobs)
    with ThreadPoolExecutor(4) as threads:
        answers = set(threads.map(lambda job: engine.take_leaves(*job)[:12], jobs))
    assert answers <= {b"\x01", *(b"\0\x08\0" + bytes([bits]) for bits in range(8)), b"\x02wrong_leaf", b"\x02length_mism"} | {
        b"\x02wrong_phase"
    }
    assert (engine.status()["phase"], len(engine.headers(0).headers)) == ("check", 4)
    record = RoundRecord.from_bytes(read(engine, Pet1Document.ROUND) or b"")
    for player in players.updates:
        player.accepted.add(record.number)
    players.send_members(engine)
    players.send_members(engine)
    totals = np.frombuffer(read(engine, Pet1Document.MODEL) or b"", dtype="<u4")
    assert (*map(int, totals[:MODEL_LENGTH]), int(totals[-1])) == players.sum_of(record.number)
    assert store.uploads() == ()
    store.close()


class NotingStore(MemoryLeafStore):
    """Notes the order of what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int | str] = []

    def put(self, upload: bytes, index: int, leaf: memoryview) -> None:
        self.calls.append(index)
        super().put(upload, index, leaf)

    def sync(self, upload: bytes) -> None:
        self.calls.append("sync")


def test_leaves_of_a_piece_are_durable_together_before_any_of_them_is_in_an_answer() -> None:
    players, store = Players(), NotingStore()
    engine = make_engine(players, model_length=LONG, leaf_store=store)
    players.send_members(engine)
    sent = players.updates[0].mask(engine)
    assert sent is not None
    upload = engine.open_update(sent.sealed).upload
    assert upload is not None
    leaves = [sent.vector[start : start + LEAF_BYTES] for start in range(0, len(sent.vector), LEAF_BYTES)]
    piece = engine.begin_piece(upload)
    assert piece.finish() is None
    assert piece.take(0, leaves[0], is_last=False) is None
    again = sent.read_answer(engine.open_update(sent.sealed).answer)
    assert isinstance(again, UpdateOpen)
    assert (again.have, store.calls) == ((True, False, False), [0, "sync"])
    assert sent.read_answer(piece.finish() or b"") == again
    assert piece.take(2, leaves[2], is_last=False) is None
    assert sent.read_answer(piece.take(1, leaves[0], is_last=False) or b"") == UpdateRefused("wrong_leaf")
    assert sent.read_answer(piece.take(1, leaves[1], is_last=False) or b"") == UpdateAccepted()
    assert store.calls == [0, "sync", "sync", 2, "sync", 1, "sync"]
    assert piece.finish() is None


class FullStore(MemoryLeafStore):
    is_full = False

    def put(self, upload: bytes, index: int, leaf: memoryview) -> None:
        if self.is_full:
            raise StorageError("leaves: expected room on the disk, got none")
        super().put(upload, index, leaf)


def test_a_full_disk_is_an_error_for_the_sender_and_nothing_else() -> None:
    players, store = Players(), FullStore()
    store.is_full = True
    engine = make_engine(players, leaf_store=store)
    players.send_members(engine)
    with pytest.raises(StorageError, match="room on the disk"):
        players.updates[0].step(engine)
    store.is_full = False
    assert players.updates[0].step(engine) == UpdateAccepted()


def test_status_says_what_each_slot_has_done_and_who_is_waited_for() -> None:
    players = Players()
    engine = make_engine(players)
    players.send_members(engine, [0, 2])
    waiting = engine.status()["waiting"]
    assert (waiting["slots"], waiting["missing"]) == ([1], 1)
    assert "slot 1 has sent none" in waiting["text"]
    assert [slot["announced"] for slot in engine.status()["slots"]] == [True, False, True]
    players.send_members(engine, [1])
    assert "Start more participants" in engine.status()["waiting"]["advice"]
    players.send_updates(engine)
    players.send_members(engine, [0])
    status = engine.status()
    assert (status["phase"], status["waiting"]["slots"]) == ("check", [1, 2])
    assert [slot["checked"] for slot in status["slots"]] == [True, False, False]


def test_a_service_runs_it() -> None:
    """Threads, time and bodies are those of every coordinator."""
    players = Players(Parties(seed=3))

    async def play() -> dict[str, Any]:
        engine = Pet1Engine(players.settings(), threads=1)
        async with CoordinatorService(engine, workers=1) as service:
            await asyncio.to_thread(players.play, engine)
            assert service.is_healthy
            return engine.status()

    assert asyncio.run(play())["rounds_completed"] == 1
