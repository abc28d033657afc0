"""Who belongs to a federation, and what all of them agree on: the admin's side of it, and that of everybody else.

The admin lets peers in, tells everybody each change, and gives the rest a new key when somebody goes. A peer asks the admin
whenever it begins, reconnects or pulses ("hello"), so it finds out what it missed.

Source: docs/spec/federation.md 1.3, 1.4, 4 (13), 4.1, 5.3.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from pet.errors import (
    FederationError,
    FederationStateError,
    FederationUnavailableError,
    FederationValueError,
    RemoteProtocolError,
    TokenRefusedError,
    TransportError,
)
from pet.federation.encoding import canonical_json, encode_base64
from pet.federation.messages import PeerMessage, Protection
from pet.federation.peer_context import PeerContext
from pet.federation.peer_link import PeerLink
from pet.federation.records import FederationRecord, FederationTerms, PeerIdentity, ProjectKind
from pet.federation.terms_update import MAX_PEERS, TermsUpdate, decode_identity, encode_identity
from pet.secret import Secret
from pet.transports.nats import NatsConnection, Subjects

_logger: Final = logging.getLogger(__name__)

TERMS: Final = "terms"
REMOVED: Final = "removed"
HELLO: Final = "hello"
LEAVE: Final = "leave"
_JOIN: Final = "join"
_REFUSED: Final = "refused"
#: Failed joins within a minute, before the next ones are refused unread.
_MAX_FAILED_JOINS: Final = 5
_MINUTE_SECONDS: Final = 60.0
_SECRET_KEY_BYTES: Final = 16
_TELL_SECONDS: Final = 10.0
#: Room for header, signature, seal and the few fields beside the terms.
_ENVELOPE_BYTES: Final = 8192


class AdminRole:
    """What only the admin does.

    Args:
        context: of the admin.
        link: to the others.
        subjects: of the federation.
    """

    def __init__(self, context: PeerContext, link: PeerLink, subjects: Subjects) -> None:
        self._context: Final = context
        self._link: Final = link
        self._subjects: Final = subjects
        self._failures: Final[deque[float]] = deque(maxlen=_MAX_FAILED_JOINS)
        self._telling: Final[set[asyncio.Task[None]]] = set()

    async def serve(self) -> None:
        """Let peers in from now on."""
        await self._link.connection.serve(self._subjects.join, self._answer_join)

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
        self._changed()

    def require_room(self, record: FederationRecord) -> None:
        """Check that what all have to know fits into one message.

        Raises:
            FederationValueError: it does not.
        """
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
            raise FederationValueError(f"peer: expected another member of this federation, got {uuid[:40]!r}")
        if tells:
            await self._tell(gone, REMOVED, {})
        key = Secret(encode_base64(os.urandom(_SECRET_KEY_BYTES)))
        terms = replace(context.terms, secret_key=key, key_epoch=context.terms.key_epoch + 1)
        context.store.revoke_tokens()
        self.change(
            replace(context.record, terms=terms, peers=tuple(peer for peer in context.record.peers if peer is not gone))
        )
        context.log_sync(f"Peer {uuid} is no longer a member")

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

    def _changed(self, *, but: str = "") -> None:
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
            await self._link.ask(self._subjects.control(peer.uuid), peer, kind, fields, timeout_seconds=_TELL_SECONDS)
        except FederationError as error:
            _logger.debug("peer %s was not informed of %s: %s", peer.uuid, kind, error)

    async def _answer_join(self, subject: str, data: bytes) -> bytes:
        context = self._context
        now = context.clock.now_seconds()
        if len(self._failures) == _MAX_FAILED_JOINS and now - self._failures[0] < _MINUTE_SECONDS:
            return b""
        try:
            message = context.codec.open(data, context.terms, subject, now, _find_stranger)
            joined = self._admit(message)
        except (RemoteProtocolError, FederationError) as error:
            self._failures.append(now)
            reason = f"token {error.reason}" if isinstance(error, TokenRefusedError) else str(error)
            context.log_error(f"Join refused: {reason}")
            fields = {"reason": "token" if isinstance(error, TokenRefusedError) else "refused", "re": ""}
            return self._make(subject, _REFUSED, fields)
        _logger.info("peer %s joined", joined.uuid)
        terms, update = context.terms, TermsUpdate.of(context.record, context.counters.terms_version)
        fields = update.to_fields() | {"re": message.message_id, "admin": encode_identity(context.admin())}
        decided = {"name": terms.name, "encrypts": terms.encrypts, "smpc": terms.uses_smpc, "kind": terms.kind.value}
        return self._make(subject, _JOIN, fields | decided)

    def _admit(self, message: PeerMessage) -> PeerIdentity:
        """Make a peer a member, in one step with its token."""
        context = self._context
        joined = decode_identity(message.fields.get("identity"))
        if message.kind != _JOIN or joined.uuid != message.sender or joined.signing_key != message.signing_key:
            raise RemoteProtocolError("bad_join", "join: expected a request signed by the peer itself, got another")
        known = context.members.get(joined.uuid)
        if known is not None and known.signing_key != joined.signing_key:
            raise RemoteProtocolError("bad_join", "join: expected a peer of its own, got a member's name with another key")
        if known is None and len(context.record.peers) >= MAX_PEERS:
            raise FederationStateError(f"join: expected at most {MAX_PEERS} peers, got one more")
        peers = context.record.peers if known is not None else (*context.record.peers, joined)
        record = replace(context.record, peers=peers)
        self.require_room(record)
        context.store.redeem_token(message.text("token"), joined, record)
        context.record = record
        if known is None:
            context.log_sync(f"Peer {joined.uuid} joined")
            self._changed(but=joined.uuid)
        return joined

    def _make(self, subject: str, kind: str, fields: dict[str, Any]) -> bytes:
        """Make an answer for somebody who knows the federation's key and perhaps not yet the admin's."""
        context = self._context
        now = context.clock.now_seconds()
        protection = Protection.FEDERATION
        data, _ = context.codec.make(context.terms, kind, subject, now, fields, protection=protection, shows_key=True)
        return data


def _find_stranger(uuid: str, shown_key: bytes | None) -> PeerIdentity | None:
    """Believe the key that a message shows: the token in it decides, and the identity in it has to have the same key."""
    return None if shown_key is None else PeerIdentity(uuid=uuid, signing_key=shown_key, encryption_key=b"")


async def join(context: PeerContext, connection: NatsConnection, subjects: Subjects, token: Secret) -> None:
    """Ask the admin to become a member, and take its terms.

    Raises:
        TokenRefusedError: the admin refuses the token.
        FederationUnavailableError: the admin does not answer, or not as it should.
    """
    terms, admin = context.terms, context.terms.admin
    fields = {"token": token.reveal(), "identity": encode_identity(context.record.keys.identity())}
    protection = Protection.FEDERATION if admin is None else Protection.SEALED
    now = context.clock.now_seconds()
    question, question_id = context.codec.make(
        terms, _JOIN, subjects.join, now, fields, recipient=admin, protection=protection, shows_key=True
    )

    def find_admin(uuid: str, shown_key: bytes | None) -> PeerIdentity | None:
        if admin is not None:
            return admin if uuid == admin.uuid else None
        return _find_stranger(uuid, shown_key)

    try:
        data = await connection.request(subjects.join, question)
        answer = context.codec.open(data, terms, subjects.join, context.clock.now_seconds(), find_admin)
    except (TransportError, RemoteProtocolError) as error:
        raise FederationUnavailableError(f"join: expected an answer of the admin, got none: {error}") from None
    if answer.kind == _REFUSED and answer.protection is Protection.FEDERATION:
        raise TokenRefusedError("refused")
    if answer.kind != _JOIN or answer.fields.get("re") != question_id or answer.protection is not Protection.FEDERATION:
        raise FederationUnavailableError("join: expected an answer of the admin, got another message")
    _take_join_answer(context, answer)


def _take_join_answer(context: PeerContext, answer: PeerMessage) -> None:
    try:
        kind = ProjectKind(answer.text("kind"))
        update = TermsUpdate.from_fields(answer.fields, kind)
        admin = decode_identity(answer.fields.get("admin"))
        name = answer.text("name")
        encrypts, smpc = (bool(answer.fields.get(key)) for key in ("encrypts", "smpc"))
    except ValueError as error:  # RemoteProtocolError is one
        raise FederationUnavailableError(f"join: expected the federation's terms, got something else: {error}") from None
    if admin.signing_key != answer.signing_key or context.uuid not in {peer.uuid for peer in update.peers}:
        raise FederationUnavailableError("join: expected terms of the admin with us among the members, got others")
    terms: FederationTerms = replace(context.terms, admin=admin, name=name, encrypts=encrypts, uses_smpc=smpc, kind=kind)
    context.set_record(update.apply(replace(context.record, terms=terms)))
    context.counters.terms_version = update.version
    context.save()


class MemberRole:
    """What every peer but the admin does.

    Args:
        context: of this peer.
        link: to the others.
        subjects: of the federation.
        on_terms: called after new terms were taken, and after this peer was removed.
    """

    def __init__(
        self, context: PeerContext, link: PeerLink, subjects: Subjects, on_terms: Callable[[], Awaitable[None]]
    ) -> None:
        self._context: Final = context
        self._link: Final = link
        self._subjects: Final = subjects
        self._on_terms: Final = on_terms

    async def take_terms(self, message: PeerMessage) -> dict[str, Any]:
        """Take what the admin says now; older news changes nothing."""
        self._require_admin(message)
        await self._apply(TermsUpdate.from_fields(message.fields, self._context.terms.kind))
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
        answer = await self._link.ask(self._subjects.want(admin.uuid), admin, HELLO, fields, timeout_seconds=_TELL_SECONDS)
        if (terms := answer.fields.get("terms")) is not None:
            await self._apply(TermsUpdate.from_fields(terms, context.terms.kind))
        return answer.number("round") > context.counters.aggregate_round

    async def leave(self) -> None:
        """Tell the admin that this peer goes.

        Raises:
            FederationError: the admin does not answer.
        """
        admin = self._context.admin()
        await self._link.ask(self._subjects.want(admin.uuid), admin, LEAVE, {})

    def _require_admin(self, message: PeerMessage) -> None:
        if message.sender != self._context.admin().uuid:
            raise FederationStateError("terms: expected them from the admin")

    async def _apply(self, update: TermsUpdate) -> None:
        context = self._context
        if update.version <= context.counters.terms_version:
            return
        context.set_record(update.apply(context.record))
        context.counters.terms_version = update.version
        context.save()
        await self._on_terms()
