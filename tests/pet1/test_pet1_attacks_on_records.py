"""Attacks on what a round goes by: enrolments, records, models and the state that a peer keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pet1_parties import (
    NOW,
    TWO_OF_THREE,
    Disk,
    HonestRound,
    LooseCoordinator,
    Parties,
    fresh_secrets,
    with_more,
)
from pet1_rounds import reason_of

import pet
from pet.errors import LocalProtocolError, StateError
from pet.messages import RoundParameters
from pet.pet1.certificate import Certificate
from pet.pet1.committee import Committee
from pet.pet1.enrolment import EnrolmentPolicy
from pet.pet1.federation import Called, FederationPolicy, derive_set_digest, enrol_federation, federation_plan
from pet.pet1.hashes import digest
from pet.pet1.ledger import LedgerEntry, RoundLedger
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message, sign_message
from pet.pet1.share_header import ShareHeader
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import RoundTerms

# ---- enrolment and record --------------------------------------------------------------------------------------------------


def test_update_outside_the_enrolment() -> None:
    """An invented participant would leave fewer honest updates in the sum."""
    played = HonestRound.play(Parties())
    stranger = played.parties.new_key()
    header = ShareHeader.build(stranger, played.committee, fresh_secrets(played.parties), bytes(32))
    assert reason_of(played.members[0].receive_header, header.data) == "not_enrolled"
    listed = UpdateManifest.of(played.committee, [*played.manifest.headers.values(), header])
    assert reason_of(played.members[0].receive_manifest, listed.to_bytes()) == "unknown_update"


def test_the_least_number_is_not_reached_with_one_key_twice() -> None:
    parties = Parties()
    coordinator = LooseCoordinator(parties)
    member = parties.member(0)
    committee = coordinator.form([member, parties.member(1), parties.member(2)])
    first, second = (coordinator.ask(parties.participant(number), committee).header for number in (0, 1))
    again = ShareHeader.build(parties.participant_keys[1], committee, fresh_secrets(parties), bytes(32))
    for header in (first, second):
        member.receive_header(header.data)
    assert reason_of(member.receive_header, again.data) == "update_already_submitted"
    entries = sorted([first, second, second], key=lambda header: header.participant)
    head = b"pet-1 manifest\0\0" + committee.digest + (3).to_bytes(4, "little")
    listed = head + b"".join(header.participant + header.digest for header in entries)
    assert reason_of(member.receive_manifest, listed) == "manifest_order"
    two = UpdateManifest.of(committee, [first, second])
    assert reason_of(member.receive_manifest, two.to_bytes()) == "too_few_updates"


@pytest.mark.parametrize("is_idle", [False, True], ids=["used", "idle"])
def test_rolled_back_enrolment(is_idle: bool) -> None:
    """Keys that were removed come back with an older enrolment, which its authority has signed.

    A peer that the newer one leaves out has accepted it as well, and is not shown the older one again.
    """
    parties = Parties()
    kept = range(3) if not is_idle else range(1, 4)
    newer = with_more(
        parties.enrolment,
        participants=tuple(parties.participant_keys[number].public_key for number in kept),
        members=tuple(key.public_key for key in parties.member_keys)
        if not is_idle
        else (parties.new_key().public_key, *(key.public_key for key in parties.member_keys[1:])),
    )
    later, older = LooseCoordinator(parties, 1, newer), LooseCoordinator(parties, 2)
    disks = Disk(), Disk()
    member, participant = parties.member(0, disks[0]), parties.participant(0, disks[1])
    assert (later.invite(member) is None) is is_idle
    assert (participant.join(later.record.to_bytes(), later.served, NOW) is None) is is_idle
    for each in (member, parties.member(0, disks[0]), participant, parties.participant(0, disks[1])):
        assert reason_of(each.join, older.record.to_bytes(), older.served, NOW) == "enrolment_rolled_back"


def test_downgrade() -> None:
    """A peer of pet/1 takes nothing of xaynet's round for one of its own, and no weaker plan than it asks for."""
    parties = Parties()
    coordinator = LooseCoordinator(parties)
    xaynet = RoundParameters(
        coordinator_public_key=coordinator.keys.public_key,
        sum_probability=1.0,
        update_probability=1.0,
        seed=bytes(32),
        mask_config=pet.MaskConfigPair.of(pet.MaskConfig.parse("prime-f32-b0-m3")),
        model_length=3,
    )
    policy = EnrolmentPolicy(authority=parties.authority.public_key, least_passive=1, least_active=1)
    strict = EnrolmentPolicy(authority=parties.authority.public_key, least_passive=2, least_active=1)
    for make in (parties.member, parties.participant):
        assert reason_of(make(0).join, xaynet.to_bytes(), coordinator.served, NOW) == "malformed_round"
        assert reason_of(make(0, policy=policy).join, coordinator.record.to_bytes(), coordinator.served, NOW) is None
        assert reason_of(make(0, policy=strict).join, coordinator.record.to_bytes(), coordinator.served, NOW) == "weak_plan"
    record = bytearray(coordinator.record.to_bytes())
    record[16] = 2
    assert reason_of(parties.member(0).join, bytes(record), coordinator.served, NOW) == "unknown_version"
    for tag in (1, 2, 3):
        message = bytearray(sign_message(parties.member_keys[0], coordinator.keys.public_key, Pet1Tag.SUM, bytes(66)))
        message[132] = tag
        assert reason_of(read_message, bytes(message), coordinator.keys.public_key, Pet1Tag.SUM) == "unexpected_tag"


def test_another_model_for_one_participant() -> None:
    """The coordinator tags one participant with a model of its own: it is not the one that the record names."""
    parties = Parties()
    model = np.zeros(3, "<f4").tobytes()
    config = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=15")
    coordinator = LooseCoordinator(parties, config=config, model_digest=digest("pet-1 model", model))
    participant = parties.participant(0, terms=RoundTerms())
    participant.join(coordinator.record.to_bytes(), coordinator.served, NOW)
    assert reason_of(participant.check_model, np.ones(3, "<f4").tobytes()) == "wrong_model"
    with pytest.raises(LocalProtocolError, match="model of the round to be checked first"):
        participant.mask(b"", np.zeros(3, np.float32))
    # A record of its own for this participant has another digest, so its update is of no committee but its own.
    other = replace(coordinator.record, model_digest=digest("pet-1 model", np.ones(3, "<f4").tobytes()))
    assert other.digest != coordinator.record.digest
    committee = coordinator.form([parties.member(slot) for slot in range(3)])
    assert reason_of(Committee.from_bytes, committee.to_bytes(), other, parties.enrolment) == "wrong_round"


def test_federation_enrolments_leave_nothing_free() -> None:
    """The leader invents a peer, weakens the plan, or asks for fewer; the admin's signature does not help it."""
    parties = Parties(participant_count=4)
    peers = [key.public_key for key in parties.participant_keys]
    policy = FederationPolicy(admin=parties.authority.public_key, confirmed=frozenset(peers))
    honest = enrol_federation(1, NOW + 600, peers)
    invented = enrol_federation(1, NOW + 600, [*peers[:3], parties.new_key().public_key])
    weaker = replace(honest, plan=pet.Plan(groups=1, members=4, threshold=2, quorum=3))
    fewer = replace(honest, min_updates=3)
    alone = replace(honest, members=(*peers[1:], peers[0]))
    for enrolment, reason in (
        (honest, None),
        (invented, "unconfirmed_peer"),
        (weaker, "wrong_plan"),
        (alone, "wrong_plan"),
        (fewer, "not_all_or_nothing"),
    ):
        coordinator = LooseCoordinator(parties, 1, enrolment)
        for peer in (parties.participant(0, policy=policy), member_of_federation(parties, policy)):
            assert reason_of(peer.join, coordinator.record.to_bytes(), coordinator.served, NOW) == reason
    stranger = parties.new_key()
    record = LooseCoordinator(parties, 1, honest).record.to_bytes()
    assert reason_of(parties.participant(0, policy=policy).join, record, honest.sign(stranger), NOW) == "unknown_enrolment"


def member_of_federation(parties: Parties, policy: FederationPolicy) -> MemberMachine:
    """Return a peer as the member that it is: with its one key."""
    parties.member_keys[0] = parties.participant_keys[0]
    return parties.member(0, policy=policy)


# ---- states ----------------------------------------------------------------------------------------------------------------


def test_a_restored_member_counts_as_a_colluder() -> None:
    """What 14 warns of: a copy from before it signed signs another list. The plan bears it like any colluder, and no more."""
    parties, disks = Parties(participant_count=6), [Disk() for _ in range(3)]
    coordinator = LooseCoordinator(parties)
    members = [parties.member(slot, disks[slot]) for slot in range(3)]
    committee = coordinator.form(members)
    headers = [coordinator.ask(parties.participant(number), committee).header for number in range(6)]
    first, second = headers[:3], headers[3:]
    copy = Disk()
    copy(disks[0].latest or b"")
    lists = [coordinator.show(member, committee, shown) for member, shown in zip(members, (first, first, second), strict=True)]
    checks = [member.sign_check() for member in members]
    restored = parties.member(0, copy)
    coordinator.invite(restored)
    restored.receive_committee(committee.to_bytes())
    coordinator.show(restored, committee, second)
    again = restored.sign_check()
    assert again != checks[0]  # two roots with one key: only erasing and not restoring protects
    for manifest, signed in ((lists[0], checks[:2]), (lists[2], [again, checks[2]])):
        assert reason_of(Certificate.of, signed, committee, manifest) == "no_quorum"
    assert TWO_OF_THREE.active == 1
    # The newest state does not.
    newest = parties.member(0, disks[0])
    coordinator.invite(newest)
    newest.receive_committee(committee.to_bytes())
    for header in second:
        newest.receive_header(header.data)
    assert reason_of(newest.receive_manifest, lists[2].to_bytes()) == "wrong_root"


def test_state_file_of_another_round_or_role() -> None:
    """A member with the state of a later round answers nothing of an earlier one; roles do not read each other's."""
    parties, disk = Parties(), Disk()
    played = HonestRound.play(parties, [disk, Disk(), Disk()])
    certificate = played.certify()
    following = LooseCoordinator(parties, number=2)
    following.invite(played.members[0])
    later = parties.member(0, disk)
    assert reason_of(played.coordinator.invite, later) == "wrong_round"
    following.invite(later)
    assert reason_of(later.receive_committee, played.committee.to_bytes()) == "wrong_round"
    with pytest.raises(LocalProtocolError):
        later.answer(certificate.to_bytes())
    with pytest.raises(StateError, match="another role"):
        parties.participant(0, disk)
    # The state of another member: its Sum message is of another key, so no committee has it in this slot.
    other = parties.member(1, disk)
    following.invite(other)
    sums = [following.invite(parties.member(slot)) for slot in (0, 1, 2)]
    committee = Committee.of(following.record, parties.enrolment, sums)
    assert reason_of(other.receive_committee, committee.to_bytes()) == "wrong_committee"


# ---- rounds in a row -------------------------------------------------------------------------------------------------------


def test_a_call_without_one_peer_after_all_have_answered() -> None:
    """The leader has the sum of four, hides it, and calls three with the same statistics: the difference is one peer."""
    peers = [key.public_key for key in Parties(participant_count=4).participant_keys]
    listed = [Called(peer=peer, number=1, version=1) for peer in peers]
    entry = LedgerEntry.of(1, listed, federation_plan(4), peers)
    for has_answered, reason in ((True, "answered_before"), (False, "too_few_changes")):
        ledger = RoundLedger(peers[0], [replace(entry, answered=has_answered)])
        # The peer that is left out may be the leader's; the others say that they have answered.
        calls = [ledger.call(2, 1), *(Called(peer=peer, number=2, version=1, answered=(1,)) for peer in peers[1:3])]
        assert ledger.strike(calls) == []
        known = (derive_set_digest(entry.versions),)
        assert reason_of(ledger.require_hidden, [replace(call, sets=known) for call in calls]) == reason
    # Two that deny it are too few to prove that the sum does not exist, as both may lie; three are enough.
    ledger = RoundLedger(peers[0], [replace(entry, answered=True)])
    denials = [Called(peer=peer, number=2, version=1) for peer in peers[1:]]
    assert ledger.strike([ledger.call(2, 1), *denials[:2]]) == []
    assert ledger.strike([ledger.call(2, 1), *denials]) == [1]
