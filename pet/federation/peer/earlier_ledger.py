"""The ledger of peers that ran rounds of xaynet's profile, made one of pet/1: those sums are known as well.

Releases up to 0.2 remembered, in the counters, which versions of whose statistics were in rounds, by uuid. The same statistics
in another set are the same leak whichever profile made the first sum, so every such round counts as published.

Source: docs/spec/profile.md 6.5 (F1, F5).
"""

from __future__ import annotations

import json
from typing import Any, Final

from pet.crypto import hash_sha256
from pet.errors import StateError
from pet.federation.peer.context import COUNTERS, PeerContext
from pet.pet1.ledger import LedgerEntry, RoundLedger
from pet.protocol.pet1_federation_peer import LEDGER

_STATE: Final = f"pet1.{LEDGER}"


def take_over_ledger(context: PeerContext) -> None:
    """Write a ledger for a peer that has none, with the rounds that its counters remember.

    Raises:
        StateError: they are damaged.
    """
    store = context.store
    saved = store.load_state(COUNTERS)
    if saved is None or store.load_state(_STATE) is not None:
        return
    with StateError.reading("earlier ledger of a peer"):
        record: dict[str, Any] = json.loads(saved)
        earlier = record.get("ledger")
        if earlier is None:
            return
        keys = {peer.uuid: peer.signing_key for peer in context.record.peers}
        own = context.record.keys
        keys[own.uuid] = own.signing.public_key
        # A peer that is gone has no key any longer; in no later round can it be taken for another.
        sets = [
            {keys.get(uuid) or hash_sha256(uuid.encode()): int(version) for uuid, version in versions.items()}
            for versions in earlier["aggregates"]
        ]
        newest = {
            keys.get(uuid) or hash_sha256(uuid.encode()): int(version) for uuid, version in earlier.get("newest", {}).items()
        }
        last = max(int(record["round_id"]), len(sets))
    entries = [
        LedgerEntry(
            number=last - place,
            versions=versions,
            groups=1,
            members=frozenset(versions),
            published=True,
            precedes_pet1=True,
        )
        for place, versions in enumerate(reversed(sets))
    ]
    # Whatever was called up to then was of the other profile: no call of a lower number is answered.
    ledger = RoundLedger(own.signing.public_key, entries, last_called=last, newest=newest)
    store.save_state(_STATE, ledger.encode())
