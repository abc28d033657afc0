"""The documents of pet/1 as a peer asks for them: how large each can be, and whether one is of the round that goes on.

A coordinator serves manifest and certificate of a round until the next one's take their place, so the first question of a round
may be answered with those of the round before: that is no fault, and means that there is none yet.

Source: docs/spec/profile.md 6.3, 10.1, 10.3, 15.1.
"""

from __future__ import annotations

from typing import Final

from pet.crypto import PUBLIC_KEY_BYTES
from pet.mask_choices import FieldValues
from pet.messages import HEADER_BYTES
from pet.participant.enrolments import MAX_ENROLMENT_BYTES
from pet.pet1.certificate import read_checks
from pet.pet1.committee import SUM_MESSAGE_BYTES
from pet.pet1.enrolment import Enrolment
from pet.pet1.hashes import DIGEST_BYTES, MAGIC_BYTES
from pet.pet1.messages import coordinator_of
from pet.pet1.proofs import SHARED_PROOF_BYTES
from pet.pet1.round_record import RECORD_BYTES, RoundRecord
from pet.transports.pet1 import Pet1Document
from pet.transports.pet1_requests import GetDocument

#: Name, digest, and the count behind them, of a committee and a certificate; a manifest counts with two bytes more.
_HEAD_BYTES: Final = MAGIC_BYTES + DIGEST_BYTES + 2
_MANIFEST_ENTRY_BYTES: Final = PUBLIC_KEY_BYTES + DIGEST_BYTES
_COMPLAINT_BYTES: Final = PUBLIC_KEY_BYTES + SHARED_PROOF_BYTES

GET_ROUND: Final = GetDocument(document=Pet1Document.ROUND, max_bytes=RECORD_BYTES)
GET_ENROLMENT: Final = GetDocument(document=Pet1Document.ENROLMENT, max_bytes=MAX_ENROLMENT_BYTES)


def get_document(document: Pet1Document, record: RoundRecord, enrolment: Enrolment) -> GetDocument:
    """Return the request for a document of a round, with the size that it can have at most."""
    members, updates = len(enrolment.members), min(record.config.max_model_count, len(enrolment.participants))
    most = {
        Pet1Document.COMMITTEE: _HEAD_BYTES + members * (1 + SUM_MESSAGE_BYTES),
        Pet1Document.MODEL: model_bytes(record),
        Pet1Document.MANIFEST: _HEAD_BYTES + 2 + updates * _MANIFEST_ENTRY_BYTES,
        Pet1Document.CERTIFICATE: _HEAD_BYTES + members * (HEADER_BYTES + DIGEST_BYTES + 4 + updates * _COMPLAINT_BYTES),
    }
    return GetDocument(document=document, max_bytes=most[document])


def model_bytes(record: RoundRecord) -> int:
    """Return the size of the model that a round of this kind ends with: its weights, or with integers all totals."""
    config = record.config
    return record.vector_bytes if config.values is FieldValues.INT else record.model_length * config.dtype.itemsize


def names_digest(data: bytes, digest: bytes) -> bool:
    """Return whether a committee names a record, a manifest its committee, or a certificate its root, with this digest.

    One that is too short to name anything counts as well: its reader says what is wrong with it.
    """
    return len(data) < _HEAD_BYTES or data[MAGIC_BYTES : MAGIC_BYTES + DIGEST_BYTES] == digest


def is_certificate_of(data: bytes, record: RoundRecord) -> bool:
    """Return whether a certificate was signed in a round, judged by its first message alone: the manifest need not be there.

    Raises:
        RemoteProtocolError: "malformed_certificate".
    """
    _, messages = read_checks(data)
    return not messages or coordinator_of(messages[0]) == record.coordinator_key
