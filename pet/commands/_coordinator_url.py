"""The way to a coordinator, as commands take it: http(s):// or nats://, tls://."""

from __future__ import annotations

from pathlib import Path

from pet.errors import ConfigError
from pet.transports.base import Transport
from pet.transports.http import HttpTransport
from pet.transports.http_options import TlsOptions


def open_coordinator(url: str, certificate: Path | None, identity: Path | None) -> Transport:
    """Return a transport; nothing is sent yet.

    Args:
        url: http(s)://host:port, or nats://[user:password@]host:port[/federation id]; tls:// is nats:// with TLS.
        certificate: the only authority to trust.
        identity: certificate and key to appear with, over https.

    Raises:
        ConfigError: URL or certificate cannot be used.
        MissingExtraError: the extra `nats` is needed and not installed.
    """
    if not url.startswith(("nats://", "tls://")):
        return HttpTransport(url, tls=TlsOptions(trusted_certificate=certificate, client_identity=identity))
    from pet.transports.nats.url import open_url  # needs an extra that http does without

    if identity is not None:
        raise ConfigError("--identity: expected http(s)://, got a broker, where credentials are in the URL")
    return open_url(url, ca_file=certificate)
