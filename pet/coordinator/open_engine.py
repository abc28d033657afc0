"""From settings and stores to an engine: the one place where the profile of the rounds is chosen."""

from __future__ import annotations

from pet.coordinator.allow_list import read_allow_list
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.pet1_settings import to_pet1_settings
from pet.coordinator.round_engine import AnyEngine
from pet.coordinator.settings import Settings
from pet.coordinator.stores import Stores
from pet.messages import ChunkStore
from pet.protocol.strategies import DEFAULT_STRATEGIES, Strategies


def open_engine(settings: Settings, stores: Stores | None, chunk_store: ChunkStore) -> AnyEngine:
    """Return the engine of the profile that the settings name.

    Args:
        settings: of rounds and service.
        stores: where rounds and models are kept; None keeps them in memory.
        chunk_store: where the pieces of unfinished messages lie.

    Raises:
        ConfigError: the protocol refuses the settings, or a list of keys cannot be used.
        StateError: what is stored is damaged, or not of a coordinator of this version and profile.
        StorageError: a store cannot be reached.
    """
    storage, model_store = (stores.storage, stores.model_store) if stores else (None, None)
    if settings.pet.is_pet1:
        return Pet1Engine(
            to_pet1_settings(settings),
            storage=storage,
            model_store=model_store,
            leaf_store=stores.leaf_store if stores else None,
            evidence_store=stores.evidence_store if stores else None,
            chunk_store=chunk_store,
        )
    allowed = settings.service.allowed_participants
    return CoordinatorEngine(
        settings.to_round_settings(),
        storage=storage,
        model_store=model_store,
        chunk_store=chunk_store,
        strategies=DEFAULT_STRATEGIES if allowed is None else Strategies(admit=read_allow_list(allowed)),
    )
