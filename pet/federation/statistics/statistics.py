"""The sufficient statistics of rows ("DEM"): learned, forgotten, merged, and carried through a round.

Every number of it adds up over peers. The numbers are those of z = (x - centre) / scale, which keeps the digits that raw sums
of squares lose. They are held as unevaluated sums of two float64 (about 106 bits), so that merging and subtracting lose nothing
that matters: a statistic that grew and shrank again is what it was, to the last bit or nearly. Rows themselves are never held.

Source: docs/spec/federation.md 1.9.
"""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError, RemoteProtocolError, StatisticsError
from pet.federation.formats.tables import BLOCK_ROWS
from pet.federation.statistics.block_sums import block_sums
from pet.federation.statistics.devices import NUMPY, Device
from pet.federation.statistics.double_double import added
from pet.federation.statistics.header import StatisticsHeader
from pet.federation.statistics.possibility import impossibility
from pet.federation.statistics.rows import read_blocks
from pet.federation.statistics.schema import Schema

#: How far the statistics of no rows may be from zero, in units of what the forgotten rows could add at most.
_ZERO_TOLERANCE: Final = 1e-9


class Statistics:
    """The statistics of some rows, or the difference of two such.

    Not thread-safe. `learn`, `forget` and `add` change the object, all or nothing; `+` and `-` make a new one.

    Args:
        schema: the features.
        device: computes the sums of rows, those that are learned and those that are forgotten; None for the CPU.

    Attributes:
        schema: the features.
        device: as given. Numbers are always kept and added up on the CPU.
        rows: how many rows were learned; below 0 only in a difference.
        masked_peers: of how many peers a round merged these numbers, each of which was rounded once
            (pet/federation/statistics/round_integers.py); 0 if no round did.
        decimal_peers: of how many peers a round of release 0.2 or before merged them, which kept 20 decimal places of means.
        forgotten_rows: how many rows were taken off again, which leaves the rounding of the blocks that they were in.
    """

    device: Device = NUMPY

    def __init__(self, schema: Schema, *, device: Device | None = None) -> None:
        self.schema: Final = schema
        if device is not None:
            self.device = device
        self.rows = 0
        self.masked_peers = 0
        self.decimal_peers = 0
        self.forgotten_rows = 0
        self._high = np.zeros(schema.layout.length)
        self._low = np.zeros(schema.layout.length)

    # ---- rows ---------------------------------------------------------------------------------------------------------

    @classmethod
    def of(cls, source: Any, schema: Schema, *, block_rows: int = BLOCK_ROWS, device: Device | None = None) -> Self:
        """Return the statistics of rows; see `read_blocks` for what a source may be and what is raised.

        Raises:
            DeviceError: the device is missing or failed.
        """
        statistics, none = cls(schema, device=device), np.zeros(schema.layout.length)
        for block in read_blocks(source, schema, block_rows=min(block_rows, BLOCK_ROWS)):
            # The bounds of errors (pet/federation/statistics/moments.py) rely on blocks of at most this size.
            statistics._add(block_sums(block, schema, statistics.device), none, len(block))
        if statistics.rows > schema.max_rows:
            raise StatisticsError(f"rows: expected at most {schema.max_rows}, got {statistics.rows}")
        return statistics

    def learn(self, source: Any, *, block_rows: int = BLOCK_ROWS) -> int:
        """Add rows; returns how many. A refused row leaves everything as it was.

        Raises:
            RowError: a value that is no number, missing or out of range; names its row and feature.
            FederationValueError: columns that do not fit the schema.
            StatisticsError: more rows than the schema's `max_rows`.
            DeviceError: the device is missing or failed.
        """
        learned = self.of(source, self.schema, block_rows=block_rows, device=self.device)
        self.include(learned)
        return learned.rows

    def include(self, learned: Statistics) -> None:
        """Add the statistics of further rows of this peer.

        Raises:
            StatisticsError: more rows than the schema's `max_rows`; nothing changed.
            FederationValueError: they are of another schema.
        """
        total = self + learned
        if total.rows > self.schema.max_rows:
            raise StatisticsError(f"rows: expected at most {self.schema.max_rows}, got {total.rows}")
        self._become(total)

    def forget(self, source: Any, *, block_rows: int = BLOCK_ROWS) -> int:
        """Take rows off again that were learned before; returns how many.

        Raises:
            RowError, DeviceError: as `learn`.
            StatisticsError: what would remain cannot be the statistics of rows, so these were not all learned before.
        """
        forgotten = self.of(source, self.schema, block_rows=block_rows, device=self.device)
        self.exclude(forgotten)
        return forgotten.rows

    def exclude(self, forgotten: Statistics) -> None:
        """Take off the statistics of rows that were learned before; raises as `include`, with nothing changed."""
        rest = self - forgotten
        rest.forgotten_rows = self.forgotten_rows + forgotten.rows
        rest._settle(forgotten.rows)
        self._become(rest)

    # ---- sums ---------------------------------------------------------------------------------------------------------

    def __add__(self, other: Statistics) -> Statistics:
        self._require_same_schema(other)
        total = self.copy()
        total._add(other._high, other._low, other.rows)
        total.masked_peers += other.masked_peers
        total.decimal_peers += other.decimal_peers
        total.forgotten_rows += other.forgotten_rows
        return total

    def __sub__(self, other: Statistics) -> Statistics:
        self._require_same_schema(other)
        difference = self.copy()
        difference._add(-other._high, -other._low, -other.rows)
        difference.masked_peers += other.masked_peers
        difference.decimal_peers += other.decimal_peers
        difference.forgotten_rows -= other.forgotten_rows  # what is added to the other again comes to the same
        return difference

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Statistics)
            and (self.rows, self.schema.digest) == (other.rows, other.schema.digest)
            and np.array_equal(self.values, other.values)
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Statistics({len(self.schema)} features, rows={self.rows})"

    def copy(self) -> Statistics:
        """Return a copy that changes on its own."""
        twin = Statistics(self.schema, device=self.device)
        twin._become(self)
        return twin

    def without_pairs(self, left_out: NDArray[np.bool_]) -> Statistics:
        """Return statistics in which some pairs of features have no rows, and are counted as left out by one peer.

        Args:
            left_out: of each pair, in the order of the layout; the schema allows missing values.
        """
        layout, twin = self.schema.layout, self.copy()
        for numbers in (twin._high, twin._low):
            for block in layout.pair_blocks:
                numbers[block][left_out] = 0.0
            numbers[layout.conditional_squares][left_out[self.schema.conditional_pairs]] = 0.0
        twin._high[layout.pairs_left_out][left_out] = 1.0
        return twin

    @property
    def values(self) -> NDArray[np.float64]:
        """The numbers, float64, laid out as `schema.layout` says; a new array."""
        return self._high + self._low

    @property
    def halves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The numbers without rounding, normalised (double_double.py); the statistics' own arrays, not to be written to."""
        return self._high, self._low

    def validate(self) -> None:
        """Check that some rows could have these statistics: whole counts from 0 to the rows, sums within their bounds.

        Raises:
            StatisticsError: none could.
        """
        if (problem := impossibility(self.schema, self.rows, self.values, max(self.forgotten_rows, 0))) is not None:
            raise StatisticsError(f"statistics: expected {problem}")

    @classmethod
    def of_round(cls, schema: Schema, rows: int, high: NDArray[np.float64], low: NDArray[np.float64], *, peers: int) -> Self:
        """Return what a round came to, from `halves`, which become its own; StatisticsError where no rows could have it."""
        statistics = cls(schema)
        statistics.rows, statistics.masked_peers = rows, peers
        statistics._high, statistics._low = high, low
        statistics.validate()
        return statistics

    # ---- bytes --------------------------------------------------------------------------------------------------------

    def to_bytes(self, *, with_residues: bool = False) -> bytes:
        """Return the statistics as bytes: a header, then the numbers as little-endian float64.

        Args:
            with_residues: also the lower halves of the numbers, for storage at this peer; others need only the upper ones.
                What a round merged is exact, and always has the lower halves of all that are no counts.
        """
        header = self._header(has_residues=with_residues or self.masked_peers > 0)
        if self.masked_peers:
            numbers = [self._high, self._low[~self.schema.integral]]
        else:
            numbers = [self._high, self._low] if with_residues else [self.values]
        return b"".join([header.to_bytes(), *(part.astype("<f8").tobytes() for part in numbers)])

    @classmethod
    def from_bytes(cls, data: bytes, schema: Schema, *, is_difference: bool = False, device: Device | None = None) -> Self:
        """Read statistics of a known schema.

        Args:
            data: what `to_bytes` returned.
            schema: what they must be of.
            is_difference: whether numbers may be below 0 as those of a difference are.
            device: as of the constructor.

        Raises:
            RemoteProtocolError: not such bytes (reason "malformed_statistics"), of another version of the format
                ("unknown_version"), of another schema ("schema_mismatch"), or not the statistics of any rows
                ("impossible_statistics").
        """
        header, length = StatisticsHeader.from_bytes(data), schema.layout.length
        if header.digest != schema.digest or header.length != length:
            raise RemoteProtocolError("schema_mismatch", "statistics: expected those of this federation's schema, got others")
        # Of totals of a round, counts are whole float64, and have no lower half.
        has_low = ~schema.integral if header.masked_peers else np.full(length, header.has_residues)
        start, expected = header.size_bytes, header.size_bytes + 8 * (length + int(has_low.sum()))
        if len(data) != expected:
            raise RemoteProtocolError("malformed_statistics", f"statistics: expected {expected} bytes, got {len(data)}")
        numbers = np.frombuffer(data, dtype="<f8", offset=start)
        statistics = cls(schema, device=device)
        statistics.rows, statistics.masked_peers = header.rows, header.masked_peers
        statistics.decimal_peers, statistics.forgotten_rows = header.decimal_peers, header.forgotten_rows
        statistics._high = numbers[:length].astype(np.float64)
        statistics._low[has_low] = numbers[length:]
        statistics.require_possible(is_difference=is_difference)
        return statistics

    def _header(self, *, has_residues: bool) -> StatisticsHeader:
        return StatisticsHeader(
            digest=self.schema.digest,
            rows=self.rows,
            length=self.schema.layout.length,
            has_residues=has_residues,
            masked_peers=self.masked_peers,
            decimal_peers=self.decimal_peers,
            forgotten_rows=self.forgotten_rows,
        )

    def require_possible(self, *, is_difference: bool = False) -> None:
        """Check statistics that come from somebody else.

        Args:
            is_difference: whether numbers may be below 0 as those of a difference are.

        Raises:
            RemoteProtocolError: they are not those of any rows (reason "impossible_statistics").
        """
        try:
            if not is_difference:
                self.validate()
            elif not np.isfinite(self.values).all():
                raise StatisticsError("statistics: expected finite numbers")
        except StatisticsError as error:
            raise RemoteProtocolError("impossible_statistics", str(error)) from None

    # ---- inside -------------------------------------------------------------------------------------------------------

    def _add(self, high: NDArray[np.float64], low: NDArray[np.float64], rows: int) -> None:
        self._high, self._low = added((self._high, self._low), (high, low))
        self.rows += rows

    def _become(self, other: Statistics) -> None:
        self.rows, self.forgotten_rows = other.rows, other.forgotten_rows
        self.masked_peers, self.decimal_peers = other.masked_peers, other.decimal_peers
        self._high, self._low = other._high.copy(), other._low.copy()

    def _settle(self, forgotten_rows: int) -> None:
        """Make what remains exact where it is known: nothing is left of no rows, and sums of squares are 0 or more."""
        if self.rows < 0:
            raise StatisticsError(f"forget: expected at most the rows learned, got {-self.rows} more")
        if self.rows == 0:
            if (np.abs(self.values) > _ZERO_TOLERANCE * forgotten_rows * self.schema.bounds).any():
                raise StatisticsError("forget: expected rows that were learned, got others")
            self._high[:], self._low[:], self.forgotten_rows = 0, 0, 0
        for block in self.schema.layout.even_blocks:
            is_negative = self._high[block] < 0  # what rounding has left of 0
            self._high[block][is_negative] = self._low[block][is_negative] = 0.0
        try:
            self.validate()
        except StatisticsError:
            raise StatisticsError("forget: expected rows that were learned, got others") from None

    def _require_same_schema(self, other: Statistics) -> None:
        if other.schema.digest != self.schema.digest:
            raise FederationValueError("statistics: expected two of the same schema, got two schemas")
