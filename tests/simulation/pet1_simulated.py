"""The peers and the coordinator of simulated rounds of pet/1: the real machines, on disks that are killed at any write.

A peer that is killed goes on from what was durable, and sees again what is public.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from pet1_coordinator_disk import CoordinatorDisk
from pet1_ledger import Ledger, require
from pet1_parties import CONFIG, MODEL_LENGTH, NOW, Disk, MadeUpdate, Parties

from pet.crypto import EncryptionKeyPair, open_sealed, seal
from pet.errors import LocalProtocolError, RemoteProtocolError
from pet.pet1.answers import UpdateAnswer
from pet.pet1.round_record import RoundRecord
from pet.protocol import events
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.phases import Phase

Result = TypeVar("Result")

KILLED_AT_A_WRITE = 0.03
RESTARTED = 0.05
#: Of these a round has one, however often its coordinator is killed.
PUBLISHED_ONCE = ("RoundAnnounced", "CommitteePublished", "ManifestPublished", "CertificatePublished")


class Killed(Exception):
    """A process ended at a write, before or after it was durable."""


@dataclass
class Chance:
    """What happens, drawn from one seed.

    Attributes:
        source: where everything is drawn from.
        happened: how often what happened.
        is_quiet: nothing goes wrong.
    """

    source: random.Random
    happened: Counter[str] = field(default_factory=Counter)
    is_quiet: bool = False

    def of(self, probability: float, what: str) -> bool:
        """Return whether something goes wrong now."""
        is_drawn = not self.is_quiet and self.source.random() < probability
        if is_drawn:
            self.happened[what] += 1
        return is_drawn


class KilledDisk(Disk):
    """A disk whose owner is killed at a write now and then."""

    def __init__(self, chance: Chance) -> None:
        super().__init__()
        self._chance = chance

    def __call__(self, state: bytes) -> None:
        if self._chance.of(KILLED_AT_A_WRITE, "killed before a write"):
            raise Killed
        super().__call__(state)
        if self._chance.of(KILLED_AT_A_WRITE, "killed after a write"):
            raise Killed


class Peer:
    """What an honest member and an honest update participant have in common.

    Attributes:
        machine: the peer; another object after each restart.
        seen: what it was shown since it started, so that it is not shown again.
    """

    def __init__(self, chance: Chance, start: Callable[[Disk], Any]) -> None:
        self.chance, self._start = chance, start
        self.disk = KilledDisk(chance)
        self.machine = start(self.disk)
        self.seen: set[bytes] = set()

    def restart(self) -> None:
        self.chance.happened["restarts of peers"] += 1
        self.machine = self._start(self.disk)
        self.seen = set()

    def show(self, call: str, data: bytes) -> None:
        """Show it something that is public, once."""
        if data not in self.seen:
            self.seen.add(data)
            self.attempt(call, data)

    def surviving(self, act: Callable[[], Result]) -> Result:
        """Let it act; where it is killed, it starts again and acts again."""
        while True:
            try:
                return act()
            except Killed:
                self.restart()

    def attempt(self, call: str, *arguments: Any) -> Any:
        """Return what a call of the machine gives; None if it refuses, or cannot now."""
        try:
            return getattr(self.machine, call)(*arguments)
        except RemoteProtocolError as error:
            self.chance.happened[f"peer: {error.reason}"] += 1
        except LocalProtocolError:
            self.chance.happened["peer: out of order"] += 1
        return None


def new_member(parties: Parties, chance: Chance, slot: int) -> Peer:
    return Peer(chance, lambda disk: parties.member(slot, disk))


def new_participant(parties: Parties, chance: Chance, number: int) -> Peer:
    return Peer(chance, lambda disk: parties.participant(number, disk))


def make_update(peer: Peer, record: bytes, served: bytes, committee: bytes, keys: EncryptionKeyPair) -> MadeUpdate | None:
    """Let a participant make its update; None if it is idle, refuses, or was killed after it noted that it had sent one."""
    source = peer.chance.source
    numbers = [source.randrange(10**6) for _ in range(MODEL_LENGTH)]
    weight = source.randrange(1, 1000)

    def act() -> MadeUpdate | None:
        if peer.attempt("join", record, served, NOW) is None:
            return None
        sent = peer.attempt("mask", committee, np.array(numbers, CONFIG.dtype), weight)
        if sent is None:
            return None
        return MadeUpdate(sent=sent, message=open_sealed(sent.sealed, keys), numbers=(*numbers, weight))

    return peer.surviving(act)


class SimulatedCoordinator:
    """The real machine, its clock, what it published, and restarts from its state.

    Attributes:
        number: of the round that is played.
        published: the latest of each kind, by the name of its class.
        headers: of this round, in order.
        failure: why the round failed.
    """

    def __init__(self, parties: Parties, chance: Chance) -> None:
        self.chance, self.now = chance, 1000.0
        self.settings = Pet1Settings(
            config=CONFIG,
            model_length=MODEL_LENGTH,
            served_enrolment=parties.enrolment.sign(parties.authority),
            min_count=len(parties.participant_keys),
        )
        self.disk = CoordinatorDisk()
        self.machine = Pet1Coordinator(
            self.settings,
            now_seconds=self.now,
            entropy=chance.source.randbytes,
            round_id=100,
            leaf_store=self.disk.leaves,
            evidence_store=self.disk.evidence,
            threads=1,
        )
        self.number = 0
        self.published: dict[str, Any] = {}
        self.headers: list[bytes] = []
        self.failure: str | None = None

    def begin(self) -> RoundRecord:
        """Forget the round before, and return the record of the next."""
        self.published, self.headers, self.failure = {}, [], None
        self.machine.advance_time(self.now)
        self.number = self.machine.round_id
        self.machine.announce_again()
        self.collect()
        self.record = RoundRecord.from_bytes(self.published["RoundAnnounced"].record)
        return self.record

    @property
    def phase(self) -> Phase | None:
        """The phase of this round; None once it is over."""
        current = self.machine.state.round
        return self.machine.phase if current is not None and current.record.number == self.record.number else None

    @property
    def keys(self) -> EncryptionKeyPair:
        keys = self.machine.encryption_keys
        assert keys is not None
        return keys

    def collect(self) -> None:
        """Write what happened, and only then let anybody know of it."""
        self.disk.commit(self.machine, self.now)
        for event in iter(self.machine.next_event, None):
            name = type(event).__name__
            if event.round_id != self.number:
                continue  # of the round after, which begins at once
            if isinstance(event, events.RoundFailed):
                self.failure = event.reason
            elif name == "HeaderPublished" and event.header not in self.headers:
                self.headers.append(event.header)
            if name in PUBLISHED_ONCE:
                before = self.published.get(name, event)
                require(before == event, f"round {self.number}: two of {name}")
            self.published[name] = event

    def post(self, signed: bytes) -> None:
        """Take a message; its sender sends it again where no answer came, or by mistake."""
        if self.phase in (None, Phase.UPDATE):
            return
        body = seal(signed, self.keys.public_key)

        def take() -> None:
            try:
                if self.phase is not None:
                    message = self.machine.profile.open_message(body, self.keys, self.machine.accepted_tag)
                    self.machine.receive(message, self.now)
            except RemoteProtocolError as error:
                self.chance.happened[f"coordinator: {error.reason}"] += 1

        self._surviving(take)
        if self.chance.of(0.1, "messages sent twice"):
            self._surviving(take)

    def upload(self, call: str, body: bytes) -> UpdateAnswer:
        """Take an update or a part of it."""
        found: list[UpdateAnswer] = []
        self._surviving(lambda: found.append(getattr(self.machine, call)(body, self.now)))
        return found[-1]

    def _surviving(self, take: Callable[[], None]) -> None:
        """Take something; where the coordinator is killed, before or after it was durable, it goes on and takes it again."""
        if self.chance.of(RESTARTED, "coordinator killed before it was durable"):
            before = self.disk.snapshot()
            take()
            if self.chance.of(0.5, "coordinator killed with leaves on the disk that no entry names"):
                before.leaves.leaves |= self.disk.leaves.leaves
            self._restart(before)
        take()
        self.collect()
        if self.chance.of(RESTARTED, "coordinator killed before it answered"):
            self._restart(self.disk)
            take()
            self.collect()

    def _restart(self, disk: CoordinatorDisk) -> None:
        """Go on from bytes, as another process would."""
        self.disk = disk
        self.machine = disk.start(self.settings, self.now, self.chance.source.randbytes)
        self.machine.announce_again()
        self.collect()

    def wait_for_end_of(self, phase: Phase) -> None:
        while self.phase is phase:
            self.now = self.machine.next_deadline_seconds() or self.now
            if self.chance.of(RESTARTED, "coordinator killed at the end of a phase"):
                self.machine.advance_time(self.now)
                self._restart(self.disk)
            self.machine.advance_time(self.now)
            self.collect()


@dataclass
class World:
    """Peers that stay the same from round to round.

    Attributes:
        ledger: what honest keys signed.
    """

    parties: Parties
    chance: Chance
    coordinator: SimulatedCoordinator
    members: list[Peer]
    participants: list[Peer]
    ledger: Ledger = field(default_factory=Ledger)

    @classmethod
    def of(cls, parties: Parties, chance: Chance) -> World:
        return cls(
            parties=parties,
            chance=chance,
            coordinator=SimulatedCoordinator(parties, chance),
            members=[new_member(parties, chance, slot) for slot in range(parties.enrolment.plan.member_count)],
            participants=[new_participant(parties, chance, number) for number in range(len(parties.participant_keys))],
        )
