"""What a program does once, and tests hundreds of times, for a good part of their CPU.

The certificate authorities of HTTP clients that name none: most of them then use no TLS, and reading the authorities was
3 % of the CPU. Keys from the passwords of invitations: 0.13 s of Argon2id for each that is made or opened, another 5 %.
"""

import contextlib
import functools
import os
import ssl
from typing import Final

#: What invitations ask for outside of tests: constants of pet/federation/formats/invitation.py by name.
PASSWORD_COST: Final[dict[str, int]] = {}


def remember_authorities() -> None:
    """Give such clients one context, as long as the environment names the same authorities."""
    with contextlib.suppress(ImportError):  # the kernels alone do without
        from httpx._transports import default

        create = default.create_ssl_context

        @functools.cache
        def create_usual(trust_env: bool, _file: str | None, _folder: str | None) -> ssl.SSLContext:
            return create(trust_env=trust_env)

        def create_or_remember(
            verify: ssl.SSLContext | str | bool = True, cert: object = None, trust_env: bool = True
        ) -> ssl.SSLContext:
            if verify is not True or cert:
                return create(verify, cert, trust_env)
            return create_usual(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))

        default.create_ssl_context = create_or_remember


def derive_password_keys_cheaply() -> None:
    """Let invitations ask for the least that is accepted; their vector (test_federation_vectors.py) asks for the usual."""
    with contextlib.suppress(ImportError):
        from pet.federation.formats import invitation

        for name, least in (("_PASSES", invitation._PASSES_RANGE[0]), ("_MEMORY_KIB", invitation._MEMORY_KIB_RANGE[0])):
            PASSWORD_COST.setdefault(name, getattr(invitation, name))  # a copied worker comes here a second time
            setattr(invitation, name, least)
