"""`pet federation page`: a page about one peer for its user's browser, until Ctrl-C.

The page is in pet/federation/client/peer_page.py; this file finds the project and an address, and hands over to uvicorn.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Annotated, Any, Final

import typer
import uvicorn
from rich.console import Console

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Url, client_of
from pet.commands.serving import Server, listen, serve_until_a_signal
from pet.errors import FederationValueError, SettingsError
from pet.federation.client.client import Client
from pet.federation.client.peer_page import PeerPage, peer_state

#: A browser opens a handful; the rest is refused.
_MAX_CONNECTIONS: Final = 64
_GRACE_SECONDS: Final = 2


def command(
    key_file: KeyFile,
    project: Annotated[
        str | None, typer.Argument(metavar="PROJECT", help="Which one; needed only if this user has several.")
    ] = None,
    bind: Annotated[
        str,
        typer.Option("--bind", "-b", metavar="IP:PORT", help="Where to listen, on this machine only; port 0 for any free one."),
    ] = "127.0.0.1:0",
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Serve a page about a peer on this machine, read only: members, rows, what is held back and why, logs.

    It asks the peer's server with the user's key. Who has the printed address and an account on this machine can read the page.

    Example: pet federation page mine -k bob.key
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with client_of(url, key_file, certificate, compat=compat) as client, contextlib.closing(listen(bind, "--bind")) as listener:
        host, port = listener.getsockname()[:2]
        if not ipaddress.ip_address(host).is_loopback:
            raise SettingsError(f"--bind: expected an address of this machine alone, such as 127.0.0.1:0, got {bind}")
        page = PeerPage(client, _chosen(client, project))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        shown = f"http://{address}{page.path}"
        app = page.app(frozenset({address, f"localhost:{port}"}))
        serve_until_a_signal(Server(_server_config(app), f"{shown} (Ctrl-C ends)", console), listener, f"http://{address}")
    console.print("Stopped.")


def _chosen(client: Client, project: str | None) -> str:
    """Return the project, after the server has answered once: a wrong key or name is better seen here than in a browser.

    Raises:
        FederationError: the server refuses, or does not answer.
    """
    if project is None:
        names = client.projects()
        if len(names) != 1:
            raise FederationValueError(
                f"PROJECT: expected the name of one, got none; there are: {', '.join(names) or 'none yet'}"
            )
        project = names[0]
    peer_state(client, project)
    return project


def _server_config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,  # paths have the token in them
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
