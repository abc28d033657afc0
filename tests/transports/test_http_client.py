"""The HTTP client against a real server on loopback with scripted answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.server
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from pet.errors import (
    AnswerTooLargeError,
    BackPressureError,
    CertificateError,
    ConfigError,
    MessageTooLargeError,
    MissingExtraError,
    TransportConfigError,
    TransportError,
    TransportRefusedError,
)
from pet.model_formats import BINCODE, NPY
from pet.transports.base import AsyncTransport, Transport
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.http_options import TlsOptions, normalise_url

TLS_FILES = Path(__file__).parent.parent / "vectors" / "tls"
PUBLIC_KEY = bytes([251, 255]) * 16  # its base64 has "+", "/" and "="


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_length_known: bool = True
    body_size_lie: int = 0


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections: set[tuple[str, int]] = set()

    def handle_error(self, request, client_address) -> None:
        """Say nothing about clients that hang up on an answer they refuse."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.reply(b"")

    def do_POST(self) -> None:
        self.reply(self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, body: bytes) -> None:
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        self.server.connections.add(self.client_address)
        answer = self.server.answers.get(self.path.partition("?")[0], Answer(404))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.is_length_known:
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body) + answer.body_size_lie))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(answer.body)
        if answer.body_size_lie:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Blocking:
    """The asyncio client behind the interface of the blocking one, so that one suite tests both."""

    def __init__(self, url: str, **options) -> None:
        self.loop = asyncio.new_event_loop()
        self.transport = AsyncHttpTransport(url, **options)
        assert isinstance(self.transport, AsyncTransport)

    def __getattr__(self, name: str):
        def call(*args):
            return self.loop.run_until_complete(getattr(self.transport, name)(*args))

        return call

    def close(self) -> None:
        self.loop.run_until_complete(self.transport.aclose())
        self.loop.close()


@pytest.fixture(params=[HttpTransport, Blocking])
def connect(request):
    opened = []

    def open_transport(url: str, **options) -> Transport:
        opened.append(request.param(url, **options))
        return opened[-1]

    yield open_transport
    for transport in opened:
        transport.close()


def test_every_call_asks_the_route_of_the_specification(server, connect):
    server.answers = {
        "/params": Answer(body=b"p"),
        "/sums": Answer(body=b"s"),
        "/seeds": Answer(body=b"d"),
        "/model": Answer(body=b"m"),
        "/message": Answer(),
    }
    transport = connect(server.url)
    assert transport.get_parameters() == b"p"
    assert transport.get_sums() == b"s"
    assert transport.get_seeds(PUBLIC_KEY) == b"d"
    assert transport.get_model() == (BINCODE, b"m")
    transport.send_message(bytearray(b"message"))
    encoded = base64.b64encode(PUBLIC_KEY).decode().replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    assert [(method, path) for method, path, _, _ in server.requests] == [
        ("GET", "/params"),
        ("GET", "/sums"),
        ("GET", f"/seeds?pk={encoded}"),
        ("GET", "/model"),
        ("POST", "/message"),
    ]
    assert server.requests[3][2]["Accept"] == "application/x-npy, application/octet-stream;q=0.5"
    assert {headers["Accept-Encoding"] for _, _, headers, _ in server.requests} == {"identity"}
    assert server.requests[4][3] == b"message"


def test_one_connection_serves_many_requests_even_without_content(server, connect):
    server.answers = {"/params": Answer(body=b"p"), "/sums": Answer(204), "/message": Answer()}
    transport = connect(server.url)
    for _ in range(5):
        transport.get_parameters()
        assert transport.get_sums() is None
        transport.send_message(b"m")
    assert len(server.connections) == 1


def test_no_content_is_none_except_for_parameters(server, connect):
    server.answers = {path: Answer(204) for path in ("/params", "/sums", "/seeds", "/model")}
    transport = connect(server.url)
    assert transport.get_sums() is None
    assert transport.get_seeds(PUBLIC_KEY) is None
    assert transport.get_model() is None
    with pytest.raises(TransportError, match="GET /params: expected status 200, got 204"):
        transport.get_parameters()


@pytest.mark.parametrize("status", [201, 206, 302, 400, 404, 500, 503])
def test_other_statuses_of_get_are_errors(server, connect, status):
    server.answers = {"/sums": Answer(status, b"reason", {"Location": "/params"})}
    with pytest.raises(TransportError, match=f"GET /sums: expected status 200 or 204, got {status}"):
        connect(server.url).get_sums()


@pytest.mark.parametrize(
    ("status", "is_delivered"), [(200, True), (204, True), (302, True), (400, False), (413, False), (500, False)]
)
def test_a_message_is_delivered_unless_the_status_is_an_error(server, connect, status, is_delivered):
    server.answers = {"/message": Answer(status)}
    transport = connect(server.url)
    if is_delivered:
        transport.send_message(b"m")
    else:
        with pytest.raises(TransportError, match=f"POST /message: expected a status below 400, got {status}"):
            transport.send_message(b"m")


@pytest.mark.parametrize("path", ["/message", "/params", "/sums"])
@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 408, 409, 410, 413, 415, 421, 425, 429, 451, 500, 501, 502, 503, 504, 599]
)
def test_an_error_says_whether_the_same_request_may_succeed_later(server, connect, path, status):
    server.answers = {path: Answer(status)}
    transport = connect(server.url)
    calls = {"/message": lambda: transport.send_message(b"m"), "/params": transport.get_parameters, "/sums": transport.get_sums}
    with pytest.raises(TransportError) as raised:
        calls[path]()
    error = raised.value
    assert error.is_temporary is (status >= 500 or status in {408, 425, 429})
    if error.is_temporary:
        assert isinstance(error, BackPressureError)
    else:
        assert isinstance(error, TransportRefusedError)
        assert error.status == status
        assert isinstance(error, MessageTooLargeError) is (status == 413 and path == "/message")


def test_a_message_refused_for_its_size_names_the_settings_that_help(server, connect):
    server.answers = {"/message": Answer(413)}
    with pytest.raises(MessageTooLargeError, match=r"takes no message of 1234 bytes; .*client_max_body_size.*max_message_size"):
        connect(server.url).send_message(bytes(1234))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("9" * 1000, 300),
        ("-1", None),
        ("1.5", None),
        ("\u0661", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300),
        ("Fri, 99 Dec 9999 23:59:59 GMT", None),
        ("", None),
    ],
)
def test_a_wait_that_is_asked_for_is_read_within_bounds(server, connect, header, seconds):
    server.answers = {"/sums": Answer(503, headers={"Retry-After": header.encode().decode("latin-1")} if header else {})}
    with pytest.raises(BackPressureError) as raised:
        connect(server.url).get_sums()
    assert raised.value.retry_after_seconds == seconds


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1_000_000])
def test_bodies_of_every_kind_and_size_arrive(server, connect, kind, size):
    server.answers = {"/message": Answer()}
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    connect(server.url).send_message(kind(body))
    _, _, headers, got = server.requests[0]
    assert got == body
    assert headers["Content-Length"] == str(size)
    assert "Transfer-Encoding" not in headers


@pytest.mark.parametrize("is_length_known", [True, False])
def test_answers_are_bounded_before_and_while_they_are_read(server, connect, is_length_known):
    server.answers = {
        "/sums": Answer(body=bytes(101), is_length_known=is_length_known),
        "/model": Answer(body=bytes(60), is_length_known=is_length_known),
        "/params": Answer(body=bytes(5000), is_length_known=is_length_known),
    }
    transport = connect(server.url, max_answer_bytes=100)
    with pytest.raises(AnswerTooLargeError, match="GET /sums: expected at most 100 bytes"):
        transport.get_sums()
    with pytest.raises(AnswerTooLargeError, match="GET /model: expected at most 50 bytes"):
        transport.get_model(50)
    assert transport.get_model(60) == (BINCODE, bytes(60))
    with pytest.raises(AnswerTooLargeError, match="GET /params"):
        connect(server.url).get_parameters()
    server.answers = {"/sums": Answer(body_size_lie=2**29)}
    with pytest.raises(AnswerTooLargeError, match="GET /sums: expected at most 134217728 bytes"):
        connect(server.url).get_sums()


@pytest.mark.parametrize("size", [1001, 3_000_000], ids=["at once", "in pieces"])
def test_an_answer_that_is_too_long_leaves_no_generator_behind(server, size):
    """One that is collected later ends in another turn of the loop, or warns because the loop is closed."""
    server.answers = {"/sums": Answer(body=bytes(size), is_length_known=False)}
    collected = []

    async def use():
        sys.set_asyncgen_hooks(finalizer=lambda generator: collected.append(generator.__qualname__))
        transport = AsyncHttpTransport(server.url, max_answer_bytes=1000)
        with pytest.raises(AnswerTooLargeError, match="expected at most 1000 bytes"):
            await transport.get_sums()
        await transport.aclose()

    asyncio.run(use())
    assert collected == []


def test_compressed_answers_are_refused(server, connect):
    server.answers = {"/sums": Answer(body=b"xx", headers={"Content-Encoding": "gzip"})}
    with pytest.raises(TransportError, match="expected no content encoding, got gzip"):
        connect(server.url).get_sums()


def test_media_types_lose_parameters_and_case(server, connect):
    server.answers = {"/model": Answer(body=b"m", headers={"Content-Type": "Application/X-NPY; version=1"})}
    assert connect(server.url).get_model() == (NPY, b"m")


def test_an_answer_that_breaks_off_is_an_error(server, connect):
    server.answers = {"/sums": Answer(body=b"half", body_size_lie=4)}
    with pytest.raises(TransportError, match=r"127\.0\.0\.1:\d+: expected an answer, got RemoteProtocolError"):
        connect(server.url).get_sums()


def test_an_unreachable_coordinator_is_an_error(connect):
    with Server() as unused:
        url = unused.url
    transport = connect(url, timeout_seconds=1)
    with pytest.raises(TransportError, match="expected an answer, got ConnectError"):
        transport.get_parameters()
    with pytest.raises(TransportError, match="expected an answer, got ConnectError"):
        transport.send_message(b"m")


@pytest.mark.parametrize("suffix", ["/some/prefix", "/some/prefix/", "/some/prefix//"])
def test_a_path_in_front_of_the_routes_is_kept_without_a_double_slash(server, connect, suffix):
    server.answers = {"/some/prefix/params": Answer(body=b"p")}
    assert connect(server.url + suffix).get_parameters() == b"p"


NO_COORDINATORS = """
    127.0.0.1:8081 localhost ftp://host http:// http:///path http://host:99999 http://host:0 http://host/?a=b http://host/#x
    http://[::1 http://host:x http://host..example http://\x00 http://me:sekret@ http://me:se/kret@host
"""


@pytest.mark.parametrize("url", ["", "http://ho st", *NO_COORDINATORS.split()])
def test_urls_that_name_no_coordinator_are_refused(url):
    with pytest.raises(ConfigError, match="coordinator URL: expected http") as caught:
        HttpTransport(url)
    assert "kret" not in str(caught.value)


def test_the_url_of_a_broker_is_told_what_takes_it():
    with pytest.raises(ConfigError, match=r"expected http.*over NATS, give a pet\.transports\.nats\.NatsTransport") as caught:
        HttpTransport("nats://me:sekret@host")
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("url", [None, b"http://host", 3, f"http://{'a' * 64}.example", "http://host/\udcff"])
def test_what_is_no_url_is_refused_with_an_error_of_ours(url):
    with pytest.raises(ConfigError, match="URL: expected http"):
        HttpTransport(url)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 10**400, 1e300, "60", None, True])
def test_time_outs_that_no_system_call_takes_are_refused(seconds):
    with pytest.raises(ConfigError, match="timeout_seconds: expected a finite number above 0 and at most 1000000"):
        HttpTransport("http://127.0.0.1", timeout_seconds=seconds)


@pytest.mark.parametrize("seconds", [np.float32(1.5), np.int64(2), np.array(3), Fraction(1, 2)])
def test_time_outs_may_be_numbers_of_other_kinds(server, connect, seconds):
    server.answers = {"/params": Answer(body=b"p")}
    assert connect(server.url, timeout_seconds=seconds).get_parameters() == b"p"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_authorities_of_the_environment_are_used_or_named(secure_server, connect, monkeypatch, tmp_path, variable):
    url = secure_server.url.replace("http://", "https://")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "missing.pem"))
    with pytest.raises(ConfigError, match=f"{variable}: expected a PEM file .*missing.pem"):
        HttpTransport(url)
    assert connect(url.replace("https", "http"))  # needs none
    monkeypatch.setenv(variable, str(TLS_FILES / "authority.pem"))
    tls = TlsOptions(client_identity=TLS_FILES / "client.pem")
    assert connect(url, tls=tls).get_parameters() == b"p"


def test_an_encrypted_key_is_an_error_and_no_question_on_the_terminal(tmp_path):
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    identity = tmp_path / "identity.pem"
    identity.write_bytes((TLS_FILES / "authority.pem").read_bytes() + key)
    with pytest.raises(ConfigError, match=r"TLS: expected a PEM file .*identity\.pem"):
        HttpTransport("https://localhost", tls=TlsOptions(client_identity=identity))


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://host", "http://host"), ("https://[::1]:8081/", "https://[::1]:8081"), ("http://h/a/", "http://h/a")],
)
def test_urls_lose_the_slash_at_their_end(url, expected):
    assert normalise_url(url) == expected


@pytest.mark.parametrize("name", ["trusted_certificate", "client_identity"])
def test_certificates_that_cannot_be_read_are_named(tmp_path, name):
    missing = tmp_path / "missing.pem"
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for path in (missing, garbage):
        with pytest.raises(ConfigError, match=f"TLS: expected a.* (in|got) .*{path.name}"):
            HttpTransport("https://localhost", tls=TlsOptions(**{name: path}))


@pytest.fixture
def secure_server(server) -> Server:
    """The server with TLS, for clients whose certificate the test authority issued."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS_FILES / "server.pem")
    context.load_verify_locations(TLS_FILES / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answers = {"/params": Answer(body=b"p")}
    return server


def test_the_authority_to_trust_and_the_identity_to_show_are_used(secure_server, connect):
    url = secure_server.url.replace("http://", "https://")
    tls = TlsOptions(trusted_certificate=TLS_FILES / "authority.pem", client_identity=TLS_FILES / "client.pem")
    assert connect(url, tls=tls).get_parameters() == b"p"


def test_a_certificate_that_is_not_trusted_is_an_error_that_stays(secure_server, connect):
    url = secure_server.url.replace("http://", "https://")
    with pytest.raises(CertificateError, match=r"CERTIFICATE_VERIFY_FAILED.*check the certificates of both sides") as raised:
        connect(url).get_parameters()
    assert not raised.value.is_temporary


def test_a_missing_identity_is_an_error_that_stays(secure_server):
    """Over the blocking client; the library beneath the asyncio one may lose the alert with the connection."""
    url = secure_server.url.replace("http://", "https://")
    with contextlib.closing(HttpTransport(url, tls=TlsOptions(trusted_certificate=TLS_FILES / "authority.pem"))) as transport:
        # The alert may come after the request was written, or be lost too: then only a later attempt gets it.
        for _ in range(20):
            with pytest.raises(TransportError) as raised:
                transport.get_parameters()
            if isinstance(raised.value, CertificateError):
                return
    pytest.fail("no attempt learned that a certificate is required")


def test_another_protocol_is_an_error_that_stays(server, connect):
    with pytest.raises(TransportConfigError, match="something else than http") as raised:
        connect(server.url.replace("http://", "https://"), tls=TlsOptions()).get_parameters()
    assert not raised.value.is_temporary
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=greet_as_another_server, args=(listener,))
        thread.start()
        with pytest.raises(TransportConfigError, match="something else than http"):
            connect(f"http://127.0.0.1:{listener.getsockname()[1]}").get_parameters()
        thread.join(60)


def greet_as_another_server(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)  # closing before the other side has read it all would lose it


@pytest.mark.parametrize("names", [("trusted_certificate",), ("client_identity",), ()])
def test_without_authority_or_identity_there_is_no_answer(secure_server, connect, names):
    url = secure_server.url.replace("http://", "https://")
    files = {"trusted_certificate": TLS_FILES / "authority.pem", "client_identity": TLS_FILES / "client.pem"}
    with pytest.raises(TransportError, match="expected an answer, got"):
        connect(url, tls=TlsOptions(**{name: files[name] for name in names})).get_parameters()


def test_localhost_is_reached_without_the_proxies_of_the_world_outside(server, connect, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.answers = {"/params": Answer(body=b"p")}
    assert connect(server.url).get_parameters() == b"p"
    assert connect(server.url.replace("127.0.0.1", "localhost")).get_parameters() == b"p"
    with pytest.raises(TransportError, match="ConnectError"):
        connect("http://coordinator.invalid", allow_insecure=True).get_parameters()


def test_the_status_is_a_bounded_json_object_or_an_error(server):
    transport = HttpTransport(server.url)
    server.answers["/status"] = Answer(body=b'{"phase": "sum2"}')
    assert transport.get_status() == {"phase": "sum2"}
    for answer in (Answer(404), Answer(204), Answer(body=b"[]"), Answer(body=b"\xff"), Answer(body=b"[" * 60_000)):
        server.answers["/status"] = answer
        with pytest.raises(TransportError, match="status"):
            transport.get_status()
    server.answers["/status"] = Answer(body=b" " * 70_000)
    with pytest.raises(AnswerTooLargeError):
        transport.get_status()
    transport.close()


def test_a_missing_httpx_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"httpx is not installed: pip install .*\[http\]'"):
        HttpTransport("http://127.0.0.1")


@pytest.mark.parametrize("is_length_known", [True, False])
def test_who_asks_is_told_how_much_of_an_answer_arrived(server, is_length_known):
    body = bytes(300_000)
    server.answers["/model"] = Answer(body=body, headers={"Content-Type": NPY}, is_length_known=is_length_known)
    received = []
    transport = HttpTransport(server.url, on_received=lambda done, total: received.append((done, total)))
    assert transport.get_model() == (NPY, body)
    transport.close()
    assert received[-1] == (len(body), len(body) if is_length_known else None)
    assert [done for done, _ in received] == sorted({done for done, _ in received})
