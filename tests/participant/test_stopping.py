"""Participants of every kind stop within a second, whatever a coordinator does, over HTTP and TLS, and leave nothing open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from programs import free_port
from stalling_coordinator import TLS, StallingCoordinator, stalling_coordinator
from stopping import (
    SYN_SENT,
    Caught,
    address_that_swallows,
    connections_to,
    hanging_name,
    stop_fleet,
    stop_task,
    stop_thread,
    stop_ticks,
    threads_of_pet,
    wait_for,
)

from pet.errors import TransportError
from pet.participant import TickParticipant
from pet.transports.http import HttpTransport

SLOW_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 136\r\n\r\n" + bytes(136)


def stop_task_and_loop(url: str, caught: Caught) -> bytes:
    return asyncio.run(stop_task(url, caught))


def stop_fleet_at(url: str, caught: Caught) -> None:
    stop_fleet(HttpTransport(url), caught)


KINDS = {"thread": stop_thread, "asyncio": stop_task_and_loop, "ticks": stop_ticks, "test-drive": stop_fleet_at}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def stop(request) -> Iterator[Callable[[str, Caught], bytes | None]]:
    """What makes a participant of one kind, and stops it when it is caught."""
    yield request.param
    assert threads_of_pet() == []


@pytest.fixture(autouse=True)
def trusted(monkeypatch) -> None:
    """Trust the authority of the tests, and no other."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))


@dataclass
class Listener:
    """Something that takes connections: without TLS though it was asked for it, or with it, and answers little or nothing."""

    answer: bytes = b""
    context: ssl.SSLContext | None = None
    asked: threading.Event = field(default_factory=threading.Event)
    ends: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self.hold, args=(connection,)).start()

    def hold(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self.context is not None:
                connection = stack.enter_context(self.context.wrap_socket(connection, server_side=True))
            connection.recv(65536)  # a request, or the beginning of a handshake
            self.asked.set()
            for byte in self.answer:
                if self.ends.wait(0.1):
                    return
                connection.sendall(bytes([byte]))
            self.ends.wait(120)


@contextlib.contextmanager
def listening(answer: bytes = b"", *, is_tls: bool = False) -> Iterator[tuple[int, threading.Event]]:
    """Yields a port, and what is set when something was asked."""
    context = None
    if is_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "server.pem")
    held = Listener(answer, context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=held.serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1], held.asked
        held.ends.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(60)


@pytest.mark.parametrize(
    ("scheme", "answer", "is_tls"),
    [("http", b"", False), ("https", SLOW_ANSWER, True), ("https", b"", False)],
    ids=["hangs", "dribbles over TLS", "hangs in the handshake"],
)
def test_they_stop_while_a_coordinator_hangs(stop, scheme, answer, is_tls):
    with listening(answer, is_tls=is_tls) as (port, asked):
        state = stop(f"{scheme}://127.0.0.1:{port}", lambda _: asked.wait(60))
        assert connections_to(port) == set()
    if state is not None:
        TickParticipant.restore(state, "http://127.0.0.1:1").close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_they_stop_while_nobody_answers_their_connecting(stop, scheme):
    with address_that_swallows() as port:
        before = connections_to(port)
        stop(f"{scheme}://127.0.0.1:{port}", lambda _: wait_for(lambda: connections_to(port, SYN_SENT) - before))
        assert connections_to(port) <= before


def test_they_stop_while_a_name_is_looked_up(monkeypatch, stop):
    with hanging_name(monkeypatch, "coordinator.test") as asked:
        stop("https://coordinator.test", lambda _: asked.wait(60))


def test_they_stop_while_the_coordinator_is_away(stop):
    port = free_port()
    stop(f"http://127.0.0.1:{port}", wait_for)
    assert connections_to(port) == set()


@pytest.fixture(params=[False, True], ids=["HTTP", "TLS"])
def stalling(request) -> Iterator[StallingCoordinator]:
    with stalling_coordinator(is_tls=request.param) as coordinator:
        yield coordinator


def test_they_stop_in_the_middle_of_an_upload(stop, stalling):
    state = stop(stalling.url, lambda _: stalling.uploading.wait(60))
    assert stalling.read_on()
    if state is not None:
        assert TickParticipant.restore(state, "http://127.0.0.1:1").status.phase == "sending_update"


def test_a_transport_gives_up_a_large_upload():
    """The coordinator reads the beginning of a message, and then nothing."""
    errors: list[Exception] = []

    def send() -> None:
        try:
            transport.send_message(bytes(1 << 26))
        except TransportError as error:
            errors.append(error)

    with listening(SLOW_ANSWER, is_tls=True) as (port, asked):
        transport = HttpTransport(f"https://127.0.0.1:{port}")
        thread = threading.Thread(target=send)
        thread.start()
        assert asked.wait(60)
        transport.close()
        thread.join(60)
        assert not thread.is_alive()
        assert connections_to(port) == set()
    assert len(errors) == 1
