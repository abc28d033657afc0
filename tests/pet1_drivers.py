"""Participants and members of pet/1 with their drivers, around a coordinator whose clock the test moves: what tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pet1_parties import NOW, THREE_OF_FIVE, Parties
from pet1_world import WatchedEngine

import pet
from pet.crypto import open_sealed
from pet.errors import MessageTooLargeError, RemoteProtocolError
from pet.participant import TickParticipant
from pet.participant.committee_member import CommitteeMember
from pet.pet1.committee import Committee
from pet.pet1.header_batch import HeaderBatch
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.protocol.phases import Phase
from pet.transports.pet1 import Pet1Document

FLOATS = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=100")
TIMES = PhaseTimes(min_seconds=5, max_seconds=60)


class DirectTransport:
    """The way to an endpoint in this process; what it answers can be exchanged, and what is sent is noted."""

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint
        self.sent: list[bytes] = []
        self.asked: list[Pet1Document] = []
        self.lies: dict[Pet1Document, Callable[[bytes | None], bytes | None]] = {}
        self.error: Exception | None = None
        self.on_message: Callable[[bytes], None] | None = None
        self.on_piece: Callable[[bytes], None] | None = None
        self.max_message_bytes = self.max_piece_bytes = 1 << 30

    def get_document(self, document: Pet1Document, max_bytes: int | None = None) -> bytes | None:
        if self.error is not None:
            raise self.error
        self.asked.append(document)
        found = self.endpoint.document(document)
        data = None if found is None else bytes(found.data)
        data = self.lies[document](data) if document in self.lies else data
        assert data is None or max_bytes is None or len(data) <= max_bytes, (document, len(data), max_bytes)
        return data

    def get_headers(self, after: int) -> HeaderBatch:
        return self.endpoint.headers(after)

    def open_update(self, sealed: Any) -> bytes:
        self.sent.append(bytes(sealed))
        return self.endpoint.open_update(sealed).answer

    def send_piece(self, piece: Sequence[Any]) -> bytes:
        data = b"".join(map(bytes, piece))
        _require_room(data, self.max_piece_bytes)
        if self.on_piece is not None:
            self.on_piece(data)
        return self.endpoint.take_leaves(data[:32], int.from_bytes(data[32:36], "little"), data[36:])

    def send_message(self, body: Any) -> None:
        _require_room(body, self.max_message_bytes)
        if self.on_message is not None:
            self.on_message(bytes(body))
        self.sent.append(bytes(body))
        self.endpoint.handle_message(bytes(body))

    def get_parameters(self) -> bytes:
        raise AssertionError("nothing of xaynet's profile is asked for")

    def get_sums(self) -> bytes | None:
        raise AssertionError("nothing of xaynet's profile is asked for")

    def get_seeds(self, public_key: bytes) -> bytes | None:
        raise AssertionError("nothing of xaynet's profile is asked for")

    def get_model(self, max_bytes: int | None = None) -> None:
        raise AssertionError("nothing of xaynet's profile is asked for")

    def close(self) -> None:
        """Nothing is open."""


def _require_room(body: Any, most: int) -> None:
    if len(body) > most:
        raise MessageTooLargeError(f"expected at most {most} bytes, got {len(body)}")


class AsyncDirectTransport:
    """The same for asyncio."""

    def __init__(self, inner: DirectTransport) -> None:
        self._inner = inner

    async def get_document(self, document: Pet1Document, max_bytes: int | None = None) -> bytes | None:
        return self._inner.get_document(document, max_bytes)

    async def get_headers(self, after: int) -> HeaderBatch:
        return self._inner.get_headers(after)

    async def open_update(self, sealed: Any) -> bytes:
        return self._inner.open_update(sealed)

    async def send_piece(self, piece: Sequence[Any]) -> bytes:
        return self._inner.send_piece(piece)

    async def send_message(self, body: Any) -> None:
        self._inner.send_message(body)

    async def get_parameters(self) -> bytes:
        return self._inner.get_parameters()

    async def get_sums(self) -> bytes | None:
        return self._inner.get_sums()

    async def get_seeds(self, public_key: bytes) -> bytes | None:
        return self._inner.get_seeds(public_key)

    async def get_model(self, max_bytes: int | None = None) -> None:
        self._inner.get_model(max_bytes)

    async def aclose(self) -> None:
        """Nothing is open."""


class MovedEngine(WatchedEngine):
    """An endpoint whose clock the test moves."""

    def __init__(self, settings: Pet1Settings) -> None:
        self.seconds = 0.0
        super().__init__(settings, clock=lambda: self.seconds, first_number=NOW)

    @property
    def machine(self) -> Pet1Coordinator:
        return self._coordinator

    def pass_phase(self, seconds: float = 6) -> None:
        """Let the shortest time of a phase pass, so that those who came suffice."""
        self.seconds += seconds
        self.tick()


class DrivenRound:
    """Five members, three of whom recover a sum, and participants, each with its driver."""

    def __init__(
        self, folder: Path, participant_count: int = 3, *, model_length: int = 5, config: Any = FLOATS, **changes: Any
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._members: dict[int, CommitteeMember] = {}
        self.parties = Parties(THREE_OF_FIVE, participant_count)
        self.settings = Pet1Settings(
            config=config,
            model_length=model_length,
            served_enrolment=self.parties.enrolment.sign(self.parties.authority),
            min_count=participant_count,
            max_count=participant_count,
            **{"sum": TIMES, "update": TIMES, "check": TIMES, "sum2": TIMES, **changes},
        )
        self.engine = MovedEngine(self.settings)
        self.engine.tick()
        self.transport = DirectTransport(self.engine)

    @property
    def phase(self) -> Phase:
        return self.engine.phase

    def member(self, slot: int, **options: Any) -> CommitteeMember:
        file = self.folder / f"member-{slot}.state"
        chosen: dict[str, Any] = {
            "coordinator": self.transport,
            "signing_key": self.parties.member_keys[slot],
            "enrolment": self.parties.enrolment,
            "state_file": file,
            "new": not file.exists(),
            "clock": lambda: NOW,
            "threads": 1,
        }
        self._members[slot] = CommitteeMember(**chosen | options)
        return self._members[slot]

    def all_members(self, slots: Iterable[int] = range(5), **options: Any) -> list[CommitteeMember]:
        return [self.member(slot, **options) for slot in slots]

    def read(self, document: Pet1Document) -> bytes:
        found = self.engine.document(document)
        assert found is not None
        return bytes(found.data)

    def headers(self) -> list[ShareHeader]:
        """Return the headers of the round's updates, in order of acceptance."""
        current = self.engine.machine.state.round
        assert current is not None
        return [current.uploads[participant].header for participant in current.updates]

    def committee(self) -> Committee:
        record = RoundRecord.from_bytes(self.read(Pet1Document.ROUND))
        return Committee.from_bytes(self.read(Pet1Document.COMMITTEE), record, self.parties.enrolment)

    def close_member(self, slot: int) -> None:
        self._members.pop(slot).close()

    def close(self) -> None:
        for slot in list(self._members):
            self.close_member(slot)

    def opened(self, body: bytes) -> bytes:
        """Return the signed message in a sealed one of this round."""
        keys = self.engine.machine.encryption_keys
        assert keys is not None
        return open_sealed(body, keys)

    def participant(self, number: int, **options: Any) -> TickParticipant:
        chosen: dict[str, Any] = {"coordinator": self.transport, "enrolment": self.parties.enrolment, "threads": 1}
        return TickParticipant(signing_key=self.parties.participant_keys[number], **chosen | options)


def weights(number: int, length: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(number).uniform(-1, 1, length).astype(np.float32)


def tick_all(peers: Sequence[Any]) -> list[Any]:
    """Let every peer go on until none makes progress; returns what happened."""
    events: list[Any] = []
    while True:
        for peer in peers:
            events += peer.tick()
        if not any(peer.made_progress for peer in peers):
            return events


def tick_until(peer: Any, condition: Callable[[], bool]) -> None:
    """Let a peer go on step by step until something is so."""
    for _ in range(100):
        if condition():
            return
        peer.tick()
    raise AssertionError("it did not happen within 100 steps")


def mean(models: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    return np.mean(np.array(models, dtype=np.float64), axis=0)


class Attack:
    """A round in which one peer, the victim, has a way of its own on which the attacker sits."""

    def __init__(self, world: DrivenRound) -> None:
        self.world = world
        self.way = DirectTransport(world.engine)

    def lie(self, document: Pet1Document, answer: bytes | Callable[[bytes | None], bytes | None]) -> None:
        self.way.lies[document] = answer if callable(answer) else lambda _: answer

    def member(self, slot: int = 0, **options: Any) -> CommitteeMember:
        return self.world.member(slot, coordinator=self.way, **options)

    def participant(self, number: int = 0, **options: Any) -> TickParticipant:
        return self.world.participant(number, coordinator=self.way, **options)


def reason(peer: Any) -> str | None:
    """Return why a peer took no usable answer last, if the answer was at fault."""
    error = peer.status.last_error
    return error.reason if isinstance(error, RemoteProtocolError) else None


def train(participants: Sequence[TickParticipant]) -> None:
    """Give participants weights, and let them send their updates."""
    for number, participant in enumerate(participants):
        participant.set_model(weights(number))
    tick_all(participants)
