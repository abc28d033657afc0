"""The sufficient statistics of rows ("DEM"): learned, forgotten, merged, and carried through a PET round.

Every number of it adds up over peers. The numbers are those of z = (x - centre) / scale, which keeps the digits that raw sums
of squares lose. They are held as unevaluated sums of two float64 (about 106 bits), so that merging and subtracting lose nothing
that matters: a statistic that grew and shrank again is what it was, to the last bit or nearly. Rows themselves are never held.

Source: docs/spec/federation.md 1.9.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError, RemoteProtocolError, StatisticsError
from pet.federation.formats.tables import BLOCK_ROWS
from pet.federation.statistics.block_sums import block_sums
from pet.federation.statistics.devices import NUMPY, Device
from pet.federation.statistics.header import StatisticsHeader
from pet.federation.statistics.rows import read_blocks
from pet.federation.statistics.schema import Schema
from pet.mask_config import MaskConfig, MaskConfigPair

#: How statistics are masked: float64 within 10^4 and 20 decimal places, for up to 10^9 peers. Of the configs with that bound
#: this one needs the fewest bytes of keystream per number, 32: with fewer models more of each draw would be rejected.
STATISTICS_MASK_CONFIG: Final = MaskConfigPair.of(MaskConfig.parse("power2-f64-b4-m9"))

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
        masked_peers: of how many peers a round merged these numbers, which cost the digits beyond the 20th decimal place of
            each; 0 if no round did.
        forgotten_rows: how many rows were taken off again, which leaves the rounding of the blocks that they were in.
    """

    device: Device = NUMPY

    def __init__(self, schema: Schema, *, device: Device | None = None) -> None:
        self.schema: Final = schema
        if device is not None:
            self.device = device
        self.rows = 0
        self.masked_peers = 0
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
        statistics = cls(schema, device=device)
        for block in read_blocks(source, schema, block_rows=min(block_rows, BLOCK_ROWS)):
            # The bounds of errors (pet/federation/statistics/moments.py) rely on blocks of at most this size.
            statistics._add(block_sums(block, schema, statistics.device), np.zeros(0), len(block))
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
        """Take off the statistics of rows that were learned before.

        Raises:
            StatisticsError: what would remain cannot be the statistics of rows; nothing changed.
            FederationValueError: they are of another schema.
        """
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
        total.forgotten_rows += other.forgotten_rows
        return total

    def __sub__(self, other: Statistics) -> Statistics:
        self._require_same_schema(other)
        difference = self.copy()
        difference._add(-other._high, -other._low, -other.rows)
        difference.masked_peers += other.masked_peers
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

    def validate(self) -> None:
        """Check that some rows could have these statistics: whole counts from 0 to the rows, sums within their bounds.

        Raises:
            StatisticsError: none could.
        """
        values, integral = self.values, self.schema.integral
        if not 0 <= self.rows <= self.schema.max_rows * STATISTICS_MASK_CONFIG.max_model_count:
            raise StatisticsError(f"statistics: expected 0 or more rows, got {self.rows}")
        if not np.isfinite(values).all():
            raise StatisticsError("statistics: expected finite numbers")
        counts = values[integral]
        if (counts != np.rint(counts)).any() or (counts < 0).any():
            raise StatisticsError("statistics: expected counts that are whole numbers from 0 on")
        layout = self.schema.layout
        if self.schema.has_missing:
            first, second = (values[layout.counts][places] for places in self.schema.pairs)
            if (values[layout.pair_counts] > np.minimum(first, second)).any():
                raise StatisticsError("statistics: expected no more rows with two features than with one, got more")
        # Rounding may lift a sum over its bound by a few units in the last place.
        if (np.abs(values) > self.schema.bounds * self.rows * (1 + 1e-9)).any():
            raise StatisticsError("statistics: expected sums that rows in range can have, got larger ones")

    # ---- a PET round --------------------------------------------------------------------------------------------------

    def to_round(self) -> tuple[NDArray[np.float64], Fraction]:
        """Return what goes into a PET round: the mean of each number over the rows, and rows / max_rows as the scalar.

        Raises:
            StatisticsError: there are no rows.
        """
        if self.rows < 1:
            raise StatisticsError(f"statistics: expected at least one row to contribute, got {self.rows}")
        return self.values / self.rows, Fraction(self.rows, self.schema.max_rows)

    @classmethod
    def from_round(cls, means: NDArray[np.float64], scalar_sum: Fraction, schema: Schema, *, peers: int | None = None) -> Self:
        """Return the merged statistics that a round came to; counts become whole numbers again.

        Args:
            means: the global model.
            scalar_sum: the sum of the scalars.
            schema: the features.
            peers: how many contributed; None if unknown, which at most as many did as there are rows.

        Raises:
            StatisticsError: another length, or not the statistics of rows.
        """
        if means.shape != (schema.layout.length,):
            raise StatisticsError(f"statistics: expected {schema.layout.length} numbers, got an array of shape {means.shape}")
        statistics = cls(schema)
        statistics.rows = round(scalar_sum * schema.max_rows)
        values = means * statistics.rows
        statistics._high = np.where(schema.integral, np.rint(values), values)
        statistics.masked_peers = statistics.rows if peers is None else peers
        statistics.validate()
        return statistics

    # ---- bytes --------------------------------------------------------------------------------------------------------

    def to_bytes(self, *, with_residues: bool = False) -> bytes:
        """Return the statistics as bytes: a header, then the numbers as little-endian float64.

        Args:
            with_residues: also the lower halves of the numbers, for storage at this peer; others need only the upper ones.
        """
        numbers = [self._high, self._low] if with_residues else [self.values]
        header = self._header(has_residues=with_residues).to_bytes()
        return b"".join([header, *(part.astype("<f8").tobytes() for part in numbers)])

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
        parts, start = 2 if header.has_residues else 1, header.size_bytes
        expected = start + 8 * length * parts
        if len(data) != expected:
            raise RemoteProtocolError("malformed_statistics", f"statistics: expected {expected} bytes, got {len(data)}")
        numbers = np.frombuffer(data, dtype="<f8", offset=start).reshape(parts, length).astype(np.float64)
        statistics = cls(schema, device=device)
        statistics.rows, statistics.masked_peers = header.rows, header.masked_peers
        statistics.forgotten_rows = header.forgotten_rows
        statistics._high = numbers[0]
        if parts == 2:
            statistics._low = numbers[1]
        statistics.require_possible(is_difference=is_difference)
        return statistics

    def _header(self, *, has_residues: bool) -> StatisticsHeader:
        return StatisticsHeader(
            digest=self.schema.digest,
            rows=self.rows,
            length=self.schema.layout.length,
            has_residues=has_residues,
            masked_peers=self.masked_peers,
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
        """Add a sum of two parts; the error of the large addition goes to the small one (Knuth's TwoSum)."""
        total = self._high + high
        part = total - self._high
        error = (self._high - (total - part)) + (high - part)
        residue = self._low + error
        if low.size:
            residue += low
        self._high = total + residue
        self._low = residue - (self._high - total)
        self.rows += rows

    def _become(self, other: Statistics) -> None:
        self.rows, self.masked_peers, self.forgotten_rows = other.rows, other.masked_peers, other.forgotten_rows
        self._high, self._low = other._high.copy(), other._low.copy()

    def _settle(self, forgotten_rows: int) -> None:
        """Make what remains after forgetting exact where it is known: counts are whole, and nothing is left of no rows."""
        if self.rows < 0:
            raise StatisticsError(f"forget: expected at most the rows learned, got {-self.rows} more")
        if self.rows == 0:
            if (np.abs(self.values) > _ZERO_TOLERANCE * forgotten_rows * self.schema.bounds).any():
                raise StatisticsError("forget: expected rows that were learned, got others")
            self._high[:], self._low[:], self.forgotten_rows = 0, 0, 0
        try:
            self.validate()
        except StatisticsError:
            raise StatisticsError("forget: expected rows that were learned, got others") from None

    def _require_same_schema(self, other: Statistics) -> None:
        if other.schema.digest != self.schema.digest:
            raise FederationValueError("statistics: expected two of the same schema, got two schemas")
