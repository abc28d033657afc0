"""A coordinator of pet/1 behind a service, and the parties of its rounds: what tests of transports send and ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pet1_parties import CONFIG, NOW, Parties

from pet.buffers import Buffer
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.service import CoordinatorService
from pet.crypto import seal
from pet.errors import StorageError
from pet.pet1.leaves import LEAF_BYTES
from pet.pet1.round_record import RoundRecord
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.protocol.pet1_publications import TotalPublished
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.protocol.phases import Phase
from pet.transports.pet1 import IncomingPiece, Pet1Document

#: Elements of a leaf.
LEAF_ELEMENTS = LEAF_BYTES // 4
#: No phase ends because time passes.
_LONG = PhaseTimes(min_seconds=3000, max_seconds=3600)


@dataclass
class _WatchedPiece:
    """A piece that a `WatchedEngine` is given leaf by leaf."""

    engine: WatchedEngine
    piece: IncomingPiece

    def take(self, first: int, leaves: Buffer, *, is_last: bool) -> bytes | None:
        self.engine.note_leaves(first, leaves)
        return self.piece.take(first, leaves, is_last=is_last)

    def finish(self) -> bytes | None:
        return self.piece.finish()


class WatchedEngine(Pet1Engine):
    """An engine that notes which leaves it is given, and may have no storage for them."""

    def __init__(self, settings: Pet1Settings, **options: Any) -> None:
        super().__init__(settings, threads=1, **options)
        self.is_storing = True
        self.taken: list[tuple[int, int]] = []
        self.totals: list[TotalPublished] = []
        self.subscribe(lambda event: self.totals.append(event) if isinstance(event, TotalPublished) else None)

    @property
    def phase(self) -> Phase:
        return self._coordinator.phase

    @property
    def refused(self) -> dict[str, int]:
        """How often something was refused in this phase, by reason."""
        status = self.status()
        return status["rejected"] | ({"wrong_phase": status["discarded"]} if status["discarded"] else {})

    def note_leaves(self, first: int, leaves: Buffer) -> None:
        """Note leaves that come.

        Raises:
            StorageError: there is no storage for them.
        """
        self.taken.append((first, len(leaves)))
        if not self.is_storing:
            raise StorageError("leaves: expected a storage that takes them, got none")

    def begin_piece(self, upload: bytes) -> IncomingPiece:
        return _WatchedPiece(self, super().begin_piece(upload))

    def publish_document(self, kind: Pet1Document, data: bytes) -> None:
        """Publish a document that no round made."""
        self._publish_document(kind, f"pet-1 {kind.value}", data)


class Pet1World:
    """Parties, and a coordinator for them in the Update phase of its first round.

    Args:
        model_length: elements of a vector; with the weight behind them, a leaf has `LEAF_ELEMENTS`.
        update_count: updates that the phase ends with.
        service: options of the service.
    """

    def __init__(self, model_length: int = 3, update_count: int = 6, **service: Any) -> None:
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
        self.engine = WatchedEngine(settings)
        self.service = CoordinatorService(self.engine, **service)
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
        assert signed is not None
        self.engine.handle_message(seal(signed, RoundRecord.from_bytes(self.read(Pet1Document.ROUND)).coordinator_key))

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
