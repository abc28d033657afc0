"""The member of pet/1: its messages are those of the vectors, each once a round, durable first; and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pet1_peers import NOW, Disk, make_member, served_enrolment
from pet1_rounds import ROUNDS, VectorRound, reason_of, vector_round

from pet.crypto import SigningKeyPair
from pet.errors import LocalProtocolError, StateError
from pet.pet1.certificate import Certificate
from pet.pet1.committee import Committee, build_sum
from pet.pet1.manifest import UpdateManifest
from pet.pet1.share_header import ShareHeader, UpdateSecrets
from pet.protocol.pet1_member import MemberMachine

ROUND = vector_round("3of5")
SERVED = served_enrolment(ROUND)
RECORD = ROUND.bytes_of("round")


def joined(round_: VectorRound, slot: int, disk: Disk, **options: Any) -> MemberMachine:
    member = make_member(round_, slot, disk, **options)
    member.join(round_.bytes_of("round"), served_enrolment(round_), NOW)
    return member


def until_manifest(round_: VectorRound, slot: int, disk: Disk, **options: Any) -> MemberMachine:
    member = joined(round_, slot, disk, **options)
    member.receive_committee(round_.bytes_of("committee"))
    for header in round_.headers.values():
        member.receive_header(header.data)
    member.receive_manifest(round_.bytes_of("manifest"))
    return member


@pytest.mark.parametrize("name", ROUNDS)
def test_messages_are_those_of_the_vectors(name: str) -> None:
    round_ = vector_round(name)
    for slot, sum_message in enumerate(round_.entry["sums"]):
        if sum_message is None:
            continue
        disk = Disk()
        member = make_member(round_, slot, disk)
        message = member.join(round_.bytes_of("round"), served_enrolment(round_), NOW)
        assert message is not None
        assert message.hex() == sum_message
        member.receive_committee(round_.bytes_of("committee"))
        for header in round_.headers.values():
            assert member.receive_header(header.data) == header.participant
        member.receive_manifest(round_.bytes_of("manifest"))
        assert member.sign_check() == round_.checks()[slot]
        answer = member.answer(round_.bytes_of("certificate"))
        assert answer is not None
        assert round_.entry["sum2"].get(str(slot)) in (None, answer.hex())
        # Everything again is the same, and a restored member makes the same, too.
        assert member.answer(round_.bytes_of("certificate")) == answer
        restored = until_manifest(round_, slot, Disk(), saved=disk.latest)
        assert (restored.sign_check(), restored.answer(round_.bytes_of("certificate"))) == (member.sign_check(), answer)


def test_each_message_is_durable_before_it_is_sent() -> None:
    disk = Disk()
    member = make_member(ROUND, 0, disk)
    secret = ROUND.entry["member_secrets"][0].encode()
    disk.is_full = True
    with pytest.raises(OSError, match="no space"):
        member.join(RECORD, SERVED, NOW)
    disk.is_full = False
    member = joined(ROUND, 0, disk)
    assert secret in disk.latest
    assert ROUND.entry["sums"][0].encode() in disk.latest
    member = until_manifest(ROUND, 0, disk, saved=disk.latest)
    disk.is_full = True
    with pytest.raises(OSError, match="no space"):
        member.sign_check()
    disk.is_full = False
    check = member.sign_check()
    assert check.hex().encode() in disk.latest
    assert b"do not restore" in disk.latest
    disk.is_full = True
    with pytest.raises(OSError, match="no space"):
        member.answer(ROUND.bytes_of("certificate"))
    disk.is_full = False
    member.answer(ROUND.bytes_of("certificate"))
    assert ROUND.entry["certificate_digest"].encode() in disk.latest
    member.end_round()
    assert secret not in disk.latest
    assert secret.decode() not in repr(member._secrets)


def test_round_numbers_only_grow_and_a_round_that_ended_is_not_joined_again() -> None:
    disk = Disk()
    member = joined(ROUND, 1, disk)
    assert member.join(RECORD, SERVED, NOW) == joined(ROUND, 1, Disk(), saved=disk.latest).join(RECORD, SERVED, NOW)
    other = replace(ROUND.record, seed=bytes(32)).to_bytes()
    assert reason_of(member.join, other, SERVED, NOW) == "wrong_round"
    member.end_round()
    assert reason_of(member.join, RECORD, SERVED, NOW) == "wrong_round"
    restored = make_member(ROUND, 1, Disk(), saved=disk.latest)
    assert reason_of(restored.join, RECORD, SERVED, NOW) == "wrong_round"
    later = replace(ROUND.record, number=ROUND.record.number + 1).to_bytes()
    first = member.join(later, SERVED, NOW)
    assert first not in (None, bytes.fromhex(ROUND.entry["sums"][1]))


def test_a_call_answered_kills_what_is_older() -> None:
    """A federation's rule F4, before and after a restart."""
    number, disk = ROUND.record.number, Disk()
    member = until_manifest(ROUND, 0, disk)
    member.note_call(number)  # of this very round: nothing changes
    member.sign_check()
    member.note_call(number + 3)
    assert ROUND.entry["member_secrets"][0].encode() not in disk.latest
    for each in (member, make_member(ROUND, 0, Disk(), saved=disk.latest)):
        with pytest.raises(LocalProtocolError):
            each.answer(ROUND.bytes_of("certificate"))
        for older in (number, number + 1, number + 2):
            record = replace(ROUND.record, number=older).to_bytes()
            assert reason_of(each.join, record, SERVED, NOW) == "wrong_round"
        assert each.join(replace(ROUND.record, number=number + 3).to_bytes(), SERVED, NOW) is not None
    fresh = make_member(ROUND, 0, Disk())
    fresh.note_call(0)  # nothing is older than the first number
    fresh.note_call(number)
    assert fresh.join(RECORD, SERVED, NOW) is not None


def test_nobodys_slot() -> None:
    disk = Disk()
    stranger = replace_key(make_member(ROUND, 0, disk))
    assert stranger.join(RECORD, SERVED, NOW) is None
    # The enrolment that leaves it out was accepted all the same: an older one, with the keys of before, is not.
    assert ROUND.enrolment.digest.hex().encode() in disk.latest
    with pytest.raises(LocalProtocolError, match="expected a round that was joined"):
        stranger.receive_committee(ROUND.bytes_of("committee"))


def replace_key(member: MemberMachine) -> MemberMachine:
    member._key = SigningKeyPair.from_seed(b"\x77" * 32)
    return member


def test_a_committee_without_its_own_sum_message_ends_the_round_for_a_member() -> None:
    """The coordinator announces a key of its own in this member's place, or shows two committees."""
    sums = list(ROUND.committee.sums)
    own = build_sum(ROUND.members()[0], ROUND.record, 0, ROUND.committee.points[1] or b"")
    changed = Committee.of(ROUND.record, ROUND.enrolment, [own, *sums[1:]]).to_bytes()
    empty = Committee.of(ROUND.record, ROUND.enrolment, [None, *sums[1:]]).to_bytes()
    for data in (changed, empty):
        member = joined(ROUND, 0, Disk())
        assert reason_of(member.receive_committee, ROUND.bytes_of("committee")[:-1]) == "malformed_committee"
        assert reason_of(member.receive_committee, data) == "wrong_committee"
        with pytest.raises(LocalProtocolError, match="expected a round that was joined"):
            member.receive_committee(ROUND.bytes_of("committee"))
    member = joined(ROUND, 0, Disk())
    for _ in range(2):
        member.receive_committee(ROUND.bytes_of("committee"))
    assert reason_of(member.receive_committee, changed) == "wrong_committee"


def test_steps_out_of_order_are_the_callers_fault() -> None:
    member = joined(ROUND, 0, Disk())
    for call in (
        lambda: member.receive_header(b""),
        lambda: member.receive_manifest(b""),
        member.sign_check,
        lambda: member.answer(b""),
    ):
        with pytest.raises(LocalProtocolError, match="expected the committee of the round first"):
            call()
    member.receive_committee(ROUND.bytes_of("committee"))
    for call in (member.sign_check, lambda: member.answer(b"")):
        with pytest.raises(LocalProtocolError, match="expected the manifest of the round first"):
            call()


def test_one_header_of_each_participant() -> None:
    member = joined(ROUND, 0, Disk())
    member.receive_committee(ROUND.bytes_of("committee"))
    update = ROUND.entry["updates"][0]
    key = SigningKeyPair.from_seed(bytes.fromhex(update["signing_seed"]))
    other = ShareHeader.build(key, ROUND.committee, UpdateSecrets.from_random(bytes(range(96))), bytes(32))
    member.receive_header(bytes.fromhex(update["header"]))
    member.receive_header(bytes.fromhex(update["header"]))
    assert reason_of(member.receive_header, other.data) == "update_already_submitted"
    assert reason_of(member.receive_header, other.data[:-1]) == "malformed_share_header"
    assert reason_of(member.receive_manifest, ROUND.bytes_of("manifest")) == "unknown_update"


def smaller_manifest() -> UpdateManifest:
    return UpdateManifest.of(ROUND.committee, list(ROUND.headers.values())[:4])


def test_one_root_a_round_before_and_after_a_restart() -> None:
    """Split manifests: a member that has signed one list knows no other."""
    disk = Disk()
    member = until_manifest(ROUND, 0, disk)
    member.sign_check()
    restored = joined(ROUND, 0, Disk(), saved=disk.latest)
    restored.receive_committee(ROUND.bytes_of("committee"))
    for header in ROUND.headers.values():
        restored.receive_header(header.data)
    for each in (member, restored):
        assert reason_of(each.receive_manifest, smaller_manifest().to_bytes()) == "wrong_root"
        each.receive_manifest(ROUND.bytes_of("manifest"))
        assert each.sign_check() == ROUND.checks()[0]


def test_one_certificate_a_round_before_and_after_a_restart() -> None:
    disk = Disk()
    member = until_manifest(ROUND, 0, disk)
    assert member.answer(ROUND.bytes_of("certificate")) is not None  # one that came late answers without having signed
    checks = ROUND.checks()
    other = Certificate.of([checks[slot] for slot in (0, 2, 3, 4)], ROUND.committee, ROUND.manifest)
    for each in (member, until_manifest(ROUND, 0, Disk(), saved=disk.latest)):
        assert reason_of(each.answer, other.to_bytes()) == "wrong_certificate"
        assert each.answer(ROUND.bytes_of("certificate")) is not None


def test_a_member_that_answered_without_signing_signs_no_other_list_after_a_restart() -> None:
    disk = Disk()
    assert until_manifest(ROUND, 0, disk).answer(ROUND.bytes_of("certificate")) is not None
    restored = joined(ROUND, 0, Disk(), saved=disk.latest)
    restored.receive_committee(ROUND.bytes_of("committee"))
    for header in ROUND.headers.values():
        restored.receive_header(header.data)
    assert reason_of(restored.receive_manifest, smaller_manifest().to_bytes()) == "wrong_root"
    restored.receive_manifest(ROUND.bytes_of("manifest"))
    assert restored.sign_check() == ROUND.checks()[0]


def test_a_member_without_a_good_seed_of_an_agreed_update_is_silent() -> None:
    """The complaint about its box is missing in the certificate, so the bad update stays in."""
    checks = ROUND.checks()
    without = Certificate.of([checks[slot] for slot in (0, 2, 3, 4)], ROUND.committee, ROUND.manifest)
    member = until_manifest(ROUND, 1, Disk())
    assert member.answer(without.to_bytes()) is None
    assert until_manifest(ROUND, 0, Disk()).answer(without.to_bytes()) is not None


def test_states_that_are_none() -> None:
    disk = Disk()
    joined(ROUND, 0, disk)
    secret = ROUND.entry["member_secrets"][0].encode()
    for data in (
        disk.latest.replace(b'"scalar"', b'"sclar"'),
        disk.latest.replace(secret, secret[2:]),
        disk.latest.replace(secret, b"zz" + secret[2:]),
    ):
        with pytest.raises(StateError):
            make_member(ROUND, 0, Disk(), saved=data)
