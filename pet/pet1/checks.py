"""What members send: Check with their complaints about boxes, and Sum2 with their share of the total mask.

Source: docs/spec/profile.md 10.2, 10.4, 10.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, SigningKeyPair
from pet.edwards import POINT_BYTES
from pet.errors import RemoteProtocolError
from pet.mask_object import Mask
from pet.messages import HEADER_BYTES
from pet.pet1 import proofs
from pet.pet1.committee import Committee
from pet.pet1.hashes import DIGEST_BYTES, u32
from pet.pet1.leaves import check_elements
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message, sign_message
from pet.pet1.proofs import SHARED_PROOF_BYTES
from pet.pet1.refusing import is_ascending, require, split_keys
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader

_HEAD_BYTES: Final = DIGEST_BYTES + 4
_COMPLAINT_BYTES: Final = PUBLIC_KEY_BYTES + SHARED_PROOF_BYTES
_MALFORMED: Final = "malformed_check"


def build_check(key: SigningKeyPair, record: RoundRecord, root: bytes, complaints: Mapping[bytes, bytes]) -> bytes:
    """Return a member's signed Check message: one root, and all its complaints.

    Args:
        key: of the member.
        record: of the round.
        root: of the manifest.
        complaints: D and the proof, 96 bytes, by the participant that is complained about.
    """
    entries = (participant + proof for participant, proof in sorted(complaints.items()))
    payload = b"".join([root, u32(len(complaints)), *entries])
    return sign_message(key, record.coordinator_key, Pet1Tag.CHECK, payload)


def check_bytes(complaint_count: int) -> int:
    """Return the size of a Check message with this number of complaints, signature included."""
    return HEADER_BYTES + _HEAD_BYTES + _COMPLAINT_BYTES * complaint_count


def sum2_bytes(vector_bytes: int) -> int:
    """Return the size of a Sum2 message in one piece, signature included."""
    return HEADER_BYTES + DIGEST_BYTES + vector_bytes


def parse_check(payload: Buffer, root: bytes, max_count: int) -> dict[bytes, bytes]:
    """Read the payload of a Check message.

    Args:
        payload: its bytes.
        root: of the manifest that is checked.
        max_count: complaints at most: updates in the manifest.

    Returns:
        The complaints, by participant.

    Raises:
        RemoteProtocolError: "malformed_check", "wrong_root".
    """
    payload = bytes(payload)
    require(len(payload) >= _HEAD_BYTES, _MALFORMED, f"check payload: expected {_HEAD_BYTES} or more bytes, got {len(payload)}")
    require(payload[:DIGEST_BYTES] == root, "wrong_root", "check payload: expected the root of this manifest, got another")
    count = int.from_bytes(payload[DIGEST_BYTES:_HEAD_BYTES], "little")
    is_sized = count <= max_count and len(payload) == _HEAD_BYTES + _COMPLAINT_BYTES * count
    require(is_sized, _MALFORMED, f"check payload: expected at most {max_count} complaints of {_COMPLAINT_BYTES} bytes each")
    entries = split_keys(payload[_HEAD_BYTES:], _COMPLAINT_BYTES)
    complaints = {entry[:PUBLIC_KEY_BYTES]: entry[PUBLIC_KEY_BYTES:] for entry in entries}
    is_sorted = is_ascending([entry[:PUBLIC_KEY_BYTES] for entry in entries])
    require(is_sorted, _MALFORMED, "check payload: expected keys that ascend strictly, got others")
    return complaints


def count_complaints(message: Buffer) -> int:
    """Return how many complaints a Check message has that was read before."""
    return int.from_bytes(message[HEADER_BYTES + DIGEST_BYTES : HEADER_BYTES + _HEAD_BYTES], "little")


def read_check(message: Buffer, committee: Committee, manifest: UpdateManifest) -> tuple[int, dict[bytes, bytes]]:
    """Read a Check message of a manifest, as `read_check_of`."""
    return read_check_of(message, committee, manifest.root, len(manifest.headers))


def read_check_of(message: Buffer, committee: Committee, root: bytes, max_count: int) -> tuple[int, dict[bytes, bytes]]:
    """Read a Check message.

    Args:
        message: whole, signature first.
        committee: of the round.
        root: of the manifest that is checked.
        max_count: complaints at most.

    Returns:
        The slot of the member, and its complaints by participant; whether they are true is not judged.

    Raises:
        RemoteProtocolError: as `read_message` and `parse_check`; "not_a_member", "wrong_slot" (the slot is empty).
    """
    sender, payload = read_message(message, committee.record.coordinator_key, Pet1Tag.CHECK)
    slot = committee.slot_of(sender)
    if slot is None:
        raise RemoteProtocolError("not_a_member", "check: expected a member of this round, got another participant")
    require(committee.points[slot] is not None, "wrong_slot", f"check: expected a slot that is taken, got {slot}")
    return slot, parse_check(payload, root, max_count)


def judge_complaint(proof: bytes, header: ShareHeader, committee: Committee, slot: int) -> None:
    """Return if a complaint proves that an update is bad; raise if it is worth nothing.

    Args:
        proof: D, c and z.
        header: of the update.
        committee: of the round.
        slot: whose complaint; a taken one.

    Raises:
        RemoteProtocolError: "unproven_complaint", "unfounded_complaint".
    """
    point = committee.points[slot]
    is_proven = point is not None and proofs.is_shared(point, header.point, slot, header.context, proof)
    require(is_proven, "unproven_complaint", "complaint: expected a proof that its shared point is right, got none")
    is_bad = header.open_box(committee, slot, proof[:POINT_BYTES]) is None
    require(is_bad, "unfounded_complaint", "complaint: expected a bad box, got a good one")


def build_sum2(key: SigningKeyPair, record: RoundRecord, certificate_digest: bytes, share: Mask) -> bytes:
    """Return a member's signed Sum2 message: its answer to one certificate."""
    return sign_message(key, record.coordinator_key, Pet1Tag.SUM2, certificate_digest + share.to_vector())


def parse_sum2(payload: Buffer, record: RoundRecord, certificate_digest: bytes) -> Mask:
    """Read the payload of a Sum2 message, which may have come in chunks.

    Returns:
        The share; its vector is a view of the payload.

    Raises:
        RemoteProtocolError: "wrong_certificate", "length_mismatch", "invalid_element".
    """
    view = memoryview(payload).cast("B")
    named, vector = bytes(view[:DIGEST_BYTES]), view[DIGEST_BYTES:]
    require(named == certificate_digest, "wrong_certificate", "sum2 payload: expected this round's certificate, got another")
    size = record.vector_bytes
    require(len(vector) == size, "length_mismatch", f"sum2 payload: expected a share of {size} bytes, got {len(vector)}")
    check_elements(vector, record.config)
    return Mask.from_vector(record.config, vector)
