"""Signed requests of a client, and what their answers say. Knows no path and no entity.

Source: docs/spec/federation.md 2.1 - 2.3, 4.2.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pet.errors import ConfigError, FederationRefusedError, FederationUnavailableError, FederationValueError, MissingExtraError
from pet.federation.formats import compat, secure
from pet.federation.formats.encoding import decode_base64, parse_json_object
from pet.federation.formats.secure import SignedParts
from pet.federation.formats.users import NAME
from pet.federation.records import Mode
from pet.numbers import checked_number
from pet.secret import Secret
from pet.transports.http_options import MAX_TIMEOUT_SECONDS, normalise_url
from pet.transports.proxies import is_loopback
from pet.transports.tls import trusting
from pet.urls import shown_error, shown_url, split_credentials

#: Between two tries to reach a server that does not listen yet.
_FIRST_WAIT_SECONDS: Final = 0.05
_MAX_WAIT_SECONDS: Final = 1.0


class SignedRequests:
    """The connection of one user to one server.

    Attributes:
        url: of the server.
        customer_id: the user.
    """

    def __init__(
        self,
        url: str,
        customer_id: str,
        secret_key: Secret,
        *,
        mode: Mode,
        authority: Path | None,
        timeout_seconds: float,
        start_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        """Make it; nothing is sent yet.

        Raises:
            FederationValueError: the URL or the key cannot be used.
        """
        with MissingExtraError.naming("federation"):
            import httpx
        try:
            base, credentials = split_credentials(normalise_url(url, "url"))
            timeout = checked_number(timeout_seconds, "timeout_seconds", above=0, most=MAX_TIMEOUT_SECONDS)
            start = checked_number(start_seconds, "start_seconds", least=0, most=MAX_TIMEOUT_SECONDS)
            context = trusting(authority) if base.startswith("https:") else False
            parts = httpx.URL(base)
        except ConfigError as error:
            raise FederationValueError(str(error), key="url") from None
        except (httpx.InvalidURL, UnicodeError):
            raise FederationValueError(f"url: expected http(s)://host[:port], got {shown_url(url)!r}", key="url") from None
        if credentials is not None:
            raise FederationValueError(
                f"url: expected http(s)://host[:port] without a user in it, got one in front of {base}", key="url"
            )
        if parts.scheme == "http" and not is_loopback(parts.host):
            raise FederationValueError(
                f"url: expected https for a server on another machine, got http://{parts.host}", key="url"
            )
        if not NAME.fullmatch(customer_id):
            raise FederationValueError("customer_id: expected 1 to 64 letters, digits, '_', '.', '-'", key="customer_id")
        self.url: Final = base
        self.customer_id: Final = customer_id
        self._secret_key: Final = secret_key
        self._key_bytes: Final = decode_base64(secret_key.reveal())
        self._mode: Final = mode
        self._start_seconds: Final = start
        self._clock: Final = clock
        # A proxy of the environment would see requests that are meant for this machine.
        self._http: Final = httpx.Client(base_url=base, timeout=timeout, verify=context, trust_env=False)

    def close(self) -> None:
        """Give back connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        encrypts: bool = False,
        decrypts: str | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Send a request and return the entities of its answer.

        Args:
            method: upper case.
            path: after `/symetry/rest/{cid}/`.
            query: not encoded.
            body: plain; of encrypted ones the plain text.
            encrypts: whether the body is sent encrypted under the user's key.
            decrypts: an entity of the answer that is encrypted under the user's key.
            content_type: of the body.

        Raises:
            FederationValueError: a name or text in path or query cannot be sent.
            FederationRefusedError: the server refuses; with its status and text.
            FederationUnavailableError: no answer, or not one of a federation server.
        """
        import httpx

        try:
            request = self._http.build_request(method, f"/symetry/rest/{self.customer_id}/{path}", params=query)
        except (httpx.InvalidURL, UnicodeError):
            raise FederationValueError("path: expected names of printable characters, got others") from None
        headers, body, context = self._signed(request, body, encrypts=encrypts)
        if body:
            headers["content-type"] = content_type
        request = httpx.Request(
            method, request.url, headers={**request.headers, **headers, "content-length": str(len(body))}, content=body
        )
        try:
            answer = self._send(request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise FederationUnavailableError(f"{self.url}: expected an answer, got {shown_error(error)}") from None
        values = _values(answer.status_code, answer.content)
        if decrypts is not None:
            values[decrypts] = self._decrypt(values.get(decrypts), context)
        return values

    def _send(self, request: Any) -> Any:
        """Send a request; a server that does not listen yet is waited for, as long as `start_seconds` from the first try."""
        import httpx

        deadline, wait = time.monotonic() + self._start_seconds, _FIRST_WAIT_SECONDS
        while True:
            try:
                return self._http.send(request)
            except httpx.ConnectError as error:
                # Nothing was sent, so the same request may be sent again.
                if not _is_refused(error) or time.monotonic() + wait >= deadline:
                    raise
                time.sleep(wait)
                wait = min(2 * wait, _MAX_WAIT_SECONDS)

    def _signed(self, request: Any, body: bytes, *, encrypts: bool) -> tuple[dict[str, str], bytes, bytes]:
        """Return headers, the body as it is sent, and what answers are bound to."""
        path, _, query = request.url.raw_path.decode().partition("?")
        if self._mode is Mode.COMPAT:
            sent = compat.encrypt_body(body, self._secret_key.reveal()).encode() if encrypts else body
            date, md5 = compat.format_date(self._clock()), compat.content_md5(sent)
            text = compat.string_to_sign(
                method=request.method,
                secret_key=self._secret_key.reveal(),
                date=date,
                customer_id=self.customer_id,
                body=sent,
                path=path,
                query=query,
            )
            signature = compat.sign(text, self._secret_key.reveal())
            return {"authorization": signature, "sym-date": date, "content-md5": md5, "sym-version": "6.3"}, sent, b""
        parts = SignedParts(
            method=request.method,
            host=request.headers["host"],
            path=path,
            query=query,
            timestamp=int(self._clock()),
            nonce=secure.new_nonce(),
            customer_id=self.customer_id,
        )
        sent = secure.encrypt_body(body, self._key_bytes, parts.body_context()) if encrypts else body
        parts = parts.with_body(sent)
        headers = {"authorization": parts.authorization(self._key_bytes)}
        if len(sent) > secure.MAX_UNANNOUNCED_BYTES:
            headers[secure.DIGEST_HEADER] = secure.digest_body(sent)
        return headers, sent, parts.body_context()

    def _decrypt(self, text: object, context: bytes) -> bytes:
        if not isinstance(text, str):
            raise FederationUnavailableError(f"{self.url}: expected an encrypted entity in the answer, got none")
        if self._mode is Mode.COMPAT:
            return compat.decrypt_body(text.encode(), self._secret_key.reveal())
        return secure.decrypt_body(parse_json_object(text), self._key_bytes, context)


def _is_refused(error: BaseException | None) -> bool:
    """Return whether nobody listens at the address; a certificate or a name that is wrong stays so."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def _values(status: int, content: bytes) -> dict[str, Any]:
    """Return the entities of an envelope.

    Raises:
        FederationRefusedError: the status is not one of success.
        FederationUnavailableError: there is no envelope.
    """
    envelope = parse_json_object(content) or {}
    text, values = envelope.get("statusString"), envelope.get("values")
    if not isinstance(text, str) or not isinstance(values, dict):
        raise FederationUnavailableError(
            f"expected the envelope of a federation server, got {len(content)} bytes, status {status}"
        )
    if not 200 <= status < 300:
        raise FederationRefusedError(status, text)
    return values
