"""Simulated rounds of pet/1: everybody vanishes, lies, repeats and restarts at every step, and what must hold always holds.

A seed decides everything. In some rounds the leader lies as well: it shows each peer other records, committees, headers, lists
and certificates, out of what colluding members sign.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pet1_liars as liars
from pet1_ledger import require, require_excluded, require_manifest, require_sum
from pet1_liars import LyingLeader, LyingMember
from pet1_parties import NOW, MadeUpdate, Parties, sum_of
from pet1_simulated import RESTARTED, Chance, Peer, World, make_update

import pet
from pet.pet1.answers import UpdateAccepted, UpdateOpen
from pet.pet1.certificate import Certificate
from pet.pet1.committee import Committee
from pet.pet1.manifest import UpdateManifest
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader
from pet.protocol.phases import Phase

PLANS = (
    pet.Plan(groups=1, members=3, threshold=2, quorum=3),
    pet.Plan(groups=1, members=3, threshold=2, quorum=2),
    pet.Plan(groups=1, members=4, threshold=2, quorum=3),
    pet.Plan(groups=2, members=2, threshold=1, quorum=3),
)
FAILURES = frozenset(
    ("too_few_members", "too_few_updates", "no_quorum", "too_few_answers", "wrong_share", "total_out_of_range", "no_weight")
)


@dataclass
class Outcome:
    """What came of some rounds.

    Attributes:
        rounds_completed: with a sum.
        rounds_failed: without.
        happened: how often what went wrong, and why rounds failed.
    """

    rounds_completed: int = 0
    rounds_failed: int = 0
    happened: Counter[str] = field(default_factory=Counter)

    @property
    def restarts(self) -> int:
        """How often the coordinator was started again from its state."""
        return sum(count for what, count in self.happened.items() if what.startswith("coordinator killed"))


class SimulatedRound:
    """One round, from its record to a sum or a failure."""

    def __init__(self, world: World) -> None:
        self.world, self.chance, self.source = world, world.chance, world.chance.source
        self.coordinator = world.coordinator
        self.record = self.coordinator.begin()
        self.served = self.coordinator.published["RoundAnnounced"].enrolment
        self.leader = LyingLeader(source=self.source, strangers=world.parties.new_key)
        self.leader_lies = self.chance.of(0.3, "leaders that lie")
        self.lying_members: dict[int, LyingMember] = {}
        self.gone: set[int] = set()
        self.updates: dict[bytes, MadeUpdate] = {}
        self.lying_keys: set[bytes] = set()
        self.sent: set[bytes] = set()
        self.accepted: set[bytes] = set()
        self.checks: dict[bytes, tuple[UpdateManifest, dict[int, list[bytes]]]] = {}

    def play(self) -> str | None:
        """Return why the round failed; None if there is a sum."""
        self._sum()
        if self.coordinator.phase is Phase.UPDATE:
            self.committee_bytes = self.coordinator.published["CommitteePublished"].committee
            self.committee = Committee.from_bytes(self.committee_bytes, self.record, self.world.parties.enrolment)
            self._update()
        if self.coordinator.phase is Phase.CHECK:
            self._check()
        if self.leader_lies:
            self._lie_about_certificates()
        if self.coordinator.phase is Phase.SUM2:
            self._sum2()
        for member in self.world.members:
            if self.chance.of(0.5, "members that erase in time"):
                member.surviving(member.machine.end_round)
        return self._judge()

    # ---- members see what there is ---------------------------------------------------------------------------------------

    def _show(self, slot: int, manifest: UpdateManifest | None = None) -> Peer:
        """Show an honest member all that it needs for its next step, after lies of the leader."""
        member = self.world.members[slot]
        if self.chance.of(RESTARTED, "members restarted between steps"):
            member.restart()
        if self.leader_lies and self.chance.of(0.1, "records of the leader's own"):
            self._join(member, self.leader.records(self.record))
        if self.record.digest not in member.seen:
            self._join(member, self.record.to_bytes())
            member.seen.add(self.record.digest)
        if "CommitteePublished" not in self.coordinator.published:
            return member
        if self.leader_lies and self.chance.of(0.1, "committees of the leader's own"):
            member.surviving(lambda: member.attempt("receive_committee", self.leader.committees(self.committee)))
        member.surviving(lambda: member.show("receive_committee", self.committee_bytes))
        for update in self.updates.values():
            if self.leader_lies and self.chance.of(0.05, "headers of the leader's own"):
                member.attempt("receive_header", self.leader.headers(update.header))
            member.show("receive_header", update.header.data)
        if manifest is not None:
            member.show("receive_manifest", manifest.to_bytes())
        return member

    def _join(self, member: Peer, record: bytes) -> bytes | None:
        message: bytes | None = member.surviving(lambda: member.attempt("join", record, self.served, NOW))
        if message is not None:
            self.world.ledger.enter(RoundRecord.from_bytes(record).number, message)
        return message

    def _each_member(self, act: Callable[[int], None], vanishing: str) -> None:
        slots = list(range(len(self.world.members)))
        self.source.shuffle(slots)
        for slot in slots:
            if slot not in self.gone and self.chance.of(0.06, f"members that vanish before {vanishing}"):
                self.gone.add(slot)
            if slot not in self.gone:
                act(slot)

    # ---- phases ----------------------------------------------------------------------------------------------------------

    def _sum(self) -> None:
        def act(slot: int) -> None:
            if self.chance.of(0.12, "members that lie"):
                key = self.world.parties.member_keys[slot]
                self.lying_members[slot], message = LyingMember.announce(self.source, key, slot, self.record)
                self.coordinator.post(message)
                message = LyingMember.announce(self.source, key, slot, self.record)[1]
            else:
                message = self._join(self._show(slot), self.record.to_bytes()) or b""
            if message:
                self.coordinator.post(message)

        self._each_member(act, "Sum")
        self.coordinator.wait_for_end_of(Phase.SUM)

    def _update(self) -> None:
        numbers = list(range(len(self.world.participants)))
        self.source.shuffle(numbers)
        for number in numbers:
            if not self.chance.of(0.06, "participants that vanish before Update") and self.coordinator.phase is Phase.UPDATE:
                made = self._make_update(number)
                if made is not None:
                    self._upload(made)
        self.coordinator.wait_for_end_of(Phase.UPDATE)

    def _make_update(self, number: int) -> MadeUpdate | None:
        peer, key = self.world.participants[number], self.world.parties.participant_keys[number]
        lie = self.source.choice(("boxes", "rubbish", "elements")) if self.chance.of(0.15, "participants that lie") else None
        if lie in ("rubbish", "elements"):
            self.lying_keys.add(key.public_key)
            vector = liars.rubbish(self.source) if lie == "rubbish" else liars.above_the_order()
            return liars.with_vector(self.source, key, self.committee, vector)
        if self.leader_lies and self.chance.of(0.1, "records of the leader's own for participants"):
            peer.surviving(lambda: peer.attempt("join", self.leader.records(self.record), self.served, NOW))
        made = make_update(peer, self.record.to_bytes(), self.served, self.committee_bytes, self.coordinator.keys)
        if made is not None and lie == "boxes":
            self.lying_keys.add(key.public_key)
            return liars.with_bad_boxes(self.source, made, key, self.committee)
        if made is not None:
            self.world.ledger.enter(self.record.number, made.message)
        return made

    def _upload(self, made: MadeUpdate) -> None:
        """Send an update in one, or in pieces, with what others put in between."""
        self.updates[made.header.participant] = made
        vector = bytes(made.sent.vector)
        for _ in range(1 + self.chance.of(0.1, "updates sent twice")):
            if self.coordinator.phase is not Phase.UPDATE:
                return
            if self.source.random() < 0.5:
                self.sent.add(made.header.participant)
                answer = self.coordinator.upload("take_whole_update", b"".join(map(bytes, made.sent.body())))
            else:
                answer = self.coordinator.upload("open_update", made.sent.sealed)
                if isinstance(answer, UpdateOpen):
                    head = made.header.digest + bytes(4)
                    if self.chance.of(0.1, "leaves of a stranger"):
                        self.coordinator.upload("take_piece", head + self.source.randbytes(len(vector)))
                    if self.chance.of(0.1, "participants that vanish before their vector"):
                        continue
                    self.sent.add(made.header.participant)
                    answer = self.coordinator.upload("take_piece", head + vector)
            if isinstance(answer, UpdateAccepted):
                self.accepted.add(made.header.participant)

    def _check(self) -> None:
        headers = {key: made.header for key, made in self.updates.items()}
        published = self.coordinator.published["ManifestPublished"].manifest
        truth = UpdateManifest.from_bytes(published, self.committee, headers)
        require_manifest(self.record.number, truth.headers, self.accepted, self.sent)

        def act(slot: int) -> None:
            if slot in self.lying_members:
                for manifest, _ in list(self.checks.values()) or [(truth, {})]:
                    for _ in range(2):
                        self._signed(slot, manifest, self.lying_members[slot].check(self.source, manifest, self.record))
                return
            manifest = self._list_for(truth, list(headers.values()))
            member = self._show(slot, manifest)
            self._sign(slot, member, manifest)

        self._each_member(act, "Check")
        self.coordinator.wait_for_end_of(Phase.CHECK)

    def _list_for(self, truth: UpdateManifest, headers: list[ShareHeader]) -> UpdateManifest:
        if self.leader_lies and len(headers) >= 3 and self.chance.of(0.4, "lists of the leader's own"):
            known = [manifest for manifest, _ in self.checks.values()]
            return self.source.choice([*known, self.leader.manifests(self.committee, headers)])
        return truth

    def _sign(self, slot: int, member: Peer, manifest: UpdateManifest) -> None:
        def act() -> bytes | None:
            signed: bytes | None = self._show(slot, manifest).attempt("sign_check")
            return signed

        message = member.surviving(act)
        if message is not None:
            self.world.ledger.enter(self.record.number, message)
            self._signed(slot, manifest, message)

    def _signed(self, slot: int, manifest: UpdateManifest, message: bytes) -> None:
        """Keep a Check for the certificates of a leader that lies, and send it."""
        if message[136:168] == manifest.root:
            self.checks.setdefault(manifest.root, (manifest, {}))[1].setdefault(slot, []).append(message)
        self.coordinator.post(message)

    def _lie_about_certificates(self) -> None:
        for manifest, checks in self.checks.values():
            for slot in range(len(self.world.members)):
                certificate = liars.certify(self.source, self.committee, manifest, checks)
                if certificate is not None and slot not in self.lying_members and slot not in self.gone:
                    self.chance.happened["certificates of the leader's own"] += 1
                    self._answer(slot, certificate, manifest)

    def _answer(self, slot: int, certificate: Certificate, manifest: UpdateManifest) -> None:
        """Let an honest member answer a certificate."""
        data = certificate.to_bytes()

        def act() -> bytes | None:
            answer: bytes | None = self._show(slot, manifest).attempt("answer", data)
            return answer

        message = self.world.members[slot].surviving(act)
        if message is not None:
            self.world.ledger.enter(self.record.number, message)
            if len(self.lying_members) <= self.committee.plan.active:
                self.world.ledger.enter_answer(self.record.number, certificate.agreed, self.updates.keys() - self.lying_keys)
            self.coordinator.post(message)

    def _sum2(self) -> None:
        manifest, certificate = self._published_certificate()

        def act(slot: int) -> None:
            if slot in self.lying_members:
                self.coordinator.post(self.lying_members[slot].answer(self.source, certificate.digest, self.record))
            else:
                self._answer(slot, certificate, manifest)

        self._each_member(act, "Sum2")
        self.coordinator.wait_for_end_of(Phase.SUM2)

    def _published_certificate(self) -> tuple[UpdateManifest, Certificate]:
        headers, published = {key: made.header for key, made in self.updates.items()}, self.coordinator.published
        manifest = UpdateManifest.from_bytes(published["ManifestPublished"].manifest, self.committee, headers)
        require_excluded(self.record.number, published["CertificatePublished"].excluded, self.lying_keys)
        return manifest, Certificate.from_bytes(published["CertificatePublished"].certificate, self.committee, manifest)

    # ---- the end ---------------------------------------------------------------------------------------------------------

    def _judge(self) -> str | None:
        number, total = self.record.number, self.coordinator.published.get("TotalPublished")
        require(self.coordinator.phase is None, f"round {number}: it does not end")
        if total is None:
            require(self.coordinator.failure in FAILURES, f"round {number}: failed for {self.coordinator.failure}")
            require(not self.chance.is_quiet, f"round {number}: a quiet round failed for {self.coordinator.failure}")
            return self.coordinator.failure
        found = (*map(int, total.model.to_array()), int(total.model.scalar_sum))
        agreed = self._published_certificate()[1].agreed
        plan = self.committee.plan
        unchecked = {slot for group in total.unchecked_groups for slot in plan.group_slots(group)}
        is_comparable = not unchecked & self.lying_members.keys()
        require_sum(number, found, sum_of(self.updates[key] for key in agreed), is_comparable)
        require(not self.chance.is_quiet or len(agreed) == len(self.world.participants), "a quiet round left somebody out")
        return None


class Simulation:
    """A world, and rounds in it."""

    def __init__(self, seed: int, *, change: Callable[[World], None] | None = None) -> None:
        chance = Chance(random.Random(f"pet/1 simulation {seed}"))
        plan = chance.source.choice(PLANS)
        self.world = World.of(Parties(plan, chance.source.randint(4, 5), seed=seed), chance)
        if change is not None:
            change(self.world)

    def run(self, rounds: int) -> Outcome:
        """Play rounds.

        Raises:
            Violation: something happened that must never happen.
        """
        outcome, chance = Outcome(), self.world.chance
        for _ in range(rounds):
            chance.is_quiet = chance.source.random() < 0.1
            failure = SimulatedRound(self.world).play()
            if failure is None:
                outcome.rounds_completed += 1
            else:
                outcome.rounds_failed += 1
                chance.happened[f"failed: {failure}"] += 1
        outcome.happened = chance.happened
        return outcome
