"""The coordinator of pet/1: rounds of the vectors byte for byte, phases, refusals, and members or updates that are missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pet1_peers import NOW, Disk, make_member, make_participant, served_enrolment, weights_of
from pet1_rounds import ROUNDS, reason_of, vector_round
from pet1_sessions import Session, settings_of

import pet.profile
from pet.crypto import SigningKeyPair
from pet.errors import ConfigError
from pet.mask_choices import FieldValues
from pet.messages import split_payload
from pet.pet1.answers import UpdateAccepted, UpdateOpen, UpdateRefused
from pet.pet1.checks import build_check
from pet.pet1.committee import build_sum
from pet.pet1.leaves import LEAF_BYTES, build_update, derive_leaf_digests, derive_vector_digest
from pet.pet1.messages import HEADER_VERSION, Pet1Tag, sign_message
from pet.pet1.payloads import PET1_PAYLOADS, Pet1Payload, open_pet1_message
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_context
from pet.protocol import events
from pet.protocol.pet1_coordinator import Pet1Coordinator, SlotStatus
from pet.protocol.pet1_publications import (
    CertificatePublished,
    CommitteePublished,
    HeaderPublished,
    ManifestPublished,
    RoundAnnounced,
    TotalPublished,
)
from pet.protocol.pet1_updates import UploadWork
from pet.protocol.pet1_windows import PhaseTimes
from pet.protocol.phases import PET1_PHASES, Phase

UPDATES = vector_round("3of5").entry["updates"]


NOTHING = SlotStatus(announced=False, checked=False, complained=False, answered=False, wrong=False)


def failures(session: Session) -> list[str]:
    return [event.reason for event in session.events if isinstance(event, events.RoundFailed)]


@pytest.mark.parametrize("name", ROUNDS)
def test_rounds_of_the_vectors(name: str) -> None:
    session = Session(name)
    round_ = session.round
    announced = session.published(RoundAnnounced)
    assert (announced.record, announced.enrolment) == (round_.bytes_of("round"), served_enrolment(round_))
    session.to_check()
    assert session.published(CommitteePublished).committee == round_.bytes_of("committee")
    headers = [event.header.hex() for event in session.events if isinstance(event, HeaderPublished)]
    assert headers == [update["header"] for update in round_.entry["updates"]]
    assert session.published(ManifestPublished).manifest == round_.bytes_of("manifest")
    for message in round_.checks().values():
        assert session.send(message) is None
    certificate = session.published(CertificatePublished)
    assert certificate.certificate == round_.bytes_of("certificate")
    assert [key.hex() for key in certificate.excluded] == round_.entry["excluded"]
    assert certificate.worthless_complaints == {}
    for message in round_.entry["sum2"].values():
        assert session.send(bytes.fromhex(message)) is None
    session.wait(0 if session.phase is Phase.SUM else 600)
    total = session.published(TotalPublished)
    weights = len(round_.entry["updates"]) - len(round_.entry["excluded"])
    assert (total.update_count, total.wrong_slots) == (weights, ())
    assert list(total.unchecked_groups) == round_.entry["unchecked_groups"]
    if round_.record.config.values is FieldValues.INT:
        assert [str(q) for q in total.model.to_array()] == round_.entry["total"][:-1]
        assert str(total.model.scalar_sum) == round_.entry["total"][-1]
    else:
        assert [float(mean).hex() for mean in total.model.to_array("float64")] == round_.entry["mean"]
    assert session.leaves.leaves == {}
    assert session.coordinator.state.rounds_completed == 1


def test_a_round_of_machines_on_both_sides() -> None:
    """Four peers of a federation that are participants and members, and a coordinator that passes bytes on."""
    round_ = vector_round("federation_z64_integers")
    session = Session("federation_z64_integers")
    record, enrolment = session.published(RoundAnnounced).record, session.published(RoundAnnounced).enrolment
    members = [make_member(round_, slot, Disk()) for slot in range(4)]
    participants = [make_participant(round_, update, Disk()) for update in round_.entry["updates"]]
    for member in members:
        assert session.send(member.join(record, enrolment, NOW) or b"") is None
    committee = session.published(CommitteePublished).committee
    for participant, update in zip(participants, round_.entry["updates"], strict=True):
        participant.join(record, enrolment, NOW)
        made = participant.mask(committee, *weights_of(round_, update))
        opened = made.read_answer(session.coordinator.open_update(made.sealed, session.now).encode())
        assert isinstance(opened, UpdateOpen)
        for piece in made.pieces(opened):
            answer = session.coordinator.take_piece(b"".join(piece), session.now)
            assert made.read_answer(answer.encode()) == UpdateAccepted()
        session.collect()
    for member in members:
        member.receive_committee(committee)
        for event in session.events:
            if isinstance(event, HeaderPublished):
                member.receive_header(event.header)
        member.receive_manifest(session.published(ManifestPublished).manifest)
        assert session.send(member.sign_check()) is None
    for member in members[:3]:
        assert session.send(member.answer(session.published(CertificatePublished).certificate) or b"") is None
    session.wait(600)
    assert [str(q) for q in session.published(TotalPublished).model.to_array()] == round_.entry["total"][:-1]


# ---- phases ------------------------------------------------------------------------------------------------------------


def test_the_table_of_phases() -> None:
    assert list(PET1_PHASES.accepted_tags) == [Phase.SUM, Phase.UPDATE, Phase.CHECK, Phase.SUM2]
    assert PET1_PHASES.phases == set(Phase)
    assert not any(PET1_PHASES.reopens(phase) for phase in Phase)
    assert pet.profile.PET_1.name == "pet/1"


def test_sum_waits_for_a_spare_member_and_ends_with_the_least_at_last() -> None:
    session = Session("3of5")
    session.send_sums([0, 1, 2, 3])
    assert session.coordinator.next_deadline_seconds() == session.now + 600
    session.wait(5)
    assert session.phase is Phase.SUM  # a quorum of 4, and one to spare
    session.wait(595)
    assert session.phase is Phase.UPDATE
    few = Session("3of5")
    few.send_sums([0, 1, 2])
    few.wait(600)
    assert failures(few) == ["too_few_members"]
    without_spare = Session("3of5", committee_spare=0)
    without_spare.send_sums([0, 1, 2, 3])
    assert without_spare.coordinator.next_deadline_seconds() == without_spare.now + 5
    without_spare.wait(5)
    assert without_spare.phase is Phase.UPDATE


def test_sum_needs_enough_members_of_each_group() -> None:
    session = Session("2x2of3_z64")  # quorum 5 of 6, 2 of each group
    session.send_sums([0, 1, 2, 3, 4])
    session.wait(600)
    assert session.phase is Phase.UPDATE
    few = Session("2x2of3_z64")
    few.send_sums([0, 1, 2, 3])
    few.wait(600)
    assert failures(few) == ["too_few_members"]


def test_update_ends_with_the_most_at_once_with_enough_later_and_with_the_least_at_last() -> None:
    at_once = Session("3of5", max_count=3).to_update()
    for update in UPDATES[:3]:
        at_once.whole_update(update)
    assert at_once.phase is Phase.CHECK
    later = Session("3of5", min_count=4).to_update()
    for update in UPDATES[:3]:
        later.whole_update(update)
    assert later.coordinator.next_deadline_seconds() == later.now + 3600
    later.wait(10)
    assert later.phase is Phase.UPDATE
    later.whole_update(UPDATES[3])
    assert later.phase is Phase.CHECK
    at_last = Session("3of5", min_count=4).to_update()
    for update in UPDATES[:3]:
        at_last.whole_update(update)
    at_last.wait(3600)
    assert at_last.phase is Phase.CHECK
    few = Session("3of5").to_update()
    for update in UPDATES[:2]:
        few.whole_update(update)
    assert few.leaves.leaves
    few.wait(3600)
    assert failures(few) == ["too_few_updates"]
    assert few.leaves.leaves == {}


def test_check_ends_with_a_quorum_and_fails_without() -> None:
    session = Session("3of5").to_check()
    checks = session.round.checks()
    for slot in (0, 1, 2, 3):
        session.send(checks[slot])
    session.wait(5)
    assert session.phase is Phase.SUM2
    few = Session("3of5").to_check()
    for slot in (0, 1, 2):
        few.send(checks[slot])
    few.wait(60)
    assert failures(few) == ["no_quorum"]


def test_a_round_with_too_few_good_updates_fails() -> None:
    session = Session("3of5", max_count=3).to_update()
    bad = next(update for update in UPDATES if update["poisoned"])
    for update in [*UPDATES[:2], bad]:
        session.whole_update(update)
    manifest = session.coordinator.state.round.manifest
    for slot, key in enumerate(session.round.members()):
        member = make_member(session.round, slot, Disk())
        member.join(session.round.bytes_of("round"), served_enrolment(session.round), NOW)
        member.receive_committee(session.round.bytes_of("committee"))
        for header in manifest.headers.values():
            member.receive_header(header.data)
        member.receive_manifest(manifest.to_bytes())
        assert session.send(member.sign_check()) is None, key
    assert failures(session) == ["too_few_updates"]
    # Who sent the bad box follows from what is kept, although there is no sum.
    (evidence,) = session.disk.evidence.rounds.values()
    assert [key.hex() for key in evidence.accused()] == [bad["participant"]]


def test_sum2_ends_with_the_threshold_and_a_spare_and_fails_below() -> None:
    answers = {int(slot): bytes.fromhex(message) for slot, message in vector_round("3of5").entry["sum2"].items()}
    session = Session("3of5").to_sum2()
    for slot in (0, 2, 3, 4):
        assert session.send(answers[slot]) is None
    assert session.phase is Phase.SUM2
    session.wait(5)
    assert session.published(TotalPublished).unchecked_groups == ()
    unchecked = Session("3of5").to_sum2()
    for slot in (0, 2, 3):
        unchecked.send(answers[slot])
    unchecked.wait(5)
    assert unchecked.phase is Phase.SUM2
    unchecked.wait(600)
    assert unchecked.published(TotalPublished).unchecked_groups == (0,)
    few = Session("3of5").to_sum2()
    for slot in (0, 2):
        few.send(answers[slot])
    few.wait(600)
    assert failures(few) == ["too_few_answers"]
    assert few.leaves.leaves == {}


def test_a_wrong_share_is_named_or_fails_the_round() -> None:
    """One liar of five is named and left out; of four, it is noticed, and the round fails."""
    round_ = vector_round("3of5")
    answers = {int(slot): bytes.fromhex(message) for slot, message in round_.entry["sum2"].items()}
    lie = answers[2][136:168] + bytes(round_.record.vector_bytes)
    wrong = sign_message(round_.members()[2], round_.record.coordinator_key, Pet1Tag.SUM2, lie)
    named = Session("3of5").to_sum2()
    for slot, message in answers.items():
        assert named.send(wrong if slot == 2 else message) is None
    assert named.published(TotalPublished).wrong_slots == (2,)
    assert [float(mean).hex() for mean in named.published(TotalPublished).model.to_array("float64")] == round_.entry["mean"]
    noticed = Session("3of5").to_sum2()
    for slot in (0, 2, 3, 4):
        noticed.send(wrong if slot == 2 else answers[slot])
    noticed.wait(5)
    assert failures(noticed) == ["wrong_share"]


@pytest.mark.parametrize(("there", "kept", "expected"), [(0, 1, False), (0, 16, True), (18, 1, False), (18, 2, True)])
def test_leaves_are_taken_where_a_piece_is_full_or_nothing_is_missing(there: int, kept: int, expected: bool) -> None:
    session = Session("1of1")
    session.to_update()
    session.open_update(session.round.entry["updates"][0])
    digest = bytes.fromhex(session.round.entry["updates"][0]["header_digest"])
    refused = session.coordinator.keep_leaves(digest, 0, bytes(20))
    assert refused.refusal is not None
    assert refused.must_be_taken, "nothing is added to what is refused"
    opened = refused.opened
    assert opened is not None
    opened.upload.have[:] = [True] * there + [False] * (20 - there)
    assert UploadWork(current=refused.current, opened=opened, kept=list(range(kept))).must_be_taken is expected


def test_rubbish_in_a_vector_fails_the_round() -> None:
    session = Session("1of1")
    session.to_update()
    round_ = session.round
    for number, update in enumerate(round_.entry["updates"]):
        if number:
            session.whole_update(update)
            continue
        key = SigningKeyPair.from_seed(bytes.fromhex(update["signing_seed"]))
        secrets = UpdateSecrets.from_random(bytes(range(96)))
        vector = b"\x07\x55\xaa\x33" * round_.record.vector_length
        assert session.coordinator.open_update(session.seal(signed_update(key, secrets, vector, "1of1")), session.now)
        context = derive_context(round_.committee.digest, key.public_key, secrets.point)
        header = make_header(key, secrets, vector, "1of1")
        body = header.digest + bytes(4) + vector
        assert session.coordinator.take_piece(body, session.now) == UpdateAccepted()
        assert header.context == context
    session.wait(10)
    manifest = session.coordinator.state.round.manifest
    member = make_member(round_, 0, Disk())
    member.join(round_.bytes_of("round"), served_enrolment(round_), NOW)
    member.receive_committee(round_.bytes_of("committee"))
    for header in manifest.headers.values():
        member.receive_header(header.data)
    member.receive_manifest(manifest.to_bytes())
    assert session.send(member.sign_check()) is None
    certificate = session.published(CertificatePublished)
    answer = member.answer(certificate.certificate)
    assert answer is not None
    assert session.send(answer) is None
    assert failures(session) == ["total_out_of_range"]


def make_header(key: SigningKeyPair, secrets: UpdateSecrets, vector: bytes, name: str = "3of5") -> ShareHeader:
    committee = vector_round(name).committee
    context = derive_context(committee.digest, key.public_key, secrets.point)
    leaves = derive_leaf_digests(vector, context)
    return ShareHeader.build(key, committee, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))


def signed_update(key: SigningKeyPair, secrets: UpdateSecrets, vector: bytes, name: str = "3of5") -> bytes:
    """Return an Update message for a vector that its participant did not mask."""
    header = make_header(key, secrets, vector, name)
    leaves = derive_leaf_digests(vector, header.context)
    return build_update(key, vector_round(name).committee, header, secrets.salt, leaves)


# ---- updates -----------------------------------------------------------------------------------------------------------


def test_the_sealed_part_is_judged_before_the_vector() -> None:
    session = Session("3of5").to_update()
    sealed = session.seal(bytes.fromhex(UPDATES[0]["message"]))
    key = SigningKeyPair.from_seed(bytes.fromhex(UPDATES[0]["signing_seed"]))
    now, coordinator = session.now, session.coordinator
    assert coordinator.open_update(sealed[:-1], now) == UpdateRefused("length_mismatch")
    assert coordinator.open_update(bytes(len(sealed)), now) == UpdateRefused("decryption")
    changed = bytearray(bytes.fromhex(UPDATES[0]["message"]))
    changed[-1] ^= 1
    assert coordinator.open_update(session.seal(bytes(changed)), now) == UpdateRefused("invalid_signature")
    assert coordinator.open_update(sealed, now) == UpdateOpen(8, (False,))
    assert coordinator.open_update(session.seal(bytes.fromhex(UPDATES[0]["message"])), now) == UpdateOpen(8, (False,))
    other = signed_update(key, UpdateSecrets.from_random(bytes(range(96))), bytes(32))
    assert coordinator.open_update(session.seal(other), now) == UpdateRefused("update_already_submitted")
    assert coordinator.status(now).rejected == {
        "length_mismatch": 1,
        "decryption": 1,
        "invalid_signature": 1,
        "update_already_submitted": 1,
    }


def test_pieces_of_an_update() -> None:
    session = Session("3of5").to_update()
    update, vector = UPDATES[0], bytes.fromhex(UPDATES[0]["vector"])
    assert session.piece(update, 0, vector) == UpdateRefused("unknown_upload")
    session.open_update(update)
    wrong = bytes([vector[0] ^ 1]) + vector[1:]
    assert session.piece(update, 0, wrong) == UpdateRefused("wrong_leaf")
    assert session.piece(update, 0, vector[:-1]) == UpdateRefused("length_mismatch")
    assert session.piece(update, 1, vector) == UpdateRefused("length_mismatch")
    assert session.coordinator.take_piece(bytes(20), session.now) == UpdateRefused("length_mismatch")
    assert session.piece(update, 0, vector) == UpdateAccepted()
    # Everything again is answered the same, and counted once.
    assert session.piece(update, 0, vector) == UpdateAccepted()
    assert session.open_update(update) == UpdateAccepted()
    assert session.coordinator.status(session.now).accepted == 1


def test_an_update_with_an_invalid_element_is_closed_for_good() -> None:
    session = Session("3of5").to_update()
    key = SigningKeyPair.from_seed(bytes.fromhex(UPDATES[0]["signing_seed"]))
    secrets = UpdateSecrets.from_random(bytes(range(96)))
    vector = b"\xff" * 32
    message = signed_update(key, secrets, vector)
    update = {"header_digest": make_header(key, secrets, vector).digest.hex()}
    assert session.coordinator.open_update(session.seal(message), session.now) == UpdateOpen(8, (False,))
    assert session.piece(update, 0, vector) == UpdateRefused("invalid_element")
    assert session.piece(update, 0, vector) == UpdateRefused("unknown_upload")
    assert session.coordinator.open_update(session.seal(message), session.now) == UpdateRefused("invalid_element")
    assert session.open_update(UPDATES[0]) == UpdateRefused("update_already_submitted")


def test_updates_in_one_are_taken_whole_or_not_at_all() -> None:
    session = Session("3of5").to_update()
    sealed, vector = session.seal(bytes.fromhex(UPDATES[0]["message"])), bytes.fromhex(UPDATES[0]["vector"])
    size = len(sealed).to_bytes(4, "little")
    for body in (b"", size + sealed + vector[:-1], size + sealed + vector + b"\0", b"\0\0\0\0" + sealed + vector):
        assert session.coordinator.take_whole_update(body, session.now) == UpdateRefused("length_mismatch")
    assert session.coordinator.state.round.uploads == {}
    assert session.coordinator.take_whole_update(size + sealed + vector, session.now) == UpdateAccepted()


def test_updates_beyond_the_most_and_updates_that_stay_incomplete() -> None:
    round_ = vector_round("3of5")
    session = Session("3of5").to_update()
    session.coordinator.state.round.updates = [bytes(32)] * round_.record.config.max_model_count
    assert session.open_update(UPDATES[0]) == UpdateRefused("too_many_updates")
    session.coordinator.state.round.updates = []
    for update in UPDATES[:3]:
        session.whole_update(update)
    session.open_update(UPDATES[3])
    session.wait(10)
    assert session.phase is Phase.CHECK
    assert len(session.coordinator.state.round.manifest.headers) == 3
    assert session.open_update(UPDATES[3]) == UpdateRefused("wrong_phase")


def test_large_vectors_come_in_several_pieces() -> None:
    """Two leaves and a bit, in any order, with a wrong one between."""
    length = 2 * LEAF_BYTES // 4 + 2
    round_ = vector_round("1of1")
    session = Session("1of1", model_length=length - 1)
    record = session.coordinator.state.round.record
    sums = build_sum(round_.members()[0], record, 0, round_.committee.points[0] or b"")
    assert session.send(sums) is None
    committee = session.coordinator.state.round.committee
    update = round_.entry["updates"][0]
    key = SigningKeyPair.from_seed(bytes.fromhex(update["signing_seed"]))
    secrets = UpdateSecrets.from_random(bytes(range(96)))
    vector = bytes(range(256)) * (LEAF_BYTES // 128) + bytes(8)
    context = derive_context(committee.digest, key.public_key, secrets.point)
    leaves = derive_leaf_digests(vector, context)
    header = ShareHeader.build(key, committee, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))
    sealed = session.seal(build_update(key, committee, header, secrets.salt, leaves))
    named = {"header_digest": header.digest.hex()}
    assert session.coordinator.open_update(sealed, session.now) == UpdateOpen(8, (False, False, False))
    assert session.piece(named, 2, vector[2 * LEAF_BYTES :]) == UpdateOpen(8, (False, False, True))
    spoilt = vector[:LEAF_BYTES] + b"\xee" + vector[LEAF_BYTES + 1 :]
    assert session.piece(named, 0, spoilt) == UpdateRefused("wrong_leaf")
    assert session.coordinator.open_update(sealed, session.now) == UpdateOpen(8, (True, False, True))
    assert session.coordinator.take_whole_update(len(sealed).to_bytes(4, "little") + sealed + vector, session.now) == (
        UpdateAccepted()
    )
    assert [session.leaves.get(header.digest, index) for index in range(3)] == [
        vector[start : start + LEAF_BYTES] for start in range(0, len(vector), LEAF_BYTES)
    ]


# ---- members' messages -------------------------------------------------------------------------------------------------


def test_what_is_refused_of_members() -> None:
    session = Session("3of5")
    round_ = session.round
    keys, record = round_.members(), round_.record
    sums = [bytes.fromhex(message) for message in round_.entry["sums"]]
    assert session.send(sums[0]) is None
    assert session.send(sums[0]) is None  # the same bytes again are accepted silently
    assert session.coordinator.status(session.now).accepted == 1
    other = build_sum(keys[0], record, 0, round_.committee.points[1] or b"")
    assert session.send(other) == "already_registered"
    assert session.send(build_sum(keys[1], record, 0, round_.committee.points[1] or b"")) == "wrong_slot"
    assert session.send(round_.checks()[0]) == "unexpected_tag"
    assert session.coordinator.slots()[:2] == [replace(NOTHING, announced=True), NOTHING]
    session.to_check()
    stranger = SigningKeyPair.from_seed(bytes(32))
    root = round_.manifest.root
    assert session.send(round_.checks()[0]) is None
    assert session.send(round_.checks()[0]) == "check_already_submitted"
    assert session.send(build_check(stranger, record, root, {})) == "not_a_member"
    assert session.send(build_check(keys[1], record, bytes(32), {})) == "wrong_root"
    for slot in (1, 2, 3, 4):
        session.send(round_.checks()[slot])
    answers = [bytes.fromhex(message) for message in round_.entry["sum2"].values()]
    assert session.send(answers[0]) is None
    assert session.send(answers[0]) == "mask_already_submitted"
    assert session.send(sign_message(stranger, record.coordinator_key, Pet1Tag.SUM2, answers[0][136:])) == "not_a_member"
    assert session.send(sign_message(keys[1], record.coordinator_key, Pet1Tag.SUM2, bytes(64))) == "wrong_certificate"
    short = sign_message(keys[1], record.coordinator_key, Pet1Tag.SUM2, answers[0][136:-4])
    assert session.send(short) == "length_mismatch"
    assert session.coordinator.slots()[0] == replace(NOTHING, announced=True, checked=True, answered=True)
    complaining = [slot for slot, message in round_.checks().items() if len(message) > 136 + 36]
    assert complaining
    assert [slot for slot, status in enumerate(session.coordinator.slots()) if status.complained] == complaining


def test_a_slot_that_stayed_empty_answers_nothing() -> None:
    session = Session("4of5_absent").to_sum2()
    key, payload = session.round.members()[2], bytes.fromhex(next(iter(session.round.entry["sum2"].values())))[136:]
    message = sign_message(key, session.round.record.coordinator_key, Pet1Tag.SUM2, payload)
    assert session.send(message) == "not_a_member"


def test_an_answer_in_chunks() -> None:
    session = Session("4of5_absent").to_sum2()
    round_ = session.round
    for name, message in round_.entry["sum2"].items():
        session.send_chunks(round_.members()[int(name)], bytes.fromhex(message)[136:])
        session.restart()
    session.wait(600)
    assert session.published(TotalPublished).update_count == 4


def chunked(key: SigningKeyPair, coordinator_key: bytes, payload: bytes) -> bytes:
    """Return a signed Sum2 message whose payload is the first chunk of a longer one."""
    chunk = b"".join(next(iter(split_payload([payload + bytes(2000)], 700, 7))).encode_parts())
    part = bytearray(sign_message(key, coordinator_key, Pet1Tag.SUM2, chunk))
    part[133] = 1
    part[:64] = key.sign(bytes(part[64:]))
    return bytes(part)


def test_no_chunk_is_kept_of_who_may_not_answer() -> None:
    session = Session("4of5_absent").to_sum2()
    record, keys = session.round.record, session.round.members()
    digest = session.round.bytes_of("certificate_digest")
    stranger = SigningKeyPair.from_seed(bytes(32))
    for key, payload, reason in (
        (stranger, digest, "not_a_member"),
        (keys[2], digest, "not_a_member"),  # its slot is empty
        (keys[0], bytes(32), "wrong_certificate"),
    ):
        assert session.send(chunked(key, record.coordinator_key, payload)) == reason
    assert len(session.coordinator.state.round.chunks) == 0
    assert session.send(chunked(keys[0], record.coordinator_key, digest)) is None
    assert len(session.coordinator.state.round.chunks) == 1


def test_headers_are_read_strictly_and_updates_do_not_come_as_messages() -> None:
    session = Session("3of5")
    keys = session.coordinator.encryption_keys
    assert keys is not None
    signed = bytes.fromhex(session.round.entry["sums"][0])
    open_message = session.coordinator.profile.open_message
    assert reason_of(open_message, bytes(300), keys, Pet1Tag.SUM) == "decryption"
    for place, value, reason in (
        (131, 0, "length_mismatch"),
        (132, 0x12, "unexpected_tag"),
        (133, 1, "unknown_version"),
        (134, 1, "unknown_version"),
        (135, 2, "unknown_version"),
        (96, 0, "wrong_coordinator_key"),
        (0, 0, "invalid_signature"),
    ):
        changed = bytearray(signed)
        changed[place] = value
        assert reason_of(open_message, bytearray(session.seal(bytes(changed))), keys, Pet1Tag.SUM) == reason
    update = bytes.fromhex(UPDATES[0]["message"])
    for tag in (Pet1Tag.UPDATE, None):
        assert reason_of(open_pet1_message, session.seal(update), keys, tag) == "unexpected_tag"
    assert signed[134:136] == HEADER_VERSION
    payload = PET1_PAYLOADS.decoders[Pet1Tag.CHECK](b"abc")
    assert (payload, payload.size_bytes, payload.encode_parts()) == (Pet1Payload(Pet1Tag.CHECK, b"abc"), 3, [b"abc"])


# ---- restarts and settings ---------------------------------------------------------------------------------------------


def test_a_coordinator_goes_on_from_its_state() -> None:
    fresh = Session("3of5")
    fresh.coordinator.announce_again()
    assert [type(event) for event in fresh.collect()] == [events.PhaseEntered, RoundAnnounced]
    for stop in (Session.to_update, Session.to_check, Session.to_sum2):
        session = stop(Session("3of5"))
        before = [event for event in session.events if type(event).__module__.endswith("pet1_publications")]
        session.events = []
        session.restart()
        again = [event for event in session.events if type(event).__module__.endswith("pet1_publications")]
        assert sorted(again, key=repr) == sorted(before, key=repr)
        if session.phase is Phase.UPDATE:
            for update in UPDATES:
                session.whole_update(update)
        if session.phase is Phase.CHECK:
            for message in session.round.checks().values():
                session.send(message)
        for message in session.round.entry["sum2"].values():
            session.send(bytes.fromhex(message))
        assert session.published(TotalPublished).update_count == 5


def test_before_its_first_round_and_after_its_end() -> None:
    round_ = vector_round("3of5")
    coordinator = Pet1Coordinator(settings_of(round_), now_seconds=0, entropy=bytes, round_id=1)
    assert coordinator.slots() == []
    coordinator.shut_down()
    assert coordinator.open_update(b"", 1) == UpdateRefused("wrong_phase")
    session = Session("3of5").to_check()
    kept = dict(session.leaves.leaves)
    session.coordinator.shut_down()
    session.coordinator.release_leaves()
    assert session.leaves.leaves == kept  # a coordinator that goes on from the state before needs them


@pytest.mark.parametrize(
    "changes",
    [
        {"served_enrolment": bytes(64)},
        {"config": pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=2")},
        {"model_length": 0},
        {"min_updates": 2},
        {"min_count": 0},
        {"answer_spare": -1},
        {"pieces_in_flight": 1.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        settings_of(vector_round("3of5"), **changes)


def test_times_that_cannot_be() -> None:
    for options in ({"min_seconds": -1}, {"min_seconds": 601}, {"max_seconds": 1.5}, {"max_seconds": 2**32}):
        with pytest.raises(ConfigError, match="times"):
            PhaseTimes(**options)
    assert replace(PhaseTimes(), max_seconds=10) == PhaseTimes(min_seconds=5, max_seconds=10)
