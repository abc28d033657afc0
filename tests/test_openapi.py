"""docs/openapi/ describes the HTTP interfaces: the same routes, no other answers, and no request that makes a server fail.

That tests of either interface see no other answer is held by tests/asgi_server.py for all of them.
"""

import contextlib
import time
from urllib.parse import urlsplit

import httpx
import pytest
from asgi_server import serving
from federation_rest_server import KEY, federation_server
from nats_broker import running_broker
from openapi_documents import document, is_described, operations
from pet1_world import Pet1World
from starlette.routing import Route

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.errors import FederationRefusedError
from pet.federation import Client
from pet.federation.formats.encoding import decode_base64
from pet.federation.formats.secure import SignedParts, new_nonce
from pet.federation.peer.nats_runtime import NatsFederationRuntime
from pet.federation.server import rest
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema
from pet.transports import asgi

#: Requests of each operation and kind, well-formed ones and others. More were tried: they found nothing else.
EXAMPLES = 4
#: Beside those that the files describe.
ODD_HEADERS = [
    (b"accept", b"x/y;q=nan,*/*;q=1e999,;;=,a/b/c"),
    (b"accept", b"\xff\xfe"),
    (b"content-type", b"text/csv; charset=nothing"),
    (b"content-type", b"text/csv; charset=idna"),
    (b"content-type", b";;;=\xff"),
    (b"content-type", b"application/vnd.pet.rows"),
    (b"content-encoding", b"gzip"),
    (b"sym-version", b"\xb2.1"),
    (b"sym-version", b"9" * 5000),
    (b"if-none-match", b'",,W/"'),
    (b"range", b"bytes=9-1"),
    (b"cookie", b"=;" * 1000),
]
SCHEMA = Schema((Feature(name="x"), Feature(name="y")))
#: The only answer of a server that is its own fault by its number: as xaynet's coordinator, docs/spec/pet.md 5.1.
AS_XAYNET = ("GET", "/seeds")


def routes_of(app):
    """Return method and path of every route; HEAD goes with GET, and a slash at the end is the same route."""
    found = {
        (method, route.path.rstrip("/") or "/") for route in app.routes if isinstance(route, Route) for method in route.methods
    }
    return {(method, path) for method, path in found if method != "HEAD"}


def is_of_pet1(path):
    return path.startswith("/pet/v1/")


def is_of_xaynet(path):
    return path != "/events" and not is_of_pet1(path)


def test_the_routes_of_the_coordinator():
    described = set(operations("coordinator"))
    assert routes_of(create_app(Settings())) == {(method, path) for method, path in described if not is_of_pet1(path)}
    served = routes_of(asgi.create_app(Pet1World().service))
    assert {(method, path) for method, path in served if is_of_pet1(path)} == described - routes_of(create_app(Settings()))


def test_the_routes_of_the_federation():
    class Service:
        lifespan = None

    assert routes_of(rest.create_app(Service(), None)) == set(operations("federation"))


def test_an_answer_that_is_not_described_is_noticed():
    assert is_described("coordinator", "GET", "/params", 503)
    assert is_described("coordinator", "HEAD", "/params/", 200)
    assert is_described("coordinator", "PUT", "/params", 405)
    assert not is_described("coordinator", "GET", "/params", 204)
    assert not is_described("federation", "GET", "/symetry/rest/c1/fedml/p/info", 409)
    assert is_described("federation", "GET", "/elsewhere", 200)


def test_only_one_answer_is_a_failure_on_purpose():
    found = {operation for operation, described in operations("coordinator").items() if "500" in described["responses"]}
    assert found == {AS_XAYNET}


def authorization(method, url, body):
    """Return the header that the user c1 signs a request with."""
    parts = urlsplit(url)
    signed = SignedParts(
        method=method,
        host=parts.netloc,
        path=parts.path,
        query=parts.query,
        body=body if isinstance(body, bytes) else body.encode(),
        timestamp=int(time.time()),
        nonce=new_nonce(),
        customer_id="c1",
    )
    return signed.authorization(decode_base64(KEY))


def signed(request):
    """Sign what goes out, as `requests` asks for it."""
    request.headers["Authorization"] = authorization(request.method, request.url, request.body or b"")
    return request


def send_odd_headers(name, url, is_meant=lambda path: path != "/events"):
    """Send each header to each operation: no answer may be the server's fault."""
    with httpx.Client() as client:
        for method, path in operations(name):
            for header in ODD_HEADERS:
                if not is_meant(path):
                    continue
                target = url + path.format(cid="c1", pid="rows")
                headers = [header, (b"authorization", authorization(method, target, b"{").encode())]
                answer = client.request(method, target, headers=headers, content=b"{")
                assert answer.status_code < 500 or (method, path) == AS_XAYNET or answer.status_code == 503, (path, header)


def fuzz(name, url, change=lambda case: None, is_meant=lambda path: path != "/events", **options):
    """Send well-formed and other requests to every operation of a file, and check each answer against it."""
    import hypothesis
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi import checks

    checked = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.response_headers_conformance,
    ]
    few = hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    statuses: dict[str, set[int]] = {}
    described = schemathesis.openapi.from_dict(document(name))
    for found in described.get_all_operations():
        operation = found.ok()
        if not is_meant(operation.path):
            continue  # /events goes on for twenty seconds each; tests/coordinator/test_observability.py reads it
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            # Where nothing of a request can be wrong, there is no other one.
            nothing_wrong = () if mode is GenerationMode.POSITIVE else (hypothesis.errors.Unsatisfiable,)

            @few
            @hypothesis.given(operation.as_strategy(generation_mode=mode))
            def send(case):
                change(case)
                answer = case.call(base_url=url, **options)
                is_ours = answer.status_code == 500 and (case.method, case.path) != AS_XAYNET
                assert not is_ours, case.as_curl_command()
                case.validate_response(answer, checks=checked)
                statuses.setdefault(f"{case.method} {case.path}", set()).add(answer.status_code)

            with contextlib.suppress(*nothing_wrong):
                send()
    return statuses


@pytest.mark.long
def test_any_request_to_a_coordinator():
    pytest.importorskip("schemathesis")
    with serving(create_app(Settings(service={"max_requests_per_second": 1e6}))) as url:
        found = fuzz("coordinator", url, is_meant=is_of_xaynet)
        assert set().union(*found.values()) >= {200, 204}
        assert httpx.get(f"{url}/seeds", params={"pk": "no key"}).status_code == 400  # a few made-up requests may have none
        send_odd_headers("coordinator", url, is_of_xaynet)
        for path in document("coordinator")["paths"]:
            for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                assert httpx.request(method, url + path).status_code == (404 if is_of_pet1(path) else 405)


@pytest.mark.long
def test_any_request_to_a_coordinator_of_pet1():
    pytest.importorskip("schemathesis")
    with serving(asgi.create_app(Pet1World().begin_updates().service)) as url:
        chosen = {"/pet/v1/committee", "/pet/v1/headers", "/pet/v1/update/leaves"}  # the others are as one of these
        found = fuzz("coordinator", url, is_meant=chosen.__contains__)
        assert set().union(*found.values()) >= {200, 204}
        send_odd_headers("coordinator", url, is_of_pet1)
        for path in filter(is_of_pet1, document("coordinator")["paths"]):
            for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                assert httpx.request(method, url + path).status_code == 405


@pytest.mark.long
def test_any_request_to_a_federation_server(tmp_path):
    pytest.importorskip("schemathesis")

    def change(case):
        """Ask for projects that exist, most of the time, and for brokers that are not far away."""
        if case.path_parameters:
            case.path_parameters["cid"] = "c1"
            if "pid" in case.path_parameters and len(str(case.path_parameters["pid"])) % 4:
                ends = case.path.endswith(("/leave", "/delete"))
                case.path_parameters["pid"] = "ends" if ends else "models" if case.path.endswith("/model") else "rows"
        if isinstance(case.body, dict) and case.path.endswith(("/create", "/createJoin", "/credentials")):
            case.body |= {"nats_hosts": "nats://127.0.0.1:1", "nats_req_timeout": "0.05"}
            if case.path.endswith("/create") and len(case.body) % 2:
                case.body = {
                    "fed_name": "f",
                    "sync_sched": "h1",
                    "nats_hosts": "nats://127.0.0.1:1",
                    "nats_req_timeout": "0.05",
                }

    with (
        running_broker(tmp_path / "broker") as broker,
        federation_server(tmp_path / "state", runtime=NatsFederationRuntime()) as url,
        Client(url, "c1", KEY) as client,
    ):
        client.create("models", "m", nats_hosts=broker.url, fed_project_kind="model", fed_model_length=3)
        for name in ("rows", "ends"):
            client.create(name, name, nats_hosts=broker.url, fed_schema=SCHEMA.to_json())
        found = fuzz("federation", url, change, auth=signed)
        assert set().union(*found.values()) >= {200, 400}
        # Whether one of the requests above is right but for its broker is left to chance.
        with pytest.raises(FederationRefusedError) as refused:
            client.create("away", "f", sync_sched="h1", nats_hosts="nats://127.0.0.1:1", nats_req_timeout="0.05")
        assert refused.value.status == 503
        (create,) = (each for path, each in document("federation")["paths"].items() if path.endswith("/create"))
        assert "503" in create["post"]["responses"]
        send_odd_headers("federation", url)
        for path in document("federation")["paths"]:
            for method in ("PUT", "PATCH", "OPTIONS", "TRACE"):
                answer = httpx.request(method, url + path.format(cid="c1", pid="rows"))
                assert (answer.status_code, answer.json()["statusCode"]) == (405, "METHOD_NOT_ALLOWED")
