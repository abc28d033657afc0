"""What participants and members of pet/1 have in common on their way through rounds: which question comes next.

A step asks for the round's record. Another one than before begins a round, in which the enrolment is asked for; the same one
leaves the step to the state. What is refused for good is reported at each step of the round, and nothing else is done in it: a
coordinator that offers less than the enrolment asks for is never obeyed.

No sockets and no threads; the time is given. Source: docs/spec/profile.md 13, 15.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from pet.buffers import Buffer
from pet.crypto import SIGNATURE_BYTES
from pet.errors import LocalProtocolError, RemoteProtocolError
from pet.participant.enrolments import EnrolmentTrust
from pet.participant.pet1_documents import GET_ENROLMENT, GET_ROUND, get_document
from pet.pet1.enrolment import Enrolment, split_signed
from pet.pet1.round_record import RoundRecord
from pet.protocol.participant_events import AnswerRefused, EnrolmentUsed
from pet.transports.pet1 import Pet1Document
from pet.transports.pet1_requests import GetDocument, GetHeaders, OpenUpdate, Pet1Request, SendPiece

#: Events nobody reads must not pile up; a step emits at most four.
_MAX_PENDING_EVENTS: Final = 256
_Event = TypeVar("_Event")


class RoundFollower(ABC, Generic[_Event]):
    """Who takes part in rounds of pet/1, as a machine that says which request it wants next.

        while (request := machine.next_request()) is not None:      # one step
            try:
                answer = carry_out_pet1(transport, request)
            except TransportError:
                machine.receive_failure()       # or receive_refusal, where the same request would be refused again
            else:
                machine.receive(answer)

    Attributes:
        made_progress: whether the last step (or the one under way) changed anything; True before the first.
        record: of the round; None before the first contact.
        enrolment: that the round goes by; None before it was accepted.
    """

    def __init__(self, trust: EnrolmentTrust, clock: Callable[[], float], coordinator_key: bytes | None) -> None:
        """Start outside any round.

        Args:
            trust: which enrolments count.
            clock: the time, Unix seconds.
            coordinator_key: of the coordinator, where it is pinned: whether it is the authority as well is worth a word.
        """
        self.made_progress = True
        self.record: RoundRecord | None = None
        self.enrolment: Enrolment | None = None
        self._trust, self._clock, self._coordinator_key = trust, clock, coordinator_key
        self._events: Final[deque[_Event | AnswerRefused | EnrolmentUsed]] = deque(maxlen=_MAX_PENDING_EVENTS)
        self._request: Pet1Request | None = None
        self._is_step_over = False
        self._refusal: RemoteProtocolError | None = None
        self._description = ""
        #: The enrolment that was accepted last, as served, and its digest: one of a million keys has 32 MB, and rarely changes.
        self._served, self._served_digest = b"", b""
        if trust.pinned is not None:
            self._served, self._served_digest = trust.pinned.to_bytes() + bytes(SIGNATURE_BYTES), trust.pinned.digest
            self._describe(trust.pinned)

    def next_request(self) -> Pet1Request | None:
        """Return what to do over the wire, or None once at the end of each step.

        The same request is returned again until `receive` or `receive_failure` was called.
        """
        if self._is_step_over:
            self._is_step_over = False
            return None
        if self._request is None:
            self.made_progress = False
            self._request = self._first_request()
        return self._request

    def receive(self, answer: Any) -> None:
        """Take the answer to the last request, and do the work that follows from it.

        A bad answer changes nothing and is reported as an `AnswerRefused` event.

        Raises:
            LocalProtocolError: there is no request to answer.
            ModelError: of a participant, weights that cannot be masked.
        """
        request = self._finish_request()
        try:
            self._request = self._handle(request, answer)
        except RemoteProtocolError as error:
            self._events.append(AnswerRefused(request=_name_of(request), reason=error.reason, description=str(error)))
        finally:
            self._is_step_over = self._request is None

    def receive_failure(self) -> None:
        """Note that the last request could not be carried out: the step ends, nothing changes, it will be made again.

        Raises:
            LocalProtocolError: there is no such request.
        """
        self._finish_request()
        self._is_step_over = True

    def receive_refusal(self, description: str, *, is_too_large: bool = False) -> None:
        """Note that the last request was refused, and would be refused again: the step ends.

        Args:
            description: who refused it and why, for people.
            is_too_large: whether it was refused for its size.

        Raises:
            LocalProtocolError: there is no such request.
        """
        request = self._finish_request()
        self._is_step_over = True
        if not isinstance(request, GetDocument | GetHeaders):
            self._note_refusal(description, is_too_large=is_too_large)

    def next_event(self) -> _Event | AnswerRefused | EnrolmentUsed | None:
        """Return the oldest event not returned yet, or None."""
        return self._events.popleft() if self._events else None

    @property
    def protection(self) -> str:
        """Who must collude to read a single update; empty before an enrolment was accepted."""
        return self._description

    @property
    def refusal(self) -> RemoteProtocolError | None:
        """Why nothing more is done in this round; None while something may be."""
        return self._refusal

    def _first_request(self) -> Pet1Request | None:
        """Return what a step begins with; None if there is nothing to do."""
        return GET_ROUND

    @abstractmethod
    def _begin_round(self) -> Pet1Request | None:
        """Give up the round that was; returns what else the step asks for."""

    @abstractmethod
    def _next_question(self) -> Pet1Request | None:
        """Return what the state asks for, now that the round is known to be the same."""

    @abstractmethod
    def _receive_document(self, document: Pet1Document, answer: bytes | None) -> Pet1Request | None:
        """Do what follows from a document that is not the record, or is not there yet; returns what else the step asks for."""

    @abstractmethod
    def _receive_answer(self, request: Pet1Request, answer: Any) -> Pet1Request | None:
        """Do what follows from an answer to what is no question for a document; returns what else the step asks for."""

    @abstractmethod
    def _note_refusal(self, description: str, *, is_too_large: bool) -> None:
        """Do what follows where something that was sent is refused for good."""

    def _ask(self, document: Pet1Document) -> Pet1Request:
        assert self.record is not None, "documents are asked for within a round"
        assert self.enrolment is not None, "and after its enrolment was accepted"
        return get_document(document, self.record, self.enrolment)

    def _ask_for_enrolment(self) -> Pet1Request | None:
        """Return the request for the enrolment that the record names; one that is known is judged again, and not fetched."""
        assert self.record is not None, "documents are asked for within a round"
        if self.record.enrolment_digest == self._served_digest:
            return self._receive_document(Pet1Document.ENROLMENT, self._served)
        return GET_ENROLMENT

    def _accept(self, answer: bytes) -> None:
        """Note the enrolment of the round, which was judged, and say what it means (E4)."""
        self.enrolment = split_signed(answer)[0]
        self._served, self._served_digest = answer, self.enrolment.digest
        self._describe(self.enrolment)

    def _end_with(self, error: RemoteProtocolError) -> None:
        """Do nothing more in this round but report why."""
        self._refusal = error
        self.made_progress = True

    def _finish_request(self) -> Pet1Request:
        if self._request is None:
            raise LocalProtocolError("expected an answer only after next_request returned a request, got one without")
        request, self._request = self._request, None
        return request

    def _handle(self, request: Pet1Request, answer: Any) -> Pet1Request | None:
        if not isinstance(request, GetDocument):
            return self._receive_answer(request, answer)
        if request.document is not Pet1Document.ROUND:
            return self._receive_document(request.document, None if answer is None else bytes(answer))
        return None if answer is None else self._receive_record(answer)

    def _receive_record(self, answer: Buffer) -> Pet1Request | None:
        record = self.record
        if record is not None and record.to_bytes() == answer:
            if self._refusal is not None:
                raise self._refusal
            return self._next_question()
        self.record, self.enrolment, self._refusal = RoundRecord.from_bytes(answer), None, None
        self.made_progress = True
        return self._begin_round()

    def _describe(self, enrolment: Enrolment) -> None:
        """Say who must collude, once for each plan and set of members."""
        description = self._trust.describe(enrolment, self._coordinator_key)
        if description != self._description:
            self._description = description
            self._events.append(EnrolmentUsed(description=description))


def _name_of(request: Pet1Request) -> str:
    match request:
        case GetDocument():
            return request.document.value
        case GetHeaders():
            return "headers"
        case OpenUpdate() | SendPiece():
            return "update"
        case _:
            return "message"
