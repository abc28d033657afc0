"""Parties of small rounds of pet/1: honest members and update participants as machines, and a coordinator that does anything.

A `LooseCoordinator` follows no rule: it makes every record, committee, list and certificate that it can make out of what it was
sent, and shows each peer what it likes. What the peers then send is what an attack has to work with.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import pet
from pet.crypto import EncryptionKeyPair, SigningKeyPair, open_sealed
from pet.pet1.certificate import Certificate
from pet.pet1.checks import parse_sum2
from pet.pet1.committee import Committee
from pet.pet1.enrolment import Enrolment, EnrolmentPolicy
from pet.pet1.hashes import sign_text
from pet.pet1.leaves import Upload, build_update, derive_leaf_digests, derive_vector_digest, read_update
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_context
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import OutgoingUpdate, RoundTerms, UpdateParticipant

NOW = 1_700_000_000
#: Exact integers, so that a sum is right or wrong.
CONFIG = pet.MaskConfig.parse("pet-1/z32,int,models=15")
MODEL_LENGTH = 3
TWO_OF_THREE = pet.Plan(groups=1, members=3, threshold=2, quorum=3)
THREE_OF_FIVE = pet.Plan(groups=1, members=5, threshold=3, quorum=4)


class Disk:
    """Where a peer's state is durable, with all that it ever was."""

    def __init__(self) -> None:
        self.states: list[bytes] = []

    def __call__(self, state: bytes) -> None:
        self.states.append(state)

    @property
    def latest(self) -> bytes | None:
        return self.states[-1] if self.states else None


@dataclass(frozen=True, kw_only=True)
class MadeUpdate:
    """An update that a participant made, and what is in it.

    Attributes:
        sent: as it travels.
        message: the opened sealed part.
        numbers: the integers, and the weight behind them.
    """

    sent: OutgoingUpdate
    message: bytes = field(repr=False)
    numbers: tuple[int, ...]

    @property
    def header(self) -> ShareHeader:
        return self.sent.header


class Parties:
    """Who takes part: keys, an enrolment of all of them, and machines."""

    def __init__(self, plan: pet.Plan = TWO_OF_THREE, participant_count: int = 6, *, seed: int = 0, **enrolment: Any) -> None:
        self.random = random.Random(f"pet/1 {seed}")
        self.authority = self.new_key()
        self.member_keys = [self.new_key() for _ in range(plan.member_count)]
        self.participant_keys = sorted((self.new_key() for _ in range(participant_count)), key=lambda key: key.public_key)
        chosen: dict[str, Any] = {
            "version": 1,
            "plan": plan,
            "min_updates": 3,
            "members": tuple(key.public_key for key in self.member_keys),
            "participants": tuple(key.public_key for key in self.participant_keys),
        }
        self.enrolment = Enrolment(**chosen | enrolment)
        self.policy = EnrolmentPolicy(authority=self.authority.public_key, least_passive=0, least_active=0)

    def new_key(self) -> SigningKeyPair:
        return SigningKeyPair.from_seed(self.random.randbytes(32))

    def member(self, slot: int, disk: Disk | None = None, **options: Any) -> MemberMachine:
        """Return the member of a slot, where its disk says it was."""
        disk = disk or Disk()
        chosen: dict[str, Any] = {"policy": self.policy, "saved": disk.latest}
        return MemberMachine(
            signing_key=self.member_keys[slot], entropy=self.random.randbytes, store=disk, threads=1, **chosen | options
        )

    def participant(self, number: int, disk: Disk | None = None, **options: Any) -> UpdateParticipant:
        """Return an update participant, where its disk says it was."""
        disk = disk or Disk()
        chosen: dict[str, Any] = {
            "policy": self.policy,
            "saved": disk.latest,
            "terms": RoundTerms(values=CONFIG.values),
        }
        return UpdateParticipant(
            signing_key=self.participant_keys[number],
            entropy=self.random.randbytes,
            store=disk,
            threads=1,
            **chosen | options,
        )


class LooseCoordinator:
    """A coordinator that does anything, in one round of these parties."""

    def __init__(self, parties: Parties, number: int = 1, enrolment: Enrolment | None = None, **record: Any) -> None:
        self.parties = parties
        self.enrolment = enrolment or parties.enrolment
        self.served = self.enrolment.sign(parties.authority)
        self.keys = EncryptionKeyPair.from_secret_key(parties.random.randbytes(32))
        chosen: dict[str, Any] = {
            "config": CONFIG,
            "model_length": MODEL_LENGTH,
            "min_updates": 3,
            "number": number,
            "update_seconds": 60,
            "check_seconds": 60,
            "sum2_seconds": 60,
            "coordinator_key": self.keys.public_key,
            "seed": parties.random.randbytes(32),
            "enrolment_digest": self.enrolment.digest,
        }
        self.record = RoundRecord(**chosen | record)

    def invite(self, member: MemberMachine) -> bytes | None:
        return member.join(self.record.to_bytes(), self.served, NOW)

    def form(self, members: Sequence[MemberMachine | None]) -> Committee:
        """Invite members, one for each slot, and show the committee of all that came to all of them."""
        sums = [None if member is None else self.invite(member) for member in members]
        committee = Committee.of(self.record, self.enrolment, sums)
        for member in members:
            if member is not None:
                member.receive_committee(committee.to_bytes())
        return committee

    def ask(self, participant: UpdateParticipant, committee: Committee, numbers: Sequence[int] | None = None) -> MadeUpdate:
        """Let a participant make an update."""
        if participant.join(self.record.to_bytes(), self.served, NOW) is None:
            raise AssertionError("the participant is idle")
        chosen = numbers or [self.parties.random.randrange(1000) for _ in range(self.record.model_length)]
        weight = self.parties.random.randrange(1, 100)
        sent = participant.mask(committee.to_bytes(), np.array(chosen, dtype=CONFIG.dtype), weight)
        return MadeUpdate(sent=sent, message=open_sealed(sent.sealed, self.keys), numbers=(*chosen, weight))

    def show(self, member: MemberMachine, committee: Committee, headers: Iterable[ShareHeader]) -> UpdateManifest:
        """Show a member headers, and the list of exactly those."""
        headers = list(headers)
        for header in headers:
            member.receive_header(header.data)
        manifest = UpdateManifest.of(committee, headers)
        member.receive_manifest(manifest.to_bytes())
        return manifest


@dataclass(kw_only=True)
class HonestRound:
    """A round as far as its manifest, which every member has: what most attacks begin with."""

    parties: Parties
    coordinator: LooseCoordinator
    members: list[MemberMachine]
    committee: Committee
    updates: list[MadeUpdate]
    manifest: UpdateManifest

    @classmethod
    def play(cls, parties: Parties, disks: Sequence[Disk] | None = None, update_count: int = 4) -> HonestRound:
        coordinator = LooseCoordinator(parties)
        slots = range(parties.enrolment.plan.member_count)
        members = [parties.member(slot, disks[slot] if disks else None) for slot in slots]
        committee = coordinator.form(members)
        updates = [coordinator.ask(parties.participant(number), committee) for number in range(update_count)]
        manifest = UpdateManifest.of(committee, [update.header for update in updates])
        for member in members:
            coordinator.show(member, committee, [update.header for update in updates])
        return cls(
            parties=parties,
            coordinator=coordinator,
            members=members,
            committee=committee,
            updates=updates,
            manifest=manifest,
        )

    def certify(self, slots: Iterable[int] | None = None) -> Certificate:
        chosen = range(len(self.members)) if slots is None else slots
        return Certificate.of([self.members[slot].sign_check() for slot in chosen], self.committee, self.manifest)


def shares_of(answers: dict[int, bytes], record: RoundRecord, certificate_digest: bytes) -> dict[int, pet.Mask]:
    """Return the shares in Sum2 messages, by slot."""
    payloads = {slot: read_message(answer, record.coordinator_key, Pet1Tag.SUM2)[1] for slot, answer in answers.items()}
    return {slot: parse_sum2(payload, record, certificate_digest) for slot, payload in payloads.items()}


def elements_of(packed: Any) -> list[int]:
    """Return the elements of a packed vector in z32."""
    return [int(element) for element in np.frombuffer(packed, dtype="<u4")]


def unmask(vectors: Iterable[Any], mask: pet.Mask) -> tuple[int, ...]:
    """Return the sum of masked vectors less a mask, as its integers modulo the order."""
    columns = zip(*map(elements_of, vectors), strict=True)
    order = CONFIG.order
    return tuple((sum(column) - own) % order for column, own in zip(columns, elements_of(mask.to_vector()), strict=True))


def sum_of(updates: Iterable[MadeUpdate]) -> tuple[int, ...]:
    """Return what the sum of updates should be."""
    return tuple(sum(column) % CONFIG.order for column in zip(*(update.numbers for update in updates), strict=True))


def with_more(enrolment: Enrolment, **changes: Any) -> Enrolment:
    """Return a later version of an enrolment with changes."""
    return replace(enrolment, **{"version": enrolment.version + 1} | changes)


def scalar_of(member: MemberMachine) -> bytes:
    """Return the secret of a member that colludes."""
    secrets = member._secrets
    assert secrets is not None
    return secrets.scalar


def spoil_box(header: ShareHeader, key: SigningKeyPair, slot: int) -> ShareHeader:
    """Return an update's header with a box that does not open, signed again by its participant."""
    box = header.boxes[slot]
    place = header.data.index(box)
    body = header.data[:place] + bytes(len(box)) + header.data[place + len(box) : -64]
    data = body + sign_text(key, "pet-1 header", body)
    boxes = tuple(bytes(len(box)) if number == slot else each for number, each in enumerate(header.boxes))
    return replace(header, data=data, boxes=boxes)


def fresh_secrets(parties: Parties) -> UpdateSecrets:
    return UpdateSecrets.from_random(parties.random.randbytes(96))


def upload_of(key: SigningKeyPair, committee: Committee, secrets: UpdateSecrets, vector: bytes) -> Upload:
    """Return an upload as the coordinator opens it for a participant that signs any vector."""
    context = derive_context(committee.digest, key.public_key, secrets.point)
    leaves = derive_leaf_digests(vector, context)
    header = ShareHeader.build(key, committee, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))
    read, digests = read_update(build_update(key, committee, header, secrets.salt, leaves), committee)
    return Upload(record=committee.record, context=read.context, leaf_digests=digests)
