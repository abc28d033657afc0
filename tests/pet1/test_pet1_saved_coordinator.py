"""The saved state of a coordinator of pet/1: killed at every step, it goes on; damaged, it is refused.

Source: docs/spec/profile.md 14.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from pet1_peers import entropy_of
from pet1_rounds import vector_round
from pet1_sessions import Session
from test_pet1_coordinator import make_header, signed_update

from pet.crypto import SigningKeyPair
from pet.errors import StateError
from pet.pet1.answers import UpdateAccepted, UpdateOpen, UpdateRefused
from pet.pet1.committee import build_sum
from pet.pet1.leaves import LEAF_BYTES, build_update, derive_leaf_digests, derive_vector_digest
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_context
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_leaf_store import MemoryLeafStore
from pet.protocol.pet1_publications import TotalPublished
from pet.protocol.pet1_saved_state import load_pet1_state, save_pet1_state
from pet.protocol.phases import Phase
from pet.protocol.saved_state import load_state

UPDATES = vector_round("3of5").entry["updates"]
Saved: TypeAlias = tuple[dict[str, Any], list[bytes], MemoryLeafStore]


def play(session: Session, between: Callable[[], None]) -> Session:
    """Play a round of the vectors, with something after each of its messages."""
    for message in session.round.entry["sums"]:
        assert session.send(bytes.fromhex(message)) is None
        between()
    for update in UPDATES:
        session.open_update(update)
        between()  # the upload is no longer known, unless it is opened again
        session.open_update(update)
        assert session.piece(update, 0, bytes.fromhex(update["vector"])) == UpdateAccepted()
        between()
    assert session.phase is Phase.CHECK
    for message in session.round.checks().values():
        assert session.send(message) is None
        between()
    for message in session.round.entry["sum2"].values():
        assert session.send(bytes.fromhex(message)) is None
        between()
    return session


def test_a_coordinator_that_is_killed_after_every_step_ends_with_the_same_sum() -> None:
    session = Session("3of5")
    play(session, session.restart)
    total = next(event for event in session.events if isinstance(event, TotalPublished))
    assert [float(mean).hex() for mean in total.model.to_array("float64")] == session.round.entry["mean"]
    assert (session.phase, session.coordinator.round_id) == (Phase.SUM, session.round.record.number + 1)
    assert session.coordinator.state.rounds_completed == 1
    assert session.leaves.leaves == {}
    assert session.disk.entries == []


def test_a_coordinator_that_is_killed_before_its_result_is_durable_makes_it_again() -> None:
    session = Session("3of5").to_sum2()
    *others, last = session.round.entry["sum2"].values()
    for message in others:
        session.send(bytes.fromhex(message))
    disk = session.disk.snapshot()
    session.send(bytes.fromhex(last))
    assert session.leaves.leaves == {}  # the result is durable, so the leaves may go
    assert disk.leaves.leaves
    session.disk, session.events = disk, []
    session.restart()
    session.send(bytes.fromhex(last))
    assert session.published(TotalPublished).update_count == 5


def test_time_that_a_phase_has_lasted_and_counters_outlive_a_restart() -> None:
    session = Session("3of5").to_update()
    session.whole_update(UPDATES[0])
    session.open_update(UPDATES[1])
    session.piece(UPDATES[1], 1, b"")
    session.wait(7)
    before = session.coordinator.status(session.now)
    session.now += 1000  # it was down: participants could not come
    session.restart()
    assert session.coordinator.status(session.now) == before
    assert before.rejected == {"length_mismatch": 1}
    assert session.coordinator.settings == session.settings


def test_leaves_that_came_before_a_kill_need_not_come_again() -> None:
    """Three leaves of which two came; one of them was torn by the kill."""
    length = 2 * LEAF_BYTES // 4 + 2
    round_, session = vector_round("1of1"), Session("1of1", model_length=length - 1)
    record = session.coordinator.state.round.record
    session.send(build_sum(round_.members()[0], record, 0, round_.committee.points[0] or b""))
    committee = session.coordinator.state.round.committee
    key = SigningKeyPair.from_seed(bytes.fromhex(round_.entry["updates"][0]["signing_seed"]))
    secrets = UpdateSecrets.from_random(bytes(range(96)))
    vector = bytes(range(256)) * (LEAF_BYTES // 128) + bytes(8)
    leaves = derive_leaf_digests(vector, derive_context(committee.digest, key.public_key, secrets.point))
    header = ShareHeader.build(key, committee, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))
    sealed, named = (
        session.seal(build_update(key, committee, header, secrets.salt, leaves)),
        {"header_digest": header.digest.hex()},
    )
    session.coordinator.open_update(sealed, session.now)
    session.piece(named, 0, vector[: 2 * LEAF_BYTES])
    session.restart()
    assert session.piece(named, 2, vector[2 * LEAF_BYTES :]) == UpdateRefused("unknown_upload")
    session.leaves.leaves[header.digest][1] = bytes(LEAF_BYTES)
    session.coordinator.release_leaves()
    assert session.coordinator.open_update(sealed, session.now) == UpdateOpen(8, (True, False, False))
    assert session.piece(named, 1, vector[LEAF_BYTES:]) == UpdateAccepted()


def test_what_is_closed_for_good_stays_closed() -> None:
    session = Session("3of5").to_update()
    key, secrets = (
        SigningKeyPair.from_seed(bytes.fromhex(UPDATES[0]["signing_seed"])),
        UpdateSecrets.from_random(bytes(range(96))),
    )
    vector = b"\xff" * 32
    message = signed_update(key, secrets, vector)
    named = {"header_digest": make_header(key, secrets, vector).digest.hex()}
    session.coordinator.open_update(session.seal(message), session.now)
    assert session.piece(named, 0, vector) == UpdateRefused("invalid_element")
    session.restart()
    assert session.coordinator.open_update(session.seal(message), session.now) == UpdateRefused("invalid_element")
    assert session.open_update(UPDATES[0]) == UpdateRefused("update_already_submitted")


def test_a_coordinator_before_its_first_round() -> None:
    session = Session("3of5")
    fresh = Pet1Coordinator(session.settings, now_seconds=5, entropy=bytes, round_id=41, threads=1)
    record = json.loads(json.dumps(save_pet1_state(fresh, 6)))
    settings, state = load_pet1_state(record, [], MemoryLeafStore(), now_seconds=100)
    assert (settings, state.round, state.round_id, state.phase_started_seconds) == (None, None, 41, 99)
    again = Pet1Coordinator(
        session.settings, now_seconds=100, entropy=entropy_of(bytes(32), bytes(32)), round_id=0, state=state, threads=1
    )
    again.advance_time(100)
    assert (again.phase, again.round_id) == (Phase.SUM, 42)


# ---- damage ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved() -> Saved:
    session = Session("3of5").to_sum2()
    session.send(bytes.fromhex(session.round.entry["sum2"]["0"]))
    return json.loads(session.disk.record), session.disk.entries, session.leaves


def changed(record: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a record with another value somewhere; without it, if it is None."""
    copy = json.loads(json.dumps(record))
    *outer, last = path.split(".")
    inner = copy
    for name in outer:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("profile", "xaynet", "expected a round of pet/1"),
        ("profile", None, "no 'profile'"),
        ("phase", "failure", "expected a phase that can be gone on with"),
        ("phase", "idle", "expected a phase that can be gone on with"),
        ("phase", "check", "wrong_slot|expected"),
        ("round_id", 7, "of another one"),
        ("seed", "00", "of another one"),
        ("elapsed_seconds", -1, "expected a phase that began"),
        ("round.secret_key", "07" * 32, "of another one"),
        ("round.enrolment", "00", "expected"),
        ("round.next_model_digest", "00", "of another one"),
        ("round.settings.min_count", 0, "min_count"),
        ("round.settings.check", [7, 3], "times"),
        ("round.settings.sum2", None, "no 'sum2'"),
    ],
)
def test_records_that_are_none(saved: Saved, path: str, value: object, error: str) -> None:
    record, entries, leaves = saved
    load_pet1_state(record, entries, leaves, now_seconds=0)
    if path == "phase" and value == "check":
        assert load_pet1_state(changed(record, path, value), entries, leaves, now_seconds=0)[1].round is not None
        return
    with pytest.raises(StateError, match=error):
        load_pet1_state(changed(record, path, value), entries, leaves, now_seconds=0)


def test_entries_that_are_none(saved: Saved) -> None:
    record, entries, leaves = saved
    sums, updates = entries[:5], [entry for entry in entries if entry[0] == 0x12]
    answer = entries[-1]
    for wrong, error in (
        ([b"\x77"], "expected a kind of message, got 119"),
        ([b""], "IndexError"),
        (sums[:3], "too_few_members|expected 4 members"),
        ([entry for entry in entries if entry not in updates], "expected 3 or more updates|expected the root"),
        ([*entries[:-1], answer[:1] + b"\xff\0" + answer[3:]], "expected a slot that is taken, got 255"),
        ([*entries[:-1], answer[:-1]], "expected a share"),
        ([sums[0][:-1], *entries[1:]], "expected the length"),
    ):
        with pytest.raises(StateError, match=error):
            load_pet1_state(record, wrong, leaves, now_seconds=0)
    with pytest.raises(StateError, match="1 are missing"):
        load_pet1_state(record, entries, MemoryLeafStore(dict(list(leaves.leaves.items())[1:])), now_seconds=0)


def test_no_profile_goes_on_with_the_state_of_another(saved: Saved) -> None:
    with pytest.raises(StateError, match="expected a round of xaynet's profile, got one of 'pet/1'"):
        load_state(saved[0], 0)
