"""Uploads over NATS and over HTTP share one spool: what one holds the other cannot have, and metrics count both."""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from asgi_server import serving, wait_until
from nats_broker import FEDERATION, run, running_broker

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.transports.nats import NatsSettings, Subjects, UploadOffer, connect
from pet.transports.nats.frames import ChunkHeader, OpenAnswer

MIB = 2**20
LARGE = 2 * MIB  # one fits into the spool below, two do not
CHUNK = 500_000


@pytest.fixture
def served(tmp_path):
    with running_broker(tmp_path / "broker") as broker:
        settings = Settings(
            model={"length": 1_000_000},
            service={"max_spool_bytes": 3 * MIB, "spool_folder": tmp_path / "spool", "stall_seconds": 1},
            nats={"hosts": broker.url, "federation_id": FEDERATION},
            metrics={"prometheus": True},
        )
        app = create_app(settings)
        with serving(app) as url:
            yield broker, app.state.service, url


def figure(url, name):
    (line,) = (line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.rpartition(" ")[0] == name)
    return float(line.split()[1])


@contextlib.contextmanager
def half_sent_over_http(url):
    """Send more of a body than stays in memory, and no more."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(f"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n".encode())
        connection.sendall(bytes(MIB + MIB // 2))
        yield


def over_nats(broker, size_bytes, use):
    """Offer an upload over NATS and send its first chunk, if it gets a slot; `use(has_slot)` meanwhile."""

    async def send():
        subjects = Subjects(FEDERATION)
        async with await connect(NatsSettings(hosts=(broker.url,), request_timeout_seconds=30), "peer") as connection:
            offer = UploadOffer(upload_id=bytes(16), size_bytes=size_bytes, sha256=b"", kind="pet", round="", chunk_bytes=CHUNK)
            answer = OpenAnswer.from_bytes(await connection.request(subjects.open("peer"), offer.to_bytes()))
            if answer.slot:
                header = ChunkHeader(offer.upload_id, 0, offer.chunk_count, size_bytes).to_bytes()
                await connection.request(subjects.chunk(answer.slot), header + bytes(CHUNK))
            use(bool(answer.slot))

    run(send())


def test_what_nats_holds_in_the_spool_http_cannot_have(served):
    broker, service, url = served

    def look(has_slot):
        assert has_slot
        assert figure(url, "pet_spooled_bytes") == LARGE
        refused = httpx.post(f"{url}/message", content=bytes(LARGE))
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert httpx.post(f"{url}/message", content=bytes(1000)).status_code == 200
        assert service.spool.used_bytes == LARGE

    over_nats(broker, LARGE, look)


def test_what_nats_left_makes_way_for_http(served):
    """A part of an upload whose sender is gone stays on the disk, and counts, until somebody needs the room."""
    broker, service, url = served
    over_nats(broker, LARGE, lambda has_slot: None)
    wait_until(lambda: service.spool.has_room(LARGE), 60)
    assert figure(url, "pet_spooled_bytes") == LARGE
    assert len(list(service.spool.folder.glob("nats/*"))) == 2
    assert httpx.post(f"{url}/message", content=bytes(LARGE)).status_code == 200
    wait_until(lambda: service.spool.used_bytes == 0)
    assert list(service.spool.folder.glob("nats/*")) == []


def test_what_http_holds_nats_cannot_have(served):
    broker, service, url = served
    with half_sent_over_http(url):
        wait_until(lambda: service.spool.used_bytes == LARGE)
        over_nats(broker, LARGE, lambda has_slot: pytest.fail("got a slot") if has_slot else None)
        assert figure(url, 'pet_nats_uploads_refused_total{reason="no_room"}') == 1
        assert figure(url, "pet_spooled_bytes") == LARGE
    wait_until(lambda: service.spool.used_bytes == 0)
