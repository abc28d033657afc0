"""What a peer lets others see of its own rows: the rule of minimum rows, which it keeps for itself, whatever others ask.

A version of its statistics may leave it only if it has at least `least` rows, and differs by at least `least` rows, counted,
from every version that left it before: the difference of two versions is the sums of the rows between them. Rows that are
replaced by as many others add nothing. A version that may not leave is held back, and the last one that left is offered again,
which tells nobody anything. So whatever depends on rows that are held back stays here, and a refusal looks the same for all of
them.

Source: docs/spec/federation.md 1.7.
"""

from __future__ import annotations

import bisect
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from pet.errors import StateError
from pet.federation.formats.json_form import JsonForm, Whole
from pet.federation.peer_store import PeerStore
from pet.federation.runtime import HeldBack
from pet.federation.statistics.header import StatisticsHeader
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

_COUNTS: Final = "shared_counts"
_LAST: Final = "shared_last"
#: Where earlier releases kept what the plain exchange sent last, without its version.
_SENT: Final = "sent"
_VERSION: Final = struct.Struct(">Q")
_ROW_COUNTS: Final = JsonForm(list[Whole])
#: With an hour between two versions that is eleven years; what is beyond is held back.
MAX_SHARED_VERSIONS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What may leave a peer now.

    Attributes:
        statistics: as others may see them: those that left last, or newer ones of all the peer's rows.
        version: of them; equal versions are equal statistics.
        is_new: whether this version has not left the peer yet.
    """

    statistics: Statistics
    version: int
    is_new: bool


class RowGuard:
    """The rule of minimum rows of one peer, and its memory of what left.

    Args:
        store: where it is kept.
        least_rows: the peer's own limit; called anew each time, as its user may change it.
        shared_before: version and rows that the counters of an earlier release knew to be shared; (0, 0) for none.
    """

    def __init__(self, store: PeerStore, least_rows: Callable[[Schema], int], shared_before: tuple[int, int] = (0, 0)) -> None:
        self._store: Final = store
        self._least_rows: Final = least_rows
        self._version, rows = shared_before
        #: Row counts of the versions that left, ascending; each once.
        self._counts: list[int] = [rows] if self._version else []
        with StateError.reading("what was shared"):
            if (saved := store.load_state(_COUNTS)) is not None:
                self._counts = sorted(_ROW_COUNTS.read(json.loads(saved)))
            if (saved := store.load_state(_LAST)) is not None:
                self._version = _VERSION.unpack_from(saved)[0]

    @property
    def first_version(self) -> int:
        """The version of statistics without any rows: 0, or beyond all that left an earlier peer in the same federation."""
        return self._version + 1 if self._version else 0

    def held_back(self, statistics: Statistics, version: int) -> HeldBack | None:
        """Return what the rule keeps from the others of the newest statistics; None if it lets them pass, or they left."""
        held = self._held(statistics, version)
        if held is None or held.forgets or not self._counts:
            return held
        last = self._last(statistics.schema)
        forgets = last is not None and (statistics.rows < last.rows or statistics.forgotten_rows > last.forgotten_rows)
        return replace(held, forgets=forgets)

    def _held(self, statistics: Statistics, version: int) -> HeldBack | None:
        """Return what the rule holds back, without having looked at what left last.

        An answer to a call waits for this alone, and it does the same whether rows are held back or not: how long an answer
        takes must say no more about them than what stands in it.
        """
        least, rows = self._least_rows(statistics.schema), statistics.rows
        changed = self._distance(rows) if self._counts else rows
        if version == self._version or (not rows and not self._counts):
            return None
        if self._counts and 0 < rows < least:
            return HeldBack(rows=rows, least=least, forgets=True)
        if changed >= least and len(self._counts) < MAX_SHARED_VERSIONS:
            return None
        return HeldBack(rows=changed, least=least)

    def offered(self, statistics: Statistics, version: int) -> Offered | None:
        """Return what may be shown to others: the newest statistics, or those that left last; None for nothing at all."""
        held = self._held(statistics, version)
        if version == self._version or held is not None:
            last = self._last(statistics.schema)
            if last is None and self._version and version == self._version:
                last = statistics  # an earlier release did not keep them, and they have not changed since
            return None if last is None else Offered(statistics=last, version=self._version, is_new=False)
        if not statistics.rows:
            return None  # all rows were forgotten, and may be seen to be gone
        return Offered(statistics=statistics, version=version, is_new=True)

    def note(self, shared: Statistics, version: int) -> None:
        """Note durably, before it does, that a version leaves this peer.

        Args:
            shared: the statistics as the others will see them.
            version: of them.
        """
        if version == self._version and self._store.load_state(_LAST) is not None:
            return
        place = bisect.bisect_left(self._counts, shared.rows)
        if self._counts[place : place + 1] != [shared.rows]:
            self._counts.insert(place, shared.rows)
        # The count first: if this process dies in between, the rule is too strict for once, and the old version is offered.
        self._store.save_state(_COUNTS, json.dumps(self._counts).encode())
        self._store.save_state(_LAST, _VERSION.pack(version) + shared.to_bytes(with_residues=True))
        self._version = version

    def _distance(self, rows: int) -> int:
        """Return the difference to the nearest row count that left."""
        place = bisect.bisect_left(self._counts, rows)
        return min(abs(rows - count) for count in self._counts[max(0, place - 1) : place + 1])

    def _last(self, schema: Schema) -> Statistics | None:
        """Return the statistics that left last; None also if they were of another schema, in an earlier membership."""
        with StateError.reading("what was shared"):
            if (saved := self._store.load_state(_LAST)) is not None:
                if StatisticsHeader.from_bytes(saved[_VERSION.size :]).digest != schema.digest:
                    return None
                return Statistics.from_bytes(saved[_VERSION.size :], schema)
            if self._version and (saved := self._store.load_state(_SENT)) is not None:
                return Statistics.from_bytes(saved, schema)
        return None
