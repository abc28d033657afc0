"""The way to a coordinator, as commands take it: http(s):// or nats://, tls://."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pet.errors import ConfigError
from pet.transports.base import Transport
from pet.transports.http import HttpTransport
from pet.transports.http_options import TlsOptions

CoordinatorKeyOption = Annotated[
    str | None,
    typer.Option(
        "--coordinator-key",
        metavar="KEY",
        help="The coordinator's public key: take only answers that it signed (pet key show).",
    ),
]
AllowInsecureOption = Annotated[
    bool,
    typer.Option("--allow-insecure", help="Talk to another machine without TLS and without a coordinator key."),
]


def open_coordinator(
    url: str,
    certificate: Path | None,
    identity: Path | None,
    coordinator_key: str | None = None,
    *,
    allow_insecure: bool = False,
    on_received: Callable[[int, int | None], None] | None = None,
) -> Transport:
    """Return a transport; nothing is sent yet.

    Args:
        url: http(s)://host:port, or nats://[user:password@]host:port[/federation id]; tls:// is nats:// with TLS.
        certificate: the only authority to trust.
        identity: certificate and key to appear with, over https.
        coordinator_key: public key whose signature every answer must have.
        allow_insecure: whether another machine may be talked to without TLS and without that key; if not given, the
            environment decides.
        on_received: over http, called while an answer arrives; see `HttpTransport`.

    Raises:
        ConfigError: URL, key or certificate cannot be used, or the way would be insecure.
        MissingExtraError: the extra `nats` is needed and not installed.
    """
    if not url.startswith(("nats://", "tls://")):
        return HttpTransport(
            url,
            tls=TlsOptions(trusted_certificate=certificate, client_identity=identity),
            coordinator_key=coordinator_key,
            allow_insecure=allow_insecure or None,
            on_received=on_received,
        )
    from pet.transports.nats.url import open_url  # needs an extra that http does without

    if identity is not None:
        raise ConfigError("--identity: expected http(s)://, got a broker, where credentials are in the URL")
    return open_url(url, ca_file=certificate, coordinator_key=coordinator_key, allow_plaintext=allow_insecure)
