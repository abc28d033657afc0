"""What of a coordinator is stored, and how a coordinator is made of it again.

The state of a round is a small record, and one entry for each message that was accepted (pet/protocol/entries.py). What is
large is stored beside the entries: masked models, until there are enough that the sum of all takes their place; the mask that
leads the vote; chunks of unfinished messages. So neither disk space nor the time of a restart grows with the number of updates.

A journal collects what happens, and writes it in one transaction whenever its owner says so. What it could not write it keeps
and tries again: until then the coordinator in memory is ahead of the one on disk, and the difference must not be observable.

Everything stored carries a checksum and its place (framing.py). This file knows neither files nor databases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pet.bodies.body import SealedBody
from pet.buffers import Buffer
from pet.coordinator.framing import frame_blob, frame_entry, frame_state
from pet.coordinator.storage.base import Blob, Storage, Transaction
from pet.messages import Message
from pet.messages.chunks import Chunk
from pet.protocol.coordinator import Coordinator
from pet.protocol.entries import Entry, Sum2Entry, UpdateEntry, encode_entry
from pet.protocol.phases import Phase
from pet.protocol.round_state import RoundState
from pet.protocol.saved_state import save_round, save_state

#: How many masked models are kept before the total takes their place: what is written for totals is an eighth of the models.
FOLD_COUNT: Final = 8

#: How many bytes of small masked models are kept: adding them again takes a restart less than a second.
FOLD_BYTES: Final = 8 << 20

#: Of an update from this size on, the sealed body is stored: it lies in a file already. Opening it again takes time, though.
SEALED_BYTES: Final = 1 << 20

_CHUNKS: Final = "chunk/"


@dataclass(slots=True)
class JournalPosition:
    """How far a journal has come.

    Attributes:
        round_seed: the seed of the round that entries and blobs belong to.
        model: what the model store knows the last model by; None if there is none.
        sequence: number of the last transaction that was made, stored or not.
        entry_count: entries of the round, stored or not.
        folded_count: how many of them are in the saved total, as far as they are updates.
        unfolded_bytes: size of the masked models that are not.
        leader_blob: name of the mask that leads the vote; None before the first vote.
        has_chunks: whether chunks are stored.
    """

    round_seed: bytes = b""
    model: dict[str, Any] | None = None
    sequence: int = 0
    entry_count: int = 0
    folded_count: int = 0
    unfolded_bytes: int = 0
    leader_blob: str | None = None
    has_chunks: bool = False


class Journal:
    """Writes a coordinator to a storage, as it changes.

    Args:
        storage: where to; empty, or what `position` is of.
        writer: what no other journal has: with it, the storage can tell whose a change is.
        position: where another journal of the storage had come to; it belongs to this one afterwards.

    Attributes:
        position: how far it has come.
    """

    def __init__(self, storage: Storage, writer: bytes, position: JournalPosition | None = None) -> None:
        self.storage: Final = storage
        self.position: Final = position or JournalPosition()
        self._writer: Final = writer.hex()
        self._entries: list[bytes] = []
        self._blobs: dict[str, list[Buffer]] = {}
        #: Bodies that are stored as they came; what to store in their place, should they be gone, is in `_blobs`.
        self._bodies: dict[str, SealedBody] = {}
        self._dropped: list[str] = []
        self._clears = False
        self._is_changed = False
        self._transaction: Transaction | None = None
        #: The round that the last transaction was about, and what is saved of it.
        self._saved_round: tuple[RoundState | None, dict[str, Any] | None] | None = None

    # ---- what happened ------------------------------------------------------------------------------------------------

    def note_phase(self, phase: Phase) -> None:
        """Note that a phase began: in Idle everything about the last round goes, else the chunks of the last phase."""
        self._is_changed = True
        if phase is Phase.IDLE:
            self._clears, self.position.has_chunks = True, False
            self.position.entry_count = self.position.folded_count = self.position.unfolded_bytes = 0
            self.position.leader_blob = self._saved_round = None
            self._entries.clear()
            self._blobs.clear()
            self._bodies.clear()
            self._dropped.clear()
        elif self.position.has_chunks:
            self._drop(_CHUNKS)
            self.position.has_chunks = False

    def note_entry(self, entry: Entry, *, leads: bool = False, body: SealedBody | None = None) -> None:
        """Note that a message was accepted.

        Args:
            entry: what it left in the round.
            leads: of a vote, whether its mask is the one that the coordinator keeps from now on.
            body: the message as it came, if it came whole; it is only used until the next `save` returns or raises.
        """
        self._is_changed = True
        position = self.position.entry_count
        self.position.entry_count += 1
        self._entries.append(frame_entry(self.position.round_seed, position, encode_entry(entry)))
        if isinstance(entry, UpdateEntry) and entry.masked_model is not None:
            self.position.unfolded_bytes += entry.masked_model.size_bytes
            self._put(update_blob(position), entry.masked_model.to_parts())
            if body is not None and body.size_bytes >= SEALED_BYTES:
                self._bodies[update_blob(position)] = body
        elif isinstance(entry, Sum2Entry) and entry.mask is not None and leads:
            if self.position.leader_blob is not None:
                self._drop(self.position.leader_blob)
            self.position.leader_blob = mask_blob(position)
            self._put(self.position.leader_blob, entry.mask.to_parts())

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

    # ---- writing ------------------------------------------------------------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """Whether a transaction was made that may not be stored."""
        return self._transaction is not None

    @property
    def is_changed(self) -> bool:
        """Whether something happened that is not in a transaction yet."""
        return self._is_changed

    def save(self, coordinator: Coordinator, now_seconds: float) -> None:
        """Write everything that was noted, and the state as it is now; first what an earlier call could not write.

        Raises:
            StorageError: it could not be written; `flush` or the next call tries again.
            StateError: the storage holds something else than was written.
        """
        self.flush()
        self._fold_if_worth_it(coordinator)
        bodies = {name: body for name, body in self._bodies.items() if name in self._blobs}
        brought = {name: self._blobs.pop(name) for name in bodies}
        transaction = self._next_transaction(coordinator, now_seconds)
        self.position.sequence += 1
        self._entries, self._blobs, self._bodies, self._dropped = [], {}, {}, []
        self._clears = self._is_changed = False
        self._transaction = transaction
        sealed = {name.replace("update/", "sealed/"): body for name, body in bodies.items()}
        try:
            self._commit(replace(transaction, blobs={**transaction.blobs, **sealed}))
        except BaseException:
            # Bodies are gone when this call ends; what is tried again later holds what they said.
            self._transaction = replace(transaction, blobs={**transaction.blobs, **self._frame(brought)})
            raise

    def flush(self) -> None:
        """Write what an earlier call could not write; raises as `save`."""
        if self._transaction is not None:
            self._commit(self._transaction)

    def _commit(self, transaction: Transaction) -> None:
        self.storage.commit(transaction)
        self._transaction = None

    def _next_transaction(self, coordinator: Coordinator, now_seconds: float) -> Transaction:
        record = {
            "coordinator": save_state(coordinator, now_seconds, self._saved_round_of(coordinator)),
            "entries": self.position.entry_count,
            "folded": self.position.folded_count,
            "model": self.position.model,
            "writer": self._writer,
        }
        return Transaction(
            sequence=self.position.sequence + 1,
            state=frame_state(record),
            clears=self._clears,
            entries=self._entries,
            blobs=self._frame(self._blobs),
            dropped_blobs=self._dropped,
        )

    def _saved_round_of(self, coordinator: Coordinator) -> dict[str, Any] | None:
        """Return what is saved of a round, computed once for all its transactions, and forgotten with it."""
        current = None if coordinator.state.phase is Phase.IDLE else coordinator.state.round
        if self._saved_round is None or self._saved_round[0] is not current:
            self._saved_round = current, save_round(coordinator)
        return self._saved_round[1]

    def _frame(self, blobs: Mapping[str, list[Buffer]]) -> dict[str, Blob]:
        return {name: frame_blob(self.position.round_seed, name, parts) for name, parts in blobs.items()}

    def _fold_if_worth_it(self, coordinator: Coordinator) -> None:
        """Let the total take the place of the masked models in it, if these are many by now."""
        current = coordinator.state.round
        if current is None or self.position.unfolded_bytes < FOLD_BYTES:
            return
        total_bytes = len(current.aggregation) * current.aggregation.config.vect.element_bytes
        if self.position.unfolded_bytes < FOLD_COUNT * total_bytes:
            return
        parts = current.aggregation.to_parts()
        self._drop("update/")
        self._drop("sealed/")
        self._drop("total/")
        self.position.folded_count, self.position.unfolded_bytes = self.position.entry_count, 0
        self._put(total_blob(self.position.folded_count), parts)

    def _put(self, name: str, parts: list[Buffer]) -> None:
        self._blobs[name] = parts

    def _drop(self, name: str) -> None:
        """Drop a blob, or all whose name begins so if it ends with a slash; those that were not even written too."""
        is_prefix = name.endswith("/")
        for known in [known for known in self._blobs if known == name or (is_prefix and known.startswith(name))]:
            del self._blobs[known]
        if not self._clears:
            self._dropped.append(name + "*" if is_prefix else name)


def update_blob(position: int) -> str:
    """Return the name of the masked model of an entry."""
    return f"update/{position}"


def sealed_blob(position: int) -> str:
    """Return the name of the sealed body that an entry came in, where that is stored in place of the masked model."""
    return f"sealed/{position}"


def mask_blob(position: int) -> str:
    """Return the name of the mask of an entry."""
    return f"mask/{position}"


def total_blob(folded_count: int) -> str:
    """Return the name of the total that holds the updates of that number of entries."""
    return f"total/{folded_count}"


def _chunks_of(participant_public_key: bytes, message_id: int) -> str:
    return f"{_CHUNKS}{participant_public_key.hex()}/{message_id}/"


def parse_chunk_name(name: str) -> bytes | None:
    """Return the public key in the name of a chunk; None for the name of another blob."""
    return bytes.fromhex(name.split("/")[1]) if name.startswith(_CHUNKS) else None
