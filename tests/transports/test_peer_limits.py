"""Requests and bytes of one peer in a second: what goes over has to wait, and succeeds afterwards."""

import asyncio

import httpx
from asgi_server import serving

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.transports.peer_limits import PeerLimits
from pet.transports.rates import BURST_SECONDS, MAX_NAMES, Rates


class Server:
    """The middleware around an application that reads what comes, on a clock of ours."""

    def __init__(self, requests_per_second=1.0, bytes_per_second=100.0):
        self.now = 0.0
        self.limits = PeerLimits(self._read, Rates(requests_per_second, bytes_per_second, lambda: self.now))

    async def _read(self, scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def request(self, size=0, peer="192.0.2.1"):
        """Return the status and, where there is one, when to come back."""
        sent = []

        async def receive():
            return {"type": "http.request", "body": bytes(size)}

        async def send(message):
            sent.append(message)

        asyncio.run(self.limits({"type": "http", "client": (peer, 1)}, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"]).get(b"retry-after")


def test_requests_are_counted_by_peer():
    server = Server()
    for _ in range(int(BURST_SECONDS)):
        assert server.request() == (200, None)
    assert server.request() == (429, b"1")
    assert server.request(peer="192.0.2.2") == (200, None)
    server.now += 0.9
    assert server.request() == (429, b"1")
    server.now += 0.2
    assert server.request() == (200, None)
    assert server.request() == (429, b"1")


def test_bytes_are_counted_when_they_come_and_no_body_is_cut():
    server = Server(requests_per_second=100.0)
    assert server.request(5000) == (200, None)  # five times what may come at once
    assert server.request() == (429, b"40")
    server.now += 39.9
    assert server.request() == (429, b"1")
    server.now += 0.2
    assert server.request() == (200, None)


def test_no_bound_is_no_bound():
    server = Server(float("inf"), float("inf"))
    for _ in range(100):
        server.now += 0.001
        assert server.request(10**6) == (200, None)


def test_peers_are_forgotten_when_there_are_too_many():
    server = Server()
    for number in range(MAX_NAMES + 10):
        server.limits._rates.take(str(number))
    assert len(server.limits._rates._buckets) == MAX_NAMES


def test_a_coordinator_tells_a_peer_to_wait_before_it_reads():
    app = create_app(Settings(service={"max_requests_per_second": 0.1}))
    with serving(app) as url:
        answers = [httpx.post(f"{url}/message", content=bytes(4000)) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 10


def test_a_coordinator_counts_bytes():
    app = create_app(Settings(service={"max_bytes_per_second": 500}))
    with serving(app) as url:
        statuses = [httpx.post(f"{url}/message", content=bytes(4000)).status_code for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
