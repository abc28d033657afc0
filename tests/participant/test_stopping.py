"""Participants stop within a second, whatever the coordinator does with the request under way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from stalling_coordinator import LENGTH, TLS, StallingCoordinator, Zeros, stalling_coordinator

from pet.errors import TransportError
from pet.participant import AsyncParticipant, Participant, TickParticipant, spawn_participant
from pet.participant.test_drive import DummyFleet
from pet.transports.http import HttpTransport


class Trainer(Participant):
    def train_round(self, training_input):
        return np.zeros(4, np.float32)


def serve(
    listener: socket.socket, answer: bytes, asked: threading.Event, ends: threading.Event, context: ssl.SSLContext | None
) -> None:
    """Take every connection and request, and answer a byte every tenth of a second, or nothing at all."""

    def hold(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if context is not None:
                connection = stack.enter_context(context.wrap_socket(connection, server_side=True))
            connection.recv(65536)
            asked.set()
            for byte in answer:
                if ends.wait(0.1):
                    return
                connection.sendall(bytes([byte]))
            ends.wait(60)

    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=hold, args=(connection,)).start()


SLOW_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 136\r\n\r\n" + bytes(136)


@pytest.fixture
def trusted(monkeypatch) -> None:
    """Trust the authority of the tests, and no other."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))


@pytest.fixture(
    params=[("http", b""), ("http", SLOW_ANSWER), ("https", SLOW_ANSWER)], ids=["hangs", "dribbles", "dribbles over TLS"]
)
def hanging(request, trusted) -> Iterator[tuple[str, threading.Event]]:
    scheme, answer = request.param
    asked, ends = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    context = None
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "server.pem")
    thread = threading.Thread(target=serve, args=(listener, answer, asked, ends, context))
    thread.start()
    yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", asked
    ends.set()
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def test_a_thread_stops_within_a_second(hanging):
    url, asked = hanging
    thread = spawn_participant(url, Trainer)
    assert asked.wait(10)
    started = time.monotonic()
    state = thread.stop()
    assert time.monotonic() - started < 2  # one second, and another for a machine that is busy
    assert thread.stop() == state
    thread.join(10)
    assert not thread.is_alive()
    assert thread.error is None
    again = spawn_participant("http://127.0.0.1:1", Trainer, state=state)
    assert again.name == thread.name
    again.stop()


def test_an_asyncio_participant_stops_within_a_second(hanging):
    url, asked = hanging

    async def run() -> float:
        participant = AsyncParticipant(url)
        participant.start()
        await asyncio.to_thread(asked.wait, 10)
        started = time.monotonic()
        state = await participant.stop()
        assert await participant.stop() == state
        return time.monotonic() - started

    assert asyncio.run(run()) < 2


def test_a_fleet_stops_within_a_second(hanging):
    url, asked = hanging
    with contextlib.closing(HttpTransport(url)) as transport:
        fleet = DummyFleet(transport, 4)
        thread = threading.Thread(target=fleet.run)
        thread.start()
        assert asked.wait(10)
        started = time.monotonic()
        fleet.stop()
        thread.join(20)
        assert time.monotonic() - started < 2


@pytest.fixture
def away() -> Iterator[str]:
    """The URL of a host that answers no attempt to connect: its queue of new connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_fleet_stops_within_a_second_while_it_connects(away):
    with contextlib.closing(HttpTransport(away, timeout_seconds=5)) as transport:
        fleet = DummyFleet(transport, 4)
        thread = threading.Thread(target=fleet.run)
        thread.start()
        time.sleep(0.3)
        assert thread.is_alive()
        started = time.monotonic()
        fleet.stop()
        thread.join(20)
        assert time.monotonic() - started < 2


def test_a_thread_stops_within_a_second_while_it_connects(away):
    thread = spawn_participant(HttpTransport(away, timeout_seconds=5), Trainer)
    time.sleep(0.3)
    started = time.monotonic()
    thread.stop()
    assert time.monotonic() - started < 2
    thread.join(20)
    assert not thread.is_alive()


def test_a_large_upload_is_given_up(hanging):
    """The coordinator reads the beginning of a message, and then nothing."""
    url, asked = hanging
    errors: list[Exception] = []

    def send() -> None:
        try:
            transport.send_message(bytes(1 << 26))
        except TransportError as error:
            errors.append(error)

    transport = HttpTransport(url)
    thread = threading.Thread(target=send)
    thread.start()
    assert asked.wait(10)
    started = time.monotonic()
    transport.close()
    thread.join(20)
    assert time.monotonic() - started < 2
    assert len(errors) == 1


@pytest.fixture(params=[False, True], ids=["HTTP", "TLS"])
def stalling(request, trusted) -> Iterator[StallingCoordinator]:
    with stalling_coordinator(is_tls=request.param) as coordinator:
        yield coordinator


def test_a_thread_stops_in_the_middle_of_an_upload(stalling):
    thread = spawn_participant(stalling.url, Zeros)
    assert stalling.uploading.wait(60)
    started = time.monotonic()
    state = thread.stop()
    assert time.monotonic() - started < 2
    thread.join(10)
    assert not thread.is_alive()
    assert thread.error is None
    assert stalling.read_on()
    assert TickParticipant.restore(state, "http://127.0.0.1:1").status.phase == "sending_update"


def test_an_asyncio_participant_stops_in_the_middle_of_an_upload(stalling):
    async def run() -> float:
        participant = AsyncParticipant(stalling.url)
        participant.start()
        async with asyncio.timeout(60):
            while not participant.is_model_wanted:
                await asyncio.sleep(0.01)
            participant.set_local_model(np.zeros(LENGTH, np.float32))
            assert await asyncio.to_thread(stalling.uploading.wait, 60)
            started = time.monotonic()
            await participant.stop()
            seconds = time.monotonic() - started
            assert await asyncio.to_thread(stalling.read_on)
            return seconds

    assert asyncio.run(run()) < 2


def test_a_fleet_stops_in_the_middle_of_an_upload(stalling):
    with contextlib.closing(HttpTransport(stalling.url)) as transport:
        fleet = DummyFleet(transport, 1)
        thread = threading.Thread(target=fleet.run)
        thread.start()
        assert stalling.uploading.wait(60)
        started = time.monotonic()
        fleet.stop()
        thread.join(20)
        assert time.monotonic() - started < 2
        assert stalling.read_on()
