"""Rounds of pet/1 at random: peers vanish, lie, repeat themselves, restart; sums are exact, or a round fails with a reason."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pet1_peers import Disk

import pet
from pet.crypto import SigningKeyPair, seal
from pet.errors import RemoteProtocolError
from pet.pet1.answers import UpdateAccepted
from pet.pet1.enrolment import Enrolment, EnrolmentPolicy
from pet.pet1.hashes import sign_text
from pet.pet1.leaves import build_update, derive_leaf_digests, derive_vector_digest
from pet.pet1.messages import Pet1Tag, sign_message
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_context
from pet.protocol import events
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import RoundTerms, UpdateParticipant
from pet.protocol.pet1_publications import (
    CertificatePublished,
    CommitteePublished,
    HeaderPublished,
    ManifestPublished,
    RoundAnnounced,
    TotalPublished,
)
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.phases import Phase

CONFIG = pet.MaskConfig.parse("pet-1/z32,int,models=12")
LENGTH = 3
PLANS = [(1, 3, 2, 3), (1, 5, 3, 4), (2, 3, 2, 5), (1, 2, 2, 2)]
TERMS = RoundTerms(values=CONFIG.values)


class Round:
    """One round among peers that do what a random source says."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        plan = pet.Plan(*self.source.choice(PLANS))
        count = self.source.randrange(3, 7)
        self.members = [SigningKeyPair.from_seed(self.bytes(32)) for _ in range(plan.member_count)]
        # Some peers are both.
        self.participants = [*self.members, *(SigningKeyPair.from_seed(self.bytes(32)) for _ in range(count))][-count:]
        self.enrolment = Enrolment(
            version=1,
            plan=plan,
            min_updates=3,
            members=tuple(key.public_key for key in self.members),
            participants=tuple(sorted(key.public_key for key in self.participants)),
        )
        self.policy = EnrolmentPolicy(digest=self.enrolment.digest, least_passive=0, least_active=0)
        settings = Pet1Settings(
            config=CONFIG, model_length=LENGTH, served_enrolment=self.enrolment.to_bytes() + bytes(64), max_count=count
        )
        self.now = 0.0
        self.coordinator = Pet1Coordinator(settings, now_seconds=0, entropy=self.bytes, round_id=6, threads=1)
        self.events: list[Any] = []
        self.values: dict[bytes, np.ndarray] = {}
        self.machines: dict[int, tuple[MemberMachine, Disk]] = {}
        self.liars: set[int] = set()
        self.wait(0)

    def bytes(self, size: int) -> bytes:
        return self.source.randbytes(size)

    def happens(self, chance: float) -> bool:
        return self.source.random() < chance

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.coordinator.advance_time(self.now)
        self.events += iter(self.coordinator.next_event, None)

    def find(self, kind: type[Any]) -> Any:
        return next((event for event in self.events if isinstance(event, kind)), None)

    def post(self, signed: bytes) -> None:
        """Post a message, now and then twice; the second may be refused, or be in another phase."""
        for _ in range(1 + self.happens(0.2)):
            keys = self.coordinator.encryption_keys
            body = seal(signed, keys.public_key)
            try:
                message = self.coordinator.profile.open_message(body, keys, self.coordinator.accepted_tag)
                self.coordinator.receive(message, self.now)
            except RemoteProtocolError as error:
                self.coordinator.refuse(error.reason)
            self.wait(0)

    def member(self, slot: int) -> MemberMachine:
        """Return a member's machine, now and then one that goes on from its latest state, and has to fetch all again."""
        machine, disk = self.machines.get(slot, (None, Disk()))
        if machine is None or self.happens(0.3):
            saved = disk.latest if disk.states else None
            machine = MemberMachine(
                signing_key=self.members[slot], policy=self.policy, entropy=self.bytes, store=disk, saved=saved, threads=1
            )
            announced = self.find(RoundAnnounced)
            machine.join(announced.record, announced.enrolment, 1)
            if self.find(CommitteePublished):
                machine.receive_committee(self.find(CommitteePublished).committee)
        self.machines[slot] = machine, disk
        return machine

    def informed(self, slot: int) -> MemberMachine:
        """Return a machine that knows the committee, all headers and the manifest."""
        machine = self.member(slot)
        machine.receive_committee(self.find(CommitteePublished).committee)
        for event in self.events:
            if isinstance(event, HeaderPublished):
                machine.receive_header(event.header)
        machine.receive_manifest(self.find(ManifestPublished).manifest)
        return machine

    def run(self) -> None:
        announced, slots = self.find(RoundAnnounced), range(len(self.members))
        for slot in slots:
            if not self.happens(0.1):
                self.post(self.member(slot).join(announced.record, announced.enrolment, 1) or b"")
        self.finish(Phase.SUM)
        if self.coordinator.phase is Phase.UPDATE:
            for key in self.participants:
                self.update(key)
            self.finish(Phase.UPDATE)
        present = [slot for slot in slots if slot in self.machines]
        if self.coordinator.phase is Phase.CHECK:
            for slot in present:
                if not self.happens(0.1):
                    self.post(self.informed(slot).sign_check())
            self.finish(Phase.CHECK)
        if self.coordinator.phase is Phase.SUM2:
            for slot in present:
                if not self.happens(0.1):
                    self.answer(slot)
            self.finish(Phase.SUM2)

    def finish(self, phase: Phase) -> None:
        if self.coordinator.phase is phase:
            self.wait(3600)

    def update(self, key: SigningKeyPair) -> None:
        """Send an update, whose boxes may be bad, or only a part of one, or none."""
        if self.happens(0.1):
            return
        announced, committee = self.find(RoundAnnounced), self.find(CommitteePublished).committee
        values = np.array([self.source.randrange(CONFIG.levels + 1) for _ in range(LENGTH)], dtype=np.uint32)
        if self.happens(0.1):
            self.bad_update(key)
            return
        participant = UpdateParticipant(
            signing_key=key, policy=self.policy, entropy=self.bytes, store=bytes, terms=TERMS, threads=1
        )
        participant.join(announced.record, announced.enrolment, 1)
        made = participant.mask(committee, values, 1)
        opened = self.coordinator.open_update(made.sealed, self.now)
        if self.happens(0.1):
            return
        for piece in made.pieces(opened):
            wrong = bytearray(b"".join(piece))
            wrong[-1] ^= 1
            self.coordinator.take_piece(bytes(wrong), self.now)
            assert self.coordinator.take_piece(b"".join(piece), self.now) == UpdateAccepted()
        self.values[key.public_key] = values
        self.wait(0)

    def bad_update(self, key: SigningKeyPair) -> None:
        """Send an update of which one box does not open."""
        committee = self.coordinator.state.round.committee
        secrets = UpdateSecrets.from_random(self.bytes(96))
        vector = self.bytes(4 * LENGTH + 3) + b"\0"
        leaves = derive_leaf_digests(vector, derive_context(committee.digest, key.public_key, secrets.point))
        header = ShareHeader.build(key, committee, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))
        body = bytearray(header.data[:-64])
        body[-1 - self.source.randrange(16)] ^= 1  # in the tag of the last slot's box
        spoilt = ShareHeader.from_bytes(bytes(body) + sign_text(key, "pet-1 header", body), committee)
        message = build_update(key, committee, spoilt, secrets.salt, leaves)
        sealed = seal(message, self.coordinator.encryption_keys.public_key)
        self.coordinator.take_whole_update(len(sealed).to_bytes(4, "little") + sealed + vector, self.now)
        self.wait(0)

    def answer(self, slot: int) -> None:
        """Answer the certificate; a liar sends other elements."""
        signed = self.informed(slot).answer(self.find(CertificatePublished).certificate)
        if signed is None:
            return
        if self.happens(0.1):
            self.liars.add(slot)
            payload = signed[136:168] + bytes(4) + signed[172:]
            signed = sign_message(self.members[slot], self.find_record_key(), Pet1Tag.SUM2, payload)
        self.post(signed)

    def find_record_key(self) -> bytes:
        return self.coordinator.state.round.record.coordinator_key


def outcome(seed: int) -> str:
    """Run a round, check what came of it, and return "exact", "unchecked" or the reason of its failure."""
    round_ = Round(seed)
    before = round_.coordinator.state.round
    round_.run()
    total, failure = round_.find(TotalPublished), round_.find(events.RoundFailed)
    assert (total is None) is not (failure is None)
    assert round_.coordinator.profile.rules.store.leaves == {}
    if total is None:
        return failure.reason
    assert set(total.wrong_slots) <= round_.liars
    groups = [before.enrolment.plan.group_slots(group) for group in total.unchecked_groups]
    if any(slot in round_.liars for group in groups for slot in group):
        return "unchecked"
    expected = sum(round_.values[key].astype(object) for key in before.certificate.agreed)
    assert total.model.to_array().tolist() == expected.tolist()
    assert total.model.scalar_sum == total.update_count == len(before.certificate.agreed)
    return "exact"


KNOWN = {
    "exact",
    "unchecked",
    "too_few_members",
    "too_few_updates",
    "no_quorum",
    "too_few_answers",
    "wrong_share",
    "total_out_of_range",
    "no_weight",
}


def test_sums_are_exact_or_rounds_fail_with_a_reason() -> None:
    outcomes = Counter(outcome(seed) for seed in range(12))
    assert set(outcomes) <= KNOWN
    assert outcomes["exact"] >= 2
    assert len(outcomes) > 3


@pytest.mark.long
def test_many_sums_are_exact_or_rounds_fail_with_a_reason() -> None:
    outcomes = Counter(outcome(seed) for seed in range(12, 1012))
    assert set(outcomes) <= KNOWN
    assert len(outcomes) >= 6
