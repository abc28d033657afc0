"""`pet coordinator`: run a coordinator until Ctrl-C.

It loads settings, listens, and hands over to uvicorn. What a coordinator does is in pet/coordinator/ and pet/transports/.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvicorn
from rich.console import Console

from pet import kernels
from pet.commands.serving import Server, listen, serve_until_a_signal
from pet.commands.settings_report import (
    defaults_without_a_file,
    load_or_exit,
    meaning,
    restored_lines,
    settings_table,
)
from pet.coordinator.app import NATS_NAME, connection_limits, create_app
from pet.coordinator.json_log import JsonFormatter
from pet.coordinator.setting_names import SHIPPED, WITHOUT_FILE
from pet.coordinator.setting_sections import LogSettings
from pet.coordinator.settings import LoadedSettings, Settings
from pet.coordinator.stores import STATE_FOLDER_NAME, Stores
from pet.errors import SettingsError
from pet.transports.guarded_http import guarded_protocol

#: Participants poll; a connection that stays open between two polls saves a handshake.
_KEEP_ALIVE_SECONDS: Final = 60
#: How long requests may go on after Ctrl-C.
_GRACE_SECONDS: Final = 5


def command(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="Settings file (TOML). Without it: loopback, defaults for trying out."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew: forget the stored round, whatever it is. Stored models stay.")
    ] = False,
) -> None:
    """Run a coordinator. Settings come from a file, in the form of any version of xaynet, and from the environment.

    It goes on with the round that is stored in pet-state/, beside the settings file (without one: in the current folder).

    Example: pet coordinator -c config.toml
    """
    loaded = load_or_exit(config, defaults=WITHOUT_FILE if config is None else SHIPPED)
    console = Console(highlight=False, markup=False)
    _set_up_logging(loaded.settings.log)
    _show(loaded, console)
    folder = (Path() if config is None else config.parent) / STATE_FOLDER_NAME
    with contextlib.closing(Stores.open(loaded.settings, folder, is_fresh=fresh)) as stores:
        console.print(f"Rounds are kept in {stores.storage.description}.", soft_wrap=True)
        console.print(f"Global models are kept in {stores.model_store.description}.", soft_wrap=True)
        _require_broker(loaded.settings, console)
        _serve(loaded.settings, stores, console)


def _require_broker(settings: Settings, console: Console) -> None:
    """See that the broker, if there is one, lets us in, before anything is served.

    Raises:
        TransportError: it does not; the subclass says why.
    """
    broker = settings.nats.to_nats_settings()
    if broker is None:
        return
    from pet.transports.nats import connect
    from pet.transports.nats.storage import ask_storage

    async def check_broker() -> None:
        async with await connect(broker, NATS_NAME) as connection:
            await ask_storage(connection, "INFO")

    asyncio.run(check_broker())
    console.print(
        f"Serving over NATS too: {', '.join(broker.hosts)}, federation {settings.nats.federation_id}.", soft_wrap=True
    )


def _show(loaded: LoadedSettings, console: Console) -> None:
    console.print(settings_table(loaded))
    for line in (*defaults_without_a_file(loaded), *meaning(loaded.settings), f"Kernels: {kernels.active_backend()}."):
        console.print(line, soft_wrap=True)
    for warning in loaded.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)


def _set_up_logging(settings: LogSettings) -> None:
    """Log what pet says from the level of the settings on; --log-level, where it was given, wins."""
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.WARNING)
    if settings.format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("pet")
    if logger.level == logging.NOTSET:
        logger.setLevel(settings.level.upper())


def _serve(settings: Settings, stores: Stores, console: Console) -> None:
    """Serve until a signal; returns after a clean end.

    Raises:
        TransportError: the address cannot be used, or the server did not start.
        SettingsError: the TLS files cannot be used, or the model does not fit into memory.
    """
    with contextlib.closing(listen(settings.api.bind_address)) as listener:
        host, port = listener.getsockname()[:2]
        scheme = "https" if settings.api.tls_certificate else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        server = Server(_server_config(settings, stores, console), f"Listening on {url} (Ctrl-C ends)", console)
        serve_until_a_signal(server, listener, url)
    console.print("Stopped.")


def _server_config(settings: Settings, stores: Stores, console: Console) -> uvicorn.Config:
    api, tls = settings.api, dict[str, Any]()
    if api.tls_certificate and api.tls_key:
        tls = {"ssl_certfile": api.tls_certificate, "ssl_keyfile": api.tls_key}
    if api.tls_client_auth:
        tls |= {"ssl_ca_certs": str(api.tls_client_auth), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    try:
        app = create_app(settings, stores)
        for line in restored_lines(app.state.service.engine):
            console.print(line, soft_wrap=True)
        # The first round begins here, so that a model that is too large is reported before anything is served.
        app.state.service.engine.tick()
    except MemoryError as error:
        raise SettingsError(
            f"model.length: expected a model that fits into memory, got {settings.model.length}: {error}"
        ) from None
    config = uvicorn.Config(
        app,
        http=guarded_protocol(connection_limits(settings)),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **tls,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"api.tls_*: expected PEM files that belong together, got: {error}") from None
    return config
