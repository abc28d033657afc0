"""Looking at another peer's local project, where there is no SMPC and that peer allows it.

Source: docs/spec/federation.md 1.10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pet.errors import FederationStateError, FederationValueError
from pet.federation.peer.confirmation import Confirmations
from pet.federation.peer.context import PeerContext
from pet.federation.peer.link import PeerLink
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.projects import PeerProjects

EXPLORE: Final = "explore"


class Exploration:
    """A peer's questions about others' projects, and its answers about its own.

    Args:
        context: of this peer.
        link: to the others.
        projects: of this peer.
    """

    def __init__(self, context: PeerContext, link: PeerLink, projects: PeerProjects) -> None:
        self._context: Final = context
        self._link: Final = link
        self._projects: Final = projects
        self._confirmations: Final = Confirmations(context)

    async def ask(self, peer_uuid: str, function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have a function computed on another peer's local project; returns the entities of an answer.

        Raises:
            FederationStateError: the federation uses SMPC, or that peer refuses or answers something else.
            FederationValueError: there is no such peer.
        """
        context = self._context
        if context.terms.uses_smpc:
            raise FederationStateError("exploration: expected a federation without SMPC; with it nobody's numbers are shown")
        if (peer := context.members.get(peer_uuid)) is None:
            raise FederationValueError("peer: expected a member of this federation, got another")
        fields = {"function": function, "arguments": dict(arguments)}
        answer = await self._link.ask(self._link.subjects.explore(peer_uuid), peer, EXPLORE, fields)
        result = answer.fields.get("result")
        if not isinstance(result, dict) or function not in result:
            raise FederationStateError(
                f"exploration: expected an answer with {function}, got another; does that peer run another version of pet?"
            )
        return result

    async def answer(self, message: PeerMessage) -> dict[str, Any]:
        """Compute a function on this peer's local project, for a member that asks."""
        self._confirmations.require_all([message.sender], "exploration")
        return {"result": self._projects.explore(message.text("function"), message.fields.get("arguments"))}
