"""How HTTP clients connect: to the address that answers, and through a proxy that speaks TLS itself."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stopping import address_that_swallows, connections_to

from pet.errors import TransportError
from pet.transports import http_options
from pet.transports.http import HttpTransport
from pet.transports.proxies import Proxy

TLS = Path(__file__).parents[1] / "vectors" / "tls"


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"p")

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Answering) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def resolve_to(monkeypatch: pytest.MonkeyPatch, name: str, *ports: int) -> None:
    look_up = socket.getaddrinfo

    def answer(host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host != name or options.get("flags"):
            return look_up(host, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_an_address_that_swallows_what_it_is_sent_does_not_keep_the_next_from_being_tried(monkeypatch):
    with address_that_swallows() as silent, serving() as port:
        before = connections_to(silent)
        resolve_to(monkeypatch, "coordinator.test", silent, port)
        transport = HttpTransport("http://coordinator.test", timeout_seconds=2, allow_insecure=True)
        assert transport.get_parameters() == b"p"
        transport.close()
        assert connections_to(silent) <= before


def test_addresses_that_all_swallow_what_they_are_sent_share_the_time(monkeypatch):
    with address_that_swallows() as silent:
        before = connections_to(silent)
        resolve_to(monkeypatch, "coordinator.test", silent, silent, silent)
        transport = HttpTransport("http://coordinator.test", timeout_seconds=0.5, allow_insecure=True)
        with pytest.raises(TransportError, match="ConnectTimeout"):
            transport.get_parameters()
        transport.close()
        assert connections_to(silent) <= before


def test_a_name_without_an_address_is_an_error(monkeypatch):
    resolve_to(monkeypatch, "coordinator.test")
    transport = HttpTransport("http://coordinator.test", allow_insecure=True)
    with pytest.raises(TransportError, match=r"ConnectError.*coordinator\.test: no address"):
        transport.get_parameters()
    transport.close()


def carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)


def test_a_proxy_may_speak_tls_itself(monkeypatch):
    """The connection to the coordinator is then encrypted twice."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))
    asked: list[bytes] = []

    def serve_proxy() -> None:
        with contextlib.closing(context.wrap_socket(listener.accept()[0], server_side=True)) as client:
            asked.append(client.recv(1 << 16))
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as target:
                back = threading.Thread(target=carry, args=(target, client))
                back.start()
                carry(client, target)
                target.shutdown(socket.SHUT_WR)
                back.join()

    with serving(context) as port, socket.create_server(("127.0.0.1", 0)) as listener:
        proxy_port = listener.getsockname()[1]
        monkeypatch.setattr(http_options, "proxy_for", lambda _: Proxy(f"https://127.0.0.1:{proxy_port}", None))
        thread = threading.Thread(target=serve_proxy)
        thread.start()
        transport = HttpTransport(f"https://127.0.0.1:{port}")
        assert transport.get_parameters() == b"p"
        transport.close()
        assert connections_to(proxy_port) == set()
        thread.join()
    assert asked[0].startswith(f"CONNECT 127.0.0.1:{port} ".encode())
