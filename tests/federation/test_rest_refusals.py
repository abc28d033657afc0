"""What the REST interface refuses: forged, repeated, late, large and slow requests; and what a defect shows."""

import json
import logging
import socket
import time

import httpx
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
    large = (413, "body: expected at most 1048576 bytes, got 1048577 declared")
    assert send(signed(url, "POST", path, body=b"x" * (2**20 + 1))) == large
    with httpx.Client(trust_env=False) as client:  # without a length: chunked
        answer = client.post(url + path, headers={"authorization": "x"}, content=iter([b"x" * 2**20] * 2))
    assert answer.status_code == 413
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
    monkeypatch.setattr("pet.federation.server.rest._BODY_SECONDS", 0.2)
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall(b"POST /symetry/rest/c1/fedml/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        connection.settimeout(10)
        assert b"408" in connection.recv(4096)


def test_large_bodies_are_few_at_a_time(url, admin, monkeypatch):
    monkeypatch.setattr("pet.federation.server.rest._MAX_LARGE_BODIES", 1)
    address = httpx.URL(url)
    path = "/symetry/rest/c1/fedml/admin/learn"
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n{{".encode())
        busy = (503, "Other large requests are read")
        deadline = time.monotonic() + 10
        while send(signed(url, "POST", path, body=b"x" * 2_000_000)) != busy:
            assert time.monotonic() < deadline
        assert admin.learn("admin", {"x": [1.0], "y": [1.0]}) == 1
    while send(signed(url, "POST", path, body=b"x" * 2_000_000)) == busy:
        assert time.monotonic() < deadline


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
