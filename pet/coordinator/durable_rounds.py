"""Rounds of any profile that outlive their process: the protocol object, and the journal that all passes before it is reported.

What happens to it changes the protocol object in memory at once. `settle` then writes all of that in one transaction, and only
after that hands out the events that tell of it: what somebody can know is on the disk. If the writing fails, nothing is handed
out, and the next `settle` tries again; meanwhile the owner should bring no more messages.

For one thread, with the time given in each call; no clock, no threads, no sockets. A test can let it crash at each write.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final, Generic

from pet.bodies.body import SealedBody
from pet.coordinator.model_store import ModelStore
from pet.coordinator.round_journal import RoundJournal
from pet.coordinator.round_model import RoundModel
from pet.global_model import GlobalModel
from pet.messages import Chunk, Message
from pet.protocol.events import MachineEvent, PhaseEntered
from pet.protocol.message_checks import SenderCheck
from pet.protocol.profile import EntryT, EventT, RoundT, SettingsT
from pet.protocol.round_machine import RoundMachine

#: How often the time that a phase has lasted is written when nothing else is: a crash gives the phase at most so much back.
HEARTBEAT_SECONDS: Final = 1.0


class DurableRounds(ABC, Generic[SettingsT, RoundT, EntryT, EventT]):
    """Rounds that go on where others, that used the same storage, were stopped.

    Args:
        protocol: what decides. Its owner may ask it everything, but changes it here only.
        now_seconds: the time now.
        journal: what stores it; None keeps nothing.
        model_store: where models are kept; None keeps none.
        model: the last global model that was stored; None if there is none.
        was_restored: whether it goes on with what the journal's storage held.

    Attributes:
        protocol: as above.
        model: the last global model that was stored; None if there is none.
        was_restored: as above.
    """

    def __init__(
        self,
        protocol: RoundMachine[SettingsT, RoundT, EntryT, EventT],
        *,
        now_seconds: float,
        journal: RoundJournal[SettingsT, RoundT, EntryT, EventT] | None = None,
        model_store: ModelStore | None = None,
        model: RoundModel | None = None,
        was_restored: bool = False,
    ) -> None:
        self.protocol: Final = protocol
        self.model = model
        self.was_restored: Final = was_restored
        self._journal = journal
        self._model_store: Final = model_store
        self._round_seed = bytes(32)
        self._saved_seconds = now_seconds
        #: Events that nobody may know of yet.
        self._events: Final[deque[MachineEvent | EventT]] = deque()
        #: Models of rounds that are not stored yet.
        self._models: Final[deque[RoundModel]] = deque()
        if was_restored:
            protocol.announce_again()
            self._collect(is_news=False)

    # ---- what a profile decides ---------------------------------------------------------------------------------------

    @abstractmethod
    def _round_seed_of(self, event: MachineEvent | EventT) -> bytes | None:
        """Return the seed of the round that an event announces; None for any other event."""

    @abstractmethod
    def _model_of(self, event: MachineEvent | EventT) -> tuple[int, GlobalModel] | None:
        """Return the round and the model of an event that is a result; None for any other event."""

    @abstractmethod
    def _note_entry(self, entry: EntryT, body: SealedBody | None) -> None:
        """Note what a message left in the round, for the journal that there is.

        Args:
            entry: what it left.
            body: the message as it came, if it came whole; open until the next `settle` returns or raises.
        """

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
        is_chunk = message.is_multipart
        is_repeated = is_chunk and self._is_repeated(message)
        try:
            entry = self.protocol.take(message, checked)
            if entry is not None and self._journal is not None:
                self._note_entry(entry, None if is_chunk else body)
            if is_chunk and entry is None and not is_repeated:
                self._note_chunk(message)
        finally:
            if is_chunk:
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

    def settle(self, now_seconds: float) -> list[MachineEvent | EventT]:
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
        return self.protocol.state.round is not None

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
            seed, made = self._round_seed_of(event), self._model_of(event)
            if seed is not None:
                self._round_seed = seed
                if self._journal is not None and is_news:
                    self._journal.note_round(seed)
            elif made is not None:
                round_id, model = made
                self._models.append(RoundModel(round_id, self._round_seed, model))
            elif isinstance(event, PhaseEntered) and is_news and self._journal is not None:
                self._journal.note_phase(event.phase)

    def _note_chunk(self, message: Message) -> None:
        """Note a chunk of a message that is not whole yet; what leaves nothing otherwise was in the round already."""
        if self._journal is not None and isinstance(message.payload, Chunk):
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
