"""A coordinator at a broker as one URL: nats://[user:password@]host[:port][/federation id].

For commands, where everything is one option. The scheme tls:// asks for TLS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pet.errors import ConfigError
from pet.transports.nats.subjects import Subjects
from pet.transports.nats.transport import NatsTransport
from pet.transports.nats_settings import NatsSettings
from pet.urls import shown_url

#: The federation id of `pet coordinator`, unless its settings say another one.
DEFAULT_FEDERATION_ID: Final = "pet0coordinator0"


def open_url(
    url: str, *, ca_file: Path | None = None, coordinator_key: str | None = None, allow_plaintext: bool = False
) -> NatsTransport:
    """Return a transport to the coordinator that a URL means; nothing is sent yet. Further arguments as of the transport.

    Raises:
        ConfigError: the URL has another form.
    """
    scheme, _, rest = url.partition("://")
    broker, _, federation_id = rest.partition("/")
    if scheme not in {"nats", "tls"}:
        raise ConfigError(f"NATS URL: expected nats:// or tls://host[:port][/federation id], got {shown_url(url)!r}")
    if "@" in federation_id:
        raise ConfigError(
            f"NATS URL: expected a password with its special characters percent-encoded (/ as %2F), got {shown_url(url)}"
        )
    if "?" in federation_id or "#" in federation_id:
        raise ConfigError(f"NATS URL: expected nats://host[:port][/federation id] without a query, got {shown_url(url)}")
    subjects = Subjects(federation_id.strip("/") or DEFAULT_FEDERATION_ID)
    settings = NatsSettings(hosts=(f"{scheme}://{broker}",), ca_file=ca_file, allow_plaintext=allow_plaintext)
    return NatsTransport(settings, subjects.federation_id, coordinator_key=coordinator_key)
