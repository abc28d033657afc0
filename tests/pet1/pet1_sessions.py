"""A coordinator of pet/1 with a clock, and the messages of a round of the vectors: what its tests share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pet1_coordinator_disk import CoordinatorDisk
from pet1_peers import entropy_of, served_enrolment
from pet1_rounds import VectorRound, vector_round

from pet.crypto import SigningKeyPair, seal
from pet.errors import RemoteProtocolError
from pet.messages import Chunk, Message, split_payload
from pet.pet1.answers import UpdateAnswer
from pet.pet1.hashes import digest
from pet.pet1.messages import Pet1Tag, sign_message
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_leaf_store import MemoryLeafStore
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.protocol.phases import Phase

#: What the rounds are called in the labels of their randomness.
LABELS = {"4of5_absent": "4of5", "2x2of3_z64": "2x2of3", "federation_z64_integers": "federation"}


def random_of(label: str) -> bytes:
    return digest("pet-1 vectors", label.encode())


def settings_of(round_: VectorRound, **changes: Any) -> Pet1Settings:
    record = round_.record
    chosen: dict[str, Any] = {
        "config": record.config,
        "model_length": record.model_length,
        "served_enrolment": served_enrolment(round_),
        "min_updates": record.min_updates,
        "min_count": record.min_updates,
        "model_digest": record.model_digest,
        "sum": PhaseTimes(min_seconds=5, max_seconds=600),
        "update": PhaseTimes(min_seconds=10, max_seconds=record.update_seconds),
        "check": PhaseTimes(min_seconds=5, max_seconds=record.check_seconds),
        "sum2": PhaseTimes(min_seconds=5, max_seconds=record.sum2_seconds),
    }
    return Pet1Settings(**chosen | changes)


class Session:
    """A coordinator in the round of the vectors."""

    def __init__(self, name: str, **changes: Any) -> None:
        self.round = vector_round(name)
        label = LABELS.get(name, name)
        draws = [random_of(f"{label} coordinator secret"), random_of(f"{label} round seed")]
        self.disk = CoordinatorDisk()
        self.settings = settings_of(self.round, **changes)
        self.now = 1000.0
        self.coordinator = Pet1Coordinator(
            self.settings,
            now_seconds=self.now,
            entropy=entropy_of(*draws, *[bytes([number]) * 32 for number in range(1, 9)]),
            round_id=self.round.record.number - 1,
            leaf_store=self.disk.leaves,
            evidence_store=self.disk.evidence,
            threads=1,
        )
        self.events: list[Any] = []
        self.wait(0)

    @property
    def phase(self) -> Phase:
        return self.coordinator.phase

    def wait(self, seconds: float) -> list[Any]:
        self.now += seconds
        self.coordinator.advance_time(self.now)
        return self.collect()

    @property
    def leaves(self) -> MemoryLeafStore:
        return self.disk.leaves

    def restart(self) -> None:
        """Go on from what is durable, as another process would."""
        draws = [bytes([number]) * 32 for number in range(1, 9)]
        self.coordinator = self.disk.start(self.settings, self.now, entropy_of(*draws))
        self.coordinator.announce_again()
        self.collect()

    def collect(self) -> list[Any]:
        self.disk.commit(self.coordinator, self.now)
        new = list(iter(self.coordinator.next_event, None))
        self.events += new
        return new

    def seal(self, signed: bytes) -> bytes:
        keys = self.coordinator.encryption_keys
        assert keys is not None
        return seal(signed, keys.public_key)

    def open(self, signed: bytes) -> Message:
        keys = self.coordinator.encryption_keys
        assert keys is not None
        return self.coordinator.profile.open_message(self.seal(signed), keys, self.coordinator.accepted_tag)

    def send(self, signed: bytes) -> str | None:
        """Send a signed message; return why it was refused."""
        try:
            self.coordinator.receive(self.open(signed), self.now)
        except RemoteProtocolError as error:
            return error.reason
        finally:
            self.collect()
        return None

    def send_chunks(self, key: SigningKeyPair, payload: bytes) -> None:
        """Send a Sum2 payload in chunks, each a signed message."""
        chunks = list(split_payload([payload], 700, 7))
        for chunk in chunks:
            data = b"".join(chunk.encode_parts())
            part = bytearray(sign_message(key, self.round.record.coordinator_key, Pet1Tag.SUM2, data))
            part[133] = 1
            part[:64] = key.sign(bytes(part[64:]))
            assert isinstance(self.open(bytes(part)).payload, Chunk)
            assert self.send(bytes(part)) is None

    def send_sums(self, slots: Iterable[int] | None = None) -> None:
        for slot, message in enumerate(self.round.entry["sums"]):
            if message is not None and (slots is None or slot in slots):
                assert self.send(bytes.fromhex(message)) is None

    def open_update(self, update: dict[str, Any]) -> UpdateAnswer:
        return self._answered(self.coordinator.open_update(self.seal(bytes.fromhex(update["message"])), self.now))

    def whole_update(self, update: dict[str, Any]) -> UpdateAnswer:
        sealed, vector = self.seal(bytes.fromhex(update["message"])), bytes.fromhex(update["vector"])
        body = len(sealed).to_bytes(4, "little") + sealed + vector
        return self._answered(self.coordinator.take_whole_update(body, self.now))

    def piece(self, update: dict[str, Any], first: int, data: bytes) -> UpdateAnswer:
        body = bytes.fromhex(update["header_digest"]) + first.to_bytes(4, "little") + data
        return self._answered(self.coordinator.take_piece(body, self.now))

    def _answered(self, answer: UpdateAnswer) -> UpdateAnswer:
        self.collect()
        return answer

    def to_update(self) -> Session:
        self.send_sums()
        if self.phase is Phase.SUM:
            self.wait(600)
        assert self.phase is Phase.UPDATE
        return self

    def to_check(self) -> Session:
        self.to_update()
        for update in self.round.entry["updates"]:
            self.whole_update(update)
        if self.phase is Phase.UPDATE:
            self.wait(10)
        assert self.phase is Phase.CHECK
        return self

    def to_sum2(self) -> Session:
        self.to_check()
        for message in self.round.checks().values():
            assert self.send(message) is None
        assert self.phase is Phase.SUM2
        return self

    def published(self, kind: type[Any]) -> Any:
        (event,) = (event for event in self.events if isinstance(event, kind))
        return event
