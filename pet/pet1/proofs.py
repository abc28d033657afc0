"""Boxes for members, and two proofs: that a sender knows the secret of its key, and that a shared point is right.

Everything that comes from outside is judged here in one way by everybody: two honest members that disagreed about a proof would
add different sets of updates.

Source: docs/spec/profile.md 8.2 to 8.5.
"""

from __future__ import annotations

from typing import Final

from pet import edwards
from pet.crypto import AEAD_NONCE_BYTES, AEAD_TAG_BYTES, decrypt_authenticated, encrypt_authenticated
from pet.edwards import POINT_BYTES, SCALAR_BYTES, is_point, is_scalar
from pet.errors import CryptoError
from pet.pet1.hashes import digest, u16

KNOWN_PROOF_BYTES: Final = 2 * SCALAR_BYTES
SHARED_PROOF_BYTES: Final = POINT_BYTES + 2 * SCALAR_BYTES
BOX_OVERHEAD_BYTES: Final = AEAD_TAG_BYTES
#: A key is used once (fresh E, slot), so the nonce may be fixed.
_NONCE: Final = bytes(AEAD_NONCE_BYTES)


def derive_box_key(shared: bytes, sender_point: bytes, member_point: bytes, slot: int, context: bytes) -> bytes | None:
    """Return the key of a box; None if the shared point is no point at all.

    Args:
        shared: D = e * P = a * E.
        sender_point: E, of the update.
        member_point: P, of the member.
        slot: of the member.
        context: of the update (docs/spec/profile.md 6.4).
    """
    shared_8 = edwards.times_8(shared)
    return None if shared_8 is None else digest("pet-1 box", shared_8, sender_point, member_point, u16(slot), context)


def seal_box(seeds: bytes, key: bytes) -> bytes:
    """Encrypt the seeds of a member's parts; 16 bytes longer."""
    return encrypt_authenticated(seeds, b"", _NONCE, key)


def open_box(box: bytes, key: bytes) -> bytes | None:
    """Decrypt a box; None if it does not open."""
    try:
        return decrypt_authenticated(box, b"", _NONCE, key)
    except CryptoError:
        return None


def prove_known(secret: bytes, point: bytes, context: bytes) -> bytes:
    """Prove knowledge of e, where `point` is E = e * B: 64 bytes, the same each time."""
    nonce = _nonce(secret, b"known", point, context)
    challenge = _challenge("pet-1 known", point, edwards.multiply_base(nonce), context)
    return challenge + edwards.add_product(nonce, challenge, secret)


def is_known(point: bytes, context: bytes, proof: bytes) -> bool:
    """Return whether a proof of knowledge of the secret of a point is valid."""
    challenge, response = proof[:SCALAR_BYTES], proof[SCALAR_BYTES:]
    if not (is_point(point) and is_scalar(challenge) and is_scalar(response)):
        return False
    commitment = edwards.subtract(edwards.multiply_base(response), edwards.multiply(challenge, point))
    return commitment is not None and challenge == _challenge("pet-1 known", point, commitment, context)


def prove_shared(secret: bytes, member_point: bytes, sender_point: bytes, slot: int, context: bytes) -> bytes:
    """Compute the point that a member shares with a sender, and prove that it is right: D and the proof, 96 bytes.

    Args:
        secret: a, of the member; P = a * B.
        member_point: P.
        sender_point: E, a point of prime order.
        slot: of the member.
        context: of the update.

    Raises:
        CryptoError: E is no such point.
    """
    shared = edwards.multiply(secret, sender_point)
    if shared is None:
        raise CryptoError("shared point: expected a sender's point of prime order, got something else")
    nonce = _nonce(secret, b"equal", member_point, sender_point, u16(slot), context)
    commitments = edwards.multiply_base(nonce), edwards.multiply(nonce, sender_point) or b""
    challenge = _challenge("pet-1 equal", member_point, sender_point, shared, *commitments, u16(slot), context)
    return shared + challenge + edwards.add_product(nonce, challenge, secret)


def is_shared(member_point: bytes, sender_point: bytes, slot: int, context: bytes, proof: bytes) -> bool:
    """Return whether a proof that a shared point is right is valid; arguments as `prove_shared`."""
    shared, challenge, response = proof[:32], proof[32:64], proof[64:]
    points_are_valid = is_point(member_point) and is_point(sender_point) and is_point(shared)
    if not (points_are_valid and is_scalar(challenge) and is_scalar(response)):
        return False
    of_base = edwards.subtract(edwards.multiply_base(response), edwards.multiply(challenge, member_point))
    of_sender = edwards.subtract(edwards.multiply(response, sender_point), edwards.multiply(challenge, shared))
    return (
        of_base is not None
        and of_sender is not None
        and challenge == _challenge("pet-1 equal", member_point, sender_point, shared, of_base, of_sender, u16(slot), context)
    )


def _nonce(secret: bytes, *statement: bytes) -> bytes:
    """Derive a nonce: no dependence on a generator, and the same proof again after a crash."""
    return edwards.reduce_scalar(digest("pet-1 nonce", *statement, key=secret, size=edwards.WIDE_BYTES))


def _challenge(name: str, *statement: bytes) -> bytes:
    return edwards.reduce_scalar(digest(name, *statement, size=edwards.WIDE_BYTES))
