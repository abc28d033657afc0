"""A coordinator whose rounds outlive it: the protocol object, and the journal that everything passes before it is reported.

What happens to it changes the protocol object in memory at once. `settle` then writes all of that in one transaction, and only
after that hands out the events that tell of it: what somebody can know is on the disk. If the writing fails, nothing is handed
out, and the next `settle` tries again; meanwhile the owner should bring no more messages.

For one thread, with the time given in each call; no clock, no threads, no sockets. A test can let it crash at each write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from pet.bodies.body import SealedBody
from pet.coordinator.journal import Journal
from pet.coordinator.model_store import ModelStore
from pet.coordinator.restore import restore
from pet.coordinator.round_model import RoundModel
from pet.coordinator.storage.base import Storage
from pet.errors import StateError
from pet.messages import Chunk, ChunkStore, Message
from pet.protocol.coordinator import Coordinator
from pet.protocol.entries import Sum2Entry
from pet.protocol.events import Event, ModelPublished, ParametersPublished, PhaseEntered
from pet.protocol.round_machine import SenderCheck
from pet.protocol.round_settings import RoundSettings
from pet.protocol.strategies import DEFAULT_STRATEGIES, Strategies

#: How often the time that a phase has lasted is written when nothing else is: a crash gives the phase at most so much back.
HEARTBEAT_SECONDS: Final = 1.0

_WRITER_BYTES: Final = 16


class DurableCoordinator:
    """A `Coordinator` that goes on where another one, that used the same storage, was stopped.

    Args:
        settings: what rounds are like; one that is under way keeps its own.
        now_seconds: the time now.
        entropy: as for `Coordinator`.
        storage: where it is kept; None keeps nothing.
        model_store: where models are kept; None keeps none.
        strategies: as for `Coordinator`.
        chunk_store: as for `Coordinator`.

    Attributes:
        protocol: what decides. Its owner may ask it everything, but changes it here only.
        model: the last global model that was stored; None if there is none.
        was_restored: whether it goes on with what the storage held.

    Raises:
        StateError: what is stored is damaged, or not of a coordinator of this version.
        StorageError: a store cannot be reached.
    """

    def __init__(
        self,
        settings: RoundSettings,
        *,
        now_seconds: float,
        entropy: Callable[[int], bytes],
        storage: Storage | None = None,
        model_store: ModelStore | None = None,
        strategies: Strategies = DEFAULT_STRATEGIES,
        chunk_store: ChunkStore | None = None,
    ) -> None:
        self.model: RoundModel | None = None
        self._model_store: Final = model_store
        self._round_seed = bytes(32)
        self._saved_seconds = now_seconds
        #: Events that nobody may know of yet.
        self._events: Final[deque[Event]] = deque()
        #: Models of rounds that are not stored yet.
        self._models: Final[deque[RoundModel]] = deque()
        self._journal: Journal | None = None
        restored = None
        if storage is not None:
            writer = entropy(_WRITER_BYTES)
            restored = restore(
                storage,
                settings,
                now_seconds=now_seconds,
                entropy=entropy,
                writer=writer,
                strategies=strategies,
                chunk_store=chunk_store,
            )
            self._journal = Journal(storage, writer)
        self.was_restored = restored is not None
        if restored is None:
            self.protocol = Coordinator(
                settings, now_seconds=now_seconds, entropy=entropy, strategies=strategies, chunk_store=chunk_store
            )
            return
        self.protocol, self._journal = restored
        if model_store is not None and self._journal.model is not None:
            self.model = _load_model(model_store, self._journal.model)
        self.protocol.announce_again()
        self._collect(is_news=False)

    # ---- what can happen ----------------------------------------------------------------------------------------------

    def advance_time(self, now_seconds: float) -> None:
        """Let the deadlines up to now pass."""
        try:
            self.protocol.advance_time(now_seconds)
        finally:
            self._collect()

    def receive(
        self, message: Message, now_seconds: float, body: SealedBody | None = None, checked: SenderCheck | None = None
    ) -> None:
        """Take a message, after letting the deadlines up to now pass; those that it brings forward pass in the next call.

        Args:
            message: opened and verified.
            now_seconds: the time now.
            body: what it came in, sealed, to be stored if that is cheaper; open until the next `settle` returns or raises.
            checked: what `protocol.check_sender` said of it, if it was asked.

        Raises:
            RemoteProtocolError: the message is refused. Already counted.
        """
        self.advance_time(now_seconds)
        is_repeated = self._journal is not None and self._is_repeated(message)
        try:
            entry = self.protocol.take(message, checked)
            if entry is not None and self._journal is not None:
                current = self.protocol.state.round
                leads = isinstance(entry, Sum2Entry) and current is not None and current.votes.leader is entry.mask
                whole = None if isinstance(message.payload, Chunk) else body
                self._journal.note_entry(entry, leads=leads, body=whole)
            if entry is None and not is_repeated:
                self._note_chunk(message)
        finally:
            self._note_complete_chunks(message)
            self._collect()

    def refuse(self, reason: str) -> None:
        """Count a message that was refused before it came here."""
        self.protocol.refuse(reason)
        self._collect()

    def stop(self, now_seconds: float) -> None:
        """Write the time that the phase has lasted, and accept nothing further; the storage can be resumed.

        Raises:
            StorageError: the last write failed. What was settled before is stored.
        """
        try:
            if self._journal is not None and self._was_begun:
                self._store(now_seconds)
        finally:
            self._journal = None
            self._models.clear()
            self.protocol.shut_down()
            self._collect()

    # ---- outcomes ----------------------------------------------------------------------------------------------------

    @property
    def is_durable(self) -> bool:
        """Whether there is a storage."""
        return self._journal is not None

    @property
    def is_behind(self) -> bool:
        """Whether something happened that is not stored."""
        return bool(self._models) or (self._journal is not None and (self._journal.is_behind or self._journal.is_changed))

    def settle(self, now_seconds: float) -> list[Event]:
        """Store everything that happened since the last time, and return the events that tell of it, oldest first.

        Raises:
            StorageError: it could not be stored; no event is released, and the next call retries.
            StateError: the storage holds something else than was written there.
        """
        if self.is_behind or self._seconds_until_heartbeat(now_seconds) <= 0:
            self._store(now_seconds)
        events = list(self._events)
        self._events.clear()
        return events

    def next_deadline_seconds(self) -> float | None:
        """Return when `advance_time` and `settle` should be called next if nothing comes before; None for never."""
        deadline = self.protocol.next_deadline_seconds()
        if deadline is None or not self._has_heartbeat:
            return deadline
        return min(deadline, self._saved_seconds + HEARTBEAT_SECONDS)

    @property
    def _was_begun(self) -> bool:
        return self.protocol.parameters is not None

    @property
    def _has_heartbeat(self) -> bool:
        return self._journal is not None and self.protocol.accepted_tag is not None

    def _seconds_until_heartbeat(self, now_seconds: float) -> float:
        return self._saved_seconds + HEARTBEAT_SECONDS - now_seconds if self._has_heartbeat else HEARTBEAT_SECONDS

    def _store(self, now_seconds: float) -> None:
        """Write models, then the rest: a state that names a model must not be there before it."""
        while self._models:
            model = self._models[0]
            if self._model_store is not None:
                record = self._model_store.save(model)
                if self._journal is not None:
                    self._journal.note_model(record)
            self.model = model
            self._models.popleft()
        if self._journal is not None:
            self._journal.save(self.protocol, now_seconds)
            self._saved_seconds = now_seconds

    def _collect(self, *, is_news: bool = True) -> None:
        """Take the events of the protocol, and note what they mean for the storage."""
        while (event := self.protocol.next_event()) is not None:
            self._events.append(event)
            if isinstance(event, ParametersPublished):
                self._round_seed = event.parameters.seed
                if self._journal is not None:
                    self._journal.round_seed = event.parameters.seed
            elif isinstance(event, ModelPublished):
                self._models.append(RoundModel(event.round_id, self._round_seed, event.model))
            elif isinstance(event, PhaseEntered) and is_news and self._journal is not None:
                self._journal.note_phase(event.phase)

    def _note_chunk(self, message: Message) -> None:
        assert isinstance(message.payload, Chunk), "what is not a chunk leaves an entry"
        if self._journal is not None:
            self._journal.note_chunk(message, message.payload)

    def _is_repeated(self, message: Message) -> bool:
        """Return whether a message is a chunk that is stored already."""
        current, chunk = self.protocol.state.round, message.payload
        return current is not None and isinstance(chunk, Chunk) and current.chunks.has(message.participant_public_key, chunk)

    def _note_complete_chunks(self, message: Message) -> None:
        """Forget the stored chunks of a message that became whole, whether it was accepted or not."""
        current = self.protocol.state.round
        if self._journal is None or current is None or not isinstance(message.payload, Chunk):
            return
        for dropped in current.chunks.last_dropped:
            self._journal.note_dropped_chunks(*dropped)
        public_key, message_id = message.participant_public_key, message.payload.message_id
        if not current.chunks.holds(public_key, message_id):
            self._journal.note_dropped_chunks(public_key, message_id)


def _load_model(model_store: ModelStore, record: dict[str, Any]) -> RoundModel:
    with StateError.reading("last global model", " (--fresh begins without one)"):
        return model_store.load(record)
