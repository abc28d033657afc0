"""A real uvicorn on a free loopback port, in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from openapi_documents import CheckedAnswers


@contextlib.contextmanager
def serving(app: Any, http: Any = "httptools", **options: Any) -> Iterator[str]:
    """Serve an application and yield its URL; `http` and further options are uvicorn's.

    Answers of our interfaces are held against docs/openapi/.
    """
    name = interface_of(app)
    checked = None if name is None else CheckedAnswers(app, name)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named: see pet/commands/coordinator.py
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        checked or app,
        http=http,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        timeout_graceful_shutdown=1,
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
        assert not thread.is_alive()
    assert checked is None or checked.undescribed == set()


def interface_of(app: Any) -> str | None:
    """Return which of our interfaces an application is; None for others, and where one is mounted."""
    paths = {getattr(route, "path", None) for route in getattr(app, "routes", ())}
    return "coordinator" if "/message" in paths else "federation" if "/symetry/rest/{cid}/fedml" in paths else None


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until a condition holds, and fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
