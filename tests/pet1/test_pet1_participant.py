"""The update participant of pet/1: what it makes is that of the vectors, once, and nothing else makes it send."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pet1_peers import NOW, Disk, make_participant, policy_of, served_enrolment, take_double_weights, weights_of
from pet1_rounds import ROUNDS, VectorRound, reason_of, vector_round

import pet
from pet.crypto import EncryptionKeyPair, SigningKeyPair, open_sealed
from pet.errors import LocalProtocolError, ModelError, RemoteProtocolError, StateError
from pet.mask_choices import Derivation, FieldValues
from pet.participant.pet1_model import HeldModel
from pet.pet1.answers import UpdateAccepted, UpdateOpen, UpdateRefused, read_answer, read_piece
from pet.pet1.committee import Committee, build_sum
from pet.pet1.federation import FederationPolicy
from pet.pet1.hashes import digest
from pet.pet1.leaves import LEAF_BYTES
from pet.pet1.round_record import RoundRecord
from pet.protocol.pet1_participant import OutgoingUpdate, RoundTerms, UpdateParticipant
from pet.protocol.weight_sums import WeightSums

ROUND = vector_round("3of5")
UPDATE = ROUND.entry["updates"][0]
MODEL = digest("pet-1 vectors", b"3of5 model")


@pytest.fixture(autouse=True)
def double_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    take_double_weights(monkeypatch)


def joined(round_: VectorRound, update: dict[str, Any], disk: Disk, **options: Any) -> UpdateParticipant:
    participant = make_participant(round_, update, disk, **options)
    assert participant.join(round_.bytes_of("round"), served_enrolment(round_), NOW) == round_.record
    return participant


@pytest.mark.parametrize("name", ROUNDS)
def test_updates_are_those_of_the_vectors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    round_ = vector_round(name)
    # The model itself is not in the vectors.
    monkeypatch.setattr(UpdateParticipant, "check_model", lambda self, model: setattr(self._joined, "has_model", True))
    keys = EncryptionKeyPair.from_secret_key(round_.bytes_of("coordinator_secret"))
    for update in (each for each in round_.entry["updates"] if not each["poisoned"]):
        disk = Disk()
        participant = joined(round_, update, disk)
        participant.check_model(b"")
        made = participant.mask(round_.bytes_of("committee"), *weights_of(round_, update))
        assert open_sealed(made.sealed, keys).hex() == update["message"]
        assert bytes(made.vector).hex() == update["vector"]
        assert made.clipped_count == update.get("clipped", 0)
        assert made.header.digest.hex() == update["header_digest"]
        size, *parts = made.body()
        assert b"".join([size, *parts]) == len(made.sealed).to_bytes(4, "little") + made.sealed + made.vector
        assert participant.last_number == round_.record.number
        for secret in ("master", "e", "salt"):
            assert update[secret].encode() not in b"".join(disk.states)


@pytest.mark.parametrize("name", ROUNDS)
def test_a_vector_is_made_where_its_weights_were(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    round_ = vector_round(name)
    monkeypatch.setattr(UpdateParticipant, "check_model", lambda self, model: setattr(self._joined, "has_model", True))
    update = next(each for each in round_.entry["updates"] if not each["poisoned"])
    weights, scalar = weights_of(round_, update)
    memory = np.zeros(round_.record.vector_bytes, dtype=np.uint8)
    if weights.nbytes + weights.itemsize == len(memory):
        place = memory[: weights.nbytes].view(weights.dtype)
        place[:] = weights
        weights = place
    participant = joined(round_, update, Disk())
    participant.check_model(b"")
    made = participant.mask(round_.bytes_of("committee"), weights, scalar, memory=memory)
    assert bytes(made.vector).hex() == update["vector"] == memory.tobytes().hex()


def without_model() -> tuple[RoundRecord, bytes, bytes]:
    """Return a round of the same participants that begins without a model, and its enrolment and committee."""
    record = replace(ROUND.record, model_digest=bytes(32))
    sums = [build_sum(key, record, slot, ROUND.committee.points[slot] or b"") for slot, key in enumerate(ROUND.members())]
    return record, served_enrolment(ROUND), Committee.of(record, ROUND.enrolment, sums).to_bytes()


def test_one_update_for_a_number_and_no_weights_twice() -> None:
    record, enrolment, committee = without_model()
    disk = Disk()
    participant = make_participant(ROUND, UPDATE, disk)
    assert participant.join(record.to_bytes(), enrolment, NOW) == record
    weights, scalar = weights_of(ROUND, UPDATE)
    participant.mask(committee, weights, scalar)
    with pytest.raises(LocalProtocolError, match="expected a round that was joined and has no update yet"):
        participant.mask(committee, weights + 0.125, scalar)
    # Restored or not, a number serves once.
    again = make_participant(ROUND, UPDATE, Disk(), saved=disk.latest)
    for each in (participant, again):
        assert reason_of(each.join, record.to_bytes(), enrolment, NOW) == "wrong_round"
        other = replace(record, seed=bytes(32))
        assert reason_of(each.join, other.to_bytes(), enrolment, NOW) == "wrong_round"
    later = replace(record, number=record.number + 1)
    assert participant.join(later.to_bytes(), enrolment, NOW) == later
    with pytest.raises(RemoteProtocolError) as caught:
        participant.mask(committee, weights, scalar)
    assert caught.value.reason == "wrong_round"  # the committee of the round before
    sums = [build_sum(key, later, slot, ROUND.committee.points[slot] or b"") for slot, key in enumerate(ROUND.members())]
    new_committee = Committee.of(later, ROUND.enrolment, sums).to_bytes()
    with pytest.raises(ModelError, match="train again"):
        participant.mask(new_committee, weights, scalar)
    participant.mask(new_committee, weights + 0.125, scalar)


def test_what_is_not_durable_is_not_sent() -> None:
    record, enrolment, committee = without_model()
    disk = Disk()
    participant = make_participant(ROUND, UPDATE, disk)
    participant.join(record.to_bytes(), enrolment, NOW)
    disk.is_full = True
    with pytest.raises(OSError, match="no space"):
        participant.mask(committee, *weights_of(ROUND, UPDATE))
    assert participant.last_number is None
    disk.is_full = False
    participant.mask(committee, *weights_of(ROUND, UPDATE))
    assert participant.last_number == record.number


def test_the_model_must_be_the_one_of_the_record() -> None:
    participant = joined(ROUND, UPDATE, Disk())
    with pytest.raises(LocalProtocolError, match="model of the round to be checked first"):
        participant.mask(ROUND.bytes_of("committee"), *weights_of(ROUND, UPDATE))
    assert reason_of(participant.check_model, b"another") == "wrong_model"
    participant.check_model(MODEL)
    with pytest.raises(ModelError, match="expected 7, got 6"):
        participant.mask(ROUND.bytes_of("committee"), np.zeros(6), 1)
    with pytest.raises(LocalProtocolError):
        make_participant(ROUND, UPDATE, Disk()).check_model(MODEL)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("values", FieldValues.F64),
        ("derivations", (Derivation.Z64,)),
        ("max_updates", 99),
        ("max_bound", 0.5),
        ("max_vector_bytes", 31),
    ],
)
def test_numbers_that_a_participant_does_not_agree_to(name: str, value: Any) -> None:
    terms = RoundTerms(**{name: frozenset(value) if name == "derivations" else value})
    participant = make_participant(ROUND, UPDATE, Disk(), terms=terms)
    assert reason_of(participant.join, ROUND.bytes_of("round"), served_enrolment(ROUND), NOW) == "unacceptable_terms"


def test_who_is_not_enrolled_or_not_selected_is_idle() -> None:
    stranger = UpdateParticipant(
        signing_key=SigningKeyPair.from_seed(bytes(32)), policy=policy_of(ROUND), entropy=bytes, store=Disk()
    )
    assert stranger.join(ROUND.bytes_of("round"), served_enrolment(ROUND), NOW) is None
    nobody = replace(ROUND.record, update_share=0)
    disk = Disk()
    participant = make_participant(ROUND, UPDATE, disk)
    assert participant.join(nobody.to_bytes(), served_enrolment(ROUND), NOW) is None
    # It accepted the enrolment all the same: an older one, with keys that were removed since, is refused from now on.
    assert ROUND.enrolment.digest.hex().encode() in disk.latest


def test_the_enrolment_must_be_the_one_of_the_record_and_not_an_older_one() -> None:
    authority = SigningKeyPair.from_seed(bytes(32))
    policy = replace(policy_of(ROUND), authority=authority.public_key)
    disk = Disk()
    participant = make_participant(ROUND, UPDATE, disk, policy=policy)
    old = ROUND.enrolment
    new = replace(old, version=old.version + 1)
    assert reason_of(participant.join, ROUND.bytes_of("round"), new.sign(authority), NOW) == "unknown_enrolment"
    record = replace(ROUND.record, enrolment_digest=new.digest)
    assert participant.join(record.to_bytes(), new.sign(authority), NOW) == record
    for each in (participant, make_participant(ROUND, UPDATE, Disk(), policy=policy, saved=disk.latest)):
        assert reason_of(each.join, ROUND.bytes_of("round"), old.sign(authority), NOW) == "enrolment_rolled_back"


def test_a_federation_has_its_own_rules() -> None:
    round_ = vector_round("federation_z64_integers")
    update = round_.entry["updates"][0]
    policy = FederationPolicy(admin=round_.bytes_of("authority_key"), confirmed=frozenset(round_.enrolment.participants))
    now = round_.enrolment.expires - 600
    participant = make_participant(round_, update, Disk(), policy=policy)
    served = served_enrolment(round_)
    other = replace(round_.record, number=43)
    assert reason_of(participant.join, other.to_bytes(), served, now) == "wrong_round"
    assert participant.join(round_.bytes_of("round"), served, now) == round_.record
    # Integers start from no model, and may be the same as before: there F1 to F5 protect.
    weights, weight = weights_of(round_, update)
    assert participant.mask(round_.bytes_of("committee"), weights, weight).vector.hex() == update["vector"]


def test_states_that_are_none() -> None:
    disk = Disk()
    joined(ROUND, UPDATE, disk)
    assert b"do not restore this from a backup" in disk.latest
    for data in (
        b"",
        b"[]",
        b"{}",
        disk.latest[:-1],
        disk.latest.replace(b'"format": 1', b'"format": 2'),
        disk.latest.replace(b'"update participant"', b'"member"'),
        disk.latest.replace(b'"last_number": null', b'"last_number": -1'),
        disk.latest.replace(b'"round": {}', b'"round": {"a": 1}'),
        disk.latest.replace(b'"enrolment": [', b'"enrolment": ["1", '),
    ):
        with pytest.raises(StateError):
            make_participant(ROUND, UPDATE, Disk(), saved=data)


def outgoing(leaves: int) -> OutgoingUpdate:
    return OutgoingUpdate(
        header=next(iter(ROUND.headers.values())),
        sealed=b"",
        vector=memoryview(bytes(LEAF_BYTES * leaves - 4)),
        leaf_count=leaves,
        clipped_count=0,
    )


def test_pieces_are_what_is_missing() -> None:
    update = outgoing(36)
    have = tuple(index in (3, 35) for index in range(36))
    answer = UpdateOpen(8, have)
    assert update.read_answer(answer.encode()) == answer
    assert list(answer.missing()) == [range(3), range(4, 20), range(20, 35)]
    pieces = list(update.pieces(answer))
    for leaves, parts in zip(answer.missing(), pieces, strict=True):
        header_digest, first, data = read_piece(b"".join(parts))
        assert (header_digest, first, len(data)) == (update.header.digest, leaves.start, LEAF_BYTES * len(leaves))
    assert [len(data) for _, data in update.pieces(UpdateOpen(1, (*[True] * 35, False)))] == [LEAF_BYTES - 4]
    assert list(UpdateOpen(1, (True, True)).missing()) == []
    assert reason_of(read_piece, bytes(36)) == "length_mismatch"


def test_answers_are_read_strictly() -> None:
    for answer in (UpdateAccepted(), UpdateRefused("wrong_leaf"), UpdateOpen(1, (True, False, True))):
        assert read_answer(answer.encode(), 3) == answer
    for data in (
        b"",
        b"\0",
        b"\0\0\0\0",  # no piece may be in flight
        b"\0\1\0\x08",  # a leaf beyond the last
        b"\0\1\0\0\0",
        b"\1\0",
        b"\2",
        b"\2two words",
        b"\2" + b"a" * 101,
        b"\2\xff",
        b"\3",
    ):
        assert reason_of(read_answer, data, 3) == "malformed_answer"


def test_weights_that_clip_can_be_refused() -> None:
    record, enrolment, committee = without_model()
    participant = make_participant(ROUND, UPDATE, Disk())
    participant.join(record.to_bytes(), enrolment, NOW)
    with pytest.raises(pet.ModelError, match="within the bound"):
        participant.mask(committee, np.full(7, 2.0), 1, on_clip="raise")


@pytest.mark.parametrize("dtype", ["f4", "f8", "u4"])
@pytest.mark.parametrize("length", [1, 8191, 8192, 20_001])
def test_any_other_weight_is_another_model(dtype: str, length: int) -> None:
    """Rows that are summed, and the rest that is hashed: one weight makes a difference in both, wherever it stands."""
    weights = np.random.default_rng(length).integers(0, 1000, length).astype(dtype)
    known = {WeightSums.of(weights).remembered(bytes(32))}
    for place in {0, length // 2, length - 1}:
        changed = weights.copy()
        changed[place] += 1
        known.add(WeightSums.of(changed).remembered(bytes(32)))
    assert len(known) == 1 + len({0, length // 2, length - 1})
    assert WeightSums.of(np.repeat(weights, 2)[::2]).remembered(bytes(32)) in known
    assert WeightSums.of(np.roll(weights, 1)).remembered(bytes(32)) not in known or length == 1
    assert WeightSums.of(weights).remembered(bytes([1]) * 32) not in known


def test_a_copy_of_weights_is_remembered_as_they_are() -> None:
    """A held model is summed piece by piece, while it is copied."""
    weights = np.random.default_rng(3).uniform(-1, 1, 300_001).astype(np.float32)
    held = HeldModel.of(weights[::-1])
    assert held.sums.remembered(bytes(32)) == WeightSums.of(weights[::-1]).remembered(bytes(32))
    assert held.sums.remembered(bytes(32)) != WeightSums.of(weights).remembered(bytes(32))
