"""A store that cannot be opened leaves no connection open; that all others are closed, open_databases.py watches."""

import contextlib
import sqlite3

import pytest

from pet.coordinator.storage import sqlite as storage
from pet.errors import PetError
from pet.federation.server.store import FederationStore

STORES = {storage.DATABASE_NAME: storage.SqliteStorage, "federations.sqlite3": FederationStore}


@pytest.fixture
def connections(monkeypatch):
    """Every connection that is made."""
    made, connect = [], sqlite3.connect

    def remember(*arguments, **keywords):
        made.append(connect(*arguments, **keywords))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", remember)
    return made


def is_closed(connection):
    try:
        connection.total_changes  # noqa: B018 - it raises on a closed connection
    except sqlite3.ProgrammingError:
        return True
    return False


def damages(path):
    """Yield ways in which a good file is made bad."""
    yield lambda: path.write_bytes(b"garbage" * 1000)
    yield lambda: path.write_bytes(path.read_bytes()[:3000])
    for statement in ("PRAGMA user_version = 99", "CREATE TABLE other (a)", "DROP TABLE state", "DROP TABLE project"):

        def change(statement=statement):
            connection = sqlite3.connect(path)
            try:
                connection.execute(statement)
            except sqlite3.OperationalError:
                pass  # the other kind of store has no such table
            finally:
                connection.close()

        yield change


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("number", range(6))
def test_a_store_that_cannot_be_opened_is_closed(tmp_path, connections, name, number):
    opened, path = STORES[name], tmp_path / name
    opened(tmp_path).close()
    assert path.exists()
    list(damages(path))[number]()
    connections.clear()
    with contextlib.suppress(PetError):
        opened(tmp_path).close()
    assert connections
    assert all(is_closed(connection) for connection in connections)


@pytest.mark.parametrize("opened", STORES.values(), ids=["coordinator", "federations"])
def test_what_nobody_expects_closes_it_too(tmp_path, connections, opened, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    if opened is FederationStore:
        monkeypatch.setattr(FederationStore, "peers", fail)
    else:
        monkeypatch.setattr(storage.SqliteStorage, "_prepare", fail)
    with pytest.raises(MemoryError):
        opened(tmp_path)
    assert connections
    assert all(is_closed(connection) for connection in connections)
