"""What tells the weights of one round from those of another: sums of their bits by columns, and what is left over.

Nobody is kept from making two models alike here: it reminds who forgot to train. So the whole needs no cryptographic hash,
which would take half as long as masking; models with the same sums are as good as none.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

#: A row of what is summed; pieces but the last are whole rows.
ROW_BYTES: Final = 1 << 15


class WeightSums:
    """Sums of weights that are given in pieces, each while it is in the cache."""

    def __init__(self) -> None:
        self._sums: Final = np.zeros(ROW_BYTES // 8, dtype=np.uint64)
        self._rest = b""

    @classmethod
    def of(cls, weights: NDArray[Any]) -> Self:
        """Return the sums of weights of any layout."""
        sums = cls()
        sums.add(np.ascontiguousarray(weights).reshape(-1))
        return sums

    def add(self, piece: NDArray[Any]) -> None:
        """Add a piece, contiguous and of one dimension; only the last may be other than whole rows."""
        data = piece.view(np.uint8)
        end = len(data) // ROW_BYTES * ROW_BYTES
        self._sums[:] += np.add.reduce(data[:end].view(np.uint64).reshape(-1, ROW_BYTES // 8), axis=0)
        self._rest = data[end:].tobytes()

    def remembered(self, key: bytes) -> bytes:
        """Return what the weights are remembered by: with a key that nobody else knows, it tells nothing of them."""
        state = hashlib.sha256(key)
        state.update(self._sums.data)
        state.update(self._rest)
        return state.digest()
