"""What a participant's saved state holds beside the machine's: the newest round that a pinned coordinator has answered in.

With it nobody can show an earlier round to a participant that was started again. A state of a participant that pins no key is
the machine's alone, as in earlier versions, which refuse one that has this in front by its magic bytes.

    magic (8) || coordinator's public key (32) || time of issue, u64 || SHA-256 of all before (32) || state of the machine
"""

from __future__ import annotations

import struct
from typing import Final

from pet.crypto import hash_sha256
from pet.errors import StateError
from pet.transports.pinned import NewestRound

_MAGIC: Final = b"PETPINND"
_FORM: Final = struct.Struct("<8s32sQ")
_DIGEST_BYTES: Final = 32


def with_newest_round(state: bytes, newest: NewestRound | None) -> bytes:
    """Return the state of a machine with the newest round in front, if one is known."""
    if newest is None:
        return state
    front = _FORM.pack(_MAGIC, newest.public_key, newest.issued)
    return front + hash_sha256(front) + state


def without_newest_round(data: bytes) -> tuple[bytes, NewestRound | None]:
    """Return the state of the machine, and the newest round if it is there.

    Raises:
        StateError: what stands in front of the machine's state is damaged.
    """
    if not data.startswith(_MAGIC):
        return data, None
    start = _FORM.size + _DIGEST_BYTES
    front, digest = data[: _FORM.size], data[_FORM.size : start]
    if hash_sha256(front) != digest:
        raise StateError("saved participant: expected the digest of the newest round, got another: the state is damaged")
    _, public_key, issued = _FORM.unpack(front)
    return data[start:], NewestRound(public_key=public_key, issued=issued)
