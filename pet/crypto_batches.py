"""Boxes and signatures, many in one call: a thread gives the interpreter away once, and waits to have it back once.

For each message of a batch by itself that would be four times, and each wait may be for a thread that handles another batch.
Everything is decided by libsodium, as in pet/crypto.py: the compiled module calls the same functions (native/sodium.c). Where
pet was built without it, they are called one by one.

This file must never know a message, a mask or a phase.

Source: docs/spec/pet.md 1.1, 1.7.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import nacl._sodium

from pet._installation import has_module
from pet.crypto import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, EncryptionKeyPair, open_sealed_in_place, verify_signed
from pet.errors import CryptoError


class Opened(enum.IntEnum):
    """The outcome of a box.

    The numbers are those of `enum pet_opened` in native/pet_kernels.h.
    """

    #: It does not open; its content is undefined.
    CLOSED = 0
    #: It holds something else than was expected, and no signature was verified.
    UNEXPECTED = 1
    #: What it holds is not signed with the key that it names.
    FORGED = 2
    #: It is.
    SIGNED = 3


class Places(NamedTuple):
    """Where in a plain text, whose first 64 bytes are the signature of all the rest, something lies.

    Attributes:
        expected: the place of bytes that are known beforehand.
        key: the place of the public key that it is signed with.
    """

    expected: int
    key: int


class Claim(NamedTuple):
    """A signature that may be valid.

    Attributes:
        signed: the signature, followed by what was signed.
        public_key: the key that it should be signed with, 32 bytes.
    """

    signed: bytes
    public_key: bytes


def task_claim(signature: bytes, public_key: bytes, round_seed: bytes, task: bytes) -> Claim:
    """Return the claim that a task signature is that of a participant for a round and a task (spec 1.7).

    Raises:
        CryptoError: the signature has another size than signatures.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise CryptoError(f"task signature: expected {SIGNATURE_BYTES} bytes, got {len(signature)}")
    return Claim(signature + round_seed + task, public_key)


def open_signed_boxes(
    boxes: Sequence[memoryview], keys: EncryptionKeyPair, places: Places, expected: Sequence[bytes]
) -> list[Opened]:
    """Decrypt sealed boxes in their place, each from its byte 48 on, and verify what those hold that is as expected.

    Args:
        boxes: writable; those of others are left alone while this runs.
        keys: that the boxes are sealed for.
        places: of the plain text.
        expected: what each has at `places.expected`, all of the same size; another one's signature is not verified.
    """
    if not boxes:
        return []
    if (native := _native()) is None:
        return [_open_one(box, keys, places, wanted) for box, wanted in zip(boxes, expected, strict=True)]
    ffi, lib, open_box, verify = native
    lent = [ffi.from_buffer("uint8_t[]", box, require_writable=True) for box in boxes]
    states = bytearray(len(boxes))
    try:
        # The keys' bytes, and the arrays made here, are kept by the arguments as long as the call lasts.
        lib.pet_open_signed(
            open_box,
            verify,
            ffi.from_buffer("uint8_t[]", states),
            ffi.new("uint8_t *[]", lent),
            ffi.new("size_t[]", [len(each) for each in lent]),
            len(lent),
            ffi.from_buffer("uint8_t[]", keys.public_key),
            ffi.from_buffer("uint8_t[]", keys.secret_key),
            ffi.from_buffer("uint8_t[]", b"".join(expected)),
            len(expected[0]),
            places.expected,
            places.key,
        )
    finally:
        for each in lent:  # also where an error's traceback keeps them: the owner could not release its view else
            ffi.release(each)
    return [_OPENED[state] for state in states]


def verify_groups(groups: Sequence[Sequence[Claim]]) -> list[int]:
    """Verify groups of signatures, each in its order up to the first that is not valid.

    Returns:
        For each group the number of valid signatures before the first that is not.

    Raises:
        CryptoError: a key is not of 32 bytes.
    """
    claims = [claim for group in groups for claim in group]
    for claim in claims:
        if len(claim.public_key) != PUBLIC_KEY_BYTES:
            raise CryptoError(f"public signing key: expected {PUBLIC_KEY_BYTES} bytes, got {len(claim.public_key)}")
    if (native := _native()) is None:
        return [_count_valid(group) for group in groups]
    ffi, lib, _, verify = native
    valid = ffi.new("size_t[]", len(groups))
    items = [ffi.from_buffer("uint8_t[]", claim.signed) for claim in claims]
    keys = [ffi.from_buffer("uint8_t[]", claim.public_key) for claim in claims]
    lib.pet_verify_groups(
        verify,
        valid,
        ffi.new("size_t[]", [len(group) for group in groups]),
        len(groups),
        ffi.new("uint8_t *[]", items),
        ffi.new("size_t[]", [len(claim.signed) for claim in claims]),
        ffi.new("uint8_t *[]", keys),
    )
    return list(valid)


_OPENED: Final = tuple(Opened)


@functools.cache
def _native() -> tuple[Any, Any, Any, Any] | None:
    """Return the compiled module, and libsodium's functions that it is to call; None in a build without it."""
    if not has_module():
        return None
    from pet.kernels._compiled import ffi, lib

    open_box, verify = (_address_of(name) for name in ("crypto_box_seal_open", "crypto_sign_open"))
    return ffi, lib, ffi.cast("pet_box_open", open_box), ffi.cast("pet_sign_open", verify)


def _address_of(name: str) -> int:
    sodium = nacl._sodium
    return int(sodium.ffi.cast("uintptr_t", sodium.ffi.addressof(sodium.lib, name)))


def _open_one(box: memoryview, keys: EncryptionKeyPair, places: Places, expected: bytes) -> Opened:
    try:
        plain = open_sealed_in_place(box, keys)
    except CryptoError:
        return Opened.CLOSED
    public_key = bytes(plain[places.key : places.key + PUBLIC_KEY_BYTES])
    if plain[places.expected : places.expected + len(expected)] != expected or len(public_key) < PUBLIC_KEY_BYTES:
        return Opened.UNEXPECTED
    return Opened.SIGNED if verify_signed(plain, public_key) else Opened.FORGED


def _count_valid(group: Sequence[Claim]) -> int:
    valid = (verify_signed(claim.signed, claim.public_key) for claim in group)
    return next((index for index, is_valid in enumerate(valid) if not is_valid), len(group))
