"""Make a coordinator of what a storage holds: the same round and phase, with the rest of its time, and every accepted message.

The entries of the round change an empty round one after the other, as the messages did that they stand for. Whatever does not
fit is an error: a coordinator that forgot a part of its round without a word would be worse than one that does not start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pet.aggregation import Aggregation
from pet.coordinator.framing import unframe_blob, unframe_entry, unframe_state
from pet.coordinator.journal import (
    Journal,
    JournalPosition,
    mask_blob,
    sealed_blob,
    total_blob,
    update_blob,
)
from pet.coordinator.round_journal import adopt_record, parse_chunk_name
from pet.coordinator.storage.base import Storage, Stored
from pet.errors import StateError
from pet.messages import Chunk, ChunkCollector, ChunkStore, Tag, UpdatePayload, open_message
from pet.protocol.coordinator import Coordinator
from pet.protocol.entries import Entry, Sum2Entry, SumEntry, UpdateEntry, apply_entry, decode_entry, with_large_part
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import CoordinatorState, RoundState
from pet.protocol.saved_state import XAYNET, load_state
from pet.protocol.strategies import DEFAULT_STRATEGIES, Strategies

_COUNTED_KIND: dict[Phase, type[Any]] = {Phase.SUM: SumEntry, Phase.UPDATE: UpdateEntry, Phase.SUM2: Sum2Entry}


def restore(
    storage: Storage,
    settings: RoundSettings,
    *,
    now_seconds: float,
    entropy: Callable[[int], bytes],
    writer: bytes,
    strategies: Strategies = DEFAULT_STRATEGIES,
    chunk_store: ChunkStore | None = None,
) -> tuple[Coordinator, Journal] | None:
    """Make a coordinator of what a storage holds.

    Args:
        storage: where.
        settings: those of the next round; the one in the storage keeps its own.
        now_seconds: as for `Coordinator`.
        entropy: as for `Coordinator`.
        writer: as for `Journal`.
        strategies: as for `Coordinator`.
        chunk_store: as for `Coordinator`.

    Returns:
        The coordinator, which has yet to announce its round, and the journal it goes on with; None if nothing is stored.

    Raises:
        StateError: what is stored is damaged, or not of a coordinator of this version.
        StorageError: the storage cannot be reached.
    """
    stored = storage.load()
    if stored is None:
        return None
    with StateError.reading(storage.description, " (--fresh begins anew and forgets what is there)"):
        round_settings, state, position = _Restorer(storage, stored, chunk_store).restore(now_seconds)
    coordinator = Coordinator.from_state(
        round_settings or settings, state, entropy=entropy, strategies=strategies, chunk_store=chunk_store
    )
    coordinator.next_settings = settings
    return coordinator, Journal(storage, writer, position)


class _Restorer:
    def __init__(self, storage: Storage, stored: Stored, chunk_store: ChunkStore | None) -> None:
        self._chunk_store = chunk_store
        self._storage = storage
        self._stored = stored
        self._position = JournalPosition(sequence=stored.sequence, entry_count=len(stored.entries))

    def restore(self, now_seconds: float) -> tuple[RoundSettings | None, CoordinatorState, JournalPosition]:
        record = unframe_state(self._stored.state)
        self._position.model = record["model"]
        round_settings, state = load_state(adopt_record(record["coordinator"], XAYNET), now_seconds)
        _expect(len(self._stored.entries) == record["entries"], f"{record['entries']} entries", len(self._stored.entries))
        if state.round is not None and round_settings is not None:
            state.round.chunks = ChunkCollector(round_settings.chunk_limits, self._chunk_store)
            self._fill(state, state.round, int(record["folded"]))
            self._put_back_chunks(state.round, now_seconds)
        return round_settings, state, self._position

    def _fill(self, state: CoordinatorState, current: RoundState, folded_count: int) -> None:
        """Put back what participants brought to the round."""
        self._position.folded_count, self._position.round_seed = folded_count, state.seed
        if folded_count:
            current.aggregation = self._read_total(current, folded_count)
        kinds = [self._put_back(current, position, folded_count) for position in range(len(self._stored.entries))]
        update_count = kinds[:folded_count].count(UpdateEntry)
        if folded_count:
            _expect(update_count > 0, "updates in the total", update_count)
        _expect(
            current.aggregation.count == kinds.count(UpdateEntry),
            f"a sum of {kinds.count(UpdateEntry)} updates",
            current.aggregation.count,
        )
        _expect(not current.votes.voters or current.votes.leader is not None, "the mask that leads the vote", None)
        if state.phase in _COUNTED_KIND:
            accepted = kinds.count(_COUNTED_KIND[state.phase])
            _expect(state.counters.accepted == accepted, f"{state.counters.accepted} messages in this phase", accepted)

    def _read_total(self, current: RoundState, folded_count: int) -> Aggregation:
        total = Aggregation.from_bytes(self._read(total_blob(folded_count)))
        expected, got = (current.aggregation.config, len(current.aggregation)), (total.config, len(total))
        _expect(expected == got, f"a total of {expected[0].vect} with {expected[1]} weights", f"{got[0].vect} with {got[1]}")
        return total

    def _put_back(self, current: RoundState, position: int, folded_count: int) -> type[Any]:
        """Let an entry change the round; returns its kind."""
        entry: Entry = decode_entry(unframe_entry(self._position.round_seed, position, self._stored.entries[position]))
        if isinstance(entry, UpdateEntry):
            _expect(entry.encrypted_seeds.keys() == current.sum_dictionary.keys(), "seeds for every sum participant", "others")
            _expect(entry.participant_public_key not in current.update_participants, "one update of each participant", 2)
            if position >= folded_count:
                entry = self._with_masked_model(current, position, entry)
        elif isinstance(entry, Sum2Entry):
            _expect(entry.participant_public_key not in current.votes.voters, "one vote of each participant", 2)
            if mask_blob(position) in self._stored.blob_names:
                self._position.leader_blob = mask_blob(position)
                entry = with_large_part(entry, self._read(mask_blob(position)))
        else:
            _expect(entry.participant_public_key not in current.sum_dictionary, "one entry of each sum participant", 2)
        apply_entry(current, entry)
        return type(entry)

    def _with_masked_model(self, current: RoundState, position: int, entry: UpdateEntry) -> UpdateEntry:
        """Return the entry with the masked model that it was stored with, alone or in the body that brought it."""
        if sealed_blob(position) not in self._stored.blob_names:
            data = self._read(update_blob(position))
            self._position.unfolded_bytes += len(data)
            whole = with_large_part(entry, data)
            assert isinstance(whole, UpdateEntry), "a large part does not change the kind"
            return whole
        body = bytearray(self._storage.read_blob(sealed_blob(position)))
        self._position.unfolded_bytes += len(body)
        message = open_message(body, current.keys, Tag.UPDATE)
        _expect(message.participant_public_key == entry.participant_public_key, "the body of this participant", "another one")
        assert isinstance(message.payload, UpdatePayload), "chunks are not stored as they came"
        return replace(entry, masked_model=message.payload.masked_model)

    def _put_back_chunks(self, current: RoundState, now_seconds: float) -> None:
        for name in sorted(self._stored.blob_names):
            public_key = parse_chunk_name(name)
            if public_key is not None:
                data = self._read(name)
                whole = current.chunks.add(public_key, Tag(data[0]), Chunk.decode(data[1:]), now_seconds)
                _expect(whole is None, "chunks of unfinished messages", "a whole message")
                self._position.has_chunks = True

    def _read(self, name: str) -> memoryview:
        return unframe_blob(self._position.round_seed, name, self._storage.read_blob(name))


def _expect(is_so: bool, expected: str, got: object) -> None:
    if not is_so:
        raise StateError(f"stored round: expected {expected}, got {got}")
