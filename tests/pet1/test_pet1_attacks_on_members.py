"""Attacks of a coordinator, and of members, on the set that is summed: by objects that follow no rule, on the real machines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pet1_parties import (
    CONFIG,
    NOW,
    THREE_OF_FIVE,
    TWO_OF_THREE,
    Disk,
    HonestRound,
    LooseCoordinator,
    Parties,
    fresh_secrets,
    scalar_of,
    shares_of,
    spoil_box,
    sum_of,
    unmask,
)
from pet1_rounds import reason_of

import pet
from pet import edwards
from pet.errors import LocalProtocolError
from pet.pet1 import proofs
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check, judge_complaint, parse_sum2
from pet.pet1.committee import Committee, build_sum
from pet.pet1.hashes import sign_text
from pet.pet1.leaves import read_update
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message
from pet.pet1.share_header import ShareHeader

# ---- committee -------------------------------------------------------------------------------------------------------------


def test_own_keys_in_the_committee() -> None:
    """The coordinator announces points of its own, to read every box: signed by keys of its own, or not at all."""
    parties = Parties()
    coordinator = LooseCoordinator(parties)
    record, stranger = coordinator.record, parties.new_key()
    members = [parties.member(slot) for slot in range(3)]
    honest = [coordinator.invite(member) for member in members]
    assert all(honest)
    point = edwards.multiply_base(edwards.reduce_scalar(parties.random.randbytes(64)))
    participant = parties.participant(0)
    participant.join(record.to_bytes(), coordinator.served, NOW)

    def committee_with(message: bytes) -> bytes:
        head = b"pet-1 committee\0" + record.digest + (3).to_bytes(2, "little")
        return head + b"".join(b"\1" + each for each in (message, honest[1] or b"", honest[2] or b""))

    forged = bytearray(honest[0] or b"")
    forged[-32:] = point
    for message, reason in (
        (build_sum(stranger, record, 0, point), "wrong_slot"),  # a key that is nobody's
        (bytes(forged), "invalid_signature"),  # the member's name under another point
        (build_sum(parties.member_keys[1], record, 0, point), "wrong_slot"),  # a colluder in another's slot
    ):
        data = committee_with(message)
        assert reason_of(members[1].receive_committee, data) == reason
        assert reason_of(participant.mask, data, np.ones(3, CONFIG.dtype)) == reason
    # A member whose message the coordinator replaced by another of the same key does not go on.
    other = committee_with(build_sum(parties.member_keys[0], record, 0, point))
    assert reason_of(members[0].receive_committee, other) == "wrong_committee"


def test_committee_equivocation() -> None:
    """Two committees of one round, of the same signed messages: what was made for one is nothing to the other."""
    parties = Parties(THREE_OF_FIVE)
    coordinator = LooseCoordinator(parties)
    members = [parties.member(slot) for slot in range(5)]
    sums = [coordinator.invite(member) for member in members]
    whole = Committee.of(coordinator.record, parties.enrolment, sums)
    smaller = Committee.of(coordinator.record, parties.enrolment, [*sums[:4], None])
    for member in members[:4]:
        member.receive_committee(whole.to_bytes())
    update = coordinator.ask(parties.participant(0), smaller)
    assert reason_of(members[0].receive_header, update.header.data) == "malformed_share_header"  # a box is missing
    another = replace(whole, sums=(*sums[:4], build_sum(parties.member_keys[4], coordinator.record, 4, whole.points[0] or b"")))
    another = Committee.of(coordinator.record, parties.enrolment, another.sums)
    update = coordinator.ask(parties.participant(1), another)
    assert reason_of(members[0].receive_header, update.header.data) == "wrong_committee"
    assert reason_of(members[0].receive_committee, smaller.to_bytes()) == "wrong_committee"
    with pytest.raises(LocalProtocolError, match="expected a round that was joined"):
        members[0].receive_committee(whole.to_bytes())


def test_copied_member_point() -> None:
    """A member announces another one's P: it opens neither box, and its accusations are not proven."""
    parties = Parties()
    coordinator = LooseCoordinator(parties)
    members = [parties.member(slot) for slot in range(2)]
    sums = [coordinator.invite(member) for member in members]
    copied = read_message(sums[0] or b"", coordinator.record.coordinator_key, Pet1Tag.SUM)[1][-32:]
    thief = parties.member_keys[2]
    committee = Committee.of(coordinator.record, parties.enrolment, [*sums, build_sum(thief, coordinator.record, 2, copied)])
    for member in members:
        member.receive_committee(committee.to_bytes())
    update = coordinator.ask(parties.participant(0), committee)
    shared = edwards.multiply(scalar_of(members[0]), update.header.point) or b""
    boxes = {slot: update.header.open_box(committee, slot, shared) for slot in (0, 2)}
    assert boxes[0] is not None
    assert boxes[0].keys() != (boxes[2] or {}).keys()  # the owner of the secret could; who copied the point has no secret
    own = edwards.multiply(edwards.reduce_scalar(parties.random.randbytes(64)), update.header.point) or b""
    assert update.header.open_box(committee, 2, own) is None
    # A proof of the owner of the secret is for its slot, and for no other.
    proof = proofs.prove_shared(scalar_of(members[0]), copied, update.header.point, 0, update.header.context)
    assert reason_of(judge_complaint, proof, update.header, committee, 2) == "unproven_complaint"
    assert reason_of(judge_complaint, proof, update.header, committee, 0) == "unfounded_complaint"


def test_two_rounds_under_one_number() -> None:
    """A second record with the number of the first: nobody sums, masks or checks again, restarted or not."""
    parties = Parties()
    disks = [Disk() for _ in range(3)]
    played = HonestRound.play(parties, disks)
    second = LooseCoordinator(parties)
    assert second.record.number == played.coordinator.record.number
    for slot, member in enumerate(played.members):
        for each in (member, parties.member(slot, disks[slot])):
            assert reason_of(second.invite, each) == "wrong_round"
    disk = Disk()
    participant = parties.participant(5, disk)
    played.coordinator.ask(participant, played.committee)
    for each in (participant, parties.participant(5, disk)):
        assert reason_of(each.join, second.record.to_bytes(), second.served, NOW) == "wrong_round"


# ---- manifests and certificates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ways", [2, 3])
def test_split_manifests(ways: int) -> None:
    """Members are shown different lists: no list is signed by a quorum, and nobody answers one that is not."""
    parties = Parties(participant_count=6)
    coordinator = LooseCoordinator(parties)
    members = [parties.member(slot) for slot in range(3)]
    committee = coordinator.form(members)
    headers = [coordinator.ask(parties.participant(number), committee).header for number in range(6)]
    lists = [headers[:3], headers[3:], headers][:ways] + [headers[3:]] * (3 - ways)
    manifests = [coordinator.show(member, committee, shown) for member, shown in zip(members, lists, strict=True)]
    checks = [member.sign_check() for member in members]
    for manifest in manifests:
        own = [check for check in checks if check[136:168] == manifest.root]
        assert reason_of(Certificate.of, checks, committee, manifest) == "wrong_root"
        assert reason_of(Certificate.of, own, committee, manifest) == "no_quorum"
        assert reason_of(Certificate.of, own * 3, committee, manifest) == "wrong_slot"  # one signer for three
    for member, manifest in zip(members, manifests, strict=True):
        certificate = Certificate(root=manifest.root, checks=dict(enumerate(checks)), agreed=(), worthless=None)  # type: ignore[arg-type]
        assert reason_of(member.answer, certificate.to_bytes()) == "wrong_root"


def test_fewer_liars_than_two_quorums_share_make_no_second_certificate() -> None:
    """The bound of 1.3, with keys: liars sign whatever they are asked to, 2Q - n of them are needed, and suffice."""
    for plan in (TWO_OF_THREE, THREE_OF_FIVE, pet.Plan(groups=1, members=3, threshold=2, quorum=2)):
        parties = Parties(plan)
        coordinator = LooseCoordinator(parties)
        members = [parties.member(slot) for slot in range(plan.member_count)]
        committee = coordinator.form(members)
        headers = [coordinator.ask(parties.participant(number), committee).header for number in range(6)]
        lists = [UpdateManifest.of(committee, chosen) for chosen in (headers[:3], headers[3:])]
        enough = 2 * plan.quorum - plan.member_count
        assert plan.active < enough
        for liars in (enough - 1, enough):
            # The best split: half of the honest members sign the one list, half the other; liars sign both.
            honest = range(liars, plan.member_count)
            signers = [[*range(liars), *honest[::2]], [*range(liars), *honest[1::2]]]
            made = []
            for manifest, slots in zip(lists, signers, strict=True):
                checks = [build_check(parties.member_keys[slot], coordinator.record, manifest.root, {}) for slot in slots]
                made.append(reason_of(Certificate.of, checks, committee, manifest))
            assert ("no_quorum" in made) is (liars < enough)


def test_no_assignment_of_signers_makes_two_certificates_below_the_bound() -> None:
    """Every way in which honest members of up to nine can sign the one list, the other, or none."""
    for count in range(1, 10):
        for quorum in range(count // 2 + 1, count + 1):
            most = 2 * quorum - count - 1
            for liars in range(count + 1):
                honest = count - liars
                splits = ((one, other) for one in range(honest + 1) for other in range(honest + 1 - one))
                is_made = any(min(liars + one, liars + other) >= quorum for one, other in splits)
                assert is_made is (liars > most)


def test_last_second_bad_box() -> None:
    """An update whose box is bad for one member, and no other, is left out; the sum is that of the others."""
    parties = Parties()
    coordinator = LooseCoordinator(parties)
    members = [parties.member(slot) for slot in range(3)]
    committee = coordinator.form(members)
    updates = [coordinator.ask(parties.participant(number), committee) for number in range(4)]
    spoilt = spoil_box(updates[3].header, parties.participant_keys[3], slot=2)
    headers = [*(update.header for update in updates[:3]), spoilt]
    manifests = [coordinator.show(member, committee, headers) for member in members]
    certificate = Certificate.of([member.sign_check() for member in members], committee, manifests[0])
    assert set(certificate.agreed) == {update.header.participant for update in updates[:3]}
    assert certificate.worthless == {}
    answers = {slot: member.answer(certificate.to_bytes()) or b"" for slot, member in enumerate(members)}
    recovered = pet.shares.recover_mask(TWO_OF_THREE, shares_of(answers, coordinator.record, certificate.digest), threads=1)
    assert unmask([update.sent.vector for update in updates[:3]], recovered.mask) == sum_of(updates[:3])


def test_silent_victim() -> None:
    """The Check of the member with the bad box is left out: the bad update stays in, the member is silent, nothing is wrong."""
    plan = pet.Plan(groups=1, members=3, threshold=2, quorum=2)
    parties = Parties(plan)
    coordinator = LooseCoordinator(parties)
    members = [parties.member(slot) for slot in range(3)]
    committee = coordinator.form(members)
    updates = [coordinator.ask(parties.participant(number), committee) for number in range(4)]
    headers = [*(update.header for update in updates[:3]), spoil_box(updates[3].header, parties.participant_keys[3], slot=2)]
    manifest = [coordinator.show(member, committee, headers) for member in members][-1]
    certificate = Certificate.of([member.sign_check() for member in members[:2]], committee, manifest)
    assert len(certificate.agreed) == 4
    assert members[2].answer(certificate.to_bytes()) is None
    answers = {slot: members[slot].answer(certificate.to_bytes()) or b"" for slot in (0, 1)}
    recovered = pet.shares.recover_mask(plan, shares_of(answers, coordinator.record, certificate.digest), threads=1)
    assert unmask([update.sent.vector for update in updates], recovered.mask) == sum_of(updates)


def test_complaint_flood() -> None:
    """A liar complains about everybody, and about keys that are nobody's: nothing changes, and it is counted."""
    played = HonestRound.play(Parties())
    key, record = played.parties.member_keys[0], played.coordinator.record
    scalar = scalar_of(played.members[0])
    point = edwards.multiply_base(scalar)
    proven = {
        participant: proofs.prove_shared(scalar, point, header.point, 0, header.context)
        for participant, header in played.manifest.headers.items()
    }
    invented = {played.parties.random.randbytes(32): bytes(96) for _ in range(4)}
    rest = [member.sign_check() for member in played.members[1:]]
    for complaints, counted in (
        (proven, {"unfounded_complaint": 4}),
        (dict.fromkeys(proven, bytes(96)), {"unproven_complaint": 4}),
        (invented, {"unknown_update": 4}),
    ):
        check = build_check(key, record, played.manifest.root, complaints)
        certificate = Certificate.of([check, *rest], played.committee, played.manifest)
        assert certificate.agreed == tuple(played.manifest.headers)
        assert certificate.worthless == counted
    flood = build_check(key, record, played.manifest.root, proven | invented)
    assert reason_of(Certificate.of, [flood, *rest], played.committee, played.manifest) == "malformed_check"


def test_a_member_is_asked_twice_for_its_check() -> None:
    """The oracle of 8.5: one batch of complaints for one secret, all of one list, the same bytes again after a crash."""
    parties, disks = Parties(), [Disk() for _ in range(3)]
    played = HonestRound.play(parties, disks)
    check = played.members[0].sign_check()
    coordinator = played.coordinator
    late = coordinator.ask(parties.participant(5), played.committee)
    spoilt = spoil_box(late.header, parties.participant_keys[5], slot=0)
    restored = parties.member(0, disks[0])
    coordinator.invite(restored)
    restored.receive_committee(played.committee.to_bytes())
    for update in played.updates:
        restored.receive_header(update.header.data)
    for member in (played.members[0], restored):
        member.receive_header(spoilt.data)
        longer = UpdateManifest.of(played.committee, [*played.manifest.headers.values(), spoilt])
        assert reason_of(member.receive_manifest, longer.to_bytes()) == "wrong_root"
        member.receive_manifest(played.manifest.to_bytes())
        assert member.sign_check() == check
        assert spoilt.participant not in check


# ---- replays and copies ----------------------------------------------------------------------------------------------------


def test_replays_of_the_round_before() -> None:
    """A header, a box, a proof, a Check and an answer, as they were signed in one round, in the next."""
    parties = Parties()
    first = HonestRound.play(parties)
    certificate = first.certify()
    answer = first.members[0].answer(certificate.to_bytes()) or b""
    scalar = scalar_of(first.members[0])
    following = LooseCoordinator(parties, number=2)
    following.record = replace(following.record, coordinator_key=first.coordinator.record.coordinator_key)
    committee = following.form(first.members)
    header = first.updates[0].header
    assert reason_of(first.members[1].receive_header, header.data) == "wrong_committee"
    assert reason_of(read_update, first.updates[0].message, committee) == "wrong_committee"
    old_sum = first.committee.sums[0] or b""
    assert reason_of(Committee.of, following.record, parties.enrolment, [old_sum, *committee.sums[1:]]) == "wrong_round"
    # Boxes and proof of the old header, in a new one that its thief signs: the context is another.
    thief = parties.participant_keys[5]
    keys = [parties.participant_keys[number] for number in range(4)]
    honest = [ShareHeader.build(key, committee, fresh_secrets(parties), bytes(32)) for key in keys]
    body = header.data[:16] + thief.public_key + committee.digest + header.data[80:-64]
    stolen = body + sign_text(thief, "pet-1 header", body)
    assert reason_of(first.members[1].receive_header, stolen) == "unproven_key"
    manifest = [following.show(member, committee, honest) for member in first.members][-1]
    checks = [member.sign_check() for member in first.members]
    old_check = certificate.checks[0]
    assert reason_of(Certificate.of, [old_check, *checks[1:]], committee, manifest) == "wrong_root"
    point = edwards.multiply_base(scalar)
    old_proof = proofs.prove_shared(scalar, point, header.point, 0, header.context)
    assert reason_of(judge_complaint, old_proof, honest[0], committee, 0) == "unproven_complaint"
    new = Certificate.of(checks, committee, manifest)
    payload = read_message(answer, following.record.coordinator_key, Pet1Tag.SUM2)[1]
    assert reason_of(parse_sum2, payload, following.record, new.digest) == "wrong_certificate"


def test_copied_point_of_an_update() -> None:
    """A participant seals rubbish under a victim's E, so that honest complaints would publish what opens the victim's boxes."""
    played = HonestRound.play(Parties())
    victim, thief = played.updates[0].header, played.parties.participant_keys[5]
    own = ShareHeader.build(thief, played.committee, fresh_secrets(played.parties), bytes(32))
    body = own.data[:80] + victim.point + own.data[112:-64]
    for known in (own.data[112:176], victim.data[112:176]):
        forged = body[:112] + known + body[176:]
        data = forged + sign_text(thief, "pet-1 header", forged)
        assert reason_of(played.members[0].receive_header, data) == "unproven_key"
    # Nobody complains, so D is not published.
    assert len(played.members[0].sign_check()) == 136 + 36


def test_scalars_that_are_not_reduced() -> None:
    """z + l is the same response in other bytes: one complaint, or header, would have two encodings."""
    parties = Parties()
    coordinator = LooseCoordinator(parties)
    members = [parties.member(slot) for slot in range(3)]
    committee = coordinator.form(members)
    update = coordinator.ask(parties.participant(0), committee)
    spoilt = spoil_box(update.header, parties.participant_keys[0], slot=0)
    scalar = scalar_of(members[0])
    proof = proofs.prove_shared(scalar, edwards.multiply_base(scalar), spoilt.point, 0, spoilt.context)
    assert reason_of(judge_complaint, proof, spoilt, committee, 0) is None
    for place in (32, 64):
        assert reason_of(judge_complaint, above_the_order(proof, place), spoilt, committee, 0) == "unproven_complaint"
    for place in (112, 144):
        body = above_the_order(update.header.data[:-64], place)
        data = body + sign_text(parties.participant_keys[0], "pet-1 header", body)
        assert reason_of(members[0].receive_header, data) == "unproven_key"


def above_the_order(data: bytes, place: int) -> bytes:
    number = int.from_bytes(data[place : place + 32], "little") + edwards.GROUP_ORDER
    return data[:place] + number.to_bytes(32, "little") + data[place + 32 :]
