"""What a disk does to the store of a federation server after a kill: damage is refused by name, or changes nothing."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from damaged_files import FRAME_FIELDS, FRAME_HEADER, LOG_FIELDS, PAGE, DamagedFolder, database_places, flip, frames
from federation_rest_server import Clock
from test_federation_store import record
from vector_files import VECTORS

from pet.errors import StateError, StorageError
from pet.federation.formats.learning_records import Change, DoneRequest
from pet.federation.records import LogKind
from pet.federation.server.database import GUARD_NAME, open_file
from pet.federation.server.store import FederationStore

NAME = "federations.sqlite3"
LOG_NAME = f"{NAME}-wal"
TABLES = ("project", "blob", "log", "token", "server", "learned", "request")
CLOCK = Clock(1_767_225_600.0)


def open_store(folder: Path) -> FederationStore:
    return FederationStore(folder, CLOCK)


def fill(folder: Path) -> FederationStore:
    """Return a store with something in each table, on rows and pages of several kinds."""
    store = open_store(folder)
    store.server_keys()
    for pid in ("p", "q"):
        storage = store.add(record(pid), persist=True)
        storage.confirm()
        storage.issue_token(f"token {pid}", b"i", CLOCK.now + 7200)
        storage.save_state("sums", bytes(range(256)) * 40)  # on pages of its own
        for number in range(3):
            done = DoneRequest(
                request=f"{number}", change=Change.LEARN, first=bytes(32), digest=bytes([number]) * 32, pieces=1, rows=number
            )
            storage.save_change("shared_counts", b"[60]", done, is_empty=False)
            storage.append_log(LogKind.ERROR, f"line {number}")
    return store


def content_of(folder: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(folder / NAME)) as connection:
        return all_rows(connection)


def all_rows(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    return [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in TABLES]


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, list[list[tuple[object, ...]]]]:
    """The files of a server that was killed, and what was in them."""
    folder, copy = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("killed") / "state"
    store = fill(folder)
    expected = content_of(folder)
    shutil.copytree(folder, copy)  # as they are while it runs
    store.close()
    assert all(expected)
    return copy, expected


@pytest.fixture(scope="module")
def stopped(killed, tmp_path_factory) -> Path:
    """The same with everything in the database, as after a stop."""
    folder = tmp_path_factory.mktemp("stopped") / "state"
    shutil.copytree(killed[0], folder)
    open_store(folder).close()
    assert not (folder / LOG_NAME).exists()
    return folder


def holds(folder: Path, expected: list[list[tuple[object, ...]]]) -> bool:
    """Return whether everything is there and nothing changed; False if the store is refused, as it has to be."""
    try:
        database = open_file(folder)
    except StateError as error:
        return is_harmless(error)
    try:
        with database.transaction() as connection:
            assert all_rows(connection) == expected
    finally:
        database.close()
    return True


def is_harmless(refusal: StateError) -> bool:
    """Return that it is not; it has to say what can be done."""
    if "begin with another one" not in str(refusal):
        raise AssertionError(str(refusal)) from refusal
    return False


@pytest.fixture
def outcome(killed, tmp_path) -> DamagedFolder:
    return DamagedFolder(killed[0], tmp_path, lambda folder: holds(folder, killed[1]))


def test_nothing_is_lost_without_damage(outcome):
    assert outcome(LOG_NAME, lambda data: data) == "harmless"


def test_a_flipped_bit_anywhere_in_the_log_is_refused(killed, outcome):
    """In each field of its header; in each field of a frame, of some frames and of the last; and in every third frame."""
    log = (killed[0] / LOG_NAME).read_bytes()
    starts = list(frames(log))
    places = [*LOG_FIELDS.values(), *(start + FRAME_FIELDS["page"] for start in starts[::3])]
    places += [start + field for start in {*starts[::16], starts[-1]} for field in FRAME_FIELDS.values()]
    assert {outcome(LOG_NAME, flip(place)) for place in places} == {"refused"}


def test_a_log_that_is_shorter_or_gone_is_refused(killed, outcome):
    log = (killed[0] / LOG_NAME).read_bytes()
    sizes = [
        0,
        20,
        *list(frames(log))[::12],
        *(start + part for start in list(frames(log))[::24] for part in (10, FRAME_HEADER)),
    ]
    assert {outcome(LOG_NAME, lambda data, size=size: data[:size]) for size in sizes} == {"refused"}


def test_a_flipped_bit_anywhere_in_the_database_is_refused_or_harmless(killed, stopped, tmp_path):
    outcome = DamagedFolder(stopped, tmp_path, lambda folder: holds(folder, killed[1]))
    size = (stopped / NAME).stat().st_size
    found = [outcome(NAME, flip(place)) for place in database_places(size)]
    found += [outcome(NAME, lambda data, size=size: data[:size]) for size in (0, 50, 100, PAGE, size - PAGE, size - 1)]
    assert found.count("refused") > len(found) // 3


def test_a_flipped_bit_in_any_row_is_refused(killed, stopped, tmp_path):
    """What SQLite itself does not notice: a text or blob that is another one, where it stands in the file."""
    outcome = DamagedFolder(stopped, tmp_path, lambda folder: holds(folder, killed[1]))
    data = (stopped / NAME).read_bytes()
    for text in (b"hush-password", bytes(range(256)) * 8, b"line 1", b"shared_counts", b"issued", bytes([2]) * 32):
        place = data.index(text) + 1
        assert outcome(NAME, flip(place)) == "refused", text


def test_the_guard(outcome):
    """One of its places is enough; without one, or with fewer bytes than one has, the store is refused."""
    assert {outcome(GUARD_NAME, flip(place)) for place in (0, 9, 17, PAGE, PAGE + 9, PAGE + 17, 2000)} == {"harmless"}
    assert outcome(GUARD_NAME, lambda data: flip(9)(flip(PAGE + 9)(data))) == "refused"
    assert outcome(GUARD_NAME, lambda data: data[:10]) == "refused"
    assert outcome(GUARD_NAME, lambda data: data[:PAGE]) == "harmless"


def test_a_change_that_could_not_be_noted_is_an_error_and_counts(tmp_path, monkeypatch):
    store = fill(tmp_path)
    storage = store.peers()[0][1]
    with monkeypatch.context() as patch:
        patch.setattr(store._durable._guard, "note", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(StorageError, match="Input/output error"):
            storage.save_state("sums", b"new")
    store.close()
    again = open_store(tmp_path)
    assert again.peers()[0][1].load_state("sums") == b"new"
    again.close()


def test_a_store_of_an_earlier_version_gets_checksums_and_a_guard(tmp_path):
    shutil.copytree(VECTORS / "released_state" / "federation", tmp_path, dirs_exist_ok=True)
    before = content_of_version_1(tmp_path)
    store = open_store(tmp_path)
    store.peers()[0][1].append_log(LogKind.SYNC, "on")
    store.close()
    assert (tmp_path / GUARD_NAME).exists()
    found = content_of(tmp_path)
    assert [row[:-1] for row in found[0]] == before
    assert all(isinstance(row[-1], int) for table in found for row in table)
    open_store(tmp_path).close()


def content_of_version_1(folder: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / NAME)) as connection:
        return connection.execute("SELECT * FROM project ORDER BY 1, 2, 3").fetchall()
