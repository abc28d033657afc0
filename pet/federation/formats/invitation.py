"""Invitations: what is sent to a future peer, as a map of strings, and that map encrypted with a password or for a key.

`PETINV1` is the native format, `PETINV1K` the one without a password, for a peer whose public key is known. The vendor's format
is in compat.py; the prefix decides which one a text is. The contents are the same in all three (spec 2.6), plus keys of ours.
No token is made or checked here, and no clock is read: the caller that opens an invitation passes the time.

Source: docs/spec/federation.md 2.6, 3, 4.1.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Any, Final

from pet.crypto import (
    AEAD_NONCE_BYTES,
    PASSWORD_SALT_BYTES,
    EncryptionKeyPair,
    SigningKeyPair,
    decrypt_authenticated,
    derive_password_key,
    encrypt_authenticated,
    open_sealed,
    seal,
    verify,
)
from pet.errors import CryptoError, FederationValueError
from pet.federation.formats import compat
from pet.federation.formats.encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from pet.secret import Secret

PREFIX: Final = "PETINV1."
KEY_PREFIX: Final = "PETINV1K."
DEFAULT_LIFESPAN_SECONDS: Final = 2 * 3600
MAX_LIFESPAN_SECONDS: Final = 168 * 3600
#: Contents are about 2 KiB, more with a long contract or schema.
MAX_INVITATION_BYTES: Final = 64 * 1024
#: A stolen invitation is guessed at offline: 3 passes over 64 MiB make each guess cost 0.13 s.
MIN_PASSWORD_CHARACTERS: Final = 12

#: What each peer decides for itself: an invitation that has such a key is read without it, as its writer is somebody else.
LOCAL_KEYS: Final = frozenset(
    {"fed_peer_name", "fed_local_type", "fed_psr_contract_snd_fail_action", "fed_psr_contract_rcv_fail_action"}
)

_PASSES: Final = 3
_MEMORY_KIB: Final = 65536
#: What is accepted of a stranger: below the first number guessing is cheap, above the others opening could exhaust the reader.
_MEMORY_KIB_RANGE: Final = (19456, 1048576)
_PASSES_RANGE: Final = (1, 10)
_ID_BYTES: Final = 16
_FEDERATION_ID: Final = re.compile(r"[a-z0-9]{16}", re.ASCII)
_MAX_TIME: Final = 2**53
_GROUP_KEYS: Final = "group_"
_NOT_OPEN: Final = "the invitation does not open: wrong password or key, or it was changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationHeader:
    """The part of a native invitation that everybody can read; it is authenticated together with the contents.

    Attributes:
        issued_at: Unix seconds.
        expires_at: Unix seconds; for a good message to a reader who opens it late. The admin's token store is what enforces it.
        invitation_id: 16 bytes.
    """

    federation_id: str
    issued_at: int
    expires_at: int
    invitation_id: bytes

    @classmethod
    def new(
        cls, federation_id: str, now_seconds: float, lifespan_seconds: float = DEFAULT_LIFESPAN_SECONDS
    ) -> InvitationHeader:
        """Make a header for an invitation that is issued now."""
        return cls(
            federation_id=federation_id,
            issued_at=int(now_seconds),
            expires_at=int(now_seconds + lifespan_seconds),
            invitation_id=secrets.token_bytes(_ID_BYTES),
        )

    def fields(self) -> dict[str, Any]:
        """Return what all native formats have in their header."""
        return {
            "exp": self.expires_at,
            "fid": self.federation_id,
            "iat": self.issued_at,
            "jti": encode_base64url(self.invitation_id),
            "v": 1,
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> InvitationHeader:
        """Check and take over what `fields` gives; the fields of one format alone are the caller's.

        Raises:
            FederationValueError: a field is missing or breaks its rule.
        """
        federation_id, issued_at, expires_at = fields["fid"], fields["iat"], fields["exp"]
        if fields["v"] != 1 or not isinstance(federation_id, str) or not _FEDERATION_ID.fullmatch(federation_id):
            raise FederationValueError(_NOT_OPEN)
        return cls(
            federation_id=federation_id,
            issued_at=_integer(issued_at, 0, _MAX_TIME),
            expires_at=_integer(expires_at, 0, _MAX_TIME),
            invitation_id=_bytes(fields["jti"], _ID_BYTES),
        )


def seal_with_password(
    contents: dict[str, str],
    header: InvitationHeader,
    password: Secret,
    *,
    salt: bytes | None = None,
    nonce: bytes | None = None,
) -> str:
    """Make a `PETINV1` invitation. Takes 0.13 s, on purpose.

    Args:
        contents: see `InvitationContents` and codec.py.
        header: what everybody may read.
        password: at least 12 characters.
        salt: 16 bytes; drawn if not given. Only tests give it.
        nonce: 24 bytes; likewise.

    Raises:
        FederationValueError: the password is too short, or the invitation would be larger than 64 KiB.
    """
    if len(password.reveal()) < MIN_PASSWORD_CHARACTERS:
        raise FederationValueError(
            f"expected a password of at least {MIN_PASSWORD_CHARACTERS} characters, got {len(password.reveal())}", key="passwd"
        )
    salt = salt or secrets.token_bytes(PASSWORD_SALT_BYTES)
    nonce = nonce or secrets.token_bytes(AEAD_NONCE_BYTES)
    public = header.fields() | {
        "aead": "xchacha20poly1305",
        "kdf": "argon2id",
        "m": _MEMORY_KIB,
        "p": 1,
        "salt": encode_base64url(salt),
        "t": _PASSES,
    }
    start = PREFIX + encode_base64url(canonical_json(public).encode())
    key = derive_password_key(_password_bytes(password), salt, passes=_PASSES, memory_kib=_MEMORY_KIB)
    box = encrypt_authenticated(canonical_json(contents).encode(), start.encode(), nonce, key)
    return _bounded(f"{start}.{encode_base64url(nonce + box)}")


def open_with_password(text: str, password: Secret) -> tuple[InvitationHeader, dict[str, str]]:
    """Open a `PETINV1` invitation. Memory and time that the header asks for are bounded before anything is derived.

    Raises:
        FederationValueError: wrong password or a changed invitation (one text for both), or one that asks for too much.
    """
    start, _, sealed = _bounded(text.strip()).rpartition(".")
    header: InvitationHeader | None = None
    data: bytes | None
    try:
        fields = _header_fields(start, PREFIX, {"aead", "exp", "fid", "iat", "jti", "kdf", "m", "p", "salt", "t", "v"})
        header = InvitationHeader.from_fields(fields)
        if (fields["aead"], fields["kdf"], fields["p"]) != ("xchacha20poly1305", "argon2id", 1):
            raise FederationValueError(_NOT_OPEN)
        passes, memory_kib = _integer(fields["t"], *_PASSES_RANGE), _integer(fields["m"], *_MEMORY_KIB_RANGE)
        salt, box = _bytes(fields["salt"], PASSWORD_SALT_BYTES), decode_base64url(sealed)
        key = derive_password_key(_password_bytes(password), salt, passes=passes, memory_kib=memory_kib)
        data = decrypt_authenticated(box[AEAD_NONCE_BYTES:], start.encode(), box[:AEAD_NONCE_BYTES], key)
    except (CryptoError, ValueError):
        data = None
    # Raised outside of the handler, so that no cause is chained that says more.
    return _opened(header, data)


def seal_for_key(
    contents: dict[str, str], header: InvitationHeader, encryption_key: bytes, admin_signing_keys: SigningKeyPair
) -> str:
    """Make a `PETINV1K` invitation: only the holder of `encryption_key` (X25519, 32 bytes) can open it, the admin signs it.

    Raises:
        FederationValueError: the key cannot be sealed to, or the invitation would be larger than 64 KiB.
    """
    public = header.fields() | {"aead": "sealedbox", "kid": encode_base64url(encryption_key), "sign": "ed25519"}
    start = KEY_PREFIX + encode_base64url(canonical_json(public).encode())
    try:
        signed = f"{start}.{encode_base64url(seal(canonical_json(contents).encode(), encryption_key))}"
    except CryptoError as error:
        raise FederationValueError(f"expected the public key of a peer: {error}", key="peer_key") from None
    return _bounded(f"{signed}.{encode_base64url(admin_signing_keys.sign(signed.encode()))}")


def open_with_keys(text: str, keys: EncryptionKeyPair, admin_signing_key: bytes) -> tuple[InvitationHeader, dict[str, str]]:
    """Open a `PETINV1K` invitation; the signature is checked first, with a key that came some other way.

    Raises:
        FederationValueError: not signed by this admin, not for these keys, or changed; one text for all.
    """
    signed, _, signature = _bounded(text.strip()).rpartition(".")
    start, _, sealed = signed.rpartition(".")
    header: InvitationHeader | None = None
    data: bytes | None = None
    try:
        if verify(decode_base64url(signature), signed.encode(), admin_signing_key):
            fields = _header_fields(start, KEY_PREFIX, {"aead", "exp", "fid", "iat", "jti", "kid", "sign", "v"})
            header = InvitationHeader.from_fields(fields)
            if (fields["aead"], fields["sign"]) == ("sealedbox", "ed25519"):
                data = open_sealed(decode_base64url(sealed), keys)
    except (CryptoError, ValueError):
        data = None
    # Raised outside of the handler, so that no cause is chained that says more.
    return _opened(header, data)


def open_compatible(text: str, password: Secret) -> dict[str, str]:
    """Open an invitation in the vendor's format; the older names `group_*` become `fed_*`.

    Raises:
        FederationValueError: it does not open.
    """
    contents = _contents(compat.decrypt_invitation(_bounded(text), password.reveal()))
    return _of_the_admin(
        {
            f"fed_{name.removeprefix(_GROUP_KEYS)}" if name.startswith(_GROUP_KEYS) else name: value
            for name, value in contents.items()
        }
    )


def is_native(text: str) -> bool:
    """Return whether a text is, or wants to be, an invitation in one of our formats."""
    return text.lstrip().startswith((PREFIX, KEY_PREFIX))


def _password_bytes(password: Secret) -> bytes:
    # The same password typed on two systems may come in two Unicode forms.
    return unicodedata.normalize("NFKC", password.reveal()).encode(errors="surrogatepass")


def _header_fields(start: str, prefix: str, names: set[str]) -> dict[str, Any]:
    """Return the header before it is authenticated: exactly these names, in canonical form."""
    if not start.startswith(prefix):
        raise FederationValueError(_NOT_OPEN)
    data = decode_base64url(start.removeprefix(prefix))
    fields = parse_json_object(data)
    if fields is None or fields.keys() != names or canonical_json(fields).encode() != data:
        raise FederationValueError(_NOT_OPEN)
    return fields


def _opened(header: InvitationHeader | None, data: bytes | None) -> tuple[InvitationHeader, dict[str, str]]:
    if header is None or data is None:
        raise FederationValueError(_NOT_OPEN, key="passwd")
    return header, _of_the_admin(_contents(data))


def _contents(data: bytes) -> dict[str, str]:
    contents = parse_json_object(data)
    if contents is None or not all(isinstance(value, str) for value in contents.values()):
        raise FederationValueError(_NOT_OPEN, key="passwd")
    return contents


def _of_the_admin(contents: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in contents.items() if name not in LOCAL_KEYS}


def _integer(value: object, smallest: int, largest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
        raise FederationValueError(_NOT_OPEN)
    return value


def _bytes(value: object, size: int) -> bytes:
    data = decode_base64url(value) if isinstance(value, str) else b""
    if len(data) != size:
        raise FederationValueError(_NOT_OPEN)
    return data


def _bounded(text: str) -> str:
    if len(text) > MAX_INVITATION_BYTES:
        raise FederationValueError(f"expected an invitation of at most {MAX_INVITATION_BYTES} characters, got {len(text)}")
    return text
