"""What a coordinator of pet/1 counts, keeps and hands on (K5, K6), and what participants can see of the agreed set (U9)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pet1_parties import HonestRound, Parties, spoil_box
from pet1_peers import NOW, Disk, make_member, make_participant
from pet1_rounds import reason_of, vector_round
from pet1_sessions import Session

from pet.errors import LocalProtocolError, StateError
from pet.pet1.answers import UpdateAccepted
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check
from pet.pet1.hashes import digest
from pet.pet1.inclusion import Inclusion, find_update
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, sign_message
from pet.pet1.round_record import RoundRecord
from pet.protocol import events
from pet.protocol.pet1_leaf_store import MemoryLeafStore
from pet.protocol.pet1_publications import (
    CertificatePublished,
    CommitteePublished,
    HeaderPublished,
    ManifestPublished,
    RoundAnnounced,
    TotalPublished,
    pack_model,
)
from pet.protocol.phases import Phase

ROUND = vector_round("3of5")
UPDATES = ROUND.entry["updates"]


def finish(session: Session, answers: dict[int, bytes] | None = None) -> Session:
    """Play the round to its end."""
    session.to_sum2()
    sent = answers or {int(slot): bytes.fromhex(message) for slot, message in session.round.entry["sum2"].items()}
    for message in sent.values():
        assert session.send(message) is None
    session.wait(0 if session.phase is Phase.SUM else 600)
    return session


def with_a_lie(slot: int) -> dict[int, bytes]:
    answers = {int(slot): bytes.fromhex(message) for slot, message in ROUND.entry["sum2"].items()}
    lie = answers[slot][136:168] + bytes(ROUND.record.vector_bytes)
    return answers | {slot: sign_message(ROUND.members()[slot], ROUND.record.coordinator_key, Pet1Tag.SUM2, lie)}


def test_a_wrong_answer_and_a_bad_update_are_kept_as_they_were_signed() -> None:
    answers = with_a_lie(2)
    session = finish(Session("3of5"), answers)
    (evidence,) = session.disk.evidence.rounds.values()
    assert (evidence.round_id, evidence.certificate) == (ROUND.record.number, ROUND.bytes_of("certificate"))
    (wrong,) = evidence.wrong_answers
    assert (wrong.slot, wrong.member, wrong.message) == (2, ROUND.enrolment.members[2], answers[2])
    # That the update is bad follows for anybody from these bytes alone.
    bad = next(update for update in UPDATES if update["poisoned"])
    complaining = tuple(slot for slot, message in ROUND.checks().items() if len(message) > 136 + 36)
    assert evidence.accused() == {bytes.fromhex(bad["participant"]): complaining}
    assert [data.hex() for data in evidence.excluded_headers] == [bad["header"]]
    assert "0x" not in repr(evidence)
    # The next round shows who was wrong in this one.
    assert session.phase is Phase.SUM
    assert [slot for slot, status in enumerate(session.coordinator.slots()) if status.wrong] == [2]


def test_evidence_is_kept_for_some_rounds() -> None:
    session = finish(Session("3of5", evidence_rounds=2), with_a_lie(2))
    for _ in range(2):
        assert session.coordinator.slots()[2].wrong
        session.wait(600)  # a round that nobody joins
    assert not session.coordinator.slots()[2].wrong
    assert session.disk.evidence.rounds == {}


def test_an_answer_in_chunks_is_kept_without_a_signature() -> None:
    session = Session("3of5").to_sum2()
    answers = with_a_lie(2)
    for slot, message in answers.items():
        if slot == 2:
            session.send_chunks(ROUND.members()[2], message[136:])
        else:
            session.send(message)
    (evidence,) = session.disk.evidence.rounds.values()
    assert evidence.wrong_answers[0].message == answers[2][136:]


def test_updates_that_stay_incomplete_are_counted_when_their_phase_ends() -> None:
    session = Session("3of5").to_update()
    for update in UPDATES[:3]:
        session.whole_update(update)
    session.open_update(UPDATES[3])
    session.wait(10)
    refused = [event for event in session.events if isinstance(event, events.MessageRefused)]
    assert [(event.reason, event.phase) for event in refused] == [("incomplete_update", Phase.UPDATE)]
    assert session.coordinator.state.round.uploads.keys() == set(session.coordinator.state.round.updates)
    failing = Session("3of5").to_update()
    failing.open_update(UPDATES[0])
    failing.wait(3600)
    reasons = [event.reason for event in failing.events if isinstance(event, events.MessageRefused | events.RoundFailed)]
    assert reasons == ["incomplete_update", "too_few_updates"]


def test_the_next_round_starts_from_the_model_of_the_one_before() -> None:
    """Participants check the model that they get by the record (U3): a record with an older digest would stop them all."""
    session = finish(Session("3of5"))
    model = session.published(TotalPublished).model
    served = pack_model(model, ROUND.record.config)
    assert served == model.to_array().astype("<f4").tobytes()
    assert announced(session).model_digest == digest("pet-1 model", served)
    session.restart()
    session.wait(600)  # nobody joins: the model is still the same
    assert announced(session).model_digest == digest("pet-1 model", served)
    session.coordinator.next_settings = replace(session.settings, model_length=9)
    session.wait(600)  # a model of another length starts from what the settings say
    assert announced(session).model_digest == session.settings.model_digest


def test_totals_of_integers_are_no_model_to_start_from() -> None:
    session = finish(Session("federation_z64_integers"))
    total = session.published(TotalPublished)
    entry = session.round.entry
    assert pack_model(total.model, session.round.record.config) == b"".join(
        int(element).to_bytes(8, "little") for element in entry["total"]
    )
    assert announced(session).model_digest == session.round.record.model_digest


def announced(session: Session) -> RoundRecord:
    """Return the record of the round that began last."""
    return RoundRecord.from_bytes([event for event in session.events if isinstance(event, RoundAnnounced)][-1].record)


def test_answers_are_compared_by_random_vectors_that_are_drawn_after_the_last_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knew them beforehand could make a wrong answer that fits (K7)."""
    session, drawn = Session("3of5").to_sum2(), list[int]()

    def draw(size: int) -> bytes:
        drawn.append(len(session.coordinator.state.round.answers))
        return b"\7" * size

    monkeypatch.setattr("pet.shares.os.urandom", draw)
    for message in session.round.entry["sum2"].values():
        assert not drawn
        session.send(bytes.fromhex(message))
    assert drawn
    assert set(drawn) == {len(session.round.entry["sum2"])}


def test_scalars_that_vanish_fail_the_round() -> None:
    """Updates that all weigh nothing have no mean."""
    round_ = vector_round("1of1")
    session = Session("1of1", model_digest=bytes(32))
    record, enrolment = session.published(RoundAnnounced).record, session.published(RoundAnnounced).enrolment
    member = make_member(round_, 0, Disk())
    assert session.send(member.join(record, enrolment, NOW) or b"") is None
    committee = session.published(CommitteePublished).committee
    for update in round_.entry["updates"]:
        participant = make_participant(round_, update, Disk())
        participant.join(record, enrolment, NOW)
        weights = np.full(round_.record.model_length, len(session.events), dtype=round_.record.config.dtype)
        made = participant.mask(committee, weights, 0)
        assert session.coordinator.take_whole_update(b"".join(made.body()), session.now) == UpdateAccepted()
        session.collect()
    session.wait(0 if session.phase is Phase.CHECK else 10)
    member.receive_committee(committee)
    for event in session.events:
        if isinstance(event, HeaderPublished):
            member.receive_header(event.header)
    member.receive_manifest(session.published(ManifestPublished).manifest)
    assert session.send(member.sign_check()) is None
    assert session.send(member.answer(session.published(CertificatePublished).certificate) or b"") is None
    assert [event.reason for event in session.events if isinstance(event, events.RoundFailed)] == ["no_weight"]


# ---- what a participant sees -----------------------------------------------------------------------------------------------


def test_participants_of_the_vectors_see_whether_they_are_in_the_sum() -> None:
    manifest, certificate = ROUND.bytes_of("manifest"), ROUND.bytes_of("certificate")
    found = {}
    for update in UPDATES:
        header = ROUND.headers[bytes.fromhex(update["participant"])]
        found[update["participant"]] = find_update(header, ROUND.committee, manifest, certificate)
    excluded = dict.fromkeys(ROUND.entry["excluded"], Inclusion.EXCLUDED)
    assert excluded
    assert found == dict.fromkeys(found, Inclusion.AGREED) | excluded
    header = ROUND.headers[bytes.fromhex(UPDATES[0]["participant"])]
    assert reason_of(find_update, header, ROUND.committee, manifest[:-1], certificate) == "malformed_manifest"
    assert reason_of(find_update, header, ROUND.committee, manifest, certificate[:-1]) == "malformed_certificate"


def test_a_participant_asks_for_its_own_update() -> None:
    """Left out of the list; under complaint by a liar, which changes nothing; and certificates that are none."""
    played = HonestRound.play(Parties(), update_count=4)
    parties, committee = played.parties, played.committee
    participant = parties.participant(5)
    with pytest.raises(LocalProtocolError, match="since it started"):
        participant.find_update(b"", b"")
    own = played.coordinator.ask(participant, committee)
    headers = [update.header for update in played.updates]
    without, whole = UpdateManifest.of(committee, headers), UpdateManifest.of(committee, [*headers, own.header])

    def certify(manifest: UpdateManifest, complaints: dict[bytes, bytes] | None = None, count: int = 3) -> bytes:
        keys = parties.member_keys[:count]
        checks = [build_check(key, played.coordinator.record, manifest.root, complaints or {}) for key in keys]
        return b"".join([b"pet-1 certified\0", manifest.root, len(checks).to_bytes(2, "little"), *checks])

    def find(manifest: UpdateManifest, certificate: bytes) -> Any:
        return participant.find_update(manifest.to_bytes(), certificate)

    assert find(without, certify(without)) is Inclusion.NOT_LISTED
    assert find(whole, certify(whole)) is Inclusion.AGREED
    assert find(whole, certify(whole, {own.header.participant: bytes(96)})) is Inclusion.AGREED
    assert reason_of(find, whole, certify(whole, count=2)) == "no_quorum"
    assert reason_of(find, whole, certify(without)) == "wrong_root"
    # What is asked for is the update that was made, not what somebody lists in its name.
    spoilt = UpdateManifest.of(committee, [*headers, spoil_box(own.header, parties.participant_keys[5], 0)])
    assert find(spoilt, certify(spoilt)) is Inclusion.NOT_LISTED
    assert Certificate.from_bytes(certify(whole), committee, whole).agreed == tuple(whole.headers)


def test_a_damaged_leaf_ends_the_round_rather_than_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session("3of5").to_sum2()

    def get(_store: MemoryLeafStore, _upload: bytes, _index: int) -> bytes:
        raise StateError("leaf 0: expected its checksum, got another one: it is damaged")

    monkeypatch.setattr(MemoryLeafStore, "get", get)
    for message in session.round.entry["sum2"].values():
        assert session.send(bytes.fromhex(message)) is None
    assert session.published(events.RoundFailed).reason == "damaged_leaf"
    assert session.phase is Phase.SUM
