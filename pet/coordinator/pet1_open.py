"""From settings and stores to rounds of pet/1."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypedDict, Unpack

from pet.coordinator.model_store import ModelStore
from pet.coordinator.pet1_durable import DurablePet1
from pet.messages import ChunkStore
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_evidence import EvidenceStore
from pet.protocol.pet1_leaf_store import LeafStore
from pet.protocol.pet1_round import Pet1Settings


class Pet1Options(TypedDict, total=False):
    """What rounds of pet/1 are made with beside their settings; each may be left out.

    Attributes:
        entropy: returns the requested number of random bytes; `os.urandom` if not given.
        first_number: number of the first round; the time in seconds if not given, so that it is above all before.
        model_store: keeps the models; None keeps none but the last, in memory.
        leaf_store: keeps the leaves of updates; in memory if not given.
        evidence_store: keeps who sent something wrong; in memory if not given.
        chunk_store: where the pieces of unfinished messages lie; in memory if not given.
        threads: how many threads adding may use; None means PET_THREADS, else all cores.
    """

    entropy: Callable[[int], bytes]
    first_number: int
    model_store: ModelStore | None
    leaf_store: LeafStore | None
    evidence_store: EvidenceStore | None
    chunk_store: ChunkStore | None
    threads: int | None


def open_pet1_rounds(settings: Pet1Settings, *, now_seconds: float, **options: Unpack[Pet1Options]) -> DurablePet1:
    """Begin.

    Args:
        settings: what rounds are like.
        now_seconds: the time now.
        options: see `Pet1Options`.
    """
    coordinator = Pet1Coordinator(
        settings,
        now_seconds=now_seconds,
        entropy=options.get("entropy", os.urandom),
        round_id=options.get("first_number", int(time.time())) - 1,
        leaf_store=options.get("leaf_store"),
        evidence_store=options.get("evidence_store"),
        chunk_store=options.get("chunk_store"),
        threads=options.get("threads"),
    )
    return DurablePet1(coordinator, now_seconds=now_seconds, model_store=options.get("model_store"))
