"""The bytes of mask configs and mask objects (docs/spec/pet.md 2.1, 4.5 and 5.3).

A config of pet-1 has no bytes here. This file knows bytes and arrays; what a
mask object means is pet/masking.py's business, and which message it travels in is pet/messages/'s.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.buffers import Buffer
from pet.errors import ConfigError, ModelError, RemoteProtocolError
from pet.field_config import FieldConfig
from pet.mask_choices import WIRE_CODES
from pet.mask_config import BoundType, DataType, GroupType, MaskConfig, MaskConfigPair, ModelType

MASK_CONFIG_BYTES: Final = 4
#: A mask config in bincode: four variant indices of 32 bits.
VARIANT_INDICES_BYTES: Final = 16
_COUNT_BYTES: Final = 4
#: The longest config of pet-1 in ASCII, with its line feed: a float has at most 24 characters.
_MAX_FIELD_CONFIG_BYTES: Final = 80

#: Configs that are remembered by their bytes; there are 240, and any sender may choose among them.
_KNOWN_CONFIGS: Final = 256

#: The choices in the order of their bytes. The bincode index of a member is its place among them.
_KINDS: Final[tuple[type[enum.Enum], ...]] = (GroupType, DataType, BoundType, ModelType)
#: The members of each, in the order of their variant indices.
_MEMBERS: Final = tuple(tuple(kind) for kind in _KINDS)


def encode_mask_config(config: MaskConfig) -> bytes:
    """Return the four wire bytes of a config (spec 2.1)."""
    return config.wire_code


def decode_mask_config(data: Buffer) -> MaskConfig:
    """Read four wire bytes.

    Raises:
        RemoteProtocolError: not four bytes, or a byte that stands for nothing (reason "malformed_mask_config").
    """
    if len(data) != MASK_CONFIG_BYTES:
        raise RemoteProtocolError("malformed_mask_config", f"mask config: expected 4 bytes, got {len(data)}")
    choices: list[Any] = []
    for kind, byte in zip(_KINDS, bytes(data), strict=True):
        member = next((member for member in kind if WIRE_CODES[member] == byte), None)
        if member is None:
            known = ", ".join(str(WIRE_CODES[member]) for member in kind)
            raise RemoteProtocolError("malformed_mask_config", f"{kind.__name__}: expected a byte of {known}, got {byte}")
        choices.append(member)
    return MaskConfig(*choices)


def encode_variant_indices(config: MaskConfig) -> bytes:
    """Return a config as bincode writes it: four 32-bit variant indices (spec 5.3)."""
    return b"".join(
        list(kind).index(choice).to_bytes(4, "little") for kind, choice in zip(_KINDS, _choices(config), strict=True)
    )


def decode_variant_indices(data: Buffer) -> MaskConfig:
    """Read four 32-bit variant indices.

    Raises:
        RemoteProtocolError: not 16 bytes, or an index out of range (reason "malformed_mask_config").
    """
    if len(data) != VARIANT_INDICES_BYTES:
        raise RemoteProtocolError("malformed_mask_config", f"mask config: expected 16 bytes, got {len(data)}")
    choices: list[Any] = []
    for place, kind in enumerate(_MEMBERS):
        index = int.from_bytes(data[4 * place : 4 * place + 4], "little")
        if index >= len(kind):
            raise RemoteProtocolError(
                "malformed_mask_config", f"{_KINDS[place].__name__}: expected an index below {len(kind)}, got {index}"
            )
        choices.append(kind[index])
    return MaskConfig(*choices)


def mask_object_bytes(config: MaskConfigPair, length: int) -> int:
    """Return the size in bytes of a mask object with `length` elements (spec 4.5)."""
    return 2 * MASK_CONFIG_BYTES + _COUNT_BYTES + length * config.vect.element_bytes + config.unit.element_bytes


def encode_mask_object(config: MaskConfigPair, vect: NDArray[np.uint8], unit: int) -> list[Buffer]:
    """Return a mask object as buffers to be sent one after the other; the vector is not copied (spec 4.5)."""
    return [
        encode_mask_config(config.vect) + len(vect).to_bytes(_COUNT_BYTES, "big"),
        vect.reshape(-1).data,
        encode_mask_config(config.unit) + unit.to_bytes(config.unit.element_bytes, "little"),
    ]


def decode_mask_object(data: Buffer) -> tuple[MaskConfigPair, NDArray[np.uint8], int, int]:
    """Read the mask object at the start of a buffer; the vector is a view of the buffer (spec 4.5).

    Elements are not compared with the order here: that is a pass over the vector, and comes with the addition.

    Returns:
        The configs, the packed vector, the unit, and how many bytes the object takes.

    Raises:
        RemoteProtocolError: the buffer ends too soon (reason "malformed_mask_object"), or a config byte stands for nothing
            (reason "malformed_mask_config").
    """
    view = byte_view(data)
    vect_code, position = _take_code(view, 0)
    vect_config = _config_of(vect_code)
    count_end = position + _COUNT_BYTES
    _require(view, count_end)
    length = int.from_bytes(view[position:count_end], "big")
    vect_end = count_end + length * vect_config.element_bytes
    _require(view, vect_end)
    vect = np.frombuffer(view[count_end:vect_end], dtype=np.uint8).reshape(length, vect_config.element_bytes)
    unit_code, position = _take_code(view, vect_end)
    pair = _pair_of(vect_code, unit_code)
    end = position + pair.unit.element_bytes
    _require(view, end)
    unit = int.from_bytes(view[position:end], "little")
    return pair, vect, unit, end


# ---- pet-1: a form of pet's own, which names the config ------------------------------------------------------------------


def is_field_object(data: Buffer) -> bool:
    """Return whether bytes are those of `encode_field_object`: no mask object of the protocol begins with a "p"."""
    return bytes(byte_view(data)[: len(FieldConfig.PREFIX)]) == FieldConfig.PREFIX.encode()


def encode_field_object(config: FieldConfig, vect: NDArray[np.uint8], unit: int) -> list[Buffer]:
    """Return the config in ASCII, a line feed and the packed vector, the unit last, as buffers; the vector is not copied."""
    return [f"{config}\n".encode(), vect.reshape(-1).data, unit.to_bytes(config.element_bytes, "little")]


def decode_field_object(data: Buffer) -> tuple[FieldConfig, NDArray[np.uint8], int]:
    """Read what `encode_field_object` wrote; the vector is a view of the buffer, its elements are not checked.

    Raises:
        RemoteProtocolError: no such config (reason "malformed_mask_config"), or not whole elements after it, or none (reason
            "malformed_mask_object").
    """
    view = byte_view(data)
    line, found, _ = bytes(view[:_MAX_FIELD_CONFIG_BYTES]).partition(b"\n")
    try:
        config = FieldConfig.parse(line.decode("ascii"))
    except (ConfigError, UnicodeDecodeError):
        config = None
    if config is None or not found or str(config).encode() != line:
        raise RemoteProtocolError("malformed_mask_config", "mask object of pet-1: expected its config in the first line")
    return config, *decode_field_vector(config, view[len(line) + 1 :])


def decode_field_vector(config: FieldConfig, data: Buffer) -> tuple[NDArray[np.uint8], int]:
    """Read packed elements, the unit last (docs/spec/profile.md 4); the vector is a view of the buffer, nothing is checked.

    Raises:
        RemoteProtocolError: not whole elements, or none (reason "malformed_mask_object").
    """
    view, width = byte_view(data), config.element_bytes
    if len(view) % width or not view:
        raise RemoteProtocolError(
            "malformed_mask_object", f"vector of pet-1: expected elements of {width} bytes, got {len(view)} bytes"
        )
    return np.frombuffer(view[:-width], dtype=np.uint8).reshape(-1, width), int.from_bytes(view[-width:], "little")


def _choices(config: MaskConfig) -> Sequence[enum.Enum]:
    return config.group_type, config.data_type, config.bound_type, config.model_type


def byte_view(data: Buffer) -> memoryview:
    """Return the bytes of a buffer where they are.

    Raises:
        ModelError: it is no buffer, or not contiguous.
    """
    if isinstance(data, memoryview) and data.format == "B" and data.ndim == 1:
        return data
    try:
        return memoryview(data).cast("B")
    except TypeError:
        raise ModelError(f"bytes: expected a contiguous buffer, got {type(data).__name__}") from None


def _take_code(view: memoryview, start: int) -> tuple[bytes, int]:
    end = start + MASK_CONFIG_BYTES
    _require(view, end)
    return bytes(view[start:end]), end


@functools.lru_cache(_KNOWN_CONFIGS)
def _config_of(code: bytes) -> MaskConfig:
    """Return the config of four wire bytes, the same object each time: its numbers are computed once."""
    return decode_mask_config(code)


@functools.lru_cache(_KNOWN_CONFIGS)
def _pair_of(vect_code: bytes, unit_code: bytes) -> MaskConfigPair:
    return MaskConfigPair(vect=_config_of(vect_code), unit=_config_of(unit_code))


def _require(view: memoryview, end: int) -> None:
    if len(view) < end:
        raise RemoteProtocolError("malformed_mask_object", f"mask object: expected at least {end} bytes, got {len(view)}")
