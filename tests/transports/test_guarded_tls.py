"""TLS connections whose handshake fails, seen from the client (the alert) and in the log; and their share of the bounds."""

import contextlib
import gc
import logging
import shutil
import socket
import ssl
import subprocess
import time
from asyncio import sslproto
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from asgi_server import serving, wait_until
from programs import require_program
from test_guarded_http import GET, GO_ON, PATHS, app, is_answered

from pet.errors import ConfigError
from pet.transports.guarded_tls import guarded_tls_protocol, serving_context
from pet.transports.line_limit import LineLimit
from pet.transports.open_connections import ConnectionLimits
from pet.transports.rates import BURST_SECONDS
from pet.transports.refusal_counts import RefusalReason

TLS = Path(__file__).parent.parent / "vectors" / "tls"
AUTHORITY, SERVER, CLIENT = TLS / "authority.pem", TLS / "server.pem", TLS / "client.pem"
PEER = "127.0.0.1"


@pytest.fixture(autouse=True)
def _start_anew():
    PATHS.clear()
    GO_ON.clear()


@contextlib.contextmanager
def guarded(authority=AUTHORITY, **changes):
    limits = {"max_connections": 4, "max_connections_per_peer": 4, "header_seconds": 5.0, "max_header_bytes": 2000}
    protocol = guarded_tls_protocol(ConnectionLimits(**limits | changes), serving_context(SERVER, SERVER, authority))
    with serving(app, http=protocol) as url:
        yield urlsplit(url).port, protocol._http.open_connections
    assert not protocol._http.open_connections


def connect(port):
    return socket.create_connection((PEER, port), timeout=30)


def client_context(identity=None, version=ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.minimum_version = context.maximum_version = version
    if identity is not None:
        context.load_cert_chain(identity)
    return context


def exchange(port, context):
    """Ask once over TLS; returns whether there was an answer."""
    with connect(port) as plain, context.wrap_socket(plain, server_hostname=PEER) as connection:
        connection.sendall(GET)
        return is_answered(connection)


@pytest.fixture
def stranger(tmp_path):
    """A certificate of an authority that the server does not know."""
    openssl, path = require_program("openssl"), tmp_path / "stranger.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=nobody knows this name", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes((tmp_path / "certificate").read_bytes() + (tmp_path / "key").read_bytes())
    return path


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_good_clients_are_answered(version):
    with guarded() as (port, _):
        for _ in range(3):
            assert exchange(port, client_context(CLIENT, version))
    with guarded(authority=None) as (port, _):
        assert exchange(port, client_context(version=version))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_a_certificate_gets_an_alert_and_a_line(version, caplog):
    with guarded() as (port, _):
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required|handshake.failure"):
            exchange(port, client_context(version=version))
        wait_until(lambda: caplog.records)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"TLS handshake with {PEER} failed: expected a client certificate, got none"
    ]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_of_another_authority_gets_an_alert_and_a_line(version, stranger, caplog):
    with guarded() as (port, _):
        with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
            exchange(port, client_context(stranger, version))
        wait_until(lambda: caplog.records)
    assert f"TLS handshake with {PEER} failed: the client's certificate was refused: self-signed" in caplog.text
    assert "nobody" not in caplog.text


def test_a_client_that_does_not_trust_the_server_is_in_the_log(caplog):
    with guarded(authority=None) as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            exchange(port, ssl.create_default_context())
        wait_until(lambda: caplog.records)
    assert "unknown ca" in caplog.text


def test_other_programs_show_the_alert():
    openssl, curl = require_program("openssl"), shutil.which("curl")
    with guarded() as (port, _):
        command = [openssl, "s_client", "-connect", f"{PEER}:{port}", "-CAfile", str(AUTHORITY), "-quiet", "-ign_eof"]
        seen = subprocess.run(command, input=GET, capture_output=True, timeout=20, check=False)
        assert b"alert certificate required" in seen.stderr
        if curl is not None:  # every system has it, but no test needs it
            command = [curl, "-sS", "--cacert", str(AUTHORITY), f"https://{PEER}:{port}/"]
            seen = subprocess.run(command, capture_output=True, timeout=20, check=False)
            assert b"certificate required" in seen.stderr


def test_the_alert_arrives_though_the_client_has_sent_much():
    """What a server has not read when it closes resets the connection, and an alert on the way could be lost."""
    context = client_context()
    with guarded() as (port, _), connect(port) as plain, context.wrap_socket(plain, server_hostname=PEER) as connection:
        connection.sendall(GET + bytes(10_000))
        time.sleep(0.3)
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
            connection.recv(1)


def test_no_client_fills_the_log(caplog):
    with guarded() as (port, open_connections):
        for _ in range(10):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                exchange(port, client_context())
            wait_until(lambda: not open_connections)
    assert caplog.text.count("TLS handshake") == 1


def test_lines_are_bounded_by_address_and_for_all():
    limit = LineLimit(seconds=10, max_lines=2)
    assert [limit.admit(peer, 0.0) for peer in ("a", "a", "b", "c", "a")] == [0, None, 1, None, None]
    assert limit.admit("a", 9.9) is None
    assert limit.admit("a", 10.0) == 3
    assert limit.admit("a", 10.1) is None


def test_silent_handshakes_count_and_end():
    with guarded(max_connections=2, header_seconds=1.0) as (port, open_connections):
        with connect(port), connect(port):
            wait_until(lambda: open_connections.count(PEER) == 2)
            with pytest.raises(OSError, match=r"(?i)reset|EOF"), connect(port) as third:
                client_context(CLIENT).wrap_socket(third, server_hostname=PEER)
            wait_until(lambda: not open_connections)
        # Not as TLS that failed: none was begun for them, which takes a quarter of a megabyte for each.
        assert open_connections.refusals.read()[RefusalReason.HEADER_TIME] == 2
        assert exchange(port, client_context(CLIENT))


def test_an_address_beside_others_begins_no_more_handshakes_than_its_rate():
    with guarded(max_connections_per_second=2 / BURST_SECONDS) as (port, open_connections):
        with socket.create_connection((PEER, port), 10, ("127.0.0.2", 0)):
            wait_until(lambda: open_connections.count("127.0.0.2"))
            assert exchange(port, client_context(CLIENT))
            assert exchange(port, client_context(CLIENT))
            with pytest.raises(OSError, match=r"(?i)reset|EOF"):
                exchange(port, client_context(CLIENT))
        counts = open_connections.refusals.read()
        assert (counts[RefusalReason.CONNECTION_RATE], counts[RefusalReason.TLS]) == (1, 0)


@pytest.mark.parametrize("beginning", [b"", GET, bytes(100)])
def test_connections_without_tls_end(beginning):
    with guarded(header_seconds=0.5) as (port, _), connect(port) as connection:
        connection.sendall(beginning)
        with contextlib.suppress(ConnectionError):
            while connection.recv(1000):
                pass


def test_the_server_ends_while_a_handshake_is_under_way():
    with contextlib.ExitStack() as stack:
        port, open_connections = stack.enter_context(guarded(header_seconds=60.0))
        silent = connect(port)
        wait_until(lambda: open_connections.count(PEER) == 1)
        started = time.monotonic()
        stack.close()
        assert time.monotonic() - started < 5
        silent.close()


def parts_of(path):
    text = path.read_text()
    begin = text.index("-----BEGIN EC PRIVATE KEY") if "BEGIN EC PRIVATE" in text else text.index("-----BEGIN PRIVATE KEY")
    return text[:begin], text[begin:]


def test_wrong_files_are_named_with_what_is_wrong(tmp_path):
    certificate, key = parts_of(SERVER)
    for name, text in {"certificate": certificate, "key": key, "other": parts_of(CLIENT)[1], "noise": "noise"}.items():
        (tmp_path / name).write_text(text)
    cases = {
        (
            "certificate",
            "certificate",
        ): "expected the private key .* in the same file, .* without a key",
        ("certificate", "noise"): f"expected the private key .* in {tmp_path}/noise, got a file without a key",
        ("key", "key"): f"expected a PEM file with a certificate in {tmp_path}/key, got a file without one",
        ("certificate", "other"): f"expected the private key of .* in {tmp_path}/other, got another key",
        ("nothing", "key"): f"expected a PEM file that can be read in {tmp_path}/nothing, got No such file",
    }
    for (first, second), message in cases.items():
        with pytest.raises(ConfigError, match=message):
            serving_context(tmp_path / first, tmp_path / second)
    with pytest.raises(ConfigError, match=f"expected a PEM file with certificates in {tmp_path}/noise"):
        serving_context(SERVER, SERVER, tmp_path / "noise")
    serving_context(tmp_path / "certificate", tmp_path / "key", AUTHORITY)


def test_a_body_that_is_not_taken_is_not_received():
    """asyncio keeps what it has received of TLS, and 256 KiB for every connection to receive into."""
    with guarded(authority=None, header_seconds=60.0) as (port, open_connections):
        with connect(port) as plain, client_context().wrap_socket(plain, server_hostname=PEER) as connection:
            connection.sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
            wait_until(lambda: PATHS)
            connection.settimeout(0.5)
            with contextlib.suppress(TimeoutError, ssl.SSLError):
                for _ in range(2000):
                    connection.sendall(bytes(2**14))
            (tls,) = [one for one in gc.get_objects() if isinstance(one, sslproto.SSLProtocol) and one._app_transport]
            assert tls._incoming.pending <= 2**17
            assert len(tls._ssl_buffer) == 2**16
            GO_ON.set()
        wait_until(lambda: not open_connections)


def test_large_bodies_come_through():
    size = 4 * 2**20
    with (
        guarded(authority=None) as (port, _),
        connect(port) as plain,
        client_context().wrap_socket(plain, server_hostname=PEER) as connection,
    ):
        connection.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        assert is_answered(connection)
