"""Who belongs to a federation, and what all of them agree on: the admin's side of it, and that of everybody else.

The admin lets peers in, tells everybody each change, and gives the rest a new key when somebody goes. A peer asks the admin
whenever it begins, reconnects or pulses ("hello"), so it finds out what it missed.

Source: docs/spec/federation.md 1.3, 1.4, 4 (13), 4.1, 5.3.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from pet.errors import (
    DowngradeError,
    FederationError,
    FederationStateError,
    FederationValueError,
    PetError,
)
from pet.federation.formats.compat import SECRET_KEY_BYTES
from pet.federation.formats.encoding import canonical_json, encode_base64
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contract_changes import ContractChanges
from pet.federation.peer.downgrades import OfferedProtection, require_no_downgrade
from pet.federation.peer.joining import Admission
from pet.federation.peer.link import PeerLink
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.terms_update import TermsUpdate
from pet.federation.records import Confirm, FederationRecord, PeerIdentity
from pet.pet1.answers import PIECE_HEAD
from pet.pet1.leaves import LEAF_BYTES
from pet.secret import Secret
from pet.transports.nats import Subscription
from pet.transports.nats.kept_session import SPARE_BYTES

_logger: Final = logging.getLogger(__name__)

TERMS: Final = "terms"
REMOVED: Final = "removed"
HELLO: Final = "hello"
LEAVE: Final = "leave"
_TELL_SECONDS: Final = 10.0
#: A leaf of a vector travels in one message (docs/spec/profile.md 15.2).
_MIN_ROUND_PAYLOAD_BYTES: Final = PIECE_HEAD.size + LEAF_BYTES + SPARE_BYTES
#: Room for header, signature, seal and the few fields beside the terms.
_ENVELOPE_BYTES: Final = 8192


class AdminRole:
    """What only the admin does.

    Args:
        context: of the admin.
        link: to the others.
    """

    def __init__(self, context: PeerContext, link: PeerLink) -> None:
        self._context: Final = context
        self._link: Final = link
        self._admission: Final = Admission(context, self.require_room, self._announce)
        self._telling: Final[set[asyncio.Task[None]]] = set()

    async def serve(self) -> Subscription:
        """Let peers in from now on."""
        return await self._link.connection.serve(self._link.subjects.join, self._admission.answer)

    async def close(self) -> None:
        """Stop telling."""
        for task in list(self._telling):
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    def change(self, record: FederationRecord) -> None:
        """Take a changed record, and tell everybody in the background; who is away asks later.

        Raises:
            FederationValueError: it is too large for one message; nothing was changed.
        """
        self.require_room(record)
        self._context.set_record(record)
        self._announce()

    def require_room(self, record: FederationRecord) -> None:
        """Check that what all have to know fits into one message, and so does a leaf of a vector.

        Raises:
            FederationValueError: it does not.
        """
        most = self._link.connection.max_payload_bytes
        if record.terms.uses_smpc and most < _MIN_ROUND_PAYLOAD_BYTES:
            raise FederationValueError(
                f"rounds: expected a broker whose max_payload is {_MIN_ROUND_PAYLOAD_BYTES} or more, got one of {most}"
            )
        size = len(canonical_json(TermsUpdate.of(record, self._context.counters.terms_version).to_fields()))
        connection = self._link.connection
        missing = size + _ENVELOPE_BYTES - connection.max_chunk_bytes
        if missing <= 0:
            return
        expected, got = f"at most {max(0, size - missing)} bytes together", f"{size} bytes"
        if connection.max_payload_bytes <= connection.settings.chunk_bytes:
            expected += f", or a broker whose max_payload is {connection.max_payload_bytes + missing} or more"
            got += f" and a max_payload of {connection.max_payload_bytes}"
        raise FederationValueError(f"schema, contract and members: expected {expected}, got {got}")

    async def remove(self, uuid: str, *, tells: bool = True) -> None:
        """Remove a peer, and give the rest a new key.

        Raises:
            FederationValueError: there is no such peer, or it is the admin.
        """
        context = self._context
        gone = context.members.get(uuid)
        if gone is None or uuid == context.uuid:
            raise FederationValueError("member: expected another member of this federation, got this one or none")
        if tells:
            await self._tell(gone, REMOVED, {})
        key = Secret(encode_base64(os.urandom(SECRET_KEY_BYTES)))
        terms = replace(context.terms, secret_key=key, key_epoch=context.terms.key_epoch + 1)
        context.store.revoke_tokens()
        peers = tuple(peer for peer in context.record.peers if peer is not gone)
        confirmed = tuple(one for one in context.record.confirmed if one != gone.fingerprint)
        self.change(replace(context.record, terms=terms, peers=peers, confirmed=confirmed))
        context.log_sync(f"Peer {gone.name} is no longer a member")

    async def dissolve(self) -> None:
        """Tell everybody that the federation is over."""
        await asyncio.gather(*(self._tell(peer, REMOVED, {}) for peer in self._context.others))

    async def answer_hello(self, message: PeerMessage) -> dict[str, Any]:
        """Answer a peer that asks what it missed."""
        counters = self._context.counters
        update = TermsUpdate.of(self._context.record, counters.terms_version)
        is_behind = message.number("terms") < counters.terms_version
        return {"terms": update.to_fields() if is_behind else None, "round": counters.aggregate_round}

    async def answer_leave(self, message: PeerMessage) -> dict[str, Any]:
        """Let a peer go."""
        await self.remove(message.sender, tells=False)
        return {}

    def _announce(self, *, but: str = "") -> None:
        """Send a change to everybody but one in the background."""
        context = self._context
        context.counters.terms_version += 1
        context.save()
        fields = TermsUpdate.of(context.record, context.counters.terms_version).to_fields()
        for peer in [peer for peer in context.others if peer.uuid != but]:
            task = asyncio.create_task(self._tell(peer, TERMS, fields))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, peer: PeerIdentity, kind: str, fields: dict[str, Any]) -> None:
        try:
            await self._link.ask(self._link.subjects.control(peer.uuid), peer, kind, fields, timeout_seconds=_TELL_SECONDS)
        except FederationError as error:
            _logger.debug("peer %s was not informed of %s: %s", peer.name, kind, error)


def _protection(fields: Mapping[str, Any], update: TermsUpdate) -> OfferedProtection:
    """Return what a message of the admin says of the protection of a peer; a terms update need not repeat all of it."""
    return OfferedProtection(
        encrypts=fields.get("encrypts"), uses_smpc=fields.get("smpc"), kind=fields.get("kind"), schema=update.schema
    )


class MemberRole:
    """What every peer but the admin does.

    Args:
        context: of this peer.
        link: to the others.
        contracts: decide when a changed contract counts.
        on_terms: called after new terms were taken, and after this peer was removed.
    """

    def __init__(
        self, context: PeerContext, link: PeerLink, contracts: ContractChanges, on_terms: Callable[[], Awaitable[None]]
    ) -> None:
        self._context: Final = context
        self._link: Final = link
        self._contracts: Final = contracts
        self._on_terms: Final = on_terms
        self._refused_version = 0

    async def take_terms(self, message: PeerMessage) -> dict[str, Any]:
        """Take what the admin says now; older news changes nothing."""
        self._require_admin(message)
        await self._apply(message.fields)
        return {}

    async def take_removal(self, message: PeerMessage) -> dict[str, Any]:
        """Note that this peer is no longer a member."""
        self._require_admin(message)
        context = self._context
        context.set_record(replace(context.record, peers=(), is_pulsing=False))
        context.log_error("This peer is no longer a member of the federation")
        await self._on_terms()
        return {}

    async def say_hello(self) -> bool:
        """Ask the admin what was missed; returns whether there is a newer aggregate, which the admin publishes again.

        Raises:
            FederationError: the admin does not answer.
        """
        context, admin = self._context, self._context.admin()
        fields = {"terms": context.counters.terms_version, "round": context.counters.aggregate_round}
        answer = await self._link.ask(self._link.subjects.want(admin.uuid), admin, HELLO, fields, timeout_seconds=_TELL_SECONDS)
        if (terms := answer.fields.get("terms")) is not None:
            await self._apply(terms)
        return answer.number("round") > context.counters.aggregate_round

    async def ask_for_members(self) -> bool:
        """Ask the admin what was missed; returns whether the members are others now."""
        before = self._context.record.peers
        with suppress(PetError):
            await self.say_hello()
        return self._context.record.peers != before

    async def leave(self) -> None:
        """Tell the admin that this peer goes.

        Raises:
            FederationError: the admin does not answer.
        """
        admin = self._context.admin()
        await self._link.ask(self._link.subjects.want(admin.uuid), admin, LEAVE, {})

    def _require_admin(self, message: PeerMessage) -> None:
        if message.sender != self._context.admin().uuid:
            raise FederationStateError("terms: expected them from the admin")

    async def _apply(self, fields: Mapping[str, Any]) -> None:
        """Take newer terms.

        Raises:
            RemoteProtocolError: they are malformed.
            DowngradeError: they protect this peer less than those it has; nothing of them counts.
        """
        context = self._context
        update = TermsUpdate.from_fields(fields, context.terms.kind)
        if update.version <= context.counters.terms_version:
            return
        try:
            require_no_downgrade(context.terms, _protection(fields, update))
        except DowngradeError as error:
            if update.version > self._refused_version:  # once, and not at each tick
                self._refused_version = update.version
                context.log_error(f"Terms of the admin refused: {error}")
            raise
        contract = self._contracts.take(update.contract)
        before = {peer.fingerprint for peer in context.record.peers}
        record = update.apply(context.record)
        present = {peer.fingerprint for peer in record.peers}
        # Who comes back is new.
        confirmed = tuple(one for one in record.confirmed if one in present)
        context.set_record(replace(record, terms=replace(record.terms, contract=contract), confirmed=confirmed))
        context.counters.terms_version = update.version
        context.save()
        if new := [peer.name for peer in context.others if peer.fingerprint not in before]:
            is_open = context.confirm is Confirm.PERSON
            context.log_sync(f"New members: {', '.join(new)}{', unconfirmed' if is_open else ''}")
        await self._on_terms()
