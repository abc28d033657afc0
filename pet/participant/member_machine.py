"""A member of a committee of pet/1 as a machine that says which request it wants next.

What is signed, and that it is durable before it is sent, is `MemberMachine`'s (pet/protocol/pet1_member.py); this file knows
the order of the questions (pet/participant/round_follower.py):

    NEW_ROUND   enrolment -> join                                         -> COMMITTEE, or AWAITING: no member, refused
    COMMITTEE   is the committee there? else Sum is sent, once            -> HEADERS
    HEADERS     headers while they come, manifest, headers to the end     -> CERTIFICATE
    CERTIFICATE is the certificate there? else Check is sent, once        -> ANSWER, or AWAITING: it is silent
    ANSWER      Sum2, in one or in chunks                                 -> AWAITING

What a message leads to is asked for before it is sent: a member that was restarted in the middle of a round sends nothing again
that the coordinator has taken already.

Memory: the headers of a round, 32 bytes for each seed that the member holds, and three vectors while it answers. A coordinator
cannot enlarge it: headers are signed by enrolled participants, one each, and the length of a vector has a bound.

Source: docs/spec/profile.md 13 (M1 to M9), 15.1.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from pet.crypto import SigningKeyPair
from pet.errors import RemoteProtocolError
from pet.participant.enrolments import EnrolmentTrust
from pet.participant.member_outbox import MemberOutbox
from pet.participant.pet1_documents import names_digest
from pet.participant.round_follower import RoundFollower
from pet.pet1.hashes import digest
from pet.pet1.header_batch import HeaderBatch
from pet.pet1.messages import Pet1Tag
from pet.pet1.refusing import require
from pet.protocol.participant_checks import MAX_VECTOR_BYTES
from pet.protocol.participant_events import SendMessage
from pet.protocol.pet1_member import MemberMachine
from pet.transports.pet1 import Pet1Document
from pet.transports.pet1_requests import GetHeaders, Pet1Request

_MESSAGE_ID_BYTES: Final = 2


class MemberStage(enum.Enum):
    """Where a member is in the round."""

    AWAITING = "awaiting"  # nothing to do before the next round
    NEW_ROUND = "new_round"  # whether it is a member of this one is not known yet
    COMMITTEE = "committee"  # waits for the committee
    HEADERS = "headers"  # takes headers, and waits for the manifest
    CERTIFICATE = "certificate"  # waits for the certificate
    ANSWER = "answer"  # sends its share


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MemberJoined:
    """A round began; whether the member has a slot in it."""

    number: int
    is_member: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSent:
    """A message reached the coordinator: Sum, Check or Sum2. Whether it was accepted cannot be known.

    Attributes:
        number: of the round.
        tag: which message.
        complaint_count: updates of the round whose box for this member is bad.
    """

    number: int
    tag: Pet1Tag
    complaint_count: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSilent:
    """The member does not answer in this round: it lacks a good seed of an agreed update, or its answer is not taken."""

    number: int
    description: str


MemberEvent: TypeAlias = MemberJoined | MemberSent | MemberSilent
_State = MemberStage


class MemberSteps(RoundFollower[MemberEvent]):
    """One member, from round to round.

    Attributes:
        state: where it is in the round.
    """

    def __init__(
        self,
        member: MemberMachine,
        *,
        signing_key: SigningKeyPair,
        trust: EnrolmentTrust,
        entropy: Callable[[int], bytes],
        clock: Callable[[], float],
        max_message_size: int | None = None,
        max_vector_bytes: int = MAX_VECTOR_BYTES,
        coordinator_key: bytes | None = None,
    ) -> None:
        """Start outside any round, or where the member was.

        Args:
            member: what signs, and judges what it is shown.
            signing_key: its identity, that of a slot.
            trust: which enrolments count.
            entropy: gives as many unpredictable bytes as asked for, from the operating system.
            clock: the time, Unix seconds.
            max_message_size: largest sealed message in bytes, 194 or more; a larger Sum2 goes out in chunks. None is unlimited.
            max_vector_bytes: the longest vector that it answers with.
            coordinator_key: of the coordinator, where it is pinned.
        """
        super().__init__(trust, clock, coordinator_key)
        self.state = _State.AWAITING
        self._key, self._entropy = signing_key, entropy
        self._max_message_size, self._max_vector_bytes = max_message_size, max_vector_bytes
        self._peer: Final = member
        self._clear()

    def _clear(self) -> None:
        """Forget what belonged to a round."""
        self._outbox: MemberOutbox | None = None
        self._sent = set[Pet1Tag]()
        self._sum = self._committee_digest = self._root = self._manifest = b""
        self._header_count = 0

    def _begin_round(self) -> None:
        """Erase what belongs to the round before, also where this one has no slot for the member, or is refused."""
        assert self.record is not None, "its record came"
        self._peer.end_other_round(self.record.digest)
        self._clear()
        self._move(_State.NEW_ROUND)

    def _next_question(self) -> Pet1Request | None:
        match self.state:
            case _State.NEW_ROUND:
                return self._ask_for_enrolment()
            case _State.COMMITTEE:
                return self._ask(Pet1Document.COMMITTEE)
            case _State.HEADERS:
                return GetHeaders(after=self._header_count)
            case _State.CERTIFICATE:
                return self._ask(Pet1Document.CERTIFICATE)
            case _State.ANSWER if self._outbox is not None:
                return SendMessage(body=self._outbox.body)
            case _:
                return None

    def _receive_document(self, document: Pet1Document, answer: bytes | None) -> Pet1Request | None:
        if answer is None:
            return self._miss_document(document)
        match document:
            case Pet1Document.ENROLMENT:
                self._receive_enrolment(answer)
            case Pet1Document.COMMITTEE:
                return self._receive_committee(answer)
            case Pet1Document.MANIFEST:
                self._receive_manifest(answer)
            case _:
                return self._receive_certificate(answer)
        return None

    def _miss_document(self, document: Pet1Document) -> Pet1Request | None:
        """Send what the document is made of, once: it is not there yet, so the phase may still go on."""
        if document is Pet1Document.COMMITTEE and Pet1Tag.SUM not in self._sent:
            return self._send(Pet1Tag.SUM, lambda: self._sum)
        if document is Pet1Document.CERTIFICATE and Pet1Tag.CHECK not in self._sent:
            return self._send(Pet1Tag.CHECK, self._peer.sign_check)
        return None

    def _receive_enrolment(self, answer: bytes) -> None:
        record = self.record
        assert record is not None, "the enrolment is asked for after the record"
        try:
            size, most = record.vector_bytes, self._max_vector_bytes
            require(size <= most, "unacceptable_terms", f"round record: expected vectors of at most {most} bytes, got {size}")
            message = self._peer.join(record.to_bytes(), answer, int(self._clock()))
        except RemoteProtocolError as error:
            # An answer that was garbled on its way is asked for again; another one is the coordinator's last word.
            if error.reason != "malformed_enrolment":
                self._end_with(error)
            raise
        self._accept(answer)
        self._sum = message or b""
        self._move(_State.AWAITING if message is None else _State.COMMITTEE)
        self._events.append(MemberJoined(number=record.number, is_member=message is not None))

    def _receive_committee(self, answer: bytes) -> Pet1Request | None:
        assert self.record is not None, "the committee is asked for within a round"
        if not names_digest(answer, self.record.digest):
            return self._miss_document(Pet1Document.COMMITTEE)
        try:
            self._peer.receive_committee(answer)
        except RemoteProtocolError as error:
            if error.reason == "wrong_committee":
                self._end_with(error)  # M3: nothing more in this round
            raise
        self._outbox = None
        self._committee_digest = digest("pet-1 committee", answer)
        self._move(_State.HEADERS)
        return None

    def _receive_answer(self, request: Pet1Request, answer: Any) -> Pet1Request | None:
        if isinstance(request, GetHeaders):
            return self._receive_headers(request.after, answer)
        self._finish_part()
        return None

    def _receive_headers(self, after: int, batch: HeaderBatch) -> Pet1Request | None:
        """Take headers as they come; the manifest, once it is there and no header is left to be fetched."""
        assert self.enrolment is not None, "headers are asked for after the enrolment was accepted"
        count, most = len(batch.headers), len(self.enrolment.participants)
        is_counted = batch.next_number == after + count <= most
        require(is_counted, "malformed_headers", f"share headers: expected the {most} of all participants at most, got more")
        if count == 0:
            if not self._manifest:
                return self._ask(Pet1Document.MANIFEST)
            manifest, self._manifest = self._manifest, b""
            self._peer.receive_manifest(manifest)
            self._root = digest("pet-1 manifest", manifest)
            self._move(_State.CERTIFICATE)
            return None
        self._header_count = batch.next_number
        self.made_progress = True
        bad = [error for header in batch.headers if (error := self._refuse_header(header)) is not None]
        if bad:
            raise bad[0]  # the others were taken; a manifest that lists this one is refused
        return None

    def _refuse_header(self, header: bytes) -> RemoteProtocolError | None:
        try:
            self._peer.receive_header(header)
        except RemoteProtocolError as error:
            return error
        return None

    def _receive_manifest(self, answer: bytes) -> None:
        """Hold the manifest until all headers are fetched: some may have come since they were asked for last."""
        if names_digest(answer, self._committee_digest):
            self._manifest = answer
            self.made_progress = True

    def _receive_certificate(self, answer: bytes) -> Pet1Request | None:
        if not names_digest(answer, self._root):
            return self._miss_document(Pet1Document.CERTIFICATE)
        message = self._answer(answer)
        if message is None:
            self._fall_silent("it lacks a good seed of an update that was agreed on")
            return None
        self._outbox = None
        self._move(_State.ANSWER)
        return self._send(Pet1Tag.SUM2, lambda: message)

    def _answer(self, certificate: bytes) -> bytes | None:
        """Return the Sum2 message, durable before it is sent; None if the member is silent."""
        return self._peer.answer(certificate)

    def _send(self, tag: Pet1Tag, sign: Callable[[], bytes]) -> Pet1Request:
        """Return the request that sends a message; one that is on its way already goes on."""
        if self._outbox is None:
            message_id = int.from_bytes(self._entropy(_MESSAGE_ID_BYTES), "big")
            self._outbox = MemberOutbox(tag, sign(), self._key, self._max_message_size, message_id)
        return SendMessage(body=self._outbox.body)

    def _finish_part(self) -> None:
        """Go on to the next part of the message, or after the last one to what it leads to."""
        outbox, record = self._outbox, self.record
        assert outbox is not None, "parts come out of the outbox"
        assert record is not None, "within a round"
        self.made_progress = True
        if outbox.advance():
            return
        self._outbox = None
        self._sent.add(outbox.tag)
        self._events.append(MemberSent(number=record.number, tag=outbox.tag, complaint_count=self._peer.complaint_count))
        if outbox.tag is Pet1Tag.SUM2:
            self._move(_State.AWAITING)

    def _note_refusal(self, description: str, *, is_too_large: bool) -> None:
        """Send an answer in chunks if it was refused for its size; another refusal ends the round for the member."""
        assert self._outbox is not None, "only messages are sent"
        if is_too_large and (size := self._outbox.split()) is not None:
            self._max_message_size = size
            self.made_progress = True
        else:
            self._fall_silent(description)

    def _fall_silent(self, description: str) -> None:
        assert self.record is not None, "within a round"
        self._outbox = None
        self._move(_State.AWAITING)
        self._events.append(MemberSilent(number=self.record.number, description=description))

    def _move(self, state: MemberStage) -> None:
        self.state = state
        self.made_progress = True
