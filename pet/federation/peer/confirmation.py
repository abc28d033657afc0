"""Whom a peer's user has confirmed, and what follows from it for rounds.

A member that only the admin vouches for may be the admin's invention. So a peer takes part with those alone whose keys its user
compared with their owners; it says whom it has confirmed when it is called, and the leader calls together only peers that have
confirmed each other.

Source: docs/spec/federation.md 10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pet.errors import FederationStateError, RemoteProtocolError
from pet.federation.formats.member_list import find_member, is_same_code, list_code
from pet.federation.peer.context import PeerContext
from pet.federation.records import MemberList, MemberState, PeerIdentity

#: Names in a reason; a line of a log has no room for a thousand.
_MAX_NAMES: Final = 5


class Confirmations:
    """What this peer's user has confirmed.

    Args:
        context: of this peer.
    """

    def __init__(self, context: PeerContext) -> None:
        self._context: Final = context

    async def members(self) -> MemberList:
        """Return all members with the code of the list."""
        context = self._context
        peers, admin = context.record.peers, context.terms.admin
        code = await asyncio.to_thread(list_code, context.terms.federation_id, peers)
        states = [
            MemberState(
                name=peer.label,
                uuid=peer.uuid,
                fingerprint=peer.fingerprint,
                is_confirmed=context.is_confirmed(peer),
                is_this=peer.uuid == context.uuid,
                is_admin=admin is not None and peer.uuid == admin.uuid,
            )
            for peer in peers
        ]
        return MemberList(code=code, confirm=context.confirm, members=tuple(states))

    def confirm(self, text: str) -> PeerIdentity:
        """Confirm the member of this name or fingerprint.

        Raises:
            FederationValueError: there is none.
        """
        member = find_member(self._context.record.peers, text)
        self._add([member])
        return member

    async def confirm_list(self, code: str) -> None:
        """Confirm everybody in the list that has this code.

        Raises:
            FederationStateError: the list as this peer has it has another one; nobody was confirmed.
        """
        context = self._context
        peers = context.record.peers
        found = await asyncio.to_thread(list_code, context.terms.federation_id, peers)
        if not is_same_code(code, found):
            raise FederationStateError(
                f"members: expected the code of the list as this peer has it, {found}, got another; if it changed just now, "
                "compare it again, and if it stays another one, somebody shows you different members"
            )
        self._add(peers)  # those whose code it is, also if the list has changed meanwhile

    def _add(self, members: Iterable[PeerIdentity]) -> None:
        context = self._context
        new = [member for member in members if member.fingerprint not in context.record.confirmed]
        if new:
            confirmed = (*context.record.confirmed, *(member.fingerprint for member in new))
            context.set_record(replace(context.record, confirmed=confirmed))
            context.log_sync(f"Confirmed: {', '.join(member.name for member in new)}")

    def to_field(self) -> list[str]:
        """Return the fingerprints of those who are confirmed, for the answer to a call."""
        context = self._context
        return [peer.fingerprint for peer in context.record.peers if context.is_confirmed(peer)]

    def require_all(self, uuids: Iterable[str], what: str) -> None:
        """Check that each of some members is confirmed.

        Raises:
            RemoteProtocolError: one is not (reason "unconfirmed_peer").
        """
        context, members = self._context, self._context.members
        missing = [uuid for uuid in uuids if uuid not in members or not context.is_confirmed(members[uuid])]
        if missing:
            names = ", ".join(map(context.name_of, missing))
            raise RemoteProtocolError(
                "unconfirmed_peer", f"{what}: expected members that this peer's user has confirmed, got {names}"
            )


def confirmed_together(
    peers: Sequence[PeerIdentity], confirmed: Mapping[str, frozenset[str]]
) -> tuple[list[PeerIdentity], dict[str, str]]:
    """Choose peers of which each has confirmed all others.

    Who lacks most confirmations, its own or the others', is left out first; among equals the one that joined last. So a
    newcomer waits until all have confirmed it, and a peer that confirms nobody keeps itself out and nobody else.

    Args:
        peers: those that could take part, in the order in which they joined.
        confirmed: whom each says that it has confirmed, as fingerprints by uuid.

    Returns:
        Those chosen, and for each that is left out, by uuid, who has not confirmed whom.
    """
    fingerprints = {peer.uuid: peer.fingerprint for peer in peers}
    lacks = {uuid: _missing(uuid, fingerprints, confirmed[uuid]) for uuid in fingerprints}
    apart = {uuid: set(missing) for uuid, missing in lacks.items()}
    for uuid, missing in lacks.items():
        for other in missing:
            apart[other].add(uuid)
    names = {peer.uuid: peer.name for peer in peers}
    chosen, reasons = list(peers), dict[str, str]()
    while chosen:
        out = max(reversed(chosen), key=lambda peer: len(apart[peer.uuid])).uuid
        if not apart[out]:
            break
        theirs = [names[uuid] for uuid in apart[out] if out in lacks[uuid]]
        own = [names[uuid] for uuid in apart[out] & lacks[out]]
        parts = [f"not confirmed by {some(theirs)}"] if theirs else []
        reasons[out] = "; ".join([*parts, *([f"has not confirmed {some(own)}"] if own else [])])
        chosen = [peer for peer in chosen if peer.uuid != out]
        for other in apart.pop(out):
            apart[other].discard(out)
    return chosen, reasons


def _missing(uuid: str, fingerprints: Mapping[str, str], known: frozenset[str]) -> set[str]:
    return {other for other, fingerprint in fingerprints.items() if other != uuid and fingerprint not in known}


def some(names: Sequence[str]) -> str:
    """Return names with commas between, a few of them if there are many."""
    shown = ", ".join(sorted(names)[:_MAX_NAMES])
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES} more"
