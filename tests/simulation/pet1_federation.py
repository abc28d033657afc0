"""Sequences of rounds of a federation on the real machines: peers vanish and restart at every step, and their leaders lie.

Who leads shows what it likes: it calls some peers, lists some of those that answered, goes on with two rounds at once, hides
results, and colludes with peers that deny what they have answered. A sum exists once enough members have answered for it. What
must hold: every combination of the sums that exist is zero, or of at least two honest peers, `least_changed` in all.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pet1_ledger import require
from pet1_parties import CONFIG, MODEL_LENGTH, NOW

from pet import edwards
from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import LocalProtocolError, RemoteProtocolError
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check
from pet.pet1.committee import Committee, build_sum
from pet.pet1.enrolment import Enrolment
from pet.pet1.federation import Called, FederationPolicy, derive_set_digest, enrol_federation
from pet.pet1.leaves import derive_leaf_digests, derive_vector_digest
from pet.pet1.manifest import UpdateManifest
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_context
from pet.protocol.pet1_federation_peer import Pet1Peer
from pet.protocol.pet1_participant import RoundTerms

VANISHES = 0.06
RESTARTS = 0.1
MODULUS = 2**61 - 1


@dataclass
class Person:
    """A peer, honest or colluding with its leader, and what it has on its disk.

    Attributes:
        key: its identity.
        is_honest: whether it runs the machine.
        version: of its statistics.
    """

    key: SigningKeyPair
    is_honest: bool
    version: int = 1
    disk: dict[str, bytes] = field(default_factory=dict)
    machine: Pet1Peer | None = None

    @property
    def public_key(self) -> bytes:
        return self.key.public_key


@dataclass
class CalledRound:
    """A round that a leader has called.

    Attributes:
        number: of the round.
        listed: its peers by key, ascending.
        calls: their answers, one behind the other.
        committee, updates, checks, certificate: as far as it came.
        answered: keys of those that have answered.
    """

    number: int
    listed: list[Person]
    calls: bytes
    enrolment: Enrolment
    served: bytes
    record: RoundRecord
    versions: dict[bytes, int]
    committee: Committee | None = None
    headers: list[ShareHeader] = field(default_factory=list)
    manifest: UpdateManifest | None = None
    certificate: bytes = b""
    answered: set[bytes] = field(default_factory=set)

    @property
    def has_sum(self) -> bool:
        """Whether enough of each group have answered; who colludes always could."""
        plan = self.enrolment.plan
        there = [key in self.answered for key in self.enrolment.members]
        return bool(self.certificate) and all(
            sum(there[slot] for slot in plan.group_slots(group)) >= plan.threshold for group in range(plan.groups)
        )


class FederationSequence:
    """Peers of one federation, and rounds in a row."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(f"pet/1 federation {seed}")
        self.happened: Counter[str] = Counter()
        self.admin = self._new_key()
        count, colluders = self.source.choice(((3, 0), (4, 0), (5, 0), (4, 1), (5, 1)))
        self.least_changed = colluders + 2
        self.people = [Person(self._new_key(), number >= colluders) for number in range(count)]
        self.people.sort(key=lambda person: person.public_key)
        confirmed = frozenset(person.public_key for person in self.people)
        self.policy = FederationPolicy(admin=self.admin.public_key, confirmed=confirmed)
        self.number = 100
        self.rounds: list[CalledRound] = []
        for person in self.people:
            self._start(person)

    def run(self, rounds: int) -> Counter[str]:
        """Play rounds, some of them beside the one before; raises `Violation`."""
        left: list[CalledRound] = []
        for _ in range(rounds):
            for person in self.people:
                if self.source.random() < 0.15:
                    person.version += 1
            called = self._call()
            if called is None:
                continue
            left.append(called)
            if self.source.random() < 0.2:
                self._advance(called, self.source.randrange(1, 4))  # and another leader calls the next one meanwhile
                self.happened["rounds left for another"] += 1
                continue
            for each in left if self.source.random() < 0.5 else left[::-1]:
                self._advance(each, 4)
            left = []
        self._judge()
        return self.happened

    # ---- peers ---------------------------------------------------------------------------------------------------------

    def _new_key(self) -> SigningKeyPair:
        return SigningKeyPair.from_seed(self.source.randbytes(32))

    def _start(self, person: Person) -> None:
        if person.is_honest:
            person.machine = Pet1Peer(
                signing_key=person.key,
                policy=self.policy,
                entropy=self.source.randbytes,
                store=person.disk.__setitem__,
                terms=RoundTerms(values=CONFIG.values),
                least_changed=self.least_changed,
                saved=dict(person.disk),
                threads=1,
            )

    def _ask(self, person: Person, call: str, *arguments: Any) -> Any:
        """Return what an honest peer gives; None if it has vanished or refuses. It may have been restarted before."""
        if not call.startswith("receive") and self.source.random() < VANISHES:
            self.happened[f"vanished before {call}"] += 1
            return None
        machine = person.machine
        assert machine is not None, "who colludes is not asked"
        target = machine if hasattr(machine, call) else machine.member
        try:
            return getattr(target, call)(*arguments)
        except RemoteProtocolError as error:
            self.happened[f"{call}: {error.reason}"] += 1
        except LocalProtocolError:
            self.happened[f"{call}: out of order"] += 1
        return None

    def _rejoin(self, person: Person, called: CalledRound) -> None:
        """Restart a peer now and then, and show it all that it saw of a round."""
        if self.source.random() >= RESTARTS:
            return
        self.happened["restarts"] += 1
        self._start(person)
        machine = person.machine
        assert machine is not None, "who colludes is not restarted"
        try:
            machine.join(called.record.to_bytes(), called.served, called.calls, NOW)
            if called.committee is not None:
                machine.member.receive_committee(called.committee.to_bytes())
            for header in called.headers:
                machine.member.receive_header(header.data)
            if called.manifest is not None:
                machine.member.receive_manifest(called.manifest.to_bytes())
        except (RemoteProtocolError, LocalProtocolError):
            self.happened["restarted and not back"] += 1

    def _show_another_call(self, called: CalledRound) -> None:
        """Call a round again that was answered, so that its peers seem to deny it, and show everybody the answers."""
        again = [self._call_again(each, called) for each in called.listed]
        if all(again):
            self.happened["called again"] += 1
            for person in called.listed:
                if person.is_honest:
                    self._ask(person, "join", called.record.to_bytes(), called.served, b"".join(again), NOW)

    def _call_again(self, person: Person, called: CalledRound) -> bytes:
        """Return a second answer to the call of a round; empty if the peer gives none."""
        version = called.versions[person.public_key]
        if not person.is_honest:
            return self._denied(person, called.number)
        return self._ask(person, "call", called.number, version) or b""

    def _denied(self, person: Person, number: int) -> bytes:
        """Return the answer of a peer that colludes: it has answered nothing, and knows every set."""
        sets = sorted({derive_set_digest(each.versions) for each in self.rounds})
        return Called(peer=person.public_key, number=number, version=person.version, sets=tuple(sets)).sign(person.key)

    # ---- a round -------------------------------------------------------------------------------------------------------

    def _call(self) -> CalledRound | None:
        """Call some peers, and list some of those that answer."""
        self.number += self.source.choice((1, 1, 1, 2))
        count = len(self.people) if self.source.random() < 0.4 else self.source.randint(3, len(self.people))
        asked = self.source.sample(self.people, count)
        answers: dict[bytes, bytes] = {}
        for person in asked:
            if person.is_honest:
                signed = self._ask(person, "call", self.number, person.version)
            else:  # denies everything
                signed = self._denied(person, self.number)
            if signed is not None:
                answers[person.public_key] = signed
        if len(answers) < 3:
            self.happened["too few called"] += 1
            return None
        listed = [person for person in self.people if person.public_key in answers]
        if len(listed) > 3 and self.source.random() < 0.2:
            listed.remove(self.source.choice(listed))
        keys = [person.public_key for person in listed]
        enrolment = enrol_federation(self.number, NOW + 3600, keys)
        record = RoundRecord(
            config=CONFIG,
            model_length=MODEL_LENGTH,
            min_updates=3,
            number=self.number,
            update_seconds=60,
            check_seconds=60,
            sum2_seconds=60,
            coordinator_key=EncryptionKeyPair.from_secret_key(self.source.randbytes(32)).public_key,
            seed=self.source.randbytes(32),
            enrolment_digest=enrolment.digest,
        )
        called = CalledRound(
            number=self.number,
            listed=listed,
            calls=b"".join(answers[key] for key in keys),
            enrolment=enrolment,
            served=enrolment.sign(self.admin),
            record=record,
            versions={person.public_key: person.version for person in listed},
        )
        self.rounds.append(called)
        return called

    def _advance(self, called: CalledRound, steps: int) -> None:
        """Bring a round further, by as many steps as there are left of it at most."""
        for done, step in (
            (called.committee is not None, self._sum),
            (called.manifest is not None, self._update),
            (bool(called.certificate), self._check),
            (called.has_sum, self._answer),
        ):
            if not done:
                if steps == 0 or not step(called):
                    return
                steps -= 1

    def _sum(self, called: CalledRound) -> bool:
        sums: list[bytes | None] = []
        for slot, person in enumerate(called.listed):
            if person.is_honest:
                sums.append(self._ask(person, "join", called.record.to_bytes(), called.served, called.calls, NOW))
            else:
                point = edwards.multiply_base(edwards.reduce_scalar(self.source.randbytes(64)))
                sums.append(build_sum(person.key, called.record, slot, point))
        if not all(sums):  # n members of n sign, or there is no certificate
            return False
        called.committee = Committee.of(called.record, called.enrolment, sums)
        return True

    def _update(self, called: CalledRound) -> bool:
        committee = called.committee
        assert committee is not None, "the step before"
        headers = []
        for person in called.listed:
            if not person.is_honest:
                headers.append(self._made_up(person, committee))
                continue
            self._rejoin(person, called)
            numbers = np.full(MODEL_LENGTH, person.version, dtype=CONFIG.dtype)
            sent = self._ask(person, "mask", committee.to_bytes(), numbers)
            if sent is None:
                return False
            headers.append(sent.header)
        called.headers, called.manifest = headers, UpdateManifest.of(committee, headers)
        return True

    def _made_up(self, person: Person, committee: Committee) -> ShareHeader:
        secrets, vector = UpdateSecrets.from_random(self.source.randbytes(96)), bytes(4 * (MODEL_LENGTH + 1))
        leaves = derive_leaf_digests(vector, derive_context(committee.digest, person.public_key, secrets.point))
        return ShareHeader.build(person.key, committee, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))

    def _check(self, called: CalledRound) -> bool:
        manifest, committee = called.manifest, called.committee
        assert manifest is not None, "the step before"
        assert committee is not None, "the step before"
        checks = []
        for person in called.listed:
            if not person.is_honest:
                checks.append(build_check(person.key, called.record, manifest.root, {}))
                continue
            self._rejoin(person, called)
            self._ask(person, "receive_committee", committee.to_bytes())
            for header in called.headers:
                self._ask(person, "receive_header", header.data)
            self._ask(person, "receive_manifest", manifest.to_bytes())
            signed = self._ask(person, "sign_check")
            if signed is None:
                return False
            checks.append(signed)
        try:
            called.certificate = Certificate.of(checks, committee, manifest).to_bytes()
        except RemoteProtocolError:  # a peer has joined another round meanwhile, and signed its list
            self.happened["checks of another round"] += 1
        return bool(called.certificate)

    def _answer(self, called: CalledRound) -> bool:
        for person in self.source.sample(called.listed, len(called.listed)):
            if not person.is_honest:
                called.answered.add(person.public_key)
                continue
            self._rejoin(person, called)
            if self._ask(person, "answer", called.certificate) is not None:
                called.answered.add(person.public_key)
            self._rejoin(person, called)
        if self.source.random() < 0.3:
            self._show_another_call(called)
        if called.has_sum:
            self.happened["sums"] += 1
            is_hidden = self.source.random() < 0.4
            for person in self.people:
                if person.is_honest and not is_hidden and self.source.random() < 0.7:
                    self._ask(person, "note_result", called.served, called.calls)
        elif called.answered:
            self.happened["answered without a sum"] += 1
        return True

    # ---- what must hold ------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """No combination of sums is of fewer honest peers than two: what those that collude sent, they know."""
        sums = [each.versions for each in self.rounds if each.has_sum]
        honest = [person.public_key for person in self.people if person.is_honest]
        pairs = sorted({pair for versions in sums for pair in versions.items() if pair[0] in honest})
        rows = [[int(versions.get(peer) == version) for peer, version in pairs] for versions in sums]
        for single in honest:
            kept = [[value for value, (peer, _) in zip(row, pairs, strict=True) if peer != single] for row in rows]
            require(rank(kept) == rank(rows), f"sums of rounds show one peer: {rows}")


def rank(rows: list[list[int]]) -> int:
    """Return the rank modulo a prime."""
    work, found = [list(row) for row in rows], 0
    for column in range(len(work[0]) if work else 0):
        pivot = next((row for row in range(found, len(work)) if work[row][column] % MODULUS), None)
        if pivot is None:
            continue
        work[found], work[pivot] = work[pivot], work[found]
        inverse = pow(work[found][column], -1, MODULUS)
        for row in range(found + 1, len(work)):
            factor = work[row][column] * inverse
            work[row] = [(a - factor * b) % MODULUS for a, b in zip(work[row], work[found], strict=True)]
        found += 1
    return found
