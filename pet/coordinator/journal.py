"""What of a coordinator of xaynet's profile is stored (round_journal.py says how).

There is one entry for each message that was accepted (pet/protocol/entries.py). What is large is stored beside the entries:
masked models, until there are enough that the sum of all takes their place; the mask that leads the vote. So neither disk space
nor the time of a restart grows with the number of updates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from pet.bodies.body import SealedBody
from pet.coordinator.round_journal import RoundJournal, RoundPosition
from pet.coordinator.storage.base import Storage
from pet.protocol.entries import Entry, Sum2Entry, UpdateEntry, encode_entry
from pet.protocol.events import Publication
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import RoundState
from pet.protocol.saved_state import XaynetMachine, save_round, save_state

#: How many masked models are kept before the total takes their place: what is written for totals is an eighth of the models.
FOLD_COUNT: Final = 8

#: How many bytes of small masked models are kept: adding them again takes a restart less than a second.
FOLD_BYTES: Final = 8 << 20

#: Of an update from this size on, the sealed body is stored: it lies in a file already. Opening it again takes time, though.
SEALED_BYTES: Final = 1 << 20


@dataclass(slots=True)
class JournalPosition(RoundPosition):
    """How far a journal has come.

    Attributes:
        folded_count: how many entries are in the saved total, as far as they are updates.
        unfolded_bytes: size of the masked models that are not.
        leader_blob: name of the mask that leads the vote; None before the first vote.
    """

    folded_count: int = 0
    unfolded_bytes: int = 0
    leader_blob: str | None = None


class Journal(RoundJournal[RoundSettings, RoundState, Entry, Publication]):
    """Writes a coordinator to a storage, as it changes; see `RoundJournal`."""

    position: JournalPosition

    def __init__(self, storage: Storage, writer: bytes, position: JournalPosition | None = None) -> None:
        super().__init__(storage, writer, position or JournalPosition())
        #: Bodies that are stored as they came; what to store in their place, should they be gone, is in `_blobs`.
        self._bodies: dict[str, SealedBody] = {}
        #: The round that the last transaction was about, and what is saved of it.
        self._saved_round: tuple[RoundState | None, dict[str, Any] | None] | None = None

    def note_phase(self, phase: Phase) -> None:
        """Note that a phase began: in Idle everything about the last round goes, else the chunks of the last phase."""
        super().note_phase(phase)
        if phase is Phase.IDLE:
            self.position.folded_count = self.position.unfolded_bytes = 0
            self.position.leader_blob = self._saved_round = None
            self._bodies.clear()

    def note_entry(self, entry: Entry, *, leads: bool = False, body: SealedBody | None = None) -> None:
        """Note that a message was accepted.

        Args:
            entry: what it left in the round.
            leads: of a vote, whether its mask is the one that the coordinator keeps from now on.
            body: the message as it came, if it came whole; it is only used until the next `save` returns or raises.
        """
        position = self._add_entry(encode_entry(entry))
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

    def save(self, machine: XaynetMachine, now_seconds: float) -> None:
        """Write everything that was noted, and the state as it is now; first what an earlier call could not write.

        Raises:
            StorageError: it could not be written; `flush` or the next call tries again.
            StateError: the storage holds something else than was written.
        """
        self.flush()
        self._fold_if_worth_it(machine)
        bodies, self._bodies = {name: body for name, body in self._bodies.items() if name in self._blobs}, {}
        brought = {name: self._blobs.pop(name) for name in bodies}
        transaction = self._transaction = self._next_transaction(machine, now_seconds)
        sealed = {name.replace("update/", "sealed/"): body for name, body in bodies.items()}
        try:
            self._commit(replace(transaction, blobs={**transaction.blobs, **sealed}))
        except BaseException:
            # Bodies are gone when this call ends; what is tried again later holds what they said.
            self._transaction = replace(transaction, blobs={**transaction.blobs, **self._frame(brought)})
            raise

    def _record_of(self, machine: XaynetMachine, now_seconds: float) -> dict[str, Any]:
        return {
            "coordinator": save_state(machine, now_seconds, self._saved_round_of(machine)),
            "folded": self.position.folded_count,
        }

    def _saved_round_of(self, coordinator: XaynetMachine) -> dict[str, Any] | None:
        """Return what is saved of a round, computed once for all its transactions, and forgotten with it."""
        current = None if coordinator.state.phase is Phase.IDLE else coordinator.state.round
        if self._saved_round is None or self._saved_round[0] is not current:
            self._saved_round = current, save_round(coordinator)
        return self._saved_round[1]

    def _fold_if_worth_it(self, coordinator: XaynetMachine) -> None:
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
