"""From settings and stores to rounds: those that a storage holds go on, else the first one is yet to begin."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypedDict, Unpack

from pet.coordinator.durable import DurableCoordinator
from pet.coordinator.journal import Journal
from pet.coordinator.model_store import ModelStore
from pet.coordinator.restore import restore
from pet.coordinator.round_model import RoundModel
from pet.coordinator.storage.base import Storage
from pet.errors import StateError
from pet.messages import ChunkStore
from pet.protocol.coordinator import Coordinator
from pet.protocol.round_settings import RoundSettings
from pet.protocol.strategies import DEFAULT_STRATEGIES, Strategies

#: Random bytes that distinguish a journal from any other.
WRITER_BYTES: Final = 16


class RoundOptions(TypedDict, total=False):
    """What rounds are made with beside their settings; each may be left out.

    Attributes:
        entropy: returns the requested number of random bytes; `os.urandom` if not given.
        storage: keeps the rounds; those that it holds go on. None keeps nothing.
        model_store: keeps the models; None keeps none but the last, in memory.
        strategies: who takes part in rounds, with which task, and which mask counts.
        chunk_store: where the pieces of unfinished messages lie; in memory if not given.
    """

    entropy: Callable[[int], bytes]
    storage: Storage | None
    model_store: ModelStore | None
    strategies: Strategies
    chunk_store: ChunkStore | None


def open_rounds(settings: RoundSettings, *, now_seconds: float, **options: Unpack[RoundOptions]) -> DurableCoordinator:
    """Go on with the rounds of a storage, or begin.

    Args:
        settings: what rounds are like; one that is under way keeps its own.
        now_seconds: the time now.
        options: see `RoundOptions`.

    Raises:
        StateError: what is stored is damaged, or not of a coordinator of this version.
        StorageError: a store cannot be reached.
    """
    storage, model_store = options.get("storage"), options.get("model_store")
    entropy, strategies = options.get("entropy", os.urandom), options.get("strategies", DEFAULT_STRATEGIES)
    chunk_store, writer = options.get("chunk_store"), b""
    if storage is not None:
        writer = entropy(WRITER_BYTES)
        restored = restore(
            storage,
            settings,
            now_seconds=now_seconds,
            entropy=entropy,
            writer=writer,
            strategies=strategies,
            chunk_store=chunk_store,
        )
        if restored is not None:
            protocol, journal = restored
            record = journal.position.model
            model = None if model_store is None or record is None else load_model(model_store, record)
            return DurableCoordinator(
                protocol,
                now_seconds=now_seconds,
                journal=journal,
                model_store=model_store,
                model=model,
                was_restored=True,
            )
    return DurableCoordinator(
        Coordinator(settings, now_seconds=now_seconds, entropy=entropy, strategies=strategies, chunk_store=chunk_store),
        now_seconds=now_seconds,
        journal=None if storage is None else Journal(storage, writer),
        model_store=model_store,
    )


def load_model(model_store: ModelStore, record: dict[str, Any]) -> RoundModel:
    """Return the last global model that a storage names.

    Raises:
        StateError: it is not there, or damaged.
        StorageError: the store cannot be reached.
    """
    with StateError.reading("last global model", " (--fresh begins without one)"):
        return model_store.load(record)
