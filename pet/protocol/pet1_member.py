"""A member of a committee of pet/1: one Sum, one Check and one answer in a round, each durable before it is sent.

    message = member.join(record_bytes, enrolment_bytes, now)     # Sum; None: no member of this round
    member.receive_committee(committee_bytes)
    member.receive_header(header_bytes)                           # each, while they come
    member.receive_manifest(manifest_bytes)
    message = member.sign_check()                                 # Check, with all complaints
    message = member.answer(certificate_bytes)                    # Sum2; None: it is silent

The messages are signed; who sends them seals them. No sockets, clock or threads; entropy is given at construction. A refusal
raises and changes nothing, but for a committee without the member's own Sum message: then it does nothing more in the round.

Source: docs/spec/profile.md 13 (M1 to M9), 14.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from pet import edwards, shares
from pet.buffers import Buffer
from pet.crypto import SigningKeyPair
from pet.errors import LocalProtocolError, RemoteProtocolError, StateError
from pet.pet1 import proofs
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check, build_sum2, judge_complaint
from pet.pet1.committee import SUM_MESSAGE_BYTES, Committee, build_sum
from pet.pet1.enrolment import Enrolment, SeenEnrolment
from pet.pet1.hashes import DIGEST_BYTES
from pet.pet1.manifest import UpdateManifest
from pet.pet1.refusing import require
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader, derive_mask_seed
from pet.protocol.pet1_peer import PeerState, Policy, Store, open_round
from pet.secret import hidden

ROLE: Final = "member"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSecrets:
    """What a member keeps durable of a round, until it ends.

    Attributes:
        record: digest of the round's record.
        scalar: a; P = a * B.
        sum_message: its Sum message.
        root: that it signed, or answered a certificate of; empty before.
        check_message: its Check message; empty before.
        certificate: digest of the one that it answered; empty before.
    """

    record: bytes
    scalar: bytes = hidden()
    sum_message: bytes = field(repr=False)
    root: bytes = b""
    check_message: bytes = field(default=b"", repr=False)
    certificate: bytes = b""

    def encode(self) -> dict[str, str]:
        """Return it as texts by name."""
        return {name: getattr(self, name).hex() for name in self.__slots__}

    @classmethod
    def decode(cls, texts: dict[str, str]) -> MemberSecrets:
        """Read what `encode` wrote.

        Raises:
            StateError: sizes that cannot be.
        """
        secrets = cls(**{name: bytes.fromhex(text) for name, text in texts.items()})
        sizes = len(secrets.record), len(secrets.scalar), len(secrets.sum_message)
        if sizes != (DIGEST_BYTES, edwards.SCALAR_BYTES, SUM_MESSAGE_BYTES):
            raise StateError(f"round: expected fields of 32, 32 and {SUM_MESSAGE_BYTES} bytes, got {sizes}")
        return secrets


@dataclass(slots=True, kw_only=True)
class _Opened:
    """A round as the member sees it: public objects, and the seeds that it opened.

    Attributes:
        slot: its own.
        headers: those that passed S1 to S7, by participant.
        senders: their participants, by the whole header: one that is served again is not checked again.
        seeds: of its parts, by participant, from good boxes.
        complaints: about bad boxes.
    """

    record: RoundRecord
    enrolment: Enrolment
    slot: int
    committee: Committee | None = None
    headers: dict[bytes, ShareHeader] = field(default_factory=dict)
    senders: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    seeds: dict[bytes, dict[int, bytes]] = hidden(default_factory=dict)  # noqa: RUF009  # it is `field`
    complaints: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    manifest: UpdateManifest | None = None


class MemberMachine:
    """One member, from round to round."""

    def __init__(
        self,
        *,
        signing_key: SigningKeyPair,
        policy: Policy,
        entropy: Callable[[int], bytes],
        store: Store,
        saved: bytes | None = None,
        threads: int | None = None,
    ) -> None:
        """Start outside any round, or where a saved state was.

        Args:
            signing_key: its identity, that of a slot.
            policy: what it asks of enrolments.
            entropy: gives as many unpredictable bytes as asked for, from the operating system.
            store: makes its state durable before it returns.
            saved: the state stored last; None before the first.
            threads: how many threads summing masks may use; None means PET_THREADS, else all cores.

        Raises:
            StateError: `saved` is no state of a member.
        """
        self._key, self._policy, self._entropy, self._store = signing_key, policy, entropy, store
        self._threads = threads
        self._state = PeerState(role=ROLE) if saved is None else PeerState.decode(saved, ROLE)
        self._opened: _Opened | None = None
        self._secrets: MemberSecrets | None = None
        if self._state.secrets:
            with StateError.reading(f"saved {ROLE}"):
                self._secrets = MemberSecrets.decode(dict(self._state.secrets))

    @property
    def seen(self) -> SeenEnrolment | None:
        """The newest enrolment that was used; None before the first."""
        return self._state.seen

    @property
    def last_number(self) -> int | None:
        """Highest number of a round that it announced a point for."""
        return self._state.last_number

    @property
    def complaint_count(self) -> int:
        """Updates of the round whose box for this member is bad."""
        return 0 if self._opened is None else len(self._opened.complaints)

    def join(self, record: Buffer, enrolment: Buffer, now: int) -> bytes | None:
        """Announce a fresh point for a round (M1, M2); the same message again for the same round.

        A, seeds and answers of the round before are erased (M9).

        Args:
            record: the 192 bytes.
            enrolment: as it is served.
            now: own time, Unix seconds.

        Returns:
            The Sum message; None if no slot is this member's.

        Raises:
            RemoteProtocolError: as `open_round`; "wrong_round": a number that is not above the last one.
        """
        opened, accepted = open_round(record, enrolment, self._policy, now=now, seen=self._state.seen)
        seen = SeenEnrolment(accepted.version, accepted.digest)
        if self._key.public_key not in accepted.members:
            self._save(self._secrets, replace(self._state, seen=seen))
            return None
        slot = accepted.members.index(self._key.public_key)
        if self._secrets is not None and self._secrets.record == opened.digest:
            if self._opened is None:
                self._opened = _Opened(record=opened, enrolment=accepted, slot=slot)
            return self._secrets.sum_message
        last = self._state.last_number
        is_new = last is None or opened.number > last
        require(is_new, "wrong_round", f"round record: expected a number above {last}, got {opened.number}")
        scalar = edwards.reduce_scalar(self._entropy(edwards.WIDE_BYTES))
        message = build_sum(self._key, opened, slot, edwards.multiply_base(scalar))
        state = replace(self._state, last_number=opened.number, seen=seen)
        self._save(MemberSecrets(record=opened.digest, scalar=scalar, sum_message=message), state)
        self._opened = _Opened(record=opened, enrolment=accepted, slot=slot)
        return message

    def receive_committee(self, data: Buffer) -> None:
        """Take the committee of the round (M3).

        Raises:
            RemoteProtocolError: as `Committee.from_bytes`, with the state as before; "wrong_committee": it is another one than
                the first, or has not this member's Sum message unchanged. Then the member ends the round for itself.
            LocalProtocolError: no round was joined.
        """
        opened, secrets = self._require_opened()
        if opened.committee is not None and opened.committee.to_bytes() == data:
            return
        committee = Committee.from_bytes(data, opened.record, opened.enrolment)
        if opened.committee is None and committee.sums[opened.slot] == secrets.sum_message:
            opened.committee = committee
        else:
            self.end_round()
            raise RemoteProtocolError("wrong_committee", "committee: expected one, with the own Sum message in it, got another")

    def receive_header(self, data: Buffer) -> bytes:
        """Take a share header, check it (M4), and open the box that is for this member.

        Returns:
            The participant's key.

        Raises:
            RemoteProtocolError: as `ShareHeader.from_bytes`; "update_already_submitted": another header of its participant.
            LocalProtocolError: there is no committee yet.
        """
        opened, secrets, committee = self._require_committee()
        data = bytes(data)
        if data in opened.senders:
            return opened.senders[data]
        header = ShareHeader.from_bytes(data, committee)
        is_first = header.participant not in opened.headers
        require(is_first, "update_already_submitted", "share header: expected one of each participant, got another one")
        shared = edwards.multiply(secrets.scalar, header.point)
        assert shared is not None, "a point of prime order times a scalar that is not zero"
        seeds = header.open_box(committee, opened.slot, shared)
        if seeds is None:
            opened.complaints[header.participant] = self._complain(header, committee, opened.slot, secrets)
        else:
            opened.seeds[header.participant] = seeds
        opened.headers[header.participant] = header
        opened.senders[data] = header.participant
        return header.participant

    def _complain(self, header: ShareHeader, committee: Committee, slot: int, secrets: MemberSecrets) -> bytes:
        """Prove that a box is bad, and look at the proof as others will (M5)."""
        point = edwards.multiply_base(secrets.scalar)
        proof = proofs.prove_shared(secrets.scalar, point, header.point, slot, header.context)
        judge_complaint(proof, header, committee, slot)
        return proof

    def receive_manifest(self, data: Buffer) -> None:
        """Take the list of the round's updates, whose headers have come.

        Raises:
            RemoteProtocolError: as `UpdateManifest.from_bytes`; "wrong_root": another one than was signed, or taken before.
            LocalProtocolError: there is no committee yet.
        """
        opened, secrets, committee = self._require_committee()
        manifest = UpdateManifest.from_bytes(data, committee, opened.headers)
        is_first = secrets.root in (b"", manifest.root) and opened.manifest in (None, manifest)
        require(is_first, "wrong_root", "manifest: expected the one that was taken before, got another")
        opened.manifest = manifest

    def sign_check(self) -> bytes:
        """Sign the manifest's root, with all complaints about its updates: once a round (M5); then the same message again.

        Raises:
            LocalProtocolError: there is no manifest yet.
        """
        opened, secrets, _, manifest = self._require_manifest()
        if not secrets.check_message:
            complaints = {key: proof for key, proof in opened.complaints.items() if key in manifest.headers}
            message = build_check(self._key, opened.record, manifest.root, complaints)
            self._save(replace(secrets, root=manifest.root, check_message=message), self._state)
            return message
        return secrets.check_message

    def answer(self, data: Buffer) -> bytes | None:
        """Answer a certificate with the member's share of the total mask: one certificate a round (M6 to M8).

        Args:
            data: the certificate.

        Returns:
            The Sum2 message; None if this member has not a good seed of each agreed update: it is silent (M7).

        Raises:
            RemoteProtocolError: as `Certificate.from_bytes`; "wrong_certificate": another one was answered.
            LocalProtocolError: there is no manifest yet.
        """
        opened, secrets, committee, manifest = self._require_manifest()
        certificate = Certificate.from_bytes(data, committee, manifest)
        digest = certificate.digest
        is_first = secrets.certificate in (b"", digest)
        require(is_first, "wrong_certificate", "certificate: expected the one that was answered, got another")
        if not opened.seeds.keys() >= set(certificate.agreed):
            return None
        contexts = {key: manifest.headers[key].context for key in certificate.agreed}
        masks = {
            part: [derive_mask_seed(opened.seeds[key][part], context, part) for key, context in contexts.items()]
            for part in committee.plan.held_parts(opened.slot)
        }
        record = opened.record
        share = shares.derive_share(
            committee.plan, opened.slot, masks, record.config, record.model_length, threads=self._threads
        )
        # The root as well: a member that came late, and has signed none, must know no other one after a restart.
        self._save(replace(secrets, root=manifest.root, certificate=digest), self._state)
        return build_sum2(self._key, record, digest, share)

    def note_call(self, number: int) -> None:
        """Note, before it is sent, an answer to the call of a federation's round: no older one is answered from then on (F4).

        Args:
            number: of the round that is called.
        """
        last = self._state.last_number
        if number > 0 and (last is None or last < number):
            self._opened = None
            self._save(None, replace(self._state, last_number=number - 1))

    def end_other_round(self, record: bytes) -> None:
        """Erase what belongs to a round that is over, as another one is announced (M9); nothing if it is the same.

        Args:
            record: digest of the record that is announced.
        """
        if self._secrets is not None and self._secrets.record != record:
            self.end_round()

    def end_round(self) -> None:
        """Erase what belongs to the round (M9); it is never answered again."""
        self._opened = None
        self._save(None, self._state)

    def _save(self, secrets: MemberSecrets | None, state: PeerState) -> None:
        state = replace(state, secrets={} if secrets is None else secrets.encode())
        self._store(state.encode())
        self._state, self._secrets = state, secrets

    def _require_opened(self) -> tuple[_Opened, MemberSecrets]:
        if self._opened is None or self._secrets is None:
            raise LocalProtocolError("member: expected a round that was joined, got none")
        return self._opened, self._secrets

    def _require_committee(self) -> tuple[_Opened, MemberSecrets, Committee]:
        opened, secrets = self._require_opened()
        if opened.committee is None:
            raise LocalProtocolError("member: expected the committee of the round first, got none")
        return opened, secrets, opened.committee

    def _require_manifest(self) -> tuple[_Opened, MemberSecrets, Committee, UpdateManifest]:
        opened, secrets, committee = self._require_committee()
        if opened.manifest is None:
            raise LocalProtocolError("member: expected the manifest of the round first, got none")
        return opened, secrets, committee, opened.manifest
