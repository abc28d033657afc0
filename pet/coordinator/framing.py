"""The checksums of everything that a coordinator stores: its state, entries and blobs, each with its place and its round.

A checksum finds what a disk or a crash has damaged, and what lies in the wrong place; it authenticates nothing.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

from pet.buffers import Buffer
from pet.errors import StateError

_CHECKSUM_BYTES: Final = 4
_MAGIC: Final = b"pet coordinator 1 "
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


def frame_state(record: dict[str, Any]) -> bytes:
    """Serialise the state."""
    text = _ENCODER.encode(record).encode()
    return _MAGIC + _checksum(b"", text) + text


def unframe_state(data: bytes) -> dict[str, Any]:
    """Read what `frame_state` wrote.

    Raises:
        StateError: something else, or damaged.
    """
    start = len(_MAGIC) + _CHECKSUM_BYTES
    if data[: len(_MAGIC)] != _MAGIC:
        raise StateError("stored state: expected that of a coordinator of this version, got something else")
    if data[len(_MAGIC) : start] != _checksum(b"", data[start:]):
        raise StateError("stored state: expected its checksum, got another one: it is damaged")
    record: dict[str, Any] = json.loads(data[start:])
    return record


def frame_entry(round_seed: bytes, position: int, data: bytes) -> bytes:
    """Add the checksum of an entry, its place and its round."""
    return _checksum(round_seed + str(position).encode(), data) + data


def unframe_entry(round_seed: bytes, position: int, data: bytes) -> bytes:
    """Check and remove what `frame_entry` added.

    Raises:
        StateError: the entry is damaged, or belongs somewhere else.
    """
    return bytes(_unframe(f"entry {position}", round_seed + str(position).encode(), data))


def frame_blob(round_seed: bytes, name: str, parts: list[Buffer]) -> list[Buffer]:
    """Add the checksum of a blob, its name and its round."""
    return [_checksum(round_seed + name.encode(), *parts), *parts]


def unframe_blob(round_seed: bytes, name: str, data: Buffer) -> memoryview:
    """Check a blob; returns a view of what was framed.

    Raises:
        StateError: the blob is damaged, or has another name.
    """
    return _unframe(f"blob {name!r}", round_seed + name.encode(), data)


def _unframe(what: str, place: bytes, data: Buffer) -> memoryview:
    view = memoryview(data)
    if view[:_CHECKSUM_BYTES] != _checksum(place, view[_CHECKSUM_BYTES:]):
        raise StateError(f"stored {what}: expected its checksum, got another one: it is damaged, or not of this round")
    return view[_CHECKSUM_BYTES:]


def _checksum(place: bytes, *parts: Buffer) -> bytes:
    value = zlib.crc32(place)
    for part in parts:
        value = zlib.crc32(part, value)
    return value.to_bytes(_CHECKSUM_BYTES, "little")
