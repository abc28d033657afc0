"""The embedded storage: records live as long as this object does.

An embedder that builds a second engine on the same object continues its round ids and goes on serving its model. Nothing is
written to disk.
"""

from __future__ import annotations

from pet.coordinator.storage.base import RoundRecord
from pet.transports.base import PublishedModel


class MemoryStorage:
    """`Storage` in memory."""

    def __init__(self) -> None:
        self._round: RoundRecord | None = None
        self._model: PublishedModel | None = None

    def save_round(self, record: RoundRecord) -> None:
        """Remember the round that begins now."""
        self._round = record

    def load_round(self) -> RoundRecord | None:
        """Return the last round that was saved, or None."""
        return self._round

    def save_model(self, model: PublishedModel) -> None:
        """Remember the global model that is published now."""
        self._model = model

    def load_model(self) -> PublishedModel | None:
        """Return the last model that was saved, or None."""
        return self._model
