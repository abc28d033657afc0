"""Where a coordinator of pet/1 is durable in tests: its record and its entries as bytes, and its leaves and evidence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_entries import encode_entry
from pet.protocol.pet1_evidence import MemoryEvidenceStore
from pet.protocol.pet1_leaf_store import MemoryLeafStore
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_saved_state import load_pet1_state, save_pet1_state


@dataclass
class CoordinatorDisk:
    """All that outlives a coordinator."""

    leaves: MemoryLeafStore = field(default_factory=MemoryLeafStore)
    evidence: MemoryEvidenceStore = field(default_factory=MemoryEvidenceStore)
    record: str = ""
    entries: list[bytes] = field(default_factory=list)
    round_id: int = 0

    def commit(self, coordinator: Pet1Coordinator, now: float) -> None:
        """Write what is not written, as one transaction, and forget leaves after it."""
        new = [b"".join(encode_entry(entry)) for entry in iter(coordinator.next_entry, None)]
        self.entries = [*([] if coordinator.round_id != self.round_id else self.entries), *new]
        self.round_id = coordinator.round_id
        self.record = json.dumps(save_pet1_state(coordinator, now))
        coordinator.release_leaves()

    def snapshot(self) -> CoordinatorDisk:
        """Return what is there now."""
        return copy.deepcopy(self)

    def start(self, settings: Pet1Settings, now: float, entropy: Callable[[int], bytes], **options: Any) -> Pet1Coordinator:
        """Return a coordinator that goes on from here."""
        own, state = load_pet1_state(json.loads(self.record), self.entries, self.leaves, now_seconds=now)
        coordinator = Pet1Coordinator(
            own or settings,
            now_seconds=now,
            entropy=entropy,
            round_id=0,
            leaf_store=self.leaves,
            evidence_store=self.evidence,
            threads=1,
            state=state,
            **options,
        )
        coordinator.next_settings = settings
        return coordinator
