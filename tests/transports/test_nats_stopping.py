"""What is under way over NATS ends within a second, whatever the broker or the coordinator does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from nats_broker import Broker, run, running_broker
from participant_driver import live_settings, round_parameters

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.crypto import EncryptionKeyPair
from pet.errors import TransportError
from pet.messages import encode_sum_dictionary
from pet.participant import AsyncParticipant, Participant, spawn_participant
from pet.participant.test_drive import DummyFleet
from pet.transports.nats import (
    AsyncNatsTransport,
    Broadcasts,
    NatsConnection,
    NatsServer,
    NatsSettings,
    NatsTransport,
    Subjects,
    UploadOffer,
    connect,
)
from pet.transports.nats.frames import OpenAnswer

TLS = Path(__file__).parents[1] / "vectors" / "tls"
FEDERATION = "abcdefghijklmnop"
#: A message of 48 MB, more than a work queue of 32 MiB takes.
QUEUED_LENGTH = 8_000_000
SUMS = encode_sum_dictionary({b"s" * 32: EncryptionKeyPair.from_seed(bytes([9]) * 32).public_key})
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


class ToTheQueue:
    """The way to a coordinator whose round is known, for messages in mode `stream`."""

    def __init__(self, transport: NatsTransport) -> None:
        self.send_message, self.end_requests, self.close = transport.send_message, transport.end_requests, transport.close

    def get_parameters(self) -> bytes:
        return round_parameters("update", length=QUEUED_LENGTH).to_bytes()

    def get_sums(self) -> bytes:
        return SUMS

    def get_model(self, max_bytes: int | None = None) -> None:
        return None


class AsyncToTheQueue:
    """The same for asyncio."""

    def __init__(self, transport: AsyncNatsTransport) -> None:
        self.send_message = transport.send_message

    async def get_parameters(self) -> bytes:
        return round_parameters("update", length=QUEUED_LENGTH).to_bytes()

    async def get_sums(self) -> bytes:
        return SUMS

    async def aclose(self) -> None:
        pass


class LargeTrainer(Participant):
    def train_round(self, training_input):
        return np.zeros(QUEUED_LENGTH, np.float32)


@contextlib.asynccontextmanager
async def nearly_full_queue(broker: Broker) -> AsyncIterator[tuple[NatsSettings, asyncio.Event]]:
    """Settings of a broker whose work queue takes 32 MiB and that nobody reads, and what is set when a chunk is on its way."""
    settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=60, mode="stream", stream_max_bytes=1 << 25)
    subjects, begun = Subjects(FEDERATION), asyncio.Event()
    async with await connect(settings, "watcher") as connection:
        await Broadcasts(connection, subjects).create_streams()

        async def note(_: object) -> None:
            begun.set()

        await connection.subscribe(subjects.upload("me", "id").replace(".id", ".>"), note)
        yield settings, begun


@pytest.mark.parametrize("hangs", [True, False], ids=["broker hangs", "queue is full"])
def test_a_thread_stops_in_the_middle_of_a_stored_upload(tmp_path, hangs):
    with running_broker(tmp_path / "broker") as broker:

        async def use() -> float:
            async with nearly_full_queue(broker) as (settings, begun):
                transport = NatsTransport(settings, FEDERATION, peer="me")
                thread = spawn_participant(ToTheQueue(transport), LargeTrainer)
                await begun.wait()
                if hangs:
                    broker.process.send_signal(signal.SIGSTOP)
                started = time.monotonic()
                await asyncio.to_thread(thread.stop)
                await asyncio.to_thread(transport.close)
                await asyncio.to_thread(thread.join, 20)
                seconds = time.monotonic() - started
                broker.process.send_signal(signal.SIGCONT)
                assert not thread.is_alive()
                assert thread.status.phase == "sending_update"
                return seconds

        assert run(use()) < SOON


def test_an_asyncio_participant_stops_in_the_middle_of_a_stored_upload(tmp_path):
    with running_broker(tmp_path / "broker") as broker:

        async def use() -> float:
            async with nearly_full_queue(broker) as (settings, begun), await connect(settings, "me") as connection:
                participant = AsyncParticipant(AsyncToTheQueue(AsyncNatsTransport(connection, Subjects(FEDERATION))))
                participant.start()
                while not participant.is_model_wanted:
                    await asyncio.sleep(0.01)
                participant.set_local_model(np.zeros(QUEUED_LENGTH, np.float32))
                await begun.wait()
                broker.process.send_signal(signal.SIGSTOP)
                started = time.monotonic()
                await participant.stop()
                seconds = time.monotonic() - started
                broker.process.send_signal(signal.SIGCONT)
                return seconds

        assert run(use()) < SOON


def test_a_fleet_stops_in_the_middle_of_a_stored_upload(tmp_path):
    with running_broker(tmp_path / "broker") as broker:

        async def use() -> float:
            async with nearly_full_queue(broker) as (settings, begun):
                transport = NatsTransport(settings, FEDERATION, peer="me")
                fleet = DummyFleet(ToTheQueue(transport), 1, period_seconds=0.05)
                thread = threading.Thread(target=fleet.run)
                thread.start()
                await begun.wait()
                broker.process.send_signal(signal.SIGSTOP)
                started = time.monotonic()
                fleet.stop()
                await asyncio.to_thread(thread.join, 20)
                await asyncio.to_thread(transport.close)
                seconds = time.monotonic() - started
                broker.process.send_signal(signal.SIGCONT)
                assert not thread.is_alive()
                return seconds

        assert run(use()) < SOON


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


def test_a_server_that_is_cancelled_while_it_starts_or_stops_leaves_no_folder(tmp_path, monkeypatch):
    """At each step of its start, and of its end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def use(broker):
        settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=5)
        service = CoordinatorService(CoordinatorEngine(live_settings()))
        async with service, await connect(settings, "coordinator") as connection:
            for steps in range(40):
                starting = asyncio.create_task(NatsServer(service, connection, Subjects(FEDERATION)).__aenter__())
                for _ in range(steps):
                    await asyncio.sleep(0)
                while not starting.done() and not list(tmp_path.glob("pet-nats-*")) and steps > 20:
                    await asyncio.sleep(0.001)
                starting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    server = await starting
                    await server.stop()
                assert list(tmp_path.glob("pet-nats-*")) == []
            for steps in range(1, 20):  # before its first step it has not begun
                server = await NatsServer(service, connection, Subjects(FEDERATION)).__aenter__()
                stopping = asyncio.create_task(server.stop())
                for _ in range(steps):
                    await asyncio.sleep(0)
                stopping.cancel()
                await asyncio.wait({stopping})
                async with asyncio.timeout(30):
                    while list(tmp_path.glob("pet-nats-*")):
                        await asyncio.sleep(0.001)

    with running_broker(tmp_path / "broker") as broker:
        run(use(broker))
