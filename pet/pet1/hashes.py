"""Hashes and signed texts of profile pet/1: every use has a name of its own, so that no two structures can be confused.

Source: docs/spec/profile.md 2.
"""

from __future__ import annotations

import hashlib
from typing import Final

from pet.buffers import Buffer
from pet.crypto import SIGNATURE_BYTES, SigningKeyPair, verify_signed

DIGEST_BYTES: Final = 32
MAGIC_BYTES: Final = 16


def magic(name: str) -> bytes:
    """Return the 16 bytes that the structures of a name begin with."""
    return name.encode().ljust(MAGIC_BYTES, b"\0")


def digest(name: str, *data: Buffer, key: bytes = b"", size: int = DIGEST_BYTES) -> bytes:
    """Return BLAKE2b of the data, personalised with the name, keyed if there is a key (docs/spec/profile.md 2: H, H64)."""
    state = hashlib.blake2b(digest_size=size, key=key, person=name.encode())
    for part in data:
        state.update(part)
    return state.digest()


def signed_text(name: str, body: Buffer) -> bytes:
    """Return the 48 bytes that a signature outside of messages covers: no signature of xaynet's covers such a text."""
    return magic(name) + digest(name, body)


def sign_text(key: SigningKeyPair, name: str, body: Buffer) -> bytes:
    """Sign a structure, 64 bytes."""
    return key.sign(signed_text(name, body))


def is_signed_text(public_key: bytes, name: str, body: Buffer, signature: Buffer) -> bool:
    """Return whether a signature of a structure is valid; one of another size is not."""
    return len(signature) == SIGNATURE_BYTES and verify_signed(bytes(signature) + signed_text(name, body), public_key)


def u16(number: int) -> bytes:
    """Return two bytes, little-endian."""
    return number.to_bytes(2, "little")


def u32(number: int) -> bytes:
    """Return four bytes, little-endian."""
    return number.to_bytes(4, "little")


def u64(number: int) -> bytes:
    """Return eight bytes, little-endian."""
    return number.to_bytes(8, "little")
