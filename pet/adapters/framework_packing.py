"""What the packings of all frameworks have in common."""

from __future__ import annotations

from dataclasses import dataclass

from pet.packing import Packing


@dataclass(frozen=True, slots=True)
class FrameworkPacking:
    """Where each array of a framework's model lies in its two vectors.

    Attributes:
        packing: that of the values, as arrays of NumPy by name.
    """

    packing: Packing

    @property
    def weight_count(self) -> int:
        """Length of the vector of weights."""
        return self.packing.weight_count

    @property
    def count_count(self) -> int:
        """Length of the vector of counts."""
        return self.packing.count_count
