"""The engine of pet/1: what it publishes of its rounds, and how updates come in (round_engine.py has all the rest).

Most of the work of an update is done in the thread that brings it, and without the engine's lock: its sealed part is opened and
verified there, its leaves are hashed and written. So neither Sum messages nor a phase's end wait for a leaf, and two uploads
take two cores. What that work means for the round is decided in turn, with whatever else waits, and for one commit.

Source: docs/spec/profile.md 7.3, 12, 15.1, 15.3.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Unpack

from pet.bodies.body import SealedBody, as_sealed_body
from pet.buffers import Buffer
from pet.coordinator.pet1_durable import DurablePet1
from pet.coordinator.pet1_open import Pet1Options, open_pet1_rounds, pack_last_model
from pet.coordinator.pet1_waiting import slots_waiting_record
from pet.coordinator.round_engine import ModelDescription, RoundEngine
from pet.coordinator.round_model import RoundModel
from pet.crypto import SEAL_BYTES
from pet.errors import StorageError
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.messages import RoundParameters
from pet.pet1 import certificate, committee, enrolment, manifest
from pet.pet1.answers import UpdateAnswer, UpdateOpen
from pet.pet1.checks import check_bytes, sum2_bytes
from pet.pet1.hashes import digest
from pet.pet1.header_batch import MAX_HEADER_BATCH_BYTES, HeaderBatch
from pet.pet1.leaves import sealed_update_bytes
from pet.pet1.round_record import RoundRecord
from pet.protocol.events import MachineEvent
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_entries import Pet1Entry
from pet.protocol.pet1_publications import (
    CertificatePublished,
    CommitteePublished,
    HeaderPublished,
    ManifestPublished,
    Pet1Publication,
    RoundAnnounced,
    TotalPublished,
)
from pet.protocol.pet1_round import Pet1Round, Pet1Settings, phase_windows
from pet.protocol.pet1_updates import UploadWork
from pet.protocol.phases import Phase
from pet.protocol.round_state import Status
from pet.protocol.windows import PhaseWindow
from pet.threads import occupy
from pet.transports.pet1 import OpenedUpdate, Pet1Document, PublishedDocument, UpdateSizes

#: What real xaynet clients are shown: a config that they know, in which nobody is ever selected (docs/spec/profile.md 15.3).
_SHOWN_CONFIG: Final = MaskConfigPair.of(MaskConfig.parse("prime-f32-b0-m3"))
#: For senders that pad, and for the header of a chunk.
_SPARE_BYTES: Final = 4096
_LENGTH_BYTES: Final = 4


@dataclass(slots=True)
class _Headers:
    """The share headers of one round, which only ever grow: readers need no lock.

    Attributes:
        headers: in the order of acceptance.
        ends: how many bytes all up to each take in answers; grows after `headers`.
    """

    headers: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def append(self, header: bytes) -> None:
        """Add the header of one more update."""
        self.headers.append(header)
        self.ends.append((self.ends[-1] if self.ends else 0) + _LENGTH_BYTES + len(header))

    def batch(self, after: int) -> HeaderBatch:
        """Return as many headers from a number on as one answer takes, at least one if there is one."""
        count = len(self.ends)
        if not 0 <= after < count:
            return HeaderBatch((), after)
        begin = self.ends[after - 1] if after else 0
        end = max(after + 1, bisect_right(self.ends, begin + MAX_HEADER_BATCH_BYTES, after, count))
        return HeaderBatch(tuple(self.headers[after:end]), end)


@dataclass(slots=True)
class _UpdateTurn:
    """What was done for an update, and waits for its turn; then the answer for its sender."""

    rounds: DurablePet1
    work: UploadWork
    answer: UpdateAnswer | None = None

    def take(self, now_seconds: float) -> None:
        self.answer = self.rounds.take_update(self.work, now_seconds)


@dataclass(slots=True)
class _IncomingPiece:
    """Leaves of an update that are made durable together; implements `pet.transports.pet1.IncomingPiece`."""

    coordinator: Pet1Coordinator
    upload: bytes
    take_update: Callable[[UploadWork], UpdateAnswer]
    work: UploadWork | None = None

    def take(self, first: int, leaves: Buffer, *, is_last: bool) -> bytes | None:
        with occupy():
            self.work = self.coordinator.keep_leaves(self.upload, first, leaves, self.work)
        return self.finish() if is_last or self.work.must_be_taken else None

    def finish(self) -> bytes | None:
        work, self.work = self.work, None
        if work is None:
            return None
        with occupy():
            self.coordinator.sync_leaves(work)
        return self.take_update(work).encode()


class Pet1Engine(RoundEngine[Pet1Settings, Pet1Round, Pet1Entry, Pet1Publication]):
    """A coordinator of pet/1 that any thread may call; implements `pet.transports.pet1.Pet1Endpoint`.

    Args:
        settings: what the rounds are like.
        clock: returns seconds that never go back.
        options: where rounds, leaves, evidence and models are kept, and what else they are made with: see `Pet1Options`. An
            engine goes on with the rounds that another one left in a storage.

    Raises:
        StateError: what is stored is damaged, or not of a coordinator of this version and profile.
        StorageError: a store cannot be reached.
    """

    def __init__(
        self, settings: Pet1Settings, *, clock: Callable[[], float] = time.monotonic, **options: Unpack[Pet1Options]
    ) -> None:
        rounds = open_pet1_rounds(settings, now_seconds=clock(), **options)
        self._durable: Final = rounds
        self._coordinator: Final = rounds.coordinator
        self._documents: dict[Pet1Document, PublishedDocument] = {}
        self._headers = _Headers()
        self._update_sizes: UpdateSizes | None = None
        super().__init__(settings, rounds, clock)
        self._publish_model()

    @property
    def keeps_earlier_settings(self) -> bool:
        """Whether the round under way has other settings than those given, which count from the next round on."""
        now = replace(self._coordinator.settings, model_digest=self.settings.model_digest)
        return now != self.settings

    # ---- what readers get ----------------------------------------------------------------------------------------------

    def max_body_bytes_ever(self) -> int:
        """Return what `max_body_bytes` is at most; the enrolment and the model's length say it."""
        return self._largest_body_bytes()

    def describe(self) -> ModelDescription:
        """Return what the models of the next round are like."""
        return ModelDescription(self.settings.model_length, str(self.settings.config))

    def phase_window(self, phase: Phase) -> PhaseWindow | None:
        """Return how many messages a phase takes and for how long; None for a phase that takes none."""
        return phase_windows(self.settings).get(phase)

    def sums(self) -> bytes | None:
        """Return None: there is nothing in a round of pet/1 that participants of xaynet's profile could use."""
        return None

    def seeds(self, public_key: bytes) -> bytes | None:  # noqa: ARG002 - the endpoint's
        """Return None, as `sums`."""
        return None

    def document(self, document: Pet1Document) -> PublishedDocument | None:
        """Return what is published, or None while there is none."""
        return self._documents.get(document)

    def headers(self, after: int) -> HeaderBatch:
        """Return share headers from number `after` on, as many as one answer takes."""
        return self._headers.batch(after)

    def update_sizes(self) -> UpdateSizes | None:
        """Return the sizes of the parts of this round's updates; None before its committee is known."""
        return self._update_sizes

    def status(self) -> dict[str, Any]:
        """Return the record of `GET /status`, and what each member of the committee has done (K5)."""
        return {**super().status(), "slots": [asdict(slot) for slot in self._slots]}

    # ---- updates -------------------------------------------------------------------------------------------------------

    def open_update(self, sealed: SealedBody | Buffer) -> OpenedUpdate:
        """Take the sealed part of an update; what is wrong with it is counted, and stands in the answer.

        Raises:
            StorageError: what it came to cannot be stored; its sender should try again.
        """
        with occupy(), as_sealed_body(sealed).open() as buffer:
            work = self._coordinator.judge_update(buffer)
            self._coordinator.sync_leaves(work)
        answer = self._take_update(work)
        is_open = isinstance(answer, UpdateOpen) and work.opened is not None
        return OpenedUpdate(answer.encode(), work.opened.name if is_open and work.opened is not None else None)

    def take_leaves(self, upload: bytes, first: int, leaves: Buffer) -> bytes:
        """Take whole leaves of an open update in a row; those that are right are durable when this returns.

        Args:
            upload: the header digest.
            first: number of the first of them.
            leaves: their bytes; only the vector's last one is shorter.

        Returns:
            The answer for the sender: after a refusal nothing behind these leaves is wanted.

        Raises:
            StorageError: they cannot be stored; their sender should try again.
        """
        answer = self.begin_piece(upload).take(first, leaves, is_last=True)
        assert answer is not None, "nothing comes behind them"
        return answer

    def begin_piece(self, upload: bytes) -> _IncomingPiece:
        """Begin to take a piece leaf by leaf; see `pet.transports.pet1.IncomingPiece`."""
        return _IncomingPiece(self._coordinator, upload, self._take_update)

    def _take_update(self, work: UploadWork) -> UpdateAnswer:
        turn = _UpdateTurn(self._durable, work)
        self._take_turn(turn)
        if turn.answer is None:
            raise StorageError("update: expected it to be taken, but it could not be handled now")
        return turn.answer

    # ---- what is published ---------------------------------------------------------------------------------------------

    def _waiting(self, status: Status, settings: Pet1Settings, now_seconds: float) -> dict[str, Any] | None:
        return slots_waiting_record(status, settings, self._slots, self._sightings, now_seconds)

    def _take_status(self) -> None:
        self._slots = tuple(self._coordinator.slots())
        super()._take_status()

    def _largest_body_bytes(self) -> int:
        return max(_largest_body_bytes(settings) for settings in (self._coordinator.settings, self.settings))

    def _is_result(self, event: MachineEvent | Pet1Publication) -> bool:
        return isinstance(event, TotalPublished)

    def _update_snapshots(self, event: MachineEvent | Pet1Publication) -> None:
        super()._update_snapshots(event)
        match event:
            case RoundAnnounced():
                self._begin_round(event)
            case CommitteePublished():
                self._publish_document(Pet1Document.COMMITTEE, committee.NAME, event.committee)
                current = self._coordinator.state.round
                if current is not None and current.committee is not None and current.record.number == event.round_id:
                    self._update_sizes = UpdateSizes(sealed_update_bytes(current.committee), current.record.vector_bytes)
            case HeaderPublished():
                self._headers.append(event.header)
            case ManifestPublished():
                self._publish_document(Pet1Document.MANIFEST, manifest.NAME, event.manifest)
            case CertificatePublished():
                self._publish_document(Pet1Document.CERTIFICATE, certificate.NAME, event.certificate)
            case TotalPublished():
                self._model = self._rounds.model
                self._publish_model()
            case _:
                pass  # counters and phases are in the status

    def _begin_round(self, event: RoundAnnounced) -> None:
        """Publish a record and its enrolment; of the round before, what ends a round stays until the next one has it."""
        record = RoundRecord.from_bytes(event.record)
        self._update_sizes, self._headers = None, _Headers()
        documents = dict(self._documents)
        documents.pop(Pet1Document.COMMITTEE, None)
        documents[Pet1Document.ROUND] = PublishedDocument(event.record, record.digest)
        # Beside the enrolment its signature may change: the name is that of both.
        documents[Pet1Document.ENROLMENT] = PublishedDocument(event.enrolment, digest(enrolment.NAME, event.enrolment))
        self._documents = documents
        self._max_body_bytes = self._largest_body_bytes()
        self._parameters = RoundParameters(
            coordinator_public_key=record.coordinator_key,
            sum_probability=0.0,
            update_probability=0.0,
            seed=record.seed,
            mask_config=_SHOWN_CONFIG,
            model_length=record.model_length,
        ).to_bytes()

    def _publish_model(self) -> None:
        """Publish the last model as participants of pet/1 take it, whichever profile's round made it."""
        packed = pack_last_model(self._model.model) if isinstance(self._model, RoundModel) else None
        if packed is not None:
            self._publish_document(Pet1Document.MODEL, "pet-1 model", packed)

    def _publish_document(self, document: Pet1Document, name: str, data: Buffer) -> None:
        self._documents = self._documents | {document: PublishedDocument(data, digest(name, data))}


def _largest_body_bytes(settings: Pet1Settings) -> int:
    """Return the size of the largest sealed message of a member; updates travel another way."""
    vector_bytes = (settings.model_length + 1) * settings.config.element_bytes
    most_updates = min(settings.config.max_model_count, len(settings.enrolment.participants))
    return SEAL_BYTES + max(check_bytes(most_updates), sum2_bytes(vector_bytes)) + _SPARE_BYTES
