"""Several vectors of one model, each with a config of its own, masked, added and unmasked together.

A model that was packed has weights and counts: the weights take a config for floats, the counts one for integers. Each vector
has masks of its own; what is added is all vectors of a model or none, so that their means are always of the same models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, SupportsIndex

from numpy.typing import NDArray

from pet.aggregation import Aggregation
from pet.buffers import Buffer
from pet.errors import AggregationError, ConfigError, ModelError, RemoteProtocolError, UnmaskError
from pet.global_model import GlobalModel
from pet.mask_codec import byte_view
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_object import Mask, MaskedModel, MaskSeed
from pet.masking import Scalar, SupportsDlpack, mask_model

_Config = MaskConfig | MaskConfigPair
_MAGIC: Final = b"pet vectors 1\n"
_COUNT_BYTES: Final = 2
_LENGTH_BYTES: Final = 8
#: Far more than a model has kinds of numbers.
MAX_VECTORS: Final = 64


@dataclass(frozen=True, slots=True)
class MaskedVectors:
    """The masked vectors of one model, in the order of their configs.

    Attributes:
        models: one for each vector.
    """

    models: tuple[MaskedModel, ...]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[MaskedModel]:
        return iter(self.models)

    @property
    def clipped_count(self) -> int | None:
        """How many weights of all vectors were clamped to the bound of their config; None if they were read from bytes."""
        counts = [model.clipped_count for model in self.models]
        return None if None in counts else sum(count or 0 for count in counts)

    def to_bytes(self) -> bytes:
        """Serialise all vectors as one piece."""
        parts: list[Buffer] = [_MAGIC, len(self.models).to_bytes(_COUNT_BYTES, "little")]
        for data in (model.to_bytes() for model in self.models):
            parts += [len(data).to_bytes(_LENGTH_BYTES, "little"), data]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: Buffer) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            ModelError: no buffer.
            RemoteProtocolError: it is something else, is cut or has bytes too many (reason "malformed_mask_object"), or a
                vector in it is malformed (reasons of `pet.MaskedModel.from_bytes`).
        """
        rest = _take_magic(data)
        count, rest = int.from_bytes(rest[:_COUNT_BYTES], "little"), rest[_COUNT_BYTES:]
        if not 1 <= count <= MAX_VECTORS:
            raise _malformed(f"expected 1 to {MAX_VECTORS}, got {count}")
        models = []
        for index in range(count):
            length, rest = int.from_bytes(rest[:_LENGTH_BYTES], "little"), rest[_LENGTH_BYTES:]
            if length > len(rest):
                raise _malformed(f"expected {length} bytes of vector {index}, got {len(rest)}")
            models.append(MaskedModel.from_bytes(rest[:length]))
            rest = rest[length:]
        if rest:
            raise _malformed(f"expected nothing after vector {count - 1}, got {len(rest)} bytes")
        return cls(tuple(models))


def mask_vectors(
    vectors: Sequence[NDArray[Any] | SupportsDlpack],
    configs: Sequence[_Config],
    scalars: Scalar | Sequence[Scalar] = 1,
    *,
    on_clip: Literal["count", "raise"] = "count",
    threads: SupportsIndex | None = None,
) -> tuple[tuple[MaskSeed, ...], MaskedVectors]:
    """Mask several vectors of one model, each under a fresh mask of its own.

        weights, counts, packing = pet.pack(arrays)
        seeds, masked = pet.mask_vectors([weights, counts], [weights_config, counts_config], [share, 1])

    Args:
        vectors: as for `pet.mask_model`, one or more.
        configs: as many mask configs.
        scalars: the model's weight in each mean, or one for all; see `pet.mask_model`. Integers of pet-1 take whole numbers.
        on_clip: as for `pet.mask_model`.
        threads: as for `pet.mask_model`.

    Returns:
        The seeds, one for each vector, and the masked vectors.

    Raises:
        ModelError: no vector, too many, or another number of configs or scalars; otherwise as `pet.mask_model`, with the index
            of the vector. Nothing is masked then.
        ConfigError: as `pet.mask_model`.
    """
    listed = _listed("vectors", vectors)
    own_configs = _listed("configs", configs, len(listed))
    own_scalars = _listed("scalars", scalars, len(listed)) if isinstance(scalars, Sequence) else [scalars] * len(listed)
    seeds, models = [], []
    for index, (vector, config, scalar) in enumerate(zip(listed, own_configs, own_scalars, strict=True)):
        try:
            seed, model = mask_model(vector, config, scalar, on_clip=on_clip, threads=threads)
        except ModelError as error:
            raise ModelError(f"vector {index}: {error}") from None
        seeds.append(seed)
        models.append(model)
    return tuple(seeds), MaskedVectors(tuple(models))


class VectorAggregation:
    """The running sums of the vectors of models: all vectors of a model are added, or none.

    Args:
        configs: mask configs, one for each vector.
        lengths: as many numbers of elements.

    Attributes:
        parts: the aggregations of the vectors. Adding to one of them alone would set their models apart.

    Raises:
        ConfigError, ModelError: as `pet.Aggregation`; no config, too many, or another number of lengths.
    """

    def __init__(self, configs: Sequence[_Config], lengths: Sequence[int]) -> None:
        listed = _listed("configs", configs)
        own_lengths = _listed("lengths", lengths, len(listed))
        self.parts: Final = tuple(map(Aggregation, listed, own_lengths))

    def __repr__(self) -> str:
        return f"VectorAggregation({', '.join(map(repr, self.parts))})"

    @property
    def count(self) -> int:
        """How many models were added."""
        return self.parts[0].count

    def add(self, masked: MaskedVectors, *, threads: SupportsIndex | None = None) -> None:
        """Add the vectors of one model.

        Raises:
            ModelError: no MaskedVectors, or another number of them.
            AggregationError: as `pet.Aggregation.add`, about any of the vectors; nothing has changed.
            ConfigError: as `pet.Aggregation.add`.
        """
        if not isinstance(masked, MaskedVectors) or len(masked) != len(self.parts):
            got = f"{len(masked)}" if isinstance(masked, MaskedVectors) else type(masked).__name__
            raise ModelError(f"masked vectors: expected MaskedVectors of {len(self.parts)}, got {got}")
        for part, model in zip(self.parts, masked, strict=True):
            part.check(model)
        added: list[tuple[Aggregation, MaskedModel]] = []
        try:
            for part, model in zip(self.parts, masked, strict=True):
                part.add(model, threads=threads)
                added.append((part, model))
        except (AggregationError, ConfigError):
            for part, model in added:
                part.subtract(model, threads=threads)
            raise

    def unmask(self, masks: Iterable[Mask], *, threads: SupportsIndex | None = None) -> tuple[GlobalModel, ...]:
        """Take the sums of the masks off, one for each vector.

        Raises:
            ModelError: another number of masks.
            UnmaskError: as `pet.Aggregation.unmask`, about any of the vectors.
            ConfigError: as `pet.Aggregation.unmask`.
        """
        listed = _listed("masks", list(masks) if isinstance(masks, Iterable) else masks, len(self.parts))
        models = []
        for index, (part, mask) in enumerate(zip(self.parts, listed, strict=True)):
            try:
                models.append(part.unmask(mask, threads=threads))
            except UnmaskError as error:
                raise UnmaskError(error.reason, f"vector {index}: {error}") from None
        return tuple(models)


def _listed(name: str, values: object, count: int | None = None) -> list[Any]:
    """Return a sequence as a list.

    Raises:
        ModelError: it is none, or of another length than `count`; with None, than 1 to MAX_VECTORS.
    """
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes, bytearray, memoryview)):
        raise ModelError(f"{name}: expected a list, one for each vector, got {type(values).__name__}")
    if count is None and not 1 <= len(values) <= MAX_VECTORS:
        raise ModelError(f"{name}: expected 1 to {MAX_VECTORS}, got {len(values)}")
    if count is not None and len(values) != count:
        raise ModelError(f"{name}: expected {count}, one for each vector, got {len(values)}")
    return list(values)


def _take_magic(data: Buffer) -> memoryview:
    view = byte_view(data)
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise _malformed("expected bytes of MaskedVectors.to_bytes, got others")
    return view[len(_MAGIC) :]


def _malformed(description: str) -> RemoteProtocolError:
    return RemoteProtocolError("malformed_mask_object", f"masked vectors: {description}")
