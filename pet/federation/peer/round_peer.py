"""This peer as a participant and member of rounds: its keys, whom it has confirmed, and what it must have durable.

`Pet1Peer` decides; here it gets its store, the members that its user has confirmed, and how many peers every combination of
sums must be of. One lock is around all of it, so that an answer to a call and an answer to a certificate never cross.

Source: docs/spec/profile.md 6.5, 14, 15.4.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar

from pet.errors import FederationStateError, RemoteProtocolError, SharingError, StateError
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import RoundVector
from pet.federation.peer.earlier_ledger import take_over_ledger
from pet.federation.peer.peer_steps import AnnouncedRound, PeerSteps
from pet.federation.peer.terms_update import MAX_PEERS
from pet.participant.enrolments import EnrolmentTrust
from pet.pet1.enrolment import NAME, split_signed
from pet.pet1.federation import Called, FederationPolicy, read_calls
from pet.pet1.hashes import is_signed_text
from pet.pet1.ledger import MIN_CHANGED
from pet.protocol import pet1_member, pet1_participant
from pet.protocol.pet1_federation_peer import LEDGER, Pet1Peer
from pet.protocol.pet1_participant import RoundTerms

_Item = TypeVar("_Item")
#: How the names of its states begin in the peer's store.
STATES: Final = "pet1."
_RESTORED: Final = "its state was restored from a backup, and it takes no further part; leave the federation and join it again"
#: With as many confirmed members, this peer included, one of them may collude over several rounds.
_MANY_MEMBERS: Final = 5
_MIN_CHANGED_OF_MANY: Final = 3
#: Numbers in stored records are below it.
_MAX_NUMBER: Final = 2**63
#: Rounds in the ledger that later ones can be combined with; a peer that holds more takes part in no further set.
MAX_OPEN_ROUNDS: Final = 256


class RoundPeer:
    """One peer, from round to round; any thread may call it.

    Args:
        context: of this peer.

    Raises:
        StateError: what is stored is damaged, or another peer's.
    """

    def __init__(self, context: PeerContext) -> None:
        self._context: Final = context
        self._lock: Final = threading.Lock()
        take_over_ledger(context)
        self._policy: Final = FederationPolicy(admin=context.admin().signing_key, confirmed=_ConfirmedKeys(context))
        names = (LEDGER, pet1_member.ROLE, pet1_participant.ROLE)
        found = {name: context.store.load_state(STATES + name) for name in names}
        self._peer: Final = Pet1Peer(
            signing_key=context.record.keys.signing,
            policy=self._policy,
            entropy=os.urandom,
            store=lambda name, state: context.store.save_state(STATES + name, state),
            terms=RoundTerms(values=None),
            saved={name: state for name, state in found.items() if state is not None},
        )

    @property
    def least_changed(self) -> int:
        """How many peers every combination of sums must be of.

        Unless the user says it, it grows with the list of members that the user has confirmed, and falls never: an admin that
        removes members must not lower it.
        """
        context = self._context
        confirmed = len(context.record.peers) - len(context.unconfirmed)
        derived = _MIN_CHANGED_OF_MANY if confirmed >= _MANY_MEMBERS else MIN_CHANGED
        if derived > context.counters.least_changed:
            context.counters.least_changed = derived
            context.save()
        return context.least_changed or context.counters.least_changed

    @property
    def last_called(self) -> int:
        """Highest number of a call that was answered; 0 before the first."""
        return self._peer.ledger.last_called or 0

    def call(self, number: int, version: int) -> bytes:
        """Return the signed answer to a call; see `Pet1Peer.call`.

        Raises:
            RemoteProtocolError: "wrong_round".
            FederationStateError: this peer was restored from a backup, and does not know what it has answered.
        """
        with self._lock:
            try:
                return self._peer.call(number, version)
            except StateError as error:
                raise FederationStateError(f"{error}: {_RESTORED}") from None

    def join(self, announced: AnnouncedRound, vector: RoundVector, least_changed: int) -> PeerSteps:
        """Join a round that was announced; see `Pet1Peer.join`.

        Args:
            announced: the round.
            vector: what this peer contributes.
            least_changed: as the property says it, which may save counters.

        Raises:
            SharingError: its sum could be combined with others to show a few peers, or a peer has older statistics again.
            RemoteProtocolError: anything else that is wrong with it.
        """
        context = self._context
        with self._lock:
            self._require_newest(announced)
            self._peer.least_changed = least_changed
            now = int(context.clock.now_seconds())
            try:
                message = self._peer.join(announced.record, announced.enrolment, announced.calls, now)
            except RemoteProtocolError as error:
                if error.reason in ("answered_before", "unseen_result", "too_few_changes", "too_few_again"):
                    raise SharingError(str(error)) from None
                raise
            names = {peer.signing_key: peer.name for peer in context.record.peers}
            return PeerSteps(
                self._peer,
                announced,
                message,
                vector.numbers,
                vector.scalar,
                signing_key=context.record.keys.signing,
                trust=EnrolmentTrust(policy=self._policy, names=names),
                entropy=os.urandom,
                lock=self._lock,
            )

    def note_result(self, enrolment: bytes, calls: bytes) -> tuple[int, dict[bytes, int]]:
        """Note that a round has a result, before it is used.

        Returns:
            The round's number, and the versions in it by key.

        Raises:
            RemoteProtocolError: no enrolment that the admin signed, or not the calls of its peers; numbers that no round
                has, or more rounds than this peer remembers.
        """
        accepted, signature = split_signed(enrolment)
        if not is_signed_text(self._policy.admin, NAME, accepted.to_bytes(), signature):
            raise RemoteProtocolError(
                "unknown_enrolment", "enrolment of a result: expected one signed by the admin, got another"
            )
        ledger, versions = self._peer.ledger, {call.peer: call.version for call in read_calls(calls, accepted)}
        # Peers that the admin invents sign what it likes: numbers that could not be stored, or rounds without end.
        if max(accepted.version, *versions.values()) >= _MAX_NUMBER or len(versions) > MAX_PEERS:
            raise RemoteProtocolError("bad_result", "result: expected numbers below 2^63 of peers of a federation, got others")
        with self._lock:
            ledger.settle(self._peer.least_changed)
            if len(ledger.entries) >= MAX_OPEN_ROUNDS and accepted.version not in ledger.entries:
                raise RemoteProtocolError(
                    "bad_result", f"result: expected at most {MAX_OPEN_ROUNDS} rounds that can be combined, got one more"
                )
            known, before = ledger.unknown, ledger.last_called or 0
            self._peer.note_result(enrolment, calls)
            if known is None and ledger.unknown is not None:
                self._context.log_error(
                    f"This peer was in round {ledger.unknown}, and knows of none after round {before}: {_RESTORED}"
                )
            self._peer.ledger.settle(self._peer.least_changed)
        return accepted.version, versions

    def note_missed(self, enrolment: bytes, calls: bytes) -> None:
        """Note that an earlier round has a result which this peer did not see; nothing for any other round.

        Also of rounds that it was not in: others that were would take part with it only if it knows their sets.

        Raises:
            RemoteProtocolError: as `note_result`.
        """
        if not self._peer.ledger.knows_result(split_signed(enrolment)[0].version):
            self.note_result(enrolment, calls)

    def unaware(self, calls: Sequence[Called]) -> set[bytes]:
        """Return the keys of peers that have missed results; see `RoundLedger.unaware`."""
        with self._lock:
            ledger = self._peer.ledger
            ledger.settle(self._peer.least_changed)
            return ledger.unaware(calls)

    def _require_newest(self, announced: AnnouncedRound) -> None:
        """Refuse what a ledger that forgets cannot judge: older statistics of a peer than are known, or too many rounds."""
        ledger = self._peer.ledger
        ledger.settle(self._peer.least_changed)
        if len(ledger.entries) >= MAX_OPEN_ROUNDS:
            raise SharingError(f"rounds that can be combined: expected at most {MAX_OPEN_ROUNDS}, got one more")
        names = {peer.signing_key: peer.name for peer in self._context.record.peers}
        for call in read_calls(announced.calls, split_signed(announced.enrolment)[0]):
            newest = ledger.newest.get(call.peer, 0)
            if call.version < newest:
                name = names.get(call.peer, call.peer.hex()[:8])
                raise SharingError(f"version of peer {name}: expected {newest} or a later one, got {call.version}")


class _ConfirmedKeys(AbstractSet[bytes]):
    """The keys of the members that a peer's user has confirmed, as the list is now.

    Args:
        context: of the peer.
    """

    def __init__(self, context: PeerContext) -> None:
        self._context: Final = context

    @classmethod
    def _from_iterable(cls, it: Iterable[_Item]) -> AbstractSet[_Item]:
        """Return what a set operation comes to; it no longer follows the list."""
        return frozenset(it)

    def _keys(self) -> frozenset[bytes]:
        return frozenset(peer.signing_key for peer in self._context.record.peers if self._context.is_confirmed(peer))

    def __contains__(self, key: object) -> bool:
        return key in self._keys()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())
