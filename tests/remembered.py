"""The certificate authorities of HTTP clients that name none are read once in a process of tests.

A program makes one client, tests make hundreds, most of which then use no TLS: reading the authorities was 3 % of their CPU.
"""

import contextlib
import functools
import os
import ssl


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
