"""How an HTTP client is set up: the URL of the server, whom to trust, the proxy and the time-outs of the environment.

httpx is loaded when the first client is made, so that `import pet` stays quick and needs no extra. Sends nothing.
"""

from __future__ import annotations

import os
import ssl
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pet.errors import ConfigError, MissingExtraError
from pet.numbers import checked_number
from pet.secret import Secret
from pet.transports.idle_clients import MAX_IDLE_SECONDS
from pet.transports.proxies import is_loopback, proxy_for
from pet.transports.tls import add_identity, trusting
from pet.urls import shown_url

#: xaynet waits forever. A coordinator answers a message only when it is processed, which for the largest takes seconds.
DEFAULT_TIMEOUT_SECONDS: Final = 60.0
#: Of the name and TCP together, and of the TLS handshake: nothing is lost with a connection that was not made.
MAX_CONNECT_SECONDS: Final = 15.0
#: Longer waits do not fit the time of a system call everywhere.
MAX_TIMEOUT_SECONDS: Final = 1e6
#: What stands in the environment where http:// may be used without a coordinator key.
ALLOW_INSECURE_VARIABLE: Final = "PET_ALLOW_INSECURE"


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


def require_secure(base: str, *, is_pinned: bool, allow_insecure: bool | None) -> None:
    """Refuse to talk to a coordinator on another machine if anybody on the way could answer in its place.

    Args:
        base: a URL that `normalise_url` returned.
        is_pinned: whether answers must be signed by a key that is known.
        allow_insecure: whether it is wanted all the same; None takes PET_ALLOW_INSECURE.

    Raises:
        ConfigError: it is http, to another machine, without a key, and not wanted; or the variable has another value.
    """
    if is_pinned or base.startswith("https:") or is_loopback(urllib.parse.urlsplit(base).hostname or ""):
        return
    if not (_insecure_by_environment() if allow_insecure is None else allow_insecure):
        raise ConfigError(
            f"coordinator URL: expected https://, or a coordinator key (coordinator_key, --coordinator-key), got {base}: who"
            " sits on the way could answer in the coordinator's place and read every model; if that cannot happen here, allow"
            f" it (allow_insecure=True, --allow-insecure, {ALLOW_INSECURE_VARIABLE}=1)"
        )


def _insecure_by_environment() -> bool:
    text = os.environ.get(ALLOW_INSECURE_VARIABLE, "").strip().lower()
    if text not in {"", "0", "1", "false", "true"}:
        raise ConfigError(f"{ALLOW_INSECURE_VARIABLE}: expected 1 or 0, got {text[:40]!r}")
    return text in {"1", "true"}


def load_httpx() -> ModuleType:
    """Return the library.

    Raises:
        MissingExtraError: it is not installed.
    """
    with MissingExtraError.naming("http"):
        import httpx
    return httpx


def client_options(
    library: ModuleType,
    base: str,
    timeout_seconds: float,
    tls: TlsOptions | None,
    credentials: tuple[str, Secret] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what an httpx client of one server is made with, and what its transport, which has one connection.

    No URL in them holds credentials: httpx logs them.

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
    # Loaded once, and not by each client; one that needs none gets one that trusts nobody.
    context = (tls or TlsOptions()).to_context() if needs_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    proxy = proxy_for(base)
    # The environment was read already: its proxy above, its authorities with the certificates.
    of_client = {
        "timeout": library.Timeout(timeout, connect=min(timeout, MAX_CONNECT_SECONDS)),
        "headers": {"Accept-Encoding": "identity", "User-Agent": "pet"},
        "auth": _revealed(credentials),
        "trust_env": False,
    }
    of_transport = {
        "verify": library.create_ssl_context(trust_env=False) if context is None else context,
        "limits": library.Limits(max_connections=1, keepalive_expiry=MAX_IDLE_SECONDS),
        "proxy": None if proxy is None else library.Proxy(proxy.url, auth=_revealed(proxy.credentials)),
        "trust_env": False,
    }
    return of_client, of_transport


def _revealed(credentials: tuple[str, Secret] | None) -> tuple[str, str] | None:
    return None if credentials is None else (credentials[0], credentials[1].reveal())
