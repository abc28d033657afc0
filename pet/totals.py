"""Running sums of vectors: in 64-bit planes with lazy reduction for xaynet's groups, packed and always reduced for pet-1.

This file knows vectors and an order; which vectors may be added is for pet/aggregation.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, SupportsIndex

from pet import kernels, parallel, parallel_fields
from pet.errors import AggregationError

#: How many vectors one pass over the total adds: enough that the total's own traffic is small beside theirs.
_VECTORS_PER_PASS: Final = 8
#: Elements of another total that are packed at a time while it is added.
_PIECE_LENGTH: Final = 1 << 16


class PlaneTotal:
    """A sum in planes of 64 bits, reduced only when their capacity asks for it.

    Args:
        length: number of elements.
        order: of the group.
    """

    def __init__(self, length: int, order: int) -> None:
        self._order = order
        self._planes = kernels.new_total(length, order)
        # Every value of the total is below _bound * order; 1 once it is reduced.
        self._bound = 1
        # A global model reads the planes where they lie; the next change makes a copy first.
        self._is_shared = False

    def __len__(self) -> int:
        return int(self._planes.shape[1])

    def clear(self) -> None:
        """Make it zeros, and so touch its memory."""
        self._own()
        self._planes.fill(0)
        self._bound = 1

    def add(self, vectors: Sequence[kernels.Packed], threads: SupportsIndex | None) -> None:
        """Add vectors, up to eight in a pass; all of them or, on an error, none.

        Raises:
            AggregationError: an element is not below the order (reason "invalid_object").
        """
        per_pass = min(_VECTORS_PER_PASS, kernels.capacity(self._order) - 1)
        if len(vectors) > per_pass:
            # Several passes: an invalid element must show before the first.
            for vector in vectors:
                _require_valid(parallel.find_invalid(vector, self._order, threads))
        self._own()
        for start in range(0, len(vectors), per_pass):
            batch = vectors[start : start + per_pass]
            self._make_room(len(batch), threads)
            parallel.aggregate(self._planes, batch, self._order, threads)
            self._bound += len(batch)

    def subtract(self, vector: kernels.Packed, threads: SupportsIndex | None) -> None:
        """Subtract a vector.

        Raises:
            AggregationError: an element is not below the order (reason "invalid_object"); nothing has changed.
        """
        _require_valid(parallel.find_invalid(vector, self._order, threads))
        self._own()
        self._reduce(threads)
        kernels.subtract(self._planes, vector, self._order)

    def merge(self, other: PlaneTotal, threads: SupportsIndex | None) -> None:
        """Add another total, which stays what it is; it is packed a piece at a time."""
        other._reduce(threads)
        self._own()
        self._make_room(1, threads)

        def add(part: slice) -> None:
            for start in range(part.start, part.stop, _PIECE_LENGTH):
                piece = slice(start, min(start + _PIECE_LENGTH, part.stop))
                packed = kernels.pack(other._planes[:, piece], self._order)
                kernels.aggregate(self._planes[:, piece], [packed], self._order)

        parallel.split(add, len(self), threads)
        self._bound += 1

    def copy(self, piece: slice) -> PlaneTotal:
        """Return the total of a range of the elements, with memory of its own."""
        taken = PlaneTotal(0, self._order)
        taken._planes, taken._bound = self._planes[:, piece].copy(), self._bound
        return taken

    def pack(self) -> kernels.Packed:
        """Return the sum as packed elements of its own."""
        self._reduce(None)
        return kernels.pack(self._planes, self._order)

    def share(self, threads: SupportsIndex | None) -> kernels.Total:
        """Return the reduced planes to be read; what is added later does not change them."""
        self._reduce(threads)
        self._is_shared = True
        return self._planes

    def _make_room(self, count: int, threads: SupportsIndex | None) -> None:
        if self._bound + count > kernels.capacity(self._order):
            self._reduce(threads)

    def _reduce(self, threads: SupportsIndex | None) -> None:
        if self._bound > 1:
            self._own()
            parallel.reduce(self._planes, self._bound, self._order, threads)
            self._bound = 1

    def _own(self) -> None:
        if self._is_shared:
            self._planes = self._planes.copy()
            self._is_shared = False


class FieldTotal:
    """A sum of vectors of pet-1: a vector itself.

    Args:
        length: number of elements.
        order: of the field.
    """

    def __init__(self, length: int, order: int) -> None:
        self._order = order
        self._vector = parallel_fields.new_vector(length, order)

    def __len__(self) -> int:
        return len(self._vector)

    def clear(self) -> None:
        """Make it zeros, and so touch its memory."""
        self._vector.fill(0)

    def add(self, vectors: Sequence[kernels.Packed], threads: SupportsIndex | None) -> None:
        """Add vectors; all of them or, on an error, none.

        Raises:
            AggregationError: an element is not below the order (reason "invalid_object").
        """
        for done, vector in enumerate(vectors):
            try:
                parallel_fields.add(self._vector, vector, self._order, threads)
            except AggregationError:
                for added in vectors[:done]:
                    parallel_fields.subtract(self._vector, added, self._order, threads)
                raise

    def subtract(self, vector: kernels.Packed, threads: SupportsIndex | None) -> None:
        """Subtract a vector.

        Raises:
            AggregationError: an element is not below the order (reason "invalid_object"); nothing has changed.
        """
        parallel_fields.subtract(self._vector, vector, self._order, threads)

    def merge(self, other: FieldTotal, threads: SupportsIndex | None) -> None:
        """Add another total, which stays what it is."""
        parallel_fields.add(self._vector, other._vector, self._order, threads)

    def copy(self, piece: slice) -> FieldTotal:
        """Return the total of a range of the elements, with memory of its own."""
        taken = FieldTotal(0, self._order)
        taken._vector = self._vector[piece].copy()
        return taken

    def pack(self) -> kernels.Packed:
        """Return the sum as packed elements of its own."""
        return self._vector.copy()

    def without(self, mask: kernels.Packed, threads: SupportsIndex | None) -> kernels.Packed:
        """Return the sum less a mask, as packed elements of their own.

        Raises:
            AggregationError: an element of the mask is not below the order (reason "invalid_object").
        """
        elements = self._vector.copy()
        parallel_fields.subtract(elements, mask, self._order, threads)
        return elements


def _require_valid(index: int | None) -> None:
    if index is not None:
        raise AggregationError("invalid_object", f"element {index} is not below the order of the group")
