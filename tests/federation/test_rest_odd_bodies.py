"""Signed requests with odd bodies and parameters: refused with a reason, and never a failure of the server."""

import json

import pytest
from federation_rest_server import KEY, federation_server
from nats_broker import running_broker

from pet.errors import FederationRefusedError
from pet.federation import Client
from pet.federation.client.requests import SignedRequests
from pet.federation.peer.nats_runtime import NatsFederationRuntime
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema

HOSTS = "nats://127.0.0.1:1"  # nobody listens there
SCHEMA = Schema((Feature(name="x"), Feature(name="y")))
HUGE = "9" * 400
VALUES = [
    "null",
    "true",
    "-1",
    HUGE,
    "1e400",
    "9" * 5000,
    '"x"',
    '"\\ud800"',
    "[]",
    "{}",
    "[null]",
    "[[1]]",
    '{"a":1}',
    f"[{HUGE}]",
]
KEYS = ["columns", "weights", "weight", "target", "features", "values", "fed_name", "passwd", "peer_key", "fed_info_encrypted"]
KEYS += ["fed_schema", "fed_token_lifespan_hours", "nats_hosts", "nats_req_timeout", "nats_sec_passwd", "sync_sched"]
#: No JSON, or none of a request.
MALFORMED = [
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"columns":{"x":' + b"[" * 100_000,
    b"x,y\n" + b"9" * 5000 + b",1\n",
    b'x,y\n1,"' + b"a" * 200_000 + b'"\n',
    b"x,y\n1\x00,2\n",
]
BODIES = [
    *MALFORMED,
    *("{{{}}}".format(",".join(f'"{key}":{value}' for key in KEYS)) for value in VALUES),
    *(f'{{"columns":{{"x":{value},"y":{value}}}}}' for value in VALUES),
    *(f'{{"weights":[1,2,3],"weight":{value}}}' for value in VALUES),
]
PATHS = [
    "m/model",
    "s/learn",
    "s/forget",
    "s/regression",
    "s/addContract",
    "s/contractValidate",
    "s/getInvitation",
    "create",
    "createJoin",
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with running_broker(folder / "broker") as broker:
        runtime = NatsFederationRuntime()
        with federation_server(folder / "state", runtime=runtime) as url, Client(url, "c1", KEY) as client:
            client.create("m", "m", nats_hosts=broker.url, fed_project_kind="model", fed_model_length=3)
            client.create("s", "s", nats_hosts=broker.url, fed_schema=SCHEMA.to_json())
            yield client


def send(client: Client, path: str, body: bytes | str, **options: object) -> None:
    requests: SignedRequests = client._requests
    data = body.encode() if isinstance(body, str) else body
    status = 200
    try:
        requests.call("POST", f"fedml/{path}", options.pop("query", {"pid": "new"}), data, **options)
    except FederationRefusedError as error:
        status = error.status
    # 503 is the answer where the broker is away.
    assert status in (200, 400, 403, 404, 409, 413, 429, 503), body[:100]


@pytest.mark.parametrize("path", PATHS)
def test_bodies(client, path):
    for body in BODIES:
        send(client, path, body, content_type="application/json")
        if body in MALFORMED or path in ("s/learn", "s/forget"):
            send(client, path, body, content_type="text/csv")
        send(client, path, body, encrypts=True)


def test_maps_of_strings(client):
    maps = [
        {"fed_name": "f", "sync_sched": "m1", "nats_hosts": HOSTS, "nats_req_timeout": "0.05", key: value}
        for key in KEYS
        for value in ("\ud800", HUGE, "[", "9" * 5000)
    ]
    for path in ("create", "createJoin", "s/getInvitation"):
        for entries in maps:
            send(client, path, json.dumps(entries), encrypts=True)


@pytest.mark.parametrize("value", ["m" + "9" * 5000, "", "x" * 5000, "\x00", "é", HUGE])
def test_parameters(client, value):
    for path, name in (
        ("s/newSchedule", "newSchedule"),
        ("s/removePeer", "peer"),
        ("create", "pid"),
        ("s/setExplorePeers", "allowExplore"),
    ):
        send(client, path, b"", query={name: value})
