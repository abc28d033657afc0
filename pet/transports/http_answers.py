"""What answers of HTTP servers mean: whether they keep to the protocol, how large they may be, and which error stands for what.

Pure functions over httpx's answers and exceptions, shared by the blocking and the asyncio client.
"""

from __future__ import annotations

import email.utils
import ssl
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Final

from pet.errors import (
    AnswerTooLargeError,
    BackPressureError,
    CertificateError,
    MessageTooLargeError,
    TransportConfigError,
    TransportError,
    TransportRefusedError,
    UnknownProfileError,
)
from pet.model_formats import BINCODE
from pet.transports.pinned import AnswerCheck
from pet.transports.signed_answers import SIGNATURE_HEADER
from pet.urls import shown_error

if TYPE_CHECKING:
    import httpx

#: What paths of pet/1 begin with.
PET1_PREFIX: Final = "/pet/v1/"
#: However long a server asks to wait, it is asked again after this time.
MAX_RETRY_AFTER_SECONDS: Final = 300.0
#: Statuses below 500 after which the same request may succeed.
_TEMPORARY_STATUSES: Final = frozenset({408, 425, 429})
#: What OpenSSL finds where TLS should be and something else is.
_PLAINTEXT_REASONS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"})


def library_errors(library: ModuleType) -> tuple[type[Exception], ...]:
    """Return what httpx raises for requests that fail, and what gets past it."""
    # OSError: a TLS alert that arrives after the handshake gets past httpx's asyncio half as a bare ssl.SSLError.
    # UnicodeError: a host name that cannot be looked up.
    return (library.HTTPError, library.InvalidURL, library.StreamError, OSError, UnicodeError)


def require_expected(method: str, target: str, response: httpx.Response, limit: int) -> None:
    """Check status and headers, before anything of the body is read.

    Raises:
        TransportError: they lie outside the protocol, or announce more bytes than expected.
        UnknownProfileError: the coordinator has no routes of pet/1.
    """
    status = response.status_code
    if target.startswith(PET1_PREFIX) and status == 404:
        raise UnknownProfileError(f"{method} {target}: expected a coordinator that speaks pet/1, got status 404")
    if (method == "GET" or target.startswith(PET1_PREFIX)) and status not in {200, 204}:
        raise _status_error(f"{method} {target}: expected status 200 or 204, got {status}", response)
    if status >= 400:
        raise _status_error(f"{method} {target}: expected a status below 400, got {status}", response)
    require_size(method, target, announced_bytes(response) or 0, limit)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise TransportError(f"{method} {target}: expected no content encoding, got {encoding}")


def announced_bytes(response: httpx.Response) -> int | None:
    """Return how many bytes an answer says that it has; None if it does not say."""
    announced = response.headers.get("Content-Length", "")
    return int(announced) if announced.isdecimal() else None


def _status_error(text: str, response: httpx.Response) -> TransportError:
    """Return the error for a status outside the protocol: whether the same request may succeed later is in its class."""
    status = response.status_code
    if status >= 500 or status in _TEMPORARY_STATUSES:
        return BackPressureError(text, _retry_after_seconds(response.headers.get("Retry-After", "")))
    if status == 413 and response.request.method == "POST":
        size = response.request.headers["Content-Length"]
        return MessageTooLargeError(
            f"{text}: the coordinator, or a proxy in front of it, takes no message of {size} bytes; raise the limit of the"
            " proxy (nginx: client_max_body_size) or let participants send smaller ones (max_message_size)",
            status,
        )
    return TransportRefusedError(text, status) if status >= 300 else TransportError(text)


def _retry_after_seconds(text: str) -> float | None:
    """Read a Retry-After header: seconds or a date; None if it is neither. The result is bounded."""
    if text.isascii() and text.isdecimal():
        return float(min(int(text[:9]), MAX_RETRY_AFTER_SECONDS))
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    seconds = (when - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)


def as_transport_error(base: str, error: Exception) -> TransportError:
    """Return our error for one of httpx, or below it; the class says whether it can go away by itself."""
    text = f"{base}: expected an answer, got {shown_error(error)}"
    reason = _tls_reason(error)
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return CertificateError(f"{text}; check the certificates of both sides")
    # What h11 says of bytes that are no HTTP begins so; of a connection that ends early it speaks differently.
    if reason in _PLAINTEXT_REASONS or str(error).startswith("illegal"):
        return TransportConfigError(f"{text}; something else than http, or http where https was expected, answers there")
    return TransportError(text)


def _tls_reason(error: BaseException | None) -> str:
    """Return OpenSSL's name for what failed, from the error or what caused it; empty if TLS did not."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error.reason or ""
        error = error.__cause__ or error.__context__
    return ""


def require_size(method: str, target: str, size: int, limit: int) -> None:
    """Check how many bytes an answer has, or announces.

    Raises:
        AnswerTooLargeError: more than the limit.
    """
    if size > limit:
        raise AnswerTooLargeError(f"{method} {target}: expected at most {limit} bytes, got {size}")


def require_parameters(answer: tuple[str, bytes] | None) -> bytes:
    """Return the body of an answer to /params.

    Raises:
        TransportError: there is none.
    """
    if answer is None:
        raise TransportError("GET /params: expected status 200, got 204")
    return answer[1]


def require_signed(check: AnswerCheck | None, target: str, response: httpx.Response) -> None:
    """Finish the check of an answer's signature, if there is one; the media type counts where it decides how a body is read.

    Raises:
        CoordinatorKeyError, OtherRoundError: as `AnswerCheck.finish`.
    """
    if check is not None:
        has_body = response.status_code != 204
        read_as = media_type(response) if has_body and target == "/model" else ""
        check.finish(response.headers.get(SIGNATURE_HEADER), read_as, has_body=has_body)


def media_type(response: httpx.Response) -> str:
    """Return the media type of an answer in lower case, without its parameters; bincode where none is named."""
    declared: str = response.headers.get("Content-Type", BINCODE)
    return declared.partition(";")[0].strip().lower()
