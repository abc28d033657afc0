"""What peers say to each other: signed by the sender, and where wanted encrypted for one peer or for the federation.

An envelope is "PETF", a header as JSON, a body (fields as JSON and an attachment of bytes), and the sender's signature of all
that. Opening one shows who sent it, that it is meant for this federation and subject, that it is recent, and that it was
not opened before; nothing is decrypted until that is known. What a message means is not known here, and nothing is sent here.

Source: docs/spec/federation.md 1.5 (receive rule 1), 4.3.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pet import crypto
from pet.crypto import AEAD_NONCE_BYTES, SIGNATURE_BYTES
from pet.errors import CryptoError, RemoteProtocolError
from pet.federation.formats.encoding import canonical_json, decode_base64, parse_json_object
from pet.federation.formats.json_form import JsonForm, PublicKey, Whole
from pet.federation.formats.replay_guard import MAX_AGE_SECONDS, MAX_LEAD_SECONDS, ReplayGuard, is_recent
from pet.federation.formats.secure import derive_key
from pet.federation.records import FederationTerms, PeerIdentity, PeerKeys

_MAGIC: Final = b"PETF"
_VERSION: Final = 1
#: "PETF", version, protection, length of the header; big-endian.
_PREFIX: Final = struct.Struct(">4sBBH")
_LENGTH: Final = struct.Struct(">I")
_SIGNED_AS: Final = b"pet/v1/fed-message\0"
_ID_BYTES: Final = 16
_MAX_FIELDS_BYTES: Final = 1 << 24
#: Ids of each sender: about one message a second for the whole window. A thousand members that all send this much take 100 MB.
MAX_IDS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What stands in clear before a body, and is signed with it.

    Attributes:
        key: the sender's signing key, for a recipient that does not know it.
    """

    federation_id: str
    key_epoch: Whole
    subject: str
    kind: str
    sender: str
    message_id: str
    sent_milliseconds: Whole
    key: PublicKey | None = None


_HEADER: Final = JsonForm(
    _Header,
    {"federation_id": "fid", "key_epoch": "epoch", "sender": "from", "message_id": "id", "sent_milliseconds": "ts"},
)


class Protection(enum.IntEnum):
    """How a body is encrypted."""

    NONE = 0  # not at all; it is signed
    FEDERATION = 1  # XChaCha20-Poly1305 under a key that all members derive
    SEALED = 2  # a sealed box for one recipient


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerMessage:
    """An opened message; everything in it is proven to come from the sender.

    Attributes:
        kind: what it is.
        sender: uuid of the peer that signed it.
        message_id: 32 hexadecimal digits.
        signing_key: the key that it was signed with.
        protection: how its body came.
        fields: the body's JSON object.
        attachment: the body's bytes.
    """

    kind: str
    sender: str
    message_id: str
    signing_key: bytes
    protection: Protection
    fields: dict[str, Any] = field(repr=False)
    attachment: bytes = field(repr=False)

    def text(self, name: str) -> str:
        """Return a text among the fields.

        Raises:
            RemoteProtocolError: it is missing or no text.
        """
        return str(self._typed(name, str))

    def number(self, name: str) -> int:
        """Return a whole number from 0 on among the fields.

        Raises:
            RemoteProtocolError: it is missing or no such number.
        """
        value = self._typed(name, int)
        if isinstance(value, bool) or not 0 <= value < 2**63:
            raise _malformed(f"field {name}: expected a number from 0 on")
        return int(value)

    def _typed(self, name: str, kind: type[Any]) -> Any:
        value = self.fields.get(name)
        if not isinstance(value, kind):
            raise _malformed(f"field {name}: expected {kind.__name__}, got {type(value).__name__}")
        return value


#: Takes the uuid in a header, and the signing key in it if there is one; returns whom to believe, or None.
FindSender = Callable[[str, bytes | None], PeerIdentity | None]


class MessageCodec:
    """Makes and opens the messages of one peer in one federation.

    Args:
        keys: of this peer.
        guard: what remembers messages; None remembers them in memory.
    """

    def __init__(self, keys: PeerKeys, guard: ReplayGuard | None = None) -> None:
        self._keys: Final = keys
        self._guard: Final = guard or ReplayGuard(MAX_IDS)

    def make(
        self,
        terms: FederationTerms,
        kind: str,
        subject: str,
        now_seconds: float,
        fields: dict[str, Any],
        *,
        attachment: bytes = b"",
        recipient: PeerIdentity | None = None,
        protection: Protection | None = None,
        shows_key: bool = False,
    ) -> tuple[bytes, str]:
        """Make a message; returns its bytes and its id.

        Args:
            terms: of the federation, now.
            kind: what it is.
            subject: where it will be published; bound into it.
            now_seconds: Unix time of this peer.
            fields: JSON values.
            attachment: further bytes.
            recipient: whom a sealed message is for.
            protection: how to encrypt; None means sealed if there is a recipient, and else as the terms say.
            shows_key: put the signing key into the header, for a recipient that does not know this peer.
        """
        if protection is None:
            protection = Protection.SEALED if recipient else Protection.FEDERATION if terms.encrypts else Protection.NONE
        message_id = os.urandom(_ID_BYTES).hex()
        header = _Header(
            federation_id=terms.federation_id,
            key_epoch=terms.key_epoch,
            subject=subject,
            kind=kind,
            sender=self._keys.uuid,
            message_id=message_id,
            sent_milliseconds=int(now_seconds * 1000),
            key=self._keys.signing.public_key if shows_key else None,
        )
        encoded = canonical_json({name: value for name, value in _HEADER.fields(header).items() if value is not None}).encode()
        head = _PREFIX.pack(_MAGIC, _VERSION, protection, len(encoded)) + encoded
        # The sender once more inside: nobody can take a sealed body out and sign it as his own.
        inner = canonical_json(fields | {"sender": self._keys.uuid}).encode()
        body = _protect(_LENGTH.pack(len(inner)) + inner + attachment, head, protection, terms, recipient)
        return head + body + self._keys.signing.sign(_SIGNED_AS + head + body), message_id

    def open(
        self,
        data: bytes,
        terms: FederationTerms,
        subject: str,
        now_seconds: float,
        find_sender: FindSender,
        *,
        is_once: bool = True,
    ) -> PeerMessage:
        """Open a message.

        Args:
            data: the envelope.
            terms: of the federation, now.
            subject: where it came.
            now_seconds: Unix time of this peer.
            find_sender: knows whom to believe.
            is_once: whether it must not have been opened before. Not for strangers, who could fill the memory for it.

        Raises:
            RemoteProtocolError: reason "malformed_message", "wrong_federation" (or subject), "unknown_sender", "bad_signature",
                "clock_skew", "replayed", "unknown_key" (another epoch, or not for us).
        """
        head, header, protection = _read_head(data)
        if header.federation_id != terms.federation_id or header.subject != subject:
            raise RemoteProtocolError("wrong_federation", "message: expected one for this federation and subject, got another")
        sender = find_sender(header.sender, header.key)
        if sender is None or header.key not in (None, sender.signing_key):
            raise RemoteProtocolError("unknown_sender", f"message: expected a member, got one from {header.sender[:32]!r}")
        content = memoryview(data)
        signature = bytes(content[-SIGNATURE_BYTES:])
        if not crypto.verify(signature, _SIGNED_AS + bytes(content[:-SIGNATURE_BYTES]), sender.signing_key):
            raise RemoteProtocolError("bad_signature", f"message of {sender.name}: expected its signature, got another")
        lead = header.sent_milliseconds / 1000 - now_seconds
        if not is_recent(-lead):
            raise RemoteProtocolError(
                "clock_skew",
                f"message of {sender.name}: expected a time within {MAX_AGE_SECONDS} s back and {MAX_LEAD_SECONDS} s ahead, "
                f"got {lead:+.0f} s; the clocks are out of step",
            )
        body = self._unprotect(bytes(content[len(head) : -SIGNATURE_BYTES]), head, header, protection, terms)
        fields, attachment = _read_body(body, header.sender)
        if is_once and not self._guard.remember(sender.uuid, header.message_id, now_seconds):
            raise RemoteProtocolError("replayed", f"message of {sender.name}: expected a new one, got one again")
        return PeerMessage(
            kind=header.kind,
            sender=sender.uuid,
            message_id=header.message_id,
            signing_key=sender.signing_key,
            protection=protection,
            fields=fields,
            attachment=attachment,
        )

    def _unprotect(self, body: bytes, head: bytes, header: _Header, protection: Protection, terms: FederationTerms) -> bytes:
        if protection is Protection.NONE:
            if terms.encrypts:
                raise RemoteProtocolError("unknown_key", "message: expected an encrypted one, got one in clear")
            return body
        try:
            if protection is Protection.SEALED:
                return crypto.open_sealed(body, self._keys.encryption)
            if header.key_epoch == terms.key_epoch and len(body) >= AEAD_NONCE_BYTES:
                key = _federation_key(terms)
                return crypto.decrypt_authenticated(body[AEAD_NONCE_BYTES:], head, body[:AEAD_NONCE_BYTES], key)
        except CryptoError:
            pass  # one text for every way in which a body does not open
        raise RemoteProtocolError("unknown_key", f"message: expected one that opens with key {terms.key_epoch}, got another")


def _protect(body: bytes, head: bytes, protection: Protection, terms: FederationTerms, recipient: PeerIdentity | None) -> bytes:
    if protection is Protection.SEALED:
        assert recipient is not None, "a sealed message has a recipient"
        return crypto.seal(body, recipient.encryption_key)
    if protection is Protection.NONE:
        return body
    nonce = os.urandom(AEAD_NONCE_BYTES)
    return nonce + crypto.encrypt_authenticated(body, head, nonce, _federation_key(terms))


def _federation_key(terms: FederationTerms) -> bytes:
    secret = decode_base64(terms.secret_key.reveal())
    return derive_key(secret, f"pet/v1/fed-msg|{terms.federation_id}|{terms.key_epoch}")


def _read_head(data: bytes) -> tuple[bytes, _Header, Protection]:
    """Return prefix with header as bytes, the header, and the protection."""
    if len(data) < _PREFIX.size + SIGNATURE_BYTES:
        raise _malformed(f"expected an envelope, got {len(data)} bytes")
    magic, version, protection, length = _PREFIX.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION) or protection not in set(Protection):
        raise _malformed("expected PETF version 1, got something else")
    head = data[: _PREFIX.size + length]
    if len(data) < len(head) + SIGNATURE_BYTES or len(head) < _PREFIX.size + length:
        raise _malformed("expected a whole header, got a part")
    header = _HEADER.receive(parse_json_object(head[_PREFIX.size :]), "malformed_message", "message: header")
    return head, header, Protection(protection)


def _read_body(body: bytes, sender: str) -> tuple[dict[str, Any], bytes]:
    length = _LENGTH.unpack_from(body)[0] if len(body) >= _LENGTH.size else _MAX_FIELDS_BYTES + 1
    if length > min(_MAX_FIELDS_BYTES, len(body) - _LENGTH.size):
        raise _malformed("expected a body with fields, got something else")
    fields = parse_json_object(body[_LENGTH.size : _LENGTH.size + length])
    if fields is None or fields.pop("sender", None) != sender:
        raise _malformed("expected fields of the sender, got something else")
    return fields, body[_LENGTH.size + length :]


def _malformed(problem: str) -> RemoteProtocolError:
    return RemoteProtocolError("malformed_message", f"message: {problem}")
