"""The REST interface with the peers it is for: over a real nats-server, in both modes."""

import base64
import json
import time

import numpy as np
import pytest
from documented_client import DocumentedClient, decrypt_invitation, decrypt_map
from federation_rest_server import KEY, OTHER_KEY, Clock, federation_server
from nats_broker import running_broker

from pet.errors import FederationRefusedError
from pet.federation import Client
from pet.federation.peer.nats_runtime import NatsFederationRuntime
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema

SCHEMA = Schema((Feature(name="x", centre=0, scale=4), Feature(name="y", centre=0, scale=4))).to_json()


@pytest.fixture
def clock():
    return Clock(time.time())


@pytest.fixture
def url(clock):
    with federation_server(runtime=NatsFederationRuntime(), allows_compat=True, clock=clock) as url:
        yield url


def rows(seed, count):
    random = np.random.default_rng(seed)
    x = random.normal(0, 1, count)
    return {"x": x, "y": 2 * x + random.normal(0, 0.5, count)}


def merged(clients, parts, *, asking):
    """Learn, pulse, let some ask for a synchronisation; return the merged correlations and the pooled one."""
    for (client, project), own in zip(clients, parts, strict=True):
        client.learn(project, own)
        client.start_pulse(project)
    for client, project in asking:
        client.sync_now(project)
    x, y = (np.concatenate([own[name] for own in parts]) for name in ("x", "y"))
    wait_for(lambda: all(rows_merged(client, project) == len(x) for client, project in clients), 60)
    return [client.correlation(project, "x", "y") for client, project in clients], np.corrcoef(x, y)[0, 1]


def rows_merged(client, project):
    try:
        return client.univariate(project, "x")["count"]
    except FederationRefusedError:
        return 0  # nothing was merged yet


def test_a_documented_client_founds_and_joins_a_federation(url, broker, clock):
    admin, other = DocumentedClient(url, "c1", KEY), DocumentedClient(url, "c2", OTHER_KEY)
    entries = {"fed_name": "f", "sync_sched": "h1", "nats_hosts": broker.url, "fed_schema": SCHEMA}
    assert admin.send_map("fedml/create", entries, "pid=admin&persist=true").status_code == 201
    for pid in ("one", "two"):
        answer = admin.send_map("fedml/admin/getEncrypted", {"passwd": "passwd", "fed_rest_host": "http://charm:8080"})
        contents = decrypt_invitation(answer.json()["values"]["fedInfoEncrypted"], "passwd")
        names = ("sync_sched", "fed_secret_key", "fed_name", "fed_req_token", "nats_hosts", "fed_rest_url")
        joined = other.send_map("fedml/createJoin", {name: contents[name] for name in names}, f"pid={pid}&persist=true")
        assert joined.status_code == 201, joined.text
    again = other.send_map("fedml/createJoin", contents, "pid=three")
    assert (again.status_code, again.json()["statusString"]) == (403, "Invalid federation token")
    errors = admin.call("GET", "fedml/admin/getErrorLog").json()["values"]["stringList"]["values"]
    assert "used" in errors[-1]
    assert contents["fed_req_token"] not in errors[-1]
    with Client(url, "c1", KEY, clock=clock) as first, Client(url, "c2", OTHER_KEY, clock=clock) as second:
        clients = [(first, "admin"), (second, "one"), (second, "two")]
        found, pooled = merged(clients, [rows(1, 30), rows(2, 40), rows(3, 50)], asking=clients)
    assert found == pytest.approx([pooled] * 3, rel=1e-9)
    info = decrypt_map(other.call("GET", "fedml/one/info").json()["values"]["fedInfoEncrypted"], OTHER_KEY)
    assert info["is_pulsing"] is True
    assert len(info["peersInfo"]) == 3
    assert base64.b64decode(contents["fed_secret_key"])
    assert contents["fed_secret_key"] not in json.dumps(info)


def test_figures_without_digits_are_null_over_rest_and_nan_in_the_client_with_the_reason(url, broker, clock):
    schema = Schema(tuple(Feature(name=name, scale=10) for name in ("constant", "x", "y")), has_missing=True).to_json()
    table = rows(1, 40) | {"constant": np.full(40, 7.7)}
    with Client(url, "c1", KEY, clock=clock) as client:
        client.create("mine", "f", nats_hosts=broker.url, fed_schema=schema)
        client.learn("mine", table)
        found = client.univariate("mine", "constant", local=True)
        assert found["mean"] == pytest.approx(7.7)
        assert np.isnan([found[name] for name in ("variance", "standard_deviation", "kurtosis", "median")]).all()
        assert "no digits" in found.reasons["variance"]
        assert 0 < found.bounds["mean"] < 1e-12
        r = client.correlation("mine", "constant", "x", local=True)
        assert np.isnan(r)
        assert "no digits" in r.reason
        c = client.covariance("mine", "x", "y", local=True)
        assert c == pytest.approx(np.cov(table["x"], table["y"], bias=True)[0, 1], rel=1e-9)
        assert (c.reason, c.peers_left_out) == (None, 0)
        assert c.bound < 1e-9
        exact = client.linear_regression("mine", "x", ["y"], local=True)
        assert exact.bounds["intercept"] < 1e-9
        assert exact.reasons == {}
        for features, problem in ((["constant"], "'constant', constant as far as"), ([], "expected different features")):
            with pytest.raises(FederationRefusedError, match=problem):
                client.linear_regression("mine", "y", features, local=True)
        values = client._requests.call("GET", "fedml/mine/univariate", {"feature": "constant", "useLocal": "true"})
        assert values["univariate"]["variance"] is None
        assert "no digits" in values["reasons"]["variance"]


def test_a_fit_without_residuals_has_null_for_its_errors_over_rest(url, broker, clock):
    with Client(url, "c1", KEY, clock=clock) as client:
        client.create("mine", "f", nats_hosts=broker.url, fed_schema=SCHEMA)
        client.learn("mine", {"x": np.arange(9.0), "y": 2 * np.arange(9.0)})
        fit = client.linear_regression("mine", "y", None, local=True)
        assert fit.coefficients == pytest.approx({"x": 2.0}, rel=1e-9)
        assert np.isnan([fit.standard_errors["x"], fit.intercept_standard_error]).all()
        assert "no digits" in fit.reasons["standard_errors.x"]
        values = client._requests.call(
            "POST", "fedml/mine/regression", {"useLocal": "true"}, body=json.dumps({"target": "y", "features": ["x"]}).encode()
        )
        assert values["linearRegression"]["standardErrors"] == {"x": None}


def test_a_native_federation_with_all_that_an_admin_may_do(url, broker, clock):
    with Client(url, "c1", KEY, clock=clock) as admin, Client(url, "c2", OTHER_KEY, clock=clock) as peer:
        admin.create("admin", "f", nats_hosts=broker.url, fed_schema=SCHEMA)
        for pid in ("one", "two", "three"):
            text, password = admin.invite("admin")
            peer.join(pid, text, password)
        text, password = admin.invite("admin", lifespan_hours=1)
        clock.now += 3601
        refuse(403, "Invalid federation token", peer.join, "late", text, password)
        assert any("expired" in line for line in admin.error_log("admin"))
        clients = [(admin, "admin"), (peer, "one"), (peer, "two")]
        code = admin.members("admin").code
        for client, pid in clients:
            assert all(member.is_confirmed for member in client.confirm_list(pid, code).members)
        found, pooled = merged(clients, [rows(1, 30), rows(2, 40), rows(3, 50)], asking=clients[-1:])
        assert found == pytest.approx([pooled] * 3, rel=1e-9)
        refuse(429, "sync: expected at most one request a minute", peer.sync_now, "two")
        assert peer.linear_regression("two", "y", ["x"]).row_count == 120
        admin.new_schedule("admin", "d2")
        admin.set_contract("admin", ["COUNT(x) > 5", "# a comment"])
        assert admin.validate_contract("admin", ["COUNT(nothing) > 5"])
        wait_for(lambda: peer.info("one")["sync_sched"] == "d2" and peer.contract("one")["proposed"] is not None)
        proposed = peer.contract("one")["proposed"]
        assert (proposed["lines"], peer.info("one")["contract"]) == (["COUNT(x) > 5", "# a comment"], "")
        refuse(400, f"contract: expected consent to change {proposed['number']}, got it to 99", peer.accept_contract, "one", 99)
        peer.accept_contract("one", proposed["number"])
        assert "COUNT(x)" in peer.info("one")["contract"]
        assert peer.contract("one")["proposed"] is None
        peer.set_least_rows("one", 20)
        removed = peer.info("three")["local_uuid"]
        admin.remove_peer("admin", removed)
        wait_for(lambda: removed not in peer.info("one")["peersInfo"])
        peer.leave("two")
        wait_for(lambda: len(admin.info("admin")["peersInfo"]) == 2)
        refuse(403, "Not Federation Administrator", peer.delete, "one")
        admin.delete("admin")
        assert admin.projects() == []


def test_brokers_that_do_not_answer_or_do_not_know_us(url, tmp_path, clock):
    with Client(url, "c1", KEY, clock=clock) as admin:
        with pytest.raises(FederationRefusedError, match="Federation backend unavailable") as raised:
            admin.create("admin", "f", nats_hosts="nats://127.0.0.1:1", nats_req_timeout=1)
        assert raised.value.status == 503
        with running_broker(tmp_path, 'authorization { token: "right" }') as broker:
            for credential in [{}, {"nats_sec_token": "hush-wrong"}]:
                with pytest.raises(FederationRefusedError, match="Authorization Violation") as raised:
                    admin.create("admin", "f", nats_hosts=broker.url, nats_req_timeout=5, **credential)
                assert "hush" not in str(raised.value)
            admin.create("admin", "f", nats_hosts=broker.url, nats_sec_token="right")
        assert admin.projects() == ["admin"]


def refuse(status, text, call, *arguments):
    with pytest.raises(FederationRefusedError) as raised:
        call(*arguments)
    assert (raised.value.status, str(raised.value)) == (status, text)


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
