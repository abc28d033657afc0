"""The page of one peer: what it shows, to whom it answers, and that nothing of others becomes a part of it."""

import contextlib
import os
import re
import signal

import fork_server
import httpx
import pytest
from asgi_server import serving, wait_until
from browsers import complaints, look_at
from federation_rest_server import KEY, OTHER_KEY, federation_server
from federation_runtime_in_memory import InMemoryRuntime

from pet import cli
from pet.federation import Client
from pet.federation.client.peer_page import PeerPage
from pet.federation.formats.users import write_key_file
from pet.secret import Secret

HOSTILE = "</script><img src=x onerror=alert(1)>"


class ServedPage:
    def __init__(self, url, page, other, runtime):
        self.url, self.page, self.other, self.runtime = url, page, other, runtime

    def get(self, path="peer", **headers):
        return httpx.get(f"{self.url}{self.page.path}{path}", headers=headers)


@contextlib.contextmanager
def federation():
    """A federation in memory of c1's admin and c2's peer `mine`."""
    runtime = InMemoryRuntime()
    with (
        federation_server(runtime=runtime) as url,
        Client(url, "c1", KEY, start_seconds=0) as admin,
        Client(url, "c2", OTHER_KEY, start_seconds=0) as client,
    ):
        admin.create("admin", "Hospitals", nats_hosts="nats://127.0.0.1:4222", fed_peer_name=HOSTILE)
        client.join("mine", *admin.invite("admin"))
        yield url, admin, client, runtime


@contextlib.contextmanager
def served_page():
    now = 0.0

    def clock():
        nonlocal now
        now += 1  # so that nothing is remembered from the request before
        return now

    hosts = set()
    with federation() as (_, admin, client, runtime):
        page = PeerPage(client, "mine", clock)
        with serving(page.app(hosts)) as url:
            hosts.add(url.removeprefix("http://"))
            yield ServedPage(url, page, admin, runtime)


@pytest.fixture
def served():
    with served_page() as served:
        yield served


@pytest.fixture(scope="module")
def unchanged():
    """A page at whose server nothing changes."""
    with served_page() as served:
        yield served


def test_it_shows_what_the_peers_server_says(served):
    found = served.get().json()
    assert found["info"] | {"warnings": []} == {
        "project": "mine",
        "federation": "Hospitals",
        "mode": "native",
        "is_admin": False,
        "is_pulsing": False,
        "schedule": "h1",
        "uses_smpc": True,
        "hosts": "nats://127.0.0.1:4222",
        "broker": "connected",
        "warnings": [],
    }
    assert [(member["name"], member["is_confirmed"], member["is_this"]) for member in found["members"]["members"]] == [
        (HOSTILE, False, False),
        ("mine", True, True),
    ]
    assert found["rows"]["learned"] == 0
    assert found["syncs"] == []
    served.runtime.peers[1].log_sync("Sync completed with 2 peers")
    served.runtime.peers[1].log_sync("a member joined")
    found = served.get().json()
    assert found["syncs"] == ["Sync completed with 2 peers"]
    assert found["log"] == ["Sync completed with 2 peers", "a member joined"]


def test_no_key_and_no_cookie_reach_a_browser(unchanged):
    for answer in (unchanged.get(""), unchanged.get()):
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert OTHER_KEY not in answer.text + str(answer.headers) + str(answer.url)
        assert answer.headers["cache-control"].endswith("no-store")
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
    ids=str,
)
def test_other_pages_get_nothing(unchanged, headers, status):
    for path in ("", "peer"):
        answer = unchanged.get(path, **headers)
        assert answer.status_code == status
        assert "mine" not in answer.text


def test_the_path_has_a_token_of_its_own_and_nothing_can_be_changed(unchanged):
    assert PeerPage(unchanged.other, "admin").path != PeerPage(unchanged.other, "admin").path
    for path in ("/", "/peer", f"{unchanged.page.path[:-2]}/", f"{unchanged.page.path[:-2]}/peer"):
        assert httpx.get(f"{unchanged.url}{path}").status_code == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert httpx.request(method, f"{unchanged.url}{unchanged.page.path}peer").status_code == 405


def test_many_readers_ask_the_server_once_a_second(served, monkeypatch):
    monkeypatch.setattr(served.page, "_clock", lambda: 1000.0)
    first = served.get().json()
    served.runtime.peers[1].log_sync("Sync completed with 2 peers")
    assert served.get().json() == first


def test_a_server_that_refuses_is_an_error_in_words(served):
    served.page._client.leave("mine")
    answer = served.get()
    assert answer.status_code == 502
    assert "mine" in answer.json()["error"]
    assert OTHER_KEY not in answer.text


@pytest.mark.long
def test_hostile_names_are_text(served, browser):
    browser.get(f"{served.url}{served.page.path}")

    def text(name):
        return browser.find_element("id", name).text

    wait_until(lambda: text("connection") == "live", 30)
    assert text("project") == "mine"
    assert HOSTILE in text("members")
    assert browser.find_elements("css selector", "img") == []
    assert "Not confirmed: 1 of the members" in text("attention")
    assert "does not pulse" in text("attention")
    served.runtime.peers[1].log_sync(f"Sync completed with {HOSTILE}")
    wait_until(lambda: HOSTILE in text("syncs"), 30)
    served.runtime.peers[1].log_sync("Nothing new to merge at 2026-11-30T08:28:24Z")
    wait_until(lambda: re.match(r"(Nov|Dec) \d+, 2026.* Nothing new to merge\n", text("syncs")), 30)
    assert "Nothing is held back" in text("held-why")
    look_at(browser, "peer_page")
    assert complaints(browser) == []
    served.page._client.leave("mine")
    wait_until(lambda: "not up to date" in text("connection"), 30)


def test_the_command_prints_an_address_that_answers_and_ends_on_ctrl_c(tmp_path):
    write_key_file(tmp_path / "c2.key", "c2", Secret(OTHER_KEY))
    with federation() as (url, *_):
        words = ["federation", "page", "-u", url, "-k", str(tmp_path / "c2.key")]
        with fork_server.start(fork_server.PET, *words, environ=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            assert httpx.get(f"{address}peer").json()["info"]["project"] == "mine"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "Stopped.\n", "")


def test_the_command_refuses_what_it_cannot_serve(tmp_path, capsys):
    write_key_file(tmp_path / "c1.key", "c1", Secret(KEY))
    with federation() as (url, admin, *_):
        command = ["federation", "page", "-u", url, "-k", str(tmp_path / "c1.key")]
        assert cli.run([*command, "--bind", "0.0.0.0:0"]) == 1
        assert "--bind: expected an address of this machine alone" in capsys.readouterr().err
        assert cli.run([*command, "none"]) == 1
        assert "none" in capsys.readouterr().err
        admin.create("second", "F", nats_hosts="nats://127.0.0.1:4222")
        assert cli.run(command) == 1
        assert "PROJECT: expected the name of one, got none; there are: admin, second" in capsys.readouterr().err
