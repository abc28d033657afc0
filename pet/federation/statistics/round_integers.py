"""Statistics as the integers that a round of pet/1 adds up: fixed point, in digits, and back from their totals.

A number x to which one row can add B at most (`Schema.bounds`) becomes round(x / step), halves up, with step = 2^(e - 62) and
2^e the least power of two above B: 2^-61 of B or less. That is up to rows * 2^62 in size, too large for one element of z64, so
it travels as two digits of 53 bits: those of the integer plus 2^105, which is not negative. Counts are below 2^53 and travel as
they are. All of that follows from the schema and the constants below, so all peers, and all rounds of up to 1000 of them, have
vectors of one length:

    rows || counts, in the order of the layout || low digits of the other numbers || their high digits

What comes out of a round are sums of the peers' integers, exactly: below 2^106 in size, two float64 hold them without rounding.
The digits of 1000 peers add up to less than 2^63, so nothing overflows on the way.

Source: docs/spec/profile.md 4.2; docs/spec/federation.md 1.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import StatisticsError
from pet.federation.statistics.double_double import two_sum
from pet.federation.statistics.possibility import MAX_PEERS, parts
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics
from pet.field_config import FieldConfig
from pet.mask_choices import Derivation, FieldValues

#: Bits of a digit: two float64 hold two digits, and 2 * 1000 models of z64 leave 2^53 levels to each.
DIGIT_BITS: Final = 53
#: Bits of an integer for each row: sums of up to 2^43 rows stay below 2^105.
FRACTION_BITS: Final = 62
#: Rows of all peers of a round together.
MAX_ROUND_ROWS: Final = 1 << 43
#: Numbers that rows can add less to, as z_max^4 of a tiny z_max, have this range: smaller steps would underflow.
_MIN_EXPONENT: Final = -900

_DIGIT: Final = 1 << DIGIT_BITS
_MASK: Final = np.uint64(_DIGIT - 1)
_SHIFT: Final = np.uint64(DIGIT_BITS)
#: What makes a high digit non-negative: the offset of 2^105 in units of 2^53.
_HIGH_OFFSET: Final = 1 << (DIGIT_BITS - 1)


def step_exponents(bounds: NDArray[np.float64]) -> NDArray[np.intc]:
    """Return the k of each step 2^k, for the largest absolute values that one row can add."""
    _, exponents = np.frexp(bounds)
    return np.maximum(exponents, _MIN_EXPONENT) - FRACTION_BITS


class RoundIntegers:
    """The integers of a round.

    Args:
        schema: the features.
        peer_count: how many peers contribute, 1 to 1000.

    Attributes:
        config: how the vector is masked: twice as many models as there are peers, so that totals of rubbish are noticed.
        length: elements of the vector, the unit not counted; the same for every number of peers.
        max_rows: that one peer may have, by the number of peers; the schema's `max_rows` may be less.

    Raises:
        StatisticsError: too many peers.
    """

    def __init__(self, schema: Schema, peer_count: int) -> None:
        if not 1 <= peer_count <= MAX_PEERS:
            raise StatisticsError(f"peers of a round: expected 1 to {MAX_PEERS}, got {peer_count}")
        self._schema: Final = schema
        self._peers: Final = peer_count
        self._count_length: Final = int(schema.integral.sum())
        self._other_length: Final = schema.layout.length - self._count_length
        self.config: Final = FieldConfig(Derivation.Z64, FieldValues.INT, 2 * peer_count)
        self.length: Final = 1 + self._count_length + 2 * self._other_length
        self.max_rows: Final = MAX_ROUND_ROWS // peer_count

    def encode(self, statistics: Statistics) -> NDArray[np.uint64]:
        """Return a peer's statistics as a vector.

        Raises:
            StatisticsError: no rows, more than `max_rows`, or not the statistics of rows.
        """
        rows = statistics.rows
        if not 1 <= rows <= self.max_rows:
            raise StatisticsError(f"rows: expected 1 to {self.max_rows} of a peer in a round of {self._peers}, got {rows}")
        statistics.validate()
        high, low = statistics.halves
        vector = np.empty(self.length, dtype=np.uint64)
        vector[0] = rows
        counts, low_digits, high_digits = self._blocks_of(vector)
        counts[:] = high[self._schema.integral]
        for part, is_other, block in self._parts():
            exponents = step_exponents(self._schema.bounds[part][is_other])
            _digits(high[part][is_other], low[part][is_other], exponents, low_digits[block], high_digits[block])
        return vector

    def decode(self, totals: NDArray[np.uint64]) -> Statistics:
        """Return the merged statistics of a round's totals, which they hold exactly.

        Raises:
            StatisticsError: another length, or totals that no rows of this number of peers can have.
        """
        if totals.shape != (self.length,) or totals.dtype != np.uint64:
            raise StatisticsError(f"totals: expected {self.length} uint64, got {totals.dtype} of shape {totals.shape}")
        rows, schema = int(totals[0]), self._schema
        self._require_rows(rows)
        counts, low_digits, high_digits = self._blocks_of(totals)
        if int(counts.max()) > rows:
            raise StatisticsError(f"totals: expected counts of at most {rows}, the rows, got more")
        high, low = np.zeros(schema.layout.length), np.zeros(schema.layout.length)
        high[schema.integral] = counts
        for part, is_other, block in self._parts():
            exponents = step_exponents(schema.bounds[part][is_other])
            high[part][is_other], low[part][is_other] = self._numbers(low_digits[block], high_digits[block], exponents)
        statistics = Statistics.of_round(schema, rows, high, low, peers=self._peers)
        self.require_result(statistics)
        return statistics

    def require_result(self, statistics: Statistics) -> None:
        """Check whether possible statistics can be the result of a round of this number of peers.

        Raises:
            StatisticsError: they cannot.
        """
        origin = (statistics.masked_peers, statistics.decimal_peers, statistics.forgotten_rows)
        if origin != (self._peers, 0, 0):
            raise StatisticsError(f"totals: expected those of a round of {self._peers} peers, got others")
        self._require_rows(statistics.rows)
        if (statistics.halves[0][self._schema.layout.pairs_left_out] > self._peers).any():
            raise StatisticsError(f"totals: expected pairs that {self._peers} peers at most left out, got more")

    def _require_rows(self, rows: int) -> None:
        most_rows = self._peers * min(self.max_rows, self._schema.max_rows)
        if not self._peers <= rows <= most_rows:
            raise StatisticsError(f"totals: expected {self._peers} to {most_rows} rows of {self._peers} peers, got {rows}")

    def _parts(self) -> Iterator[tuple[slice, NDArray[np.bool_], slice]]:
        """Yield parts of the layout, which of their numbers are no counts, and where the digits of these are; each has some."""
        start = 0
        for part in parts(self._schema.layout.length):
            is_other = ~self._schema.integral[part]
            if count := int(is_other.sum()):
                yield part, is_other, slice(start, start + count)
            start += count

    def _blocks_of(self, vector: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
        """Return views of the counts, the low and the high digits."""
        first, second = 1 + self._count_length, 1 + self._count_length + self._other_length
        return vector[1:first], vector[first:second], vector[second:]

    def _numbers(
        self, low_digits: NDArray[np.uint64], high_digits: NDArray[np.uint64], exponents: NDArray[np.intc]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return totals of digits as pairs of float64, exactly."""
        most = self._peers * (_DIGIT - 1)
        if int(low_digits.max()) > most or int(high_digits.max()) > most:
            raise StatisticsError(f"totals: expected digits of {self._peers} peers, got larger ones")
        top = high_digits.astype(np.int64) - self._peers * _HIGH_OFFSET + (low_digits >> _SHIFT).astype(np.int64)
        if int(np.abs(top).max()) > _DIGIT:
            raise StatisticsError("totals: expected sums that rows in range can have, got larger ones")
        upper = np.ldexp(top.astype(np.float64), DIGIT_BITS)
        rest = (low_digits & _MASK).astype(np.float64)
        # Both are exact, and the first is 0 or the larger one, so the error of their sum is (Dekker).
        high = upper + rest
        low = rest - (high - upper)
        return np.ldexp(high, exponents), np.ldexp(low, exponents)


def _digits(
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    exponents: NDArray[np.intc],
    low_digits: NDArray[np.uint64],
    high_digits: NDArray[np.uint64],
) -> None:
    """Write the digits of numbers, each a sum of two float64, in units of 2^exponents; rounded once, halves up."""
    high, low = two_sum(np.ldexp(high, -exponents), np.ldexp(low, -exponents))
    # Of the two, only one can have a fraction that is not far below the other's: `whole` + `rest` is the exact sum, and
    # where `rest` is above 1, `high` was whole.
    whole = np.rint(high)
    rest, error = two_sum(high - whole, low)
    nearest = np.rint(rest)
    fraction = rest - nearest
    nearest += (fraction == 0.5) & (error >= 0)
    nearest -= (fraction == -0.5) & (error < 0)
    top = np.floor(np.ldexp(whole, -DIGIT_BITS))
    bottom = (whole - np.ldexp(top, DIGIT_BITS)).astype(np.int64) + nearest.astype(np.int64)
    low_digits[:] = bottom & np.int64(_DIGIT - 1)
    high_digits[:] = top.astype(np.int64) + (bottom >> np.int64(DIGIT_BITS)) + np.int64(_HIGH_OFFSET)
