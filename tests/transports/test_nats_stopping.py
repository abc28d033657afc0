"""What is under way over NATS ends within a second, whatever the broker or the coordinator does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from nats_broker import run, running_broker

from pet.errors import TransportError
from pet.participant import AsyncParticipant, Participant, spawn_participant
from pet.participant.test_drive import DummyFleet
from pet.transports.nats import (
    AsyncNatsTransport,
    NatsConnection,
    NatsSettings,
    NatsTransport,
    Subjects,
    UploadOffer,
    connect,
)
from pet.transports.nats.frames import OpenAnswer

TLS = Path(__file__).parents[1] / "vectors" / "tls"
FEDERATION = "abcdefghijklmnop"
#: One second, and another for a machine that is busy.
SOON = 2


class Trainer(Participant):
    def train_round(self, training_input):
        return np.zeros(4, np.float32)


@pytest.fixture(params=["plain", "tls"])
def stopped(request, tmp_path) -> Iterator[tuple[NatsSettings, Callable[[], None]]]:
    """Settings of a broker, and what makes it hang."""
    server = TLS / "server.pem"
    config = f'tls {{ cert_file: "{server}", key_file: "{server}" }}' if request.param == "tls" else ""
    with running_broker(tmp_path / "broker", config) as broker:
        options = {"ca_file": TLS / "authority.pem"} if request.param == "tls" else {}
        yield (
            NatsSettings(hosts=(broker.url,), request_timeout_seconds=60, **options),
            lambda: broker.process.send_signal(signal.SIGSTOP),
        )
        broker.process.send_signal(signal.SIGCONT)


@pytest.fixture(params=[b"", b'INFO {"server_id":"'], ids=["hangs", "dribbles"])
def silent(request) -> Iterator[NatsSettings]:
    """Settings of something that takes connections and says next to nothing."""
    ends = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def hold(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for byte in request.param * 10:
                if ends.wait(0.1):
                    return
                connection.sendall(bytes([byte]))
            ends.wait(60)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=hold, args=(connection,)).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield NatsSettings(hosts=(f"nats://127.0.0.1:{listener.getsockname()[1]}",), request_timeout_seconds=60)
    ends.set()
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def stop_fleet(transport: NatsTransport, before: Callable[[], None] = lambda: None) -> None:
    fleet = DummyFleet(transport, 4, period_seconds=0.05)
    thread = threading.Thread(target=fleet.run)
    thread.start()
    time.sleep(0.5)
    before()
    time.sleep(0.3)
    assert thread.is_alive()
    started = time.monotonic()
    fleet.stop()
    thread.join(20)
    transport.close()
    assert time.monotonic() - started < SOON
    assert not any(thread.name == "pet-nats" for thread in threading.enumerate())


def test_a_fleet_stops_while_the_broker_hangs(stopped):
    settings, hang = stopped
    stop_fleet(NatsTransport(settings, FEDERATION), hang)


def test_a_fleet_stops_while_it_connects(silent):
    stop_fleet(NatsTransport(silent, FEDERATION))


def test_a_fleet_stops_while_the_broker_is_away():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"nats://127.0.0.1:{listener.getsockname()[1]}"
    stop_fleet(NatsTransport(NatsSettings(hosts=(address,), request_timeout_seconds=60), FEDERATION))


def test_a_thread_stops_and_its_transport_ends_it_while_the_broker_hangs(stopped):
    settings, hang = stopped
    transport = NatsTransport(settings, FEDERATION)
    with contextlib.suppress(TransportError):
        transport.get_parameters()
    hang()
    thread = spawn_participant(transport, Trainer)
    time.sleep(0.3)
    started = time.monotonic()
    thread.stop()
    transport.close()
    thread.join(20)
    assert time.monotonic() - started < SOON
    assert not thread.is_alive()


def test_an_asyncio_participant_stops_while_the_broker_hangs(stopped):
    settings, hang = stopped

    async def use() -> float:
        async with await connect(settings, "me") as connection:
            participant = AsyncParticipant(AsyncNatsTransport(connection, Subjects(FEDERATION)))
            hang()
            participant.start()
            await asyncio.sleep(0.3)
            started = time.monotonic()
            await participant.stop()
        return time.monotonic() - started

    assert run(use()) < SOON


@pytest.mark.parametrize("hangs", ["coordinator", "broker"])
def test_a_large_upload_is_given_up(tmp_path, hangs):
    """The coordinator takes the offer and no chunk; or the broker hangs with chunks on their way."""
    with running_broker(tmp_path / "broker") as broker:
        settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=60)
        begun = threading.Event()
        transport = NatsTransport(settings, FEDERATION, peer="me")
        errors: list[Exception] = []

        def send() -> None:
            try:
                transport.send_message(bytes(1 << 25))
            except TransportError as error:
                errors.append(error)

        async def use() -> float:
            async with await connect(settings, "coordinator") as connection:
                await take_offers(connection, begun)
                thread = threading.Thread(target=send)
                thread.start()
                await asyncio.to_thread(begun.wait, 20)
                if hangs == "broker":
                    broker.process.send_signal(signal.SIGSTOP)
                started = time.monotonic()
                await asyncio.to_thread(transport.close)
                await asyncio.to_thread(thread.join, 20)
                seconds = time.monotonic() - started
                broker.process.send_signal(signal.SIGCONT)
                return seconds

        assert run(use()) < SOON
        assert len(errors) == 1


async def take_offers(connection: NatsConnection, begun: threading.Event) -> None:
    """Give every offer a slot whose chunks are read, and never answered."""
    subjects = Subjects(FEDERATION)

    async def give_slot(subject: str, payload: bytes) -> bytes:
        offer = UploadOffer.from_bytes(payload)
        return OpenAnswer(
            slot="slot1", window=32, chunk_bytes=offer.chunk_bytes, have=bytes((offer.chunk_count + 7) // 8)
        ).to_bytes()

    async def keep(_: object) -> None:
        begun.set()

    await connection.serve(subjects.open_all, give_slot)
    await connection.subscribe(subjects.chunk("slot1"), keep)
