"""A peer of a federation in rounds of pet/1: update participant and member with one key, and the ledger that both go by.

    answer = peer.call(number, version)                                 # signed, to the call of a round
    message = peer.join(record, enrolment, calls, now)                  # Sum; None: no member of this round, or not listed
    update = peer.mask(committee, values, weight)
    peer.member.receive_committee(committee), ...                       # as for every member, until
    message = peer.answer(certificate)                                  # Sum2; None: it is silent
    peer.note_result(enrolment, calls)                                  # of any round of which it sees a result

The same statistics are masked in one round after the other. What keeps the sums from showing a single peer are the rules F1 to
F5; this is where each stands between a decision and the message that follows from it, durable in between. No sockets, clock or
threads. A refusal raises, and nothing is sent.

Source: docs/spec/profile.md 6.5, 14.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from numpy.typing import NDArray

from pet.buffers import Buffer
from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, LocalProtocolError, StateError
from pet.masking import Scalar
from pet.pet1.enrolment import split_signed
from pet.pet1.federation import FederationPolicy, read_calls
from pet.pet1.ledger import MIN_CHANGED, LedgerEntry, RoundLedger
from pet.pet1.refusing import require
from pet.protocol import pet1_member, pet1_participant
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import OutgoingUpdate, RoundTerms, UpdateParticipant
from pet.protocol.pet1_peer import open_round

LEDGER: Final = "ledger"

#: Makes one of a peer's states durable, under its name, before it returns; an exception means that it may not be.
NamedStore: TypeAlias = Callable[[str, bytes], None]


class Pet1Peer:
    """One peer, from round to round.

    Attributes:
        member: what it is as a member, if it is one; its committee, headers, manifest and Check are as everywhere.
        ledger: the rounds that count for F5.
        least_changed: peers that every combination of sums must be of, from the next round on.
    """

    def __init__(
        self,
        *,
        signing_key: SigningKeyPair,
        policy: FederationPolicy,
        entropy: Callable[[int], bytes],
        store: NamedStore,
        terms: RoundTerms,
        least_changed: int = MIN_CHANGED,
        saved: Mapping[str, bytes] | None = None,
        threads: int | None = None,
    ) -> None:
        """Start outside any round, or where saved states were.

        Args:
            signing_key: its identity key in this federation, and in no other.
            policy: the admin's key, and the members that it has confirmed.
            entropy: gives as many unpredictable bytes as asked for, from the operating system.
            store: makes each of its states durable, by name.
            terms: what it agrees to in a round's numbers.
            least_changed: peers that every combination of sums must be of; c + 2 bears c colluding ones.
            saved: the states stored last, by name; None before the first.
            threads: how many threads masking may use; None means PET_THREADS, else all cores.

        Raises:
            ConfigError: `least_changed` below 2: a combination of sums could be of one peer.
            StateError: `saved` is no state of this peer, or one of its states is older than another.
        """
        if least_changed < MIN_CHANGED:
            raise ConfigError(f"least_changed: expected {MIN_CHANGED} or more, got {least_changed}")
        saved = saved or {}
        self._key, self._policy, self._store, self.least_changed = signing_key, policy, store, least_changed
        self.ledger = RoundLedger.decode(saved[LEDGER]) if LEDGER in saved else RoundLedger(signing_key.public_key)
        if self.ledger.own != signing_key.public_key:
            raise StateError("saved ledger: expected that of this peer, got another one's")
        self.member: Final = MemberMachine(
            signing_key=signing_key,
            policy=policy,
            entropy=entropy,
            store=lambda state: store(pet1_member.ROLE, state),
            saved=saved.get(pet1_member.ROLE),
            threads=threads,
        )
        self._participant: Final = UpdateParticipant(
            signing_key=signing_key,
            policy=policy,
            entropy=entropy,
            store=lambda state: store(pet1_participant.ROLE, state),
            terms=terms,
            saved=saved.get(pet1_participant.ROLE),
            threads=threads,
        )
        self._joined: LedgerEntry | None = None
        self._require_one_time()

    def _require_one_time(self) -> None:
        """Refuse states of which one was put back to an earlier time: each is stored before what depends on it is sent."""
        called, masked = self.ledger.last_called or 0, self._participant.last_number or 0
        announced = self.member.last_number or 0
        if max(masked, announced) > called:
            raise StateError(f"saved ledger: expected one that knows of round {max(masked, announced)}, got an older one")
        answered = max((entry.number for entry in self.ledger.entries.values() if entry.answered), default=0)
        if answered > min(masked, announced):
            raise StateError(f"saved member: expected one that has answered round {answered}, got an older one")

    def call(self, number: int, version: int) -> bytes:
        """Return its signed answer to the call of a round: from now on it answers no certificate of an older one (F2, F4).

        Args:
            number: of the round.
            version: of its statistics; equal numbers are equal statistics.

        Raises:
            RemoteProtocolError: "wrong_round": a number below that of an earlier call, or the same with another version.
            StateError: it has answered calls that it does not remember, so what it says of earlier rounds would not be true.
        """
        if self.ledger.unknown is not None:
            raise StateError(
                f"saved ledger: expected one that knows of round {self.ledger.unknown}, which this peer was in, got an older"
            )
        called = self.ledger.call(number, version)
        self._save_ledger()
        self.member.note_call(number)
        if self._joined is not None and self._joined.number < number:
            self._joined = None
        return called.sign(self._key)

    def join(self, record: Buffer, enrolment: Buffer, calls: Buffer, now: int) -> bytes | None:
        """Take part in a round whose set shows no single peer (F3, F5).

        Args:
            record: the 192 bytes.
            enrolment: as the leader shows it.
            calls: the answers of all listed peers, one behind the other.
            now: own time, Unix seconds.

        Returns:
            The Sum message; None if no slot is this peer's, or it is not listed: then it is idle.

        Raises:
            RemoteProtocolError: as `open_round` and `read_calls`; "wrong_round" (not the call that it answered last),
                "answered_before", "unseen_result", "too_few_changes", "too_few_again", "unacceptable_terms".
        """
        opened, accepted = open_round(record, enrolment, self._policy, now=now, seen=self.member.seen)
        if not accepted.lists_participant(self._key.public_key):
            return self.member.join(record, enrolment, now)  # notes the enrolment
        answers = read_calls(calls, accepted)
        own = next(call for call in answers if call.peer == self._key.public_key)
        is_last = (own.number, own.version) == (self.ledger.last_called, self.ledger.called_version)
        require(is_last, "wrong_round", f"call: expected the one that was answered last, got that of round {own.number}")
        self.ledger.strike(answers, self.least_changed)
        entry = LedgerEntry.of(accepted.version, answers, accepted.plan, accepted.members)
        self.ledger.require_hidden(answers, self.least_changed)
        message = self.member.join(record, enrolment, now)
        if not self._participant.has_sent(opened):
            self._participant.join(record, enrolment, now)
        self._joined = entry
        return message

    def mask(self, committee: Buffer, values: NDArray[Any], weight: Scalar = 1) -> OutgoingUpdate:
        """Mask the statistics of the version that it has called; that the round is entered is durable when it returns (F1).

        Raises:
            RemoteProtocolError: as `UpdateParticipant.mask` and `RoundLedger.enter`.
            LocalProtocolError: the same; no round was joined.
            ModelError: values that do not fit: none is clipped, as a sum of clipped ones would be another one.
        """
        self.ledger.enter(self._require_joined())
        self._save_ledger()
        return self._participant.mask(committee, values, weight, on_clip="raise")

    def answer(self, certificate: Buffer) -> bytes | None:
        """Answer a certificate; that the round is answered is durable when it returns (F1).

        Returns:
            The Sum2 message; None if the member is silent.

        Raises:
            RemoteProtocolError: as `MemberMachine.answer`.
            LocalProtocolError: the same; no round was joined.
        """
        joined = self._require_joined()
        message = self.member.answer(certificate)
        # Also where the member is silent, which no certificate of all members lets it be: to have answered is the stricter one.
        self.ledger.enter(joined)
        self.ledger.mark(joined.number, answered=True)
        self._save_ledger()
        return message

    def note_result(self, enrolment: Buffer, calls: Buffer) -> None:
        """Note that a round has a result, before it is used, whether this peer was in the round or not (F1).

        Args:
            enrolment: of that round, as its leader showed it.
            calls: the same.

        Raises:
            RemoteProtocolError: as `split_signed`, `read_calls` and `RoundLedger.enter`.
        """
        accepted, _ = split_signed(enrolment)
        answers = read_calls(calls, accepted)
        entry = LedgerEntry.of(accepted.version, answers, accepted.plan, accepted.members)
        self.ledger.note_calls(answers)
        self.ledger.enter(entry)
        self.ledger.mark(entry.number, published=True)
        self._save_ledger()

    def _require_joined(self) -> LedgerEntry:
        if self._joined is None:
            raise LocalProtocolError("peer: expected a round that was joined, and no call of a later one, got none")
        return self._joined

    def _save_ledger(self) -> None:
        self._store(LEDGER, self.ledger.encode())
