"""Rounds of xaynet's profile that outlive their process: what is noted of their messages (durable_rounds.py has the rest)."""

from __future__ import annotations

from pet.bodies.body import SealedBody
from pet.coordinator.durable_rounds import DurableRounds
from pet.coordinator.journal import Journal
from pet.global_model import GlobalModel
from pet.protocol.entries import Entry, Sum2Entry
from pet.protocol.events import Event, ModelPublished, ParametersPublished, Publication
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import RoundState


class DurableCoordinator(DurableRounds[RoundSettings, RoundState, Entry, Publication]):
    """A `Coordinator` that goes on where another one, that used the same storage, was stopped."""

    def _round_seed_of(self, event: Event) -> bytes | None:
        return event.parameters.seed if isinstance(event, ParametersPublished) else None

    def _model_of(self, event: Event) -> tuple[int, GlobalModel] | None:
        return (event.round_id, event.model) if isinstance(event, ModelPublished) else None

    def _note_entry(self, entry: Entry, body: SealedBody | None) -> None:
        assert isinstance(self._journal, Journal), "the caller has looked"
        current = self.protocol.state.round
        leads = isinstance(entry, Sum2Entry) and current is not None and current.votes.leader is entry.mask
        self._journal.note_entry(entry, leads=leads, body=body)
