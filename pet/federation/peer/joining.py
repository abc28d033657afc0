"""How a peer becomes a member: its request, the admin's decision, and what it checks of the answer.

Source: docs/spec/federation.md 1.3, 4.1, 5.3, 10.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from pet.errors import (
    FederationError,
    FederationStateError,
    FederationUnavailableError,
    FederationValueError,
    PetError,
    RemoteProtocolError,
    TokenRefusedError,
    TransportError,
)
from pet.federation.failure_limit import FailureLimit
from pet.federation.formats.identities import decode_identity, encode_identity
from pet.federation.formats.member_list import begins_with_digest, is_taken
from pet.federation.peer.context import PeerContext
from pet.federation.peer.downgrades import OfferedProtection, require_no_downgrade
from pet.federation.peer.messages import PeerMessage, Protection
from pet.federation.peer.terms_update import MAX_PEERS, TermsUpdate
from pet.federation.records import FederationRecord, FederationTerms, PeerIdentity, ProjectKind
from pet.secret import Secret
from pet.transports.nats import NatsConnection, Subjects

_logger: Final = logging.getLogger(__name__)

_JOIN: Final = "join"
_REFUSED: Final = "refused"
_NAME_TAKEN: Final = "name_taken"
#: Whom joins are counted against that nobody has signed.
_NOBODY: Final = ""
#: Lines about refused joins within a minute; the rest is counted.
_MAX_REFUSAL_LINES: Final = 5
_MINUTE_SECONDS: Final = 60.0
#: What is kept of a name that gets a suffix.
_MAX_STEM: Final = 57


class Announce(Protocol):
    """Sends the terms to everybody but one."""

    def __call__(self, *, but: str = "") -> None:
        """Begin to send."""
        ...


class Admission:
    """The admin's side: who has a good token becomes a member.

    Args:
        context: of the admin.
        require_room: raises if a record is too large for one message.
        announce: tells the others of a change.
    """

    def __init__(self, context: PeerContext, require_room: Callable[[FederationRecord], None], announce: Announce) -> None:
        self._context: Final = context
        self._require_room: Final = require_room
        self._announce: Final = announce
        self._failures: Final = FailureLimit(context.clock.now_seconds)
        self._refusals: Final = _RefusalLog(context)

    async def answer(self, subject: str, data: bytes) -> bytes:
        """Answer a request to join."""
        context = self._context
        now = context.clock.now_seconds()
        sender = _NOBODY
        try:
            # Not remembered against replay: a token works once, and again only for the same peer.
            message = context.codec.open(data, context.terms, subject, now, _find_stranger, is_once=False)
            sender = message.signing_key.hex()
            if not self._failures.allows(sender):
                return b""
            joined = self._admit(message)
        except (RemoteProtocolError, FederationError) as error:
            return self._refuse_join(subject, sender, error)
        _logger.info("peer %s joined", joined.name)
        terms, update = context.terms, TermsUpdate.of(context.record, context.counters.terms_version)
        fields = update.to_fields() | {"re": message.message_id, "admin": encode_identity(context.admin())}
        decided = {"name": terms.name, "encrypts": terms.encrypts, "smpc": terms.uses_smpc, "kind": terms.kind.value}
        return self._make(subject, _JOIN, fields | decided)

    def _refuse_join(self, subject: str, sender: str, error: PetError) -> bytes:
        """Answer a join that is refused; what is beyond five a minute of one key, or without any, is not even logged.

        The limit is for each key, so nobody's junk keeps anybody else out. Against guessing with a new key each time there is
        the length of a token.
        """
        reason = _reason(error)
        if reason == _NAME_TAKEN:  # the token is good
            return self._make(subject, _REFUSED, {"reason": reason, "re": ""})
        if not self._failures.allows(sender):
            return b""
        self._failures.count(sender)
        self._refusals.log(f"token {error.reason}" if isinstance(error, TokenRefusedError) else str(error))
        return self._make(subject, _REFUSED, {"reason": reason, "re": ""})

    def _admit(self, message: PeerMessage) -> PeerIdentity:
        """Make a peer a member, in one step with its token."""
        context = self._context
        joined = decode_identity(message.fields.get("identity"))
        if message.kind != _JOIN or joined.uuid != message.sender or joined.signing_key != message.signing_key:
            raise RemoteProtocolError("bad_join", "join: expected a request signed by the peer itself, got another")
        token, record = message.text("token"), context.record
        known = context.members.get(joined.uuid)
        if known is None:
            # What follows is for holders of a token; one that was used lets nobody back in who was removed meanwhile.
            context.store.require_token(token)
            _require_new(joined, record.peers)
            # Whom this user invited, it vouches for.
            record = replace(record, peers=(*record.peers, joined), confirmed=(*record.confirmed, joined.fingerprint))
        elif known != joined:
            raise RemoteProtocolError("bad_join", "join: expected a uuid of its own, got a member's with another key or name")
        self._require_room(record)
        context.store.redeem_token(token, joined, record)
        context.record = record
        if known is None:
            context.log_sync(f"Peer {joined.name} joined")
            self._announce(but=joined.uuid)
        return joined

    def _make(self, subject: str, kind: str, fields: dict[str, Any]) -> bytes:
        """Make an answer for somebody who knows the federation's key and perhaps not yet the admin's."""
        context = self._context
        now = context.clock.now_seconds()
        protection = Protection.FEDERATION
        data, _ = context.codec.make(context.terms, kind, subject, now, fields, protection=protection, shows_key=True)
        return data


def _require_new(joined: PeerIdentity, peers: Sequence[PeerIdentity]) -> None:
    """Check that a peer can be added: one that had another's key would make the list useless for everybody.

    Raises:
        RemoteProtocolError: a key or the name is another member's (reasons "bad_join", "name_taken").
        FederationStateError: there are as many members as there can be.
    """
    keys = {key for peer in peers for key in (peer.signing_key, peer.encryption_key)}
    if joined.signing_key in keys or joined.encryption_key in keys:
        raise RemoteProtocolError("bad_join", "join: expected keys of its own, got another member's")
    if len(peers) >= MAX_PEERS:
        raise FederationStateError(f"join: expected at most {MAX_PEERS} peers, got one more")
    if is_taken(joined.label, peers):
        raise RemoteProtocolError(_NAME_TAKEN, f"join: expected a name that no member has, got {joined.label!r}")


def _reason(error: PetError) -> str:
    if isinstance(error, TokenRefusedError):
        return "token"
    return _NAME_TAKEN if isinstance(error, RemoteProtocolError) and error.reason == _NAME_TAKEN else _REFUSED


def _find_stranger(uuid: str, shown_key: bytes | None) -> PeerIdentity | None:
    """Believe the key that a message shows: the token in it decides, and the identity in it has to have the same key."""
    return None if shown_key is None else PeerIdentity(uuid=uuid, signing_key=shown_key, encryption_key=b"")


class _RefusalLog:
    """Lines about refused joins: a few a minute, as anybody with the broker's credential can send some."""

    def __init__(self, context: PeerContext) -> None:
        self._context: Final = context
        self._times: Final[deque[float]] = deque(maxlen=_MAX_REFUSAL_LINES)
        self._left_out = 0

    def log(self, reason: str) -> None:
        now = self._context.clock.now_seconds()
        if len(self._times) == _MAX_REFUSAL_LINES and now - self._times[0] < _MINUTE_SECONDS:
            self._left_out += 1
            return
        more = f", and {self._left_out} before it" if self._left_out else ""
        self._times.append(now)
        self._left_out = 0
        self._context.log_error(f"Join refused{more}: {reason}")


async def join(context: PeerContext, connection: NatsConnection, subjects: Subjects, token: Secret) -> None:
    """Ask the admin to become a member, and take its terms.

    Raises:
        TokenRefusedError: the admin refuses the token.
        FederationUnavailableError: the admin does not answer, or not as it should.
        DowngradeError: its terms protect this peer less than the invitation promised.
    """
    project_id = context.record.project_id
    own = context.members.get(context.uuid) or context.record.keys.identity(project_id)
    answer = await _ask_to_join(context, connection, subjects, token, own)
    if _is_name_taken(answer) and own.label == project_id:  # nobody chose it as a name
        own = replace(own, label=f"{project_id[:_MAX_STEM]}-{own.fingerprint[:6]}")
        answer = await _ask_to_join(context, connection, subjects, token, own)
    if _is_name_taken(answer):
        raise FederationValueError(f"fed_peer_name: expected a name that no member has, got {own.label!r}", "fed_peer_name")
    if answer.kind == _REFUSED:
        raise TokenRefusedError("refused")
    _take_join_answer(context, answer, own)


def _is_name_taken(answer: PeerMessage) -> bool:
    return answer.kind == _REFUSED and answer.fields.get("reason") == _NAME_TAKEN


async def _ask_to_join(
    context: PeerContext, connection: NatsConnection, subjects: Subjects, token: Secret, own: PeerIdentity
) -> PeerMessage:
    """Send the request, and return the answer: the terms, or a refusal, proven to come from the admin.

    Raises:
        FederationUnavailableError: there is none, or another one.
    """
    terms, admin = context.terms, context.terms.admin
    fields = {"token": token.reveal(), "identity": encode_identity(own)}
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
    is_ours = answer.kind == _REFUSED or (answer.kind == _JOIN and answer.fields.get("re") == question_id)
    if not is_ours or answer.protection is not Protection.FEDERATION:
        raise FederationUnavailableError("join: expected an answer of the admin, got another message")
    return answer


def _take_join_answer(context: PeerContext, answer: PeerMessage, own: PeerIdentity) -> None:
    try:
        kind = ProjectKind(answer.text("kind"))
        update = TermsUpdate.from_fields(answer.fields, kind)
        admin = decode_identity(answer.fields.get("admin"))
        name = answer.text("name")
        encrypts, smpc = (answer.fields.get(key) is True for key in ("encrypts", "smpc"))
    except ValueError as error:  # RemoteProtocolError is one
        raise FederationUnavailableError(f"join: expected the federation's terms, got something else: {error}") from None
    require_no_downgrade(context.terms, OfferedProtection(encrypts=encrypts, uses_smpc=smpc, kind=kind, schema=update.schema))
    if admin.signing_key != answer.signing_key or not {admin, own} <= set(update.peers):
        raise FederationUnavailableError("join: expected terms of the admin with us and it among the members, got others")
    _require_invited(context, admin, update.peers)
    terms: FederationTerms = replace(context.terms, admin=admin, name=name, encrypts=encrypts, uses_smpc=smpc, kind=kind)
    record = replace(context.record, terms=terms, confirmed=(admin.fingerprint,))
    context.set_record(update.apply(record))
    context.counters.terms_version = update.version
    context.save()


def _require_invited(context: PeerContext, admin: PeerIdentity, members: Sequence[PeerIdentity]) -> None:
    """Compare the answer with what the invitation says: whose it is, and who was a member then.

    Raises:
        FederationUnavailableError: it is of another admin, or has other members.
    """
    invited, digest = context.terms.admin, context.record.members_digest
    if invited is not None and invited.fingerprint != admin.fingerprint:
        raise FederationUnavailableError("join: expected the keys of the admin that the invitation names, got others")
    if digest is not None and not begins_with_digest(context.terms.federation_id, members, digest):
        raise FederationUnavailableError("join: expected the members that the invitation's digest covers, got others")
