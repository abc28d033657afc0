"""What the journal of every profile is: it collects what happens in rounds, and writes it in one transaction.

A journal writes whenever its owner says so. What it could not write it keeps and tries again: until then the coordinator in
memory is ahead of the one on disk, and the difference must not be observable.

The state of a round is a small record and one entry for each message that was accepted; what is large is stored beside them, in
blobs. Which of it is an entry, and which a blob, is for a profile to say. Everything stored carries a checksum and its place
(framing.py). This file knows neither files nor databases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic

from pet.buffers import Buffer
from pet.coordinator.framing import frame_blob, frame_entry, frame_state
from pet.coordinator.storage.base import Blob, Storage, Transaction
from pet.errors import StateError
from pet.messages import Message
from pet.messages.chunks import Chunk
from pet.protocol.phases import Phase
from pet.protocol.profile import EntryT, EventT, RoundT, SettingsT
from pet.protocol.round_machine import RoundMachine
from pet.protocol.saved_state import XAYNET

_CHUNKS: Final = "chunk/"
#: Phases in which a round of another profile may take the place of one: nothing was given to it that counts.
_REPLACEABLE: Final = (Phase.IDLE.value, Phase.SUM.value)


@dataclass(slots=True)
class RoundPosition:
    """How far a journal has come.

    Attributes:
        round_seed: the seed of the round that entries and blobs belong to.
        model: what the model store knows the last model by; None if there is none.
        sequence: number of the last transaction that was made, stored or not.
        entry_count: entries of the round, stored or not.
        has_chunks: whether chunks are stored.
    """

    round_seed: bytes = b""
    model: dict[str, Any] | None = None
    sequence: int = 0
    entry_count: int = 0
    has_chunks: bool = False


class RoundJournal(ABC, Generic[SettingsT, RoundT, EntryT, EventT]):
    """Writes a coordinator to a storage, as it changes.

    Args:
        storage: where to; empty, or what `position` is of.
        writer: what no other journal has: with it, the storage can tell whose a change is.
        position: where another journal of the storage had come to; it belongs to this one afterwards.

    Attributes:
        position: how far it has come.
    """

    position: RoundPosition

    def __init__(self, storage: Storage, writer: bytes, position: RoundPosition) -> None:
        self.storage: Final = storage
        self.position = position
        self._writer: Final = writer.hex()
        self._entries: list[bytes] = []
        self._blobs: dict[str, list[Buffer]] = {}
        self._dropped: list[str] = []
        self._clears = False
        self._is_changed = False
        self._transaction: Transaction | None = None

    @abstractmethod
    def _record_of(self, machine: RoundMachine[SettingsT, RoundT, EntryT, EventT], now_seconds: float) -> dict[str, Any]:
        """Return the record of a coordinator, ready for JSON, and how far the journal has come beyond its entries."""

    # ---- what happened ------------------------------------------------------------------------------------------------

    def note_round(self, round_seed: bytes) -> None:
        """Note that a round began; entries and blobs belong to it from now on."""
        self.position.round_seed = round_seed

    def note_phase(self, phase: Phase) -> None:
        """Note that a phase began: in Idle everything about the last round goes, else the chunks of the last phase."""
        self._is_changed = True
        if phase is Phase.IDLE:
            self._clears, self.position.has_chunks, self.position.entry_count = True, False, 0
            self._entries.clear()
            self._blobs.clear()
            self._dropped.clear()
        elif self.position.has_chunks:
            self._drop(_CHUNKS)
            self.position.has_chunks = False

    def note_chunk(self, message: Message, chunk: Chunk) -> None:
        """Note that a chunk was taken, and its message is not whole yet."""
        self._is_changed = self.position.has_chunks = True
        name = f"{_chunks_of(message.participant_public_key, chunk.message_id)}{chunk.chunk_id}"
        self._put(name, [bytes([message.tag]), *chunk.encode_parts()])

    def note_dropped_chunks(self, participant_public_key: bytes, message_id: int) -> None:
        """Note that the chunks of a message are no longer needed."""
        if self.position.has_chunks:
            self._is_changed = True
            self._drop(_chunks_of(participant_public_key, message_id))

    def note_model(self, model: dict[str, Any]) -> None:
        """Note that a model was put into the model store."""
        self._is_changed = True
        self.position.model = model

    def _add_entry(self, data: bytes) -> int:
        """Note an entry; returns its place."""
        self._is_changed = True
        position = self.position.entry_count
        self.position.entry_count += 1
        self._entries.append(frame_entry(self.position.round_seed, position, data))
        return position

    # ---- writing ------------------------------------------------------------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """Whether a transaction was made that may not be stored."""
        return self._transaction is not None

    @property
    def is_changed(self) -> bool:
        """Whether something happened that is not in a transaction yet."""
        return self._is_changed

    def save(self, machine: RoundMachine[SettingsT, RoundT, EntryT, EventT], now_seconds: float) -> None:
        """Write everything that was noted, and the state as it is now; first what an earlier call could not write.

        Raises:
            StorageError: it could not be written; `flush` or the next call tries again.
            StateError: the storage holds something else than was written.
        """
        self.flush()
        self._transaction = self._next_transaction(machine, now_seconds)
        self._commit(self._transaction)

    def flush(self) -> None:
        """Write what an earlier call could not write; raises as `save`."""
        if self._transaction is not None:
            self._commit(self._transaction)

    def _commit(self, transaction: Transaction) -> None:
        self.storage.commit(transaction)
        self._transaction = None

    def _next_transaction(self, machine: RoundMachine[SettingsT, RoundT, EntryT, EventT], now_seconds: float) -> Transaction:
        """Return a transaction of everything that was noted, which counts as written from now on."""
        record = self._record_of(machine, now_seconds) | {
            "entries": self.position.entry_count,
            "model": self.position.model,
            "writer": self._writer,
        }
        transaction = Transaction(
            sequence=self.position.sequence + 1,
            state=frame_state(record),
            clears=self._clears,
            entries=self._entries,
            blobs=self._frame(self._blobs),
            dropped_blobs=self._dropped,
        )
        self.position.sequence += 1
        self._entries, self._blobs, self._dropped = [], {}, []
        self._clears = self._is_changed = False
        return transaction

    def _frame(self, blobs: Mapping[str, list[Buffer]]) -> dict[str, Blob]:
        return {name: frame_blob(self.position.round_seed, name, parts) for name, parts in blobs.items()}

    def _put(self, name: str, parts: list[Buffer]) -> None:
        self._blobs[name] = parts

    def _drop(self, name: str) -> None:
        """Drop a blob, or all whose name begins so if it ends with a slash; those that were not even written too."""
        is_prefix = name.endswith("/")
        for known in [known for known in self._blobs if known == name or (is_prefix and known.startswith(name))]:
            del self._blobs[known]
        if not self._clears:
            self._dropped.append(name + "*" if is_prefix else name)


def _chunks_of(participant_public_key: bytes, message_id: int) -> str:
    return f"{_CHUNKS}{participant_public_key.hex()}/{message_id}/"


def parse_chunk_name(name: str) -> bytes | None:
    """Return the public key in the name of a chunk; None for the name of another blob."""
    return bytes.fromhex(name.split("/")[1]) if name.startswith(_CHUNKS) else None


def adopt_record(record: Mapping[str, Any], expected: str) -> Mapping[str, Any]:
    """Return the record of a coordinator, or of another profile's what a coordinator goes on from that begins a round.

    Profiles may alternate by round (docs/spec/profile.md 15.3). In its Sum phase a round has nothing yet that its participants
    could not give the next one: then the number of the round, its seed, the counters and the last model are gone on with.

    Args:
        record: of the coordinator.
        expected: name of the profile that is wanted.

    Raises:
        StateError: a round of another profile is under way.
    """
    found = record.get("profile", XAYNET)
    if found == expected:
        return record
    phase = record["phase"]
    if phase in _REPLACEABLE:
        begin = {"phase": Phase.IDLE.value, "elapsed_seconds": 0.0, "accepted": 0, "rejected": {}, "discarded": 0}
        return {**record, **begin, "profile": expected, "round": None}
    raise StateError(
        f"expected a round of profile {expected}, got one of {found} in phase {phase}: go on with it with "
        f"pet.profile.name = {found!r}, and change the profile while a round is in its Sum phase"
    )
