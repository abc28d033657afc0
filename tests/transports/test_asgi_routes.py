"""Every route and status code of spec 5.1, over real HTTP, with the bytes of real participants."""

import base64
import io
import json
import time

import httpx
import numpy as np
import pytest
import safetensors.numpy
from asgi_server import serving, wait_until
from sealed_rounds import WEIGHTS, SealedRound, seeds_path
from starlette.applications import Starlette
from starlette.routing import Mount

from pet.coordinator.app import create_app
from pet.coordinator.service import CoordinatorService
from pet.coordinator.settings import Settings
from pet.messages import decode_seed_dictionary, decode_sum_dictionary
from pet.model_formats import decode_bincode
from pet.transports import asgi

OCTETS = "application/octet-stream"


def settings(**changes):
    """With no minimum time a phase ends with exactly its minimum count."""
    window = {"count": {"min": 2, "max": 10}, "time": {"min": 0, "max": 60}}
    update = {"count": {"min": 3, "max": 10}, "time": {"min": 0, "max": 60}}
    return Settings(pet={"sum": {"prob": 0.5, **window}, "update": {"prob": 0.9, **update}, "sum2": window}, **changes)


@pytest.fixture
def client():
    with serving(create_app(settings())) as url, httpx.Client(base_url=url) as client:
        yield client


def phase(client):
    return client.get("/status").json()["phase"]


def post(client, body):
    answer = client.post("/message", content=bytes(body))
    assert (answer.status_code, answer.content) == (200, b"")


def run_to_update(client):
    round_ = SealedRound(client.get("/params").content)
    sum_keys = round_.keys("sum", 2)
    for key in sum_keys:
        post(client, round_.sum(key))
    wait_until(lambda: client.get("/sums").status_code == 200)
    return round_, sum_keys


def run_to_sum2(client):
    round_, sum_keys = run_to_update(client)
    sum_dictionary = decode_sum_dictionary(client.get("/sums").content)
    assert sum_dictionary.keys() == {key.public_key for key in sum_keys}
    for index, key in enumerate(round_.keys("update", 3)):
        post(client, round_.update(key, sum_dictionary, WEIGHTS * (index / 4)))
    wait_until(lambda: client.get(seeds_path(sum_keys[0].public_key)).status_code == 200)
    return round_, sum_keys


def run_round(client):
    round_, sum_keys = run_to_sum2(client)
    for key in sum_keys:
        seeds = decode_seed_dictionary(client.get(seeds_path(key.public_key)).content)
        assert len(seeds) == 3
        post(client, round_.sum2(key, list(seeds.values())))
    wait_until(lambda: client.get("/model").status_code == 200)
    return round_


def test_a_round_over_http(client):
    parameters = client.get("/params")
    assert (parameters.status_code, len(parameters.content)) == (200, 136)
    for path in ("/sums", seeds_path(bytes(32)), "/model"):
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (204, b"")
    run_round(client)
    np.testing.assert_allclose(decode_bincode(client.get("/model").content, np.dtype("f4")), WEIGHTS / 4, atol=1e-8)
    wait_until(lambda: phase(client) == "sum")
    status = client.get("/status").json()
    assert 0 < status.pop("seconds_left") <= 60
    assert status.pop("waiting")["kind"] == "sum"
    assert status == {
        "round": 2,
        "phase": "sum",
        "accepted": 0,
        "rejected": {},
        "discarded": 0,
        "rounds_completed": 1,
        "rounds_failed": 0,
        "rounds_reopened": 0,
    }
    assert client.get("/params").content != parameters.content
    assert client.get("/sums").status_code == 204
    assert client.get("/model").status_code == 200


def test_the_phase_is_announced_before_its_dictionary(client):
    """A participant that sees a dictionary can answer it at once: its message is accepted (spec 1.3, 13)."""
    round_, _ = run_to_update(client)
    assert phase(client) == "update"
    post(client, round_.update(*round_.keys("update", 1), decode_sum_dictionary(client.get("/sums").content)))
    status = client.get("/status").json()
    assert (status["accepted"], status["rejected"]) == (1, {})


def test_content_types_and_caching(client):
    run_to_update(client)
    for path in ("/params", "/sums"):
        headers = client.get(path).headers
        assert (headers["content-type"], headers["cache-control"]) == (OCTETS, "no-store")
    assert client.get("/status").headers["content-type"] == "application/json"


def test_refused_messages_are_seen_in_the_status_only(client):
    for body in (b"", b"x", bytes(500)):
        post(client, body)
    assert client.get("/status").json()["rejected"] == {"decryption": 3}


def test_seeds_and_its_key(client):
    run_to_sum2(client)
    stranger = base64.b64encode(bytes(32)).decode()
    for query, status in [
        ("", 500),
        ("?key=1", 500),
        ("?pk=", 400),
        ("?pk=%21%21", 400),
        (f"?pk={stranger[:-1]}", 204),  # without padding, as xaynet takes it too
        (f"?pk={stranger[:-2]}", 400),
        (f"?pk={stranger}AAAA", 400),
        ("?pk=" + base64.b64encode(bytes(31)).decode(), 400),
        ("?pk=" + base64.b64encode(b"\xfb" * 32).decode().replace("=", "%3D"), 400),  # its + reads as a space
        (f"?pk={stranger}", 204),
    ]:
        answer = client.get(f"/seeds{query}")
        assert (answer.status_code, answer.content) == (status, b""), query


@pytest.mark.parametrize("path", ["/nothing", "/message/more", "/params/x"])
def test_unknown_paths(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.content) == (404, b"")


def test_wrong_methods(client):
    for method, path, allow in [("GET", "/message", "POST"), ("POST", "/params", "GET, HEAD"), ("PUT", "/seeds/", "GET, HEAD")]:
        answer = client.request(method, path)
        assert (answer.status_code, answer.content) == (405, b"")
        assert set(answer.headers["allow"].split(", ")) == set(allow.split(", "))


def test_trailing_slashes(client):
    assert client.get("/params/").content == client.get("/params").content
    assert client.post("/message/", content=b"x").status_code == 200
    assert [client.get(path).status_code for path in ("/sums/", "/seeds/?pk=", "/model/", "/status/", "/healthz/")] == [
        204,
        400,
        204,
        200,
        200,
    ]


def test_model_formats(client):
    run_round(client)
    expected = WEIGHTS / 4
    npy = client.get("/model", headers={"accept": "application/x-npy"})
    assert npy.headers["content-type"] == "application/x-npy"
    assert int(npy.headers["content-length"]) == len(npy.content)
    np.testing.assert_allclose(np.load(io.BytesIO(npy.content), allow_pickle=False), expected, atol=1e-8)
    tensors = client.get("/model", headers={"accept": "application/octet-stream;q=0.5, application/vnd.safetensors"})
    assert tensors.headers["content-type"] == "application/vnd.safetensors"
    np.testing.assert_array_equal(safetensors.numpy.load(tensors.content)["model"], np.load(io.BytesIO(npy.content)))
    bincode = client.get("/model", headers={"accept": "text/html, */*;q=0.1"})
    assert (bincode.headers["content-type"], bincode.headers["vary"]) == (OCTETS, "Accept")
    none = client.get("/model", headers={"accept": "text/html"})
    assert (none.status_code, none.content) == (406, b"")
    head = client.head("/model")
    assert (head.status_code, head.headers["etag"]) == (200, bincode.headers["etag"])
    assert "content-length" not in head.headers
    head = client.head("/model", headers={"accept": "application/x-npy"})
    assert head.headers["content-length"] == npy.headers["content-length"]
    assert len({npy.headers["etag"], tensors.headers["etag"], bincode.headers["etag"]}) == 3


class OldModel:
    """Parts of a model of any length and of any round."""

    etag = "x"
    dtype = np.dtype("f4")

    def __init__(self, round_id, pieces):
        self.round_id = round_id
        self.length = 2**20 * pieces
        self._pieces = pieces

    def bincode_chunks(self):
        for _ in range(self._pieces):
            yield bytes(2**20)

    def array_chunks(self):
        for _ in range(self._pieces):
            yield np.ones(2**20, self.dtype)


@pytest.mark.parametrize("accept", [OCTETS, "application/x-npy", "application/vnd.safetensors"])
def test_models_are_never_whole_in_memory(accept):
    """A model of 4 TB is as good as any other to begin with."""
    app = create_app(settings())
    app.state.service.engine._model = OldModel(1, 2**20)
    with serving(app) as url, httpx.stream("GET", f"{url}/model", headers={"accept": accept}) as answer:
        assert answer.status_code == 200
        assert len(next(answer.iter_bytes(2**20))) == 2**20


def read_until_cut(answer, before_next):
    """Return how much came before the connection was closed, well before the end."""
    size = 0
    try:
        for piece in answer.iter_raw():
            size += len(piece)
            before_next()
    except httpx.RemoteProtocolError:
        return size
    raise AssertionError("expected the answer to be cut, got all of it")


def test_a_slow_reader_does_not_keep_every_model_there_was():
    app = create_app(settings())
    engine = app.state.service.engine
    engine._model = OldModel(1, 1000)

    def publish():
        engine._model = OldModel(engine._model.round_id + 1, 1)

    with serving(app) as url, httpx.stream("GET", f"{url}/model") as answer:
        assert read_until_cut(answer, publish) < 2**29


def test_a_reader_that_takes_nothing_is_left():
    app = create_app(settings(service={"stall_seconds": 0.3}))
    model = OldModel(1, 1000)
    app.state.service.engine._model = model
    with serving(app) as url, httpx.stream("GET", f"{url}/model") as answer:
        time.sleep(1.5)
        assert read_until_cut(answer, lambda: None) < 2**29


def test_a_model_the_client_has_is_not_sent_again(client):
    run_round(client)
    etag = client.get("/model").headers["etag"]
    for known in (etag, f'W/{etag}, "other"', "*"):
        answer = client.get("/model", headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert client.get("/model", headers={"if-none-match": '"other"'}).status_code == 200
    assert client.get("/model", headers={"if-none-match": etag, "accept": "application/x-npy"}).status_code == 200


def test_health(client):
    answer = client.get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


def test_before_the_first_round():
    """Served by somebody who does not run the service: nothing is there yet, and nothing crashes."""
    service = CoordinatorService.from_settings(settings())
    with serving(Starlette(routes=[Mount("/pet", asgi.create_app(service))])) as url, httpx.Client(base_url=url) as client:
        answer = client.get("/pet/params")
        assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (503, b"", "1")
        assert client.get("/pet/healthz").status_code == 503
        assert client.get("/pet/status").json()["phase"] == "idle"
        assert client.get("/pet/sums").status_code == 204


def test_mounted_in_another_application():
    service = CoordinatorService.from_settings(settings())
    outer = Starlette(routes=[Mount("/pet", asgi.create_app(service))], lifespan=service.lifespan)
    with serving(outer) as url, httpx.Client(base_url=f"{url}/pet") as client:
        run_round(client)
    assert service.endpoint.status()["phase"] == "shutdown"


def test_a_large_model_is_streamed():
    length = 300_000
    with serving(create_app(settings(model={"length": length}))) as url, httpx.Client(base_url=url) as client:
        round_, sum_keys = run_to_update(client)
        weights = np.linspace(-1, 1, length, dtype=np.float32)
        sum_dictionary = decode_sum_dictionary(client.get("/sums").content)
        for key in round_.keys("update", 3):
            post(client, round_.update(key, sum_dictionary, weights))
        wait_until(lambda: phase(client) == "sum2")
        for key in sum_keys:
            seeds = decode_seed_dictionary(client.get(seeds_path(key.public_key)).content)
            post(client, round_.sum2(key, list(seeds.values())))
        wait_until(lambda: client.head("/model").status_code == 200)
        with client.stream("GET", "/model") as answer:
            assert answer.headers["transfer-encoding"] == "chunked"
            body = answer.read()
        np.testing.assert_allclose(decode_bincode(body, np.dtype("f4")), weights, atol=1e-7)
        npy = client.get("/model", headers={"accept": "application/x-npy"}).content
        np.testing.assert_allclose(np.load(io.BytesIO(npy)), weights, atol=1e-7)


def test_status_is_json_all_the_way(client):
    assert json.loads(client.get("/status").content)["round"] == 1
