"""`pet federation serve`: a federation server until Ctrl-C.

It reads users, opens the store, and hands over to uvicorn. What the server does is in pet/federation/.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvicorn
from rich.console import Console

from pet.commands.serving import ACCEPTED_AT_ONCE, Server, listen, serve_until_a_signal
from pet.errors import SettingsError
from pet.federation.formats.users import UserDirectory
from pet.federation.peer.nats_runtime import NatsFederationRuntime
from pet.federation.records import Confirm
from pet.federation.server.authentication import Authenticator
from pet.federation.server.rest import RestOptions, create_app
from pet.federation.server.service import FederationService
from pet.federation.server.store import FederationStore
from pet.log_lines import log_to_standard_error
from pet.pet1.ledger import MIN_CHANGED
from pet.transports.forwarded import ForwardedPeers
from pet.transports.guarded_http import guarded_protocol
from pet.transports.guarded_tls import ServingContext, guarded_tls_protocol, serving_context
from pet.transports.open_connections import ConnectionLimits
from pet.transports.peer_limits import PeerLimits
from pet.transports.peers import Network, parse_network
from pet.transports.rates import Rates
from pet.transports.refusal_counts import RefusalCounts

_logger: Final = logging.getLogger("pet.federation")
#: How long requests may go on after Ctrl-C.
_GRACE_SECONDS: Final = 5
#: A federation has tens of members, each with a few clients: far fewer than a coordinator's participants.
_MAX_CONNECTIONS: Final = 512
#: Of one address, while others are there: with TLS a tenth of a core.
_MAX_CONNECTIONS_PER_SECOND: Final = 100.0
_HEADER_SECONDS: Final = 10.0
_MAX_HEADER_BYTES: Final = 1 << 16
#: Of one address, and of one user from all addresses.
_MAX_REQUESTS_PER_SECOND: Final = 100.0

_TrustedProxies = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        metavar="ADDRESS",
        help="A proxy, or a network of them, whose X-Forwarded-For counts; repeatable.",
    ),
]
_Confirming = Annotated[
    Confirm | None,
    typer.Option(
        "--confirm",
        envvar="PET_FEDERATION_CONFIRM",
        help="Whose word is taken for who is a member of a federation: a person's who compared keys, or the admin's.",
        show_default="person; admin in federations that speak the vendor's formats",
    ),
]
_LeastChanged = Annotated[
    int | None,
    typer.Option(
        "--least-changed",
        envvar="PET_FEDERATION_LEAST_CHANGED",
        min=MIN_CHANGED,
        metavar="PEERS",
        help="How many peers every combination of sums must be of; 3 bears one that colludes over several rounds.",
        show_default="2; 3 once a peer's own list has five confirmed members",
    ),
]
_Metrics = Annotated[
    bool | None,
    typer.Option(
        "--metrics/--no-metrics",
        help="Whether /metrics answers in Prometheus' format; needs the extra metrics.",
        show_default="where the extra is installed",
    ),
]
_ChangingGets = Annotated[
    bool, typer.Option(help="Whether paths that change something answer GET too, as published; POST always works.")
]


def command(
    bind: Annotated[
        str, typer.Option("--bind", "-b", metavar="IP:PORT", help="Where to listen; port 0 for any free one.")
    ] = "127.0.0.1:8090",
    users: Annotated[
        Path, typer.Option("--users", metavar="FILE", help="Users and keys; PET_FEDERATION_USERS in the environment wins.")
    ] = Path("users.json"),
    state: Annotated[
        Path, typer.Option("--state", metavar="FOLDER", help="Where projects are kept, for this user only.")
    ] = Path("federation-state"),
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="FILE", help="Certificate chain (PEM); required off loopback.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key (PEM).")] = None,
    nats_authority: Annotated[
        Path | None, typer.Option("--nats-authority", metavar="FILE", help="The only authority to trust for brokers (PEM).")
    ] = None,
    trusted_proxy: _TrustedProxies = None,
    confirm: _Confirming = None,
    least_changed: _LeastChanged = None,
    compat: Annotated[
        bool, typer.Option("--compat", help="Also speak the vendor's formats. Insecure; refused off loopback without TLS.")
    ] = False,
    metrics: _Metrics = None,
    changing_gets: _ChangingGets = True,
) -> None:
    """Run a federation server: the REST interface, and the peers of its users.

    Example: pet federation serve --users users.json --state federation-state
    """
    console = Console(highlight=False, markup=False)
    _set_up_logging()
    tls, proxies = _tls_context(tls_certificate, tls_key), _proxies(trusted_proxy or [])
    with contextlib.closing(listen(bind, "--bind")) as listener:
        host, port = listener.getsockname()[:2]
        if not tls and not ipaddress.ip_address(host).is_loopback:
            raise SettingsError(f"--bind: expected --tls-certificate and --tls-key for an address off this machine, got {bind}")
        if compat:
            _logger.warning("the vendor's formats are accepted here: they are insecure, see docs/federation.md")
        url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        with contextlib.closing(FederationStore(state)) as store:
            directory = UserDirectory(users)
            runtime = NatsFederationRuntime(confirm=confirm, least_changed=least_changed, allows_plaintext=compat)
            service = _service(runtime, store, nats_authority, compat=compat)
            options = RestOptions(
                allows_state_changing_gets=changing_gets,
                max_requests_per_second=_MAX_REQUESTS_PER_SECOND,
                has_metrics=metrics,
            )
            authenticator, refusals = Authenticator(directory, allows_compat=compat, replays=store.replays), RefusalCounts()
            app = create_app(service, authenticator, options, refusals)
            names = ", ".join(directory.names()) or f"none yet (pet federation user add, into {users})"
            console.print(f"Users: {names}", soft_wrap=True)
            server = Server(_server_config(app, tls, proxies, refusals), f"Listening on {url} (Ctrl-C ends)", console)
            serve_until_a_signal(server, listener, url)
    console.print("Stopped.")


def _service(
    runtime: NatsFederationRuntime, store: FederationStore, authority: Path | None, *, compat: bool
) -> FederationService:
    """Return the service.

    Raises:
        OSError: the authority's file is not there.
    """
    ca_file = None if authority is None else authority.resolve(strict=True)
    return FederationService(runtime, store, allows_compat=compat, ca_file=ca_file)


def _set_up_logging() -> None:
    """Log what pet says from "info" on; --log-level, where it was given, wins."""
    log_to_standard_error()
    logger = logging.getLogger("pet")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _tls_context(certificate: Path | None, key: Path | None) -> ServingContext | None:
    if (certificate is None) != (key is None):
        raise SettingsError("TLS: expected --tls-certificate and --tls-key together, got one of them")
    return None if certificate is None or key is None else serving_context(certificate, key)


def _proxies(texts: list[str]) -> list[Network]:
    try:
        return [parse_network(text) for text in texts]
    except ValueError as error:
        raise SettingsError(f"--trusted-proxy: expected an address or a network such as 10.0.0.0/8: {error}") from None


def _server_config(app: Any, tls: ServingContext | None, proxies: list[Network], refusals: RefusalCounts) -> uvicorn.Config:
    limits = ConnectionLimits(
        max_connections=_MAX_CONNECTIONS,
        max_connections_per_second=_MAX_CONNECTIONS_PER_SECOND,
        unbounded_rate=tuple(proxies),
        header_seconds=_HEADER_SECONDS,
        max_header_bytes=_MAX_HEADER_BYTES,
    )
    limited = PeerLimits(app, Rates(_MAX_REQUESTS_PER_SECOND), refusals)
    return uvicorn.Config(
        ForwardedPeers(limited, proxies, "--trusted-proxy"),
        http=guarded_protocol(limits, refusals) if tls is None else guarded_tls_protocol(limits, tls, refusals),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=ACCEPTED_AT_ONCE,
        proxy_headers=False,  # it believes loopback; see pet/transports/forwarded.py
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
