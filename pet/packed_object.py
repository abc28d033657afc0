"""A packed vector and a unit with their mask configs: bytes, pieces and checks that masks and masked models have in common.

What either of them means, and how masks come from seeds, is in pet/mask_object.py.

Source: docs/spec/pet.md 3.5 and 4.5; docs/spec/profile.md 4.
"""

from __future__ import annotations

from typing import Final, Self, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from pet import parallel, parallel_fields
from pet.buffers import Buffer
from pet.errors import AggregationError, ConfigError, ModelError, RemoteProtocolError
from pet.field_config import FieldConfig
from pet.mask_codec import (
    decode_field_object,
    decode_field_vector,
    decode_mask_object,
    encode_field_object,
    encode_mask_object,
    is_field_object,
    mask_object_bytes,
)
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.numbers import shown_value

#: Round parameters carry the length of models in 32 bits.
MAX_LENGTH: Final = 2**32 - 1


class MaskObject:
    """A packed vector and a unit, each with its mask config: what masks and masked models have in common (spec 3.5).

    Attributes:
        config: the mask configs of vector and unit.
        vect: packed elements, uint8 of shape (length, config.vect.element_bytes). May be a read-only view of a message.
        unit: an integer; below the order of config.unit if the object is valid.
        seed_count: how many seeds' masks it holds, where that is known; None for one that came from bytes.
    """

    __slots__ = ("config", "seed_count", "unit", "vect")

    def __init__(
        self, config: MaskConfig | MaskConfigPair, vect: NDArray[np.uint8], unit: int, seed_count: int | None = None
    ) -> None:
        self.config = MaskConfigPair.of(config)
        if not isinstance(vect, np.ndarray):
            raise ModelError(f"vect: expected a NumPy array, got {type(vect).__name__}")
        expected_bytes = self.config.vect.element_bytes
        if vect.dtype != np.uint8 or vect.ndim != 2 or vect.shape[1] != expected_bytes or not vect.flags.c_contiguous:
            raise ModelError(
                f"vect: expected contiguous uint8 of shape (length, {expected_bytes}), got {vect.dtype} of shape {vect.shape}"
            )
        if not isinstance(unit, (int, np.integer)):
            raise ModelError(f"unit: expected a whole number, got {shown_value(unit)}")
        unit = int(unit)
        if not 0 <= unit < 256**self.config.unit.element_bytes:
            raise ModelError(
                f"unit: expected {self.config.unit.element_bytes} bytes without sign, got {unit.bit_length()} bits"
            )
        self.vect = vect
        self.unit = unit
        self.seed_count = seed_count

    def __getstate__(self) -> object:
        # Without this, pickle's protocols 0 and 1 refuse classes with slots.
        return super().__getstate__()

    def __len__(self) -> int:
        return len(self.vect)

    @property
    def size_bytes(self) -> int:
        """Size of `to_bytes()`."""
        if isinstance(self.config.vect, FieldConfig):
            return sum(memoryview(part).nbytes for part in self.to_parts())
        return mask_object_bytes(self.config, len(self))

    def to_parts(self) -> list[Buffer]:
        """Return the bytes of `to_bytes()` as buffers in order; the vector is not copied."""
        if isinstance(self.config.vect, FieldConfig):
            return encode_field_object(self.config.vect, self.vect, self.unit)
        return encode_mask_object(self.config, self.vect, self.unit)

    def to_bytes(self) -> bytes:
        """Serialise as a mask object of the protocol (spec 4.5); with a config of pet-1, in a form of pet that names it."""
        return b"".join(self.to_parts())

    def to_vector(self) -> bytes:
        """Return the packed vector of pet-1, the unit last (docs/spec/profile.md 4): what a protocol of one's own may send.

        Raises:
            ConfigError: the config is one of xaynet's, which have no such form.
        """
        return b"".join([self.vect.tobytes(), self.unit.to_bytes(_require_field(self.config).element_bytes, "little")])

    @classmethod
    def from_vector(cls, config: MaskConfig | MaskConfigPair, data: Buffer) -> Self:
        """Read what `to_vector` wrote; the object's vector is a view of the buffer, and its elements are not checked.

        Raises:
            ConfigError: the config is one of xaynet's.
            RemoteProtocolError: the bytes are not whole elements, or none (reason "malformed_mask_object").
        """
        return cls(config, *decode_field_vector(_require_field(MaskConfigPair.of(config)), data))

    def __getitem__(self, piece: slice) -> Self:
        """Return the object of a range of the weights: its vector is a view, its unit the same, for each piece needs it.

        Raises:
            ModelError: not a slice, or one with a step.
        """
        own = resolve_piece(piece, len(self))
        return self._like(self.vect[own], self.unit, self.seed_count)

    def _like(self, vect: NDArray[np.uint8], unit: int, seed_count: int | None) -> Self:
        return type(self)(self.config, vect, unit, seed_count=seed_count)

    @classmethod
    def decode_prefix(cls, data: Buffer) -> tuple[Self, int]:
        """Read the object at the start of a buffer; its vector is a view of the buffer, which must outlive it.

        Elements are not compared with the order (see `validate`).

        Returns:
            The object, and how many bytes it takes.

        Raises:
            RemoteProtocolError: reasons "malformed_mask_object" and "malformed_mask_config".
        """
        config, vect, unit, used = decode_mask_object(data)
        return cls(config, vect, unit), used

    @classmethod
    def from_bytes(cls, data: Buffer) -> Self:
        """Read a buffer that holds one object and nothing else; otherwise as `decode_prefix`. Here also one of pet-1.

        Raises:
            ModelError: no buffer, or one that is not contiguous.
            RemoteProtocolError: besides those of `decode_prefix`, left-over bytes (reason "trailing_bytes").
        """
        if is_field_object(data):
            return cls(*decode_field_object(data))
        decoded, used = cls.decode_prefix(data)
        if used != len(data):
            raise RemoteProtocolError("trailing_bytes", f"mask object: expected {used} bytes, got {len(data)}")
        return decoded

    def validate(self, *, threads: SupportsIndex | None = None) -> None:
        """Check that every element and the unit are below their orders (spec 3.5): one pass over the vector.

        Args:
            threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle.

        Raises:
            AggregationError: one is not (reason "invalid_object").
        """
        self.validate_unit()
        order = self.config.vect.order
        if isinstance(self.config.vect, FieldConfig):
            index = parallel_fields.find_above(self.vect, order - 1, order, threads)
        else:
            index = parallel.find_invalid(self.vect, order, threads)
        if index is not None:
            raise AggregationError("invalid_object", f"element {index} is not below the order of {self.config.vect}")

    def validate_unit(self) -> None:
        """Check that the unit is below its order.

        Raises:
            AggregationError: it is not (reason "invalid_object").
        """
        if self.unit >= self.config.unit.order:
            raise AggregationError("invalid_object", f"the unit is not below the order of {self.config.unit}")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MaskObject)
            and type(self) is type(other)
            and self.config == other.config
            and self.unit == other.unit
            and np.array_equal(self.vect, other.vect)
        )

    __hash__ = None  # type: ignore[assignment]  # compared by content that may be large: not for dictionaries

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config.vect}, length={len(self)})"


def resolve_piece(piece: object, length: int) -> slice:
    """Return a slice of `length` weights as one from a start to a stop that is not before it.

    Raises:
        ModelError: not a slice, or one with a step.
    """
    if not isinstance(piece, slice) or piece.step not in (None, 1):
        raise ModelError(f"weights: expected a slice without a step, as [a:b], got {shown_value(piece)}")
    try:
        start, stop, _ = piece.indices(length)
    except TypeError:
        raise ModelError(f"weights: expected a slice of whole numbers, got {shown_value(piece)}") from None
    return slice(start, max(start, stop))


def validate_length(length: object, name: str = "length") -> None:
    """Check a number of weights.

    Raises:
        ModelError: not an integer of 0 or more, or more than round parameters can announce.
    """
    is_whole = isinstance(length, (int, np.integer)) and not isinstance(length, bool)
    if not is_whole or not 0 <= length <= MAX_LENGTH:  # type: ignore[operator]
        raise ModelError(f"{name}: expected a whole number of 0 or more and at most {MAX_LENGTH}, got {shown_value(length)}")


def _require_field(config: MaskConfigPair) -> FieldConfig:
    if isinstance(config.vect, FieldConfig):
        return config.vect
    raise ConfigError(f"vector with its unit: expected a config of pet-1, got {config.vect}")
