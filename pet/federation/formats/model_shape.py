"""What a federation of the model kind agrees on: the length of a model, and what its values and its weight may be at most.

The two bounds decide how exact an average is. A round masks weight * value in fixed point, in steps of
2^-51 of bound * max_weight (docs/statistics.md, "Models").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from pet.crypto import hash_sha256
from pet.errors import FederationValueError
from pet.federation.formats.encoding import canonical_json, parse_json_object
from pet.numbers import checked_number

#: 2^28 weights are 2 GiB in a message, more than a peer can be expected to hold.
MAX_MODEL_LENGTH: Final = 2**28
MAX_BOUND: Final = 1e4
#: Far above what a round resolves, and far from where numbers underflow.
MIN_BOUND: Final = 1e-6
MAX_WEIGHT: Final = 10**6


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The models of a federation.

    Attributes:
        length: numbers in a model, 1 to 2^28.
        bound: largest absolute value of a number, 10^-6 to 10^4.
        max_weight: largest weight of a peer's model in the mean, 10^-6 to 10^6.

    Raises:
        FederationValueError: names the one that breaks its rule.
    """

    length: int
    bound: float = MAX_BOUND
    max_weight: float = MAX_WEIGHT

    def __post_init__(self) -> None:
        if type(self.length) is not int or not 1 <= self.length <= MAX_MODEL_LENGTH:
            raise FederationValueError(f"model length: expected 1 to {MAX_MODEL_LENGTH} weights, got {self.length!r}")
        bound = checked_number(self.bound, "model bound", least=MIN_BOUND, most=MAX_BOUND, error=FederationValueError)
        weight = checked_number(self.max_weight, "max_weight", least=MIN_BOUND, most=MAX_WEIGHT, error=FederationValueError)
        object.__setattr__(self, "bound", float(bound))
        object.__setattr__(self, "max_weight", float(weight))

    def to_json(self) -> str:
        """Return the canonical JSON text; bounds only where they are not the largest, which older federations have."""
        record: dict[str, object] = {"length": self.length}
        if self.bound != MAX_BOUND:
            record["bound"] = self.bound
        if self.max_weight != MAX_WEIGHT:
            record["max_weight"] = self.max_weight
        return canonical_json(record)

    @classmethod
    def from_json(cls, text: str | None) -> Self:
        """Read the schema text of a federation of this kind.

        Raises:
            FederationValueError: not such a text.
        """
        record = parse_json_object((text or "").encode()) or {}
        if not {"length"} <= record.keys() <= {"length", "bound", "max_weight"}:
            raise FederationValueError(
                'schema: expected {"length": weights}, with or without bound and max_weight, for a project of the model kind'
            )
        return cls(**record)

    @property
    def digest(self) -> bytes:
        """32 bytes that are the same at all peers whose models may be averaged."""
        return hash_sha256(f"model {self.to_json()}".encode())
