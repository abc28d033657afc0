"""TLS contexts, from PEM files that may be absent or hold something else.

What ssl raises for those is `OSError`, `ssl.SSLError` or `ValueError`, without the name of the file; here it is `ConfigError`.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

from pet.errors import ConfigError

#: Chains and keys have a few thousand bytes; a path may lead to anything.
_MAX_PEM_BYTES: Final = 1 << 20


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
    load_identity(context, identity, identity)


def load_identity(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Let a context appear with a certificate chain and its key.

    Args:
        context: a client's or a server's.
        certificate: PEM file of the chain.
        key: PEM file of the key; may be the same file.

    Raises:
        ConfigError: a file cannot be read or holds something else; the error names it.
    """
    try:
        # Without a function OpenSSL would ask the terminal for the password of an encrypted key.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"TLS: {_identity_fault(certificate, key, error)}") from None


def load_authority(context: ssl.SSLContext, authority: Path) -> None:
    """Let a context trust the certificates of a PEM file, beside those it trusts already.

    Raises:
        ConfigError: the file cannot be read or holds no certificate.
    """
    try:
        context.load_verify_locations(cafile=authority)
    except (OSError, ValueError) as error:
        raise ConfigError(f"TLS: expected a PEM file with certificates in {authority}, got {error}") from None


def _identity_fault(certificate: Path, key: Path, error: Exception) -> str:
    """Return which of two PEM files is wrong, and how: OpenSSL says "PEM lib" for most of it."""
    try:
        has_certificate = b"-----BEGIN CERTIFICATE-----" in _beginning(certificate)
        has_key = b"PRIVATE KEY-----" in _beginning(key)
    except OSError as unreadable:
        return f"expected a PEM file that can be read in {unreadable.filename}, got {unreadable.strerror}"
    if not has_certificate:
        return f"expected a PEM file with a certificate in {certificate}, got a file without one"
    if not has_key:
        where = "the same file, below the certificate" if key == certificate else str(key)
        return f"expected the private key (PEM) of {certificate} in {where}, got a file without a key"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"expected the private key of {certificate} in {key}, got another key"
    return f"expected a PEM file with a certificate in {certificate} and one with its key in {key}, got {error}"


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_PEM_BYTES)


def _loaded(name: str, path: Path) -> ssl.SSLContext:
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: expected a PEM file with certificates in {path}, got {error}") from None


def _no_password() -> str:
    raise ValueError("a key that is encrypted")
