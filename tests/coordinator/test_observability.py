"""What a round looks like from outside: metrics, the live page in a real browser, and log lines as JSON."""

import json
import logging
import re
import sys
from pathlib import Path

import httpx
import pytest
from asgi_server import serving, wait_until
from browsers import complaints, look_at
from pet1_players import Players
from sealed_rounds import SealedRound, seeds_path

from pet.coordinator import app as app_module
from pet.coordinator.app import create_app
from pet.coordinator.json_log import JsonFormatter
from pet.coordinator.metrics import Metrics
from pet.coordinator.observation import ROUNDS_KEPT
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.service import CoordinatorService
from pet.coordinator.settings import Settings
from pet.errors import MissingExtraError
from pet.messages import decode_seed_dictionary, decode_sum_dictionary
from pet.protocol.coordinator import FAILURE_REASONS
from pet.protocol.pet1_rules import PET_1
from pet.protocol.phases import PET1_PHASES
from pet.transports import asgi, live_page
from pet.transports.live_page import live_routes


def settings(**changes):
    window = {"count": {"min": 2, "max": 10}, "time": {"min": 0, "max": 60}}
    update = {"count": {"min": 3, "max": 10}, "time": {"min": 0, "max": 60}}
    return Settings(pet={"sum": {"prob": 0.5, **window}, "update": {"prob": 0.9, **update}, "sum2": window}, **changes)


@pytest.fixture
def client():
    with serving(create_app(settings())) as url, httpx.Client(base_url=url) as client:
        yield client


def play_round(client):
    """Play one round with a refused message in it."""
    round_ = SealedRound(client.get("/params").content)
    sum_keys = round_.keys("sum", 2)
    client.post("/message", content=bytes(200))
    for key in sum_keys:
        client.post("/message", content=bytes(round_.sum(key)))
    wait_until(lambda: client.get("/sums").status_code == 200)
    sums = decode_sum_dictionary(client.get("/sums").content)
    for key in round_.keys("update", 3):
        client.post("/message", content=bytes(round_.update(key, sums)))
    wait_until(lambda: client.get(seeds_path(sum_keys[0].public_key)).status_code == 200)
    for key in sum_keys:
        seeds = decode_seed_dictionary(client.get(seeds_path(key.public_key)).content)
        client.post("/message", content=bytes(round_.sum2(key, list(seeds.values()))))
    wait_until(lambda: client.get("/status").json()["rounds_completed"] == 1)


def figures(client):
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_metrics_tell_what_a_round_did(client):
    play_round(client)
    client.get("/wp-login.php")
    found = figures(client)
    assert found['pet_messages_accepted_total{kind="sum"}'] == 2
    assert found['pet_messages_accepted_total{kind="update"}'] == 3
    assert found['pet_messages_accepted_total{kind="sum2"}'] == 2
    assert found['pet_messages_refused_total{reason="decryption"}'] == 1
    assert found["pet_rounds_completed_total"] == 1
    assert sum(value for name, value in found.items() if name.startswith("pet_refusals_total{")) == 0
    assert found['pet_phase_seconds_count{phase="update"}'] == 1
    assert found["pet_message_handling_seconds_count"] == 8
    assert found["pet_message_bytes_total"] > 8 * 184
    assert found["pet_memory_in_flight_bytes"] == 0
    assert found["pet_spooled_bytes"] == 0
    assert found["pet_round"] == 2
    assert sum(value for name, value in found.items() if name.startswith("pet_phase{")) == 1
    assert found['pet_http_answers_total{route="/message",status="200"}'] == 8
    assert found['pet_http_answers_total{route="other",status="404"}'] == 1
    assert any(name.startswith('pet_kernels_info{backend="') for name in found)


def test_metrics_count_what_was_refused_before_it_was_looked_at(client):
    assert client.post("/message", content=bytes(100_000)).status_code == 413
    assert figures(client)['pet_refusals_total{reason="body_size"}'] == 1


def test_metrics_count_rounds_that_were_opened_anew():
    window = {"count": {"min": 1, "max": 10}, "time": {"min": 0.05, "max": 0.1}}
    quick = Settings(pet={"sum": window, "update": {"time": {"min": 0.05, "max": 0.1}}})
    with serving(create_app(quick)) as url, httpx.Client(base_url=url) as client:
        wait_until(lambda: figures(client)["pet_rounds_reopened_total"] >= 2)
        assert not any(name.startswith("pet_rounds_failed_total") for name in figures(client))


def test_metrics_can_be_switched_off_and_must_be_there_if_asked_for(monkeypatch):
    with serving(create_app(settings(metrics={"prometheus": False}))) as url:
        assert httpx.get(f"{url}/metrics").status_code == 404


def test_without_the_extra_only_an_operator_who_asked_is_told(monkeypatch):
    monkeypatch.delitem(sys.modules, "pet.coordinator.metrics", raising=False)
    monkeypatch.delattr("pet.coordinator.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[metrics\]"):
        create_app(settings(metrics={"prometheus": True}))
    with serving(create_app(settings())) as url:
        assert httpx.get(f"{url}/metrics").status_code == 404


def test_the_page_says_what_may_run_in_it(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "http://" not in answer.text
    assert "https://" not in answer.text


def test_the_page_can_be_switched_off():
    with serving(create_app(settings(api={"bind_address": "127.0.0.1:0", "live_page": False}))) as url:
        assert httpx.get(f"{url}/").status_code == 404
        assert httpx.get(f"{url}{live_page.EVENTS_PATH}").status_code == 404


def test_too_many_watchers_are_sent_away(monkeypatch):
    monkeypatch.setattr(live_page, "MAX_WATCHERS", 1)
    with serving(create_app(settings())) as url, httpx.Client(base_url=url, timeout=30) as client:
        with client.stream("GET", live_page.EVENTS_PATH) as first:
            lines = first.iter_lines()
            assert next(lines).startswith("retry:")
            assert client.get(live_page.EVENTS_PATH).status_code == 503
        wait_until(lambda: _status_of_events(client) == 200)


def _status_of_events(client):
    with client.stream("GET", live_page.EVENTS_PATH) as answer:
        return answer.status_code


def test_a_stream_of_events_ends_by_itself(client, monkeypatch):
    monkeypatch.setattr(live_page, "_STREAM_SECONDS", 0.2)
    events = client.get(live_page.EVENTS_PATH).text
    snapshot = json.loads(events.split("data: ")[1].split("\n")[0])
    assert snapshot["status"]["phase"] == "sum"
    assert snapshot["window"]["min_count"] == 2
    assert snapshot["rounds"] == []


@pytest.mark.long
def test_the_page_follows_a_round_in_a_browser(browser, client):
    browser.get(str(client.base_url))

    def text(name):
        return browser.find_element("id", name).text

    def classes():
        return [item.get_attribute("class") for item in browser.find_elements("css selector", "#phases li:not([hidden])")]

    wait_until(lambda: text("connection") == "live", 20)
    assert text("round") == "round 1"
    assert text("count") == "0 accepted, 2 needed, at most 10"
    assert re.fullmatch(r"(?i)waiting for 2 sum messages of 2, for \d+ s; none has come yet", text("waiting"))
    assert text("time").endswith(" s, then the round is opened anew")
    assert text("until") == "until sum ends"
    assert classes() == ["now", "", "", ""]
    wait_until(lambda: text("advice").startswith("Start more participants: on average 50% of them"), 20)
    play_round(client)
    wait_until(lambda: "model published" in text("rounds"), 20)
    assert text("round") == "round 2"
    assert "(1 with a model, 0 without)" in text("totals")
    client.post("/message", content=bytes(200))
    wait_until(lambda: "the body does not open" in text("refusals"), 20)
    bars = [len(browser.find_elements("css selector", f"#chart .{kind}")) for kind in ("accepted", "refused", "seconds")]
    assert bars == [1, 1, 1]
    assert "round 1: 7 accepted, 1 refused" in browser.find_element("css selector", "#chart title").get_attribute("textContent")
    summed = SealedRound(client.get("/params").content)
    for key in summed.keys("sum", 2):
        client.post("/message", content=bytes(summed.sum(key)))
    wait_until(lambda: classes() == ["done", "now", "", ""], 20)
    assert text("phases").startswith("sum: finished\n")
    look_at(browser, "live_page")
    assert complaints(browser) == []


PAGE = Path(live_page.__file__).with_name("live_page.html").read_text()


@pytest.fixture
def committee():
    """Serve rounds of pet/1 with their parties."""
    players = Players(update_count=5)
    engine = Pet1Engine(players.settings(min_count=5, max_count=5), threads=1)
    service = CoordinatorService(engine, workers=1)
    app = asgi.create_app(service, live_routes(app_module.Observation(engine).snapshot))
    Metrics(service, ["/status"]).serve_in(app)
    with serving(app) as url, httpx.Client(base_url=url) as client:
        yield players, engine, client


def test_status_and_figures_say_what_each_member_has_done(committee):
    players, engine, client = committee
    players.send_members(engine, [0, 2])
    status, shown = client.get("/status").json(), figures(client)
    assert [slot["announced"] for slot in status["slots"]] == [True, False, True]
    assert status["waiting"]["slots"] == [1]
    assert [shown[f'pet_slot{{did="announced",slot="{slot}"}}'] for slot in range(3)] == [1, 0, 1]
    assert {name for name in shown if name.startswith("pet_phase{")} == {
        f'pet_phase{{phase="{phase}"}}' for phase in ("idle", "sum", "update", "check", "sum2", "unmask", "failure", "shutdown")
    }
    assert sum(name.startswith("pet_slot{") for name in shown) == 15


def test_under_xaynets_profile_there_are_no_members(client):
    shown = figures(client)
    assert "slots" not in client.get("/status").json()
    assert not any(name.startswith("pet_slot") or "check" in name for name in shown)


@pytest.mark.long
def test_the_page_follows_a_round_of_pet1_in_a_browser(browser, committee):
    players, engine, client = committee
    browser.get(str(client.base_url))

    def text(name):
        return browser.find_element("id", name).text

    def classes():
        return [item.get_attribute("class") for item in browser.find_elements("css selector", "#phases li:not([hidden])")]

    wait_until(lambda: text("connection") == "live", 20)
    assert text("slots").splitlines() == ["0 sent nothing", "1 sent nothing", "2 sent nothing"]
    assert "members of the committee announce themselves" in text("phases")
    players.play(engine)
    wait_until(lambda: "model published" in text("rounds"), 20)
    players.send_members(engine)
    players.send_updates(engine)
    players.send_members(engine, [1])
    wait_until(
        lambda: text("slots").splitlines() == ["0 announced itself", "1 announced itself, checked", "2 announced itself"], 20
    )
    assert classes() == ["done", "done", "now", "", ""]
    assert re.match(r"(?i)waiting for 2 check messages of 3, for \d+ s; slots 0, 2 have sent none", text("waiting"))
    look_at(browser, "live_page_pet1")
    assert complaints(browser) == []


def test_every_documented_reason_has_its_words_on_the_page():
    document = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    documented = {}
    for table in re.findall(r"^\| Reason \| Meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", document, re.MULTILINE):
        for names, meaning in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.*?) \|$", table, re.MULTILINE):
            documented.update(dict.fromkeys(re.findall(r"`(\w+)`", names), meaning.replace("`", "")))
    assert set(FAILURE_REASONS) < documented.keys()
    assert {PET_1.rules.time_out(phase)[0] for phase in PET1_PHASES.accepted_tags} < documented.keys()
    assert dict(re.findall(r'^  (\w+): "(.*)",$', PAGE, re.MULTILINE)) == documented


def test_only_the_last_rounds_are_kept():
    app = create_app(settings())
    observation = app_module.Observation(app.state.service.engine, clock=lambda: 0.0)
    for round_id in range(1, ROUNDS_KEPT + 6):
        observation._end_round(round_id, reason="timeout", models=0)
    rounds = observation.snapshot()["rounds"]
    assert [outcome["round"] for outcome in rounds] == list(range(ROUNDS_KEPT + 5, 5, -1))


def test_json_lines_carry_the_values_of_the_event():
    record = logging.makeLogRecord(
        {"name": "pet.coordinator", "levelno": 20, "levelname": "INFO", "msg": "phase %s", "args": ("entered",), "round_id": 3}
    )
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "phase entered"
    assert line["level"] == "info"
    assert line["round_id"] == 3
    assert line["time"].endswith("+00:00")
    assert "args" not in line
    try:
        raise ValueError("expected 1, got 2")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    assert "ValueError: expected 1, got 2" in json.loads(JsonFormatter().format(record))["error"]
