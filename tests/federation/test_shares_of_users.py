"""What an operator sees of a federation server, and that one user has one share, from however many addresses."""

import itertools
import re
import sys

import httpx
import pytest
from federation_rest_server import OTHER_KEY, federation_server
from test_rest_refusals import announced, signed

from pet.errors import MissingExtraError, RequestRefusedError
from pet.federation.server.caller_shares import CallerShares
from pet.federation.server.rest import RestOptions
from pet.transports.rates import BURST_SECONDS
from pet.transports.refusal_counts import RefusalCounts, RefusalReason

PATH = "/symetry/rest/c1/fedml"


@pytest.fixture(scope="module")
def url():
    with federation_server(options=RestOptions(max_requests_per_second=1.0)) as url:
        yield url


def figures(url):
    text = httpx.get(f"{url}/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(\w[^#\n]*?) ([-+.\w]+)$", text, re.MULTILINE)}


def ask(url, source="127.0.0.1", **options):
    """Return the status of an answer, and when to come back."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
        answer = client.send(signed(url, path=PATH, **options))
    return answer.status_code, answer.headers.get("retry-after")


def test_a_user_has_one_rate_from_all_addresses(url):
    numbers, statuses = itertools.count(1), list[int]()
    while 429 not in statuses:  # on a busy machine it takes longer to ask for more
        statuses.append(ask(url, f"127.0.4.{next(numbers)}")[0])
        assert len(statuses) < 100
    assert statuses[: int(BURST_SECONDS)] == [200] * int(BURST_SECONDS)
    before = figures(url)['pet_refusals_total{reason="rate"}']
    assert before >= 1
    status, again = ask(url, "127.0.4.200")
    assert (status, again) in {(429, "1"), (200, None)}
    with httpx.Client() as client:  # another user goes on meanwhile, from the same address
        other = client.send(signed(url, path="/symetry/rest/c2/fedml", user="c2", key=OTHER_KEY))
    assert other.status_code == 200


def test_requests_of_one_user_leave_room_for_those_of_others():
    refusals = RefusalCounts()
    shares = CallerShares(float("inf"), 8, refusals)
    held = [shares.carrying_out("c1") for _ in range(7)]
    for one in held:
        one.__enter__()
    with pytest.raises(RequestRefusedError) as raised, shares.carrying_out("c1"):
        pass
    assert (raised.value.status, raised.value.headers) == (503, {"retry-after": "1"})
    assert refusals.read()[RefusalReason.CALLS] == 1
    with shares.carrying_out("c2"):
        pass
    held.pop().__exit__(None, None, None)
    with shares.carrying_out("c1"):
        pass
    for one in held:
        one.__exit__(None, None, None)


def test_metrics_tell_what_was_answered_and_refused():
    with federation_server() as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert ask(url)[0] == 200
        assert ask(url, key=OTHER_KEY)[0] == 401
        with httpx.Client() as client:
            assert client.post(url + PATH + "/create?pid=p", content=bytes(100)).status_code == 400
            body = bytes((1 << 20) + 1)
            assert client.send(announced(url, PATH + "/create", body)).status_code == 413
        httpx.get(f"{url}/wp-login.php")
        found = figures(url)
    assert found['pet_http_answers_total{route="/symetry/rest/{cid}/fedml",status="200"}'] == 1
    assert found['pet_http_answers_total{route="/symetry/rest/{cid}/fedml",status="401"}'] == 1
    assert found['pet_http_answers_total{route="other",status="404"}'] == 1
    assert found['pet_refusals_total{reason="signature"}'] == 2
    assert found['pet_refusals_total{reason="body_size"}'] == 1
    assert found["pet_memory_in_flight_bytes"] == found["pet_federation_peers"] == 0
    assert found["pet_federation_damaged_replay_lines"] == 0
    assert any(name.startswith('pet_kernels_info{backend="') for name in found)


def test_metrics_can_be_switched_off_and_must_be_there_if_asked_for(monkeypatch):
    with federation_server(options=RestOptions(has_metrics=False)) as url:
        assert httpx.get(f"{url}/metrics").status_code == 404
    for name in ("pet.federation.server.metrics", "pet.transports.http_metrics"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        module, _, attribute = name.rpartition(".")
        monkeypatch.delattr(sys.modules[module], attribute, raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with (
        pytest.raises(MissingExtraError, match=r"pip install .*\[metrics\]"),
        federation_server(options=RestOptions(has_metrics=True)),
    ):
        pass
    with federation_server() as url:
        assert httpx.get(f"{url}/metrics").status_code == 404
