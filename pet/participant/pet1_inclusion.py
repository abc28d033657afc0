"""The outcome of an update of pet/1 that the coordinator accepted: whether it is in the sum that members certified (U9).

Certificate and manifest are there from the end of their phases until the next round's take their place, so they are asked for
while a participant waits, and once more when a new round has begun.

Source: docs/spec/profile.md 10.4, 13 (U9).
"""

from __future__ import annotations

from typing import Final

from pet.errors import RemoteProtocolError
from pet.participant.pet1_documents import get_document, is_certificate_of
from pet.pet1.enrolment import Enrolment
from pet.pet1.inclusion import Inclusion
from pet.pet1.round_record import RoundRecord
from pet.protocol.pet1_participant import UpdateParticipant
from pet.transports.pet1 import Pet1Document
from pet.transports.pet1_requests import Pet1Request


class InclusionSteps:
    """The questions about the update that was sent last.

    Args:
        peer: who made it.
    """

    def __init__(self, peer: UpdateParticipant) -> None:
        self._peer: Final = peer
        self._round: tuple[RoundRecord, Enrolment] | None = None
        self._certificate = b""

    def begin(self, record: RoundRecord, enrolment: Enrolment) -> None:
        """Ask from now on about the update of this round."""
        self._round = record, enrolment

    def forget(self) -> None:
        """Ask about no update: another one is made, and its header is the one that is known."""
        self._round = None

    def question(self) -> Pet1Request | None:
        """Return what to ask for, if an update's outcome is not known."""
        return None if self._round is None else get_document(Pet1Document.CERTIFICATE, *self._round)

    def receive_certificate(self, answer: bytes, current: RoundRecord | None) -> Pet1Request | None:
        """Take a certificate, which may still be that of the round before the update's.

        Args:
            answer: its bytes.
            current: record of the round that goes on.

        Returns:
            What else to ask for.

        Raises:
            RemoteProtocolError: "malformed_certificate"; nothing more is asked about this update.
        """
        if self._round is None:
            return None
        record, enrolment = self._round
        try:
            is_ours = is_certificate_of(answer, record)
        except RemoteProtocolError:
            self._round = None
            raise
        if is_ours:
            self._certificate = answer
            return get_document(Pet1Document.MANIFEST, record, enrolment)
        if record is not current:
            self._round = None  # it failed before, or the next one was faster
        return None

    def receive_manifest(self, answer: bytes) -> Inclusion:
        """Return whether the update is in the sum; nothing more is asked about it, even if the answer is a bad one.

        Raises:
            RemoteProtocolError: as `UpdateParticipant.find_update`.
        """
        self._round = None
        return self._peer.find_update(answer, self._certificate)
