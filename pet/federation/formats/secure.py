"""The native formats of requests: the signature `PET1-HMAC-SHA256`, the body envelope, and the keys behind both.

Nothing here reads a socket or a clock: the time comes in, as Unix seconds. What a request means is not known here.

Source: docs/spec/federation.md 4.2.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, quote

from pet.crypto import AEAD_NONCE_BYTES, decrypt_authenticated, encrypt_authenticated
from pet.errors import CryptoError, FederationValueError, MissingExtraError
from pet.federation.formats.encoding import decode_base64url, encode_base64url

SCHEME: Final = "PET1-HMAC-SHA256"
NONCE_BYTES: Final = 16

#: Where a request says which body will follow its head: SHA-256 in lower-case hex, which the signature covers in any case.
DIGEST_HEADER: Final = "pet-content-sha256"
#: A larger body has to be announced by that header, so that it is read only of users who signed for it.
MAX_UNANNOUNCED_BYTES: Final = 1 << 16

_SIGN_LABEL: Final = "pet/v1/rest-sign"
_BODY_LABEL: Final = "pet/v1/rest-body"
_HEADER: Final = re.compile(
    SCHEME + r" keyid=([^,\s]{1,128}),ts=([0-9]{1,12}),nonce=([A-Za-z0-9_-]{22}),sig=([A-Za-z0-9_-]{43})", re.ASCII
)

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def derive_key(secret: bytes, label: str) -> bytes:
    """Derive a 32-byte key for one purpose: HKDF-SHA256 without salt, the label as info."""
    with MissingExtraError.naming("federation"):
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=label.encode()).derive(secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedParts:
    """What a signature covers.

    Attributes:
        method: upper case.
        host: the Host header, as sent.
        path: as requested, still percent-encoded.
        query: as requested, without "?"; empty if there is none.
        body_digest: SHA-256 of the body in lower-case hex, where the body is not there; None where it is.
        timestamp: Unix seconds.
        nonce: 16 bytes as unpadded base64url.
    """

    method: str
    host: str
    path: str
    query: str
    body: bytes = b""
    body_digest: str | None = None
    timestamp: int
    nonce: str
    customer_id: str

    def canonical_string(self) -> str:
        """Return the nine lines that are signed."""
        lines = (
            SCHEME,
            self.method,
            self.host.lower(),
            self.path,
            _canonical_query(self.query),
            digest_body(self.body) if self.body_digest is None else self.body_digest,
            str(self.timestamp),
            self.nonce,
            self.customer_id,
        )
        return "\n".join(lines)

    def signature(self, secret: bytes) -> str:
        """Return the signature under a user's secret key, unpadded base64url."""
        key = derive_key(secret, _SIGN_LABEL)
        return encode_base64url(hmac.digest(key, self.canonical_string().encode(), "sha256"))

    def authorization(self, secret: bytes) -> str:
        """Return the value of the Authorization header."""
        return f"{SCHEME} keyid={self.customer_id},ts={self.timestamp},nonce={self.nonce},sig={self.signature(secret)}"

    def with_body(self, body: bytes) -> SignedParts:
        """Return the same with another body."""
        return replace(self, body=body)

    def body_context(self) -> bytes:
        """Return what an encrypted body, or answer, is bound to."""
        return f"{self.method}\n{self.path}\n{self.timestamp}\n{self.nonce}".encode()


@dataclass(frozen=True, slots=True)
class Authorization:
    """A parsed header; nothing of it is proven yet."""

    customer_id: str
    timestamp: int
    nonce: str
    signature: str


def digest_body(body: bytes) -> str:
    """Return what a signature covers of a body."""
    return hashlib.sha256(body).hexdigest()


def parse_digest(header: str) -> str | None:
    """Return the digest that `DIGEST_HEADER` announces; None if it is none."""
    return header if _DIGEST.fullmatch(header) else None


def parse_authorization(header: str) -> Authorization | None:
    """Take the header apart; None if it is not of this scheme or malformed."""
    if (found := _HEADER.fullmatch(header)) is None:
        return None
    customer_id, timestamp, nonce, signature = found.groups()
    return Authorization(customer_id, int(timestamp), nonce, signature)


def new_nonce() -> str:
    """Draw a nonce for one request."""
    return encode_base64url(secrets.token_bytes(NONCE_BYTES))


def _canonical_query(query: str) -> str:
    """Return the pairs sorted, percent-encoded as RFC 3986 says: only unreserved characters stay."""
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(sorted(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs))


def encrypt_body(data: bytes, secret: bytes, context: bytes) -> bytes:
    """Encrypt a body, or an answer, under a user's key, bound to its request (`SignedParts.body_context`)."""
    nonce = secrets.token_bytes(AEAD_NONCE_BYTES)
    box = encrypt_authenticated(data, context, nonce, derive_key(secret, _BODY_LABEL))
    envelope = {"v": 1, "n": encode_base64url(nonce), "c": encode_base64url(box)}
    return json.dumps(envelope, separators=(",", ":")).encode()


def is_encrypted_body(value: object) -> bool:
    """Return whether decoded JSON is an envelope, and not a plain map."""
    return isinstance(value, dict) and value.keys() == {"v", "n", "c"}


def decrypt_body(envelope: object, secret: bytes, context: bytes) -> bytes:
    """Decrypt an envelope that was decoded from JSON.

    Raises:
        FederationValueError: it does not open; the text is the same whatever the reason.
    """
    if is_encrypted_body(envelope):
        assert isinstance(envelope, dict)
        version, nonce, box = envelope["v"], envelope["n"], envelope["c"]
        if version == 1 and isinstance(nonce, str) and isinstance(box, str):
            try:
                return decrypt_authenticated(
                    decode_base64url(box), context, decode_base64url(nonce), derive_key(secret, _BODY_LABEL)
                )
            except (CryptoError, ValueError):
                pass  # reported below, outside of the handler: one text and no chain of causes
    raise FederationValueError("Bad Request Body")
