"""A coordinator of pet/1 in memory behind a service, and the parties of its rounds: what tests of transports send and ask.

It is the smallest endpoint around the protocol's machine: one lock, and nothing durable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from pet1_parties import CONFIG, NOW, Parties

from pet.bodies.body import SealedBody, as_sealed_body
from pet.buffers import Buffer
from pet.coordinator.service import CoordinatorService
from pet.crypto import open_sealed, seal
from pet.errors import RemoteProtocolError, StorageError
from pet.messages import HEADER_BYTES
from pet.pet1.answers import UpdateAnswer, UpdateOpen, UpdateRefused
from pet.pet1.hashes import digest
from pet.pet1.header_batch import MAX_HEADER_BATCH_BYTES, HeaderBatch
from pet.pet1.leaves import LEAF_BYTES, sealed_update_bytes
from pet.pet1.share_header import header_bytes
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_leaf_store import LeafStore
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.protocol.pet1_publications import (
    CertificatePublished,
    CommitteePublished,
    HeaderPublished,
    ManifestPublished,
    RoundAnnounced,
    TotalPublished,
    pack_model,
)
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.protocol.phases import Phase
from pet.transports.pet1 import OpenedUpdate, Pet1Document, PublishedDocument, UpdateSizes

#: Elements of a leaf.
LEAF_ELEMENTS = LEAF_BYTES // 4
#: No phase ends because time passes.
_LONG = PhaseTimes(min_seconds=3000, max_seconds=3600)


class MemoryEngine:
    """A `Pet1Endpoint`, and what a service needs of an engine besides."""

    is_durable = False

    def __init__(self, settings: Pet1Settings, leaf_store: LeafStore | None = None) -> None:
        self.lock = threading.RLock()
        self.is_storing = True
        self.taken: list[tuple[int, int]] = []
        self.totals: list[TotalPublished] = []
        self.refused: list[str] = []
        self._began = time.monotonic()
        self.protocol = Pet1Coordinator(
            settings,
            now_seconds=self.now(),
            entropy=lambda size: np.random.default_rng().bytes(size),
            round_id=NOW,
            leaf_store=leaf_store,
            threads=1,
        )
        self._documents: dict[Pet1Document, PublishedDocument] = {}
        self._headers: list[bytes] = []
        self._sizes: UpdateSizes | None = None

    def now(self) -> float:
        return time.monotonic() - self._began

    @property
    def phase(self) -> Phase:
        return self.protocol.phase

    # ---- what a service asks

    def max_body_bytes(self) -> int:
        return 1 << 20

    max_body_bytes_ever = max_body_bytes

    def tick(self) -> None:
        with self.lock:
            self.protocol.advance_time(self.now())
            self._publish()

    def seconds_until_tick(self) -> float | None:
        deadline = self.protocol.next_deadline_seconds()
        return None if deadline is None else deadline - self.now()

    def shut_down(self) -> None:
        """Nothing is to be written."""

    def handle_messages(self, bodies: Sequence[SealedBody]) -> list[StorageError | None]:
        for body in bodies:
            self.handle_message(body)
        return [None] * len(bodies)

    def handle_message(self, body: SealedBody | Buffer) -> None:
        with self.lock, as_sealed_body(body).open() as opened:
            keys = self.protocol.encryption_keys
            assert keys is not None
            try:
                message = self.protocol.profile.open_message(opened, keys, self.protocol.accepted_tag)
                self.protocol.receive(message, self.now())
            except RemoteProtocolError as error:
                self.refused.append(error.reason)
            self._publish()

    def parameters(self) -> bytes | None:
        return None

    def sums(self) -> bytes | None:
        return None

    def seeds(self, _: bytes) -> bytes | None:
        return None

    def model(self) -> None:
        return None

    def status(self) -> dict[str, Any]:
        return {"phase": self.phase.value, "waiting": None}

    # ---- pet/1

    def document(self, document: Pet1Document) -> PublishedDocument | None:
        return self._documents.get(document)

    def headers(self, after: int) -> HeaderBatch:
        headers: list[bytes] = []
        for header in self._headers[after:]:
            if sum(len(each) + 4 for each in headers) + len(header) + 4 > MAX_HEADER_BATCH_BYTES and headers:
                break
            headers.append(header)
        return HeaderBatch(tuple(headers), after + len(headers))

    def update_sizes(self) -> UpdateSizes | None:
        return self._sizes

    def open_update(self, sealed: SealedBody | Buffer) -> OpenedUpdate:
        with self.lock, as_sealed_body(sealed).open() as body:
            data = bytes(body)
            answer = self.protocol.open_update(data, self.now())
            self._note(answer)
            if not isinstance(answer, UpdateOpen):
                return OpenedUpdate(answer.encode(), None)
            current = self.protocol.state.round
            assert current is not None
            assert current.committee is not None
            message = open_sealed(data, current.keys)
            header = message[HEADER_BYTES : HEADER_BYTES + header_bytes(current.committee)]
            return OpenedUpdate(answer.encode(), digest("pet-1 share", header))

    def take_leaves(self, upload: bytes, first: int, leaves: Buffer) -> bytes:
        with self.lock:
            if not self.is_storing:
                raise StorageError("leaves: expected a storage that takes them, got none")
            self.taken.append((first, len(leaves)))
            piece = upload + first.to_bytes(4, "little") + bytes(leaves)
            return self._note(self.protocol.take_piece(piece, self.now()))

    def _note(self, answer: UpdateAnswer) -> bytes:
        if isinstance(answer, UpdateRefused):
            self.refused.append(answer.reason)
        self._publish()
        return answer.encode()

    def _publish(self) -> None:
        while self.protocol.next_entry() is not None:
            pass
        self.protocol.release_leaves()
        for event in iter(self.protocol.next_event, None):
            match event:
                case RoundAnnounced():
                    self._headers, self._sizes = [], None
                    self._publish_document(Pet1Document.ROUND, event.record)
                    self._publish_document(Pet1Document.ENROLMENT, event.enrolment)
                case CommitteePublished():
                    self._publish_document(Pet1Document.COMMITTEE, event.committee)
                    current = self.protocol.state.round
                    assert current is not None
                    assert current.committee is not None
                    self._sizes = UpdateSizes(sealed_update_bytes(current.committee), current.record.vector_bytes)
                case HeaderPublished():
                    self._headers.append(event.header)
                case ManifestPublished():
                    self._publish_document(Pet1Document.MANIFEST, event.manifest)
                case CertificatePublished():
                    self._publish_document(Pet1Document.CERTIFICATE, event.certificate)
                case TotalPublished():
                    self.totals.append(event)
                    self._publish_document(Pet1Document.MODEL, pack_model(event.model, self.protocol.settings.config))
                case _:
                    pass

    def _publish_document(self, kind: Pet1Document, data: bytes) -> None:
        self._documents[kind] = PublishedDocument(data, digest(f"pet-1 {kind.value[:9]}", data))


class Pet1World:
    """Parties, and a coordinator for them in the Update phase of its first round.

    Args:
        model_length: elements of a vector; with the weight behind them, a leaf has `LEAF_ELEMENTS`.
        update_count: updates that the phase ends with.
        service: options of the service.
    """

    def __init__(
        self, model_length: int = 3, update_count: int = 6, leaf_store: LeafStore | None = None, **service: Any
    ) -> None:
        self.parties = Parties()
        self.model_length = model_length
        settings = Pet1Settings(
            config=CONFIG,
            model_length=model_length,
            served_enrolment=self.parties.enrolment.sign(self.parties.authority),
            min_count=update_count,
            max_count=update_count,
            sum=_LONG,
            update=_LONG,
            check=_LONG,
            sum2=_LONG,
        )
        self.engine = MemoryEngine(settings, leaf_store)
        self.service = CoordinatorService(self.engine, **service)  # type: ignore[arg-type]
        self.sums: list[np.ndarray[Any, Any]] = []
        self.members = [self.parties.member(slot) for slot in range(3)]

    def begin_updates(self) -> Self:
        """Let the members send their Sum messages."""
        self.engine.tick()
        for member in self.members:
            self.send(member.join(self.read(Pet1Document.ROUND), self.read(Pet1Document.ENROLMENT), NOW))
        assert self.engine.phase is Phase.UPDATE, self.engine.phase
        return self

    def read(self, kind: Pet1Document) -> bytes:
        document = self.engine.document(kind)
        assert document is not None
        return bytes(document.data)

    def send(self, signed: bytes | None) -> None:
        """Send a member's message."""
        keys = self.engine.protocol.encryption_keys
        assert signed is not None
        assert keys is not None
        self.engine.handle_message(seal(signed, keys.public_key))

    def make_update(self, number: int) -> OutgoingUpdate:
        """Return the update of a participant, of numbers that are remembered in `sums`."""
        participant = self.parties.participant(number)
        assert participant.join(self.read(Pet1Document.ROUND), self.read(Pet1Document.ENROLMENT), NOW) is not None
        numbers = np.random.default_rng(number).integers(1000, size=self.model_length, dtype=CONFIG.dtype)
        self.sums.append(numbers)
        return participant.mask(self.read(Pet1Document.COMMITTEE), numbers, 1)

    def finish_round(self) -> None:
        """Let members check and answer, and hold that the total is that of the updates made."""
        committee = self.read(Pet1Document.COMMITTEE)
        for member in self.members:
            member.receive_committee(committee)
            for header in self.engine.headers(0).headers:
                member.receive_header(header)
            member.receive_manifest(self.read(Pet1Document.MANIFEST))
            self.send(member.sign_check())
        for member in self.members:
            self.send(member.answer(self.read(Pet1Document.CERTIFICATE)))
        (total,) = self.engine.totals
        assert total.update_count == len(self.sums)
        np.testing.assert_array_equal(total.model.to_array(), np.sum(self.sums, axis=0, dtype=CONFIG.dtype))
