"""The group of Ed25519: points of prime order, scalars, and products of both; what proofs and boxes of profile pet/1 rest on.

All of it is libsodium, through PyNaCl 1.6.2 or newer: the libsodium of older ones takes points outside the group of prime order
for valid. Points and scalars from outside are tested before they are used; an operation that libsodium refuses is None, and
never an exception.

Source: docs/spec/profile.md 8.1.
"""

from __future__ import annotations

from typing import Final

import nacl.bindings
import nacl.exceptions

POINT_BYTES: Final = 32
SCALAR_BYTES: Final = 32
#: What a scalar is reduced from, so that no value is likelier than another.
WIDE_BYTES: Final = 64
#: The order of the group, a prime.
GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493


def is_point(data: bytes) -> bool:
    """Return whether 32 bytes are a point: canonical, on the curve, of exactly the order of the group."""
    return len(data) == POINT_BYTES and bool(nacl.bindings.crypto_core_ed25519_is_valid_point(data))


def is_scalar(data: bytes) -> bool:
    """Return whether 32 bytes are a number above 0 and below the order of the group. Not for secrets: the time tells."""
    return len(data) == SCALAR_BYTES and 0 < int.from_bytes(data, "little") < GROUP_ORDER


def reduce_scalar(wide: bytes) -> bytes:
    """Return 64 bytes modulo the order of the group."""
    return nacl.bindings.crypto_core_ed25519_scalar_reduce(wide)


def multiply_base(scalar: bytes) -> bytes:
    """Return scalar * B, for a scalar that is not zero."""
    return nacl.bindings.crypto_scalarmult_ed25519_base_noclamp(scalar)


def multiply(scalar: bytes, point: bytes) -> bytes | None:
    """Return scalar * point; None if the point is of small order, or the product is the neutral element."""
    try:
        return nacl.bindings.crypto_scalarmult_ed25519_noclamp(scalar, point)
    except nacl.exceptions.CryptoError:
        return None


def subtract(left: bytes | None, right: bytes | None) -> bytes | None:
    """Return left - right; None if one of them is None or no point of the curve."""
    if left is None or right is None:
        return None
    try:
        return nacl.bindings.crypto_core_ed25519_sub(left, right)
    except nacl.exceptions.CryptoError:
        return None


def times_8(point: bytes) -> bytes | None:
    """Return 8 * point, in which components of small order vanish; None if it is no point of the curve."""
    try:
        for _ in range(3):
            point = nacl.bindings.crypto_core_ed25519_add(point, point)
    except nacl.exceptions.CryptoError:
        return None
    return point


def add_product(scalar: bytes, left: bytes, right: bytes) -> bytes:
    """Return scalar + left * right modulo the order of the group, in constant time."""
    return nacl.bindings.crypto_core_ed25519_scalar_add(scalar, nacl.bindings.crypto_core_ed25519_scalar_mul(left, right))
