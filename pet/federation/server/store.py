"""What survives a restart: records, tokens, logs and blobs of all peers of a server, in one SQLite file for its owner only.

A peer that must not persist lives in a second database in memory, with the same tables and the same rules. Tokens are stored as
their SHA-256, so nobody who reads the file can join; secret keys of peers are in it in clear, which is why its mode is 0600.
Nothing here knows HTTP, NATS, or what a blob means.

Source: docs/spec/federation.md 1.3, 2.15, 4.1.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pet.crypto import EncryptionKeyPair, hash_sha256
from pet.errors import ProjectExistsError, StateError, TokenRefusedError
from pet.federation.formats.learning_records import Change, DoneRequest
from pet.federation.formats.record_codec import decode_record, encode_record
from pet.federation.formats.replay_guard import ReplayGuard
from pet.federation.peer_store import SHARED_BLOBS
from pet.federation.records import FederationRecord, LogKind, PeerIdentity
from pet.federation.server import row_ledger
from pet.federation.server.database import Database, open_file
from pet.federation.server.replay_log import ReplayLog
from pet.shown import escape_controls

MAX_LOG_LINES: Final = 1000
#: A line is a sentence; longer ones would let a peer's error text fill the disk.
MAX_LOG_LINE_CHARACTERS: Final = 1000
#: How long a token is remembered after it expired, so that the log can tell "expired" from "unknown".
_TOKEN_MEMORY_SECONDS: Final = 86400
_SEED_BYTES: Final = 32


class FederationStore:
    """The databases of one server, and `replays`, the ids of what it has taken."""

    def __init__(self, directory: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Open or begin the store.

        Args:
            directory: where the file is; None keeps everything in memory.
            clock: Unix seconds.

        Raises:
            StateError: the file is of another version, no database, damaged, or has lost changes; or the folder cannot be used.
        """
        self._clock: Final = clock
        self._volatile: Final = Database(":memory:")
        self._durable = self._volatile
        self.replays = self._volatile_replays = ReplayLog(None, clock)
        try:
            if directory is not None:
                self._durable = open_file(directory)
                self.replays = ReplayLog(directory, clock)
            for record in [record for record, storage in self.peers() if not storage.is_confirmed()]:
                self.remove(record.customer_id, record.project_id)  # the server ended while it created or joined
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the databases. What was in memory is lost."""
        self.replays.close()
        self._durable.close()
        self._volatile.close()

    def add(self, record: FederationRecord, *, persist: bool) -> PeerStorage:
        """Save a new peer and return its part of the store. Until it is confirmed, a restart forgets it.

        What of its rows left an earlier peer of the same customer in the same federation is there again.

        Raises:
            ProjectExistsError: the customer has a project of that name.
        """
        if self.record(record.customer_id, record.project_id) is not None:
            raise ProjectExistsError(record.project_id)
        database = self._durable if persist else self._volatile
        with database.transaction() as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO project (cid, pid, record) VALUES (?, ?, ?)",
                (record.customer_id, record.project_id, encode_record(record)),
            )
            if added.rowcount != 1:
                raise ProjectExistsError(record.project_id)
        storage = self._part(database, record)
        for name, data in self._shared_blobs(record).items():
            storage.save_state(name, data)
        for kept in self._databases():  # only now, and not twice: an older copy must not come back in place of a newer one
            with kept.transaction() as connection:
                place = (record.customer_id, _membership(record))
                connection.execute("DELETE FROM blob WHERE cid = ? AND pid = ?", place)
        return storage

    def _shared_blobs(self, record: FederationRecord) -> dict[str, bytes]:
        """Return what earlier peers of a customer in a federation shared, whether they are there still or were removed."""
        former = _membership(record)
        own = [other for other, _ in self.peers() if other.customer_id == record.customer_id and _membership(other) == former]
        places = [former, *(other.project_id for other in own if other.project_id != record.project_id)]
        found: dict[str, bytes] = {}
        for database in self._databases():
            with database.transaction() as connection:
                for place in places:
                    query = "SELECT name, data FROM blob WHERE cid = ? AND pid = ? AND substr(name, 1, ?) = ?"
                    found |= connection.execute(query, (record.customer_id, place, len(SHARED_BLOBS), SHARED_BLOBS)).fetchall()
        return found

    def record(self, customer_id: str, project_id: str) -> FederationRecord | None:
        """Return a peer's record, or None."""
        return next((found for _, found in self._records(customer_id, project_id)), None)

    def peers(self) -> list[tuple[FederationRecord, PeerStorage]]:
        """Return every peer with its part of the store.

        Raises:
            StateError: a record is damaged.
        """
        return [(record, self._part(database, record)) for database, record in self._records(None, None)]

    def remove(self, customer_id: str, project_id: str) -> None:
        """Forget a peer with everything it stored, but what of its rows left it, in case it comes back."""
        record = self.record(customer_id, project_id)
        for database in self._databases():
            with database.transaction() as connection:
                if record is not None:
                    connection.execute(
                        "UPDATE OR REPLACE blob SET pid = ? WHERE cid = ? AND pid = ? AND substr(name, 1, ?) = ?",
                        (_membership(record), customer_id, project_id, len(SHARED_BLOBS), SHARED_BLOBS),
                    )
                for table in ("project", "blob", "log", "token", "learned", "request"):
                    connection.execute(
                        f"DELETE FROM {table} WHERE cid = ? AND pid = ?",  # noqa: S608  the names above
                        (customer_id, project_id),
                    )

    def server_keys(self) -> EncryptionKeyPair:
        """Return the key pair that invitations without a password are sealed to; made on the first call."""
        with self._durable.transaction() as connection:
            row = connection.execute("SELECT data FROM server WHERE name = 'encryption_seed'").fetchone()
            seed = os.urandom(_SEED_BYTES) if row is None else row[0]
            if not isinstance(seed, bytes) or len(seed) != _SEED_BYTES:
                raise StateError(f"key of the server: expected {_SEED_BYTES} bytes, got another value")
            connection.execute("INSERT OR IGNORE INTO server (name, data) VALUES ('encryption_seed', ?)", (seed,))
        return EncryptionKeyPair.from_seed(seed)

    def _part(self, database: Database, record: FederationRecord) -> PeerStorage:
        replays = self.replays if database is self._durable else self._volatile_replays
        return PeerStorage(database, record.customer_id, record.project_id, self._clock, replays)

    def _databases(self) -> list[Database]:
        return [self._durable] if self._durable is self._volatile else [self._durable, self._volatile]

    def _records(self, customer_id: str | None, project_id: str | None) -> Iterator[tuple[Database, FederationRecord]]:
        for database in self._databases():
            with database.transaction() as connection:
                rows = connection.execute(
                    "SELECT record FROM project WHERE (:cid IS NULL OR cid = :cid) AND (:pid IS NULL OR pid = :pid)"
                    " ORDER BY cid, pid",
                    {"cid": customer_id, "pid": project_id},
                ).fetchall()
            yield from ((database, decode_record(text)) for (text,) in rows)


def _membership(record: FederationRecord) -> str:
    """Return where the blobs of a former peer lie: no project can have that name, and the admin's key cannot be pretended."""
    admin = b"" if record.terms.admin is None else record.terms.admin.signing_key
    return f"former peer of {record.terms.federation_id} {admin.hex()}"


@dataclass(frozen=True, slots=True)
class PeerStorage:
    """One peer's part of a store: the `PeerStore` of pet/federation/runtime.py, and the tokens that its admin issues."""

    _database: Database
    _cid: str
    _pid: str
    _clock: Callable[[], float]
    _replays: ReplayLog

    def confirm(self) -> None:
        """Say that the peer is a member now: it stays."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE project SET is_confirmed = 1 WHERE cid = ? AND pid = ?", (self._cid, self._pid))

    def is_confirmed(self) -> bool:
        """Return whether the peer is there and was confirmed."""
        with self._database.transaction() as connection:
            query = "SELECT is_confirmed FROM project WHERE cid = ? AND pid = ?"
            row = connection.execute(query, (self._cid, self._pid)).fetchone()
        return row is not None and bool(row[0])

    def save_record(self, record: FederationRecord) -> None:
        """Replace the record; of a peer that was removed from the store nothing comes back."""
        with self._database.transaction() as connection:
            self._write_record(connection, record)

    def save_state(self, name: str, state: bytes | None) -> None:
        """Replace one blob; None removes it."""
        with self._database.transaction() as connection:
            self._write_state(connection, name, state)

    def load_state(self, name: str) -> bytes | None:
        """Return a blob as it was saved last."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT data FROM blob WHERE cid = ? AND pid = ? AND name = ?", (self._cid, self._pid, name)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def save_change(self, name: str, state: bytes, done: DoneRequest, *, is_empty: bool) -> None:
        """Replace one blob and note the request that changed it, in one transaction."""
        with self._database.transaction() as connection:
            self._write_state(connection, name, state)
            row_ledger.note(connection, (self._cid, self._pid), done, is_empty=is_empty)

    def done_request(self, request: str) -> DoneRequest | None:
        """Return a request that was carried out, if it is still remembered."""
        with self._database.transaction() as connection:
            return row_ledger.done_request(connection, (self._cid, self._pid), request)

    def last_change(self, digest: bytes) -> Change | None:
        """Return what the newest remembered request with these rows did."""
        with self._database.transaction() as connection:
            return row_ledger.last_change(connection, (self._cid, self._pid), digest)

    def times_learned(self, digest: bytes) -> int:
        """Return how often a table was learned and not forgotten."""
        with self._database.transaction() as connection:
            return row_ledger.times_learned(connection, (self._cid, self._pid), digest)

    def learned_tables(self) -> int:
        """Return how many different tables were learned and not forgotten."""
        with self._database.transaction() as connection:
            return row_ledger.learned_tables(connection, (self._cid, self._pid))

    def replay_guard(self, max_ids: int) -> ReplayGuard:
        """Return what remembers messages."""
        return self._replays.guard(f"peer {self._cid} {self._pid}", max_ids)

    def append_log(self, kind: LogKind, line: str) -> None:
        """Add a line; the oldest beyond 1000 are dropped."""
        # What a peer wrote may hold control characters, and half of a surrogate pair, which no file takes.
        text = escape_controls(" ".join(line.split()))[:MAX_LOG_LINE_CHARACTERS]
        place = (self._cid, self._pid, kind)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO log (cid, pid, kind, line) SELECT cid, pid, ?, ? FROM project WHERE cid = ? AND pid = ?",
                (kind, text, self._cid, self._pid),
            )
            connection.execute(
                "DELETE FROM log WHERE place <= (SELECT place FROM log WHERE cid = ? AND pid = ? AND kind = ?"
                " ORDER BY place DESC LIMIT 1 OFFSET ?) AND cid = ? AND pid = ? AND kind = ?",
                (*place, MAX_LOG_LINES, *place),
            )

    def log_lines(self, kind: LogKind) -> list[str]:
        """Return a log, newest last."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT line FROM log WHERE cid = ? AND pid = ? AND kind = ? ORDER BY place", (self._cid, self._pid, kind)
            )
            return [line for (line,) in rows]

    def clear_log(self, kind: LogKind) -> None:
        """Empty a log."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM log WHERE cid = ? AND pid = ? AND kind = ?", (self._cid, self._pid, kind))

    def issue_token(self, token: str, invitation_id: bytes, expires_at: float) -> None:
        """Remember a token that an invitation carries; what expired more than a day ago is forgotten."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM token WHERE expires < ?", (self._clock() - _TOKEN_MEMORY_SECONDS,))
            connection.execute(
                "INSERT INTO token (digest, cid, pid, invitation, expires, state) VALUES (?, ?, ?, ?, ?, 'issued')",
                (hash_sha256(token.encode()), self._cid, self._pid, invitation_id, expires_at),
            )

    def require_token(self, token: str) -> None:
        """Check that a token can still make somebody a member.

        Raises:
            TokenRefusedError: see `PeerStore.require_token`.
        """
        with self._database.transaction() as connection:
            self._is_unused(connection, token, None)

    def redeem_token(self, token: str, joined: PeerIdentity, record: FederationRecord) -> None:
        """Use up a token and save the admin's record with the new peer in it, in one transaction.

        Raises:
            TokenRefusedError: see `PeerStore.redeem_token`.
        """
        with self._database.transaction() as connection:
            if not self._is_unused(connection, token, joined):
                return
            connection.execute(
                "UPDATE token SET state = 'used', peer = ?, signing_key = ? WHERE digest = ?",
                (joined.uuid, joined.signing_key, hash_sha256(token.encode())),
            )
            self._write_record(connection, record)

    def _is_unused(self, connection: sqlite3.Connection, token: str, joined: PeerIdentity | None) -> bool:
        """Return whether a token still waits for its peer; False if this very peer used it.

        Raises:
            TokenRefusedError: it is neither.
        """
        digest = hash_sha256(token.encode())
        row = connection.execute(
            "SELECT digest, expires, state, peer, signing_key FROM token WHERE digest = ? AND cid = ? AND pid = ?",
            (digest, self._cid, self._pid),
        ).fetchone()
        if row is None or not hmac.compare_digest(row[0], digest):
            raise TokenRefusedError("unknown")
        _, expires, state, peer, signing_key = row
        if joined is not None and (state, peer, signing_key) == ("used", joined.uuid, joined.signing_key):
            return False
        if state != "issued":
            raise TokenRefusedError(state)
        if expires < self._clock():
            raise TokenRefusedError("expired")
        return True

    def revoke_tokens(self) -> None:
        """Make every token that was issued and not used worthless."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE token SET state = 'revoked' WHERE cid = ? AND pid = ? AND state = 'issued'", (self._cid, self._pid)
            )

    def _write_state(self, connection: sqlite3.Connection, name: str, state: bytes | None) -> None:
        if state is None:
            connection.execute("DELETE FROM blob WHERE cid = ? AND pid = ? AND name = ?", (self._cid, self._pid, name))
            return
        # Nothing is kept for a peer that is gone: a round may end just after the project was deleted. Written over in place, a
        # blob of the same size takes half the writes of a new one beside pages that are wiped.
        insert = "INSERT INTO blob (cid, pid, name, data) SELECT cid, pid, ?, ? FROM project WHERE cid = ? AND pid = ?"
        update = "ON CONFLICT DO UPDATE SET data = excluded.data"
        connection.execute(f"{insert} {update}", (name, state, self._cid, self._pid))

    def _write_record(self, connection: sqlite3.Connection, record: FederationRecord) -> None:
        connection.execute(
            "UPDATE project SET record = ? WHERE cid = ? AND pid = ?", (encode_record(record), self._cid, self._pid)
        )
