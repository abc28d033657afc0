"""The coordinator of `pet demo`: the service and the application of `pet coordinator`, on a free loopback port, in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn

from pet.coordinator.round_engine import RoundEngine
from pet.coordinator.service import CoordinatorService
from pet.errors import TransportError
from pet.transports import asgi

_HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 20.0


def open_listener() -> socket.socket:
    """Return a socket on a free loopback port; connections wait until a coordinator runs on it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named: see pet/commands/coordinator.py
    listener.bind((_HOST, 0))
    listener.listen()
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of the coordinator that runs, or will run, on a socket."""
    return f"http://{_HOST}:{listener.getsockname()[1]}"


@contextmanager
def running_coordinator(
    listener: socket.socket, engine: RoundEngine[Any, Any, Any, Any], subscriber: Callable[[Any], None]
) -> Iterator[None]:
    """Run a coordinator for the length of a `with` block.

    Args:
        listener: where it is to be reached.
        engine: the coordinator.
        subscriber: called for every event, in a thread of the coordinator.

    Raises:
        TransportError: it did not start.
    """
    engine.subscribe(subscriber)
    app = asgi.create_app(CoordinatorService(engine))
    config = uvicorn.Config(app, ws="none", lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="pet-demo-coordinator", daemon=True)
    thread.start()
    try:
        _await_start(server, thread)
        yield
    finally:
        server.should_exit = True
        thread.join()


def _await_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise TransportError(f"coordinator: expected it to answer on {_HOST} within {_START_SECONDS:g} s, got nothing")
        time.sleep(0.02)
