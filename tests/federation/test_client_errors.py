"""The client and the library beneath it with odd values, odd files and odd answers: errors of pet, before anything is sent."""

import base64
import contextlib
import http.server
import inspect
import json
import math
import threading
from fractions import Fraction
from pathlib import Path

import federation_rest_server
import numpy as np
import pytest
from federation_rest_server import federation_server

from pet.errors import FederationError, FederationUnavailableError, FederationValueError, PetError
from pet.federation import Client
from pet.federation.formats.compat import encrypt_invitation
from pet.federation.formats.invitation import InvitationHeader, open_with_password, seal_with_password
from pet.federation.formats.schedule import Schedule
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics
from pet.secret import Secret

KEY = base64.b64encode(bytes(32)).decode()
SCHEMA = Schema((Feature(name="x", scale=1000.0),), has_missing=True)
NOBODY = "http://127.0.0.1:1"
NOT_SENT = pytest.raises(FederationValueError)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.values, self.raw = [], {}, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"] or 0)))
        envelope = {"statusCode": "OK", "statusString": "OK", "values": self.server.values}
        body = json.dumps(envelope).encode() if self.server.raw is None else self.server.raw
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def client(server):
    with Client(server.url, "alice", KEY) as found:
        yield found


@pytest.mark.parametrize("weight", [np.float32(3), np.int64(3), np.float64(3), np.array(3), Fraction(3), 3])
@pytest.mark.parametrize("weights", [np.ones(3, np.float32), np.arange(3), [1, 2, 3], (np.float16(1),), np.ones((1, 3))])
def test_numbers_of_any_kind_are_sent_as_they_are(server, client, weight, weights):
    client.set_model("p", weights, weight=weight)
    assert json.loads(server.bodies[-1]) == {"weights": np.asarray(weights, float).tolist(), "weight": 3}


@pytest.mark.parametrize("weight", [math.nan, math.inf, 10**400, "1", None, True, np.array([1]), 1j, Fraction(10**400)])
def test_weights_that_are_no_numbers_are_not_sent(server, client, weight):
    with pytest.raises(FederationValueError, match="weight: expected a finite number"):
        client.set_model("p", np.ones(3), weight=weight)
    assert server.bodies == []


BAD_NUMBERS = [[10**400], [math.inf], ["a"], [[1], [1, 2]], [1j], [object()], np.array([np.inf], np.float32), 10**400]


@pytest.mark.parametrize("values", [*BAD_NUMBERS, [math.nan], [None]])
def test_models_that_are_not_finite_are_not_sent(server, client, values):
    with pytest.raises(FederationValueError, match="weights: expected"):
        client.set_model("p", values)
    assert server.bodies == []


@pytest.mark.parametrize("rows", [*({"x": values} for values in BAD_NUMBERS), np.ones((2, 2)), [[1]], None, 3, {"x": 1}, {}])
def test_rows_that_are_no_columns_of_numbers_are_not_sent(rows):
    with federation_server() as url, Client(url, "c1", federation_rest_server.KEY) as client:
        client.create("p", "f", nats_hosts=NOBODY.replace("http", "nats"))
        for call in (client.learn, client.forget):
            with NOT_SENT:
                call("p", rows)
        assert client.row_counts("p")["learned"] == 0


@pytest.mark.parametrize("hours", [math.nan, math.inf, 10**400, "2", True])
def test_lifespans_that_are_none_are_not_sent(server, client, hours):
    with pytest.raises(FederationValueError, match="lifespan_hours"):
        client.invite("p", lifespan_hours=hours)
    assert server.bodies == []


BAD_URLS = [
    "",
    "host",
    "http://[::1",
    "http://host:x",
    "http://127.0.0.1:99999",
    "http://127.0.0.1/?a",
    "http://\udcff",
    None,
    b"h",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_urls_that_cannot_be_used(url):
    with pytest.raises(FederationValueError, match="url"):
        Client(url, "alice", KEY)


@pytest.mark.parametrize(
    "options",
    [
        {"authority": Path("missing.pem")},
        {"authority": Path(__file__)},
        {"authority": Path("a\0b")},
        {"timeout_seconds": math.nan},
        {"timeout_seconds": 10**400},
        {"timeout_seconds": 0},
    ],
)
def test_options_that_cannot_be_used(options):
    with NOT_SENT:
        Client("https://127.0.0.1", "alice", KEY, **options)


@pytest.mark.parametrize("customer", ["", "a b", "ä", "\udcff", "a/b", "a" * 65])
@pytest.mark.parametrize("key", [KEY, "é", "x"])
def test_users_that_cannot_be(customer, key):
    with NOT_SENT:
        Client(NOBODY, customer, key)


def test_a_server_that_starts_meanwhile_is_waited_for(monkeypatch):
    """The first try finds nobody; while the client waits for the second, the server begins to listen."""
    server = Server()
    port = server.server_port
    server.server_close()
    started = []

    def start(_seconds):
        if not started:
            again = Server.__new__(Server)
            http.server.ThreadingHTTPServer.__init__(again, ("127.0.0.1", port), Handler)
            again.bodies, again.values, again.raw = [], {"stringList": ["mine"]}, None
            threading.Thread(target=again.serve_forever, daemon=True).start()
            started.append(again)

    monkeypatch.setattr("pet.federation.client.requests.time.sleep", start)
    with Client(f"http://127.0.0.1:{port}", "alice", KEY) as client:
        assert client.projects() == ["mine"]
    started[0].shutdown()
    started[0].server_close()


@pytest.mark.parametrize("name", ["\udcff", "\x00", "a\nb"])
def test_names_that_cannot_stand_in_a_path(client, name):
    with pytest.raises(FederationError):
        client.info(name)


ARGUMENTS = {
    "project_id": "p",
    "name": "n",
    "nats_hosts": NOBODY,
    "text": "x",
    "password": "a long password",
    "schedule": "h1",
    "lines": ["a"],
    "allowed": True,
    "member": "0" * 32,
    "code": "AAAA-AAAA-AAAA-AAAA-AAAA",
    "rows": {"x": [1.0]},
    "request_id": "r" * 16,
    "feature": "x",
    "first": "x",
    "second": "y",
    "target": "x",
    "features": ["y"],
    "weights": [1.0],
    "number": 1,
    "least_rows": 8,
}
CALLS = [name for name, call in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_") and name != "close"]
ODD_VALUES = [None, 3, 10**400, "x", [], {}, [None], [{}], {"params": None}, {"values": 3}, {"weights": ["x"]}, {"a": 10**400}]
ENTITIES = [
    *(
        "fedInfoEncrypted",
        "encryptedGroupInfo",
        "joinKey",
        "stringList",
        "smlInfo",
        "status",
        "fedSyncStats",
        "rows",
        "members",
    ),
    *("univariate", "covariance", "correlation", "linearRegression", "model", "members"),
]


@pytest.mark.parametrize("name", CALLS)
def test_answers_that_say_something_else(server, client, name):
    call = getattr(client, name)
    parameters = inspect.signature(call).parameters.values()
    needed = {
        each.name: ARGUMENTS[each.name] for each in parameters if each.default is each.empty and each.kind != each.VAR_KEYWORD
    }
    for values in [{}, *(dict.fromkeys(ENTITIES, value) for value in ODD_VALUES)]:
        server.values = values
        with contextlib.suppress(FederationError):  # and no other
            call(**needed)
    for raw in (b"", b"[" * 100_000, b'{"statusString": "OK", "values": {"rows": ' + b"1" * 5000 + b"}}", b"\xff", b"null"):
        server.raw = raw
        with pytest.raises(FederationError):
            call(**needed)


def test_an_answer_of_another_form_names_the_server(server, client):
    with pytest.raises(FederationUnavailableError, match=rf"{server.url}: expected what was asked for .*KeyError"):
        client.covariance("p", "x", "y")


CSV = {
    "a long field": b'x,note\n30,"' + b"a" * 140_000 + b'"\n',
    "latin-1": "x,größe\n30,1\n".encode("latin-1"),
    "a nul": b"x\n1\x002\n",
    "a lone return": b'x\n"1\r2"x\n',
    "a huge number": b"x\n" + b"9" * 5000 + b"\n",
    "utf-16": "x\n1\n".encode("utf-16"),
    "nothing": b"",
    "half a character": b"x\n1\n\xc3",
}


@pytest.mark.parametrize("data", CSV.values(), ids=CSV)
def test_csv_that_cannot_be_read(tmp_path, data):
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    for source in (path, str(path)):
        with pytest.raises(PetError, match="expected"):
            Statistics.of(source, SCHEMA)
    with path.open(newline="", encoding="utf-8") as file, pytest.raises(PetError, match="expected"):
        Statistics.of(file, SCHEMA)


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "1", None, 1j, np.array([1]), [1]])
def test_schemas_with_numbers_that_are_none(value):
    for make in (
        lambda: Feature(name="x", centre=value),
        lambda: Feature(name="x", scale=value),
        lambda: Feature(name="x", edges=(value, 1.0)),
        lambda: Schema((Feature(name="x"),), z_max=value),
        lambda: Schema((Feature(name="x"),), max_rows=value),
    ):
        with NOT_SENT:
            make()


def test_schemas_with_numbers_of_numpy_are_those_with_numbers():
    feature = Feature(name="x", centre=np.float32(1), scale=np.int64(2), edges=np.array([0, 1], np.int32))
    schema = Schema((feature,), z_max=np.float32(4), max_rows=np.int64(100))
    assert schema == Schema((Feature(name="x", centre=1.0, scale=2.0, edges=(0.0, 1.0)),), z_max=4.0, max_rows=100)
    assert Schema.from_json(schema.to_json()) == schema


SCHEMA_TEXTS = [
    "[" * 100_000,
    '{"features":[{"name":"x","kind":"continuous"}],"z_max":' + "9" * 400 + "}",
    '{"features":[{"name":"x","kind":"continuous","scale":' + "9" * 400 + "}]}",
    '{"features":[{"name":"x","kind":[]}]}',
    '{"features":[{"name":3,"kind":"binary"}]}',
    '{"features":[{"name":"x","kind":"continuous","edges":[' + "9" * 5000 + "]}]}",
    '{"features":[{"name":"x","kind":"binary"}],"max_rows":1e400}',
    '{"features":[{"name":"x","kind":"binary"}],"z_max":NaN}',
    "\udcff",
    b"\xff\xfe\xff",
]


@pytest.mark.parametrize("text", SCHEMA_TEXTS, ids=range(len(SCHEMA_TEXTS)))
def test_schemas_that_are_none(text):
    with pytest.raises(FederationValueError, match="expected"):
        Schema.from_json(text)


@pytest.mark.parametrize("text", ["m" + "9" * 5000, "m0", "", None, "mé"])
def test_schedules_that_are_none(text):
    with NOT_SENT:
        Schedule.parse(text)


@pytest.mark.parametrize("password", ["\udcff" * 12, "\ud800 and eleven more"])
def test_passwords_that_are_no_unicode_are_used_as_they_are_or_refused(password):
    header = InvitationHeader.new("a" * 16, 0.0, 3600.0)
    sealed = seal_with_password({"a": "b"}, header, Secret(password))
    assert open_with_password(sealed, Secret(password))[1] == {"a": "b"}
    with NOT_SENT:
        encrypt_invitation(b"{}", password)
