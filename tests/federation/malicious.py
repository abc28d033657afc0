"""Members of a federation, and its broker, that do not play by the rules: driver objects for tests, over a real nats-server.

Each wraps a node of peer_driver.py and has its keys, its place in the federation and its memory; the others run unmodified
code. What an attack learned is returned, so that a test can compare it with what it was after.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from peer_driver import Federation, Node

from pet.errors import FederationError, PetError
from pet.federation.peer.aggregates import AGGREGATE
from pet.federation.peer.enrolment import ENROLMENT, Manifest, PeerEnrolment, choose_sum_peers
from pet.federation.peer.joining import Admission
from pet.federation.peer.membership import TERMS
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.rounds import CALL, GO
from pet.federation.peer.terms_update import TermsUpdate
from pet.federation.records import Confirm, PeerIdentity
from pet.federation.statistics.statistics import Statistics


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
            check: whether it applies its own rules, as an honest leader does before it announces a round.
        """
        leading, context = self._leadership, self._context
        manifest = await leading._called(context.counters.round_id + 1, without)
        try:
            if check:
                context.counters.ledger.require_aggregate(manifest.contributions, 0)
            context.counters.round_id = manifest.round_id
            result = await leading._run(manifest)
        except PetError as error:
            return str(error)
        self.withheld.append(leading._contributor.from_round(result.means, result.scalar_sum))
        return ""

    def own_statistics(self) -> Statistics:
        """What it contributes itself, and so can subtract."""
        return self.node.peer.local_project.snapshot().copy()

    async def call(self, peer: Node, round_id: int) -> PeerEnrolment | None:
        """Call one peer to a round of any number; returns its enrolment, or None for a refusal."""
        identity, fields = self._context.members[peer.uuid], {"round": round_id, "terms": 0}
        try:
            answer = await self._ask(identity, CALL, fields)
        except FederationError:
            return None
        return ENROLMENT.read(answer.fields["enrolment"])

    async def refusal_of(self, peer: Node, round_id: int) -> str:
        """What a peer says, word for word, when it does not enrol."""
        identity, fields = self._context.members[peer.uuid], {"round": round_id, "terms": 0}
        try:
            await self._ask(identity, CALL, fields)
        except FederationError as error:
            return str(error)
        return ""

    def next_round_that_draws(self, peer: Node, among: list[Node]) -> int:
        """The first number above the last whose lottery gives a peer the sum role."""
        number = self._context.counters.round_id + 2  # the very next one would be no choice
        while peer.uuid not in choose_sum_peers(number, [one.uuid for one in among]):
            number += 1
        return number

    async def announce(self, manifest: Manifest, peer: Node) -> str:
        """Announce a round as it likes to one peer; returns the refusal, or nothing."""
        identity = self._context.members[peer.uuid]
        try:
            await self._ask(identity, GO, manifest.to_fields() | {"parameters": ""})
        except FederationError as error:
            return str(error)
        return ""

    async def publish_as_result(self, statistics: Statistics, round_id: int, contributors: Mapping[str, int]) -> None:
        """Publish any statistics as the result of a round."""
        context = self._context
        context.counters.aggregate_round, context.counters.aggregate_contributors = round_id, dict(contributors)
        context.store.save_state(AGGREGATE, statistics.to_bytes())
        await self.node.peer._syncs.aggregates.publish_again()

    @contextmanager
    def showing_without(self, peer: Node, hidden: Node) -> Any:
        """Announce rounds to one peer as if another one did not take part."""
        leading, announce = self._leadership, self._leadership._announce

        async def announce_shorter(identity: PeerIdentity, fields: dict[str, Any]) -> None:
            if identity.uuid == peer.uuid:
                fields = fields | {"enrolments": [one for one in fields["enrolments"] if one["peer"] != hidden.uuid]}
            await announce(identity, fields)

        leading._announce = announce_shorter
        try:
            yield
        finally:
            del leading._announce

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
        """Form rounds of all who enrol, whomever they have confirmed."""
        self._leadership._confirmed_together = lambda called: [one.enrolment for one in called]

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

    def claim_last_round(self, round_id: int) -> None:
        """Say that a round of this number was the last that it took part in."""
        self.node.peer._context.counters.round_id = round_id


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
