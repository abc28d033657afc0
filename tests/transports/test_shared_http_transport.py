"""A transport that threads, or tasks, share: no request is lost, and none is sent twice."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import select
import socket
import threading
import time
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from pet.errors import TransportError
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.idle_clients import MAX_IDLE_SECONDS, IdleClients

#: More than the connections that httpx keeps in a pool (20): of those beyond, it closes any that looks idle.
CALLERS = 32
REQUESTS = 10


class Counting(BaseHTTPRequestHandler):
    """Takes messages, and counts how often each arrived."""

    protocol_version = "HTTP/1.1"
    arrived: ClassVar[collections.Counter[bytes]] = collections.Counter()
    connections: ClassVar[set[socket.socket]] = set()
    #: The first messages are answered together, so that there is a connection for each caller.
    together = threading.Barrier(CALLERS)

    def setup(self) -> None:
        super().setup()
        self.connections.add(self.connection)

    def finish(self) -> None:
        super().finish()
        self.connections.discard(self.connection)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.arrived[body] += 1
        if body.endswith(b"/0"):
            self.together.wait(60)
        time.sleep(0.003)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    request_queue_size = 2 * CALLERS

    def handle_error(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    Counting.arrived.clear()
    with Server(("127.0.0.1", 0), Counting) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


turns = itertools.count()


def interrupt(frame: types.FrameType, event: str, _: object) -> None:
    """Interrupt threads before they use a connection, and now and then between finding one idle and looking at its socket."""
    if event != "call" or "httpcore" not in frame.f_code.co_filename:
        return
    if frame.f_code.co_name == "wait_for_connection":
        time.sleep(0.001)
    elif frame.f_code.co_name == "get_extra_info" and frame.f_locals["info"] == "is_readable" and next(turns) % 4 == 0:
        time.sleep(0.01)


@pytest.fixture
def one_core() -> Iterator[None]:
    """One core, and threads that are interrupted where others may do harm."""
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(affinity)})
    threading.settrace(interrupt)
    yield
    threading.settrace(None)
    os.sched_setaffinity(0, affinity)


def message(caller: int, number: int) -> bytes:
    return f"{caller}/{number}".encode()


ONCE = {message(caller, number): 1 for caller in range(CALLERS) for number in range(REQUESTS)}


def test_a_caller_does_not_close_the_connection_that_another_begins_to_use(server):
    """The second looks at the connections between the moment the first is given one and the moment it reads its answer."""
    begins, looks, is_done = threading.Event(), threading.Event(), threading.Event()
    errors: list[Exception] = []

    def hold(frame: types.FrameType, event: str, _: object) -> None:
        if event != "call" or "httpcore" not in frame.f_code.co_filename:
            return
        match threading.current_thread().name, frame.f_code.co_name:
            case "first", "wait_for_connection":
                begins.set()
                looks.wait(60)
            case "first", "read":
                is_done.wait(60)
            case "second", "get_extra_info" if frame.f_locals["info"] == "is_readable":
                looks.set()
                select.select([frame.f_locals["self"]._sock], [], [], 1)  # until the answer of the first is there

    def send(body: bytes) -> None:
        try:
            transport.send_message(body)
        except Exception as error:
            errors.append(error)

    def send_second() -> None:
        send(b"second/1")
        looks.set()
        is_done.set()

    with contextlib.closing(HttpTransport(server)) as transport:
        transport.send_message(b"a connection that is kept")
        threading.settrace(hold)
        try:
            first = threading.Thread(target=send, args=(b"first/1",), name="first")
            second = threading.Thread(target=send_second, name="second")
            first.start()
            assert begins.wait(60)
            second.start()
        finally:
            threading.settrace(None)
        first.join(60)
        second.join(60)
    assert errors == []
    assert set(Counting.arrived.values()) == {1}


@pytest.mark.usefixtures("one_core")
def test_every_request_of_many_threads_arrives_once(server):
    errors: list[Exception] = []

    def send(transport: HttpTransport, caller: int) -> None:
        for number in range(REQUESTS):
            try:
                transport.send_message(message(caller, number))
            except Exception as error:
                errors.append(error)

    with contextlib.closing(HttpTransport(server)) as transport:
        threads = [threading.Thread(target=send, args=(transport, caller)) for caller in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert Counting.arrived == ONCE


@pytest.mark.usefixtures("one_core")
def test_every_request_of_many_tasks_arrives_once(server):
    async def run() -> None:
        transport = AsyncHttpTransport(server)

        async def send(caller: int) -> None:
            for number in range(REQUESTS):
                await transport.send_message(message(caller, number))

        await asyncio.gather(*(send(caller) for caller in range(CALLERS)))
        await transport.aclose()

    asyncio.run(run())
    assert Counting.arrived == ONCE


def test_closing_leaves_no_connection_open(server):
    transport = HttpTransport(server)
    barrier = threading.Barrier(4)

    def send() -> None:
        barrier.wait()
        transport.send_message(b"x")

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counting.connections
    transport.close()
    deadline = time.monotonic() + 10
    while Counting.connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Counting.connections


def test_a_call_after_the_end_is_refused(server):
    transport = HttpTransport(server)
    transport.close()
    transport.close()
    with pytest.raises(TransportError, match="expected an open transport"):
        transport.send_message(b"x")


def test_clients_that_nobody_used_for_long_are_closed():
    seconds = [0.0]
    made = itertools.count()
    clients = IdleClients(lambda: next(made), lambda: seconds[0])
    first, second, third = clients.take(), clients.take(), clients.take()
    assert clients.put_back(first) == []
    seconds[0] = MAX_IDLE_SECONDS
    assert clients.put_back(second) == []
    assert clients.take() == second  # the one that was used last: the others may then expire
    seconds[0] += 0.5
    assert clients.put_back(second) == [first]
    assert clients.close() == [second]
    assert clients.put_back(third) == [third]


def test_a_connection_that_is_made_when_requests_end_is_not_used(server):
    """The end comes while a thread connects: it must not go on to wait for an answer."""
    transport = HttpTransport(server)
    add = transport._connections.add

    def end_before(connection: socket.socket) -> None:
        transport.end_requests()
        add(connection)

    transport._connections.add = end_before
    with pytest.raises(TransportError, match="expected an answer"):
        transport.send_message(b"never")
    transport.close()
    assert Counting.arrived[b"never"] == 0
