"""Every storage keeps the same promises; what SQLite adds: files, permissions, erasure, and no sharing."""

import dataclasses
import itertools
import os
import sqlite3
import stat

import pytest
from redis_server import redis_server
from test_restarts import Life, steps, weights_of

from pet.coordinator.storage import sqlite
from pet.coordinator.storage.base import Transaction
from pet.coordinator.storage.memory import MemoryStorage
from pet.coordinator.storage.redis import RedisStorage
from pet.coordinator.storage.sqlite import SqliteStorage
from pet.errors import StateError, StorageError
from pet.messages import decode_sum_dictionary

LARGE = b"x" * (sqlite.MAX_ROW_BYTES + 1)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def open_storage(request, tmp_path):
    """Return a function that opens the same storage again, as another process would."""
    kept, opened = MemoryStorage(), []

    def open_again():
        if request.param == "memory":
            return kept
        for storage in opened:
            storage.close()
        if request.param == "sqlite":
            opened.append(SqliteStorage(tmp_path / "state"))
        else:
            opened.append(RedisStorage(request.getfixturevalue("redis_url"), is_fresh=not opened))
        return opened[-1]

    yield open_again
    for storage in opened:
        storage.close()


def test_nothing_was_stored(open_storage):
    assert open_storage().load() is None
    with pytest.raises(StateError, match="expected a blob 'no', got none"):
        open_storage().read_blob("no")


def test_changes_add_up(open_storage):
    storage = open_storage()
    storage.commit(Transaction(sequence=1, state=b"one", entries=[b"a", b""], blobs={"p/1": [b"x", b"y"], "p/10": [LARGE]}))
    storage.commit(Transaction(sequence=2, state=b"two", entries=[b"c"], blobs={"p/1": [b"z"], "q/1": [LARGE, b"!"]}))
    for reopened in (False, True):
        again = open_storage() if reopened else storage
        stored = again.load()
        assert (stored.sequence, stored.state, list(stored.entries)) == (2, b"two", [b"a", b"", b"c"])
        assert stored.blob_names == {"p/1", "p/10", "q/1"}
        assert [bytes(again.read_blob(name)) for name in ("p/1", "p/10", "q/1")] == [b"z", LARGE, LARGE + b"!"]


def test_blobs_are_dropped_by_name_and_by_prefix_before_new_ones_come(open_storage):
    storage = open_storage()
    names = ["a/1", "a/10", "b/1", "b/2", "c"]
    storage.commit(Transaction(sequence=1, state=b"", blobs={name: [LARGE] for name in names}))
    storage.commit(Transaction(sequence=2, state=b"", dropped_blobs=["a/1", "b/*", "none"], blobs={"b/2": [b"new"]}))
    assert open_storage().load().blob_names == {"a/10", "b/2", "c"}
    assert bytes(open_storage().read_blob("b/2")) == b"new"


def test_a_round_ends_with_everything_gone(open_storage):
    storage = open_storage()
    storage.commit(Transaction(sequence=1, state=b"1", entries=[b"a"], blobs={"p": [b"x"], "q": [LARGE]}))
    storage.commit(Transaction(sequence=2, state=b"2", clears=True, entries=[b"b"], blobs={"p": [LARGE]}))
    stored = open_storage().load()
    assert (list(stored.entries), stored.blob_names) == ([b"b"], {"p"})


def test_a_change_that_is_repeated_is_made_once(open_storage):
    storage = open_storage()
    change = Transaction(sequence=1, state=b"1", entries=[b"a"], blobs={"q": [LARGE]})
    storage.commit(change)
    storage.commit(change)
    assert list(open_storage().load().entries) == [b"a"]


@pytest.mark.parametrize("other", [{"sequence": 0}, {"sequence": 3}, {"sequence": 1, "state": b"of somebody else"}])
def test_changes_of_somebody_else_are_noticed(open_storage, other):
    storage = open_storage()
    change = Transaction(sequence=1, state=b"1")
    storage.commit(change)
    with pytest.raises(StateError, match="another coordinator uses this storage, or it has lost data"):
        storage.commit(dataclasses.replace(change, **other))
    assert storage.load().sequence == 1


# ---- SQLite -----------------------------------------------------------------------------------------------------------


def files(folder):
    return sorted(path.name for path in (folder / "blobs").iterdir())


def test_unfinished_files_count_for_nothing_and_are_removed(tmp_path, monkeypatch):
    storage = SqliteStorage(tmp_path)
    storage.commit(Transaction(sequence=1, state=b"1", blobs={"a": [LARGE]}))
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStorage, "_commit_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            storage.commit(Transaction(sequence=2, state=b"2", dropped_blobs=["a"], blobs={"b": [LARGE], "c": [b"x"]}))
    storage.close()
    assert files(tmp_path) == ["1-0", "2-0"]
    again = SqliteStorage(tmp_path)
    assert (again.load().state, again.load().blob_names, files(tmp_path)) == (b"1", {"a"}, ["1-0"])
    again.close()


@pytest.mark.parametrize(
    "statement",
    ["BEGIN", "DELETE", "INSERT OR REPLACE INTO blobs", "INSERT INTO entries", "INSERT OR REPLACE INTO state", "COMMIT"],
)
def test_a_change_that_fails_halfway_is_not_made_and_can_be_repeated(tmp_path, statement):
    class Failing:
        def __init__(self, connection):
            self._connection = connection

        def __getattr__(self, name):
            return getattr(self._connection, name)

        def _run(self, name, text, *arguments):
            if text.startswith(statement):
                raise sqlite3.OperationalError("disk I/O error")
            return getattr(self._connection, name)(text, *arguments)

        def execute(self, *arguments):
            return self._run("execute", *arguments)

        def executemany(self, *arguments):
            return self._run("executemany", *arguments)

    storage = SqliteStorage(tmp_path)
    storage.commit(Transaction(sequence=1, state=b"1", entries=[b"a"], blobs={"a": [LARGE]}))
    change = Transaction(sequence=2, state=b"2", entries=[b"b"], blobs={"a": [b"small"], "b": [LARGE]}, dropped_blobs=["a"])
    sound = storage._connection
    storage._connection = Failing(sound)
    with pytest.raises(StorageError, match="disk I/O error"):
        storage.commit(change)
    storage._connection = sound
    assert (storage.load().sequence, bytes(storage.read_blob("a"))) == (1, LARGE)
    storage.commit(change)
    assert (list(storage.load().entries), bytes(storage.read_blob("a"))) == ([b"a", b"b"], b"small")
    storage.close()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    storage = SqliteStorage(tmp_path)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "write_new", no_space)
        with pytest.raises(StorageError, match="No space left"):
            storage.commit(Transaction(sequence=1, state=b"1", blobs={"a": [LARGE]}))
    assert storage.load() is None
    storage.close()


def test_a_missing_file_is_noticed(tmp_path):
    storage = SqliteStorage(tmp_path)
    storage.commit(Transaction(sequence=1, state=b"1", blobs={"a": [LARGE]}))
    (tmp_path / "blobs" / "1-0").unlink()
    with pytest.raises(StateError, match="expected the file of blob 'a', got none"):
        storage.read_blob("a")
    storage.close()


def test_only_the_owner_can_read_anything(tmp_path):
    os.umask(0o022)
    tmp_path.chmod(0o755)
    storage = SqliteStorage(tmp_path)
    storage.commit(Transaction(sequence=1, state=b"1", blobs={"a": [LARGE]}))
    paths = [tmp_path, *tmp_path.rglob("*")]
    assert len(paths) >= 4
    assert all(not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) for path in paths)
    storage.close()


def test_one_coordinator_at_a_time(tmp_path):
    storage = SqliteStorage(tmp_path)
    for is_fresh in (False, True):
        with pytest.raises(StorageError, match="another coordinator uses it"):
            SqliteStorage(tmp_path, is_fresh=is_fresh)
    storage.close()
    SqliteStorage(tmp_path).close()


@pytest.mark.parametrize("pragma", ["user_version = 2", "application_id = 7"])
def test_other_versions_and_other_databases_are_left_alone(tmp_path, pragma):
    storage = SqliteStorage(tmp_path)
    storage._connection.execute(f"PRAGMA {pragma}")
    storage.close()
    before = (tmp_path / sqlite.DATABASE_NAME).read_bytes()
    with pytest.raises(StateError, match="expected a coordinator's database of version 1"):
        SqliteStorage(tmp_path)
    assert (tmp_path / sqlite.DATABASE_NAME).read_bytes() == before


def test_fresh_forgets_whatever_is_there(tmp_path):
    (tmp_path / sqlite.DATABASE_NAME).write_bytes(b"garbage")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1-0").write_bytes(b"old")
    storage = SqliteStorage(tmp_path, is_fresh=True)
    assert (storage.load(), files(tmp_path)) == (None, [])
    storage.commit(Transaction(sequence=1, state=b"1"))
    storage.close()
    again = SqliteStorage(tmp_path, is_fresh=True)
    assert again.load() is None
    again.close()


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="expected a folder to keep state in"):
        SqliteStorage(tmp_path / "file")


def content_of(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("largest_row", [10, 10**6], ids=["in files", "in rows"])
def test_keys_and_seeds_of_a_finished_round_are_nowhere(tmp_path, monkeypatch, largest_row):
    monkeypatch.setattr(sqlite, "MAX_ROW_BYTES", largest_row)
    storage = SqliteStorage(tmp_path)
    life = Life(storage)
    secrets = []
    for _ in steps(life):
        if life.engine.status()["round"] == 1:
            current = life.state.round
            seeds = [seed for seeds in current.seed_dictionary.values() for seed in seeds.values()]
            secrets = [current.keys.secret_key.hex().encode(), *seeds]
            assert all(secret in content_of(tmp_path) for secret in secrets)
    assert len(secrets) == 1 + 5 * 5
    assert life.engine.status()["round"] == 2
    assert not [secret for secret in secrets if secret in content_of(tmp_path)]
    assert life.state.round.keys.secret_key.hex().encode() in content_of(tmp_path)
    storage.close()
    assert not [secret for secret in secrets if secret in content_of(tmp_path)]


def test_many_small_messages_leave_a_small_database(tmp_path):
    storage = SqliteStorage(tmp_path)
    life = Life(storage)
    sizes = []
    for _ in range(3):
        round_ = life.round()
        keys = round_.keys("sum", 1)
        life.send(round_.sum(keys[0]))
        life.wait()
        sums = decode_sum_dictionary(life.engine.sums())
        for key in itertools.islice(round_.keys("update", 20), 20):
            life.send(round_.update(key, sums, weights_of(0)))
        life.wait(61)
        life.wait(61)
        sizes.append(sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
    assert max(sizes) < 200_000
    storage.close()
