"""The formats as the vendor publishes them: request signature, body encryption, invitations. Weak, and off by default.

AES-128-CBC with one fixed initial vector, AES-128-ECB under a padded password, no authentication:
docs/spec/federation.md 4 says what that costs. A listener accepts them only where it is set up to.
Nothing else in pet knows AES.

Source: docs/spec/federation.md 2.2, 2.3, 3.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pet.errors import FederationValueError, MissingExtraError
from pet.federation.formats.encoding import decode_base64, encode_base64, parse_json_object

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

    _Cipher = Cipher[CBC] | Cipher[ECB]

SECRET_KEY_BYTES: Final = 16
_FIXED_IV: Final = bytes.fromhex("2f3339414b576575879bb1c9e3001e3e")
_BLOCK_BYTES: Final = 16
_PASSWORD_FILLER: Final = b"0"
_DATE: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2})(?:;[0-9]{1,9})?", re.ASCII)
_REDACTED_KEY: Final = "SECRETKEY"


def content_md5(body: bytes) -> str:
    """Return the Content-MD5 of a body: empty without one."""
    return encode_base64(hashlib.md5(body, usedforsecurity=False).digest()) if body else ""


def string_to_sign(
    *, method: str, secret_key: str, date: str, customer_id: str, body: bytes, path: str, query: str, md5: str | None = None
) -> str:
    """Return the text that is signed (spec 2.2).

    Args:
        method: upper case.
        customer_id: the user.
        body: exactly the bytes that are sent: of an encrypted body the base64 text.
        secret_key: base64 text; it really is part of what is signed.
        date: the `sym-date` header as it was sent.
        path: without scheme, host and query, as requested.
        query: exactly as sent, without "?"; empty if there is none.
        md5: what to write in its line; computed from the body if not given.
    """
    parts = [method, content_md5(body) if md5 is None else md5, secret_key, date, customer_id]
    # A body that is no text cannot be one of ours; it must still not end in an exception before the signature is refused.
    parts += [part for part in (body.decode(errors="surrogateescape"), path, query) if part]
    return "".join(f"{part}\n" for part in parts)


def redacted_string_to_sign(text: str, secret_key: str) -> str:
    """Return the text as it is echoed on 401: the key replaced, each newline as the two characters of its escape."""
    return text.replace(f"\n{secret_key}\n", f"\n{_REDACTED_KEY}\n", 1).replace("\n", "\\n")


def sign(text: str, secret_key: str) -> str:
    """Return the Authorization header for a string to sign."""
    return encode_base64(hmac.digest(decode_base64(secret_key), text.encode(errors="surrogateescape"), "sha256"))


def parse_date(text: str) -> float | None:
    """Return the Unix time of a `sym-date` header, whole seconds; None if it is malformed."""
    if (found := _DATE.fullmatch(text)) is None:
        return None
    try:
        return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def format_date(unix_seconds: float) -> str:
    """Return a `sym-date` header."""
    return datetime.fromtimestamp(int(unix_seconds), UTC).strftime("%Y-%m-%d %H:%M:%S") + ";0"


def encrypt_body(data: bytes, secret_key: str) -> str:
    """Encrypt a body, or an answer, under a user's secret key (spec 2.3)."""
    return encode_base64(_encrypt(_cbc(decode_base64(secret_key)), data))


def decrypt_body(text: bytes, secret_key: str) -> bytes:
    """Decrypt a body; trailing white space is no part of it.

    Raises:
        FederationValueError: it does not decrypt; the text is the same whatever the reason.
    """
    try:
        data = _decrypt(_cbc(decode_base64(secret_key)), decode_base64(text.decode().rstrip()))
    except ValueError:
        data = None
    if data is None:
        raise FederationValueError("Bad Request Body")
    return data


def encrypt_invitation(data: bytes, password: str) -> str:
    """Encrypt an invitation under a password of at most 16 bytes (spec 3).

    Raises:
        FederationValueError: the password is empty or longer.
    """
    return encode_base64(_encrypt(_ecb(_password_key(password)), data))


def decrypt_invitation(text: str, password: str) -> bytes:
    """Decrypt an invitation: as documented, or else as a body is encrypted, which current versions may do (spec 3).

    Raises:
        FederationValueError: neither gives a JSON object.
    """
    key = _password_key(password)
    try:
        box = decode_base64(text.strip())
    except ValueError:
        box = b""
    for cipher in (_ecb(key), _cbc(key)):
        data = _decrypt(cipher, box)
        if data is not None and parse_json_object(data) is not None:
            return data
    raise FederationValueError("the invitation does not open: wrong password, or it was changed", key="passwd")


def _password_key(password: str) -> bytes:
    data = password.encode(errors="surrogatepass")  # what is no Unicode is a password that nothing was encrypted with
    if not 1 <= len(data) <= SECRET_KEY_BYTES:
        # What the vendor does with longer ones is unknown; guessing would give invitations that nobody can read.
        raise FederationValueError(f"expected a password of 1 to 16 bytes, got {len(data)}", key="passwd")
    return data.ljust(SECRET_KEY_BYTES, _PASSWORD_FILLER)


def _cbc(key: bytes) -> _Cipher:
    with MissingExtraError.naming("federation"):
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    return Cipher(algorithms.AES(key), modes.CBC(_FIXED_IV))


def _ecb(key: bytes) -> _Cipher:
    with MissingExtraError.naming("federation"):
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305  the documented format is what it is


def _encrypt(cipher: _Cipher, data: bytes) -> bytes:
    filler = _BLOCK_BYTES - len(data) % _BLOCK_BYTES
    encryptor = cipher.encryptor()
    return encryptor.update(data + bytes([filler]) * filler) + encryptor.finalize()


def _decrypt(cipher: _Cipher, box: bytes) -> bytes | None:
    """Return the plain text, or None if length or padding are wrong."""
    if not box or len(box) % _BLOCK_BYTES:
        return None
    decryptor = cipher.decryptor()
    data = decryptor.update(box) + decryptor.finalize()
    filler = data[-1]
    if not 1 <= filler <= _BLOCK_BYTES or data[-filler:] != bytes([filler]) * filler:
        return None
    return data[:-filler]
