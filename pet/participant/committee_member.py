"""`CommitteeMember`: a member of committees of pet/1, for callers that block. The third role beside participants.

Source: docs/spec/profile.md 13 (M1 to M9), 14, 15.5.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias, assert_never

from pet.crypto import SigningKeyPair
from pet.errors import (
    BackPressureError,
    ConfigError,
    LocalProtocolError,
    MessageTooLargeError,
    PetError,
    RemoteProtocolError,
    TransportError,
    TransportRefusedError,
)
from pet.participant.back_off import BackOff, Patience
from pet.participant.enrolments import EnrolmentSource, EnrolmentTrust
from pet.participant.member_machine import MemberEvent, MemberJoined, MemberSent, MemberSilent, MemberSteps
from pet.participant.member_state import MemberFile
from pet.participant.status import Contact
from pet.pet1.messages import Pet1Tag
from pet.protocol.participant_events import AnswerRefused, EnrolmentUsed
from pet.protocol.pet1_member import MemberMachine
from pet.transports.base import Transport
from pet.transports.pet1 import Pet1Transport
from pet.transports.pet1_requests import carry_out_pet1
from pet.transports.pinned import parse_coordinator_key

_logger: Final = logging.getLogger(__name__)
_GRACE_SECONDS: Final = 0.5

#: What a member reports.
MemberNews: TypeAlias = MemberEvent | AnswerRefused | EnrolmentUsed


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """How a member is doing.

    Attributes:
        phase: state of the member in the round: "awaiting", "committee", "headers", "certificate", "answer".
        number: of the round; None before the first contact.
        is_member: whether it has a slot in the round.
        is_connected: whether the coordinator gave usable answers at last.
        last_error: why it did not; None while it does.
        protection: who must collude to read a single update; None while no enrolment was accepted.
        answered: rounds that it has answered since it started.
    """

    phase: str
    number: int | None
    is_member: bool
    is_connected: bool
    last_error: PetError | None
    protection: str | None
    answered: int


class CommitteeMember:
    """A member of committees: one Sum, one Check and one answer in a round, each durable before it is sent.

        with pet.CommitteeMember("https://aggregate.example", key, "trial.toml", state_file="member.state") as member:
            member.run()

    Its memory: the share headers of a round (see docs/committees.md), 32 bytes for each seed that it holds, and three vectors
    while it answers.
    """

    def __init__(
        self,
        coordinator: str | Transport,
        signing_key: SigningKeyPair,
        enrolment: EnrolmentSource,
        *,
        state_file: Path | str,
        new: bool = False,
        least_passive: int = 1,
        least_active: int = 1,
        least_updates: int = 3,
        back_off: BackOff | None = None,
        max_message_size: int | None = None,
        max_vector_bytes: int = 1 << 30,
        threads: int | None = None,
        coordinator_key: bytes | str | None = None,
        allow_insecure: bool | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare to take part; nothing is sent before `tick` or `run`.

        Args:
            coordinator: URL of the coordinator, or the way to it. A transport that was given stays open at `close`.
            signing_key: its identity, that of a slot in the enrolment.
            enrolment: which enrolments count: the path of a file, an `Enrolment`, its digest, or the public key of the
                authority that signs it.
            state_file: what the member signed, for its owner only; **not to be restored from a backup**.
            new: begin a state file that was not there; else there has to be one.
            least_passive: see `spawn_participant`.
            least_active: the same.
            least_updates: the same.
            back_off: the waits between ticks.
            max_message_size: largest sealed message in bytes, 194 or more; a larger answer goes out in chunks. None is
                unlimited.
            max_vector_bytes: the longest vector that it answers with, as a coordinator decides how much memory this takes.
            threads: how many threads summing masks may use; None means PET_THREADS, else all cores.
            coordinator_key: public key of the coordinator, 32 bytes or their text.
            allow_insecure: with a URL, as in `HttpTransport`.
            entropy: gives as many unpredictable bytes as asked for.
            clock: the time, Unix seconds.

        Raises:
            ConfigError: URL, enrolment or an option cannot be used, or http:// would be insecure.
            StateError: the state file is missing, in use, there already, damaged, or older than what the member sent.
            MissingExtraError: a URL was given and the extra `http` is not installed.
        """
        trust = EnrolmentTrust.of(
            enrolment, least_passive=least_passive, least_active=least_active, least_updates=least_updates
        )
        if trust.pinned is not None and signing_key.public_key not in trust.pinned.members:
            raise ConfigError(f"signing_key: expected a member's key, got {signing_key.public_key.hex()}")
        key = None if coordinator_key is None else parse_coordinator_key(coordinator_key)
        self._name = f"member {signing_key.public_key.hex()[:8]}"
        self._contact: Final = Contact(f"{self._name}: coordinator")
        self._back_off = back_off or BackOff()
        self._patience: Final = Patience(self._back_off)
        self._owns_transport = isinstance(coordinator, str)
        way = _open(coordinator, key, allow_insecure) if isinstance(coordinator, str) else coordinator
        if not isinstance(way, Pet1Transport):
            raise ConfigError(f"coordinator: expected a transport that speaks pet/1, got {type(way).__name__}")
        self._transport: Final[Pet1Transport] = way
        self._file: Final = MemberFile(state_file, is_new=new)
        self.last_error: PetError | None = None
        self._protection: str | None = None
        self._is_member = False
        self._answered = 0
        self._stop_requested: Final = threading.Event()
        self._is_running = threading.Lock()
        try:
            member = MemberMachine(
                signing_key=signing_key,
                policy=trust.policy,
                entropy=entropy,
                store=self._file.save,
                saved=self._file.saved,
                threads=threads,
            )
            self._steps: Final = MemberSteps(
                member,
                signing_key=signing_key,
                trust=trust,
                entropy=entropy,
                clock=clock,
                max_message_size=max_message_size,
                max_vector_bytes=max_vector_bytes,
                coordinator_key=key,
            )
        except BaseException:
            self._file.close()
            raise
        self._take_events()

    @property
    def status(self) -> MemberStatus:
        """How the member is doing; may be read from any thread."""
        record = self._steps.record
        return MemberStatus(
            phase=self._steps.state.value,
            number=None if record is None else record.number,
            is_member=self._is_member,
            is_connected=self._contact.was_made and self._contact.error is None,
            last_error=self._contact.error,
            protection=self._protection,
            answered=self._answered,
        )

    @property
    def made_progress(self) -> bool:
        """Whether the last tick changed anything; True before the first."""
        return self._steps.made_progress

    def tick(self) -> list[MemberNews]:
        """Do one step, and return what happened. An unreachable coordinator is no error: `last_error` says why.

        Raises:
            StateError: the state cannot be written; nothing that it would have said was sent.
        """
        self.last_error = None
        while (request := self._steps.next_request()) is not None:
            try:
                answer = carry_out_pet1(self._transport, request)
            except TransportError as error:
                self._fail(error)
            else:
                self._steps.receive(answer)
        news = self._take_events()
        self._contact.note(self.last_error)
        return news

    def run(self, on_news: Callable[[MemberNews], None] | None = None) -> None:
        """Take part until `stop` is called. A coordinator that is away is waited for.

        Args:
            on_news: called with what happens, in this thread.

        Raises:
            LocalProtocolError: it runs already.
            PetError: what answers is no coordinator of pet/1, or does not let us in; see `BackOff.waits_for_repair`.
            StateError: the state cannot be written.
        """
        if not self._is_running.acquire(blocking=False):
            raise LocalProtocolError("run: expected to be called once at a time, got a second call")
        delay_seconds = 0.0
        try:
            while not self._stop_requested.wait(self._asked_seconds() + self._back_off.shorten(delay_seconds)):
                news = self.tick()
                if self._stop_requested.is_set():
                    return  # the request under way was ended, which is no fault
                if on_news is not None:
                    for each in news:
                        on_news(each)
                self._patience.note(self.last_error)
                if not self._back_off.waits_for_repair:
                    self._contact.raise_permanent_error()
                delay_seconds = self._back_off.next_seconds(
                    delay_seconds,
                    made_progress=self.made_progress,
                    is_new_round=any(isinstance(each, MemberJoined) for each in news),
                    is_answered=self.last_error is None,
                    has_task=self._is_member,
                )
        finally:
            self._is_running.release()

    def stop(self) -> None:
        """Have `run` return after the step under way; a request that takes longer than half a second is given up.

        What is durable stays so: a member that is started again goes on with the round. May be called from any thread, also in
        a handler of signals.
        """
        self._stop_requested.set()
        if self._owns_transport:
            end_requests_later(self._transport)

    def close(self) -> None:
        """Let others use the state file, and close connections of its own; call it once `run` has returned."""
        self._file.close()
        if self._owns_transport:
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _asked_seconds(self) -> float:
        error = self.last_error
        return (error.retry_after_seconds or 0.0) if isinstance(error, BackPressureError) else 0.0

    def _fail(self, error: TransportError) -> None:
        _logger.debug("%s", error)
        self.last_error = error
        if isinstance(error, TransportRefusedError):
            self._steps.receive_refusal(str(error), is_too_large=isinstance(error, MessageTooLargeError))
        else:
            self._steps.receive_failure()

    def _take_events(self) -> list[MemberNews]:
        news: list[MemberNews] = []
        while (each := self._steps.next_event()) is not None:
            self._note(each)
            news.append(each)
        return news

    def _note(self, news: MemberNews) -> None:
        match news:
            case EnrolmentUsed():
                self._protection = news.description
                _logger.info("%s: %s", self._name, news.description)
            case MemberJoined():
                self._is_member = news.is_member
                _logger.info("%s: round %d%s", self._name, news.number, "" if news.is_member else ": no slot in it")
            case MemberSent():
                self._answered += news.tag is Pet1Tag.SUM2
                _logger.info("%s: round %d: sent %s", self._name, news.number, news.tag.name)
            case MemberSilent():
                _logger.warning("%s: round %d: does not answer: %s", self._name, news.number, news.description)
            case AnswerRefused():
                self.last_error = RemoteProtocolError(news.reason, f"answer refused: {news.description}")
            case _:
                assert_never(news)


def _open(url: str, key: bytes | None, allow_insecure: bool | None) -> Transport:
    from pet.transports.http import HttpTransport  # needs an extra that other transports do without

    return HttpTransport(url, coordinator_key=key, allow_insecure=allow_insecure)


def end_requests_later(transport: Transport) -> None:
    """Give up the requests under way on a transport that can do so, once they had half a second more."""
    end_requests = getattr(transport, "end_requests", None)
    if end_requests is not None:
        timer = threading.Timer(_GRACE_SECONDS, end_requests)
        timer.daemon = True
        timer.start()
