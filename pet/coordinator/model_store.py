"""Where global models are kept: the interface, and one that keeps the last model as long as the object lives."""

from __future__ import annotations

from typing import Any, Protocol

from pet.coordinator.round_model import RoundModel
from pet.errors import StateError


class ModelStore(Protocol):
    """What a coordinator asks of a model store. Calls come one at a time, from any thread."""

    def save(self, model: RoundModel) -> dict[str, Any]:
        """Keep a model; it survives the process when this returns. Keeping the same model again does no harm.

        Returns:
            What to load it by, ready for JSON; the coordinator stores it with its state.

        Raises:
            StorageError: it could not be kept; it may be tried again.
        """
        ...

    def load(self, record: dict[str, Any]) -> RoundModel:
        """Return a model that was kept.

        Raises:
            StateError: it is not there, is damaged, or is another one.
            StorageError: the store cannot be reached.
        """
        ...


class MemoryModelStore:
    """`ModelStore` in memory: it keeps the last model."""

    def __init__(self) -> None:
        self._model: RoundModel | None = None

    def save(self, model: RoundModel) -> dict[str, Any]:
        """Keep a model in place of the one before."""
        self._model = model
        return {"name": model.etag}

    def load(self, record: dict[str, Any]) -> RoundModel:
        """Return the last model."""
        if self._model is None or record != {"name": self._model.etag}:
            raise StateError(f"model store: expected model {record.get('name')!r}, got none of that name")
        return self._model
