"""From settings to an application that a server can run: the one place where engine, service and HTTP routes meet."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pet.coordinator.key_file import read_key_file
from pet.coordinator.observation import Observation
from pet.coordinator.service import CoordinatorService
from pet.coordinator.settings import Settings
from pet.coordinator.stores import Stores
from pet.coordinator.surroundings import NATS_NAME
from pet.errors import MissingExtraError
from pet.transports import asgi
from pet.transports.forwarded import ForwardedPeers
from pet.transports.live_page import live_routes
from pet.transports.message_route import MESSAGE_PATHS
from pet.transports.open_connections import ConnectionLimits
from pet.transports.peer_limits import PeerLimits
from pet.transports.peers import Network, parse_network
from pet.transports.rates import Rates
from pet.transports.signed_answers import AnswerSigner
from pet.transports.whole_messages import WholeMessages

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from pet.transports.nats import NatsSettings

#: Files beside connections: storage, spooled bodies, libraries that load late.
SPARE_FILES = 256
MAX_HEADER_BYTES = 64 * 1024


def create_app(settings: Settings, stores: Stores | None = None) -> Starlette:
    """Return an ASGI application that runs a coordinator while its lifespan lasts.

    `app.state.service` is its service; `app.state.whole_messages` may answer small messages before the application is asked.

    To mount it in another application, see `pet.transports.asgi.create_app`.

    Args:
        settings: of rounds and service.
        stores: where rounds and models are kept, to be closed by the caller; None keeps them in memory.

    Raises:
        ConfigError: the protocol refuses the settings, or the key file cannot be used.
        StateError: what is stored is damaged, or not of a coordinator of this version.
        StorageError: a store cannot be reached.
        MissingExtraError: metrics are asked for, and the extra `metrics` is not installed.
    """
    service = CoordinatorService.from_settings(settings, stores)
    observation = Observation(service.engine)
    key_file = settings.service.coordinator_key
    signer = None if key_file is None else AnswerSigner(read_key_file(key_file))
    app = asgi.create_app(service, live_routes(observation.snapshot) if settings.api.live_page else (), signer)
    limits = settings.service
    rates = Rates(
        limits.max_requests_per_second, math.inf if limits.max_bytes_per_second is None else limits.max_bytes_per_second
    )
    whole_messages = WholeMessages(service, rates)
    app.add_middleware(PeerLimits, rates=rates, refusals=service.refusals)
    app.add_middleware(ForwardedPeers, trusted=_trusted_proxies(settings), setting="service.trusted_proxies")
    if settings.metrics.prometheus is not False:
        _add_metrics(app, service, whole_messages, is_required=settings.metrics.prometheus is True)
    broker = settings.nats.to_nats_settings()
    if broker is not None:
        folder = settings.service.spool_folder or (stores.spool_folder if stores else None)
        _serve_over_nats(app, service, broker, settings, folder, signer)
    app.state.service = service
    app.state.whole_messages = whole_messages
    return app


def _serve_over_nats(
    app: Starlette,
    service: CoordinatorService,
    broker: NatsSettings,
    settings: Settings,
    folder: Path | None,
    signer: AnswerSigner | None,
) -> None:
    """Serve the same coordinator over NATS while the lifespan of the application lasts.

    Raises:
        MissingExtraError: the extra `nats` is not installed.
    """
    from pet.transports.nats import NatsServer, Subjects, connect

    inner, uploads = app.router.lifespan_context, None if folder is None else folder / "nats"

    subjects, most = Subjects(settings.nats.federation_id), settings.service.max_requests_per_second

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with (
            inner(app),
            await connect(broker, NATS_NAME) as connection,
            NatsServer(service, connection, subjects, directory=uploads, requests_per_second=most, signer=signer),
        ):
            yield

    app.router.lifespan_context = lifespan


def _trusted_proxies(settings: Settings) -> tuple[Network, ...]:
    return tuple(parse_network(text) for text in settings.service.trusted_proxies or ())


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Return what connections may take, within what the system lets this process have; that limit is raised if possible."""
    limits = settings.service
    return ConnectionLimits(
        max_connections=max(1, min(limits.max_connections, raise_file_limit() - SPARE_FILES)),
        max_connections_per_peer=limits.max_connections_per_peer,
        max_connections_per_second=limits.max_connections_per_second,
        unbounded_rate=_trusted_proxies(settings),
        header_seconds=limits.header_seconds,
        stall_seconds=limits.stall_seconds,
        max_header_bytes=MAX_HEADER_BYTES,
    )


def raise_file_limit() -> int:
    """Let this process have as many open files as the system allows it, and return how many."""
    try:
        import resource
    except ImportError:  # no such limit on this system
        return sys.maxsize
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _add_metrics(app: Starlette, service: CoordinatorService, messages: WholeMessages, *, is_required: bool) -> None:
    """Answer with figures; without the extra, only an operator who asked for them learns that it is missing."""
    try:
        from pet.coordinator.metrics import METRICS_PATH, Metrics
    except MissingExtraError:
        if is_required:
            raise
        return
    from starlette.routing import Route

    paths = [route.path for route in app.routes if isinstance(route, Route)]
    metrics = Metrics(service, [METRICS_PATH, *paths])
    metrics.serve_in(app)
    messages.on_answer = partial(metrics.count_answer, MESSAGE_PATHS[0])
