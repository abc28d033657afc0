"""What the REST interface refuses: forged, repeated, late, large and slow requests; and what a defect shows."""

import contextlib
import json
import logging
import socket
import time

import httpx
import numpy as np
import pytest
from asgi_server import serving
from federation_rest_server import KEY, OTHER_KEY, Clock, federation_server
from federation_runtime_in_memory import InMemoryRuntime
from starlette.applications import Starlette
from starlette.routing import Mount

from pet.errors import (
    DowngradeError,
    FederationRefusedError,
    FederationStateError,
    FederationUnavailableError,
    FederationValueError,
    PeerRefusedError,
    RowsExistError,
    TooSoonError,
)
from pet.federation import Client
from pet.federation.formats import secure
from pet.federation.formats.encoding import decode_base64
from pet.federation.formats.secure import SignedParts
from pet.federation.server.answers import answer_for
from pet.federation.server.rest import RestOptions

HOSTS = "nats://127.0.0.1:4222"


@pytest.fixture
def runtime():
    return InMemoryRuntime()


@pytest.fixture
def clock():
    return Clock(time.time())


@pytest.fixture
def url(runtime, clock):
    with federation_server(runtime=runtime, clock=clock) as url:
        yield url


@pytest.fixture
def admin(url, clock):
    with Client(url, "c1", KEY, clock=clock) as client:
        client.create("admin", "Hospital statistics", nats_hosts=HOSTS, nats_sec_token="hush-broker")
        yield client


def refused(status, text, call, *arguments, **options):
    with pytest.raises(FederationRefusedError) as raised:
        call(*arguments, **options)
    assert (raised.value.status, str(raised.value)) == (status, text)


def signed(url, method="GET", path="/symetry/rest/c1/fedml/admin/info", key=KEY, user="c1", timestamp=None, body=b"", **more):
    host = httpx.URL(url).netloc.decode()
    parts = SignedParts(
        method=method,
        host=host,
        path=path,
        query="",
        body=body,
        timestamp=int(time.time()) if timestamp is None else timestamp,
        nonce=secure.new_nonce(),
        customer_id=user,
    )
    headers = {"authorization": parts.authorization(decode_base64(key)), "content-type": "application/json"} | more
    return httpx.Request(method, url + path, headers=headers, content=body)


def announced(url, path, body, **options):
    """Make a request whose head says which body follows."""
    return signed(url, "POST", path, body=body, **options | {secure.DIGEST_HEADER: secure.digest_body(body)})


@contextlib.contextmanager
def begun(request, sent=b"", source="127.0.0.1"):
    """Send the head of a request and a part of its body, and yield the connection."""
    address = request.url
    lines = [f"POST {address.raw_path.decode()} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    with socket.create_connection((address.host, address.port), 30, (source, 0)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + sent)
        yield connection


def send(request):
    with httpx.Client(trust_env=False) as client:
        answer = client.send(request)
    return answer.status_code, answer.json()["statusString"]


def test_a_request_cannot_be_repeated_or_forged(url, admin):
    request = signed(url)
    assert send(request) == (200, "OK")
    wrong = (401, "Invalid Signature")
    assert send(request) == wrong
    assert send(signed(url, key=OTHER_KEY)) == wrong
    assert send(signed(url, user="nobody")) == wrong
    assert send(signed(url, user="c2", key=OTHER_KEY)) == wrong  # a right signature for somebody else's path
    for header in ["PET1-HMAC-SHA256 keyid=c1", request.headers["authorization"][:-1]]:
        assert send(signed(url, authorization=header)) == wrong
    assert send(signed(url, authorization="Bearer x"))[0] == 401
    assert send(httpx.Request("GET", f"{url}/symetry/rest/c1/fedml/admin/info")) == (400, "Authentication header is null")


def test_clocks_that_differ(url, admin, clock):
    late = (400, "Please update your server time, it is likely out of sync with UTC")
    now = int(clock.now)
    assert send(signed(url, timestamp=now - 302)) == late
    assert send(signed(url, timestamp=now + 62)) == late
    assert send(signed(url, timestamp=now - 298)) == (200, "OK")
    assert send(signed(url, timestamp=now + 58)) == (200, "OK")


def test_a_refused_signature_is_named_by_an_id_and_not_explained(url, admin, caplog):
    with caplog.at_level(logging.WARNING, "pet.federation"), httpx.Client(trust_env=False) as client:
        answer = client.send(signed(url, key=OTHER_KEY))
    assert "stringToSign" not in answer.text
    assert f"correlation_id={answer.json()['values']['correlationId']}" in caplog.text


def test_limits_and_other_paths(url, admin):
    path = "/symetry/rest/c1/fedml/admin/getInvitation"
    text = "body: expected at most 65536 bytes without the header pet-content-sha256, got more"
    assert send(signed(url, "POST", path, body=b"x" * (2**16 + 1))) == (413, text)
    large = (413, "body: expected at most 1048576 bytes, got 1048577 declared")
    assert send(announced(url, path, b"x" * (2**20 + 1))) == large
    for request in (signed(url, "POST", path, body=b"x" * (2**16 + 1)), announced(url, path, b"x" * (2**20 + 1))):
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        pieces = (request.content[start : start + 50_000] for start in range(0, len(request.content), 50_000))
        assert send(httpx.Request("POST", url + path, headers=headers, content=pieces))[0] == 413
    assert send(signed(url, "POST", path, body=b"{}"))[0] == 400
    assert send(httpx.Request("GET", f"{url}/nowhere")) == (404, "Not Found")
    assert send(httpx.Request("PUT", f"{url}{path}")) == (405, "Method Not Allowed")


def test_a_body_is_encrypted_or_plain(url, admin):
    path = "/symetry/rest/c1/fedml/admin/getInvitation"
    body = json.dumps({"passwd": "x" * 12}).encode()
    assert send(signed(url, "POST", path, body=body))[0] == 200
    foreign = secure.encrypt_body(body, decode_base64(KEY), b"another request")
    assert send(signed(url, "POST", path, body=foreign)) == (400, "Bad Request Body")


def test_a_sender_that_stops_is_not_waited_for(url, admin, monkeypatch):
    monkeypatch.setattr("pet.federation.server.request_bodies._BODY_SECONDS", 0.2)
    path = "/symetry/rest/c1/fedml/create"
    for request in (signed(url, "POST", path, body=bytes(9)), announced(url, path, bytes(9))):
        with begun(request, b"{") as connection:
            assert b"408" in connection.recv(4096)


def test_a_head_is_judged_before_its_body_comes(url, admin):
    """Of a large body nothing is read before the signature in the head is right; the answers are the ones with a body."""
    path, body = "/symetry/rest/c1/fedml/admin/learn", bytes(2_000_000)
    wrong = announced(url, path, body, key=OTHER_KEY)
    foreign = announced(url, path, body)
    foreign.headers[secure.DIGEST_HEADER] = secure.digest_body(b"another one")
    malformed = announced(url, path, body, **{secure.DIGEST_HEADER: "no digest"})
    malformed.headers[secure.DIGEST_HEADER] = "no digest"
    unsigned = httpx.Request("POST", url + path, content=body)
    for request, text in (
        (wrong, b"Invalid Signature"),
        (foreign, b"Invalid Signature"),
        (malformed, b"Invalid pet-content-sha256"),
        (unsigned, b"Authentication header is null"),
        (signed(url, "POST", path, body=body), b"without the header pet-content-sha256"),
    ):
        with begun(request) as connection:
            answer = b""
            while text not in answer:
                piece = connection.recv(4096)
                assert piece, answer
                answer += piece


def test_another_body_than_the_announced_one_is_refused(url, admin):
    path, before = "/symetry/rest/c1/fedml/admin/learn", admin.row_counts("admin")
    request = announced(url, path, json.dumps({"x": [1.0], "y": [1.0]}).encode())
    other = httpx.Request("POST", request.url, headers=request.headers, content=json.dumps({"x": [9.0], "y": [9.0]}).encode())
    assert send(other) == (401, "Invalid Signature")
    assert send(request) == (401, "Invalid Signature")  # the head was used up
    assert admin.row_counts("admin") == before


def test_compatible_bodies_are_small(runtime):
    """Their signature covers the body, so it has to be read from anybody."""
    path = "/symetry/rest/c1/fedml/admin/learn"
    with federation_server(runtime=runtime, allows_compat=True) as url:
        request = httpx.Request("POST", url + path, headers={"authorization": "x"}, content=bytes(2**20 + 1))
        assert send(request) == (413, "body: expected at most 1048576 bytes, got 1048577 declared")
        with Client(url, "c1", KEY, compat=True) as client:
            client.create("admin", "f", nats_hosts=HOSTS)
            client.learn("admin", np.ones((150_000, 2)), names=["x", "y"])  # in several pieces
        assert len(runtime.peers[0].local_project.rows) == 150_000


def test_unfinished_bodies_of_one_sender_hold_up_nobody_else(runtime):
    """Neither those of an address that has no key, nor those of a user; each is charged for what came."""
    path, size = "/symetry/rest/c1/fedml/admin/learn", 2**20
    with (
        federation_server(runtime=runtime, allows_compat=True, options=RestOptions(max_data_bytes=size)) as url,
        Client(url, "c2", OTHER_KEY) as client,
        contextlib.ExitStack() as stack,
    ):
        client.create("admin", "f", nats_hosts=HOSTS)
        for _ in range(4):
            unsigned = httpx.Request("POST", url + path, headers={"authorization": "x"}, content=bytes(size))
            stack.enter_context(begun(unsigned, bytes(size - 1)))
            stack.enter_context(begun(announced(url, path, bytes(size)), bytes(size - 1)))
        assert client.learn("admin", np.ones((60_000, 2)), names=["x", "y"]) == 60_000


def test_a_defect_shows_nothing(url, admin, runtime, caplog):
    secret = "-".join(["hush", "defect"])

    async def fail():
        raise RuntimeError(secret)

    runtime.peers[0].start_pulse = fail
    refused(500, "Internal Server Error", admin.start_pulse, "admin")
    assert "RuntimeError" in caplog.text
    assert "correlation_id=" in caplog.text
    assert secret not in caplog.text


def test_gets_that_change_something_can_be_switched_off():
    for allowed, status in [(True, 200), (False, 405)]:
        with (
            federation_server(options=RestOptions(allows_state_changing_gets=allowed)) as url,
            Client(url, "c1", KEY) as client,
        ):
            client.create("admin", "f", nats_hosts=HOSTS)
            assert send(signed(url, path="/symetry/rest/c1/fedml/admin/startPulse"))[0] == status
            client.start_pulse("admin")


def test_where_a_client_sends_nothing():
    for url in ["http://node.example:8080", "ftp://127.0.0.1", "http://user:hush@127.0.0.1", "nonsense"]:
        with pytest.raises(FederationValueError, match="url: expected http") as raised:
            Client(url, "c1", KEY)
        assert "hush" not in str(raised.value)
    with pytest.raises(FederationValueError, match="canonical base64"):
        Client("http://127.0.0.1:1", "c1", "no key")
    with Client("http://127.0.0.1:1", "c1", KEY, start_seconds=0.1) as client:
        assert repr(client) == "Client('http://127.0.0.1:1', 'c1')"
        with pytest.raises(FederationUnavailableError, match="expected an answer, got ConnectError"):
            client.projects()
        with pytest.raises(FederationValueError, match="expected the password"):
            client.join("p", "PETINV1.x.y")


def test_an_answer_that_is_not_of_a_federation_server():
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"<html>"})

    expected = "expected the envelope of a federation server, got 6 bytes"
    with (
        serving(Starlette(routes=[Mount("/", app)])) as url,
        Client(url, "c1", KEY) as client,
        pytest.raises(FederationUnavailableError, match=expected),
    ):
        client.projects()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TooSoonError("sync: expected at most one request a minute", 12.3), 429),
        (RowsExistError("learn: expected a table that was not learned before"), 409),
        (FederationStateError("pulse: this peer does not pulse"), 400),
        (FederationValueError("Invalid value for key [nats_sec_token]: refused", key="nats_sec_token"), 400),
        (DowngradeError("terms: expected SMPC as was agreed, got none"), 502),
        (PeerRefusedError("bad", "another peer refused"), 502),
        (FederationUnavailableError("the broker does not answer"), 503),
    ],
)
def test_each_error_has_the_status_that_says_whose_fault_it_is(error, status):
    answer = answer_for(error)
    assert answer.status == status
    assert str(error) in answer.text
    assert answer.headers == ({"retry-after": "13"} if status == 429 else {})
