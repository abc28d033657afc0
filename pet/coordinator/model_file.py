"""The bytes of a stored global model: exact, about as large as one update, written and read in pieces.

    magic (12) || header length u32 || header (JSON) || packed elements || CRC-32 of all before (4); little-endian

The elements are those of the unmasked sum, so that whatever can be asked of a global model can be asked of a stored one. The
published form (spec 5.6) is five times as large, and takes seconds to read. This file knows no store.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import numpy as np

from pet.buffers import Buffer
from pet.coordinator.round_model import RoundModel
from pet.errors import StateError
from pet.field_config import FieldConfig
from pet.field_model import FieldModel
from pet.global_model import GlobalModel
from pet.mask_config import MaskConfig, MaskConfigPair

_MAGIC: Final = b"pet model 1\n"
_LENGTH_BYTES: Final = 4
_CHECKSUM_BYTES: Final = 4


def model_name(model: RoundModel) -> str:
    """Return the name that a model is stored under: as xaynet's, with a suffix that tells the format."""
    return f"{model.round_id}_{model.round_seed.hex()}.pet"


def encode_model(model: RoundModel) -> Iterator[Buffer]:
    """Yield the bytes of a model piece by piece."""
    checksum = 0
    for piece in _encode(model):
        checksum = zlib.crc32(piece, checksum)
        yield piece
    yield checksum.to_bytes(_CHECKSUM_BYTES, "little")


def decode_model(data: Buffer) -> RoundModel:
    """Read a model; its elements are copied.

    Raises:
        StateError: something else, or damaged.
    """
    view = memoryview(data)
    start = len(_MAGIC) + _LENGTH_BYTES
    if len(view) < start + _CHECKSUM_BYTES or bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise StateError("stored model: expected a model of this version, got something else")
    if zlib.crc32(view[:-_CHECKSUM_BYTES]).to_bytes(_CHECKSUM_BYTES, "little") != view[-_CHECKSUM_BYTES:]:
        raise StateError("stored model: expected its checksum, got another one: it is damaged")
    header_end = start + int.from_bytes(view[len(_MAGIC) : start], "little")
    with StateError.reading("stored model"):
        return _decode(json.loads(bytes(view[start:header_end])), view[header_end:-_CHECKSUM_BYTES])


def _encode(model: RoundModel) -> Iterator[Buffer]:
    pair = model.model.config
    header = json.dumps(
        {
            "round": model.round_id,
            "seed": model.round_seed.hex(),
            "vect": str(pair.vect),
            "unit": str(pair.unit),
            "length": model.length,
            "model_count": model.model.model_count,
            "scalar_sum": str(model.model.scalar_sum),
        }
    ).encode()
    yield _MAGIC + len(header).to_bytes(_LENGTH_BYTES, "little") + header
    for elements in model.model.iter_elements():
        yield elements.reshape(-1).data


def _decode(header: dict[str, Any], packed: memoryview) -> RoundModel:
    pair = MaskConfigPair(vect=MaskConfig.parse(header["vect"]), unit=MaskConfig.parse(header["unit"]))
    elements = np.frombuffer(packed, dtype=np.uint8).reshape(int(header["length"]), pair.vect.element_bytes)
    made = FieldModel if isinstance(pair.vect, FieldConfig) else GlobalModel
    model = made.from_elements(pair, int(header["model_count"]), Fraction(header["scalar_sum"]), elements)
    return RoundModel(int(header["round"]), bytes.fromhex(header["seed"]), model)
