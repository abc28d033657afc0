"""Which requests changed a peer's rows, and which tables it learned: two tables of the store, read and written.

Every function works within a transaction of its caller. A table is a digest here, a request an id; both are bounded in number.

Source: docs/spec/federation.md 9.3.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from pet.federation.formats.learning_records import MAX_LEARNED_TABLES, MAX_REQUESTS, Change, DoneRequest

STATEMENTS: Final = (
    """CREATE TABLE IF NOT EXISTS learned (
    cid TEXT, pid TEXT, digest BLOB, times INTEGER NOT NULL, PRIMARY KEY (cid, pid, digest)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS request (
    place INTEGER PRIMARY KEY, cid TEXT, pid TEXT, id TEXT, change TEXT NOT NULL, first BLOB NOT NULL, digest BLOB NOT NULL,
    pieces INTEGER NOT NULL, row_count INTEGER NOT NULL, UNIQUE (cid, pid, id))""",
    "CREATE INDEX IF NOT EXISTS request_of_project ON request (cid, pid, place)",
    "CREATE INDEX IF NOT EXISTS request_of_rows ON request (cid, pid, digest)",
)
#: Customer and project: whose rows they are.
Place = tuple[str, str]


def note(connection: sqlite3.Connection, place: Place, done: DoneRequest, *, is_empty: bool) -> None:
    """Note a request that was carried out, and the table that it learned or forgot.

    Args:
        connection: to the store, in a transaction.
        place: whose rows changed; nothing is kept for a peer that is gone.
        done: the request.
        is_empty: whether no rows are left, so that no table counts as learned.
    """
    connection.execute(
        "INSERT INTO request (cid, pid, id, change, first, digest, pieces, row_count)"
        " SELECT cid, pid, ?, ?, ?, ?, ?, ? FROM project WHERE cid = ? AND pid = ?",
        (done.request, done.change, done.first, done.digest, done.pieces, done.rows, *place),
    )
    connection.execute(
        "DELETE FROM request WHERE place <= (SELECT place FROM request WHERE cid = ? AND pid = ?"
        " ORDER BY place DESC LIMIT 1 OFFSET ?) AND cid = ? AND pid = ?",
        (*place, MAX_REQUESTS, *place),
    )
    if done.change is Change.LEARN:
        # Beyond the limit only tables that are known count, which is what the caller checked.
        connection.execute(
            "INSERT INTO learned (cid, pid, digest, times) SELECT cid, pid, :digest, 1 FROM project"
            " WHERE cid = :cid AND pid = :pid"
            " AND ((SELECT count(*) FROM learned WHERE cid = :cid AND pid = :pid) < :most"
            " OR EXISTS (SELECT 1 FROM learned WHERE cid = :cid AND pid = :pid AND digest = :digest))"
            " ON CONFLICT (cid, pid, digest) DO UPDATE SET times = times + 1",
            {"digest": done.digest, "cid": place[0], "pid": place[1], "most": MAX_LEARNED_TABLES},
        )
    elif is_empty:
        connection.execute("DELETE FROM learned WHERE cid = ? AND pid = ?", place)
    else:
        found = (*place, done.digest)
        connection.execute("UPDATE learned SET times = times - 1 WHERE cid = ? AND pid = ? AND digest = ?", found)
        connection.execute("DELETE FROM learned WHERE cid = ? AND pid = ? AND digest = ? AND times < 1", found)


def done_request(connection: sqlite3.Connection, place: Place, request: str) -> DoneRequest | None:
    """Return a request that was carried out, if it is still remembered."""
    row = connection.execute(
        "SELECT change, first, digest, pieces, row_count FROM request WHERE cid = ? AND pid = ? AND id = ?", (*place, request)
    ).fetchone()
    if row is None:
        return None
    change, first, digest, pieces, rows = row
    return DoneRequest(request=request, change=Change(change), first=first, digest=digest, pieces=pieces, rows=rows)


def last_change(connection: sqlite3.Connection, place: Place, digest: bytes) -> Change | None:
    """Return what the newest remembered request with these rows did."""
    query = "SELECT change FROM request WHERE cid = ? AND pid = ? AND digest = ? ORDER BY place DESC LIMIT 1"
    row = connection.execute(query, (*place, digest)).fetchone()
    return None if row is None else Change(row[0])


def times_learned(connection: sqlite3.Connection, place: Place, digest: bytes) -> int:
    """Return how often a table was learned and not forgotten."""
    query = "SELECT times FROM learned WHERE cid = ? AND pid = ? AND digest = ?"
    row = connection.execute(query, (*place, digest)).fetchone()
    return 0 if row is None else int(row[0])


def learned_tables(connection: sqlite3.Connection, place: Place) -> int:
    """Return how many different tables were learned and not forgotten."""
    return int(connection.execute("SELECT count(*) FROM learned WHERE cid = ? AND pid = ?", place).fetchone()[0])
