"""Tables that are learned or forgotten as units: whole or not at all, once for each request, none twice by accident.

A unit comes in numbered pieces under the id of its request. Until its last piece only its sums are held, in memory: a server
that is killed has learned nothing of it, and the sender begins again. What was done is noted by the store, in the transaction
that changes the statistics.

Source: docs/spec/federation.md 9.3.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationStateError, UnknownUnitError
from pet.federation.formats.learning_records import Change, DoneRequest, PendingUnit, Piece
from pet.federation.statistics.rows import Watched
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

#: Unfinished units of one project that are held at the same time; each is one statistics vector.
MAX_PENDING_UNITS: Final = 4
#: Another unit may take the place of one that got no piece for this time.
IDLE_SECONDS: Final = 600.0
#: Of the key that digests are made with: one for each project, so that equal tables have different digests elsewhere.
DIGEST_KEY_BYTES: Final = 32


class RowDigest:
    """A digest of a table, whatever pieces and blocks it came in: of its features' doubles, row by row, in the schema's order.

    Further columns count by their own digest. A table without any has the same digest in every format.

    Keyed: it tells nothing to anybody without the project's key. Who has the key, which is stored beside the digests, can test
    a guess of a whole table.
    """

    def __init__(self, key: bytes, schema: Schema) -> None:
        self._key = key
        self._rows = hashlib.blake2b(schema.digest, digest_size=32, key=key)
        self._others = hashlib.blake2b(digest_size=32, key=key)

    def update(self, values: NDArray[np.float64]) -> None:
        """Add checked rows, shape (rows, features)."""
        # One bit pattern for each value: -0.0 is 0.0, and all missing values are the same.
        canonical = np.where(np.isnan(values), np.nan, values + 0.0)
        self._rows.update(np.ascontiguousarray(canonical, dtype="<f8").data)

    def update_others(self, digest: bytes) -> None:
        """Add the digest of further columns, which tells tables apart whose features are alike."""
        self._others.update(digest)

    def copy(self) -> RowDigest:
        """Return a digest that goes on by itself."""
        twin = object.__new__(RowDigest)
        twin._key, twin._rows, twin._others = self._key, self._rows.copy(), self._others.copy()
        return twin

    def digest(self) -> bytes:
        """Return the digest of the rows so far, 32 bytes."""
        parts = self._rows.digest() + self._others.digest()
        return hashlib.blake2b(parts, digest_size=32, key=self._key).digest()


@dataclass(slots=True)
class Unit:
    """A unit whose pieces come one after the other.

    Attributes:
        statistics: of its rows so far.
        digest: of its rows so far; `before` without those of the newest piece.
        first: digest after the first piece.
        pieces: how many came.
        touched_seconds: when the newest came.
        lock: held while a piece is added.
    """

    change: Change
    statistics: Statistics
    digest: RowDigest
    before: RowDigest
    touched_seconds: float
    first: bytes = b""
    pieces: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def begun(cls, change: Change, empty: Statistics, key: bytes, now_seconds: float) -> Unit:
        """Return a unit without rows, whose sums begin with statistics of none."""
        digest = RowDigest(key, empty.schema)
        return cls(change, empty, digest, digest, now_seconds)

    def add(self, source: Any, number: int) -> None:
        """Add the rows of the next piece, all or none; the newest one once more changes nothing.

        Raises:
            RowError, FederationValueError: a row that cannot be learned.
            StatisticsError: more rows than the schema's `max_rows`.
            FederationStateError: another piece is due, or the newest came with other rows than before.
        """
        is_repeated = number == self.pieces - 1
        if number != self.pieces and not is_repeated:
            raise FederationStateError(f"piece: expected number {self.pieces} of this request, got {number}")
        digest = (self.before if is_repeated else self.digest).copy()
        added = Statistics.of(Watched(source, digest), self.statistics.schema, device=self.statistics.device)
        if is_repeated:
            if digest.digest() != self.digest.digest():
                raise FederationStateError(f"piece: expected the rows that number {number} had before, got others")
            return
        self.statistics.include(added)
        self.before, self.digest, self.pieces = self.digest, digest, self.pieces + 1
        self.first = self.first or digest.digest()

    def done(self, request: str) -> DoneRequest:
        """Return what is remembered of it."""
        return DoneRequest(
            request=request,
            change=self.change,
            first=self.first,
            digest=self.digest.digest(),
            pieces=self.pieces,
            rows=self.statistics.rows,
        )


class PendingUnits:
    """The unfinished units of one project. Thread-safe.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._units: Final[dict[str, Unit]] = {}

    def unit(self, piece: Piece, empty: Statistics, key: bytes) -> Unit:
        """Return the unit that a piece is of; the first piece begins it, with statistics of no rows.

        Raises:
            UnknownUnitError: a later piece of a unit that is not known: the server was restarted, or it was idle for too long.
            FederationStateError: there are too many unfinished units, or the request is for another change.
        """
        with self._lock:
            now = self._clock()
            unit = self._units.get(piece.request)
            if unit is not None and unit.statistics.schema.digest != empty.schema.digest:
                del self._units[piece.request]  # its sums are of a schema that nobody uses now
                unit = None
            if unit is None:
                if piece.number:
                    raise UnknownUnitError(piece.number)
                unit = Unit.begun(piece.change, empty, key, now)
                # A unit of one piece is done with it, and takes nobody's place.
                if not piece.is_last:
                    self._make_room(now)
                    self._units[piece.request] = unit
            if unit.change is not piece.change:
                raise FederationStateError(f"request: expected rows to {unit.change} under this id, got some to {piece.change}")
            unit.touched_seconds = now
            return unit

    def remove(self, request: str) -> bool:
        """Forget an unfinished unit; False if there is none."""
        with self._lock:
            return self._units.pop(request, None) is not None

    def shown(self) -> list[PendingUnit]:
        """Return all, in the order in which they began."""
        with self._lock:
            now = self._clock()
            return [
                PendingUnit(
                    request=request,
                    change=unit.change,
                    pieces=unit.pieces,
                    rows=unit.statistics.rows,
                    idle_seconds=now - unit.touched_seconds,
                )
                for request, unit in self._units.items()
            ]

    def _make_room(self, now: float) -> None:
        if len(self._units) < MAX_PENDING_UNITS:
            return
        request, unit = min(self._units.items(), key=lambda item: item[1].touched_seconds)
        if now - unit.touched_seconds < IDLE_SECONDS:
            raise FederationStateError(f"pieces: expected at most {MAX_PENDING_UNITS} unfinished tables, got one more")
        del self._units[request]
