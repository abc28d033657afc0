"""`pet federation ...` against a server with peers in memory: files, words, exit statuses."""

import asyncio
import contextlib
import math
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import fork_server
import httpx
import pytest
import typer
from federation_rest_server import KEY, OTHER_KEY, federation_server
from federation_runtime_in_memory import InMemoryRuntime
from few_threads import NO_MORE_THREADS
from nats_broker import running_broker
from starlette.responses import PlainTextResponse

from pet import cli
from pet.commands import federation_serve
from pet.errors import FederationUnavailableError
from pet.federation import Client, Feature, Schema
from pet.federation.formats.users import read_users, write_key_file
from pet.federation.peer.nats_runtime import NatsFederationRuntime
from pet.federation.records import Confirm
from pet.files import write_private
from pet.secret import Secret
from pet.transports.refusal_counts import RefusalCounts

TLS = Path(__file__).parent.parent / "vectors" / "tls"


@pytest.fixture
def run_at(tmp_path, monkeypatch, capsys):
    """Run one command in a folder of its own, at a server that c1 and c2 are users of; returns output or errors."""
    monkeypatch.chdir(tmp_path)
    write_key_file(tmp_path / "c1.key", "c1", Secret(KEY))
    write_key_file(tmp_path / "c2.key", "c2", Secret(OTHER_KEY))

    def run_at(url):
        monkeypatch.setenv("PET_FEDERATION_URL", url)

        def run(*words, status=0):
            assert cli.run(["federation", *words]) == status
            captured = capsys.readouterr()
            return captured.out if status == 0 else captured.err

        return run

    return run_at


@pytest.fixture
def run(run_at):
    with federation_server(runtime=InMemoryRuntime()) as url:
        yield run_at(url)


@pytest.fixture
def joined(run):
    run("create", "admin", "-k", "c1.key", "--name", "F", "--nats-hosts", "nats://127.0.0.1:4222")
    run("invite", "admin", "-k", "c1.key", "-o", "c2.invitation", "-p", "c2.password")
    run("join", "mine", "c2.invitation", "-k", "c2.key", "-p", "c2.password")
    return run


def test_a_life_in_commands(joined, tmp_path):
    run = joined
    text, password = Path("c2.invitation").read_text().strip(), Path("c2.password").read_text().strip()
    assert text.startswith("PETINV1.")
    assert {Path(name).stat().st_mode & 0o777 for name in ["c2.invitation", "c2.password"]} == {0o600}
    Path("rows.csv").write_text("x,y\n1,2\n3,4\n")
    printed = run("learn", "mine", "rows.csv", "-k", "c2.key")
    assert printed == "mine learned 2 rows; it has 2, of which the others hold 0\n"
    assert run("start", "mine", "-k", "c2.key") == "mine pulses\n"
    assert run("sync", "mine", "-k", "c2.key").startswith("the request is on its way")
    assert run("sync", "mine", "-k", "c2.key", "--wait", "0.1", status=1).startswith(
        "error: mine: expected a merge within 0.1 s"
    )
    run("start", "admin", "-k", "c1.key")
    assert run("sync", "mine", "-k", "c2.key", "--wait", "10") == "Sync completed with 2 peers\n"
    log = run("log", "mine", "-k", "c2.key")
    assert "sync: Sync completed with 2 peers\n" in log
    assert run("log", "mine", "-k", "c2.key", "--errors") == "error: no lines yet\n"
    assert run("accept-contract", "mine", "-k", "c2.key") == "mine: no change of the contract waits for consent\n"
    status = run("status", "mine", "-k", "c2.key")
    assert "mine: peer of F (native), pulsing" in status
    assert re.search(r"\n  mine   ([0-9a-f]{4} ){8} this peer\n", status)
    assert "sync log: Sync completed with 2 peers" in status
    assert run("stop", "mine", "-k", "c2.key") == "mine does not pulse\n"
    listed = run("status", "-k", "c1.key")
    assert listed.startswith("Key for invitations without password: ")
    assert listed.endswith("\nadmin\n")
    assert run("leave", "mine", "-k", "c2.key", "--yes") == "mine left its federation\n"
    assert run("status", "-k", "c2.key").endswith("No projects yet.\n")
    assert run("delete", "admin", "-k", "c1.key", "-y") == "the federation of admin has ended\n"
    for secret in [KEY, OTHER_KEY, password, text]:
        assert secret not in printed + status + listed


def test_a_changed_contract_is_accepted_and_a_sync_without_news_says_so(run_at, tmp_path, monkeypatch):
    """At peers that run, over a broker: what is printed is what the peer does from then on."""
    runtime = NatsFederationRuntime(confirm=Confirm.ADMIN)
    with running_broker(tmp_path / "broker") as broker, federation_server(runtime=runtime) as url:
        run = run_at(url)
        schema = Schema((Feature(name="age", centre=50, scale=20),)).to_json()
        write_private(tmp_path / "schema.json", schema)
        run("create", "admin", "-k", "c1.key", "--name", "F", "--nats-hosts", broker.url, "--schema", "schema.json")
        run("invite", "admin", "-k", "c1.key", "-o", "c2.invitation", "-p", "c2.password")
        shown = "1 features: age; at least 6 rows leave a peer together"
        assert shown in run("join", "mine", "c2.invitation", "-k", "c2.key", "-p", "c2.password")
        assert shown in run("status", "mine", "-k", "c2.key")
        with Client(url, "c1", KEY) as admin, Client(url, "c2", OTHER_KEY) as peer:
            admin.set_contract("admin", ["COUNT(age) > 5"])
            wait_until(lambda: peer.contract("mine")["proposed"] is not None)
            waiting = "change 1 of the contract waits for your consent (pet federation accept-contract mine)"
            assert waiting in run("status", "mine", "-k", "c2.key")
            assert "expected --yes" in run("accept-contract", "mine", "-k", "c2.key", status=2)
            monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
            monkeypatch.setattr("typer.confirm", lambda *_, **__: abort_now())
            run("accept-contract", "mine", "-k", "c2.key", status=1)
            assert peer.contract("mine")["contract"]["lines"] == []
            accepted = "COUNT(age) > 5\nmine follows change 1 of the contract\n"
            assert run("accept-contract", "mine", "-k", "c2.key", "--yes") == accepted
            found = peer.contract("mine")
            assert (found["contract"], found["proposed"]) == ({"lines": ["COUNT(age) > 5"], "number": 1}, None)
            assert waiting not in run("status", "mine", "-k", "c2.key")
        for project, key in (("admin", "c1.key"), ("mine", "c2.key")):
            run("start", project, "-k", key)
        assert run("sync", "mine", "-k", "c2.key", "--wait", "60").startswith("Nothing new to merge at ")


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_members_are_confirmed_by_fingerprint_by_name_and_by_the_code_of_their_list(joined, monkeypatch):
    run = joined
    as_admin, as_peer = ["admin", "-k", "c1.key"], ["mine", "-k", "c2.key"]
    shown = run("members", *as_peer)
    fingerprints = dict(re.findall(r"^  (\S+)\s+((?:[0-9a-f]{4} ){7}[0-9a-f]{4})  ", shown, re.MULTILINE))
    assert fingerprints.keys() == {"admin", "mine"}
    assert f"admin  {fingerprints['admin']}  unconfirmed, admin" in shown
    assert "pet federation confirm mine --list CODE" in shown
    code = run("members", *as_peer, "--code").strip()
    assert f"Code of the list: {code}\n" in shown
    assert run("members", *as_admin, "--code").strip() == code

    assert "expected the code of the list" in run("confirm", *as_peer, "--list", code[::-1], status=1)
    for words in ([], ["admin", "--list", code]):
        assert "expected one of MEMBER and --list CODE" in run("confirm", "mine", *words, "-k", "c2.key", status=2)
    assert "nobody can be asked" in run("confirm", "mine", "admin", "-k", "c2.key", status=2)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked = []
    for agrees in (False, True):
        monkeypatch.setattr("typer.confirm", lambda text, abort, agrees=agrees: asked.append(text) or agrees or abort_now())
        run("confirm", "mine", "ADMIN", "-k", "c2.key", status=0 if agrees else 1)
        assert (" confirmed, admin" in run("members", *as_peer)) is agrees
    assert asked == [f"Does admin itself call this its fingerprint: {fingerprints['admin']}?"] * 2
    assert "no member" not in run("confirm", "admin", fingerprints["mine"].replace(" ", "-"), "-k", "c1.key")
    assert "unconfirmed" not in run("confirm", *as_admin, "--list", code.lower())
    assert "Unconfirmed" not in run("status", *as_admin)


def abort_now():
    raise typer.Abort


def test_a_peer_has_a_name_and_is_removed_by_it(run):
    run("create", "admin", "-k", "c1.key", "--name", "F", "--nats-hosts", "nats://127.0.0.1:4222", "--peer-name", "Alice")
    run("invite", "admin", "-k", "c1.key", "-o", "c2.invitation", "-p", "c2.password")
    words = ["join", "mine", "c2.invitation", "-k", "c2.key", "-p", "c2.password", "--peer-name"]
    assert "fed_peer_name" in run(*words, "x" * 65, status=1)
    printed = run(*words, "St. Anna")
    assert "let it learn rows, then start its pulse" in printed
    assert re.search(r"\n  Alice     [0-9a-f ]{39}  unconfirmed, admin\n  St. Anna  [0-9a-f ]{39}  this peer\n", printed)
    assert "expected the name or fingerprint" in run("remove", "admin", "Anna", "-k", "c1.key", status=1)
    assert run("remove", "admin", "st. anna", "-k", "c1.key") == "st. anna is removed\n"


def test_another_credential_of_the_broker(joined, monkeypatch):
    run = joined
    assert "expected at least one of" in run("credentials", "mine", "-k", "c2.key", status=1)
    monkeypatch.setenv("PET_NATS_PASSWORD", "hush-hush")
    assert "expected user and password together" in run("credentials", "mine", "-k", "c2.key", status=1)
    words = ["credentials", "mine", "-k", "c2.key", "--nats-user", "federation", "--nats-hosts", "nats://127.0.0.1:4223"]
    assert run(*words) == "mine has a new credential of the broker: connected\n"
    status = run("status", "mine", "-k", "c2.key")
    assert "broker nats://127.0.0.1:4223: connected" in status
    assert "hush" not in status


def test_an_invitation_for_a_key(run):
    run("create", "admin", "-k", "c1.key", "--name", "F", "--nats-hosts", "nats://127.0.0.1:4222")
    key = run("status", "-k", "c2.key").splitlines()[0].rpartition(" ")[2]
    printed = run("invite", "admin", "-k", "c1.key", "-o", "c2.invitation", "--peer-key", key)
    assert printed == "the invitation is in c2.invitation; only the holder of that key can open it\n"
    assert not Path("c2.invitation.password").exists()
    err = run("join", "mine", "c2.invitation", "-k", "c2.key", "--admin-key", key, status=1)
    assert err.startswith("error: the invitation does not open")


def test_each_peer_sets_keys_of_its_own(run):
    hosts = ["--nats-hosts", "nats://127.0.0.1:4222"]
    run("create", "admin", "-k", "c1.key", "--name", "F", *hosts, "--set", "fed_encrypt=false", "--set", "fed_local_type=cpu")
    run("invite", "admin", "-k", "c1.key", "-o", "c2.invitation", "-p", "c2.password")
    words = ["join", "mine", "c2.invitation", "-k", "c2.key", "-p", "c2.password", "--set"]
    assert "expected KEY=VALUE, got 'fed_local_type'" in run(*words, "fed_local_type", status=2)
    run(*words, "fed_local_type=tpu", "--set", "fed_local_type=gpu")
    for key, project, expected in [("c1.key", "admin", "cpu"), ("c2.key", "mine", "gpu")]:
        with Client.from_key_file(os.environ["PET_FEDERATION_URL"], Path(key)) as client:
            info = client.info(project)
        assert (info["fed_local_type"], info["fed_encrypt"]) == (expected, "false")


def test_where_the_password_comes_from(run, monkeypatch):
    run("create", "admin", "-k", "c1.key", "--name", "F", "--nats-hosts", "nats://127.0.0.1:4222")
    run("invite", "admin", "-k", "c1.key", "-o", "c2.invitation", "--hours", "0.5")
    password = Path("c2.invitation.password").read_text().strip()
    Path("empty").write_text("\n")
    assert "got an empty file" in run("join", "mine", "c2.invitation", "-k", "c2.key", "-p", "empty", status=1)
    monkeypatch.setenv("PET_FEDERATION_PASSWORD", password)
    run("join", "mine", "c2.invitation", "-k", "c2.key", "--nats-hosts", "nats://127.0.0.1:4223")
    assert "broker nats://127.0.0.1:4223" in run("status", "mine", "-k", "c2.key")


def test_nothing_is_written_over(run, tmp_path):
    Path("there").write_text("mine")
    assert "expected a new file, got one that exists" in run("invite", "admin", "-k", "c1.key", "-o", "there", status=1)
    assert "expected a new file for the key" in run("user", "add", "alice", "--key-file", "there", status=1)
    assert Path("there").read_text() == "mine"


def test_users_are_added(run):
    printed = run("user", "add", "alice", "--users", "u.json")
    assert printed == "alice is a user in u.json; the key is in alice.key\n"
    [key] = read_users(Path("u.json")).values()
    assert key.reveal() not in printed
    assert read_users(Path("alice.key")) == {"alice": key}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schema", "a", "--schema-from", "b"], "expected one of --schema and --schema-from, got both"),
        (["--set", "fed_encrypt"], "expected KEY=VALUE, got 'fed_encrypt'"),
    ],
)
def test_options_that_do_not_fit(run, words, message):
    arguments = ["create", "admin", "-k", "c1.key", "--name", "F", "--nats-hosts", "nats://127.0.0.1:4222", *words]
    assert message in run(*arguments, status=2)


def test_what_create_sends(run, monkeypatch):
    monkeypatch.setenv("PET_NATS_PASSWORD", "hush-broker")
    Path("rows.csv").write_text("age,smoker\n40,1\n60,\n50,0\n")
    more = ["--nats-user", "u", "--set", "fed_use_smpc=false", "--schema-from", "rows.csv", "-s", "d1"]
    run("create", "admin", "-k", "c1.key", "--name", "F", "--nats-hosts", "nats://127.0.0.1:4222", *more)
    assert "schedule d1, plain exchange" in run("status", "admin", "-k", "c1.key")
    for text, problem in [
        ("age,smoker\n", "feature age: expected at least one value"),
        ("age\n1,2\n", "line 2, column 2: expected 1 fields as in the heading, got 2"),
        ("age\nold\n", "line 2, column 1, feature age: expected a number"),
    ]:
        Path("rows.csv").write_text(text)
        assert f"rows.csv: {problem}" in run(
            "create", "x", "-k", "c1.key", "--name", "F", "--nats-hosts", "nats://127.0.0.1:4222", *more, status=1
        )


def test_a_server_that_is_not_there_is_one_line(run, monkeypatch):
    monkeypatch.setattr(Client.__init__, "__kwdefaults__", Client.__init__.__kwdefaults__ | {"start_seconds": 0.1})
    assert run("status", "-k", "c1.key", "-u", "http://127.0.0.1:1", status=1).startswith(
        "error: http://127.0.0.1:1: expected an answer"
    )
    assert run("status", "-k", "c1.key", "-u", "http://node.example", status=1).startswith("error: url: expected https")
    assert "expected the key of one user" in run("status", "-k", "nowhere.key", status=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bind", "0.0.0.0:0"], "expected --tls-certificate and --tls-key for an address off this machine"),
        (["--bind", "0.0.0.0:0", "--compat"], "expected --tls-certificate and --tls-key for an address off this machine"),
        (["--tls-key", "x"], "expected --tls-certificate and --tls-key together"),
        (["--bind", "nonsense"], "bind address: expected"),
        (
            ["--tls-certificate", "users.json", "--tls-key", "users.json"],
            "TLS: expected a PEM file with a certificate in users.json",
        ),
        (["--users", "bad.json"], "bad.json: expected"),
    ],
)
def test_a_server_that_must_not_start(run, words, message):
    Path("users.json").write_text('{"users": {}}')
    Path("users.json").chmod(0o600)
    Path("bad.json").write_text("[]")
    Path("bad.json").chmod(0o600)
    bind = [] if "--bind" in words else ["--bind", "127.0.0.1:0"]
    assert message in run("serve", *bind, *words, status=1)


@contextlib.contextmanager
def serving_process(*words):
    """Run `pet federation serve` as a process; yield it, its URL, and what it printed so far."""
    process = fork_server.start(fork_server.PET, "federation", "serve", "--bind", "127.0.0.1:0", *words)
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            if found := re.search(r"Listening on (\S+) ", line):
                yield process, found[1], printed
                break
        else:
            raise AssertionError(process.stderr.read())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are kept by Linux")
def test_a_server_ends_where_the_system_starts_no_threads_for_it(tmp_path):
    words = ("federation", "serve", "--bind", "127.0.0.1:0")
    done = fork_server.run(f"{NO_MORE_THREADS}\n{fork_server.PET}", *words, folder=tmp_path)
    assert done.returncode == 1
    assert re.search(r"expected the system to start \d+ threads \(pet-helper\), got: can't start new thread", done.stderr)
    assert "Traceback" not in done.stderr
    assert "Listening" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_with_tls_and_the_weak_formats(tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    write_private(Path("users.json"), f'{{"users": {{"c1": "{KEY}"}}}}')
    certificate = str(TLS / "server.pem")
    with serving_process("--tls-certificate", certificate, "--tls-key", certificate, "--compat", "--no-changing-gets") as (
        process,
        url,
        printed,
    ):
        assert url.startswith("https://")
        assert "Users: c1\n" in printed
        for compat in (False, True):
            with Client(url, "c1", KEY, authority=TLS / "authority.pem", compat=compat) as client:
                assert client.projects() == []
        with Client(url, "c1", KEY) as client, pytest.raises(FederationUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            client.projects()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "Stopped.\n"
    assert "the vendor's formats are accepted here: they are insecure" in err
    assert "Traceback" not in err
    assert {path.stat().st_mode & 0o077 for path in Path("federation-state").iterdir()} == {0}


def test_one_address_cannot_take_all_connections(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving_process() as (_, url, _), contextlib.ExitStack() as stack:
        port = int(url.rpartition(":")[2])

        def connect():
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))

        taken = [connect() for _ in range(federation_serve._MAX_CONNECTIONS * 7 // 8)]
        assert connect().recv(64).startswith(b"HTTP/1.1 503 ")
        for connection in taken[:2]:
            connection.close()
        time.sleep(0.2)
        again = connect()
        again.sendall(b"GET /symetry/rest/c1/fedml HTTP/1.1\r\nhost: x\r\n\r\n")
        assert again.recv(64).startswith(b"HTTP/1.1 400 ")


def test_a_flood_of_requests_is_refused():
    async def flood():
        config = federation_serve._server_config(PlainTextResponse("fine"), None, [], RefusalCounts())
        config.load()
        transport = httpx.ASGITransport(config.loaded_app)
        async with httpx.AsyncClient(transport=transport, base_url="http://federation") as client:
            return [(await client.get("/")).status_code for _ in range(1100)]

    began = time.monotonic()
    answers = asyncio.run(flood())
    allowed = 1000 + 100 * math.ceil(time.monotonic() - began)  # a busy machine may take seconds, in which more are allowed
    assert answers[:1000] == [200] * 1000
    assert answers.count(200) <= allowed
    assert set(answers) == {200, 429} or allowed > 1100


def test_a_state_that_is_damaged_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("federation-state").mkdir()
    Path("federation-state/federations.sqlite3").write_bytes(b"x" * 5000)
    assert cli.run(["federation", "serve", "--bind", "127.0.0.1:0"]) == 1
    assert "expected the store of a federation server" in capsys.readouterr().err
