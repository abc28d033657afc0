"""The share header of an update: what members see of it, and what anybody can check of it.

Source: docs/spec/profile.md 6.4, 9.1 to 9.3.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from pet import edwards
from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKeyPair
from pet.edwards import POINT_BYTES, is_point
from pet.errors import CryptoError
from pet.mask_object import MASK_SEED_BYTES, MaskSeed
from pet.pet1 import proofs
from pet.pet1.committee import Committee
from pet.pet1.hashes import DIGEST_BYTES, MAGIC_BYTES, digest, is_signed_text, magic, sign_text, u16
from pet.pet1.proofs import BOX_OVERHEAD_BYTES, KNOWN_PROOF_BYTES
from pet.pet1.refusing import require, split_keys
from pet.secret import hidden

NAME: Final = "pet-1 header"
_PARTICIPANT: Final = slice(MAGIC_BYTES, MAGIC_BYTES + PUBLIC_KEY_BYTES)
_COMMITTEE: Final = slice(_PARTICIPANT.stop, _PARTICIPANT.stop + DIGEST_BYTES)
_POINT: Final = slice(_COMMITTEE.stop, _COMMITTEE.stop + POINT_BYTES)
_PROOF: Final = slice(_POINT.stop, _POINT.stop + KNOWN_PROOF_BYTES)
_VECTOR: Final = slice(_PROOF.stop, _PROOF.stop + DIGEST_BYTES)


def derive_context(committee_digest: bytes, participant_public_key: bytes, point: bytes) -> bytes:
    """Return what binds keys, seeds, boxes and proofs to a committee, a sender and its fresh point E."""
    return digest("pet-1 context", committee_digest, participant_public_key, point)


def derive_part_seed(master: bytes, part: int) -> bytes:
    """Return the seed s_k of a part."""
    return digest("pet-1 part", u16(part), key=master)


def derive_mask_seed(part_seed: bytes, context: bytes, part: int) -> MaskSeed:
    """Return the key K_k whose expansion is a part of the mask."""
    return MaskSeed(digest("pet-1 mask", context, u16(part), key=part_seed))


def derive_commitment(part_seed: bytes, context: bytes, part: int) -> bytes:
    """Return the commitment to a part's seed: all its holders hold the same seed, or notice."""
    return digest("pet-1 commit", context, u16(part), key=part_seed)


def header_bytes(committee: Committee) -> int:
    """Return the size of a share header: it follows from the plan and the taken slots."""
    plan = committee.plan
    return _VECTOR.stop + DIGEST_BYTES * plan.part_count + sum(_box_sizes(committee)) + SIGNATURE_BYTES


def _box_sizes(committee: Committee) -> list[int]:
    """Return the size of each slot's box, 0 for an empty slot."""
    plan = committee.plan
    return [
        0 if point is None else BOX_OVERHEAD_BYTES + MASK_SEED_BYTES * len(plan.held_parts(slot))
        for slot, point in enumerate(committee.points)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSecrets:
    """What a participant masks one update with: fresh for every masking, and never stored on its own (U6).

    Attributes:
        master: 32 random bytes that the part seeds and the salt grow from.
        scalar: e, a random scalar.
    """

    master: bytes = hidden()
    scalar: bytes = hidden()

    @classmethod
    def from_random(cls, random: bytes) -> UpdateSecrets:
        """Make them of 96 random bytes.

        Raises:
            CryptoError: another number of bytes.
        """
        if len(random) != MASK_SEED_BYTES + edwards.WIDE_BYTES:
            raise CryptoError(f"secrets of an update: expected {MASK_SEED_BYTES + edwards.WIDE_BYTES} bytes, got {len(random)}")
        return cls(master=random[:MASK_SEED_BYTES], scalar=edwards.reduce_scalar(random[MASK_SEED_BYTES:]))

    @property
    def point(self) -> bytes:
        """E."""
        return edwards.multiply_base(self.scalar)

    @property
    def salt(self) -> bytes:
        """What keys the digest of the vector (docs/spec/profile.md 9.4)."""
        return digest("pet-1 salt", key=self.master)

    def mask_seeds(self, committee: Committee, context: bytes) -> list[MaskSeed]:
        """Return the keys of all parts of the mask, in their order."""
        parts = range(committee.plan.part_count)
        return [derive_mask_seed(derive_part_seed(self.master, part), context, part) for part in parts]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareHeader:
    """A share header that passed S1 to S7.

    Attributes:
        participant: the sender's Ed25519 key.
        context: binds everything in it.
        point: E.
        vector_digest: of the vector; members take it as it is.
        commitments: of each part.
        boxes: of each slot; empty where the slot is.
        data: the whole header.
    """

    participant: bytes
    context: bytes
    point: bytes
    vector_digest: bytes
    commitments: tuple[bytes, ...] = field(repr=False)
    boxes: tuple[bytes, ...] = field(repr=False)
    data: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: Buffer, committee: Committee) -> ShareHeader:
        """Read a header, and check what anybody can (S1 to S7).

        Raises:
            RemoteProtocolError: "malformed_share_header", "wrong_committee", "not_enrolled", "not_selected",
                "invalid_header_signature", "invalid_point", "unproven_key".
        """
        data, size, named = bytes(data), header_bytes(committee), committee.digest
        is_whole = len(data) == size and data.startswith(magic(NAME))
        require(is_whole, "malformed_share_header", f"share header: expected {size} bytes with its name, got {len(data)}")
        participant, point = data[_PARTICIPANT], data[_POINT]
        require(data[_COMMITTEE] == named, "wrong_committee", "share header: expected this round's committee, got another")
        is_enrolled = committee.enrolment.lists_participant(participant)
        require(is_enrolled, "not_enrolled", "share header: expected an enrolled participant, got another key")
        is_selected = committee.record.selects(participant)
        require(is_selected, "not_selected", "share header: expected a participant selected for this round, got another")
        body, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
        is_signed = is_signed_text(participant, NAME, body, signature)
        require(is_signed, "invalid_header_signature", "share header: not signed by its participant")
        require(is_point(point), "invalid_point", "share header: expected a point of prime order, got something else")
        context = derive_context(named, participant, point)
        is_proven = proofs.is_known(point, context, data[_PROOF])
        require(is_proven, "unproven_key", "share header: expected a proof of knowledge of its key, got none")
        return cls._of(data, committee, context)

    @classmethod
    def _of(cls, data: bytes, committee: Committee, context: bytes) -> ShareHeader:
        """Take a header apart whose size and content are checked."""
        place = boxes_start = _VECTOR.stop + DIGEST_BYTES * committee.plan.part_count
        boxes = list[bytes]()
        for size in _box_sizes(committee):
            boxes.append(data[place : place + size])
            place += size
        return cls(
            participant=data[_PARTICIPANT],
            context=context,
            point=data[_POINT],
            vector_digest=data[_VECTOR],
            commitments=tuple(split_keys(data[_VECTOR.stop : boxes_start], DIGEST_BYTES)),
            boxes=tuple(boxes),
            data=data,
        )

    @classmethod
    def build(cls, key: SigningKeyPair, committee: Committee, secrets: UpdateSecrets, vector_digest: bytes) -> ShareHeader:
        """Make the header of an update: a commitment to each part's seed, and the seeds in boxes for their holders."""
        plan, point, named = committee.plan, secrets.point, committee.digest
        context = derive_context(named, key.public_key, point)
        seeds = [derive_part_seed(secrets.master, part) for part in range(plan.part_count)]
        parts = [magic(NAME), key.public_key, named, point, proofs.prove_known(secrets.scalar, point, context), vector_digest]
        parts += [derive_commitment(seed, context, part) for part, seed in enumerate(seeds)]
        for slot, member_point in enumerate(committee.points):
            if member_point is not None:
                shared = edwards.multiply(secrets.scalar, member_point)
                box_key = None if shared is None else proofs.derive_box_key(shared, point, member_point, slot, context)
                assert box_key is not None, "the points of a committee are of prime order"
                parts.append(proofs.seal_box(b"".join(seeds[part] for part in plan.held_parts(slot)), box_key))
        body = b"".join(parts)
        return cls._of(body + sign_text(key, NAME, body), committee, context)

    @property
    def digest(self) -> bytes:
        """What the manifest lists, and what uploads are known by."""
        return digest("pet-1 share", self.data)

    def open_box(self, committee: Committee, slot: int, shared: bytes) -> dict[int, bytes] | None:
        """Open the box of a taken slot with the point D that its member and the sender share.

        Returns:
            The seed of each part that the slot holds; None if the box is bad: it does not open, or a seed differs from its
            commitment (docs/spec/profile.md 9.3).
        """
        member_point = committee.points[slot]
        assert member_point is not None, "an empty slot has no box"
        key = proofs.derive_box_key(shared, self.point, member_point, slot, self.context)
        plain = None if key is None else proofs.open_box(self.boxes[slot], key)
        if plain is None:
            return None
        seeds = dict(zip(committee.plan.held_parts(slot), split_keys(plain, MASK_SEED_BYTES), strict=True))
        is_good = all(
            hmac.compare_digest(derive_commitment(seed, self.context, part), self.commitments[part])
            for part, seed in seeds.items()
        )
        return seeds if is_good else None
