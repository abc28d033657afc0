"""`pet coordinator`: run a coordinator until Ctrl-C.

It loads settings, listens, and hands over to uvicorn. What a coordinator does is in pet/coordinator/ and pet/transports/.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
import uvicorn
from rich.console import Console

from pet import kernels
from pet.commands.serving import ACCEPTED_AT_ONCE, Server, listen, serve_until_a_signal
from pet.commands.settings_report import (
    defaults_without_a_file,
    load_or_exit,
    meaning,
    restored_lines,
    settings_table,
)
from pet.coordinator.app import connection_limits, create_app
from pet.coordinator.json_log import JsonFormatter
from pet.coordinator.key_file import read_key_file
from pet.coordinator.setting_faults import Fault
from pet.coordinator.setting_names import SHIPPED, WITHOUT_FILE
from pet.coordinator.setting_sections import LogSettings, SettingsTree
from pet.coordinator.settings import LoadedSettings, Settings
from pet.coordinator.stores import STATE_FOLDER_NAME, Stores
from pet.coordinator.surroundings import find_outer_faults, tls_context
from pet.errors import SettingsError, TransportError
from pet.log_lines import log_to_standard_error
from pet.transports.guarded_tls import guarded_tls_protocol
from pet.transports.short_requests import short_request_protocol

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
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every setting, and where its value comes from.")
    ] = False,
) -> None:
    """Run a coordinator. Settings come from a file, in the form of any version of xaynet, and from the environment.

    It goes on with the round that is stored in pet-state/, beside the settings file (without one: in the current folder).

    Example: pet coordinator -c config.toml
    """
    loaded = load_or_exit(config, defaults=WITHOUT_FILE if config is None else SHIPPED, find_more=_find_outer_faults)
    console = Console(highlight=False, markup=False)
    _set_up_logging(loaded.settings.log)
    folder = (Path() if config is None else config.parent) / STATE_FOLDER_NAME
    with contextlib.closing(listen(loaded.settings.api.bind_address)) as listener, _removed_unless_it_starts(folder) as started:
        url = _url_of(loaded.settings, listener)
        console.print(f"pet coordinator, {url}", soft_wrap=True)
        _show(loaded, console, is_verbose=verbose)
        with contextlib.closing(Stores.open(loaded.settings, folder, is_fresh=fresh)) as stores:
            console.print(f"Rounds are kept in {stores.storage.description}.", soft_wrap=True)
            console.print(f"Global models are kept in {stores.model_store.description}.", soft_wrap=True)
            if stores.leaf_store is not None and stores.evidence_store is not None:
                kept = f"{stores.leaf_store.description}, evidence in {stores.evidence_store.description}"
                console.print(f"Leaves of updates are kept in {kept}.", soft_wrap=True)
            _tell_broker(loaded.settings, console)
            _tell_key(loaded.settings, console)
            server = Server(_server_config(loaded.settings, stores, console), f"Listening on {url} (Ctrl-C ends)", console)
            started.set()
            serve_until_a_signal(server, listener, url)
    console.print("Stopped.")


@contextlib.contextmanager
def _removed_unless_it_starts(folder: Path) -> Iterator[threading.Event]:
    """Give an event to set when the start went well; without it, a state folder that was not there before is removed again."""
    started = threading.Event()
    was_there = folder.exists()
    try:
        yield started
    finally:
        if not was_there and not started.is_set():
            shutil.rmtree(folder, ignore_errors=True)


def _url_of(settings: Settings, listener: socket.socket) -> str:
    """Return the URL of the address that is listened on."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.api.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _find_outer_faults(settings: SettingsTree) -> dict[str, Fault]:
    found = find_outer_faults(settings)
    try:
        listen(settings.api.bind_address).close()
    except TransportError as error:
        found["api.bind_address"] = Fault(sentence=str(error).removeprefix("api.bind_address: "))
    return found


def _tell_broker(settings: Settings, console: Console) -> None:
    """Say that the coordinator is served over a broker too, if it is."""
    broker = settings.nats.to_nats_settings()
    if broker is not None:
        hosts = ", ".join(broker.hosts)
        console.print(f"Serving over NATS too: {hosts}, federation {settings.nats.federation_id}.", soft_wrap=True)


def _tell_key(settings: Settings, console: Console) -> None:
    """Say what participants can pin, if answers are signed."""
    if settings.service.coordinator_key is not None:
        key = read_key_file(settings.service.coordinator_key).public_key.hex()
        console.print(f"Answers are signed; participants check it with the coordinator key {key}.", soft_wrap=True)


def _show(loaded: LoadedSettings, console: Console, *, is_verbose: bool) -> None:
    if is_verbose:
        console.print(settings_table(loaded))
    for line in (*defaults_without_a_file(loaded), *meaning(loaded.settings), f"Kernels: {kernels.active_backend()}."):
        console.print(line, soft_wrap=True)
    for warning in loaded.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)


def _set_up_logging(settings: LogSettings) -> None:
    """Log what pet says from the level of the settings on; --log-level, where it was given, wins."""
    log_to_standard_error()
    if settings.format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("pet")
    if logger.level == logging.NOTSET:
        logger.setLevel(settings.level.upper())


def _server_config(settings: Settings, stores: Stores, console: Console) -> uvicorn.Config:
    limits = connection_limits(settings)
    tls = tls_context(settings.api)
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
    refusals = app.state.service.refusals
    http = short_request_protocol(limits, refusals, app.state.whole_messages)
    return uvicorn.Config(
        app,
        http=http if tls is None else guarded_tls_protocol(limits, tls, refusals, http),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=ACCEPTED_AT_ONCE,
        proxy_headers=False,  # it believes loopback; see pet/transports/forwarded.py
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
