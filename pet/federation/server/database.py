"""The SQLite database of a federation server: tables, transactions of one thread at a time, a file for its owner only.

What a row means is the business of store.py and row_ledger.py.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pet.errors import StateError, StorageError
from pet.federation.server import row_ledger
from pet.files import make_private_folder, shown_fault, touch_private

#: 2: the tables `learned` and `request`. A store of version 1 gets them when it is opened; nothing else of it changes.
_FORMAT: Final = 2
_READ_FORMATS: Final = (0, 1, 2)
_FILE_NAME: Final = "federations.sqlite3"

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS project (
    cid TEXT, pid TEXT, record TEXT NOT NULL, is_confirmed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (cid, pid));
CREATE TABLE IF NOT EXISTS blob (cid TEXT, pid TEXT, name TEXT, data BLOB NOT NULL, PRIMARY KEY (cid, pid, name));
CREATE TABLE IF NOT EXISTS log (place INTEGER PRIMARY KEY, cid TEXT, pid TEXT, kind TEXT, line TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS log_of_project ON log (cid, pid, kind, place);
CREATE TABLE IF NOT EXISTS token (
    digest BLOB PRIMARY KEY, cid TEXT, pid TEXT, invitation BLOB, expires REAL, state TEXT NOT NULL,
    peer TEXT, signing_key BLOB);
CREATE TABLE IF NOT EXISTS server (name TEXT PRIMARY KEY, data BLOB NOT NULL);
"""


class Database:
    """One connection, used by one thread at a time."""

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._lock: Final = threading.RLock()
        self._connection: Final = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        try:
            found = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if found not in _READ_FORMATS:
                raise StateError(f"{name}: expected a store of version {_FORMAT}, got {found}")
            self._connection.executescript(
                f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; {_TABLES}{row_ledger.TABLES}"
                f"PRAGMA user_version = {_FORMAT};"
            )
        except BaseException as error:
            self._connection.close()
            if isinstance(error, sqlite3.DatabaseError | StateError):
                raise StateError(f"{name}: expected the store of a federation server, got: {error}") from None
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Let all that is done with the connection happen, or nothing of it."""
        with self._lock, self._mapped_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                with suppress(sqlite3.Error):  # some errors of the disk end the transaction themselves
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            kind = StateError if "decode" in str(error) else StorageError  # text that is not UTF-8
            raise kind(f"{self._name}: {error}") from None
        except (sqlite3.DatabaseError, sqlite3.InterfaceError) as error:
            raise StateError(f"{self._name}: expected the store of a federation server, got: {error}") from None

    def close(self) -> None:
        """Close the connection; what was in memory is lost."""
        with self._lock:
            self._connection.close()


def open_file(directory: Path) -> Database:
    """Open the database file; it is made readable by its owner alone before anything is in it.

    Raises:
        StateError: the folder or the file cannot be used.
    """
    path = directory / _FILE_NAME
    try:
        make_private_folder(directory)
        touch_private(path)  # SQLite gives its side files the same mode
    except OSError as error:
        raise StateError(shown_fault(error, directory, "a folder to keep federations in")) from None
    return Database(str(path))
