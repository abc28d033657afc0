"""The proxies of the environment: what goes through them, and what cannot be used is an error of ours."""

import asyncio
import base64
import importlib.util
import socket
import threading

import pytest

from pet.errors import ConfigError, MissingExtraError, TransportError
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.proxies import proxy_for

OUTSIDE = "http://coordinator.invalid:8081/api"


@pytest.fixture(autouse=True)
def _allow_plain_http(monkeypatch):
    """Without TLS a coordinator elsewhere would be refused before any proxy is looked at."""
    monkeypatch.setenv("PET_ALLOW_INSECURE", "1")


def goes_direct(url, no_proxy):
    return proxy_for(url, {"http": "http://proxy:3128", "https": "http://proxy:3128", "no": no_proxy}) is None


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        (OUTSIDE, "*"),
        (OUTSIDE, "localhost, coordinator.invalid"),
        (OUTSIDE, "COORDINATOR.invalid."),
        (OUTSIDE, ".invalid"),
        (OUTSIDE, "*.invalid"),
        (OUTSIDE, "invalid"),
        (OUTSIDE, "coordinator.invalid:8081"),
        (OUTSIDE, "http://coordinator.invalid"),
        ("http://10.1.2.3", "10.0.0.0/8"),
        ("http://10.1.2.3", "10.1.2.3:80"),
        ("https://10.1.2.3", "10.1.2.3:443"),
        ("http://[fd00::1]:8081", "fd00::1"),
        ("http://[fd00::1]:8081", "[fd00::1]"),
        ("http://[fd00::1]:8081", "[fd00::1]:8081"),
        ("http://[fd00::1]:8081", "fd00::/8"),
        ("http://[fe80::1]:8081", "localhost,127.0.0.1,[::1],fe80::/10"),
        ("http://127.0.0.1:8081", ""),
        ("http://[::1]:8081", ""),
        ("http://localhost", ""),
    ],
)
def test_what_is_reached_directly(url, no_proxy):
    assert goes_direct(url, no_proxy)


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        (OUTSIDE, ""),
        (OUTSIDE, ",, ,"),
        (OUTSIDE, "."),
        (OUTSIDE, "[::1],fe80::/10,10.0.0.0/8"),
        (OUTSIDE, "coordinator.invalid:8082"),
        (OUTSIDE, "dinator.invalid"),
        ("http://10.1.2.3", "10.0.0.0/33,11.0.0.0/8,[,],:,/,%,://,[::1"),
        ("http://10.1.2.3", "::/0"),
        ("http://[fd00::1]", "0.0.0.0/0"),
    ],
)
def test_what_goes_through_the_proxy(url, no_proxy):
    assert not goes_direct(url, no_proxy)


def test_the_variable_of_the_scheme_goes_before_the_one_for_all():
    proxies = {"http": "one:1", "all": "http://two:2"}
    assert proxy_for("http://a", proxies).url == "http://one:1"
    assert proxy_for("https://a", proxies).url == "http://two:2"
    assert proxy_for("https://a", {"http": "one:1"}) is None


UNUSABLE = """
    http://me:sekret@proxy:99999 http://me:sekret@proxy:port http://me:se/kret@proxy ftp://me:sekret@proxy http://me:sekret@
    http://proxy:0 :// http://[::1 http://me:sekret@proxy/path http://proxy?sekret
"""


@pytest.mark.parametrize("transport", [HttpTransport, AsyncHttpTransport])
@pytest.mark.parametrize("text", [*UNUSABLE.split(), "http://me:sekret@pro xy"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "all_proxy"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch, transport, text, variable):
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError, match=rf"{variable.lower()}: expected http, https, .*of a proxy") as caught:
        transport(OUTSIDE)
    assert "kret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_without_its_package_says_what_to_install(monkeypatch, scheme):
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://me:sekret@proxy:1080")
    if importlib.util.find_spec("socksio") is not None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"socksio .*httpx\[socks\].*{scheme}://proxy:1080") as caught:
        HttpTransport(OUTSIDE)
    assert caught.value.name == "socksio"
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("entries", ["localhost,127.0.0.1,[::1],fe80::/10", "[", "::", "a b,é,%zz", "*x*"])
@pytest.mark.parametrize("transport", [HttpTransport, AsyncHttpTransport])
def test_no_list_of_exceptions_keeps_a_transport_from_being_made(monkeypatch, entries, transport):
    monkeypatch.setenv("NO_PROXY", entries)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    transport(OUTSIDE)


@pytest.fixture
def proxy():
    """A proxy that refuses the first request and keeps what it got."""
    received = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                received.append(connection.recv(1 << 16))
                connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], received
        thread.join(60)


@pytest.mark.parametrize("url", [OUTSIDE, "https://coordinator.invalid"])
@pytest.mark.parametrize("is_async", [False, True])
def test_the_password_of_a_proxy_is_used_and_not_shown(monkeypatch, proxy, url, is_async, caplog):
    port, received = proxy
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://me:s%65kret%20@127.0.0.1:{port}")
    with caplog.at_level("DEBUG"), pytest.raises(TransportError) as caught:
        asyncio.run(ask(url)) if is_async else HttpTransport(url).get_parameters()
    expected = base64.b64encode(b"me:sekret ")
    assert b"Proxy-Authorization: Basic " + expected in received[0]
    for text in (str(caught.value), repr(caught.value), repr(caught.value.__cause__), caplog.text):
        assert "kret" not in text
        assert expected.decode() not in text


async def ask(url):
    transport = AsyncHttpTransport(url)
    try:
        await transport.get_parameters()
    finally:
        await transport.aclose()
