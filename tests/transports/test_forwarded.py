"""X-Forwarded-For: from a proxy that was named it says who asks, from anybody else nothing, and a warning once."""

import asyncio
import logging

import httpx
import pytest
from asgi_server import serving

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.transports.forwarded import ForwardedPeers
from pet.transports.peers import parse_network

PROXIES = [parse_network(text) for text in ("127.0.0.1", "10.0.0.0/8", "fd00::/8")]


def sender(peer, *values, trusted=PROXIES):
    """Return the address that the application sees."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["client"])

    headers = [(b"host", b"x"), *((b"x-forwarded-for", value.encode("latin-1")) for value in values)]
    scope = {"type": "http", "headers": headers, "client": (peer, 5) if peer else None}
    asyncio.run(ForwardedPeers(app, trusted, "service.trusted_proxies")(scope, None, None))
    return seen[0][0] if seen[0] else None


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:127.0.0.1", ["::ffff:192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["198.51.100.7, 192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["198.51.100.7, 192.0.2.1, 10.1.2.3"], "192.0.2.1"),
        ("127.0.0.1", ["198.51.100.7", "192.0.2.1, 10.1.2.3"], "192.0.2.1"),
        ("fd00::1", ["10.1.2.3, 10.1.2.4"], "10.1.2.3"),
        ("127.0.0.1", ["nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1, nonsense, 10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1" + ",10.1.2.3" * 100], "10.1.2.3"),
        ("127.0.0.2", ["192.0.2.1"], "127.0.0.2"),
        ("2001:db8::1", ["192.0.2.1"], "2001:db8::1"),
        ("testclient", ["192.0.2.1"], "testclient"),
        (None, ["192.0.2.1"], None),
    ],
)
def test_who_asks(peer, values, expected):
    assert sender(peer, *values) == expected


def test_without_proxies_the_header_says_nothing():
    assert sender("127.0.0.1", "192.0.2.1", trusted=[]) == "127.0.0.1"


def test_who_sends_it_without_being_a_proxy_causes_one_line(caplog):
    async def app(scope, receive, send):
        pass

    forwarded = ForwardedPeers(app, PROXIES, "service.trusted_proxies")
    scope = {"type": "http", "headers": [(b"x-forwarded-for", b"192.0.2.1")], "client": ("127.0.0.2", 5)}
    for _ in range(100):
        asyncio.run(forwarded(scope, None, None))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            "X-Forwarded-For from 127.0.0.2 is ignored, from now on without a word: it is not among service.trusted_proxies",
        )
    ]


@pytest.mark.parametrize("text", ["", "proxy.example", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0 10.0.0.1"])
def test_what_is_no_network(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_network(text)


@pytest.mark.parametrize(("proxies", "is_limited"), [([], True), (["192.0.2.0/24"], True), (["127.0.0.0/8"], False)])
def test_limits_of_a_coordinator_are_of_who_asks(proxies, is_limited):
    """A peer that says of itself to be another one each time has the limit of one."""
    app = create_app(Settings(service={"max_requests_per_second": 1, "trusted_proxies": proxies}))
    with serving(app, proxy_headers=False) as url, httpx.Client(base_url=url, timeout=30) as client:
        answers = [client.get("/healthz", headers={"X-Forwarded-For": f"198.51.100.{n}"}).status_code for n in range(60)]
    assert (429 in answers) == is_limited
