"""From settings and stores to rounds of pet/1."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypedDict, Unpack

from pet.buffers import Buffer
from pet.coordinator.model_store import ModelStore
from pet.coordinator.open_rounds import WRITER_BYTES, load_model
from pet.coordinator.pet1_durable import DurablePet1
from pet.coordinator.pet1_journal import Pet1Journal, restore_pet1
from pet.coordinator.round_model import RoundModel
from pet.coordinator.storage.base import Storage
from pet.field_config import FieldConfig
from pet.field_model import FieldModel
from pet.global_model import GlobalModel
from pet.mask_choices import FieldValues
from pet.messages import ChunkStore
from pet.pet1.hashes import digest
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_evidence import EvidenceStore
from pet.protocol.pet1_leaf_store import LeafStore, MemoryLeafStore
from pet.protocol.pet1_publications import pack_model
from pet.protocol.pet1_round import Pet1Settings


class Pet1Options(TypedDict, total=False):
    """What rounds of pet/1 are made with beside their settings; each may be left out.

    Attributes:
        entropy: returns the requested number of random bytes; `os.urandom` if not given.
        first_number: number of the first round; the time in seconds if not given, so that it is above all before.
        storage: keeps the rounds; those that it holds go on. None keeps nothing.
        model_store: keeps the models; None keeps none but the last, in memory.
        leaf_store: keeps the leaves of updates; in memory if not given.
        evidence_store: keeps who sent something wrong; in memory if not given.
        chunk_store: where the pieces of unfinished messages lie; in memory if not given.
        threads: how many threads adding may use; None means PET_THREADS, else all cores.
    """

    entropy: Callable[[int], bytes]
    first_number: int
    storage: Storage | None
    model_store: ModelStore | None
    leaf_store: LeafStore | None
    evidence_store: EvidenceStore | None
    chunk_store: ChunkStore | None
    threads: int | None


def open_pet1_rounds(settings: Pet1Settings, *, now_seconds: float, **options: Unpack[Pet1Options]) -> DurablePet1:
    """Go on with the rounds of a storage, or begin.

    Args:
        settings: what rounds are like; one that is under way keeps its own.
        now_seconds: the time now.
        options: see `Pet1Options`.

    Raises:
        StateError: what is stored is damaged, or not of a coordinator of this version and profile.
        StorageError: a store cannot be reached.
    """
    storage, model_store = options.get("storage"), options.get("model_store")
    leaf_store, chunk_store = options.get("leaf_store"), options.get("chunk_store")
    last_number = options.get("first_number", int(time.time())) - 1
    entropy, own, state, model, journal = options.get("entropy", os.urandom), None, None, None, None
    if storage is not None:
        journal = Pet1Journal(storage, writer := entropy(WRITER_BYTES))
        leaf_store = leaf_store or MemoryLeafStore()
        restored = restore_pet1(storage, leaf_store, now_seconds=now_seconds, chunk_store=chunk_store)
        if restored is not None:
            own, state, position = restored
            if state.round is None:  # rounds of xaynet's profile are counted from 1
                state.round_id = max(state.round_id, last_number)
            journal = Pet1Journal(storage, writer, position)
            if model_store is not None and position.model is not None:
                model = load_model(model_store, position.model)
    settings = _starting_from(settings, model)
    coordinator = Pet1Coordinator(
        own or settings,
        now_seconds=now_seconds,
        entropy=entropy,
        round_id=last_number,
        leaf_store=leaf_store,
        evidence_store=options.get("evidence_store"),
        chunk_store=chunk_store,
        threads=options.get("threads"),
        state=state,
    )
    coordinator.next_settings = settings
    return DurablePet1(
        coordinator,
        now_seconds=now_seconds,
        journal=journal,
        model_store=model_store,
        model=model,
        was_restored=state is not None,
    )


def _starting_from(settings: Pet1Settings, model: RoundModel | None) -> Pet1Settings:
    """Return settings whose first round starts from the last model that there is, if it is one of theirs."""
    packed = None if model is None else pack_last_model(model.model)
    if packed is None or model is None or settings.config.values is FieldValues.INT:
        return settings
    if (model.length, model.dtype) != (settings.model_length, settings.config.dtype):
        return settings
    return replace(settings, model_digest=digest("pet-1 model", packed))


def pack_last_model(model: GlobalModel) -> Buffer | None:
    """Return a model as participants of pet/1 take it, whichever profile's round made it; None for integers of xaynet's."""
    config = model.config.vect
    if isinstance(model, FieldModel) and isinstance(config, FieldConfig):
        return pack_model(model, config)
    if model.dtype.kind != "f":
        return None
    return model.to_array().astype(model.dtype.newbyteorder("<"), copy=False).data.cast("B")
