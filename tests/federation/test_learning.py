"""Rows count once: repeated requests, tables that are learned again, pieces that stop in between, servers that are killed."""

import contextlib
import itertools
import json
import re
import sqlite3
import threading
from collections import Counter

import fork_server
import numpy as np
import pytest
from federation_rest_server import KEY, federation_server
from federation_runtime_in_memory import StatisticsRuntime
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from programs import require_program

from pet import cli
from pet.commands.federation_demo_run import running_broker
from pet.errors import (
    FederationRefusedError,
    FederationStateError,
    FederationUnavailableError,
    FederationValueError,
    RowError,
    UnknownUnitError,
)
from pet.federation import Client, CsvTable, Feature, Schema, Statistics
from pet.federation.client.requests import SignedRequests
from pet.federation.client.row_upload import RowUpload
from pet.federation.formats.learning_records import Change, Piece
from pet.federation.formats.users import add_user, read_users
from pet.federation.peer import learning as learning_module
from pet.federation.peer import local_project as local_project_module
from pet.federation.peer.learning import IDLE_SECONDS, MAX_PENDING_UNITS, PendingUnits
from pet.federation.peer.local_project import LocalProject
from pet.federation.server import row_ledger
from pet.federation.server.request_maps import MapContext, created_record
from pet.federation.server.store import FederationStore
from pet.federation.statistics.row_pieces import CONTENT_TYPE, encode_piece
from pet.files import write_private

HOSTS = "nats://127.0.0.1:1"
SCHEMA = Schema((Feature(name="x"),))
ENTRIES = {"fed_name": "f", "sync_sched": "m1", "nats_hosts": HOSTS, "fed_schema": SCHEMA.to_json()}
REQUEST = "request-number-one"


def rows(*values):
    return {"x": np.array(values, dtype=np.float64)}


def piece(number=0, *, last=True, request=REQUEST, change=Change.LEARN, again=False):
    return Piece(request=request, change=change, number=number, is_last=last, again=again)


class Node:
    """A local project with its store, which can be closed and opened again."""

    def __init__(self, folder):
        self.folder = folder
        self.open()

    def open(self):
        self.store = FederationStore(self.folder)
        self.storage = next((storage for _, storage in self.store.peers()), None)
        if self.storage is None:
            record = created_record(ENTRIES, MapContext(customer_id="c", project_id="p"))
            self.storage = self.store.add(record, persist=True)
            self.storage.confirm()
        self.project = LocalProject(self.storage, SCHEMA)

    def restart(self):
        self.store.close()
        self.open()


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.store.close()


def test_a_repeated_request_counts_once_also_after_a_restart(node):
    for _ in range(2):
        for _ in range(2):
            assert node.project.take(rows(1, 2), piece()).rows == 2
            assert node.project.row_count == 2
        node.restart()
    version = node.project.version
    assert node.project.take(rows(1, 2), piece(change=Change.LEARN, again=True)).rows == 2
    assert (node.project.row_count, node.project.version) == (2, version)
    assert node.project.take(rows(1, 2), piece(request="r" * 16, change=Change.FORGET)).rows == 2
    assert node.project.take(rows(1, 2), piece(request="r" * 16, change=Change.FORGET)).rows == 2
    assert node.project.row_count == 0


def test_an_id_of_a_request_is_for_one_table(node):
    node.project.take(rows(1, 2), piece())
    for source, other in [
        (rows(1, 3), piece()),
        (rows(1, 2), piece(change=Change.FORGET)),
        (rows(1, 2), piece(1)),
        (rows(1), piece(last=False)),
    ]:
        with pytest.raises(FederationStateError, match="request: expected the rows that this id was used for before"):
            node.project.take(source, other)
    assert node.project.row_count == 2


@pytest.mark.parametrize("request_id", ["", "short", "a" * 65, "a b" * 8, "ü" * 16, "a" * 16 + "\n"])
def test_ids_that_are_none(request_id):
    with pytest.raises(FederationValueError, match="request: expected 16 to 64"):
        piece(request=request_id)


def test_a_table_counts_once_unless_it_is_said_or_forgotten(node):
    project = node.project
    assert project.learn(rows(1, 2, 3)) == 3
    for same in (rows(1, 2, 3), CsvTable(b"x\r\n1\r\n2.0\r\n3e0\r\n"), np.array([[1.0], [2.0], [3.0]]), [rows(1), rows(2, 3)]):
        with pytest.raises(FederationStateError, match=r"same rows once more .*again"):
            project.learn(same)
    node.restart()
    project = node.project
    with pytest.raises(FederationStateError, match="same rows once more"):
        project.learn(rows(1, 2, 3))
    for different in (rows(1, 2), rows(2, 1, 3), rows(1, 2, 3, 3), rows(1, 2, 3 + 1e-15)):
        project.learn(different)
        project.forget(different)
    assert project.learn(rows(1, 2, 3), again=True) == 3
    assert (project.row_count, project.table_count) == (6, 1)
    assert project.forget(rows(1, 2, 3)) == 3
    with pytest.raises(FederationStateError, match="same rows once more"):
        project.learn(rows(1, 2, 3))
    assert project.forget(rows(1, 2, 3)) == 3
    assert (project.row_count, project.table_count) == (0, 0)
    assert project.learn(rows(1, 2, 3)) == 3


def test_other_columns_tell_tables_apart(node):
    project = node.project
    project.learn(CsvTable(b"x,name\n1,Ann\n2,Bob\n"))
    project.learn(CsvTable(b"x,name\n1,Ann\n2,Bill\n"))
    project.learn({"x": [1.0, 2.0], "name": ["Ann", "Ben"]})
    for same in (b"name;x\r\nAnn;1\r\nBob;2\r\n", b'"x","name"\n1,"Ann"\n2.0,"Bob"\n'):
        with pytest.raises(FederationStateError, match="same rows once more"):
            project.learn(CsvTable(same))


def test_a_table_is_not_forgotten_twice(node):
    project = node.project
    project.learn(rows(1, 2))
    project.learn(rows(1, 2, 1, 2, 5))
    project.forget(rows(1, 2))
    with pytest.raises(FederationStateError, match="forgotten already"):
        project.forget(rows(1, 2))
    assert project.row_count == 5
    assert project.forget(rows(1, 2), again=True) == 2
    project.learn(rows(1, 2))
    assert project.forget(rows(1, 2)) == 2


def test_after_all_rows_were_forgotten_every_table_is_new(node):
    node.project.learn(rows(1, 2, 3))
    node.project.forget(rows(1))
    node.project.forget(rows(3, 2))
    assert node.project.table_count == 0
    assert node.project.learn(rows(1, 2, 3)) == 3


def test_pieces_are_learned_together_or_not_at_all(node):
    project = node.project
    whole = Statistics.of(rows(1, 2, 3), SCHEMA)
    assert not project.take(rows(1), piece(0, last=False)).is_done
    assert project.row_count == 0
    assert [(unit.rows, unit.pieces, unit.change) for unit in project.pending] == [(1, 1, Change.LEARN)]
    with pytest.raises(RowError):
        project.take(rows(2, 1e9), piece(1, last=False))
    assert project.take(rows(2), piece(1, last=False)).rows == 2
    assert project.take(rows(2), piece(1, last=False)).rows == 2, "its answer was lost"
    for number in (0, 3):
        with pytest.raises(FederationStateError, match=f"expected number 2 of this request, got {number}"):
            project.take(rows(1), piece(number, last=False))
    with pytest.raises(FederationStateError, match="expected the rows that number 1 had before"):
        project.take(rows(7), piece(1, last=False))
    with pytest.raises(FederationStateError, match="rows to learn under this id"):
        project.take(rows(3), piece(2, change=Change.FORGET))
    taken = project.take(rows(3), piece(2))
    assert (taken.rows, taken.is_done) == (3, True)
    assert project.snapshot() == whole
    assert project.pending == []
    for number, values in enumerate([(1,), (2,), (3,)]):
        assert project.take(rows(*values), piece(number, last=number == 2)).rows == 3, "begun again, as no answer came"
    with pytest.raises(FederationStateError, match="same rows once more"):
        project.learn(rows(1, 2, 3))
    assert project.row_count == 3


def test_what_is_unfinished_goes_with_a_restart_or_when_it_is_cancelled(node):
    node.project.take(rows(1), piece(0, last=False))
    node.restart()
    assert node.project.pending == []
    with pytest.raises(UnknownUnitError, match="expected number 0 of a table"):
        node.project.take(rows(2), piece(1))
    node.project.take(rows(1), piece(0, last=False))
    assert node.project.cancel(REQUEST)
    assert not node.project.cancel(REQUEST)
    assert node.project.take(rows(1), piece()).rows == 1
    assert node.project.row_count == 1


def test_a_refused_unit_is_gone(node):
    node.project.learn(rows(1, 2))
    node.project.take(rows(1), piece(0, last=False))
    with pytest.raises(FederationStateError, match="same rows once more"):
        node.project.take(rows(2), piece(1))
    assert node.project.pending == []
    record = created_record(ENTRIES, MapContext(customer_id="c", project_id="small"))
    project = LocalProject(node.store.add(record, persist=True), Schema((Feature(name="x"),), max_rows=3))
    project.take(rows(1, 2), piece(0, last=False, request="r" * 16))
    with pytest.raises(FederationStateError, match="at most 3"):
        project.take(rows(3, 4), piece(1, last=False, request="r" * 16))


def test_unfinished_units_are_bounded_and_idle_ones_are_replaced():
    now = [0.0]
    units = PendingUnits(lambda: now[0])
    for number in range(MAX_PENDING_UNITS):
        units.unit(piece(last=False, request=f"{number:016}"), Statistics(SCHEMA), bytes(32))
    with pytest.raises(FederationStateError, match="at most 4 unfinished tables"):
        units.unit(piece(last=False, request="r" * 16), Statistics(SCHEMA), bytes(32))
    units.unit(piece(request="w" * 16), Statistics(SCHEMA), bytes(32)), "a whole table takes no place"
    now[0] = IDLE_SECONDS
    units.unit(piece(0, last=False, request=f"{0:016}"), Statistics(SCHEMA), bytes(32))
    units.unit(piece(last=False, request="r" * 16), Statistics(SCHEMA), bytes(32))
    assert [unit.request[-1] for unit in units.shown()] == ["0", "2", "3", "r"]


def test_stored_ids_and_digests_are_bounded(node, monkeypatch):
    monkeypatch.setattr(row_ledger, "MAX_REQUESTS", 5)
    for module in (row_ledger, local_project_module):
        monkeypatch.setattr(module, "MAX_LEARNED_TABLES", 8)
    for number in range(8):
        node.project.take(rows(number), piece(request=f"{number:016}"))
    with pytest.raises(FederationStateError, match="at most 8 tables"):
        node.project.learn(rows(9))
    node.project.learn(rows(9), again=True)
    assert node.project.table_count == 8
    assert node.project.learn(rows(3), again=True) == 1
    with sqlite3.connect(node.folder / "federations.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM request").fetchone() == (5,)
    connection.close()
    assert node.storage.done_request(f"{0:016}") is None
    for _ in range(2):
        node.project.forget(rows(3))
    assert node.project.learn(rows(10)) == 1


def test_what_is_stored_tells_nothing_without_the_projects_key(tmp_path):
    digests = []
    for name in ("one", "two"):
        node = Node(tmp_path / name)
        node.project.take(rows(1, 2), piece())
        digests.append(node.storage.done_request(REQUEST).digest)
        assert node.storage.load_state("digest_key") not in (None, bytes(32))
        node.store.close()
    assert digests[0] != digests[1]


def test_a_removed_project_leaves_no_digest(node):
    node.project.learn(rows(1))
    node.store.remove("c", "p")
    node.project._store.save_change("local", b"", node.project._store.done_request("x") or done(), is_empty=False)
    with sqlite3.connect(node.folder / "federations.sqlite3") as connection:
        for table in ("learned", "request", "blob"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    connection.close()


def done():
    unit = learning_module.Unit.begun(Change.LEARN, Statistics(SCHEMA), bytes(32), 0.0)
    unit.add(rows(1), 0)
    return unit.done(REQUEST)


def test_a_store_of_the_version_before_gets_the_new_tables(node):
    node.store.close()
    path = node.folder / "federations.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TABLE learned; DROP TABLE request; PRAGMA user_version = 1;")
    connection.close()
    node.open()
    assert node.project.take(rows(1), piece()).rows == 1
    node.restart()
    assert node.project.take(rows(1), piece()).rows == 1
    assert node.project.row_count == 1


def test_the_same_request_in_two_threads_counts_once(node):
    barrier, found = threading.Barrier(4), []

    def work():
        barrier.wait()
        found.append(node.project.take(rows(*range(5)), piece()).rows)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [5] * 4
    assert node.project.row_count == 5


@settings(max_examples=20, stateful_step_count=30, deadline=None)
class LearningMachine(RuleBasedStateMachine):
    """Any order of learning, forgetting, repeating, cancelling and restarting, beside a list of rows."""

    def __init__(self):
        super().__init__()
        self.store = FederationStore(None)
        record = created_record(ENTRIES, MapContext(customer_id="c", project_id="p"))
        self.storage = self.store.add(record, persist=True)
        self.project = LocalProject(self.storage, SCHEMA)
        self.learned, self.done, self.ids = Counter(), [], itertools.count()

    @rule(values=st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple), cut=st.integers(0, 3), again=st.booleans())
    def learn(self, values, cut, again):
        request = f"{next(self.ids):016}"
        parts = [part for part in (values[:cut], values[cut:]) if part]
        pieces = [piece(number, last=number == len(parts) - 1, request=request, again=again) for number in range(len(parts))]
        try:
            for part, one in zip(parts, pieces, strict=True):
                taken = self.project.take(rows(*part), one)
            assert taken.is_done
        except FederationStateError:
            assert not again
            assert self.learned[values]
            return
        assert again or not self.learned[values]
        self.learned[values] += 1
        self.done.append((parts, pieces))

    @rule(values=st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple))
    def forget(self, values):
        if self.learned[values]:
            assert self.project.forget(rows(*values)) == len(values)
            self.learned[values] -= 1

    @rule(data=st.data())
    def repeat(self, data):
        if self.done:
            parts, pieces = data.draw(st.sampled_from(self.done))
            for part, one in zip(parts, pieces, strict=True):
                assert self.project.take(rows(*part), one).rows == sum(map(len, parts))

    @rule(values=st.lists(st.integers(0, 2), min_size=1, max_size=3))
    def begin_and_cancel(self, values):
        request = f"{next(self.ids):016}"
        self.project.take(rows(*values), piece(last=False, request=request))
        assert self.project.cancel(request)

    @rule()
    def restart(self):
        self.project = LocalProject(self.storage, SCHEMA)

    @invariant()
    def counts_are_right(self):
        assert self.project.row_count == sum(len(values) * times for values, times in self.learned.items())
        total = sum(sum(values) * times for values, times in self.learned.items())
        assert self.project.snapshot().values[SCHEMA.layout.sums] == pytest.approx(total, abs=1e-9)

    def teardown(self):
        self.store.close()


TestLearningMachine = LearningMachine.TestCase


# ---- over REST ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def client():
    with federation_server(runtime=StatisticsRuntime()) as url, Client(url, "c1", KEY) as client:
        client.create("p", "f", nats_hosts=HOSTS, fed_schema=SCHEMA.to_json())
        yield client


def test_the_client_learns_once(client):
    for _ in range(2):
        assert client.learn("p", rows(1, 2), request_id=REQUEST) == 2
    with pytest.raises(FederationRefusedError, match="same rows once more") as raised:
        client.learn("p", rows(1, 2))
    assert raised.value.status == 409
    assert client.learn("p", rows(1, 2), again=True) == 2
    assert client.row_counts("p") == {"learned": 4, "shared": 0, "tables": 1, "heldBack": None, "pending": []}
    for _ in range(2):
        assert client.forget("p", rows(1, 2), request_id="f" * 16) == 2
    assert client.row_counts("p")["learned"] == 2


def test_the_commands_learn_once_and_forget(tmp_path, capsys):
    with federation_server(runtime=StatisticsRuntime()) as url, Client(url, "c1", KEY) as client:
        client.create("p", "f", nats_hosts=HOSTS, fed_schema=SCHEMA.to_json())
        key, table = tmp_path / "c1.key", tmp_path / "rows.csv"
        write_private(key, json.dumps({"users": {"c1": KEY}}))
        table.write_text("x;name\n1,5;Ann\n2,5;Bob\n")

        def run(word, *more, status=0):
            words = [word, "p", str(table), "-k", str(key), "-u", url, "--decimal", ",", *more]
            assert cli.run(["federation", *words]) == status
            captured = capsys.readouterr()
            return captured.out if status == 0 else captured.err

        assert run("learn", "--separator", "semicolon") == "p learned 2 rows; it has 2, of which the others hold 0\n"
        assert "same rows once more" in run("learn", status=1)
        assert run("learn", "--again", "--request-id", REQUEST) == "p learned 2 rows; it has 4, of which the others hold 0\n"
        assert run("learn", "--request-id", REQUEST) == "p learned 2 rows; it has 4, of which the others hold 0\n"
        body = encode_piece(["x"], [np.ones((3, 1))])
        query = {"request": "u" * 16, "piece": "0", "last": "false"}
        client._requests.call("POST", "fedml/p/learn", query, body, content_type=CONTENT_TYPE)
        assert cli.run(["federation", "status", "p", "-k", str(key), "-u", url]) == 0
        status = capsys.readouterr().out
        assert "rows 4 in 1 tables, of which the others hold 0\n  unfinished: 3 rows to learn in 1 pieces, idle for " in status
        assert f"request {'u' * 16}\n" in status
        assert run("forget") == "p forgot 2 rows; it has 2, of which the others hold 0\n"
        table.write_text("x\nold\n")
        assert f"{table}: line 2, column 1, feature x: expected a number" in run("forget", status=1)


def lose_answers(monkeypatch, which):
    """Let the server carry out requests whose number `which` says, and lose their answers."""
    call, numbers = SignedRequests.call, itertools.count()

    def lossy(self, method, path, *arguments, **options):
        values = call(self, method, path, *arguments, **options)
        if path.endswith(("/learn", "/forget")) and which(next(numbers)):
            raise FederationUnavailableError("no answer")
        return values

    monkeypatch.setattr(SignedRequests, "call", lossy)


def upload(client, table, piece_bytes):
    return RowUpload(
        requests=client._requests,
        read=client._read,
        project_id="p",
        rows=table,
        names=None,
        schema=SCHEMA,
        piece_bytes=piece_bytes,
    )


@pytest.mark.parametrize("change", Change)
def test_every_answer_may_be_lost(client, monkeypatch, change):
    values = rows(*np.random.default_rng(1).normal(size=10_000))
    if change is Change.FORGET:
        client.learn("p", values)
    monkeypatch.setattr("pet.federation.client.row_upload._RETRY_SECONDS", (0.0,))
    lose_answers(monkeypatch, lambda number: number % 2 == 0)
    assert upload(client, values, 4096 * 8).send(change, again=False, request_id=None) == 10_000
    assert client.row_counts("p")["learned"] == (10_000 if change is Change.LEARN else 0)


def test_without_any_answer_the_error_says_how_to_go_on(client, monkeypatch):
    monkeypatch.setattr("pet.federation.client.row_upload._RETRY_SECONDS", (0.0,))
    with monkeypatch.context() as patch:
        lose_answers(patch, lambda _: True)
        with pytest.raises(
            FederationUnavailableError, match=r"may be learned now or later: .*request_id='([0-9a-f]{32})'"
        ) as raised:
            client.learn("p", rows(1, 2))
    request = str(raised.value).split("'")[1]
    assert client.learn("p", rows(1, 2), request_id=request) == 2
    assert client.row_counts("p")["learned"] == 2


def test_a_malformed_file_is_cancelled(client, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pet.federation.client.row_calls.RowUpload", lambda **options: RowUpload(**options | {"piece_bytes": 4096 * 8})
    )
    path = tmp_path / "rows.csv"
    path.write_text("x\n" + "1\n" * 20_000 + "old\n")
    seen = []
    with pytest.raises(RowError, match="line 20002, column 1, feature x"):
        client.learn("p", path, progress=seen.append)
    assert seen[0] == 4096
    assert seen[-1] < 20_000
    assert client.row_counts("p") == {"learned": 0, "shared": 0, "tables": 0, "heldBack": None, "pending": []}
    path.write_text("x\n" + "1\n" * 10_000)
    assert client.learn("p", path) == 10_000


def test_pieces_over_rest_are_shown_and_can_be_cancelled(client):
    body, query = encode_piece(["x"], [np.ones((3, 1))]), {"request": REQUEST, "piece": "0", "last": "false"}
    found = client._requests.call("POST", "fedml/p/learn", query, body, content_type=CONTENT_TYPE)
    assert found == {"rows": 3, "done": False}
    (unit,) = client.row_counts("p")["pending"]
    assert (unit["request"], unit["change"], unit["pieces"], unit["rows"]) == (REQUEST, "learn", 1, 3)
    assert client.cancel_rows("p", REQUEST)
    assert not client.cancel_rows("p", REQUEST)
    text = b"x\n1\n2\n"
    for number, last in [(0, "false"), (1, "false"), (2, "true")]:
        query = {"request": REQUEST, "piece": str(number), "last": last}
        found = client._requests.call("POST", "fedml/p/learn", query, text, content_type="text/csv")
    assert found == {"rows": 6, "done": True}
    with pytest.raises(FederationRefusedError) as raised:
        client._requests.call("POST", "fedml/p/learn", {"request": "r" * 16, "piece": "1"}, text, content_type="text/csv")
    assert raised.value.status == 410
    for query in ({"piece": "1"}, {"request": "r"}, {"request": "r" * 16, "piece": "-1"}, {"last": "maybe"}, {"again": "1"}):
        with pytest.raises(FederationRefusedError) as raised:
            client._requests.call("POST", "fedml/p/learn", query, text, content_type="text/csv")
        assert raised.value.status == 400


def test_a_table_that_proposes_the_schema_comes_in_one_piece():
    with federation_server(runtime=StatisticsRuntime()) as url, Client(url, "c1", KEY) as client:
        client.create("p", "f", nats_hosts=HOSTS)
        assert client.row_counts("p")["learned"] == 0
        body = encode_piece(["x"], [np.ones((3, 1))])
        with pytest.raises(FederationRefusedError, match="expected one before a table in several pieces"):
            client._requests.call(
                "POST", "fedml/p/learn", {"request": REQUEST, "last": "false"}, body, content_type=CONTENT_TYPE
            )
        assert client.learn("p", {"x": [1.0, 2.0, 4.0], "y": [1.0, 5.0, 9.0]}) == 3
        assert client.univariate("p", "y", local=True)["mean"] == 5


@contextlib.contextmanager
def federation_process(folder):
    """Run `pet federation serve` with one user, `a`; yields its process and a client. What was there before is gone on with."""
    users = folder / "users.json"
    if not users.exists():
        add_user(users, "a")
    words = ["federation", "serve", "--bind", "127.0.0.1:0", "--users", users, "--state", folder / "state"]
    with fork_server.start(fork_server.PET, *words) as process:
        url = next(found[1] for line in process.stdout if (found := re.search(r"Listening on (\S+) ", line)))
        with Client(url, "a", read_users(users)["a"]) as client:
            yield process, client


def test_a_server_that_is_killed_between_pieces_learns_the_table_once(tmp_path):
    """Killed after the first piece, and again when the last one was carried out and its answer may be on its way."""
    require_program("nats-server")
    values = np.random.default_rng(2).normal(size=20_000)
    with running_broker(tmp_path / "broker") as broker:
        with federation_process(tmp_path) as (process, client):
            client.create("a", "f", nats_hosts=broker.url, nats_sec_token=broker.token, fed_schema=SCHEMA.to_json())
            body = encode_piece(["x"], [values[:4096, None]])
            query = {"request": REQUEST, "piece": "0", "last": "false"}
            client._requests.call("POST", "fedml/a/learn", query, body, content_type=CONTENT_TYPE)
            process.kill()
            process.wait()
        with federation_process(tmp_path) as (process, client):
            counts = client.row_counts("a")
            assert (counts["learned"], counts["pending"]) == (0, [])
            with pytest.raises(FederationRefusedError) as raised:
                client._requests.call("POST", "fedml/a/learn", query | {"piece": "1"}, body, content_type=CONTENT_TYPE)
            assert raised.value.status == 410
            assert client.learn("a", rows(*values), request_id=REQUEST) == 20_000
            process.kill()
            process.wait()
        with federation_process(tmp_path) as (process, client):
            assert client.learn("a", rows(*values), request_id=REQUEST) == 20_000
            with pytest.raises(FederationRefusedError, match="same rows once more"):
                client.learn("a", rows(*values))
            assert client.row_counts("a")["learned"] == 20_000
            assert client.univariate("a", "x", local=True)["mean"] == pytest.approx(values.mean(), rel=1e-12)


def test_the_client_begins_again_if_the_server_holds_no_piece(monkeypatch):
    """At the second piece the server no longer holds the first one, as after a restart."""
    values = rows(*np.random.default_rng(1).normal(size=10_000))
    with federation_server(runtime=StatisticsRuntime()) as url, Client(url, "c1", KEY) as client:
        client.create("p", "f", nats_hosts=HOSTS, fed_schema=SCHEMA.to_json())
        call, numbers = SignedRequests.call, itertools.count()

        def restarting(self, method, path, *arguments, **options):
            if path.endswith("/learn") and next(numbers) == 1:
                client.cancel_rows("p", REQUEST)
            return call(self, method, path, *arguments, **options)

        monkeypatch.setattr(SignedRequests, "call", restarting)
        assert upload(client, values, 4096 * 8).send(Change.LEARN, again=False, request_id=REQUEST) == 10_000
        assert client.row_counts("p")["learned"] == 10_000
