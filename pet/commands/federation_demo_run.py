"""What `pet federation demo` runs: a broker, and three federation servers in processes of their own, all on loopback.

Each server has a folder of its own and one user; every caller makes signed requests, as over a network.
Nothing is left behind: the folder is temporary, and every process is ended; if this one is killed, by orphan_keeper.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pet.errors import FederationUnavailableError
from pet.federation.client.client import Client
from pet.federation.formats.users import add_user, read_users
from pet.files import make_private_folder, write_private
from pet.secret import Secret

_HOST: Final = "127.0.0.1"
#: Several Pythons that start at once on a busy machine take their time.
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 10.0
_LISTENING: Final = re.compile(r"Listening on (http://[^ ]+)")


#: Makes a context in which a signal may end what is under way.
Interruptible = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A running broker.

    Attributes:
        url: where it is.
        token: what opens it.
    """

    url: str
    token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One peer's own server, as its user sees it.

    Attributes:
        name: of the user and of the project.
        client: signs this user's requests.
        folder: where its server keeps everything.
        process: the server.
    """

    name: str
    client: Client
    folder: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running_broker(
    folder: Path, interruptible: Interruptible = contextlib.nullcontext, group: int | None = None
) -> Iterator[Broker]:
    """Run a nats-server with JetStream on a free loopback port.

    Args:
        folder: its own.
        interruptible: entered where a signal may end the wait for it.
        group: process group that it joins; None for that of this process.

    Raises:
        FederationUnavailableError: there is none on the PATH, or it does not start.
    """
    program = shutil.which("nats-server")
    if program is None:
        raise FederationUnavailableError(
            "nats-server: expected it on the PATH, got none; Debian and Ubuntu have it: apt-get install nats-server"
        )
    make_private_folder(folder)
    port, token = _free_port(), secrets.token_urlsafe(24)
    settings = folder / "nats-server.conf"
    write_private(
        settings,
        f'listen: "{_HOST}:{port}"\njetstream {{ store_dir: "{folder}/jetstream" }}\nauthorization {{ token: "{token}" }}\n',
    )
    with (folder / "nats-server.log").open("wb") as log:
        command = [program, "-c", str(settings)]
        process = subprocess.Popen(command, stdout=log, stderr=log, process_group=group)  # noqa: S603  found on the PATH
    try:
        with interruptible():
            _await_port(process, port)
        yield Broker(url=f"nats://{_HOST}:{port}", token=Secret(token))
    finally:
        _end(process)


@contextlib.contextmanager
def running_sites(
    names: Sequence[str], folder: Path, interruptible: Interruptible = contextlib.nullcontext, group: int | None = None
) -> Iterator[list[Site]]:
    """Run federation servers with one user each, every one in a process of its own; they start together.

    A folder that was there before is gone on with.

    Args:
        names: of the users, and of the folders of their servers.
        folder: where these are.
        interruptible: entered where a signal may end the wait for the servers.
        group: process group that they join; None for that of this process.

    Raises:
        FederationUnavailableError: one does not start.
    """
    processes: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        try:
            processes.extend(_start_server(name, folder / name, group) for name in names)
            with interruptible():
                sites = [_open_site(stack, name, folder / name, one) for name, one in zip(names, processes, strict=True)]
            yield sites
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                _end(process)


def _start_server(name: str, folder: Path, group: int | None) -> subprocess.Popen[bytes]:
    users = folder / "users.json"
    if not users.exists():
        make_private_folder(folder)
        add_user(users, name)
    command = [sys.executable, "-u", "-m", "pet", "federation", "serve", "--bind", f"{_HOST}:0"]
    command += ["--users", str(users), "--state", str(folder / "state")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603  ourselves
            command, stdout=subprocess.PIPE, stderr=log, env=environment, process_group=group
        )


def _open_site(stack: contextlib.ExitStack, name: str, folder: Path, process: subprocess.Popen[bytes]) -> Site:
    key = read_users(folder / "users.json")[name]
    client = stack.enter_context(Client(_await_url(process, name), name, key))
    return Site(name=name, client=client, folder=folder, process=process)


def await_sync(sites: list[Site], number: int, seconds: float = _START_SECONDS) -> None:
    """Wait until every site has taken this number of aggregates.

    Raises:
        FederationUnavailableError: that does not happen in time; says what the logs say.
    """
    deadline = time.monotonic() + seconds
    waiting = list(sites)
    while waiting:
        waiting = [site for site in waiting if _aggregates(site) < number]
        if waiting and time.monotonic() > deadline:
            lines = [line for site in sites for line in site.client.error_log(site.name)[-2:]]
            raise FederationUnavailableError(f"sync: expected it within {seconds:g} s, got none: {'; '.join(lines)}")
        time.sleep(0.1)


def _aggregates(site: Site) -> int:
    return sum(line.startswith("Sync completed") for line in site.client.sync_log(site.name))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
            return
        time.sleep(0.02)
    raise FederationUnavailableError("nats-server: expected it to listen, got a process that does not")


def _await_url(process: subprocess.Popen[bytes], name: str) -> str:
    """Read what the server prints until it says where it listens, and go on reading so that it never waits for us."""
    found: list[str] = []
    is_known = threading.Event()

    def read() -> None:
        assert process.stdout is not None, "it was asked for"
        for line in process.stdout:
            if match := _LISTENING.search(line.decode(errors="replace")):
                found.append(match[1])
                is_known.set()
        is_known.set()

    threading.Thread(target=read, name=f"pet-demo-{name}", daemon=True).start()
    if not is_known.wait(_START_SECONDS) or not found:
        raise FederationUnavailableError(f"server of {name}: expected it to listen within {_START_SECONDS:g} s, got nothing")
    return found[0]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
