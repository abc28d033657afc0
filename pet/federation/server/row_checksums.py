"""A checksum in each row of a database, so that what a disk did to it is noticed when it is opened.

SQLite checks the structure of its pages, and nothing of what stands in a row. Here each table has one more column, which
triggers of the connection write whenever a row changes, so that those who write rows know nothing of it. The checksum is CRC-32
of the table's name and all values, keys included: it is against disks, not against somebody who changes the file.
"""

from __future__ import annotations

import sqlite3
import zlib
from typing import Final

_COLUMN: Final = "checksum"
_FUNCTION: Final = "row_checksum"


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the function that the triggers and the check need."""
    connection.create_function(_FUNCTION, -1, _checksum, deterministic=True)


def add_columns(connection: sqlite3.Connection, tables: tuple[str, ...]) -> None:
    """Give tables the column, and rows their checksums, where they have none; within a transaction."""
    for table in tables:
        names = [name for name, _ in _columns(connection, table)]
        if _COLUMN not in names:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {_COLUMN} INTEGER")
            connection.execute(f"UPDATE {table} SET {_COLUMN} = {_call(table, names)}")  # noqa: S608  our names


def write_from_now_on(connection: sqlite3.Connection, tables: tuple[str, ...]) -> None:
    """Have every row that changes get its checksum, on this connection."""
    for table in tables:
        columns = [(name, is_key) for name, is_key in _columns(connection, table) if name != _COLUMN]
        names = [name for name, _ in columns]
        place = " AND ".join(f"{name} IS NEW.{name}" for name, is_key in columns if is_key)
        action = f"UPDATE {table} SET {_COLUMN} = {_call(table, names, 'NEW.')} WHERE {place}"  # noqa: S608
        for name, event in (("insert", "INSERT"), ("update", f"UPDATE OF {', '.join(names)}")):
            connection.execute(f"CREATE TEMP TRIGGER {table}_{name} AFTER {event} ON main.{table} BEGIN {action}; END")


def find_damage(connection: sqlite3.Connection, tables: tuple[str, ...]) -> str | None:
    """Return the name of a table with a row that is not as it was written; None if there is none."""
    for table in tables:
        names = [name for name, _ in _columns(connection, table) if name != _COLUMN]
        query = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {_COLUMN} IS NOT {_call(table, names)})"  # noqa: S608
        if connection.execute(query).fetchone()[0]:
            return table
    return None


def _columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, bool]]:
    """Return the names of the columns of a table, and whether each is a part of its key."""
    return [(row[1], row[5] > 0) for row in connection.execute(f"PRAGMA table_info({table})")]


def _call(table: str, names: list[str], prefix: str = "") -> str:
    return f"{_FUNCTION}('{table}', {', '.join(prefix + name for name in names)})"


def _checksum(*values: float | str | bytes | None) -> int:
    found = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        found = zlib.crc32(data, zlib.crc32(f"{type(value).__name__} {len(data)}:".encode(), found))
    return found
