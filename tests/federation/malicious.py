"""Members of a federation, and its broker, that do not play by the rules: driver objects for tests, over a real nats-server.

Each wraps a node of peer_driver.py and has its keys, its place in the federation and its memory; the others run unmodified
code. What an attack learned is returned, so that a test can compare it with what it was after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from peer_driver import Federation, Node, until

from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import FederationError, PetError
from pet.federation.peer.aggregates import SummedRound
from pet.federation.peer.calling import ANSWER, Announcement, Contribution, PeerAnswer
from pet.federation.peer.joining import Admission
from pet.federation.peer.membership import TERMS
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.rounds import CALL, GO, PROFILE
from pet.federation.peer.terms_update import TermsUpdate
from pet.federation.records import Confirm, PeerIdentity, PeerKeys
from pet.federation.statistics.statistics import Statistics
from pet.pet1.federation import Called, derive_set_digest, enrol_federation
from pet.pet1.round_record import RoundRecord


@dataclass
class MaliciousAdmin:
    """The admin of a federation: it leads rounds, decides on terms, invents members, and shows lists that differ.

    Attributes:
        started: the federation.
        withheld: the aggregates that it kept for itself, oldest first.
    """

    started: Federation
    withheld: list[Statistics] = field(default_factory=list)

    @property
    def node(self) -> Node:
        """Its peer."""
        return self.started.admin

    @property
    def _leadership(self) -> Any:
        return self.node.peer._syncs.leadership

    @property
    def _context(self) -> Any:
        return self.node.peer._context

    async def withhold_round(self, *, without: frozenset[str] = frozenset(), check: bool = False) -> str:
        """Run a round and keep its result; returns why there was none, or nothing.

        Args:
            without: whom it does not call.
            check: whether its own peer keeps the rules, as an honest leader's does before it announces a round.
        """
        leading = self._leadership
        if not check:
            self.forget_rounds()
        try:
            answers = await leading._called(without)
            total, _ = await leading._run(answers)
        except PetError as error:
            return str(error)
        self.withheld.append(leading._contributor.from_totals(total.model.to_array(), len(answers)))
        return ""

    async def publish_round(self, *present: Node) -> None:
        """Run a round of some peers alone, and show everybody its result."""
        assert await self._leadership._attempt(self.all_but(*present))
        await until(lambda: len({node.peer._context.counters.aggregate_round for node in self.started.nodes}) == 1)

    def all_but(self, *present: Node) -> frozenset[str]:
        """Return the uuids of all other peers."""
        return frozenset(node.uuid for node in self.started.nodes if node not in present)

    def forget_rounds(self) -> None:
        """Let its own peer agree to any set, and say that it knows those that it forgets."""
        ledger = self.node.peer._syncs.rounds.peer._peer.ledger
        ledger._settled_sets |= {derive_set_digest(entry.versions): number for number, entry in ledger.entries.items()}
        ledger.entries.clear()
        ledger.newest.clear()

    def own_statistics(self) -> Statistics:
        """What it contributes itself, and so can subtract."""
        return self.node.peer.local_project.snapshot().copy()

    async def call(self, peer: Node, number: int) -> PeerAnswer | None:
        """Call one peer to a round of any number; returns its answer, or None for a refusal."""
        identity = self._context.members[peer.uuid]
        try:
            answer = await self._ask(identity, CALL, self._call_fields(number))
        except FederationError:
            return None
        return ANSWER.read(answer.fields["answer"]) if "answer" in answer.fields else None

    def _call_fields(self, number: int) -> dict[str, Any]:
        return {"round": number, "terms": 0, "profile": PROFILE}

    async def refusal_of(self, peer: Node, number: int) -> str:
        """What a peer says, word for word, when it does not answer."""
        identity = self._context.members[peer.uuid]
        try:
            await self._ask(identity, CALL, self._call_fields(number))
        except FederationError as error:
            return str(error)
        return ""

    def announcement(self, answers: Sequence[PeerAnswer], number: int, **changes: Any) -> Announcement:
        """Return the announcement of a round of these peers, whose coordinator nobody has to run."""
        keys = [self._context.members[answer.peer].signing_key for answer in answers]
        enrolment = enrol_federation(number, int(self._context.clock.now_seconds()) + 60, keys)
        contributor = self._leadership._contributor
        record = RoundRecord(
            config=contributor.round_config(len(answers)),
            model_length=contributor.element_count,
            min_updates=len(answers),
            number=number,
            update_seconds=60,
            check_seconds=60,
            sum2_seconds=60,
            coordinator_key=EncryptionKeyPair.generate().public_key,
            seed=bytes(32),
            enrolment_digest=enrolment.digest,
        )
        signed = enrolment.sign(self._context.record.keys.signing)
        return Announcement(record=replace(record, **changes).to_bytes(), enrolment=signed, answers=tuple(answers))

    async def claim_result(self, statistics: Statistics, number: int, version: int, count: int = 3) -> None:
        """Publish a result of peers that it invented, who sign whatever it likes."""
        keys = sorted((SigningKeyPair.generate() for _ in range(count)), key=lambda key: key.public_key)
        expires = int(self._context.clock.now_seconds()) + 60
        enrolment = enrol_federation(number, expires, [key.public_key for key in keys])
        calls = b"".join(Called(peer=key.public_key, number=number, version=version).sign(key) for key in keys)
        summed = SummedRound(enrolment=enrolment.sign(self._context.record.keys.signing), calls=calls)
        self.node.peer._syncs.aggregates.keep(statistics.to_bytes(), summed)
        await self.node.peer._syncs.aggregates.publish_again()

    async def forged_answers(self, number: int, count: int) -> list[PeerAnswer]:
        """Return answers to a call of members that the admin invented, whom nobody has confirmed."""
        context, schema = self._context, self._leadership._contributor.schema_digest
        answers = []
        for _ in range(count):
            keys = PeerKeys.generate()
            called = Called(peer=keys.signing.public_key, number=number, version=1).sign(keys.signing)
            contribution = Contribution(version=1, rows=8, changed_rows=8)
            answer = PeerAnswer(peer=keys.uuid, called=called, contribution=contribution, schema=schema)
            answers.append(answer.sign(context.terms.federation_id, keys.signing))
            context.record = replace(context.record, peers=(*context.record.peers, keys.identity(keys.uuid[:8])))
        return answers

    async def announce(self, announcement: Announcement, peer: Node) -> str:
        """Announce a round as it likes to one peer; returns the refusal, or nothing."""
        identity = self._context.members[peer.uuid]
        try:
            await self._ask(identity, GO, announcement.to_fields())
        except FederationError as error:
            return str(error)
        return ""

    async def publish_as_result(self, statistics: Statistics, number: int) -> None:
        """Publish any statistics as the result of a round that it has called and never ran."""
        answers = [await self.call(node, number) for node in self.started.nodes[1:]]
        answers = [await self.node.peer._syncs.rounds._answer(number), *answers]
        context = self._context
        announced = self.announcement(answers, number).verify(context.terms.federation_id, context.members)
        context.counters.aggregate_round = context.counters.round_id = number
        summed = SummedRound(enrolment=announced.enrolment, calls=announced.calls)
        self.node.peer._syncs.aggregates.keep(statistics.to_bytes(), summed)
        await self.node.peer._syncs.aggregates.publish_again()

    @contextmanager
    def showing_without(self, peer: Node, hidden: Node) -> Any:
        """Announce rounds to one peer as if another one did not take part."""
        leading, announce_to = self._leadership, self._leadership._announce_to

        async def announce_shorter(identity: PeerIdentity, fields: dict[str, Any]) -> Any:
            if identity.uuid == peer.uuid:
                whole = Announcement.from_fields(fields)
                answers = [answer for answer in whole.answers if answer.peer != hidden.uuid]
                record = RoundRecord.from_bytes(whole.record)
                shown = {"coordinator_key": record.coordinator_key, "seed": record.seed}
                fields = self.announcement(answers, record.number, **shown).to_fields()
            return await announce_to(identity, fields)

        leading._announce_to = announce_shorter
        try:
            yield
        finally:
            del leading._announce_to

    async def push_terms(self, peer: Node, **changes: Any) -> str:
        """Send a peer newer terms with some fields as it likes; returns the refusal, or nothing."""
        context = self._context
        context.counters.terms_version += 1
        fields = TermsUpdate.of(context.record, context.counters.terms_version).to_fields() | changes
        try:
            await self._ask(context.members[peer.uuid], TERMS, fields)
        except FederationError as error:
            return str(error)
        return ""

    async def change_contract(self, line: str, peer: Node) -> str:
        """Show a peer another contract, with no regard to how many there were today."""
        counter = self._context.counters.terms_version + 1
        return await self.push_terms(peer, contract=[[line], counter])

    @contextmanager
    def answering_joins_with(self, **changes: Any) -> Any:
        """Answer those who join meanwhile with terms as it likes."""
        make = Admission._make

        def make_other(role: Admission, subject: str, kind: str, fields: dict[str, Any]) -> bytes:
            return make(role, subject, kind, fields | {name: value for name, value in changes.items() if name in fields})

        Admission._make = make_other  # type: ignore[method-assign]
        try:
            yield
        finally:
            Admission._make = make  # type: ignore[method-assign]

    async def invent_member(self, name: str) -> Node:
        """Let a peer of its own join, which takes part with everybody."""
        confirm, self.started.confirm = self.started.confirm, Confirm.ADMIN
        try:
            return await self.started.join(project_id=name)
        finally:
            self.started.confirm = confirm

    def lead_with_everybody(self) -> None:
        """Form rounds of all who answer, no matter whom they have confirmed."""
        self._leadership._confirmed_together = lambda answered: [one.answer for one in answered]

    async def show_members(self, victim: Node, members: tuple[PeerIdentity, ...]) -> None:
        """Send one peer a list of members that nobody else gets."""
        version = victim.peer._context.counters.terms_version + 1
        self._context.counters.terms_version = max(version, self._context.counters.terms_version)
        fields = TermsUpdate.of(replace(self.node.peer.record, peers=members), version).to_fields()
        recipient = self._context.members[victim.uuid]
        await self.node.peer._admin._tell(recipient, TERMS, fields)

    async def _ask(self, identity: Any, kind: str, fields: Mapping[str, Any]) -> PeerMessage:
        peer = self.node.peer
        subject = peer._link.subjects.control(identity.uuid)
        return await peer._link.ask(subject, identity, kind, dict(fields))


@dataclass
class MaliciousMember:
    """A member that is not the admin; it sees the aggregates, and what it contributes itself.

    Attributes:
        node: its peer.
        seen: the aggregates that it was shown, each with its own statistics of then.
    """

    node: Node
    seen: list[tuple[Statistics, Statistics]] = field(default_factory=list)

    def look(self) -> None:
        """Keep the aggregate as it is now."""
        self.seen.append((self.node.peer.federated_project.snapshot().copy(), self.node.peer.local_project.snapshot().copy()))

    def difference(self) -> Statistics:
        """What changed at the others between the last two aggregates."""
        (first, own_first), (second, own_second) = self.seen[-2:]
        return (second - first) - (own_second - own_first)

    def claims_news(self) -> None:
        """Say that its statistics are new when they are the same, to be one of the peers that changed."""
        self.node.peer.local_project.version += 1
        self.node.peer.local_project._guard = None  # it keeps no rule for itself


@dataclass
class MaliciousBroker:
    """The operator of the broker, or a thief of its one credential: it sees and stores all messages, and may send any.

    Attributes:
        connection: of its own.
        heard: subject and bytes of every message since `listen`.
    """

    connection: Any
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    async def listen(self, subject: str) -> None:
        """Store everything that is sent on some subjects."""

        async def note(message: Any) -> None:
            self.heard.append((message.subject, bytes(message.data)))

        await self.connection.subscribe(subject, note)

    async def replay(self, subject: str, data: bytes) -> bytes:
        """Send a message once more, or another one; returns the answer."""
        return bytes(await self.connection.request(subject, data))
