"""`pet coordinator` as a process of its own: what it prints, how it ends, and TLS."""

import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import sys
from pathlib import Path

import fork_server
import httpx
import pytest
from few_threads import NO_MORE_THREADS

from pet import cli
from pet.commands import serving
from pet.coordinator.key_file import create_key_file
from pet.errors import TransportError
from pet.transports.http import HttpTransport

TLS = Path(__file__).parent.parent / "vectors" / "tls"
AUTHORITY, SERVER, CLIENT = TLS / "authority.pem", TLS / "server.pem", TLS / "client.pem"
TLS_FILES = {"PET__API__TLS_CERTIFICATE": str(SERVER), "PET__API__TLS_KEY": str(SERVER)}  # one file holds both
FLAT = """
bind_address = "127.0.0.1:0"
min_sum_count = 1
min_update_count = 3
sum = 0.4
update = 0.9
size = 7
"""


def fail_to_start(monkeypatch, capsys, *arguments, **environ):
    """Return the exit status of a start that fails before it listens, and what it says; no process is needed for it."""
    for name in [name for name in os.environ if name.startswith(("PET_", "XAYNET_"))]:
        monkeypatch.delenv(name)
    for name, value in {"PET__API__BIND_ADDRESS": "127.0.0.1:0", "COLUMNS": "120", **environ}.items():
        monkeypatch.setenv(name, value)
    status = cli.run(["coordinator", *arguments])
    out, err = capsys.readouterr()
    assert "Listening" not in out
    return status, err


def start(*arguments, **environ):
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PET_", "XAYNET_"))}
    # Never the default port: another coordinator may be running there.
    environ = {**own, "PET__API__BIND_ADDRESS": "127.0.0.1:0", **environ}
    environ["COLUMNS"] = "120"  # the longest names, values and origins side by side
    return fork_server.start(fork_server.PET, "coordinator", *arguments, environ=environ)


@contextlib.contextmanager
def running(*arguments, **environ):
    """Start a coordinator and yield the process, its URL, and what it printed so far."""
    process = start(*arguments, **environ)
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


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Without a settings file, state is kept in the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(FLAT)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_it_chose_and_ends_cleanly(config, number):
    with running("-c", str(config), "-v", XAYNET__LOG__LEVEL="info", PET__MODEL__LENGTH="9") as (process, url, printed):
        assert httpx.get(f"{url}/params").status_code == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "Stopped.\n"
    assert re.search(r"model.length +9 +PET__MODEL__LENGTH in the environment", printed)
    assert re.search(r"pet.sum.prob +0.4 +sum in the file", printed)
    assert re.search(r"pet.sum.time.max +3600 +default", printed)
    assert "No settings file" not in printed
    assert "Kernels: " in printed
    assert "pet.coordinator: phase entered round_id=1 phase=sum" in err
    assert "Traceback" not in err


def test_without_a_file_it_listens_on_loopback():
    with running("-v", PET__API__BIND_ADDRESS="127.0.0.1:0", PET__LOG__LEVEL="error") as (_process, url, printed):
        assert url.startswith("http://127.0.0.1:")
        assert len(httpx.get(f"{url}/params").content) == 136
        assert re.search(r"model.length +4 +default", printed)
        assert re.search(r"pet.sum.time.max +60 +default without a settings file", printed)
        assert re.search(r"pet.update.time.max +600 +default without a settings file", printed)
        assert re.search(r"pet.sum2.time.max +60 +as pet.sum.time.max", printed)
        assert (
            "No settings file (-c), so the defaults are for trying out: pet.sum.time.max 60 (with one: 3600), "
            "pet.update.time.max 600 (with one: 3600), pet.sum2.time.max 60.\n"
        ) in printed


def test_its_answers_are_signed_by_the_key_of_its_settings(config, folder):
    key = create_key_file(folder / "coordinator.key")
    with running("-c", str(config), PET__SERVICE__COORDINATOR_KEY=str(folder / "coordinator.key")) as (process, url, printed):
        assert f"the coordinator key {key.public_key.hex()}." in printed
        with contextlib.closing(HttpTransport(url, coordinator_key=key.public_key)) as transport:
            assert len(transport.get_parameters()) == 136
        process.kill()
        _, err = process.communicate(timeout=20)
    assert key.secret_key[:32].hex() not in printed + err


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"something else", 0o600, "a key file as 'pet key new' writes it"),
        (None, 0o644, "chmod 600"),
        (b"", None, "readable file"),
    ],
)
def test_a_key_file_that_cannot_be_used_ends_the_start(config, folder, monkeypatch, capsys, content, mode, message):
    path = folder / "coordinator.key"
    if mode is not None:
        create_key_file(path)
        path.write_bytes(path.read_bytes() if content is None else content)
        path.chmod(mode)
    status, err = fail_to_start(monkeypatch, capsys, "-c", str(config), PET__SERVICE__COORDINATOR_KEY=str(path))
    assert status == 1
    assert "PET__SERVICE__COORDINATOR_KEY (service.coordinator_key): " in err
    assert message in err


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_answers_are_not_held_back_by_nagle(address):
    """asyncio looks at the protocol of the listener; held back, each answer with a body would take 40 ms."""
    try:
        listener = serving.listen(address)
    except TransportError:
        assert address.startswith("["), "a machine without IPv6"
        return
    with listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_an_address_in_use_is_one_line(config, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, err = fail_to_start(monkeypatch, capsys, "-c", str(config), PET__API__BIND_ADDRESS=address)
    assert status == 1
    name = "PET__API__BIND_ADDRESS (api.bind_address)"
    assert err == f"error: {name}: expected an address to listen on, got {address}: Address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "environ", "status", "message"),
    [
        (["-c", "/nowhere.toml"], {}, 1, "error: settings file /nowhere.toml: expected a readable file, got: No such file"),
        ([], {"PET__SUM": "2"}, 1, "error: PET__SUM (pet.sum.prob): expected a number above 0 and below 1, got '2'"),
        (
            [],
            {"PET__SUM": "2", "PET__AI__ROUNDS": "3"},
            1,
            "error: PET__AI__ROUNDS (environment): expected a setting, got one of an older xaynet; remove it: rounds follow "
            "each other until the coordinator is stopped\nerror: PET__SUM (pet.sum.prob): expected a number",
        ),
        (
            [],
            {"PET__SERVICE__ALLOWED_PARTICIPANTS": "/nowhere", "PET__NATS__CA_FILE": "/nothing"},
            1,
            "error: PET__SERVICE__ALLOWED_PARTICIPANTS (service.allowed_participants): expected a readable file, got"
            " '/nowhere'; provide it, or remove the setting: then anybody may take part\n"
            "error: PET__NATS__CA_FILE (nats.ca_file): expected a readable file, got '/nothing'; provide it, or remove the"
            " setting: then public authorities are trusted\n",
        ),
        (["--nothing"], {}, 2, "No such option"),
        (
            [],
            {"PET__MODEL__LENGTH": "4294967295", "PET__DATA_TYPE": "F64", "PET__BOUND_TYPE": "Bmax"},
            1,
            "error: model.length: expected a model that fits into memory, got 4294967295: Unable to allocate ",
        ),
        (
            [],
            {"PET__API__TLS_KEY": str(AUTHORITY), "PET__API__TLS_CERTIFICATE": str(AUTHORITY)},
            1,
            "(api.tls_certificate): expected the private key (PEM) of ",
        ),
    ],
    ids=["no file", "bad value", "two bad values", "no such files", "usage", "no memory", "no PEM"],
)
def test_what_is_wrong_is_said_and_the_status_tells(monkeypatch, capsys, arguments, environ, status, message):
    found, err = fail_to_start(monkeypatch, capsys, *arguments, **environ)
    assert found == status
    assert message in err
    assert "Traceback" not in err
    assert list(Path().iterdir()) == [], "a failed start leaves nothing behind"


def test_a_failed_start_leaves_what_was_there(config, folder, monkeypatch, capsys):
    (folder / "pet-state").mkdir()
    (folder / "pet-state" / "of-somebody").touch()
    too_large = {"PET__MODEL__LENGTH": "4294967295", "PET__DATA_TYPE": "F64", "PET__BOUND_TYPE": "Bmax"}
    _, err = fail_to_start(monkeypatch, capsys, "-c", str(config), **too_large)
    assert "expected a model that fits into memory" in err
    assert (folder / "pet-state" / "of-somebody").exists()


def client_context(with_identity):
    context = ssl.create_default_context(cafile=AUTHORITY)
    if with_identity:
        context.load_cert_chain(CLIENT)
    return context


def test_tls():
    with running(PET__API__BIND_ADDRESS="127.0.0.1:0", **TLS_FILES) as (_, url, _):
        assert url.startswith("https://")
        assert httpx.get(f"{url}/params", verify=client_context(False)).status_code == 200


def test_tls_with_client_certificates():
    address = {"PET__API__BIND_ADDRESS": "127.0.0.1:0", "PET__API__TLS_CLIENT_AUTH": str(AUTHORITY)}
    with running(**address, **TLS_FILES) as (process, url, _):
        assert httpx.get(f"{url}/params", verify=client_context(True)).status_code == 200
        with pytest.raises(httpx.TransportError, match=r"(?i)certificate.required"):
            httpx.get(f"{url}/params", verify=client_context(False))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert err.count("TLS handshake with 127.0.0.1 failed: expected a client certificate, got none") == 1


def state_of(folder):
    return {path.relative_to(folder): oct(path.stat().st_mode & 0o777) for path in (folder / "pet-state").rglob("*")}


def test_state_lies_beside_the_settings_and_is_nobody_elses(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.toml").write_text(FLAT)
    with running("-c", "elsewhere/config.toml") as (_, _, printed):
        assert "Rounds are kept in SQLite in elsewhere/pet-state." in printed
        assert "Nothing is stored: rounds are counted from 1." in printed
        state = state_of(elsewhere)
        assert oct((elsewhere / "pet-state").stat().st_mode & 0o777) == "0o700"
    assert Path("pet-state/coordinator.sqlite") in state
    assert set(state.values()) == {"0o600", "0o700"}
    assert not (tmp_path / "pet-state").exists()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Kill a coordinator in a round; give its folder and the parameters of the round."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "config.toml").write_text(FLAT)
    with running("-c", str(folder / "config.toml")) as (process, url, _):
        parameters = httpx.get(f"{url}/params").content
        process.kill()
    return folder, parameters


@pytest.fixture
def parameters(config, killed):
    """Put what the killed coordinator left beside the settings; give the parameters of its round."""
    folder, parameters = killed
    shutil.copytree(folder / "pet-state", config.parent / "pet-state")
    return parameters


def test_a_killed_coordinator_goes_on_with_its_round(config, parameters):
    with running("-c", str(config), PET__MODEL__LENGTH="8") as (process, url, printed):
        assert "Going on with round 1 in phase sum: 0 messages accepted, " in printed
        assert "It is waiting for 1 sum message of 1, for " in printed
        assert "The settings of rounds have changed" in printed
        assert httpx.get(f"{url}/params").content == parameters
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    with running("-c", str(config)) as (_, url, printed):
        assert "settings of rounds" not in printed
        assert httpx.get(f"{url}/params").content == parameters


@pytest.mark.parametrize(("arguments", "environ"), [(["--fresh"], {}), ([], {"PET__RESTORE__ENABLE": "false"})])
def test_a_fresh_start_has_to_be_asked_for(config, parameters, arguments, environ):
    with running("-c", str(config), *arguments, **environ) as (_, url, printed):
        assert "Nothing is stored" in printed
        assert httpx.get(f"{url}/params").content != parameters


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, None], ids=["of another program", "garbage", "a byte"])
@pytest.mark.usefixtures("parameters")
def test_state_that_is_not_a_coordinators_is_refused_until_fresh_is_said(config, monkeypatch, capsys, damage):
    database = config.parent / "pet-state" / "coordinator.sqlite"
    Path(f"{database}-wal").unlink(missing_ok=True)
    if damage == b"":
        database.unlink()
        with contextlib.closing(sqlite3.connect(database)) as other:
            other.execute("CREATE TABLE state (everything)")
    elif damage is None:
        with contextlib.closing(sqlite3.connect(database)) as known:
            known.execute("UPDATE state SET data = substr(data, 2)")
            known.commit()
    else:
        database.write_bytes(damage)
    before = database.read_bytes()
    status, err = fail_to_start(monkeypatch, capsys, "-c", str(config))
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "--fresh begins anew" in err
    assert database.read_bytes() == before
    with running("-c", str(config), "--fresh") as (_, url, _):
        assert httpx.get(f"{url}/params").status_code == 200


def test_its_url_comes_first_the_table_on_request_and_its_folder_is_its_own(config, monkeypatch, capsys):
    with running("-c", str(config)) as (_, url, printed):
        assert printed.startswith(f"pet coordinator, {url}\n")
        assert "model.length  " not in printed
        assert len(printed.splitlines()) < 15
        for arguments in ([], ["--fresh"]):
            status, err = fail_to_start(monkeypatch, capsys, "-c", str(config), *arguments)
            assert status == 1
            assert "another coordinator uses it" in err
        assert httpx.get(f"{url}/params").status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are kept by Linux")
def test_it_ends_where_the_system_starts_no_threads_for_it(config):
    done = fork_server.run(f"{NO_MORE_THREADS}\n{fork_server.PET}", "coordinator", "-c", config)
    assert done.returncode == 1
    assert re.search(r"expected the system to start \d threads \(pet-check\), got: can't start new thread", done.stderr)
    assert "Traceback" not in done.stderr
    assert "Listening" not in done.stdout
