"""Attacks on pet/1 that its rules are there for: each works where the rule is left out, and fails with it.

Source: docs/spec/profile.md 1.2, 17.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from pet1_peers import NOW, Disk, make_member, make_participant, served_enrolment
from pet1_rounds import reason_of, vector_round
from pet1_sessions import settings_of

import pet
from pet import edwards
from pet.crypto import SigningKeyPair
from pet.errors import LocalProtocolError, RemoteProtocolError
from pet.kernels import fields
from pet.pet1 import proofs
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check
from pet.pet1.committee import Committee, build_sum
from pet.pet1.hashes import digest
from pet.pet1.leaves import derive_leaf_digests, derive_vector_digest
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_commitment, derive_mask_seed, derive_part_seed
from pet.protocol.pet1_member import MemberMachine

ROUND = vector_round("3of5")
SERVED = served_enrolment(ROUND)


# ---- the coordinator announces keys of its own -----------------------------------------------------------------------------


def test_own_keys_in_the_committee() -> None:
    """A point that no member signed, and the coordinator's own "member": participants refuse both."""
    update = ROUND.entry["updates"][0]
    own = SigningKeyPair.from_seed(bytes(32))
    point = ROUND.committee.points[0] or b""
    of_stranger = build_sum(own, ROUND.record, 0, point)
    changed = bytearray(ROUND.committee.sums[0] or b"")
    changed[-32:] = edwards.multiply_base(bytes([7]) + bytes(31))
    for forged, reason in ((of_stranger, "wrong_slot"), (bytes(changed), "invalid_signature")):
        data = ROUND.committee.to_bytes()
        data = data.replace(ROUND.committee.sums[0] or b"", forged)
        participant = make_participant(ROUND, update, Disk())
        participant.join(ROUND.bytes_of("round"), SERVED, NOW)
        assert reason_of(Committee.from_bytes, data, ROUND.record, ROUND.enrolment) == reason
        participant._joined.has_model = True
        with pytest.raises(RemoteProtocolError) as caught:
            participant.mask(data, [0.0] * 7)
        assert caught.value.reason == reason


# ---- a member announces a copy of another's key ------------------------------------------------------------------------------


def known_parts(copied: int, derive_box_key: Callable[..., bytes | None], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many part seeds members 3 and 4 of a 3 of 5 know, of whom 4 announced a copy of an honest member's key."""
    with monkeypatch.context() as patch:
        patch.setattr(proofs, "derive_box_key", derive_box_key)
        secrets = [edwards.reduce_scalar(bytes([number]) * 64) for number in range(1, 6)]
        points = [edwards.multiply_base(secret) for secret in secrets]
        points[4] = points[copied]
        committee = replace(ROUND.committee, points=tuple(points))
        key = SigningKeyPair.from_seed(bytes(32))
        header = ShareHeader.build(key, committee, UpdateSecrets.from_random(bytes(range(96))), bytes(32))
        plan = committee.plan
        shared = edwards.multiply(secrets[3], header.point)
        assert shared is not None
        known = header.open_box(committee, 3, shared)
        assert known is not None
    both = bytes(a ^ b for a, b in zip(header.boxes[copied], header.boxes[4], strict=True))
    pairs = list(enumerate(zip(plan.held_parts(copied), plan.held_parts(4), strict=True)))
    for _ in range(plan.part_count):
        for index, pair in pairs:
            for have, want in (pair, pair[::-1]):
                if have in known and want not in known:
                    piece = both[32 * index : 32 * index + 32]
                    known[want] = bytes(a ^ b for a, b in zip(known[have], piece, strict=True))
    return sum(derive_commitment(seed, header.context, part) == header.commitments[part] for part, seed in known.items())


@pytest.mark.parametrize("copied", range(3))
def test_a_copied_member_key_opens_nothing(copied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = proofs.derive_box_key

    def without_slot(shared: bytes, sender: bytes, member: bytes, _slot: int, context: bytes) -> bytes | None:
        return right(shared, sender, member, 0, context)

    assert known_parts(copied, right, monkeypatch) == 6  # those of one member: the colluders learn nothing together
    assert known_parts(copied, without_slot, monkeypatch) > 6


# ---- guesses of a vector ---------------------------------------------------------------------------------------------------


def test_members_cannot_guess_a_counter() -> None:
    """Three of a 3 of 5 know the whole mask; header and digest are public. Without a salt they would try all values."""
    order, context, plan = fields.Z32, bytes(32), pet.Plan(groups=1, members=5, threshold=3, quorum=4)
    secrets = UpdateSecrets.from_random(bytes(range(96)))
    config = pet.MaskConfig.parse("pet-1/z32,int,models=1000")
    seeds = [derive_mask_seed(derive_part_seed(secrets.master, k), context, k) for k in range(plan.part_count)]
    mask = pet.sum_masks(seeds, config, 1).to_vector()
    pads = [int.from_bytes(mask[start : start + 4], "little") for start in (0, 4)]

    def masked(counter: int) -> bytes:
        return b"".join(((value + pad) % order).to_bytes(4, "little") for value, pad in zip((counter, 1), pads, strict=True))

    def digest_of(vector: bytes, salt: bytes) -> bytes:
        return derive_vector_digest(derive_leaf_digests(vector, context), len(vector), salt)

    for salt, found in ((bytes(32), [731]), (secrets.salt, [])):
        public = digest_of(masked(731), salt)
        assert [guess for guess in range(1000) if digest_of(masked(guess), bytes(32)) == public] == found


# ---- several sets shown to several members -----------------------------------------------------------------------------------


def test_a_split_in_three_gives_a_weighted_sum_without_a_certificate() -> None:
    """2 of 3 and no colluder: sets A, B and A + B shown to three members give 4 * sum(A) + sum(B)."""
    source, order, plan = random.Random(5), fields.Z32, pet.Plan(groups=1, members=3, threshold=2, quorum=3)
    values = [source.randrange(1000) for _ in range(6)]
    pads = [[source.randrange(order) for _ in range(3)] for _ in values]
    masked = [value + sum(pad) for value, pad in zip(values, pads, strict=True)]

    def answer(slot: int, updates: Iterable[int]) -> int:
        return sum(plan.share_factor(part, slot, order) * pads[i][part] for i in updates for part in plan.held_parts(slot))

    first, second = range(3), range(3, 6)
    shown = 6 * answer(0, first) + 3 * answer(1, second) - 2 * answer(2, range(6))
    learnt = (4 * sum(masked[i] for i in first) + sum(masked[i] for i in second) - shown) % order
    assert learnt == (4 * sum(values[i] for i in first) + sum(values[i] for i in second)) % order


def checked_by(slot: int, updates: list[int], disk: Disk) -> tuple[MemberMachine, bytes, UpdateManifest]:
    """Return a member that was shown a manifest of some updates, its Check message, and the manifest."""
    headers = [list(ROUND.headers.values())[index] for index in updates]
    member = make_member(ROUND, slot, disk)
    member.join(ROUND.bytes_of("round"), SERVED, NOW)
    member.receive_committee(ROUND.bytes_of("committee"))
    for header in headers:
        member.receive_header(header.data)
    manifest = UpdateManifest.of(ROUND.committee, headers)
    member.receive_manifest(manifest.to_bytes())
    return member, member.sign_check(), manifest


def test_split_manifests_give_no_certificate() -> None:
    """Two members see three updates, three see five: no quorum of four signs either."""
    shown = [[0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    seen = [checked_by(slot, updates, Disk()) for slot, updates in enumerate(shown)]
    for wanted in (seen[0][2], seen[4][2]):
        checks = [check for _, check, manifest in seen if manifest == wanted]
        assert reason_of(Certificate.of, checks, ROUND.committee, wanted) == "no_quorum"
        assert reason_of(Certificate.of, [check for _, check, _ in seen], ROUND.committee, wanted) == "wrong_root"


@pytest.mark.parametrize("members", range(1, 10))
def test_two_certificates_take_as_many_double_signers_as_the_plan_says(members: int) -> None:
    """Search over all assignments of honest members to two roots or none."""
    for quorum in range(members // 2 + 1, members + 1):
        plan = pet.Plan(groups=1, members=members, threshold=members, quorum=quorum)
        for colluders in range(members + 1):
            honest = members - colluders
            possible = any(
                first + colluders >= quorum and second + colluders >= quorum
                for first in range(honest + 1)
                for second in range(honest - first + 1)
            )
            assert possible is (colluders >= 2 * quorum - members)
            assert not (possible and colluders <= plan.active)


# ---- a coordinator that does anything, and a member that is killed -----------------------------------------------------------


def test_no_key_ever_signs_two_roots_or_answers_two_certificates() -> None:
    """Manifests and certificates at random, repeated and out of order, and a restart from the latest state at any time."""
    headers = list(ROUND.headers.values())[:5]
    manifests = [UpdateManifest.of(ROUND.committee, headers[:count]) for count in (3, 4, 5)]
    members = ROUND.members()
    certificates, listed = [], []
    for manifest, signers in itertools.product(manifests, ((0, 1, 2, 3), (0, 1, 3, 4), (1, 2, 3, 4))):
        checks = [build_check(members[slot], ROUND.record, manifest.root, {}) for slot in signers]
        certificates.append(Certificate.of(checks, ROUND.committee, manifest).to_bytes())
        listed.append((manifest, certificates[-1]))
    signed = 0
    for seed in range(5):
        source, disk = random.Random(seed), Disk()
        member = start(make_member(ROUND, 4, disk), headers)
        roots, answered = set(), set()
        for _ in range(30):
            match source.randrange(4):
                case 0:
                    member = start(make_member(ROUND, 4, disk, saved=disk.latest), headers)
                case 1:
                    attempt(member.receive_manifest, source.choice(manifests).to_bytes())
                case 2:
                    roots |= named_by(attempt(member.sign_check), Pet1Tag.CHECK)
                case _:
                    answered |= named_by(attempt(member.answer, source.choice(certificates)), Pet1Tag.SUM2)
        assert len(roots) <= 1
        assert len(answered) <= 1
        # What it answered is a certificate of the root that it signed, and of no other.
        of_root = {digest("pet-1 certified", data) for manifest, data in listed if manifest.root in roots}
        assert not roots or answered <= of_root
        signed += len(roots) + len(answered)
    assert signed > 5


def named_by(messages: list[bytes], tag: Pet1Tag) -> set[bytes]:
    """Return the digests that payloads begin with."""
    return {read_message(message, ROUND.record.coordinator_key, tag)[1][:32] for message in messages}


def start(member: MemberMachine, headers: list[ShareHeader]) -> MemberMachine:
    member.join(ROUND.bytes_of("round"), SERVED, NOW)
    member.receive_committee(ROUND.bytes_of("committee"))
    for header in headers:
        member.receive_header(header.data)
    return member


def attempt(call: Callable[..., bytes | None], *arguments: Any) -> list[bytes]:
    """Return what a call gives, or nothing if it is refused."""
    try:
        given = call(*arguments)
    except (RemoteProtocolError, LocalProtocolError):
        return []
    return [] if given is None else [given]


def test_an_enrolment_that_the_record_does_not_name_is_refused() -> None:
    """An enrolment that the record does not name is refused by members, no matter who signed it."""
    other = replace(ROUND.enrolment, version=ROUND.enrolment.version + 1)
    settings = settings_of(ROUND, served_enrolment=other.to_bytes() + bytes(64))
    record = settings.record(43, bytes(32), bytes(32)).to_bytes()
    member = make_member(ROUND, 0, Disk())
    assert reason_of(member.join, record, SERVED, NOW) == "unknown_enrolment"
