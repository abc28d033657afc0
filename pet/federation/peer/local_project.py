"""The local project: the statistics of a peer's own rows, learned and forgotten in units, each once.

It holds numbers and saves them; it sends nothing and knows no message. Thread-safe: statistics are replaced, never changed
while somebody reads them.

Source: docs/spec/federation.md 1.1, 1.9, 9.3.
"""

from __future__ import annotations

import os
import secrets
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from pet.errors import FederationStateError, RowsExistError, StateError
from pet.federation.formats.learning_records import MAX_LEARNED_TABLES, Change, DoneRequest, PendingUnit, Piece, Taken
from pet.federation.peer.learning import DIGEST_KEY_BYTES, PendingUnits, Unit
from pet.federation.peer.project import StatisticsView
from pet.federation.peer.row_guard import Offered, RowGuard
from pet.federation.peer.shared_pairs import SharedPairs
from pet.federation.peer_store import PeerStore
from pet.federation.runtime import HeldBack
from pet.federation.statistics.devices import NUMPY, Device
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

_VERSION: Final = struct.Struct(">Q")
_LOCAL: Final = "local"
_DIGEST_KEY: Final = "digest_key"


class LocalProject(StatisticsView):
    """The statistics of a peer's own rows.

    Args:
        store: where they are kept.
        schema: None while the federation has none.
        propose: called with the first table if there is no schema; returns one. None means that rows are refused until then.
        device: computes the sums of rows.
        is_masked: whether others see its statistics only merged under masks.
        guard: keeps the rule of minimum rows; None where the rule is for all peers together.

    Attributes:
        version: grows with every change, so equal versions are equal statistics.
    """

    def __init__(
        self,
        store: PeerStore,
        schema: Schema | None,
        propose: Callable[[Any], Schema] | None = None,
        *,
        device: Device = NUMPY,
        is_masked: bool = False,
        guard: RowGuard | None = None,
    ) -> None:
        self._guard: Final = guard
        self._shared_pairs: Final = SharedPairs(store, is_masked=is_masked)
        self._device: Final = device
        self._store: Final = store
        self._propose: Final = propose
        self._lock: Final = threading.Lock()
        self._pending: Final = PendingUnits()
        self._statistics = None if schema is None else Statistics(schema, device=device)
        self.version = 0 if guard is None else guard.first_version
        if schema is not None and (saved := store.load_state(_LOCAL)) is not None:
            with StateError.reading("statistics of this peer"):
                self.version = _VERSION.unpack_from(saved)[0]
                self._statistics = Statistics.from_bytes(saved[_VERSION.size :], schema, device=device)

    def use_schema(self, schema: Schema) -> None:
        """Take the federation's schema.

        Raises:
            FederationStateError: rows were learned under another one.
        """
        with self._lock:
            current = self._statistics
            if current is not None and current.schema.digest != schema.digest and current.rows:
                raise FederationStateError("schema: expected the one that rows were learned under, got another")
            if current is None or current.schema.digest != schema.digest:
                self._statistics = Statistics(schema, device=self._device)

    def snapshot(self) -> Statistics:
        """Return the statistics as they are now.

        Raises:
            FederationStateError: the federation has no schema yet.
        """
        return self.versioned_snapshot()[0]

    def versioned_snapshot(self) -> tuple[Statistics, int]:
        """Return the statistics and their version."""
        with self._lock:
            if self._statistics is None:
                raise FederationStateError("schema: expected one from the administrator, got none yet")
            return self._statistics, self.version

    def shown(self) -> Statistics:
        """Return the statistics as others may see them now: without pairs of features that a few rows could be solved from."""
        return self._shared_pairs.preview(*self.versioned_snapshot())

    def offered(self) -> Offered | None:
        """Return what may leave this peer now, as others will see it; None for nothing.

        Raises:
            FederationStateError: the federation has no schema yet.
        """
        statistics, version = self.versioned_snapshot()
        if self._guard is not None:
            offered = self._guard.offered(statistics, version)
        else:
            offered = Offered(statistics=statistics, version=version, is_new=True) if statistics.rows else None
        if offered is None or offered.statistics is not statistics:
            return offered
        return replace(offered, statistics=self._shared_pairs.share(statistics, version))

    def note_shared(self, offered: Offered) -> None:
        """Note durably, before it does, that an offer leaves this peer."""
        if self._guard is not None:
            self._guard.note(offered.statistics, offered.version)

    @property
    def held_back(self) -> HeldBack | None:
        """What the rule of minimum rows keeps from the others for now; None for nothing."""
        if self._guard is None or self._statistics is None:
            return None
        return self._guard.held_back(*self.versioned_snapshot())

    @property
    def pending(self) -> list[PendingUnit]:
        """The tables of which some pieces came and the last one did not; nothing of them was learned."""
        return self._pending.shown()

    @property
    def table_count(self) -> int:
        """How many different tables were learned and not forgotten."""
        return self._store.learned_tables()

    def cancel(self, request: str) -> bool:
        """Drop an unfinished table; False if there is none under this id."""
        return self._pending.remove(request)

    def learn(self, source: Any, *, again: bool = False) -> int:
        """Learn a table as `take` does, in one piece, and return how many rows it has."""
        return self.take(source, Piece(request=secrets.token_hex(16), again=again)).rows

    def forget(self, source: Any, *, again: bool = False) -> int:
        """Take the rows of a table out again as `take` does, in one piece, and return how many they are."""
        return self.take(source, Piece(request=secrets.token_hex(16), change=Change.FORGET, again=again)).rows

    def take(self, source: Any, piece: Piece) -> Taken:
        """Take a piece of a table that is to be learned or forgotten; with the last one it is done, whole or not at all.

        A request that was done already changes nothing and gets the same answer, so it can be repeated when an answer was lost.

        Args:
            source: the rows of the piece, as `pet.federation.statistics.rows.read_blocks` takes them.
            piece: which one it is.

        Raises:
            RowError, FederationValueError: rows that do not fit the schema. The unit is as before, and can be cancelled.
            UnknownUnitError: a piece of a unit that is not held; it has to be sent from its beginning.
            DeviceError: the device is missing or failed; the unit is as before.
            FederationStateError: there is no schema yet; the same table was learned already; what is to be forgotten was not
                learned; the id of the request was used for another one.
        """
        schema = self._schema_for(source, piece)
        done = self._store.done_request(piece.request)
        if done is not None:
            return self._repeated(source, piece, done, schema)
        unit = self._pending.unit(piece, self._empty(schema), self._digest_key())
        with unit.lock:
            unit.add(source, piece.number)
            if not piece.is_last:
                return Taken(rows=unit.statistics.rows, is_done=False)
            try:
                rows = self._finish(unit, piece)
            finally:
                self._pending.remove(piece.request)
        return Taken(rows=rows, is_done=True)

    def _schema_for(self, source: Any, piece: Piece) -> Schema:
        if self._statistics is None and self._propose is not None and piece.change is Change.LEARN:
            if piece.number or not piece.is_last:
                raise FederationStateError(
                    "schema: expected one before a table in several pieces (create the federation with a schema), got none yet"
                )
            self.use_schema(self._propose(source))
        return self.snapshot().schema

    def _repeated(self, source: Any, piece: Piece, done: DoneRequest, schema: Schema) -> Taken:
        """Answer to a piece of a request that was carried out, once it is sure that it is the same one."""
        unit = Unit.begun(piece.change, self._empty(schema), self._digest_key(), 0.0)
        if piece.number == 0:
            unit.add(source, 0)
        if done.change is not piece.change or piece.number >= done.pieces or unit.first not in (b"", done.first):
            raise RowsExistError("request: expected the rows that this id was used for before, got others")
        return Taken(rows=done.rows, is_done=True)

    def _finish(self, unit: Unit, piece: Piece) -> int:
        """Make a whole unit part of the statistics, and note its request, in one transaction."""
        done = unit.done(piece.request)
        with self._lock:
            if (earlier := self._store.done_request(piece.request)) is not None:  # at the same time, in another thread
                if replace(earlier, pieces=done.pieces) != done:
                    raise RowsExistError("request: expected the rows that this id was used for before, got others")
                return earlier.rows
            assert self._statistics is not None, "the unit has a schema"
            changed = self._statistics.copy()
            if done.change is Change.LEARN:
                self._require_new(done.digest, again=piece.again)
                changed.include(unit.statistics)
            else:
                self._require_not_forgotten(done.digest, again=piece.again)
                changed.exclude(unit.statistics)
            if done.rows:
                data = _VERSION.pack(self.version + 1) + changed.to_bytes(with_residues=True)
                self._store.save_change(_LOCAL, data, done, is_empty=not changed.rows)
                self._statistics, self.version = changed, self.version + 1
            return done.rows

    def _require_new(self, digest: bytes, *, again: bool) -> None:
        """Refuse a table that was learned already, or that could not be recognised later on."""
        if again:
            return
        if self._store.times_learned(digest):
            raise RowsExistError(
                "learn: expected a table that was not learned before, got the same rows once more "
                "(again=True, or --again, counts them twice; or forget them first)"
            )
        if self._store.learned_tables() >= MAX_LEARNED_TABLES:
            raise FederationStateError(
                f"learn: expected at most {MAX_LEARNED_TABLES} tables, got one more: learn larger ones, or with again=True, "
                "after which a repeated table is not noticed"
            )

    def _require_not_forgotten(self, digest: bytes, *, again: bool) -> None:
        """Refuse to forget a table a second time, which the numbers may allow where other rows are like its own."""
        is_forgotten = self._store.last_change(digest) is Change.FORGET and not self._store.times_learned(digest)
        if is_forgotten and not again:
            raise RowsExistError(
                "forget: expected rows that are still learned, got some that were forgotten already (again=True, or --again, "
                "forgets equal rows of another table)"
            )

    def _empty(self, schema: Schema) -> Statistics:
        return Statistics(schema, device=self._device)

    def _digest_key(self) -> bytes:
        """Return the key that digests of this project are made with; made on the first call."""
        with self._lock:
            key = self._store.load_state(_DIGEST_KEY)
            if key is None:
                key = os.urandom(DIGEST_KEY_BYTES)
                self._store.save_state(_DIGEST_KEY, key)
            return key


class ShownProject(StatisticsView):
    """What others would see of a local project if all of it were shared now: this peer's own part of the merge.

    Args:
        local: the project.
    """

    def __init__(self, local: LocalProject) -> None:
        self._local: Final = local

    def snapshot(self) -> Statistics:
        """Return the statistics as they would be shared now."""
        return self._local.shown()


class SharedProject(StatisticsView):
    """Statistics that others may see.

    Args:
        statistics: as they were shared.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics: Final = statistics

    def snapshot(self) -> Statistics:
        """Return the statistics."""
        return self._statistics
