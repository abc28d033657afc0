"""Who sent a request: the native signature, and the vendor's where the listener accepts it.

The order of the checks, their texts and codes are the specification's. Nothing is decrypted or parsed before the signature is
right; nothing secret is in an answer, except that compatibility mode echoes the string to sign with the key taken out, because
its clients print it.

Source: docs/spec/federation.md 2.2, 4.2.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from pet.errors import RequestRefusedError
from pet.federation.formats import compat, secure
from pet.federation.formats.encoding import decode_base64, encode_base64, parse_json_object
from pet.federation.formats.replay_guard import is_recent
from pet.federation.formats.secure import SignedParts
from pet.federation.formats.users import UserDirectory
from pet.federation.records import Mode
from pet.federation.server.answers import refuse
from pet.federation.server.replay_log import ReplayLog
from pet.secret import Secret

#: Of one user: 230 requests per second for the whole window.
_MAX_NONCES: Final = 100_000
_CLOCK_TEXT: Final = "Please update your server time, it is likely out of sync with UTC"
#: An unknown user costs as much time as a wrong signature.
_DUMMY_KEY: Final = Secret(encode_base64(bytes(compat.SECRET_KEY_BYTES)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """What of a request matters for its signature.

    Attributes:
        headers: by lower-case name.
        path: as sent, still percent-encoded.
        query: as sent, without "?".
        body_digest: SHA-256 of a body that was announced and has not been read yet; None where `body` is there.
    """

    method: str
    headers: Mapping[str, str]
    path: str
    query: str
    body: bytes = field(default=b"", repr=False)
    body_digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A user who proved to be one, and how bodies and answers of this request are encrypted.

    Attributes:
        context: what native encryption binds to.
    """

    customer_id: str
    mode: Mode
    secret_key: Secret
    context: bytes

    def decrypt_body(self, body: bytes) -> bytes:
        """Return the plain text of a body; a native one may be plain.

        Raises:
            FederationValueError: it does not decrypt.
        """
        if self.mode is Mode.COMPAT:
            return compat.decrypt_body(body, self.secret_key.reveal())
        envelope = parse_json_object(body)
        if envelope is not None and secure.is_encrypted_body(envelope):
            return secure.decrypt_body(envelope, self._key(), self.context)
        return body

    def encrypt_answer(self, data: bytes) -> str:
        """Encrypt an entity for this user."""
        if self.mode is Mode.COMPAT:
            return compat.encrypt_body(data, self.secret_key.reveal())
        return secure.encrypt_body(data, self._key(), self.context).decode()

    def _key(self) -> bytes:
        return decode_base64(self.secret_key.reveal())


class Authenticator:
    """Checks signatures and remembers nonces.

    Args:
        users: who may call, and their keys.
        allows_compat: whether the vendor's signature counts too, which has no nonce.
        clock: Unix seconds.
        replays: what keeps nonces over a restart; None keeps them in memory.
    """

    def __init__(
        self,
        users: UserDirectory,
        *,
        allows_compat: bool = False,
        clock: Callable[[], float] = time.time,
        replays: ReplayLog | None = None,
    ) -> None:
        self._users: Final = users
        self._allows_compat: Final = allows_compat
        self._clock: Final = clock
        self._nonces: Final = (replays or ReplayLog(None, clock)).guard("rest", _MAX_NONCES)

    def authenticate(self, request: SignedRequest) -> Caller:
        """Return who sent a request.

        Raises:
            RequestRefusedError: with the answer of spec 2.2.
        """
        mode = self.mode_of(request.headers)
        authenticate = self._authenticate_native if mode is Mode.NATIVE else self._authenticate_compat
        return authenticate(request, request.headers["authorization"])

    def mode_of(self, headers: Mapping[str, str]) -> Mode:
        """Return in which way a request says that it is signed.

        Raises:
            RequestRefusedError: it is not signed, or not in a way that is accepted here.
        """
        header = headers.get("authorization")
        if not header:
            raise refuse(HTTPStatus.BAD_REQUEST, "Authentication header is null")
        if header.startswith(secure.SCHEME):
            return Mode.NATIVE
        if not self._allows_compat:
            raise refuse(HTTPStatus.UNAUTHORIZED, f"Expected a signature of the form {secure.SCHEME}")
        return Mode.COMPAT

    def _authenticate_native(self, request: SignedRequest, header: str) -> Caller:
        found = secure.parse_authorization(header)
        if found is None:
            raise refuse(HTTPStatus.UNAUTHORIZED, "Invalid Signature")
        self._check_time(found.timestamp)
        known = self._users.secret_key(found.customer_id)
        secret_key = known or _DUMMY_KEY
        parts = SignedParts(
            method=request.method,
            host=request.headers.get("host", ""),
            path=request.path,
            query=request.query,
            body=request.body,
            body_digest=request.body_digest,
            timestamp=found.timestamp,
            nonce=found.nonce,
            customer_id=found.customer_id,
        )
        is_right = hmac.compare_digest(parts.signature(decode_base64(secret_key.reveal())), found.signature)
        if not is_right or known is None:
            raise refuse(HTTPStatus.UNAUTHORIZED, "Invalid Signature")
        if not self._nonces.remember(found.customer_id, found.nonce, self._clock()):
            raise refuse(HTTPStatus.UNAUTHORIZED, "Invalid Signature")
        return Caller(customer_id=found.customer_id, mode=Mode.NATIVE, secret_key=known, context=parts.body_context())

    def _authenticate_compat(self, request: SignedRequest, header: str) -> Caller:
        date = request.headers.get("sym-date")
        if not date:
            raise refuse(HTTPStatus.BAD_REQUEST, "sym-date header is null")
        timestamp = compat.parse_date(date)
        if timestamp is None:
            raise refuse(HTTPStatus.BAD_REQUEST, "Invalid Date Format")
        self._check_time(timestamp)
        customer_id = customer_of(request.path)
        known = self._users.secret_key(customer_id)
        secret_key = (known or _DUMMY_KEY).reveal()
        sent_md5 = request.headers.get("content-md5", "")
        if (
            known is not None
            and sent_md5
            and not hmac.compare_digest(sent_md5.encode(), compat.content_md5(request.body).encode())
        ):
            raise refuse(HTTPStatus.BAD_REQUEST, "Md5 do not match")
        # Without the header most clients sign the digest all the same, some an empty line; the body is signed anyhow.
        texts = [
            compat.string_to_sign(
                method=request.method,
                secret_key=secret_key,
                date=date,
                customer_id=customer_id,
                body=request.body,
                path=request.path,
                query=request.query,
                md5=md5,
            )
            for md5 in ([None] if sent_md5 else [None, ""])
        ]
        right = [hmac.compare_digest(compat.sign(text, secret_key).encode(), header.encode()) for text in texts]
        if known is None or not any(right):
            raise _echo("Invalid User" if known is None else "Invalid Signature", texts[0], secret_key)
        return Caller(customer_id=customer_id, mode=Mode.COMPAT, secret_key=known, context=b"")

    def _check_time(self, timestamp: float) -> None:
        if not is_recent(self._clock() - timestamp):
            raise refuse(HTTPStatus.BAD_REQUEST, _CLOCK_TEXT)


def customer_of(path: str) -> str:
    """Return the `{cid}` of a path, empty if there is none."""
    parts = path.split("/rest/", 1)
    return parts[1].split("/", 1)[0] if len(parts) == 2 else ""


def _echo(text: str, string_to_sign: str, secret_key: str) -> RequestRefusedError:
    echoed = compat.redacted_string_to_sign(string_to_sign, secret_key)
    return refuse(HTTPStatus.UNAUTHORIZED, text, stringToSign=echoed.encode(errors="replace").decode())
