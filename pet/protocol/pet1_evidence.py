"""What a coordinator keeps of rounds in which somebody sent something wrong, to show it to anybody who asks (K6).

That an update was bad follows from these bytes, for anybody: the certificate has the complaint, which proves the shared point
that opens the box in the header. That an answer was wrong follows only beside right ones, which are not kept: what is kept is
what its sender signed.

Source: docs/spec/profile.md 10.4, 11, 13 (K5, K6).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pet.pet1.certificate import read_checks
from pet.pet1.committee import Committee
from pet.pet1.enrolment import split_signed
from pet.pet1.inclusion import find_accusers
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongAnswer:
    """An answer that did not fit the others of its group.

    Attributes:
        slot: whose.
        member: its key.
        message: the Sum2 message, signature first; of one that came in chunks, each of which was signed, the payload alone.
    """

    slot: int
    member: bytes
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Of one round, public bytes as they were served.

    Attributes:
        round_id: its number.
        record: of the round.
        enrolment: with the signature or zeros behind it.
        committee: of the round.
        certificate: with all complaints.
        excluded_headers: the share header of each update that a complaint proves bad.
        wrong_answers: of members that were named.
    """

    round_id: int
    record: bytes = field(repr=False)
    enrolment: bytes = field(repr=False)
    committee: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    excluded_headers: tuple[bytes, ...] = field(repr=False)
    wrong_answers: tuple[WrongAnswer, ...] = ()

    def accused(self) -> dict[bytes, tuple[int, ...]]:
        """Return the slots whose complaints prove an update bad, by its participant, from nothing but these bytes.

        Raises:
            RemoteProtocolError: the bytes are not those of one round.
        """
        enrolment, _ = split_signed(self.enrolment)
        committee = Committee.from_bytes(self.committee, RoundRecord.from_bytes(self.record), enrolment)
        headers = [ShareHeader.from_bytes(data, committee) for data in self.excluded_headers]
        root, messages = read_checks(self.certificate)
        return find_accusers(headers, committee, root, messages, len(enrolment.participants))


class EvidenceStore(Protocol):
    """Keeps evidence; what it holds outlives the process."""

    def keep(self, evidence: Evidence) -> None:
        """Keep evidence in place of what there was of its round; it is durable when this returns."""

    def forget(self, before: int) -> None:
        """Forget rounds with lower numbers."""

    def wrong_members(self) -> frozenset[bytes]:
        """Return the keys of members of whom a wrong answer is kept."""


@dataclass(slots=True)
class MemoryEvidenceStore:
    """Evidence in memory, which does not outlive the process.

    Attributes:
        rounds: by number.
    """

    rounds: dict[int, Evidence] = field(default_factory=dict)

    def keep(self, evidence: Evidence) -> None:
        """Keep evidence in place of what there was of its round."""
        self.rounds[evidence.round_id] = evidence

    def forget(self, before: int) -> None:
        """Forget rounds with lower numbers."""
        self.rounds = {number: evidence for number, evidence in self.rounds.items() if number >= before}

    def wrong_members(self) -> frozenset[bytes]:
        """Return the keys of members of whom a wrong answer is kept."""
        return frozenset(answer.member for evidence in self.rounds.values() for answer in evidence.wrong_answers)
