"""TLS contexts of clients, from PEM files that may be absent or hold something else.

What ssl raises for those is `OSError`, `ssl.SSLError` or `ValueError`, without the name of the file; here it is `ConfigError`.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from pet.errors import ConfigError


def trusting(authority: Path | str | None) -> ssl.SSLContext:
    """Return a context that trusts the authorities of one PEM file only.

    Args:
        authority: the file; None means those of SSL_CERT_FILE or SSL_CERT_DIR, and without them the system's.

    Raises:
        ConfigError: the file cannot be read or holds no certificate.
    """
    if authority is not None:
        return _loaded("TLS", Path(authority))
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if path := os.environ.get(variable):
            return _loaded(variable, Path(path))
    return ssl.create_default_context()


def add_identity(context: ssl.SSLContext, identity: Path) -> None:
    """Let a context appear with a certificate chain and its key, both in one PEM file.

    Raises:
        ConfigError: the file cannot be read or holds something else.
    """
    try:
        # Without a function OpenSSL would ask the terminal for the password of an encrypted key.
        context.load_cert_chain(identity, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"TLS: expected a PEM file with a certificate and its key in {identity}, got {error}") from None


def _loaded(name: str, path: Path) -> ssl.SSLContext:
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: expected a PEM file with certificates in {path}, got {error}") from None


def _no_password() -> str:
    raise ValueError("a key that is encrypted")
