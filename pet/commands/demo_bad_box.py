"""An update of pet/1 with a box that does not open, as a participant might send it to keep one member from answering.

Everything else about it is right: the coordinator has no way to see it, and accepts it. The member whose box it is complains,
and the complaint proves to everybody who sent it (docs/spec/profile.md 8.4, 9.3).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from pet.buffers import Buffer
from pet.commands.demo_data import Weights
from pet.crypto import SIGNATURE_BYTES, SigningKeyPair, seal
from pet.field_config import FieldConfig
from pet.masking import mask_model
from pet.pet1.committee import Committee
from pet.pet1.enrolment import split_signed
from pet.pet1.hashes import sign_text, u32
from pet.pet1.leaves import LEAF_BYTES, build_update, derive_leaf_digests, derive_vector_digest
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import NAME, ShareHeader, UpdateSecrets, derive_context
from pet.transports.pet1 import Pet1Document, Pet1Transport

_SECRET_BYTES = 96


def send_bad_box(transport: Pet1Transport, key: SigningKeyPair, weights: Weights, slot: int) -> bool:
    """Send an update to the round under way whose box for a slot is spoilt.

    Args:
        transport: the way to the coordinator.
        key: an enrolled participant's.
        weights: of the round's data type and length, and one leaf long.
        slot: whose box; taken in this round.

    Returns:
        Whether it was sent; False before there is a committee, and in rounds without that member.
    """
    record, served, committee = map(
        transport.get_document, (Pet1Document.ROUND, Pet1Document.ENROLMENT, Pet1Document.COMMITTEE)
    )
    if record is None or served is None or committee is None:
        return False
    members = Committee.from_bytes(committee, RoundRecord.from_bytes(record), split_signed(served)[0])
    if members.points[slot] is None:
        return False
    sealed, piece = _build(key, members, weights, slot)
    transport.open_update(sealed)
    transport.send_piece(piece)
    return True


def _build(key: SigningKeyPair, committee: Committee, weights: Weights, slot: int) -> tuple[bytes, Sequence[Buffer]]:
    """Return the sealed part of the update, and its vector as one piece."""
    secrets = UpdateSecrets.from_random(os.urandom(_SECRET_BYTES))
    context = derive_context(committee.digest, key.public_key, secrets.point)
    record = committee.record
    assert isinstance(record.config, FieldConfig), "rounds of pet/1 have no others"
    _, masked = mask_model(weights, record.config, seed=secrets.mask_seeds(committee, context))
    vector = memoryview(masked.to_vector())
    assert len(vector) <= LEAF_BYTES, "one leaf"
    leaves = derive_leaf_digests(vector, context)
    good = ShareHeader.build(key, committee, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))
    box = good.boxes[slot]
    body = good.data[:-SIGNATURE_BYTES].replace(box, bytes([box[0] ^ 1]) + box[1:])
    bad = ShareHeader.from_bytes(body + sign_text(key, NAME, body), committee)
    message = build_update(key, committee, bad, secrets.salt, leaves)
    return seal(message, record.coordinator_key), [bad.digest + u32(0), vector]
