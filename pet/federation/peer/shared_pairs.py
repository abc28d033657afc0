"""Which pairs of features a peer leaves out of what it shares, so that nobody solves their sums for a few of its rows.

A pair of features has sums over the rows that have both, and each feature has sums over all of its rows. The difference of the
two is the sums of the rows that have one value without the other: of one such row, the value itself. The same holds for two
versions that were shared, one after the other. So a set of rows whose sums follow from what is shared must be empty, unchanged,
or as large as the rule of minimum rows asks: attributes + 5. A pair for which one is not is left out: its numbers are those of
no rows, and it is counted, so that results say over whose rows they are.

That is so in the plain exchange and under masks, since the few rows may be all that any peer has of their kind. The rows that
have both values are held against the rule only in the plain exchange, where one peer's sums are seen: under masks, all peers'
rows together have to fulfil it, of a pair as of a feature.

How many rows a set changed by is at least the difference of its counts; where the counts are equal, the sums show whether it is
the same set. Sets of three features are not looked at: their counts are not kept (docs/statistics.md says what follows).

Source: docs/spec/federation.md 1.7.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import StateError
from pet.federation.peer_store import PeerStore
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

#: How many versions that were shared are remembered.
MAX_AGGREGATES: Final = 64
#: How much of the versions that were shared is kept at most; with 250 features that is the last 42, with 64 or fewer all.
MAX_HISTORY_BYTES: Final = 64 << 20
#: The sets of a pair: the rows with both values, with the first alone, with the second alone.
_SETS: Final = 3
_HEADER: Final = struct.Struct(">4sB32sQQI")
_MAGIC: Final = b"PETP"
_FORMAT: Final = 1
_STATE: Final = "shared_pairs."
#: Sums of a set are compared as one number. No rows that anybody has are likely to differ and have it the same.
_WEIGHTS: Final = (1.0, 0.7548776662466927, 0.5698402909980532, 0.4301597090019468, 0.3247179572447458)
#: Sums that differ by less, per row, differ by rounding: a block is summed to about 10^-13 of its squares.
_SAME_SUMS: Final = 1e-12


@dataclass(frozen=True, slots=True)
class _PairSets:
    """What a version shows of the sets of each pair.

    Attributes:
        counts: rows, int64, sets x pairs.
        marks: one number for the sums of each set, float64.
    """

    counts: NDArray[np.int64]
    marks: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Shared:
    """A version that was shared.

    Attributes:
        sequence: grows by 1 with every version that is shared.
        version: of the statistics.
        left_out: of each pair, bool.
        sets: of the statistics.
    """

    sequence: int
    version: int
    left_out: NDArray[np.bool_]
    sets: _PairSets


class SharedPairs:
    """The memory of one peer. Thread-safe.

    Args:
        store: where it is kept.
        is_masked: whether others see the sums over several peers only.
    """

    def __init__(self, store: PeerStore, *, is_masked: bool) -> None:
        self._store: Final = store
        self._first_set: Final = 1 if is_masked else 0
        self._lock: Final = threading.Lock()
        self._history: list[_Shared] = []
        self._digest: bytes | None = None

    def preview(self, statistics: Statistics, version: int) -> Statistics:
        """Return statistics as they would be shared now."""
        return self._shared(statistics, version, notes_it=False)

    def share(self, statistics: Statistics, version: int) -> Statistics:
        """Return statistics without the pairs that must not leave this peer, and note durably that they were shared.

        The same version is always shared alike.
        """
        return self._shared(statistics, version, notes_it=True)

    def _shared(self, statistics: Statistics, version: int, *, notes_it: bool) -> Statistics:
        schema = statistics.schema
        if not schema.has_missing or len(schema) < 2:
            return statistics
        with self._lock:
            self._load(schema)
            found = next((shared for shared in self._history if shared.version == version), None)
            if found is None:
                sets = _sets_of(statistics)
                sequence = self._history[-1].sequence + 1 if self._history else 0
                found = _Shared(sequence, version, self._left_out(sets, statistics), sets)
                if notes_it:
                    self._note(found, schema)
        return statistics.without_pairs(found.left_out)

    def _left_out(self, sets: _PairSets, statistics: Statistics) -> NDArray[np.bool_]:
        least = statistics.schema.least_rows
        of_rule = slice(self._first_set, None)
        result = np.asarray(_is_few(sets.counts[of_rule], least).any(axis=0))
        tolerance = _SAME_SUMS * max(abs(statistics.rows), 1) * statistics.schema.z_max**2
        for shared in self._history:
            changed = (sets.counts - shared.sets.counts)[of_rule]
            is_replaced = (changed == 0) & ~(np.abs(sets.marks - shared.sets.marks)[of_rule] <= tolerance)
            # Of a pair that was left out then, nothing was shown that could be subtracted.
            result |= (_is_few(changed, least) | is_replaced).any(axis=0) & ~shared.left_out
        return result

    def _note(self, shared: _Shared, schema: Schema) -> None:
        slot = shared.sequence % _capacity(schema)
        self._store.save_state(f"{_STATE}{slot}", _to_bytes(shared, schema))
        self._history.append(shared)
        del self._history[: -_capacity(schema)]

    def _load(self, schema: Schema) -> None:
        """Read the history, once for a schema; rows of another schema were never shared under this one."""
        if self._digest == schema.digest:
            return
        found = []
        with StateError.reading("pairs of features that were shared"):
            for slot in range(_capacity(schema)):
                if (saved := self._store.load_state(f"{_STATE}{slot}")) is None:
                    break
                if (shared := _from_bytes(saved, schema)) is not None:
                    found.append(shared)
        self._history = sorted(found, key=lambda shared: shared.sequence)
        self._digest = schema.digest


def _is_few(counts: NDArray[np.int64], least: int) -> NDArray[np.bool_]:
    """Return which numbers of rows, added or taken away, are too few, and not none."""
    return np.asarray((counts != 0) & (np.abs(counts) < least))


def _sets_of(statistics: Statistics) -> _PairSets:
    layout, values, (first, second) = statistics.schema.layout, statistics.values, statistics.schema.pairs
    joint = values[layout.pair_counts]
    counts = [joint, *(values[layout.counts][places] - joint for places in (first, second))]
    sums = [values[layout.pair_first_sums], values[layout.pair_second_sums]]
    squares = [values[layout.pair_first_squares], values[layout.pair_second_squares]]
    of_both = [*sums, *squares, values[layout.products]]
    marks = [sum(weight * numbers for weight, numbers in zip(_WEIGHTS, of_both, strict=True))]
    for places, own_sums, own_squares in zip((first, second), sums, squares, strict=True):
        rest, rest_squares = values[layout.sums][places] - own_sums, values[layout.squares][places] - own_squares
        marks.append(_WEIGHTS[0] * rest + _WEIGHTS[1] * rest_squares)
    return _PairSets(np.rint(counts).astype(np.int64), np.array(marks, dtype=np.float64))


def _capacity(schema: Schema) -> int:
    """Return how many versions are remembered: as many as aggregates are, or as memory allows."""
    pairs = len(schema) * (len(schema) - 1) // 2
    return max(1, min(MAX_AGGREGATES, MAX_HISTORY_BYTES // (_pair_bytes() * pairs)))


def _pair_bytes() -> int:
    return 1 + _SETS * 16


def _to_bytes(shared: _Shared, schema: Schema) -> bytes:
    header = _HEADER.pack(_MAGIC, _FORMAT, schema.digest, shared.sequence, shared.version, len(shared.left_out))
    counts, marks = shared.sets.counts.astype("<i8").tobytes(), shared.sets.marks.astype("<f8").tobytes()
    return b"".join([header, shared.left_out.tobytes(), counts, marks])


def _from_bytes(data: bytes, schema: Schema) -> _Shared | None:
    """Read a version that was shared; None if it was under another schema.

    Raises:
        StateError: something else, or of a format that this version does not know.
    """
    magic, version_of_format, digest, sequence, version, pairs = _HEADER.unpack_from(data)
    if (magic, version_of_format) != (_MAGIC, _FORMAT):
        raise StateError(f"expected pairs in format {_FORMAT}, got format {version_of_format}, of another version of pet")
    if digest != schema.digest:
        return None
    if pairs != len(schema.pairs[0]) or len(data) != _HEADER.size + _pair_bytes() * pairs:
        raise StateError(f"expected {len(schema.pairs[0])} pairs, got {pairs} in {len(data)} bytes")
    start, numbers = _HEADER.size, _SETS * pairs
    left_out = np.frombuffer(data, np.bool_, pairs, start).copy()
    counts = np.frombuffer(data, "<i8", numbers, start + pairs).reshape(_SETS, pairs).astype(np.int64)
    marks = np.frombuffer(data, "<f8", numbers, start + pairs + 8 * numbers).reshape(_SETS, pairs).astype(np.float64)
    return _Shared(sequence, version, left_out, _PairSets(counts, marks))
