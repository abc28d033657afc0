"""The HTTP client: the calls of a transport as requests to the routes of docs/spec/pet.md 5.1, on top of httpx.

httpx is loaded when the first transport is made, so that `import pet` stays quick and needs no extra. Requests and the
judgement of answers are pure functions here, shared by the blocking and the asyncio client; neither knows a phase, and what an
answer says is not read.

Answers are bounded before they are read, and never decompressed: a few bytes could otherwise become any number.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import os
import socket
import ssl
import threading
import urllib.parse
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from pet.buffers import Buffer
from pet.errors import (
    AnswerTooLargeError,
    BackPressureError,
    CertificateError,
    ConfigError,
    MessageTooLargeError,
    MissingExtraError,
    TransportConfigError,
    TransportError,
    TransportRefusedError,
)
from pet.model_formats import BINCODE, NPY
from pet.numbers import checked_number
from pet.secret import Secret
from pet.transports.proxies import proxy_for
from pet.transports.status import MAX_STATUS_BYTES, parse_status
from pet.transports.tls import add_identity, trusting
from pet.urls import shown_error, shown_url, split_credentials

if TYPE_CHECKING:
    import httpx

#: xaynet waits forever. A coordinator answers a message only when it is processed, which for the largest takes seconds.
DEFAULT_TIMEOUT_SECONDS: Final = 60.0
#: Longer waits do not fit the time of a system call everywhere.
MAX_TIMEOUT_SECONDS: Final = 1e6
#: A megaweight model in xaynet's widest fractions, or the seeds of eight million updates: beyond that, ask for it.
DEFAULT_MAX_ANSWER_BYTES: Final = 1 << 30
#: The record has 136 bytes; room for an error page of a proxy is not needed, since its status is refused first.
_MAX_PARAMETERS_BYTES: Final = 4096
#: Per write of a body: large enough for the system calls, small enough not to double memory.
_PIECE_BYTES: Final = 1 << 18
#: More than a million sum participants; a participant makes an update for no more of them.
_MAX_SUMS_BYTES: Final = 1 << 27
#: However long a server asks to wait, it is asked again after this time.
MAX_RETRY_AFTER_SECONDS: Final = 300.0
#: Statuses below 500 after which the same request may succeed.
_TEMPORARY_STATUSES: Final = frozenset({408, 425, 429})

#: What a coordinator says to a message is empty; a proxy may say more.
_MAX_RECEIPT_BYTES: Final = 1 << 16
#: Exact fractions cost many times the bytes of the array they are made into. xaynet does not look at the header.
_MODEL_ACCEPT: Final = f"{NPY}, {BINCODE};q=0.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """Whom to trust over https, and as whom to appear.

    Attributes:
        trusted_certificate: PEM file of the only authority to trust; None trusts the public ones.
        client_identity: PEM file with the client's certificate chain and its private key; None sends none.
    """

    trusted_certificate: Path | None = None
    client_identity: Path | None = None

    def to_context(self) -> ssl.SSLContext | None:
        """Load the files; None means httpx's default. SSL_CERT_FILE and SSL_CERT_DIR replace the public authorities.

        Raises:
            ConfigError: a file cannot be read or holds something else.
        """
        is_default = self.trusted_certificate is None and self.client_identity is None
        if is_default and not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
            return None
        context = trusting(self.trusted_certificate)
        if self.client_identity is not None:
            add_identity(context, self.client_identity)
        return context


class HttpTransport:
    """`Transport` over HTTP(S). Connections are kept and reused; calls may come from several threads at once."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        tls: TlsOptions | None = None,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
    ) -> None:
        """Prepare to talk to a coordinator; nothing is sent yet.

        Args:
            url: of the coordinator, as http://host:port or with a path in front of the routes.
            timeout_seconds: of connecting, and of each read and write.
            tls: certificates, for https.
            max_answer_bytes: larger answers are refused.

        Raises:
            ConfigError: the URL or a certificate cannot be used.
            MissingExtraError: httpx is not installed.
        """
        self._base, credentials = split_credentials(normalise_url(url))
        self._max_answer_bytes = max_answer_bytes
        self._httpx = _load_httpx()
        options = client_options(self._httpx, self._base, timeout_seconds, tls, credentials)
        self._connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._connections_lock = threading.Lock()
        self._client: httpx.Client = self._httpx.Client(**options)

    def get_parameters(self) -> bytes:
        """Return the encoded round parameters."""
        answer = self._get("/params", max_bytes=_MAX_PARAMETERS_BYTES)
        return _require_parameters(answer)

    def get_sums(self) -> bytes | None:
        """Return the encoded sum dictionary, or None while there is none."""
        answer = self._get("/sums", max_bytes=_MAX_SUMS_BYTES)
        return answer[1] if answer else None

    def get_seeds(self, public_key: bytes) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant, or None while there is none for it."""
        answer = self._get(_seeds_target(public_key))
        return answer[1] if answer else None

    def get_model(self, max_bytes: int | None = None) -> tuple[str, bytes] | None:
        """Return media type and bytes of the last global model, or None while there is none; .npy is preferred."""
        return self._get("/model", accept=_MODEL_ACCEPT, max_bytes=max_bytes)

    def get_status(self) -> dict[str, Any]:
        """Return the record of `GET /status`, as the coordinator sent it: nothing in it is checked."""
        answer = self._get("/status", max_bytes=MAX_STATUS_BYTES)
        return parse_status(answer[1] if answer else b"")

    def send_message(self, body: Buffer) -> None:
        """Deliver one sealed message; any status that is no error means that it arrived."""
        headers = {"Content-Length": str(len(body))}
        self._exchange("POST", "/message", _MAX_RECEIPT_BYTES, headers, _pieces(body))

    def end_requests(self) -> None:
        """End what is under way on open connections with a TransportError, from any thread; nothing may be asked afterwards."""
        with self._connections_lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                # The plain method: that of a TLS socket would take the session from under a thread that reads.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _get(self, target: str, *, accept: str = "*/*", max_bytes: int | None = None) -> tuple[str, bytes] | None:
        limit = self._max_answer_bytes if max_bytes is None else min(max_bytes, self._max_answer_bytes)
        return self._exchange("GET", target, limit, {"Accept": accept})

    def _exchange(
        self, method: str, target: str, limit: int, headers: dict[str, str], content: Iterator[bytes] | None = None
    ) -> tuple[str, bytes] | None:
        try:
            extensions = {"trace": self._note_connection}
            with self._client.stream(
                method, self._base + target, headers=headers, content=content, extensions=extensions
            ) as response:
                _require_expected(method, target, response, limit)
                collected = bytearray()
                # Read even if nothing should come: a connection with an unread answer cannot be used again.
                for piece in response.iter_raw():
                    collected += piece
                    _require_size(method, target, len(collected), limit)
                return None if response.status_code == 204 else (_media_type(response), bytes(collected))
        except TransportError:
            raise
        except _library_errors(self._httpx) as error:
            raise _as_transport_error(self._base, error) from error

    def _note_connection(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the sockets of new connections, for `end_requests`; httpx calls this at every step of a request."""
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete", "proxy.start_tls.complete"}:
            with self._connections_lock:
                self._connections.add(info["return_value"].get_extra_info("socket"))


class AsyncHttpTransport:
    """`AsyncTransport` over HTTP(S), for one event loop. Connections are kept and reused."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        tls: TlsOptions | None = None,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
    ) -> None:
        """Prepare to talk to a coordinator; see `HttpTransport`."""
        self._base, credentials = split_credentials(normalise_url(url))
        self._max_answer_bytes = max_answer_bytes
        self._httpx = _load_httpx()
        options = client_options(self._httpx, self._base, timeout_seconds, tls, credentials)
        self._client: httpx.AsyncClient = self._httpx.AsyncClient(**options)

    async def get_parameters(self) -> bytes:
        """Return the encoded round parameters."""
        answer = await self._get("/params", max_bytes=_MAX_PARAMETERS_BYTES)
        return _require_parameters(answer)

    async def get_sums(self) -> bytes | None:
        """Return the encoded sum dictionary, or None while there is none."""
        answer = await self._get("/sums", max_bytes=_MAX_SUMS_BYTES)
        return answer[1] if answer else None

    async def get_seeds(self, public_key: bytes) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant, or None while there is none for it."""
        answer = await self._get(_seeds_target(public_key))
        return answer[1] if answer else None

    async def get_model(self, max_bytes: int | None = None) -> tuple[str, bytes] | None:
        """Return media type and bytes of the last global model, or None while there is none; .npy is preferred."""
        return await self._get("/model", accept=_MODEL_ACCEPT, max_bytes=max_bytes)

    async def send_message(self, body: Buffer) -> None:
        """Deliver one sealed message; any status that is no error means that it arrived."""
        headers = {"Content-Length": str(len(body))}
        await self._exchange("POST", "/message", _MAX_RECEIPT_BYTES, headers, _async_pieces(body))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _get(self, target: str, *, accept: str = "*/*", max_bytes: int | None = None) -> tuple[str, bytes] | None:
        limit = self._max_answer_bytes if max_bytes is None else min(max_bytes, self._max_answer_bytes)
        return await self._exchange("GET", target, limit, {"Accept": accept})

    async def _exchange(
        self, method: str, target: str, limit: int, headers: dict[str, str], content: AsyncIterator[bytes] | None = None
    ) -> tuple[str, bytes] | None:
        try:
            async with self._client.stream(method, self._base + target, headers=headers, content=content) as response:
                _require_expected(method, target, response, limit)
                # Read even if nothing should come: a connection with an unread answer cannot be used again.
                collected = await self._collect(response, limit)
                _require_size(method, target, len(collected), limit)
                return None if response.status_code == 204 else (_media_type(response), bytes(collected))
        except TransportError:
            raise
        except _library_errors(self._httpx) as error:
            raise _as_transport_error(self._base, error) from error

    async def _collect(self, response: Any, limit: int) -> bytearray:
        """Return a body; of one that is too long, only the beginning, which is longer than the limit.

        A body that is too long is read to an end, too, which closing it brings at once: the library reads through generators
        inside each other, and one that is left halfway ends only when it is collected, with a warning if the loop is gone.
        """
        collected = bytearray()
        try:
            async for piece in response.aiter_raw():
                if len(collected) <= limit:
                    collected += piece
                if len(collected) > limit:
                    await response.aclose()
        except _library_errors(self._httpx):
            if len(collected) <= limit:
                raise
        return collected


def normalise_url(url: str, what: str = "coordinator URL") -> str:
    """Check the base URL of a server and strip the slash at its end, which would be doubled by the routes.

    Raises:
        ConfigError: no http or https URL, no host, or a query or fragment. It shows no credentials.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        is_complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        # The longest label of a name that can be looked up has 63 characters, and none is empty.
        is_complete = is_complete and all(0 < len(label) <= 63 for label in (parts.hostname or "").rstrip(".").split("."))
    except (ValueError, TypeError, AttributeError):
        is_complete = False
    if not is_complete or not url.isprintable() or "?" in url or "#" in url or " " in url:
        raise ConfigError(f"{what}: expected http(s)://host[:port][/path], got {shown_url(url)!r}")
    return url.rstrip("/")


def _load_httpx() -> ModuleType:
    with MissingExtraError.naming("http"):
        import httpx
    return httpx


def client_options(
    library: ModuleType,
    base: str,
    timeout_seconds: float,
    tls: TlsOptions | None,
    credentials: tuple[str, Secret] | None,
) -> dict[str, Any]:
    """Return what an httpx client of one server is made with. No URL in it holds credentials: httpx logs them.

    Raises:
        ConfigError: URL, time-out, a certificate or the proxy of the environment cannot be used.
    """
    timeout = checked_number(timeout_seconds, "timeout_seconds", above=0, most=MAX_TIMEOUT_SECONDS)
    try:
        library.URL(base)
    except (library.InvalidURL, UnicodeError, TypeError):
        is_valid = False
    else:
        is_valid = True
    if not is_valid:
        raise ConfigError(f"URL: expected http(s)://host[:port][/path], got {shown_url(base)!r}")
    needs_tls = tls is not None or base.startswith("https:")
    context = (tls or TlsOptions()).to_context() if needs_tls else None
    proxy = proxy_for(base)
    return {
        "timeout": timeout,
        "verify": True if context is None else context,
        "headers": {"Accept-Encoding": "identity", "User-Agent": "pet"},
        "auth": _revealed(credentials),
        "proxy": None if proxy is None else library.Proxy(proxy.url, auth=_revealed(proxy.credentials)),
        # The environment was read already: its proxy above, its authorities with the certificates.
        "trust_env": False,
    }


def _revealed(credentials: tuple[str, Secret] | None) -> tuple[str, str] | None:
    return None if credentials is None else (credentials[0], credentials[1].reveal())


def _library_errors(library: ModuleType) -> tuple[type[Exception], ...]:
    # OSError: a TLS alert that arrives after the handshake gets past httpx's asyncio half as a bare ssl.SSLError.
    # UnicodeError: a host name that cannot be looked up.
    return (library.HTTPError, library.InvalidURL, library.StreamError, OSError, UnicodeError)


def _seeds_target(public_key: bytes) -> str:
    # Escaped by hand: "+" unescaped would be read as a space (spec 5.1).
    return "/seeds?pk=" + urllib.parse.quote(base64.b64encode(public_key), safe="")


def _require_expected(method: str, target: str, response: httpx.Response, limit: int) -> None:
    """Check status and headers, before anything of the body is read.

    Raises:
        TransportError: they lie outside the protocol, or announce more bytes than expected.
    """
    status = response.status_code
    if method == "POST" and status >= 400:
        raise _status_error(f"POST {target}: expected a status below 400, got {status}", response)
    if method == "GET" and status not in {200, 204}:
        raise _status_error(f"GET {target}: expected status 200 or 204, got {status}", response)
    announced = response.headers.get("Content-Length", "")
    _require_size(method, target, int(announced) if announced.isdecimal() else 0, limit)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise TransportError(f"{method} {target}: expected no content encoding, got {encoding}")


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


def _as_transport_error(base: str, error: Exception) -> TransportError:
    """Return our error for one of httpx, or below it; the class says whether it can go away by itself."""
    text = f"{base}: expected an answer, got {shown_error(error)}"
    reason = _tls_reason(error)
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return CertificateError(f"{text}; check the certificates of both sides")
    # What h11 says of bytes that are no HTTP begins so; of a connection that ends early it speaks differently.
    if reason in _PLAINTEXT_REASONS or str(error).startswith("illegal"):
        return TransportConfigError(f"{text}; something else than http, or http where https was expected, answers there")
    return TransportError(text)


#: What OpenSSL finds where TLS should be and something else is.
_PLAINTEXT_REASONS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"})


def _tls_reason(error: BaseException | None) -> str:
    """Return OpenSSL's name for what failed, from the error or what caused it; empty if TLS did not."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error.reason or ""
        error = error.__cause__ or error.__context__
    return ""


def _require_size(method: str, target: str, size: int, limit: int) -> None:
    if size > limit:
        raise AnswerTooLargeError(f"{method} {target}: expected at most {limit} bytes, got {size}")


def _require_parameters(answer: tuple[str, bytes] | None) -> bytes:
    if answer is None:
        raise TransportError("GET /params: expected status 200, got 204")
    return answer[1]


def _media_type(response: httpx.Response) -> str:
    declared: str = response.headers.get("Content-Type", BINCODE)
    return declared.partition(";")[0].strip().lower()


def _pieces(body: Buffer) -> Iterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(view), _PIECE_BYTES):
        yield bytes(view[start : start + _PIECE_BYTES])


async def _async_pieces(body: Buffer) -> AsyncIterator[bytes]:
    for piece in _pieces(body):
        yield piece
