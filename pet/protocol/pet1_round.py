"""A round of pet/1 as its coordinator sees it: what the operator decides, what has come, and when each phase has enough.

These records only hold; what changes them is in pet/protocol/pet1_rules.py and pet1_updates.py.

Source: docs/spec/profile.md 12, 15.4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pet.crypto import EncryptionKeyPair
from pet.errors import ConfigError
from pet.field_config import FieldConfig
from pet.mask_object import Mask
from pet.messages import ChunkCollector, ChunkLimits, ChunkStore
from pet.pet1.certificate import Certificate
from pet.pet1.committee import Committee
from pet.pet1.enrolment import Enrolment, split_signed
from pet.pet1.hashes import DIGEST_BYTES
from pet.pet1.leaves import Upload
from pet.pet1.manifest import UpdateManifest
from pet.pet1.round_record import EVERYBODY, RoundRecord
from pet.pet1.share_header import ShareHeader
from pet.protocol.pet1_windows import DEFAULT_TIMES, DEFAULT_UPDATE_TIMES, PhaseTimes, SlotWindow, UpdateWindow
from pet.protocol.phases import Phase
from pet.protocol.profile import CollectingWindow
from pet.protocol.windows import PhaseWindow

DEFAULT_PIECES_IN_FLIGHT: Final = 8
DEFAULT_EVIDENCE_ROUNDS: Final = 20
#: Chunks of Sum2 messages: room for two answers of each member, book-keeping included.
_CHUNK_ALLOWANCE_BYTES: Final = 1 << 20
_CHUNK_PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pet1Settings:
    """What an operator decides about rounds of pet/1.

    Attributes:
        config: derivation, data type, bound and N_max.
        model_length: number of weights.
        served_enrolment: the enrolment, and the authority's signature or zeros behind it.
        min_updates: the least number of updates; the enrolment may ask for more.
        min_count: updates after which the Update phase may end once its shortest time is over.
        max_count: updates with which it ends at once.
        update_share: the share of participants that may send updates, times 2^32 - 1.
        model_digest: of the model that the first round starts from; zeros without one. Later rounds start from the one before.
        sum, update, check, sum2: times of the phases.
        committee_spare: members beyond the least to wait for in Sum.
        answer_spare: answers of each group beyond the threshold to wait for in Check and Sum2.
        pieces_in_flight: of each sender.
        evidence_rounds: for how many rounds evidence is kept (K6).

    Raises:
        ConfigError: a number outside its range, or an enrolment that cannot be read.
    """

    config: FieldConfig
    model_length: int
    served_enrolment: bytes = field(repr=False)
    min_updates: int = 3
    min_count: int = 3
    max_count: int = 2**24 - 1
    update_share: int = EVERYBODY
    model_digest: bytes = bytes(DIGEST_BYTES)
    sum: PhaseTimes = DEFAULT_TIMES
    update: PhaseTimes = DEFAULT_UPDATE_TIMES
    check: PhaseTimes = DEFAULT_TIMES
    sum2: PhaseTimes = DEFAULT_TIMES
    committee_spare: int = 1
    answer_spare: int = 1
    pieces_in_flight: int = DEFAULT_PIECES_IN_FLIGHT
    evidence_rounds: int = DEFAULT_EVIDENCE_ROUNDS

    def __post_init__(self) -> None:
        try:
            enrolment, _ = split_signed(self.served_enrolment)
        except ValueError as error:
            raise ConfigError(f"served_enrolment: {error}") from None
        if not enrolment.min_updates <= self.config.max_model_count:
            raise ConfigError(f"config: expected {enrolment.min_updates} or more models, got {self.config.max_model_count}")
        for name in ("min_count", "max_count", "committee_spare", "answer_spare", "pieces_in_flight", "evidence_rounds"):
            number, least = getattr(self, name), 0 if name.endswith("spare") else 1
            if type(number) is not int or number < least:
                raise ConfigError(f"{name}: expected {least} or more, got {number!r}")
        self.record(0, bytes(DIGEST_BYTES), bytes(DIGEST_BYTES))  # checks the other numbers

    @property
    def enrolment(self) -> Enrolment:
        """The enrolment that rounds go by."""
        return split_signed(self.served_enrolment)[0]

    def record(self, number: int, coordinator_key: bytes, seed: bytes, model_digest: bytes | None = None) -> RoundRecord:
        """Return the record of a round.

        Args:
            number: of the round.
            coordinator_key: its X25519 key.
            seed: its seed.
            model_digest: of the model that it starts from; None means the one of the settings.

        Raises:
            ConfigError: a number outside its range.
        """
        return RoundRecord(
            config=self.config,
            model_length=self.model_length,
            min_updates=self.min_updates,
            number=number,
            update_share=self.update_share,
            update_seconds=self.update.max_seconds,
            check_seconds=self.check.max_seconds,
            sum2_seconds=self.sum2.max_seconds,
            coordinator_key=coordinator_key,
            seed=seed,
            enrolment_digest=self.enrolment.digest,
            model_digest=self.model_digest if model_digest is None else model_digest,
        )


@dataclass(slots=True, kw_only=True)
class OpenUpload:
    """An update whose header is accepted.

    Attributes:
        header: its share header.
        name: the header's digest, by which the upload is known.
        message: the Update message, opened.
        upload: which leaves are there.
        is_counted: all are there, and it is among the round's updates.
        is_dead: a leaf that its participant signed has an invalid element: the update is closed for good.
    """

    header: ShareHeader
    name: bytes = field(init=False)
    message: bytes = field(repr=False)
    upload: Upload
    is_counted: bool = False
    is_dead: bool = False

    def __post_init__(self) -> None:
        self.name = self.header.digest


@dataclass(slots=True, kw_only=True)
class Pet1Round:
    """One round.

    Attributes:
        keys: the coordinator's key pair of this round.
        chunks: pieces of unfinished Sum2 messages.
        record: as published.
        enrolment: that it goes by.
        served_enrolment: its bytes, and the signature or zeros behind them.
        sums: Sum messages by slot.
        committee: once the Sum phase is over.
        uploads: by participant, complete or not; `add_upload` adds one.
        updates: participants whose update is complete, in the order of acceptance; `count_update` adds one.
        manifest: once the Update phase is over.
        checks: Check messages by slot.
        certificate: once the Check phase is over.
        answers: shares by slot.
        heads: of the messages that the answers came in, by slot: signature and header; empty of one that came in chunks.
        next_model_digest: of the model that the next round starts from.
    """

    keys: EncryptionKeyPair
    chunks: ChunkCollector
    record: RoundRecord
    enrolment: Enrolment
    served_enrolment: bytes = field(repr=False)
    sums: dict[int, bytes] = field(default_factory=dict, repr=False)
    committee: Committee | None = None
    uploads: dict[bytes, OpenUpload] = field(default_factory=dict, repr=False)
    updates: list[bytes] = field(default_factory=list)
    manifest: UpdateManifest | None = None
    checks: dict[int, bytes] = field(default_factory=dict, repr=False)
    certificate: Certificate | None = None
    answers: dict[int, Mask] = field(default_factory=dict, repr=False)
    heads: dict[int, bytes] = field(default_factory=dict, repr=False)
    next_model_digest: bytes = field(init=False)
    #: The participant of each upload by the upload's name; a piece must not cost a search.
    _participants: dict[bytes, bytes] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.next_model_digest = self.record.model_digest

    def add_upload(self, opened: OpenUpload) -> None:
        """Take an update whose header is accepted."""
        self.uploads[opened.header.participant] = opened
        self._participants[opened.name] = opened.header.participant

    def count_update(self, participant: bytes) -> None:
        """Take an update that is complete among those that are summed."""
        self.updates.append(participant)
        self.uploads[participant].is_counted = True

    def find_upload(self, name: bytes) -> OpenUpload | None:
        """Return the update of a header digest; None if there is none, or no longer. Any thread may call this."""
        return self.uploads.get(self._participants.get(name, b""))

    @classmethod
    def begin(
        cls,
        keys: EncryptionKeyPair,
        record: RoundRecord,
        served_enrolment: bytes,
        chunk_store: ChunkStore | None = None,
    ) -> Pet1Round:
        """Return a round that nobody has taken part in yet."""
        enrolment, _ = split_signed(served_enrolment)
        own, members = 2 * (record.vector_bytes + _CHUNK_ALLOWANCE_BYTES), enrolment.plan.member_count
        limits = ChunkLimits(
            max_bytes_per_participant=own,
            max_bytes=own * members,
            max_messages=members,
            patience_seconds=_CHUNK_PATIENCE_SECONDS,
        )
        return cls(
            keys=keys,
            chunks=ChunkCollector(limits, chunk_store),
            record=record,
            enrolment=enrolment,
            served_enrolment=served_enrolment,
        )

    def sums_by_slot(self) -> list[bytes | None]:
        """Return the Sum message of each slot; None where it is empty."""
        return [self.sums.get(slot) for slot in range(self.enrolment.plan.member_count)]

    def list_updates(self) -> UpdateManifest:
        """Return the list of all complete updates (K2)."""
        assert self.committee is not None, "the phase comes after Sum"
        return UpdateManifest.of(self.committee, [self.uploads[participant].header for participant in self.updates])

    def checks_in_order(self) -> list[bytes]:
        """Return all Check messages, ascending by slot (K3)."""
        return [message for _, message in sorted(self.checks.items())]

    def counts(self, slots: dict[int, bytes] | dict[int, Mask]) -> list[int]:
        """Return how many slots of each group are among those given."""
        plan = self.enrolment.plan
        return [sum(slot in slots for slot in plan.group_slots(group)) for group in range(plan.groups)]


def windows_of(settings: Pet1Settings, current: Pet1Round) -> dict[Phase, CollectingWindow]:
    """Return when each phase of a round ends; members' windows look at what has come."""
    plan = current.enrolment.plan
    least, most = _update_counts(settings, current.enrolment)
    return {
        Phase.SUM: SlotWindow(
            times=settings.sum,
            min_count=plan.quorum,
            per_group=plan.threshold,
            total_spare=settings.committee_spare,
            group_spare=settings.committee_spare,
            expected=lambda: [plan.members] * plan.groups,
            present=lambda: current.counts(current.sums),
        ),
        Phase.UPDATE: UpdateWindow(
            times=settings.update, min_count=max(settings.min_count, least), max_count=most, least=least
        ),
        Phase.CHECK: SlotWindow(
            times=settings.check,
            min_count=plan.quorum,
            per_group=plan.threshold,
            group_spare=settings.answer_spare,
            expected=lambda: current.counts(current.sums),
            present=lambda: current.counts(current.checks),
        ),
        Phase.SUM2: SlotWindow(
            times=settings.sum2,
            min_count=plan.threshold * plan.groups,
            per_group=plan.threshold,
            group_spare=settings.answer_spare,
            expected=lambda: current.counts(current.sums),
            present=lambda: current.counts(current.answers),
        ),
    }


def phase_windows(settings: Pet1Settings) -> dict[Phase, PhaseWindow]:
    """Return for people how many messages each phase needs and takes, and for how long."""
    enrolment = settings.enrolment
    plan, (least, most) = enrolment.plan, _update_counts(settings, enrolment)
    counts = {
        Phase.SUM: (settings.sum, plan.quorum, plan.member_count),
        Phase.UPDATE: (settings.update, max(settings.min_count, least), max(settings.min_count, most)),
        Phase.CHECK: (settings.check, plan.quorum, plan.member_count),
        Phase.SUM2: (settings.sum2, plan.threshold * plan.groups, plan.member_count),
    }
    return {
        phase: PhaseWindow(min_count=least, max_count=most, min_seconds=times.min_seconds, max_seconds=times.max_seconds)
        for phase, (times, least, most) in counts.items()
    }


def _update_counts(settings: Pet1Settings, enrolment: Enrolment) -> tuple[int, int]:
    """Return how many updates a round needs at least, and with how many it ends at once."""
    least = max(settings.min_updates, enrolment.min_updates)
    most = min(settings.max_count, settings.config.max_model_count, len(enrolment.participants))
    return least, max(most, least)
