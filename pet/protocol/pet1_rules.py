"""How rounds of pet/1 run: what each message does, what each phase publishes, and the result.

The coordinator is never trusted for confidentiality: what is checked here keeps rubbish out and names who sent it. Peers check
everything again.

Source: docs/spec/profile.md 7, 10 to 13 (K1 to K4, K6 to K8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np

from pet import parallel_fields
from pet.crypto import EncryptionKeyPair
from pet.errors import RemoteProtocolError, StateError, UnmaskError
from pet.field_model import FieldModel
from pet.mask_choices import FieldValues
from pet.mask_config import MaskConfigPair
from pet.messages import HEADER_BYTES, HeadCheck, Message, MessageTag
from pet.pet1.certificate import Certificate
from pet.pet1.checks import parse_sum2, read_check
from pet.pet1.committee import Committee, read_sum
from pet.pet1.hashes import DIGEST_BYTES, digest
from pet.pet1.leaves import LEAF_BYTES
from pet.pet1.messages import Pet1Tag
from pet.pet1.payloads import PET1_PAYLOADS, Pet1Payload, open_pet1_message
from pet.pet1.refusing import require
from pet.protocol.pet1_entries import Pet1Entry, SlotEntry, UploadEntry
from pet.protocol.pet1_evidence import Evidence, EvidenceStore, MemoryEvidenceStore, WrongAnswer
from pet.protocol.pet1_leaf_store import LeafStore, MemoryLeafStore
from pet.protocol.pet1_publications import (
    Pet1Publication,
    TotalPublished,
    announce_round,
    pack_model,
    publish_certificate,
    publish_committee,
    publish_header,
    publish_manifest,
)
from pet.protocol.pet1_round import Pet1Round, Pet1Settings, windows_of
from pet.protocol.phases import PET1_PHASES, Phase
from pet.protocol.profile import CollectingWindow, Profile, RoundFailure, RoundRules, RoundStart
from pet.shares import recover_mask

#: Random bytes of a round: its key pair, then its seed.
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Pet1Rules(RoundRules[Pet1Settings, Pet1Round, Pet1Entry, Pet1Publication]):
    """The rules of pet/1.

    Attributes:
        store: where leaves are until the model is out.
        evidence: where it is kept who sent something wrong.
        threads: how many threads adding may use; None means PET_THREADS, else all cores.
    """

    store: LeafStore = field(default_factory=MemoryLeafStore)
    evidence: EvidenceStore = field(default_factory=MemoryEvidenceStore)
    threads: int | None = None

    def windows(self, settings: Pet1Settings, current: Pet1Round | None, /) -> Mapping[Phase, CollectingWindow]:
        """Return when each phase ends; before the first round there is none."""
        return {} if current is None else windows_of(settings, current)

    def begin(self, settings: Pet1Settings, start: RoundStart[Pet1Round]) -> tuple[Pet1Round, bytes, Sequence[Pet1Publication]]:
        """Draw the key pair and the seed of a round, and announce its record."""
        self.evidence.forget(start.round_id - settings.evidence_rounds)
        keys = EncryptionKeyPair.from_seed(start.entropy(_KEY_BYTES))
        seed, model_digest = start.entropy(_KEY_BYTES), _model_digest(settings, start.previous)
        record = settings.record(start.round_id, keys.public_key, seed, model_digest)
        current = Pet1Round.begin(keys, record, settings.served_enrolment, start.chunk_store)
        return current, record.seed, [announce_round(start.round_id, current)]

    def require_first(self, current: Pet1Round, participant_public_key: bytes, _tag: MessageTag) -> None:
        """Refuse a second answer of a member; the only kind of message that comes in chunks.

        Raises:
            RemoteProtocolError: "mask_already_submitted".
        """
        members = current.enrolment.members
        slot = members.index(participant_public_key) if participant_public_key in members else None
        is_first = slot not in current.answers
        require(is_first, "mask_already_submitted", "sum2: expected one answer of each member, got another one")

    def admit(self, current: Pet1Round, participant_public_key: bytes, tag: MessageTag) -> None:
        """Keep no chunk of who is no member, or has answered.

        Raises:
            RemoteProtocolError: "not_a_member", "mask_already_submitted".
        """
        _require_slot(current, participant_public_key)
        self.require_first(current, participant_public_key, tag)

    def head_check(self, current: Pet1Round, _participant_public_key: bytes, _tag: MessageTag, /) -> HeadCheck | None:
        """Have the certificate looked at that an answer begins with, before the rest of its chunks is kept."""
        assert current.certificate is not None, "the phase comes after Check"
        named = current.certificate.digest

        def check(head: bytes) -> None:
            require(head == named, "wrong_certificate", "sum2 payload: expected this round's certificate, got another")

        return HeadCheck(DIGEST_BYTES, check)

    def check_sender(self, current: Pet1Round, message: Message, _payload: object) -> None:
        """Check a whole Sum message; what others may say depends on what has come.

        Raises:
            RemoteProtocolError: as `read_sum`.
        """
        if message.tag is Pet1Tag.SUM:
            read_sum(message.signed_bytes or b"", current.record, current.enrolment)

    def take(self, current: Pet1Round, message: Message, payload: object) -> Pet1Entry | None:
        """Take a message, or a complete update.

        Returns:
            What it left; None for a Sum message that is in the round already.

        Raises:
            RemoteProtocolError: the reasons of docs/spec/profile.md 7.2, 10.2 and 10.5; the round is as before.
        """
        if message.tag is Pet1Tag.UPDATE:
            # It was judged leaf by leaf (pet/protocol/pet1_updates.py); all that is left is to count it.
            participant = message.participant_public_key
            current.count_update(participant)
            return UploadEntry(participant, current.uploads[participant].message)
        assert isinstance(payload, Pet1Payload), "the codec of the profile decodes nothing else"
        if message.tag is Pet1Tag.SUM:
            return self._take_sum(current, message)
        if message.tag is Pet1Tag.CHECK:
            return self._take_check(current, message.signed_bytes or b"")
        return self._take_sum2(current, message.participant_public_key, payload)

    def _take_sum(self, current: Pet1Round, message: Message) -> SlotEntry | None:
        slot, signed = current.enrolment.members.index(message.participant_public_key), message.signed_bytes or b""
        known = current.sums.get(slot)
        require(known in (None, signed), "already_registered", f"sum: expected one message for slot {slot}, got another one")
        current.sums[slot] = signed
        return SlotEntry(Pet1Tag.SUM, slot, (signed,)) if known is None else None

    def _take_check(self, current: Pet1Round, signed: bytes) -> SlotEntry:
        assert current.committee is not None, "the phase comes after Sum"
        assert current.manifest is not None, "the phase comes after Update"
        slot, _ = read_check(signed, current.committee, current.manifest)
        is_first = slot not in current.checks
        require(is_first, "check_already_submitted", "check: expected one message of each member, got another one")
        current.checks[slot] = signed
        return SlotEntry(Pet1Tag.CHECK, slot, (signed,))

    def _take_sum2(self, current: Pet1Round, sender: bytes, payload: Pet1Payload) -> SlotEntry:
        assert current.certificate is not None, "the phase comes after Check"
        slot = _require_slot(current, sender)
        self.require_first(current, sender, Pet1Tag.SUM2)
        current.answers[slot] = parse_sum2(payload.data, current.record, current.certificate.digest)
        current.heads[slot] = payload.head
        return SlotEntry(Pet1Tag.SUM2, slot, (payload.head or bytes(HEADER_BYTES), payload.data))

    def unfinished(self, current: Pet1Round, phase: Phase, /) -> Sequence[str]:
        """Forget updates that are not complete when their phase ends: nothing of them was added (K8)."""
        if phase is not Phase.UPDATE:
            return ()
        left = [participant for participant, upload in current.uploads.items() if not upload.is_counted]
        dropped = [current.uploads.pop(participant) for participant in left]
        return ["incomplete_update" for upload in dropped if not upload.is_dead]

    def end_phase(self, round_id: int, current: Pet1Round, phase: Phase) -> Sequence[Pet1Publication] | RoundFailure:
        """Return committee, manifest or certificate; the round fails where too few updates are left."""
        if phase is Phase.SUM:
            current.committee = Committee.of(current.record, current.enrolment, current.sums_by_slot())
            return [publish_committee(round_id, current.committee)]
        if phase is Phase.UPDATE:
            current.manifest = current.list_updates()
            return [publish_manifest(round_id, current.manifest)]
        return self._certify(round_id, current) if phase is Phase.CHECK else []

    def _certify(self, round_id: int, current: Pet1Round) -> Sequence[Pet1Publication] | RoundFailure:
        assert current.committee is not None, "the phase comes after Sum"
        assert current.manifest is not None, "the phase comes after Update"
        certificate = Certificate.judge(current.checks_in_order(), current.committee, current.manifest)
        self.evidence.keep(_evidence_of(round_id, current, certificate))
        try:
            certificate.require_updates(current.committee)
        except RemoteProtocolError as error:
            return RoundFailure(error.reason, str(error))
        current.certificate = certificate
        return [publish_certificate(round_id, certificate, current.manifest)]

    def time_out(self, phase: Phase) -> tuple[str, str]:
        """Return the reason of a phase that had too few messages."""
        reasons = {Phase.SUM: "too_few_members", Phase.UPDATE: "too_few_updates", Phase.CHECK: "no_quorum"}
        return reasons.get(phase, "too_few_answers"), ""

    def finish(self, round_id: int, current: Pet1Round) -> Pet1Publication | RoundFailure:
        """Add the agreed updates, take the mask off that the answers give, and decode (docs/spec/profile.md 11)."""
        certificate, config = current.certificate, current.record.config
        assert certificate is not None, "the phase comes after Check"
        try:
            model, wrong_slots, unchecked_groups = self._unmask(current, certificate.agreed)
        except UnmaskError as error:
            return RoundFailure(error.reason, str(error))
        except StateError as error:
            # It will not get better, and its sender has gone on: without this the coordinator would try for ever.
            return RoundFailure("damaged_leaf", str(error))
        if config.values is not FieldValues.INT:
            current.next_model_digest = digest("pet-1 model", pack_model(model, config))
        if wrong_slots:
            self.evidence.keep(_evidence_of(round_id, current, certificate, wrong_slots))
        return TotalPublished(
            round_id=round_id,
            model=model,
            update_count=len(certificate.agreed),
            wrong_slots=wrong_slots,
            unchecked_groups=unchecked_groups,
        )

    def _unmask(self, current: Pet1Round, agreed: Sequence[bytes]) -> tuple[FieldModel, tuple[int, ...], tuple[int, ...]]:
        """Return the model, the slots of wrong answers, and the groups of which none could be compared; no mask is left.

        Raises:
            UnmaskError: "wrong_share", "total_out_of_range", "no_weight".
            StateError: a leaf is damaged.
        """
        config = current.record.config
        # The random vectors of the fingerprints are drawn in there, after the last answer (K7).
        recovered = recover_mask(current.enrolment.plan, current.answers, threads=self.threads)
        total = self._add_up(current, agreed)
        mask = np.frombuffer(recovered.mask.to_vector(), dtype=np.uint8).reshape(total.shape)
        parallel_fields.subtract(total, mask, config.order, self.threads)
        pair, unit = MaskConfigPair.of(config), int.from_bytes(total[-1].tobytes(), "little")
        model = FieldModel(pair, len(agreed), total[:-1], unit, self.threads)
        return model, recovered.wrong_slots, recovered.unchecked_groups

    def _add_up(self, current: Pet1Round, agreed: Sequence[bytes]) -> Any:
        """Add the vectors of the agreed set, leaf by leaf: later than as they arrive, and none is ever taken off again."""
        config, record = current.record.config, current.record
        total = parallel_fields.new_vector(record.vector_length, config.order)
        step = LEAF_BYTES // config.element_bytes
        for participant in agreed:
            name = current.uploads[participant].name
            for index, start in enumerate(range(0, record.vector_length, step)):
                leaf = np.frombuffer(self.store.get(name, index), dtype=np.uint8).reshape(-1, config.element_bytes)
                parallel_fields.add(total[start : start + step], leaf, config.order, self.threads)
        return total

    def withdraw(self, _round_id: int, _current: Pet1Round | None) -> Sequence[Pet1Publication]:
        """Withdraw nothing: manifest and certificate stay until those of the next round take their place (15.1)."""
        return []

    def announce(self, round_id: int, current: Pet1Round, _phase: Phase) -> Sequence[Pet1Publication]:
        """Return the record, and what the phases before have published."""
        published: list[Pet1Publication] = [announce_round(round_id, current)]
        if current.committee is not None:
            published.append(publish_committee(round_id, current.committee))
        published += [publish_header(round_id, current, number) for number in range(len(current.updates))]
        if current.manifest is not None:
            published.append(publish_manifest(round_id, current.manifest))
            if current.certificate is not None:
                published.append(publish_certificate(round_id, current.certificate, current.manifest))
        return published


def _model_digest(settings: Pet1Settings, previous: Pet1Round | None) -> bytes | None:
    """Return the digest of the model that a round starts from; None if the settings say it: no round before gave such a one."""
    if previous is None:
        return None
    before = previous.record
    is_alike = (before.model_length, before.config.values) == (settings.model_length, settings.config.values)
    return previous.next_model_digest if is_alike else None


def _evidence_of(round_id: int, current: Pet1Round, certificate: Certificate, wrong_slots: Sequence[int] = ()) -> Evidence:
    """Return what is kept of a round whose members have signed, even if too few updates are left (K6)."""
    committee, manifest = current.committee, current.manifest
    assert committee is not None, "the phase comes after Sum"
    assert manifest is not None, "the phase comes after Update"
    return Evidence(
        round_id=round_id,
        record=current.record.to_bytes(),
        enrolment=current.served_enrolment,
        committee=committee.to_bytes(),
        certificate=certificate.to_bytes(),
        excluded_headers=tuple(header.data for key, header in manifest.headers.items() if key not in certificate.agreed),
        wrong_answers=tuple(
            WrongAnswer(
                slot=slot,
                member=current.enrolment.members[slot],
                message=current.heads[slot] + certificate.digest + current.answers[slot].to_vector(),
            )
            for slot in wrong_slots
        ),
    )


def _require_slot(current: Pet1Round, public_key: bytes) -> int:
    """Return the taken slot of a member.

    Raises:
        RemoteProtocolError: "not_a_member".
    """
    assert current.committee is not None, "the phase comes after Sum"
    slot = current.committee.slot_of(public_key)
    if slot is None or current.committee.points[slot] is None:
        raise RemoteProtocolError("not_a_member", "sum2: expected a member with a taken slot, got another participant")
    return slot


Pet1Profile: TypeAlias = Profile[Pet1Settings, Pet1Round, Pet1Entry, Pet1Publication]


def pet1_profile(
    store: LeafStore | None = None, threads: int | None = None, evidence: EvidenceStore | None = None
) -> Pet1Profile:
    """Return the profile with a store for leaves and one for evidence; in memory if None."""
    rules = Pet1Rules(
        store=MemoryLeafStore() if store is None else store,
        evidence=MemoryEvidenceStore() if evidence is None else evidence,
        threads=threads,
    )
    return Profile(name="pet/1", codec=PET1_PAYLOADS, open_message=open_pet1_message, phases=PET1_PHASES, rules=rules)


#: Secure aggregation with a certified set and a threshold committee (docs/spec/profile.md).
PET_1: Final[Pet1Profile] = pet1_profile()
