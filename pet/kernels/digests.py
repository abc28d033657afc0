"""SHA-256 of the parts of a vector, and CRC-32: what Python has as well, faster where this machine has the instructions for it.

Nothing here depends on the back-end in use, whose results these are beside. Any thread may call; the interpreter lock is free
meanwhile.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Sequence
from typing import Any, Final

from pet._installation import has_module
from pet.buffers import Buffer

_DIGEST_BYTES: Final = 32
#: Fewer parts are hashed one by one: sixteen at a time cost as much as five.
_MIN_PARTS: Final = 5
_CRC_LANE_BYTES: Final = 16
_MIN_CRC_BYTES: Final = 64


def digest_parts(heads: Sequence[bytes], data: Buffer, part_bytes: int) -> list[bytes]:
    """Return SHA-256 of each head and the part behind it.

    Args:
        heads: 64 bytes each, one block of SHA-256, for each part one.
        data: is cut into parts, of which the last may be shorter.
        part_bytes: a multiple of 64.
    """
    view = memoryview(data).cast("B")
    whole = len(view) // part_bytes
    digests = _digest_natively(heads[:whole], view[: whole * part_bytes], part_bytes)
    for number in range(len(digests), len(heads)):
        state = hashlib.sha256(heads[number])
        state.update(view[number * part_bytes : (number + 1) * part_bytes])
        digests.append(state.digest())
    return digests


def _digest_natively(heads: Sequence[bytes], view: memoryview, part_bytes: int) -> list[bytes]:
    """Return the digests of whole parts; none where that is not possible, or not faster."""
    native = _native()
    if native is None or len(heads) < _MIN_PARTS:
        return []
    ffi, lib = native
    digests = bytearray(_DIGEST_BYTES * len(heads))
    with ffi.from_buffer("uint8_t[]", view) as data, ffi.from_buffer("uint8_t[]", digests) as out:
        status = lib.pet_digest_parts(out, b"".join(heads), data, len(heads), part_bytes)
    if status != lib.PET_OK:
        return []
    return [bytes(digests[start : start + _DIGEST_BYTES]) for start in range(0, len(digests), _DIGEST_BYTES)]


def crc32(data: Buffer) -> int:
    """Return the CRC-32 of the data, as `zlib.crc32` does."""
    view = memoryview(data).cast("B")
    native, size = _native(), len(view) // _CRC_LANE_BYTES * _CRC_LANE_BYTES
    if native is None or size < _MIN_CRC_BYTES:
        return zlib.crc32(view)
    ffi, lib = native
    crc = ffi.new("uint32_t *", 0)
    with ffi.from_buffer("uint8_t[]", view) as lent:
        status = lib.pet_crc32(crc, lent, size)
    return zlib.crc32(view[size:], crc[0]) if status == lib.PET_OK else zlib.crc32(view)


@functools.cache
def _native() -> tuple[Any, Any] | None:
    """Return the compiled module's interface; None where pet was built without it."""
    if not has_module():
        return None
    from pet.kernels._native import ffi, lib

    return ffi, lib
