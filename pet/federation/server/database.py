"""The SQLite database of a federation server: tables, transactions of one thread at a time, a file for its owner only.

What a row means is the business of store.py and row_ledger.py. Damage to the file or its log is noticed when it is opened: the
structure by SQLite, rows by checksums (row_checksums.py), and a log that lost changes by a note beside it
(pet/change_guard.py).
"""

from __future__ import annotations

import functools
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from pet.change_guard import Guard
from pet.errors import StateError, StorageError
from pet.federation.server import row_checksums, row_ledger
from pet.files import make_private_folder, shown_fault, touch_private

#: 2: the tables `learned` and `request`; 3: checksums. A store of an earlier version gets them when it is opened; nothing else
#: of it changes.
_FORMAT: Final = 3
_READ_FORMATS: Final = (0, 1, 2, 3)
_FILE_NAME: Final = "federations.sqlite3"
GUARD_NAME: Final = "federations.guard"

_STATEMENTS: Final = (
    """CREATE TABLE IF NOT EXISTS project (
    cid TEXT, pid TEXT, record TEXT NOT NULL, is_confirmed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (cid, pid))""",
    "CREATE TABLE IF NOT EXISTS blob (cid TEXT, pid TEXT, name TEXT, data BLOB NOT NULL, PRIMARY KEY (cid, pid, name))",
    "CREATE TABLE IF NOT EXISTS log (place INTEGER PRIMARY KEY, cid TEXT, pid TEXT, kind TEXT, line TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS log_of_project ON log (cid, pid, kind, place)",
    """CREATE TABLE IF NOT EXISTS token (
    digest BLOB PRIMARY KEY, cid TEXT, pid TEXT, invitation BLOB, expires REAL, state TEXT NOT NULL,
    peer TEXT, signing_key BLOB)""",
    "CREATE TABLE IF NOT EXISTS server (name TEXT PRIMARY KEY, data BLOB NOT NULL)",
    *row_ledger.STATEMENTS,
)
_TABLES: Final = ("project", "blob", "log", "token", "server", "learned", "request")
#: Where the number of the last change is in the table `server`.
_CHANGES: Final = "changes"
_SEQUENCE_BYTES: Final = 8
_HINT: Final = "(put the whole folder back from a copy, or begin with another one)"


class Database:
    """One connection, used by one thread at a time.

    Args:
        name: of the file; ":memory:" for none.
        guard_path: where changes are noted; None for nowhere.

    Raises:
        StateError: it is of another version, no database of ours, damaged, or has lost changes.
    """

    def __init__(self, name: str, guard_path: Path | None = None) -> None:
        self._name: Final = name
        self._lock: Final = threading.RLock()
        self._guard: Guard | None = None
        self._connection: Final = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
            if guard_path is not None:
                self._require_sound()
                self._guard = Guard(guard_path)
                self._guard.require(self._last_change(), Path(name), "changes")
                row_checksums.write_from_now_on(self._connection, _TABLES)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.DatabaseError | StateError | OSError):
                raise StateError(f"{name}: expected the store of a federation server, got: {error} {_HINT}") from None
            raise

    def _prepare(self) -> None:
        """Check that the database is ours, and bring it to today's version.

        Raises:
            StateError: it is of another version.
        """
        connection = self._connection
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in _READ_FORMATS:
            raise StateError(f"{self._name}: expected a store of version {_FORMAT}, got {found}")
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        row_checksums.register(connection)
        if found != _FORMAT:
            connection.execute("BEGIN IMMEDIATE")
            _make_tables(connection)
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
            connection.execute("COMMIT")

    def _require_sound(self) -> None:
        """Check what is in the file.

        Raises:
            StateError: it is not as it was written.
        """
        # Indices too, which the quick check leaves out: a row that is not found through one is as good as lost.
        found = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise StateError(f"a damaged database: {found}")
        if _schema(self._connection) != _expected_schema():
            raise StateError("tables of other names or columns")
        damaged = row_checksums.find_damage(self._connection, _TABLES)
        if damaged is not None:
            raise StateError(f"damaged bytes in the table {damaged}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Let all that is done with the connection happen, or nothing of it.

        Raises:
            StateError: what is stored is damaged.
            StorageError: the disk does not take it, or not the note that it did: then it may have happened all the same.
        """
        with self._lock, self._mapped_errors():
            connection, sequence = self._connection, None
            connection.execute("BEGIN IMMEDIATE")
            try:
                changes = connection.total_changes
                yield connection
                if self._guard is not None and connection.total_changes != changes:
                    sequence = self._last_change() + 1
                    data = sequence.to_bytes(_SEQUENCE_BYTES, "little")
                    connection.execute("INSERT OR REPLACE INTO server (name, data) VALUES (?, ?)", (_CHANGES, data))
            except BaseException:
                with suppress(sqlite3.Error):  # some errors of the disk end the transaction themselves
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            if self._guard is not None and sequence is not None:
                try:
                    self._guard.note(sequence)
                except OSError as error:
                    raise StorageError(f"{self._name}: {error}") from None

    def _last_change(self) -> int:
        row = self._connection.execute("SELECT data FROM server WHERE name = ?", (_CHANGES,)).fetchone()
        return 0 if row is None else int.from_bytes(row[0], "little")

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
            if self._guard is not None:
                self._guard.close()


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make what is missing of the tables; within a transaction."""
    for statement in _STATEMENTS:
        connection.execute(statement)
    row_checksums.add_columns(connection, _TABLES)


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """Return kind, name and text of all that is in a database; spaces do not count."""
    found = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {(kind, name, " ".join((text or "").split())) for kind, name, text in found}


@functools.cache
def _expected_schema() -> frozenset[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        row_checksums.register(connection)
        _make_tables(connection)
        return frozenset(_schema(connection))


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
    return Database(str(path), directory / GUARD_NAME)
