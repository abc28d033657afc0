"""A peer's part in one round that was announced to it: which request comes next.

It is a member (pet/participant/member_machine.py) that sends an update as soon as it has seen the committee. Record, enrolment
and calls came with the announcement and are settled, so nothing is asked for them again. Masking is a step of its own: who
drives this notes first what is about to leave the peer.

No sockets and no threads; one lock, as an answer to a call of the next round must not pass between a decision and what is
stored of it.

Source: docs/spec/profile.md 6.5, 7.3, 13.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from numpy.typing import NDArray

from pet.crypto import SigningKeyPair
from pet.errors import RoundError
from pet.masking import Scalar
from pet.participant.enrolments import EnrolmentTrust
from pet.participant.member_machine import MemberStage, MemberSteps
from pet.participant.pet1_documents import names_digest
from pet.participant.pet1_upload import UploadSteps
from pet.pet1.answers import UpdateAccepted, UpdateRefused
from pet.pet1.messages import Pet1Tag
from pet.pet1.round_record import RoundRecord
from pet.protocol.pet1_federation_peer import Pet1Peer
from pet.transports.pet1 import Pet1Document
from pet.transports.pet1_requests import OpenUpdate, Pet1Request, SendPiece

_Stage = MemberStage


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncedRound:
    """What a round is announced with.

    Attributes:
        record: its 192 bytes.
        enrolment: of its peers, with the admin's signature behind it.
        calls: the answers of all of them, one behind the other.
    """

    record: bytes
    enrolment: bytes = field(repr=False)
    calls: bytes = field(repr=False)


class PeerSteps(MemberSteps):
    """One peer in one round.

    Attributes:
        is_done: whether it has sent all that it has to.
    """

    def __init__(
        self,
        peer: Pet1Peer,
        announced: AnnouncedRound,
        sum_message: bytes | None,
        values: NDArray[Any],
        weight: Scalar,
        *,
        signing_key: SigningKeyPair,
        trust: EnrolmentTrust,
        entropy: Callable[[int], bytes],
        lock: threading.Lock,
        max_message_size: int | None = None,
    ) -> None:
        """Go on with a round that was joined.

        Args:
            peer: that has joined it.
            announced: the round.
            sum_message: what `Pet1Peer.join` returned.
            values: what is masked.
            weight: of them.
            signing_key: the peer's identity.
            trust: which enrolments count.
            entropy: gives as many unpredictable bytes as asked for, from the operating system.
            lock: around everything that is done with the peer.
            max_message_size: largest body of a request in bytes; None is unlimited.
        """
        super().__init__(
            peer.member,
            signing_key=signing_key,
            trust=trust,
            entropy=entropy,
            clock=lambda: 0.0,  # the enrolment is judged already
            max_message_size=max_message_size,
        )
        self._federation_peer: Final = peer
        self._lock: Final = lock
        self._values: Final = values
        self._weight: Final = weight
        self._upload: UploadSteps | None = None
        self._committee: bytes | None = None
        self._is_masked = False
        self._is_member = sum_message is not None
        self.record = RoundRecord.from_bytes(announced.record)
        self._sum = sum_message or b""
        self._sent = set() if self._is_member else {Pet1Tag.SUM}
        self._accept(announced.enrolment)
        self.state = _Stage.COMMITTEE

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be sent in this round."""
        return self.state is _Stage.AWAITING and self._upload is None and not self.is_mask_due

    @property
    def is_mask_due(self) -> bool:
        """Whether the committee is there and nothing was masked for it yet."""
        return self._committee is not None and not self._is_masked

    def mask(self) -> None:
        """Mask the values for the committee.

        Raises:
            RemoteProtocolError, LocalProtocolError, ModelError: as `Pet1Peer.mask`.
        """
        committee = self._committee
        assert committee is not None, "it is due"
        with self._lock:
            update = self._federation_peer.mask(committee, self._values, self._weight)
        self._is_masked = True
        self._upload = UploadSteps(update, self._max_message_size)
        self.made_progress = True

    def receive(self, answer: Any) -> None:
        """Take the answer to the last request, and do the work that follows from it.

        Raises:
            LocalProtocolError: a later round was called meanwhile, so this one is over for the peer.
            RoundError: the coordinator refuses the update, or this peer cannot answer.
        """
        with self._lock:
            super().receive(answer)

    def receive_failure(self) -> None:
        """Note that the last request could not be carried out; an update is opened again, to see what has arrived of it."""
        super().receive_failure()
        if self._upload is not None:
            self._upload.reopen()

    def _first_request(self) -> Pet1Request | None:
        return self._next_question() if self._upload is None else self._upload.next_request()

    def _receive_committee(self, answer: bytes) -> Pet1Request | None:
        assert self.record is not None, "it was announced"
        if not names_digest(answer, self.record.digest):
            return self._miss_document(Pet1Document.COMMITTEE)
        request = super()._receive_committee(answer) if self._is_member else None
        self._committee = answer
        if not self._is_member:
            self._move(_Stage.AWAITING)
        return request

    def _receive_answer(self, request: Pet1Request, answer: Any) -> Pet1Request | None:
        if not isinstance(request, OpenUpdate | SendPiece):
            return super()._receive_answer(request, answer)
        upload = self._upload
        assert upload is not None, "answers to an update come to who sends one"
        outcome = upload.receive(answer)
        self.made_progress = upload.made_progress
        if isinstance(outcome, UpdateRefused):
            raise RoundError(f"the update is refused: {outcome.reason}")
        if isinstance(outcome, UpdateAccepted):
            self._upload = None
            self.made_progress = True
        return None

    def _answer(self, certificate: bytes) -> bytes | None:
        return self._federation_peer.answer(certificate)

    def _note_refusal(self, description: str, *, is_too_large: bool) -> None:
        if self._upload is None:
            super()._note_refusal(description, is_too_large=is_too_large)
        elif not is_too_large or self._upload.shorten() is None:
            raise RoundError(f"the update is refused: {description}")
