"""What is under way over NATS ends within a second, whatever the broker or the coordinator does, and leaves nothing open."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nats_broker import run, running_broker
from participant_driver import live_settings
from programs import free_port
from stalling_broker import FEDERATION, announced_round
from stopping import (
    SOON,
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

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.errors import TransportError
from pet.participant import TickParticipant
from pet.transports.nats import (
    AsyncNatsTransport,
    NatsServer,
    NatsSettings,
    NatsTransport,
    Subjects,
    UploadOffer,
    connect,
)
from pet.transports.nats.frames import ChunkHeader, OpenAnswer

TLS = Path(__file__).parents[1] / "vectors" / "tls"
BLOCKING = {"thread": stop_thread, "ticks": stop_ticks, "test-drive": stop_fleet}
SAYS_TLS = b'INFO {"server_id":"silent","version":"2.10.0","proto":1,"max_payload":1048576,"tls_required":true}\r\n'


@pytest.fixture(params=[*BLOCKING, "asyncio"])
def stop(request) -> Iterator[Callable[[NatsSettings, Caught], bytes | None]]:
    """What makes a participant of one kind, and stops it when it is caught."""

    def stop_over_nats(settings: NatsSettings, caught: Caught) -> bytes | None:
        async def use() -> bytes:
            async with await connect(settings, "me") as connection:
                return await stop_task(AsyncNatsTransport(connection, Subjects(FEDERATION)), caught)

        if request.param == "asyncio":
            return run(use(), 150)
        return BLOCKING[request.param](NatsTransport(settings, FEDERATION, peer="me"), caught)

    yield stop_over_nats
    assert threads_of_pet() == []


@pytest.mark.parametrize("way", ["plain", "TLS"])
def test_they_stop_while_the_broker_hangs(tmp_path, stop, way):
    server = TLS / "server.pem"
    config = f'tls {{ cert_file: "{server}", key_file: "{server}" }}' if way == "TLS" else ""
    with running_broker(tmp_path / "broker", config) as broker:
        options = {"ca_file": TLS / "authority.pem"} if way == "TLS" else {}

        def hang(last_error: Callable[[], object]) -> None:
            wait_for(last_error)  # nothing is announced: the broker answers so far
            broker.process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)  # most stop in a request that is not answered, some before it

        stop(NatsSettings(hosts=(broker.url,), request_timeout_seconds=60, **options), hang)
        assert connections_to(broker.port) == set()
        broker.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(("mode", "hangs"), [("direct", False), ("stream", True)], ids=["direct", "stream, the broker hangs"])
def test_they_stop_in_the_middle_of_an_upload(tmp_path, stop, mode, hangs):
    check_upload(tmp_path, stop, mode, hangs=hangs)


@pytest.mark.parametrize("stop", ["thread"], indirect=True)
@pytest.mark.parametrize(
    ("mode", "hangs"), [("direct", True), ("stream", False)], ids=["direct, the broker hangs", "queue full"]
)
def test_one_stops_in_the_middle_of_other_uploads(tmp_path, stop, mode, hangs):
    check_upload(tmp_path, stop, mode, hangs=hangs)


def check_upload(folder: Path, stop: Callable[[NatsSettings, Caught], bytes | None], mode: Any, *, hangs: bool) -> None:
    with running_broker(folder / "broker") as broker:
        settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=60, mode=mode)
        with announced_round(settings) as begun:
            before = connections_to(broker.port)

            def wait(_: object) -> None:
                assert begun.wait(60)
                if hangs:
                    broker.process.send_signal(signal.SIGSTOP)

            state = stop(settings, wait)
            assert connections_to(broker.port) == before
            broker.process.send_signal(signal.SIGCONT)
    if state is not None:
        assert TickParticipant.restore(state, "http://127.0.0.1:1").status.phase == "sending_update"


@dataclass
class Obstacle:
    """What keeps a client from connecting: its settings, what waits until it has got there, and what is open before."""

    settings: NatsSettings
    port: int
    wait: Callable[[], object]
    before: set[str]


@contextlib.contextmanager
def listening(says: bytes, *, asks_for_tls: bool = False, is_slow: bool = False) -> Iterator[Obstacle]:
    """Take connections, say something, and then nothing."""
    ends, asked = threading.Event(), threading.Event()

    def hold(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for piece in [bytes([byte]) for byte in says] if is_slow else [says]:
                connection.sendall(piece)
                if is_slow:
                    asked.set()
                    if ends.wait(0.1):
                        return
            if asks_for_tls:
                connection.recv(1)  # the beginning of a handshake
            asked.set()
            ends.wait(120)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=hold, args=(connection,)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=serve)
        thread.start()
        yield Obstacle(settings_for(port, is_tls=asks_for_tls), port, lambda: asked.wait(60), set())
        ends.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(60)


def settings_for(port: int, *, is_tls: bool = False, host: str = "127.0.0.1") -> NatsSettings:
    options = {"ca_file": TLS / "authority.pem"} if is_tls else {}
    return NatsSettings(hosts=(f"nats://{host}:{port}",), request_timeout_seconds=60, **options)


@contextlib.contextmanager
def swallowing() -> Iterator[Obstacle]:
    with address_that_swallows() as port:
        before = connections_to(port)
        yield Obstacle(settings_for(port), port, lambda: wait_for(lambda: connections_to(port, SYN_SENT) - before), before)


@contextlib.contextmanager
def away() -> Iterator[Obstacle]:
    port = free_port()
    yield Obstacle(settings_for(port), port, lambda: time.sleep(0.1), set())


OBSTACLES = {
    "no INFO": lambda: listening(b""),
    "INFO a byte at a time": lambda: listening(SAYS_TLS, is_slow=True),
    "no TLS handshake": lambda: listening(SAYS_TLS, asks_for_tls=True),
    "no TCP": swallowing,
    "away": away,
}


@pytest.fixture(params=OBSTACLES.values(), ids=OBSTACLES)
def obstacle(request) -> Iterator[Obstacle]:
    with request.param() as found:
        yield found
        assert connections_to(found.port) <= found.before


@pytest.mark.parametrize("stop", BLOCKING, indirect=True)
def test_they_stop_while_they_connect(stop, obstacle):
    stop(obstacle.settings, lambda _: obstacle.wait())


def test_connecting_can_be_cancelled(obstacle):
    async def use() -> None:
        connecting = asyncio.create_task(connect(obstacle.settings, "me"))
        await asyncio.to_thread(obstacle.wait)
        started = time.monotonic()
        connecting.cancel()
        await asyncio.wait({connecting})
        assert time.monotonic() - started < SOON
        assert connecting.cancelled()

    run(use(), 150)


@pytest.mark.parametrize("stop", BLOCKING, indirect=True)
def test_they_stop_while_a_name_is_looked_up(monkeypatch, stop):
    with hanging_name(monkeypatch, "broker.test") as asked:
        stop(settings_for(4222, is_tls=True, host="broker.test"), lambda _: asked.wait(60))


def test_a_loop_ends_while_a_name_is_looked_up(monkeypatch):
    async def use() -> float:
        connecting = asyncio.create_task(connect(settings_for(4222, is_tls=True, host="broker.test"), "me"))
        await asyncio.to_thread(asked.wait, 60)
        started = time.monotonic()
        connecting.cancel()
        await asyncio.wait({connecting})
        return started

    with hanging_name(monkeypatch, "broker.test") as asked:
        started = run(use(), 150)
        assert time.monotonic() - started < SOON


@pytest.mark.parametrize("hangs", ["coordinator", "broker"])
def test_a_transport_gives_up_a_large_upload(tmp_path, hangs):
    """The coordinator takes the offer and no chunk; or the broker hangs with chunks on their way."""
    errors: list[Exception] = []

    def send() -> None:
        try:
            transport.send_message(bytes(1 << 25))
        except TransportError as error:
            errors.append(error)

    with running_broker(tmp_path / "broker") as broker:
        settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=60)
        with announced_round(settings) as begun:
            transport = NatsTransport(settings, FEDERATION, peer="me")
            thread = threading.Thread(target=send)
            thread.start()
            assert begun.wait(60)
            if hangs == "broker":
                broker.process.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            transport.close()
            thread.join(60)
            assert time.monotonic() - started < SOON
            broker.process.send_signal(signal.SIGCONT)
    assert len(errors) == 1


def test_a_server_that_is_cancelled_while_it_stops_gives_back_what_uploads_held(tmp_path):
    """At each step of its end, while an upload is half there."""

    async def use(broker):
        settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=30)
        service = CoordinatorService(CoordinatorEngine(live_settings()))
        subjects, chunk = Subjects(FEDERATION), bytes(40)
        async with service, await connect(settings, "coordinator") as connection:
            for steps in range(1, 20):  # before its first step it has not begun
                server = await NatsServer(service, connection, subjects).__aenter__()
                offer = UploadOffer(
                    upload_id=bytes(16), size_bytes=80, sha256=bytes(32), kind="pet", round="", chunk_bytes=len(chunk)
                )
                answer = OpenAnswer.from_bytes(await connection.request(subjects.open("peer"), offer.to_bytes()))
                header = ChunkHeader(offer.upload_id, 0, 2, offer.size_bytes).to_bytes()
                await connection.request(subjects.chunk(answer.slot), header + chunk)
                assert service.memory_in_flight_bytes == offer.size_bytes
                stopping = asyncio.create_task(server.stop())
                for _ in range(steps):
                    await asyncio.sleep(0)
                stopping.cancel()
                await asyncio.wait({stopping})
                async with asyncio.timeout(30):
                    while service.memory_in_flight_bytes:
                        await asyncio.sleep(0.001)

    with running_broker(tmp_path) as broker:
        run(use(broker))
