"""Credentials of URLs: every place that takes a URL uses them, and none shows them.

Searched are the error and everything that hangs on it (causes, contexts, tracebacks), the log of all packages at DEBUG, and
what commands print.
"""

import asyncio
import base64
import http.server
import os
import threading
import time
import traceback

import pytest
from nats_broker import running_broker
from redis_server import redis_server

from pet import cli
from pet.coordinator.s3_model_store import S3ModelStore
from pet.coordinator.storage.redis import RedisStorage
from pet.errors import CredentialsError, FederationError, PetError, StorageError
from pet.federation import Client
from pet.participant import BackOff, Participant, spawn_participant
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.nats import NatsSettings, NatsTransport, connect, generate_federation_id
from pet.transports.nats.url import open_url

SECRET = "sekret"
BASIC = base64.b64encode(f"user:{SECRET}".encode()).decode()
CLOSED = "127.0.0.1:1"  # nobody listens there
KEY = base64.b64encode(bytes(32)).decode()


def texts_of(error: BaseException) -> list[str]:
    """Whatever somebody may print of an error: it, what led to it, and what was being handled."""
    found, waiting = {}, [error]
    while waiting:
        current = waiting.pop()
        if id(current) not in found:
            found[id(current)] = current
            waiting += [other for other in (current.__cause__, current.__context__) if other is not None]
    texts = ["".join(traceback.format_exception(error, limit=0))]  # without the lines of this file
    for each in found.values():
        texts += [str(each), repr(each), *map(repr, each.args), *map(repr, vars(each).values())]
    return texts


def assert_hidden(*texts: str) -> None:
    for text in texts:
        assert SECRET not in text
        assert BASIC not in text


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog):
    caplog.set_level("DEBUG")
    yield
    assert_hidden(caplog.text, *(str(record.args) for record in caplog.records))


def http_params(url):
    HttpTransport(url).get_parameters()


def async_http_params(url):
    async def ask():
        transport = AsyncHttpTransport(url)
        try:
            await transport.get_parameters()
        finally:
            await transport.aclose()

    asyncio.run(ask())


def nats(url):
    async def ask():
        connection = await connect(NatsSettings(hosts=(url,), request_timeout_seconds=1), "alice")
        await connection.aclose()

    asyncio.run(ask())


def nats_url(url):
    transport = open_url(url)
    try:
        transport.get_parameters()
    finally:
        transport.close()


def nats_transport(url):
    transport = NatsTransport(NatsSettings(hosts=(url,), request_timeout_seconds=1), generate_federation_id())
    try:
        transport.get_parameters()
    finally:
        transport.close()


def s3(url):
    S3ModelStore("models", ("", url), access_key="key", secret_access_key=SECRET, history=1)


def federation(url):
    with Client(url, "alice", KEY) as client:
        client.projects()


def drive(take, url):
    with pytest.raises(PetError) as caught:
        take(url)
    assert_hidden(*texts_of(caught.value))
    return str(caught.value)


@pytest.mark.parametrize("take", [http_params, async_http_params])
@pytest.mark.parametrize("url", [f"http://user:sekret@{CLOSED}", "http://user:sekret@name.invalid", f"https://sekret@{CLOSED}"])
def test_an_http_coordinator_that_does_not_answer(take, url):
    assert url.rpartition("@")[2] in drive(take, url)


MALFORMED = [
    "//user:sekret@host",
    "user:sekret@host",
    "ftp://user:sekret@host",
    "http://user:sekret@host:x",
    "http://user:sekret@host:99999",
    "http://user:se/kret/sekret@host",
    "http://user:sekret@",
    "http://user:sekret@[::1",
    "http://user:sekret@host?sekret",
    "http://user:sekret@ho st",
    "http://user:\x00sekret@host",
]


@pytest.mark.parametrize("take", [http_params, async_http_params, nats, nats_url, RedisStorage, federation])
@pytest.mark.parametrize("url", MALFORMED)
def test_urls_that_cannot_be_used(take, url):
    scheme = {nats: "nats://", nats_url: "nats://", RedisStorage: "redis://"}.get(take, "http://")
    drive(take, url.replace("http://", scheme))


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_right = self.headers["Authorization"] == f"Basic {BASIC}"
        self.send_response(200 if is_right else 401)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("make", [HttpTransport, AsyncHttpTransport])
def test_credentials_of_an_http_url_are_used(make):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever).start()
        transport = make(f"http://user:s%65kret@127.0.0.1:{server.server_port}")
        try:
            if make is HttpTransport:
                assert transport.get_parameters() == b"ok"
                transport.close()
            else:

                async def ask():
                    assert await transport.get_parameters() == b"ok"
                    await transport.aclose()

                asyncio.run(ask())
            assert_hidden(repr(transport), drive(http_params, f"http://user:sekrets@127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()


def test_a_broker_that_does_not_answer_and_one_that_refuses(tmp_path):
    assert CLOSED in drive(nats, f"nats://user:sekret@{CLOSED}")
    assert CLOSED in drive(nats_transport, f"nats://sekret@{CLOSED}")
    drive(nats, "nats://user:sekret@broker.invalid")  # TLS is required
    with running_broker(tmp_path, 'authorization { user: "user", password: "sekret" }') as broker:
        address = broker.url.removeprefix("nats://")
        nats(f"nats://user:s%65kret@{address}")
        with pytest.raises(CredentialsError) as caught:
            nats(f"nats://user:sekret-wrong@{address}")
        assert_hidden(*texts_of(caught.value))


def test_redis(tmp_path):
    assert CLOSED in drive(RedisStorage, f"redis://user:sekret@{CLOSED}/0")
    drive(RedisStorage, f"redis://{CLOSED}/0?password=sekret&socket_timeout=sekret")
    drive(RedisStorage, f"redis://{CLOSED}/0?sekret=sekret")
    drive(RedisStorage, f"redis://:se/sekret@{CLOSED}/0")
    with redis_server(tmp_path, options=["--requirepass", SECRET]) as server:
        address = server.url.removeprefix("redis://")
        storage = RedisStorage(f"redis://:s%65kret@{address}")
        assert_hidden(storage.description)
        storage.close()
        with pytest.raises(StorageError) as caught:
            RedisStorage(f"redis://:sekret-wrong@{address}")
        assert_hidden(*texts_of(caught.value))


@pytest.mark.parametrize(
    "url", [f"http://user:sekret@{CLOSED}", "http://user:sekret@host:x", "user:sekret@host", "ftp://sekret@h"]
)
def test_an_s3_endpoint(url):
    drive(s3, url)


def test_a_federation_server():
    with pytest.raises(FederationError, match="without a user in it") as caught:
        federation(f"http://user:sekret@{CLOSED}")
    assert_hidden(*texts_of(caught.value))
    assert_hidden(repr(Client(f"http://{CLOSED}", "alice", KEY)))
    with pytest.raises(FederationError, match=CLOSED):
        federation(f"http://{CLOSED}")


class Idle(Participant):
    def train_round(self, training_input):
        return training_input


def test_a_participant_logs_an_address_without_them(caplog):
    thread = spawn_participant(f"http://user:sekret@{CLOSED}", Idle, back_off=BackOff(initial_seconds=0.01))
    deadline = time.monotonic() + 20
    try:
        while not any(CLOSED in record.getMessage() for record in caplog.records if record.name.startswith("pet")):
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.02)
    finally:
        state = thread.stop()
    assert_hidden(repr(thread), repr(state))


SETTINGS = f"""
[redis]
url = "redis://user:sekret@{CLOSED}/0"
[nats]
hosts = "nats://user:sekret@{CLOSED}"
[s3]
access_key = "sekret"
secret_access_key = "sekret"
region = ["", "http://user:sekret@{CLOSED}"]
[model]
length = 4
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model", "get", "-o", "model.npy", "-u", f"http://user:sekret@{CLOSED}"], "expected an answer"),
        (["model", "get", "-o", "model.npy", "-u", "nats://user:sekret@broker.invalid"], "TLS for every host"),
        (["model", "get", "-o", "model.npy", "-u", "http://user:sekret@host:x"], "expected http"),
        (["test-drive", "-n", "1", "-u", "nats://user:se/sekret@127.0.0.1"], "percent-encoded"),
        (["federation", "status", "-k", "key", "-u", f"http://user:sekret@{CLOSED}"], "without a user in it"),
        (["federation", "status", "-k", "key", "-u", "https://user:sekret@host:x"], "expected http"),
        (["config", "check", "settings.toml"], CLOSED),
        (["coordinator", "-c", "settings.toml"], CLOSED),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_commands(tmp_path, monkeypatch, capsys, arguments, expected):
    """What they print; `nothing_is_logged` reads what they log."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in [name for name in os.environ if name.startswith(("PET_", "XAYNET_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "key").write_text(f'{{"users": {{"alice": "{base64.b64encode(bytes(16)).decode()}"}}}}')
    (tmp_path / "key").chmod(0o600)
    assert cli.run(arguments) == 1
    out, err = capsys.readouterr()
    assert expected in out + err
    assert_hidden(out, err)


def test_a_key_that_is_written_where_a_name_belongs_is_not_shown(tmp_path):
    from pet.errors import SettingsError
    from pet.federation.formats.users import UserDirectory

    for text in ("sekret+key==", "sekret/key=", "alice=sekret"):
        with pytest.raises(SettingsError) as caught:
            UserDirectory(None, {"PET_FEDERATION_USERS": text})
        assert_hidden(*texts_of(caught.value))
