"""Whether rows could have some statistics: what is not the work of rows is not used, even a peer's own.

Source: docs/spec/federation.md 1.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pet.federation.statistics.schema import Schema

#: More are in no federation, and in no round.
MAX_PEERS: Final = 1000
#: Rounding may lift a sum over its bound, or take one of squares below 0, by a few units in the last place of its terms.
_TOLERANCE: Final = 1e-9
_PART: Final = 1 << 15


def parts(length: int) -> Iterator[slice]:
    """Yield a vector's parts to work on one after the other: what is computed from one stays in the processor's cache."""
    return (slice(start, start + _PART) for start in range(0, length, _PART))


def impossibility(schema: Schema, rows: int, values: NDArray[np.float64], forgotten_rows: int) -> str | None:
    """Return what would have to be otherwise, as "expected ..." goes on; None if some rows could have these statistics.

    Args:
        schema: the features.
        rows: how many rows they are of.
        values: the numbers, laid out as `schema.layout` says.
        forgotten_rows: that were taken off, which leaves the rounding of theirs.
    """
    layout, counts = schema.layout, values[schema.integral]
    if not 0 <= rows <= schema.max_rows * MAX_PEERS:
        return f"0 or more rows, got {rows}"
    if not all(np.isfinite(values[part]).all() for part in parts(layout.length)):
        return "finite numbers"
    if (counts != np.rint(counts)).any() or (counts < 0).any():
        return "counts that are whole numbers from 0 on"
    if schema.has_missing:
        first, second = (values[layout.counts][places] for places in schema.pairs)
        if (values[layout.pair_counts] > np.minimum(first, second)).any():
            return "no more rows with two features than with one, got more"
    for count, bins in zip(values[layout.counts], layout.histograms, strict=True):
        if bins.stop > bins.start and values[bins].sum() != count:
            return "histograms of as many rows as have the feature, got others"
    most = rows * (1 + _TOLERANCE)
    if any((np.abs(values[part]) > schema.bounds[part] * most).any() for part in parts(layout.length)):
        return "sums that rows in range can have, got larger ones"
    least = -_TOLERANCE * (rows + forgotten_rows)
    if any((values[block] < least * schema.bounds[block]).any() for block in layout.even_blocks):
        return "sums of squares that are 0 or more, got some below"
    return None
