"""Four rules of pet/1, each with the attack that works without it and fails with it.

Source: docs/spec/profile.md 1.2.
"""

from __future__ import annotations

import nacl.bindings
import pytest
from pet1_parties import (
    CONFIG,
    THREE_OF_FIVE,
    TWO_OF_THREE,
    HonestRound,
    LooseCoordinator,
    MadeUpdate,
    Parties,
    elements_of,
    sum_of,
)
from pet1_rounds import reason_of

import pet
from pet import edwards
from pet.crypto import SigningKeyPair
from pet.pet1 import proofs
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check, judge_complaint
from pet.pet1.committee import Committee, build_sum
from pet.pet1.hashes import u16
from pet.pet1.leaves import derive_leaf_digests, derive_vector_digest
from pet.pet1.manifest import UpdateManifest
from pet.pet1.proofs import derive_box_key
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_commitment, derive_mask_seed
from pet.plan import interpolation_factors

ORDER_2 = (2**255 - 20).to_bytes(32, "little")
ORDER_8 = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")


# ---- the slot in the key of a box ------------------------------------------------------------------------------------------


def copied_point_round(copied: int) -> tuple[Parties, Committee, ShareHeader, dict[int, bytes]]:
    """Return a committee of five whose last member announces the point of another, and a header for it."""
    parties = Parties(THREE_OF_FIVE)
    record = LooseCoordinator(parties).record
    scalars = {slot: edwards.reduce_scalar(parties.random.randbytes(64)) for slot in range(4)}
    points = {slot: edwards.multiply_base(scalar) for slot, scalar in scalars.items()}
    points[4] = points[copied]
    sums = [build_sum(key, record, slot, points[slot]) for slot, key in enumerate(parties.member_keys)]
    committee = Committee.of(record, parties.enrolment, sums)
    secrets = UpdateSecrets.from_random(parties.random.randbytes(96))
    return parties, committee, ShareHeader.build(parties.participant_keys[0], committee, secrets, bytes(32)), scalars


def parts_read_by_two(copied: int) -> set[int]:
    """Return the parts whose seeds members 3 and 4 know, who learn what two boxes under one key and nonce differ by."""
    _, committee, header, scalars = copied_point_round(copied)
    plan = committee.plan
    shared = edwards.multiply(scalars[3], header.point)
    assert shared is not None
    seeds = header.open_box(committee, 3, shared)
    assert seeds is not None
    boxes = [memoryview(header.boxes[slot]) for slot in (copied, 4)]
    pairs = list(zip(plan.held_parts(copied), plan.held_parts(4), strict=True))
    guesses, is_growing = dict(seeds), True
    while is_growing:
        is_growing = False
        for place, pair in enumerate(pairs):
            for known, other in (pair, pair[::-1]):
                if known in guesses and other not in guesses:
                    left, right = (box[32 * place : 32 * place + 32] for box in boxes)
                    guesses[other] = bytes(a ^ b ^ c for a, b, c in zip(guesses[known], left, right, strict=True))
                    is_growing = True
    return {part for part, seed in guesses.items() if derive_commitment(seed, header.context, part) == header.commitments[part]}


def test_a_copied_point_opens_nothing_because_the_slot_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of a 3 of 5 collude, one too few; one of them announces the point of an honest member as its own."""
    held = set(THREE_OF_FIVE.held_parts(3))
    assert [parts_read_by_two(copied) for copied in range(3)] == [held] * 3
    monkeypatch.setattr(
        proofs,
        "derive_box_key",
        lambda shared, sender, member, _slot, context: derive_box_key(shared, sender, member, 0, context),
    )
    assert [len(parts_read_by_two(copied)) for copied in range(3)] == [10, 10, 8]


# ---- the salt of a vector's digest -----------------------------------------------------------------------------------------


def test_members_who_know_a_mask_cannot_test_guesses_because_digests_are_salted() -> None:
    """Three members of a 3 of 5 know every seed without seeing any traffic; the header is public, the update a counter."""
    parties = Parties(THREE_OF_FIVE)
    coordinator = LooseCoordinator(parties, model_length=1)
    scalars = [edwards.reduce_scalar(parties.random.randbytes(64)) for _ in range(5)]
    sums = [
        build_sum(key, coordinator.record, slot, edwards.multiply_base(scalar))
        for slot, (key, scalar) in enumerate(zip(parties.member_keys, scalars, strict=True))
    ]
    committee = Committee.of(coordinator.record, parties.enrolment, sums)
    update = coordinator.ask(parties.participant(0), committee, [731])
    header, weight = update.header, update.numbers[-1]
    seeds: dict[int, bytes] = {}
    for slot in (0, 1, 2):
        seeds |= header.open_box(committee, slot, edwards.multiply(scalars[slot], header.point) or b"") or {}
    keys = [derive_mask_seed(seeds[part], header.context, part) for part in range(THREE_OF_FIVE.part_count)]
    mask = elements_of(pet.sum_masks(keys, CONFIG, 1).to_vector())

    def found(public_digest: bytes) -> list[int]:
        hits = []
        for guess in range(1000):
            masked = [(own + part) % CONFIG.order for own, part in zip((guess, weight), mask, strict=True)]
            vector = b"".join(element.to_bytes(4, "little") for element in masked)
            leaves = derive_leaf_digests(vector, header.context)
            if derive_vector_digest(leaves, len(vector), bytes(32)) == public_digest:
                hits.append(guess)
        return hits

    leaves = derive_leaf_digests(update.sent.vector, header.context)
    assert found(derive_vector_digest(leaves, len(update.sent.vector), bytes(32))) == [731]
    assert found(header.vector_digest) == []


# ---- the certificate -------------------------------------------------------------------------------------------------------


def shares_of_split(split: dict[int, list[MadeUpdate]], played: HonestRound) -> dict[int, list[int]]:
    """Return what members would answer who are each shown a set of their own, and ask for no certificate."""
    shares = {}
    plan = played.committee.plan
    for slot, updates in split.items():
        member = played.members[slot]
        opened = member._opened
        assert opened is not None
        seeds = {
            part: [
                derive_mask_seed(opened.seeds[update.header.participant][part], update.header.context, part)
                for update in updates
            ]
            for part in plan.held_parts(slot)
        }
        length = played.coordinator.record.model_length
        shares[slot] = elements_of(pet.shares.derive_share(plan, slot, seeds, CONFIG, length, threads=1).to_vector())
    return shares


def test_a_split_in_three_shows_a_weighted_sum_unless_members_ask_for_a_certificate() -> None:
    """No colluder, 2 of 3: member 1 is shown A, member 2 B, member 3 both. A threshold alone does not protect."""
    played = HonestRound.play(Parties(TWO_OF_THREE), update_count=6)
    first, second = played.updates[:3], played.updates[3:]
    shares = shares_of_split({0: first, 1: second, 2: [*first, *second]}, played)
    # Slots 0 and 2 recover A's mask, slots 1 and 2 B's; with the same factor for the third answer, both at once.
    order = CONFIG.order
    of_first, third = interpolation_factors((1, 3), order)
    of_second, other = interpolation_factors((2, 3), order)
    scale = third * pow(other, -1, order) % order
    for place in range(played.coordinator.record.vector_length):
        masked = [[elements_of(update.sent.vector)[place] for update in part] for part in (first, second)]
        mask = of_first * shares[0][place] + scale * of_second * shares[1][place] + third * shares[2][place]
        learned = (sum(masked[0]) + scale * sum(masked[1]) - mask) % order
        assert learned == (sum_of(first)[place] + scale * sum_of(second)[place]) % order
    # The members themselves: each signs one list, no list has a quorum, and without a certificate nobody answers.
    parties = Parties(TWO_OF_THREE)
    coordinator = LooseCoordinator(parties)
    members = [parties.member(slot) for slot in range(3)]
    committee = coordinator.form(members)
    headers = [coordinator.ask(parties.participant(number), committee).header for number in range(6)]
    lists = [headers[:3], headers[3:], headers]
    manifests = [coordinator.show(member, committee, shown) for member, shown in zip(members, lists, strict=True)]
    checks = [member.sign_check() for member in members]
    for member, manifest in zip(members, manifests, strict=True):
        for chosen in (checks, checks[:1], checks[1:]):
            forged = b"".join([b"pet-1 certified\0", manifest.root, u16(len(chosen)), *chosen])
            assert reason_of(member.answer, forged) in ("wrong_root", "no_quorum")
    assert {reason_of(Certificate.of, checks, committee, manifest) for manifest in manifests} == {"wrong_root"}
    assert len({UpdateManifest.of(committee, shown).root for shown in lists}) == 3


# ---- points of prime order, times 8 ----------------------------------------------------------------------------------------


def accuse_with(torsion: bytes, order: int, played: HonestRound, scalar: bytes, slot: int) -> bytes:
    """Return a "proof" that D + a point of small order is the shared point: nonces are tried until the order divides c."""
    header = played.updates[0].header
    point = edwards.multiply_base(scalar)
    shared = edwards.multiply(scalar, header.point)
    assert shared is not None
    false = nacl.bindings.crypto_core_ed25519_add(shared, torsion)
    for attempt in range(1000):
        nonce = edwards.reduce_scalar(bytes([1 + attempt % 256, attempt // 256]) + bytes(62))
        commitments = edwards.multiply_base(nonce), edwards.multiply(nonce, header.point) or b""
        challenge = proofs._challenge("pet-1 equal", point, header.point, false, *commitments, u16(slot), header.context)
        if int.from_bytes(challenge, "little") % order == 0:
            return false + challenge + edwards.add_product(nonce, challenge, scalar)
    raise AssertionError("no nonce found")


def take_points_of_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let points and products be those of a library that does not ask for a point's order."""

    def multiply(scalar: bytes, point: bytes) -> bytes:
        total = nacl.bindings.crypto_core_ed25519_sub(point, point)
        for bit in f"{int.from_bytes(scalar, 'little'):b}":
            total = nacl.bindings.crypto_core_ed25519_add(total, total)
            if bit == "1":
                total = nacl.bindings.crypto_core_ed25519_add(total, point)
        return total

    monkeypatch.setattr(proofs, "is_point", lambda data: edwards.times_8(data) is not None)
    monkeypatch.setattr(edwards, "multiply", multiply)


def played_with_scalar() -> tuple[HonestRound, bytes]:
    """Return a round, and the secret scalar of its first member, who is the liar."""
    played = HonestRound.play(Parties(TWO_OF_THREE))
    secrets = played.members[0]._secrets
    assert secrets is not None
    return played, secrets.scalar


@pytest.mark.parametrize(("torsion", "order"), [(ORDER_2, 2), (ORDER_8, 8)], ids=["order 2", "order 8"])
def test_points_of_small_order_accuse_nobody(torsion: bytes, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof is judged valid where points may have any order; then the box still opens, as its key hashes 8 * D."""
    played, scalar = played_with_scalar()
    header, key = played.updates[0].header, played.parties.member_keys[0]
    proof = accuse_with(torsion, order, played, scalar, 0)
    assert reason_of(judge_complaint, proof, header, played.committee, 0) == "unproven_complaint"
    certificate = certificate_with(played, key, {header.participant: proof})
    assert certificate.agreed == tuple(played.manifest.headers)
    assert certificate.worthless == {"unproven_complaint": 1}

    take_points_of_any_order(monkeypatch)
    assert reason_of(judge_complaint, proof, header, played.committee, 0) == "unfounded_complaint"
    monkeypatch.setattr(edwards, "times_8", lambda point: point)
    assert reason_of(judge_complaint, proof, header, played.committee, 0) is None  # an honest update would be excluded


def certificate_with(played: HonestRound, key: SigningKeyPair, complaints: dict[bytes, bytes]) -> Certificate:
    """Return the certificate in which the first member's Check has these complaints."""
    lying = build_check(key, played.coordinator.record, played.manifest.root, complaints)
    return Certificate.of([lying, *(member.sign_check() for member in played.members[1:])], played.committee, played.manifest)
