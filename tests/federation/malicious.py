"""Those who do not keep to the protocol, as objects that drive peers of `peer_driver`: an admin that lies about its members."""

from dataclasses import replace

from peer_driver import Federation, Node

from pet.federation.membership import TERMS
from pet.federation.records import PeerIdentity
from pet.federation.terms_update import TermsUpdate


class MaliciousAdmin:
    """An admin that invents members, shows lists that differ, and leads rounds with whom it likes."""

    def __init__(self, started: Federation) -> None:
        self.started = started
        self.node = started.admin

    @property
    def _context(self):
        return self.node.peer._context

    async def invent_member(self, name: str) -> Node:
        """Let a peer of its own join, which takes part with everybody."""
        confirm, self.started.confirm = self.started.confirm, "admin"
        try:
            return await self.started.join(project_id=name)
        finally:
            self.started.confirm = confirm

    def lead_with_everybody(self) -> None:
        """Form rounds of all who enrol, whomever they have confirmed."""
        self.node.peer._rounds._confirmed_together = lambda called: [one.enrolment for one in called]

    async def show_members(self, victim: Node, members: tuple[PeerIdentity, ...]) -> None:
        """Send one peer a list of members that nobody else gets."""
        version = victim.peer._context.counters.terms_version + 1
        self._context.counters.terms_version = max(version, self._context.counters.terms_version)
        fields = TermsUpdate.of(replace(self.node.peer.record, peers=members), version).to_fields()
        recipient = self._context.members[victim.uuid]
        await self.node.peer._admin._tell(recipient, TERMS, fields)
