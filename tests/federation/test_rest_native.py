"""The REST interface in its native formats, through the client that pet ships."""

import math
import time

import numpy as np
import pytest
from asgi_server import serving
from federation_rest_server import KEY, OTHER_KEY, USERS, Clock, federation_server
from federation_runtime_in_memory import InMemoryRuntime
from starlette.applications import Starlette
from starlette.routing import Mount

from pet.errors import FederationRefusedError, FederationValueError
from pet.federation import Client
from pet.federation.formats import compat, invitation
from pet.federation.formats.users import UserDirectory
from pet.federation.server.authentication import Authenticator
from pet.federation.server.rest import create_app
from pet.federation.server.service import FederationService
from pet.federation.server.store import FederationStore
from pet.secret import Secret

INVALID = "Invalid value for key "
HOSTS = "nats://127.0.0.1:4222"
NOW = 1_767_225_600.0


@pytest.fixture
def runtime():
    return InMemoryRuntime()


@pytest.fixture
def clock():
    return Clock(time.time())


@pytest.fixture
def url(runtime, clock):
    with federation_server(runtime=runtime, clock=clock) as url:
        yield url


@pytest.fixture
def admin(url, clock):
    with Client(url, "c1", KEY, clock=clock) as client:
        client.create("admin", "Hospital statistics", nats_hosts=HOSTS, nats_sec_token="hush-broker")
        yield client


@pytest.fixture
def peer(url, clock):
    with Client(url, "c2", OTHER_KEY, clock=clock) as client:
        yield client


def refused(status, text, call, *arguments, **options):
    with pytest.raises(FederationRefusedError) as raised:
        call(*arguments, **options)
    assert (raised.value.status, str(raised.value)) == (status, text)


def test_a_whole_life(admin, peer):
    text, password = admin.invite("admin")
    assert text.startswith("PETINV1.")
    peer.join("mine", text, password)
    assert peer.projects() == ["mine"]
    assert peer.info("mine")["fed_name"] == "Hospital statistics"
    assert admin.flags("admin") == {"fed_pulsing": False, "fed_has_error": False, "fed_is_admin": True}
    for client, project in [(admin, "admin"), (peer, "mine")]:
        client.start_pulse(project)
        client.start_pulse(project)
    assert admin.learn("admin", {"x": [1.0, 2.0], "y": [2.0, 4.5]}) == 2
    assert peer.learn("mine", {"x": np.array([3.0, 4.0]), "y": np.array([6.0, 8.5])}) == 2
    assert peer.univariate("mine", "x", local=True)["mean"] == 3.5
    refused(400, "federated project: nothing was merged yet", peer.univariate, "mine", "x")
    peer.sync_now("mine")
    found = peer.univariate("mine", "x")
    assert found == pytest.approx({"count": 4.0, "mean": 2.5, "skewness": math.nan}, nan_ok=True)
    assert (found.bounds, found.reasons) == ({"mean": 0.5}, {"skewness": "not computed here"})
    pair = peer.covariance("mine", "x", "y")
    assert (pair.bound, pair.reason, pair.peers_left_out) == (0.25, None, 2)
    assert peer.covariance("mine", "x", "y") == admin.covariance("admin", "x", "y")
    assert admin.correlation("admin", "x", "y") == pytest.approx(np.corrcoef([1, 2, 3, 4], [2, 4.5, 6, 8.5])[0, 1])
    fitted = admin.linear_regression("admin", "y", ["x"])
    assert fitted.row_count == 4
    assert fitted.predict({"x": [1.0]})[0] == pytest.approx(fitted.intercept + fitted.coefficients["x"])
    assert admin.sync_log("admin") == ["Sync completed with 2 peers"]
    assert admin.statistics("admin")["sndCount"] == 1
    assert peer.forget("mine", {"x": [3.0], "y": [6.0]}) == 1
    assert peer.univariate("mine", "x", local=True)["count"] == 1.0
    admin.new_schedule("admin", "d1")
    assert peer.info("mine")["sync_sched"] == "d1"
    assert admin.validate_contract("admin", ["nonsense"]) == "line 1: expected the name of a function"
    assert admin.validate_contract("admin", ["COUNT(x) > 1"]) is None
    admin.set_contract("admin", ["COUNT(x) > 1"])
    assert peer.info("mine")["contract"] == "COUNT(x) > 1"
    peer.stop_pulse("mine")
    assert not peer.flags("mine")["fed_pulsing"]
    peer.leave("mine")
    assert peer.projects() == []
    admin.delete("admin")
    assert admin.projects() == []


def test_only_the_admin_may(admin, peer):
    peer.join("mine", *admin.invite("admin"))
    for call, arguments in [
        (peer.invite, ["mine"]),
        (peer.new_schedule, ["mine", "h1"]),
        (peer.set_contract, ["mine", []]),
        (peer.remove_peer, ["mine", "0" * 32]),
        (peer.delete, ["mine"]),
    ]:
        refused(403, "Not Federation Administrator", call, *arguments)
    refused(400, "leave: expected another peer than the admin, who can only delete", admin.leave, "admin")
    assert peer.projects() == ["mine"]


def test_peers_explore_where_it_is_allowed(admin, peer):
    peer.join("mine", *admin.invite("admin"))
    peer.learn("mine", {"x": [1.0, 3.0], "y": [2.0, 2.0]})
    uuid = peer.info("mine")["local_uuid"]
    query = {"feature": "x", "fed_peer_uuid_for_explore": uuid}
    explore = admin._requests.call
    refused(400, "explore: that peer does not allow it", explore, "GET", "fedml/admin/univariate", query)
    peer.allow_explore("mine", allowed=True)
    assert explore("GET", "fedml/admin/univariate", query)["univariate"]["mean"] == 2.0
    query = {"first": "x", "second": "y", "fed_peer_uuid_for_explore": uuid}
    assert explore("GET", "fedml/admin/covariance", query)["covariance"] == 0.0


def test_a_removed_peer_is_no_member(admin, peer):
    peer.join("mine", *admin.invite("admin"))
    admin.remove_peer("admin", peer.info("mine")["local_uuid"])
    assert list(admin.info("admin")["peersInfo"]) == [admin.info("admin")["local_uuid"]]
    assert admin.info("admin")["fed_key_epoch"] == "1"


def test_a_token_works_once_and_not_for_ever(admin, peer, clock):
    text, password = admin.invite("admin", "correct horse battery")
    assert password == Secret("correct horse battery")
    peer.join("mine", text, password)
    refused(403, "Invalid federation token", peer.join, "again", text, password)
    text, password = admin.invite("admin", lifespan_hours=0.5)
    clock.now += 1801
    refused(403, "Invalid federation token", peer.join, "late", text, password)
    body = {"fed_info_encrypted": text, "passwd": password.reveal()}
    refused(403, "Invalid federation token", peer._post, "createJoin", body, query={"pid": "late"})
    assert peer.projects() == ["mine"]
    refused(
        400,
        INVALID + "[fed_token_lifespan_hours]: expected above 0 and at most 168 hours",
        admin.invite,
        "admin",
        lifespan_hours=0,
    )


def test_a_failed_join_leaves_the_token_and_no_project(admin, peer, runtime):
    text, password = admin.invite("admin")
    runtime.is_reachable = False
    refused(503, "Federation backend unavailable: no broker", peer.join, "mine", text, password)
    assert peer.projects() == []
    runtime.is_reachable = True
    with pytest.raises(FederationValueError, match="does not open"):
        peer.join("mine", text, "wrong password, long enough")
    peer.join("mine", text, password)


def test_failed_joins_are_limited(admin, peer, clock):
    text, password = admin.invite("admin")
    wrong = {"fed_info_encrypted": text, "passwd": "not the password"}
    for _ in range(5):
        with pytest.raises(FederationRefusedError, match="does not open"):
            peer._post("createJoin", wrong, query={"pid": "mine"})
    refused(429, "Expected at most 5 failed joins in a minute", peer.join, "mine", text, password)
    clock.now += 61
    peer.join("mine", text, password)


def test_an_invitation_for_a_key_needs_no_password(admin, peer):
    text, password = admin.invite("admin", peer_key=peer.join_key())
    assert password is None
    assert text.startswith("PETINV1K.")
    wrong = compat.encode_base64(bytes(32)).replace("=", "")
    with pytest.raises(FederationRefusedError, match="does not open"):
        peer.join("mine", text, admin_key=wrong)
    header, sealed, signature = text.removeprefix("PETINV1K.").split(".")
    assert header
    assert sealed
    assert signature
    # The admin's key reaches the peer some other way; here from the admin's own side.
    contents, own_password = admin.invite("admin")
    _, entries = invitation.open_with_password(contents, own_password)
    peer.join("mine", text, admin_key=entries["fed_admin_sign_key"])
    refused(
        400, INVALID + "[fed_admin_key]: expected a public key of 32 bytes in base64url", peer.join, "x", text, admin_key="AAAA"
    )


def test_values_are_refused_by_key(admin):
    refused(
        400,
        INVALID + "[fed_local_type]: expected cpu or gpu",
        admin.create,
        "g",
        "g",
        nats_hosts=HOSTS,
        fed_local_type="tpu",
    )
    refused(
        400,
        INVALID + "[fed_enforce_hipaa_compliance]: HIPAA compliance checks are not supported yet",
        admin.create,
        "g",
        "g",
        nats_hosts=HOSTS,
        fed_enforce_hipaa_compliance=True,
    )
    refused(400, INVALID + "[passwd]: it is missing", admin._post, "admin/getInvitation", {})
    refused(400, "expected a password of at least 12 characters, got 5", admin.invite, "admin", "short")
    refused(400, INVALID + "[pid]: it is missing", admin._post, "create", {})
    refused(
        400, INVALID + "[pid]: expected 1 to 64 letters, digits, '_', '.', '-'", admin._post, "create", {}, query={"pid": "a/b"}
    )
    refused(
        400, INVALID + "[persist]: expected true or false", admin._post, "create", {}, query={"pid": "g", "persist": "maybe"}
    )
    refused(400, "User [c1] has no project [nowhere]", admin.info, "nowhere")
    refused(409, "Project [admin] of user [c1] exists already", admin.create, "admin", "x", nats_hosts=HOSTS)
    assert admin.projects() == ["admin"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("learn", b"{}"),
        ("learn", b'{"columns":[]}'),
        ("learn", b'{"columns":{"x":1}}'),
        ("learn", b'{"columns":{"x":["1"]}}'),
        ("learn", b'{"columns":{"x":[true]}}'),
        ("learn", b'{"columns":{"x":[1' + b"0" * 400 + b"]}}"),
        ("forget", b""),
        ("regression", b'{"target":1,"features":[]}'),
        ("regression", b'{"target":"x","features":[1]}'),
    ],
)
def test_rows_fed_badly(admin, path, body):
    with pytest.raises(FederationRefusedError) as raised:
        admin._send(f"admin/{path}", body)
    assert raised.value.status == 400


def test_rows_come_from_a_file(admin, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x,y\r\n" + "".join(f"{i},{i * 2}\n" for i in range(1000)) + "1000,2000")
    assert admin.learn("admin", path) == 1001
    assert admin.univariate("admin", "x", local=True)["mean"] == 500
    with pytest.raises(FederationRefusedError):
        admin._send("admin/learn", b"\xff", content_type="text/csv")


def test_a_model_goes_in_and_comes_out_bit_for_bit(admin):
    admin.create("m", "m", nats_hosts=HOSTS, fed_project_kind="model", fed_model_length=3)
    refused(400, "model: there is none yet", admin.global_model, "m")
    model = np.array([0.1, -1e300, 5e-324])
    admin.set_model("m", model)
    assert admin.global_model("m").tobytes() == model.tobytes()
    refused(400, "project: expected statistics, this one carries a model", admin.learn, "m", {"x": [1.0], "y": [1.0]})
    for body in [b'{"weights":[null]}', b'{"weights":[1],"weight":true}', b"{}"]:
        with pytest.raises(FederationRefusedError):
            admin._send("m/model", body)


def test_everything_that_persists_is_there_after_a_restart(tmp_path):
    with federation_server(tmp_path) as url, Client(url, "c1", KEY) as client:
        client.create("kept", "f", nats_hosts=HOSTS)
        client.create("volatile", "f", nats_hosts=HOSTS, persist=False)
        client.learn("kept", {"x": [1.0], "y": [2.0]})
        client.start_pulse("kept")
        text, password = client.invite("kept")
        before = client.info("kept")
    with federation_server(tmp_path) as url, Client(url, "c1", KEY) as client, Client(url, "c2", OTHER_KEY) as peer:
        assert client.projects() == ["kept"]
        assert client.info("kept") == before
        assert client.flags("kept")["fed_pulsing"]
        assert client.univariate("kept", "y", local=True)["mean"] == 2.0
        peer.join("mine", text, password)


def test_a_stored_federation_that_may_not_run_keeps_no_other_from_running(tmp_path, caplog):
    with federation_server(tmp_path, allows_compat=True) as url, Client(url, "c1", KEY) as client:
        client.create("native", "f", nats_hosts=HOSTS)
        client.create("weak", "f", nats_hosts=HOSTS, fed_mode="compat")
        assert "pid=weak speaks the compatible formats, which are insecure" in caplog.text
    caplog.clear()
    with federation_server(tmp_path) as url, Client(url, "c1", KEY) as client:
        assert client.projects() == ["native"]
        assert "cid=c1 pid=weak does not run: it speaks the vendor's formats" in caplog.text
        refused(409, "Project [weak] of user [c1] exists already", client.create, "weak", "f", nats_hosts=HOSTS)
    with federation_server(tmp_path, allows_compat=True) as url, Client(url, "c1", KEY) as client:
        assert client.projects() == ["native", "weak"]


def test_mounted_in_another_application():
    store = FederationStore(None)
    service = FederationService(InMemoryRuntime(), store)
    app = create_app(service, Authenticator(UserDirectory(None, USERS)))
    outer = Starlette(routes=[Mount("/inner", app)], lifespan=service.lifespan)
    with serving(outer) as url, Client(f"{url}/inner", "c1", KEY) as client:
        client.create("admin", "f", nats_hosts=HOSTS)
        assert client.projects() == ["admin"]
    store.close()


def test_the_compatible_formats_of_the_client():
    with (
        federation_server(allows_compat=True) as url,
        Client(url, "c1", KEY, compat=True) as admin,
        Client(url, "c2", OTHER_KEY, compat=True) as peer,
    ):
        admin.create("admin", "f", nats_hosts=HOSTS)
        assert admin.info("admin")["fed_mode"] == "compat"
        text, password = admin.invite("admin", rest_host="http://charm:8080")
        assert not invitation.is_native(text)
        peer.join("mine", text, password)
        assert peer.info("mine")["peersInfo"].keys() == admin.info("admin")["peersInfo"].keys()
        # A native federation stays native, no matter who asks for its invitation.
        admin.create("native", "f", nats_hosts=HOSTS, fed_mode="native")
        text, password = admin.invite("native", "correct horse battery")
        assert text.startswith("PETINV1.")


def test_columns_that_are_no_columns(admin):
    for rows in [{"x": [1.0], "y": [1.0, 2.0]}, {"x": [[1.0]], "y": [[1.0]]}, {"x": ["a"], "y": [1.0]}, {}]:
        with pytest.raises(FederationValueError, match=r"column|feature x"):
            admin.learn("admin", rows)
