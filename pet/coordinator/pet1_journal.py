"""What of a coordinator of pet/1 is stored (round_journal.py says how), and how a coordinator is made of it again.

There is one entry for each message that was accepted, and one for each update that is complete or closed for good
(pet/protocol/pet1_entries.py). What a member answers is as large as a vector, and lies in a blob beside its entry; so does what
stays the same as long as a round lasts, which has the enrolment in it and is written once. Leaves are in the leaf store.

Source: docs/spec/profile.md 14.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from pet.coordinator.framing import unframe_blob, unframe_entry, unframe_state
from pet.coordinator.round_journal import RoundJournal, RoundPosition, adopt_record, parse_chunk_name
from pet.coordinator.storage.base import Storage, Stored
from pet.errors import StateError
from pet.messages import Chunk, ChunkStore
from pet.pet1.messages import Pet1Tag
from pet.protocol.pet1_entries import Pet1Entry, SlotEntry, encode_entry
from pet.protocol.pet1_leaf_store import LeafStore
from pet.protocol.pet1_publications import Pet1Publication
from pet.protocol.pet1_round import Pet1Round, Pet1Settings
from pet.protocol.pet1_saved_state import PROFILE, Pet1Machine, load_pet1_state, save_pet1_round, save_pet1_state
from pet.protocol.phases import Phase
from pet.protocol.round_state import MachineState

_ROUND_BLOB: Final = "round"


class Pet1Journal(RoundJournal[Pet1Settings, Pet1Round, Pet1Entry, Pet1Publication]):
    """Writes a coordinator of pet/1 to a storage, as it changes; see `RoundJournal`."""

    def __init__(self, storage: Storage, writer: bytes, position: RoundPosition | None = None) -> None:
        super().__init__(storage, writer, position or RoundPosition())
        self._is_new_round = False

    def note_round(self, round_seed: bytes) -> None:
        """Note that a round began."""
        super().note_round(round_seed)
        self._is_new_round = True

    def note_entry(self, entry: Pet1Entry) -> None:
        """Note what a message, or an update, left in the round."""
        head, *rest = encode_entry(entry)
        if isinstance(entry, SlotEntry) and entry.tag is Pet1Tag.SUM2:
            self._put(_answer_blob(self._add_entry(bytes(head))), rest)
        else:
            self._add_entry(b"".join([head, *rest]))

    def _record_of(self, machine: Pet1Machine, now_seconds: float) -> dict[str, Any]:
        if self._is_new_round and machine.state.phase is not Phase.IDLE:
            self._put(_ROUND_BLOB, [json.dumps(save_pet1_round(machine)).encode()])
            self._is_new_round = False
        return {"coordinator": save_pet1_state(machine, now_seconds, saved_round={"blob": _ROUND_BLOB})}


def restore_pet1(
    storage: Storage, leaf_store: LeafStore, *, now_seconds: float, chunk_store: ChunkStore | None = None
) -> tuple[Pet1Settings | None, MachineState[Pet1Round], RoundPosition] | None:
    """Read what a storage holds of a coordinator of pet/1.

    Args:
        storage: where.
        leaf_store: where leaves are.
        now_seconds: the time now.
        chunk_store: where the pieces of unfinished Sum2 messages lie; in memory if None.

    Returns:
        The settings of its round, if there is one; the state; and how far its journal had come. None if nothing is stored.

    Raises:
        StateError: what is stored is damaged, or not of a coordinator of this version and profile.
        StorageError: a store cannot be reached.
    """
    stored = storage.load()
    if stored is None:
        return None
    with StateError.reading(storage.description, " (--fresh begins anew and forgets what is there)"):
        record = unframe_state(stored.state)
        coordinator = dict(adopt_record(record["coordinator"], PROFILE))
        seed = bytes.fromhex(coordinator["seed"])
        position = RoundPosition(
            round_seed=seed, model=record["model"], sequence=stored.sequence, entry_count=len(stored.entries)
        )
        if len(stored.entries) != record["entries"]:
            raise StateError(f"stored round: expected {record['entries']} entries, got {len(stored.entries)}")
        if coordinator["round"] is not None:
            coordinator["round"] = json.loads(bytes(_read(storage, seed, _ROUND_BLOB)))
        settings, state = load_pet1_state(
            coordinator, _entries(storage, stored, seed), leaf_store, now_seconds=now_seconds, chunk_store=chunk_store
        )
        if state.round is not None:
            _put_back_chunks(storage, stored, state.round, position, now_seconds)
        return settings, state, position


def _entries(storage: Storage, stored: Stored, seed: bytes) -> Iterator[bytes]:
    """Yield the entries of a round, each with what lies in a blob beside it."""
    for place, framed in enumerate(stored.entries):
        entry = unframe_entry(seed, place, framed)
        if entry[:1] == bytes([Pet1Tag.SUM2]):
            entry += _read(storage, seed, _answer_blob(place))
        yield entry


def _put_back_chunks(storage: Storage, stored: Stored, current: Pet1Round, position: RoundPosition, now_seconds: float) -> None:
    for name in sorted(stored.blob_names):
        public_key = parse_chunk_name(name)
        if public_key is not None:
            data = _read(storage, position.round_seed, name)
            current.chunks.add(public_key, Pet1Tag(data[0]), Chunk.decode(data[1:]), now_seconds)
            position.has_chunks = True


def _read(storage: Storage, seed: bytes, name: str) -> memoryview:
    return unframe_blob(seed, name, storage.read_blob(name))


def _answer_blob(position: int) -> str:
    """Return the name of the answer of an entry."""
    return f"sum2/{position}"
