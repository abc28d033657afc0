"""The embedded storage: one SQLite database in a folder, and files beside it for what is large.

The database is in WAL mode with synchronous=FULL: a commit is on the disk when it returns. Large blobs are written to files of
their own first; the commit then makes them count. A file that no commit counts is what a crash left behind, and is removed at
the next start. What is deleted is overwritten (secure_delete), and the log that may still hold it is emptied whenever the
journal is: keys and seeds of finished rounds are not to be found in the folder. Everything can be read by its owner only.

The database stays locked as long as it is open, so that no two coordinators share a folder. A log that lost acknowledged
changes is refused: pet/change_guard.py notes each change beside the database.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pet.buffers import Buffer
from pet.change_guard import Guard
from pet.coordinator.storage.base import Stored, Transaction, is_next, join, matches, size_of
from pet.errors import StateError, StorageError
from pet.files import make_private_folder, shown_fault, sync_folder, touch_private, write_new

DATABASE_NAME: Final = "coordinator.sqlite"
BLOB_FOLDER_NAME: Final = "blobs"
GUARD_NAME: Final = "coordinator.guard"

#: Larger blobs go to files: a row would be written twice, first to the log and then to the database.
MAX_ROW_BYTES: Final = 1 << 18

#: Follows every character that is in a name of a blob.
_LAST_CHARACTER: Final = "\U0010ffff"

#: "pet1" as a number: the mark of our databases in their header.
_APPLICATION_ID: Final = 0x70657431
_VERSION: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 0), sequence INTEGER NOT NULL, data BLOB NOT NULL)",
    "CREATE TABLE entries (position INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE blobs (name TEXT PRIMARY KEY, data BLOB, file TEXT UNIQUE, CHECK ((data IS NULL) <> (file IS NULL)))",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)
#: The first bytes of every log that SQLite can read: its mark, but for the order of checksums, and its only version.
_LOG_MARK: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_LOG_VERSION: Final = (3007000).to_bytes(4, "big")
#: What the machine is to blame for when SQLite fails; anything else is what a sound database of ours does not say.
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_HINT: Final = "(--fresh begins anew and forgets what is there)"


class SqliteStorage:
    """`Storage` in a folder.

    Args:
        folder: made if it does not exist.
        is_fresh: forget everything that is there first, also what no coordinator has written under these names.

    Raises:
        StateError: the database is none of ours, damaged, or has lost changes.
        StorageError: another coordinator has it open, or it cannot be used.
    """

    def __init__(self, folder: Path, *, is_fresh: bool = False) -> None:
        self.description = f"SQLite in {folder}"
        self._path: Final = folder / DATABASE_NAME
        self._blob_folder: Final = folder / BLOB_FOLDER_NAME
        #: The files that count, by the name of their blob: nobody else can change the database, and asking it takes longer.
        self._files = dict[str, str]()
        self._guard_path: Final = folder / GUARD_NAME
        try:
            make_private_folder(folder)
            make_private_folder(self._blob_folder)
            if is_fresh:
                self._remove()
            # SQLite gives its other files the permissions of this one.
            touch_private(self._path)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(shown_fault(error, folder, "a folder to keep state in")) from None
        self._connection, self._guard = self._open()

    def load(self) -> Stored | None:
        """Return what is stored; remove files that a crash left behind."""
        with self._reading():
            self._remove_unknown_files()
            row = self._connection.execute("SELECT sequence, data FROM state").fetchone()
            if row is None:
                return None
            sequence, state = row
            entries = [data for (data,) in self._connection.execute("SELECT data FROM entries ORDER BY position")]
            names = frozenset(name for (name,) in self._connection.execute("SELECT name FROM blobs"))
        return Stored(sequence=sequence, state=state, entries=entries, blob_names=names)

    def read_blob(self, name: str) -> Buffer:
        """Return the bytes of a blob."""
        with self._reading():
            row = self._connection.execute("SELECT data, file FROM blobs WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise StateError(f"{self._path}: expected a blob {name!r}, got none")
        data: bytes | None = row[0]
        if data is not None:
            return data
        file = str(row[1])
        try:
            return (self._blob_folder / file).read_bytes()
        except FileNotFoundError:
            raise StateError(f"{self._blob_folder / file}: expected the file of blob {name!r}, got none {_HINT}") from None
        except OSError as error:
            raise StorageError(shown_fault(error, self._blob_folder / file, f"the file of blob {name!r}")) from None

    def commit(self, transaction: Transaction) -> None:
        """Make a change durable: large blobs first, then the rest in one transaction of the database."""
        try:
            row = self._connection.execute("SELECT sequence, data FROM state").fetchone()
            obsolete: list[str] = []
            if is_next(transaction, *(row or (0, b""))):
                rows = self._write_files(transaction)
                obsolete = self._commit_rows(transaction, rows)
                if transaction.clears:
                    # The log still has what was overwritten in the database: keys and seeds of the last round.
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._guard.note(transaction.sequence)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.description}: {error}") from None
        for file in obsolete:
            # One that stays is removed at the next start.
            with suppress(OSError):
                (self._blob_folder / file).unlink()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
        self._guard.close()

    def _open(self) -> tuple[sqlite3.Connection, Guard]:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._reading():
                self._prepare(connection)
                guard = self._compare(connection)
            try:
                with self._reading():
                    # A crash may have come between the end of a round and the emptying of the log.
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except BaseException:
                guard.close()
                raise
        except BaseException:
            connection.close()
            raise
        return connection, guard

    def _compare(self, connection: sqlite3.Connection) -> Guard:
        """Open the note of the last change.

        Raises:
            StateError: the database is older than the note, or the note is damaged.
            StorageError: the note cannot be read.
        """
        try:
            guard = Guard(self._guard_path)
        except OSError as error:
            raise StorageError(shown_fault(error, self._guard_path, "a note of the last change")) from None
        except StateError as error:
            raise StateError(f"{error} {_HINT}") from None
        try:
            row = connection.execute("SELECT sequence FROM state").fetchone()
            guard.require(0 if row is None else row[0], self._path, "acknowledged messages")
        except StateError as error:
            guard.close()
            raise StateError(f"{error} {_HINT}") from None
        except BaseException:
            guard.close()
            raise
        return guard

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Lock the database, check that it is ours, and make its tables if it is new."""
        for pragma in ("locking_mode = EXCLUSIVE", "synchronous = FULL", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0 and (mark, version) == (0, 0)
        if not is_new and (mark, version) != (_APPLICATION_ID, _VERSION):
            raise StateError(
                f"{self._path}: expected a coordinator's database of version {_VERSION}, got mark {mark:#x}, version {version} "
                f"{_HINT}"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        # The lock is taken with the first write, and kept.
        connection.execute("BEGIN EXCLUSIVE")
        for statement in _SCHEMA if is_new else ():
            connection.execute(statement)
        connection.execute("COMMIT")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StateError(f"{self._path}: expected a sound database, got: {found} {_HINT}")
        self._files = dict(connection.execute("SELECT name, file FROM blobs WHERE file IS NOT NULL").fetchall())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raise what an error of SQLite, in opening or reading, means to callers."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            kind = error.sqlite_errorcode & 0xFF  # the rest says more of the same kind
            if kind in _BUSY:
                raise StorageError(f"{self._path}: expected a folder of its own, but another coordinator uses it") from None
            if kind in _PASSING and not self._is_damaged(error.sqlite_errorcode):
                raise StorageError(f"{self._path}: {error}") from None
            raise StateError(f"{self._path}: expected a coordinator's database, got: {error} {_HINT}") from None

    def _is_damaged(self, code: int) -> bool:
        """Return whether a fault that SQLite ascribes to the machine is one of the bytes on the disk."""
        if code == sqlite3.SQLITE_IOERR_SHORT_READ:
            return True
        if code & 0xFF == sqlite3.SQLITE_READONLY:  # a version of the format that may be read only
            return os.access(self._path, os.W_OK)
        with suppress(OSError), Path(f"{self._path}-wal").open("rb") as log:
            start = log.read(2 * len(_LOG_VERSION))
            return code & 0xFF == sqlite3.SQLITE_CANTOPEN and start[:4] in _LOG_MARK and start[4:] != _LOG_VERSION
        return False

    def _write_files(self, transaction: Transaction) -> list[tuple[str, bytes | None, str | None]]:
        """Write large blobs to files that nothing counts yet; return the rows of all blobs."""
        rows: list[tuple[str, bytes | None, str | None]] = []
        for index, (name, blob) in enumerate(transaction.blobs.items()):
            if size_of(blob) <= MAX_ROW_BYTES:
                rows.append((name, join(blob), None))
                continue
            file = f"{transaction.sequence}-{index}"
            path = self._blob_folder / file
            path.unlink(missing_ok=True)  # of an attempt that failed
            if isinstance(blob, Sequence):
                write_new(path, blob)
            else:
                blob.keep(path)
            rows.append((name, None, file))
        if any(file is not None for _, _, file in rows):
            sync_folder(self._blob_folder)
        return rows

    def _commit_rows(self, transaction: Transaction, rows: Sequence[tuple[str, bytes | None, str | None]]) -> list[str]:
        """Change the database; return the files that no longer count."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if transaction.clears:
                connection.execute("DELETE FROM entries")
                connection.execute("DELETE FROM blobs")
            for pattern in transaction.dropped_blobs:
                # A range, because GLOB with a pattern that is not in the statement reads all rows.
                first = pattern.removesuffix("*")
                last = first + _LAST_CHARACTER if pattern.endswith("*") else first
                connection.execute("DELETE FROM blobs WHERE name BETWEEN ? AND ?", (first, last))
            connection.executemany("INSERT OR REPLACE INTO blobs (name, data, file) VALUES (?, ?, ?)", rows)
            connection.executemany("INSERT INTO entries (data) VALUES (?)", [(entry,) for entry in transaction.entries])
            state = (transaction.sequence, transaction.state)
            connection.execute("INSERT OR REPLACE INTO state (id, sequence, data) VALUES (0, ?, ?)", state)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        obsolete = self._obsolete_names(transaction)
        files = [self._files.pop(name) for name in obsolete]
        self._files |= {name: file for name, _, file in rows if file is not None}
        return files

    def _obsolete_names(self, transaction: Transaction) -> list[str]:
        """Return the names of the blobs whose files no longer count after a change."""
        if transaction.clears:
            return list(self._files)
        dropped, written = transaction.dropped_blobs, transaction.blobs
        return [name for name in self._files if name in written or any(matches(name, pattern) for pattern in dropped)]

    def _remove_unknown_files(self) -> None:
        known = set(self._files.values())
        for path in self._blob_folder.iterdir():
            if path.name not in known:
                with suppress(OSError):
                    path.unlink()

    def _remove(self) -> None:
        """Remove the database, unless somebody uses it, and the files.

        Raises:
            StorageError: another coordinator has it open.
        """
        if self._path.exists():
            with suppress(StateError):  # damaged or foreign, and to be forgotten
                for opened in self._open():
                    opened.close()
        self._guard_path.unlink(missing_ok=True)
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        shutil.rmtree(self._blob_folder)
        make_private_folder(self._blob_folder)
