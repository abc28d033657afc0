"""Liars in simulated rounds of pet/1: members, update participants, and a leader that shows each peer something else."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pet1_parties import CONFIG, MODEL_LENGTH, MadeUpdate, elements_of, spoil_box

import pet
from pet import edwards
from pet.crypto import SigningKeyPair, seal
from pet.errors import RemoteProtocolError
from pet.pet1 import proofs
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check, build_sum2
from pet.pet1.committee import Committee, build_sum
from pet.pet1.leaves import build_update, derive_leaf_digests, derive_vector_digest
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, sign_message
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_context
from pet.protocol.pet1_participant import OutgoingUpdate

# ---- update participants ---------------------------------------------------------------------------------------------------


def repack(made: MadeUpdate, key: SigningKeyPair, record: RoundRecord, header: ShareHeader) -> MadeUpdate:
    """Return an update with another header, of the same length and vector digest."""
    payload = header.data + made.message[136 + len(header.data) :]
    message = sign_message(key, record.coordinator_key, Pet1Tag.UPDATE, payload)
    sent = replace(made.sent, header=header, sealed=seal(message, record.coordinator_key))
    return replace(made, sent=sent, message=message)


def with_bad_boxes(source: random.Random, made: MadeUpdate, key: SigningKeyPair, committee: Committee) -> MadeUpdate:
    """Return an update whose box is bad for one member or more: each must complain, or be silent."""
    taken = [slot for slot, point in enumerate(committee.points) if point is not None]
    for slot in source.sample(taken, source.randint(1, len(taken))):
        made = repack(made, key, committee.record, spoil_box(made.header, key, slot))
    return made


def with_vector(source: random.Random, key: SigningKeyPair, committee: Committee, vector: bytes) -> MadeUpdate:
    """Return an update of a vector that its participant made up; its numbers are what is left without the mask."""
    secrets = UpdateSecrets.from_random(source.randbytes(96))
    context = derive_context(committee.digest, key.public_key, secrets.point)
    leaves = derive_leaf_digests(vector, context)
    header = ShareHeader.build(key, committee, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))
    message = build_update(key, committee, header, secrets.salt, leaves)
    mask = pet.sum_masks(secrets.mask_seeds(committee, context), CONFIG, MODEL_LENGTH).to_vector()
    pairs = zip(elements_of(vector), elements_of(mask), strict=True)
    sent = OutgoingUpdate(
        header=header,
        sealed=seal(message, committee.record.coordinator_key),
        vector=memoryview(vector),
        leaf_count=1,
        clipped_count=0,
    )
    return MadeUpdate(sent=sent, message=message, numbers=tuple((element - own) % CONFIG.order for element, own in pairs))


def rubbish(source: random.Random) -> bytes:
    """Return a vector of elements at random, below the order."""
    return b"".join(source.randrange(CONFIG.order).to_bytes(4, "little") for _ in range(MODEL_LENGTH + 1))


def above_the_order() -> bytes:
    return b"\xff" * 4 * (MODEL_LENGTH + 1)


# ---- members ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LyingMember:
    """A member that keeps its secret and signs what it likes.

    Attributes:
        key: of its slot.
        slot: its own.
        scalar: of the point that it announced.
    """

    key: SigningKeyPair
    slot: int
    scalar: bytes

    @classmethod
    def announce(cls, source: random.Random, key: SigningKeyPair, slot: int, record: RoundRecord) -> tuple[LyingMember, bytes]:
        """Return it and its Sum message."""
        scalar = edwards.reduce_scalar(source.randbytes(64))
        return cls(key=key, slot=slot, scalar=scalar), build_sum(key, record, slot, edwards.multiply_base(scalar))

    def check(self, source: random.Random, manifest: UpdateManifest, record: RoundRecord) -> bytes:
        """Return a Check of any list, with complaints about anybody: proven ones, and some that are not."""
        complaints = {}
        point = edwards.multiply_base(self.scalar)
        for participant, header in manifest.headers.items():
            chance = source.random()
            if chance < 0.4:
                complaints[participant] = proofs.prove_shared(self.scalar, point, header.point, self.slot, header.context)
            elif chance < 0.5:
                complaints[participant] = source.randbytes(96)
        return build_check(self.key, record, manifest.root, complaints)

    def answer(self, source: random.Random, certificate: bytes, record: RoundRecord) -> bytes:
        """Return an answer that is no share of anything."""
        return build_sum2(self.key, record, certificate, pet.Mask.from_vector(CONFIG, rubbish(source)))


# ---- leaders ---------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class LyingLeader:
    """Who shows each peer something else, of what it was sent and what colluding members sign."""

    source: random.Random
    strangers: Callable[[], SigningKeyPair]

    def records(self, record: RoundRecord) -> bytes:
        """Return a record of the same number, or of an earlier one."""
        number = record.number - self.source.randrange(2)
        return replace(record, number=max(number, 0), seed=self.source.randbytes(32)).to_bytes()

    def committees(self, committee: Committee) -> bytes:
        """Return a committee without somebody, or with a key of the leader's own in a slot."""
        sums, slot = list(committee.sums), self.source.randrange(len(committee.sums))
        point = edwards.multiply_base(edwards.reduce_scalar(self.source.randbytes(64)))
        forged = build_sum(self.strangers(), committee.record, slot, point)
        sums[slot] = self.source.choice([None, forged])
        return replace(committee, sums=tuple(sums)).to_bytes()

    def headers(self, header: ShareHeader) -> bytes:
        """Return a header with something changed."""
        place = self.source.randrange(len(header.data))
        return header.data[:place] + bytes([header.data[place] ^ 1]) + header.data[place + 1 :]

    def manifests(self, committee: Committee, headers: Sequence[ShareHeader]) -> UpdateManifest:
        """Return a list of some of the updates."""
        chosen = self.source.sample(headers, self.source.randint(min(3, len(headers)), len(headers)))
        return UpdateManifest.of(committee, chosen)


def certify(
    source: random.Random, committee: Committee, manifest: UpdateManifest, checks: dict[int, list[bytes]]
) -> Certificate | None:
    """Return a certificate of some of the Check messages that there are of a list; None if they are too few."""
    quorum = committee.plan.quorum
    if len(checks) < quorum:
        return None
    slots = sorted(source.sample(sorted(checks), source.randint(quorum, len(checks))))
    try:
        return Certificate.of([source.choice(checks[slot]) for slot in slots], committee, manifest)
    except RemoteProtocolError:
        return None  # too many updates are excluded
