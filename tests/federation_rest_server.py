"""A federation server on a loopback port, with peers in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from asgi_server import serving
from federation_runtime_in_memory import InMemoryRuntime

from pet.federation.formats.users import UserDirectory
from pet.federation.runtime import FederationRuntime
from pet.federation.server.authentication import Authenticator
from pet.federation.server.rest import RestOptions, create_app
from pet.federation.server.service import FederationService
from pet.federation.server.store import FederationStore

#: A sample key that the vendor prints.
KEY = "VLmAm+WkpnA5zp2wXiSYkw=="
OTHER_KEY = "EYpWjGPaoMoFUb/jfW95PQ=="
USERS = {"PET_FEDERATION_USERS": f"c1={KEY},c2={OTHER_KEY}"}


class Clock:
    """A clock that the test turns."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@contextlib.contextmanager
def federation_server(
    directory=None,
    *,
    runtime: FederationRuntime | None = None,
    allows_compat=False,
    options: RestOptions | None = None,
    **clock,
) -> Iterator[str]:
    """Serve and yield the URL."""
    store = FederationStore(directory, **clock)
    service = FederationService(runtime or InMemoryRuntime(), store, allows_compat=allows_compat, **clock)
    authenticator = Authenticator(UserDirectory(None, USERS), allows_compat=allows_compat, replays=store.replays, **clock)
    try:
        with serving(create_app(service, authenticator, options)) as url:
            yield url
    finally:
        store.close()
