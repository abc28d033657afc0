"""Rounds of pet/1 that outlive their process: entries, updates and leaves (durable_rounds.py has the rest)."""

from __future__ import annotations

import logging
from typing import Any, Final

from pet.bodies.body import SealedBody
from pet.coordinator.durable_rounds import DurableRounds
from pet.coordinator.pet1_journal import Pet1Journal
from pet.errors import StorageError
from pet.global_model import GlobalModel
from pet.pet1.answers import UpdateAnswer
from pet.pet1.round_record import RoundRecord
from pet.protocol.events import MachineEvent, PhaseEntered
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_entries import Pet1Entry, UploadEntry
from pet.protocol.pet1_publications import Pet1Publication, RoundAnnounced, TotalPublished
from pet.protocol.pet1_round import Pet1Round, Pet1Settings
from pet.protocol.pet1_updates import UploadWork

_logger: Final = logging.getLogger(__name__)


class DurablePet1(DurableRounds[Pet1Settings, Pet1Round, Pet1Entry, Pet1Publication]):
    """A `Pet1Coordinator` that goes on where another one, that used the same stores, was stopped.

    Args:
        coordinator: what decides.
        options: as for `DurableRounds`.
    """

    def __init__(self, coordinator: Pet1Coordinator, **options: Any) -> None:
        self.coordinator: Final = coordinator
        self._may_release = False
        super().__init__(coordinator, **options)

    def take_update(self, work: UploadWork, now_seconds: float) -> UpdateAnswer:
        """Take what was done for an update; see `Pet1Coordinator.take_update`."""
        try:
            return self.coordinator.take_update(work, now_seconds)
        finally:
            # A leaf may have been written after the last one that wanted it: then it goes again.
            self._may_release |= not self._is_wanted(work)
            self._collect()

    def settle(self, now_seconds: float) -> list[MachineEvent | Pet1Publication]:
        """Store everything that happened, then drop the leaves that it needs no longer; see `DurableRounds.settle`."""
        events = super().settle(now_seconds)
        if self._may_release:
            self._may_release = False
            try:
                self.coordinator.release_leaves()
            except StorageError as error:
                _logger.warning("leaves that are no longer needed are left to the end of the next phase: %s", error)
        return events

    def _is_wanted(self, work: UploadWork) -> bool:
        """Return whether the round still has the update that leaves were written for."""
        current, opened = self.coordinator.state.round, work.opened
        if opened is None or not work.kept:
            return True
        known = None if current is None else current.find_upload(opened.name)
        return known is not None and not known.is_dead

    def _round_seed_of(self, event: MachineEvent | Pet1Publication) -> bytes | None:
        return RoundRecord.from_bytes(event.record).seed if isinstance(event, RoundAnnounced) else None

    def _model_of(self, event: MachineEvent | Pet1Publication) -> tuple[int, GlobalModel] | None:
        return (event.round_id, event.model) if isinstance(event, TotalPublished) else None

    def _note_entry(self, entry: Pet1Entry, body: SealedBody | None) -> None:
        """Note nothing yet: the coordinator keeps what its messages left, those that are no messages included."""

    def _collect(self, *, is_news: bool = True) -> None:
        known = len(self._events)
        super()._collect(is_news=is_news)
        self._may_release |= any(isinstance(self._events[place], PhaseEntered) for place in range(known, len(self._events)))
        # A round that began has no entries of the one before, so that these come after the phases.
        while (entry := self.coordinator.next_entry()) is not None:
            self._may_release |= isinstance(entry, UploadEntry) and entry.is_dead
            if self._journal is not None:
                assert isinstance(self._journal, Pet1Journal), "it was made with one"
                self._journal.note_entry(entry)
