"""What commands that serve have in common: how connections are accepted that come all at once."""

import contextlib
import io
import socket
import threading
from pathlib import Path

import pytest
import uvicorn
from asgi_server import wait_until
from rich.console import Console

from pet.commands.serving import ACCEPTED_AT_ONCE, Server, listen
from pet.transports.guarded_http import guarded_protocol
from pet.transports.open_connections import ConnectionLimits

COUNT = 600


def descriptor_count():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors as Linux shows them")
def test_connections_that_come_all_at_once_need_few_descriptors():
    """asyncio would accept all that wait before the first of them is closed, and could find no descriptor for the next."""
    is_busy, may_go_on, descriptors = threading.Event(), threading.Event(), []
    limits = ConnectionLimits(max_connections=4, header_seconds=60.0, max_header_bytes=2**16)

    class Counting(guarded_protocol(limits)):
        def connection_made(self, transport):
            descriptors.append(descriptor_count())
            super().connection_made(transport)

    async def app(scope, receive, send):
        is_busy.set()
        may_go_on.wait(60)  # the whole server waits
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(
        app, http=Counting, ws="none", loop="asyncio", lifespan="off", log_config=None, backlog=ACCEPTED_AT_ONCE
    )
    server = Server(config, "listening", Console(file=io.StringIO()))
    with contextlib.closing(listen("127.0.0.1:0")) as listener, contextlib.ExitStack() as stack:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        stack.callback(thread.join, 60)
        stack.callback(setattr, server, "should_exit", True)
        stack.callback(may_go_on.set)
        address = listener.getsockname()
        first = stack.enter_context(socket.create_connection(address, 30))
        first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(is_busy.is_set, 30)
        for _ in range(COUNT):
            stack.enter_context(socket.create_connection(address, 30))  # the system holds all of them
        before = descriptor_count()
        may_go_on.set()
        wait_until(lambda: len(descriptors) == 1 + COUNT, 60)
    assert max(descriptors) - before <= 2 * ACCEPTED_AT_ONCE + 4
