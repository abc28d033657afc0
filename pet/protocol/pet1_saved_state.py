"""The state of a coordinator of pet/1 as a small record, and the way back.

A saved coordinator is this record, the entries of its round (pet/protocol/pet1_entries.py) and the leaves of its updates. What
is written when: an entry before its message is answered, a leaf before it is marked, and the record before anything
is published that it knows of, so that nobody is shown two committees, lists or certificates of one round.

The record is ready for JSON and contains the **secret key** of the round in clear. This file knows no storage.

Source: docs/spec/profile.md 14.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from pet.buffers import Buffer
from pet.crypto import EncryptionKeyPair
from pet.errors import StateError
from pet.messages import ChunkStore
from pet.pet1.hashes import DIGEST_BYTES
from pet.pet1.round_record import RoundRecord
from pet.protocol.pet1_entries import Pet1Entry, restore_entries
from pet.protocol.pet1_leaf_store import LeafStore
from pet.protocol.pet1_publications import Pet1Publication
from pet.protocol.pet1_round import Pet1Round, Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.protocol.phases import PET1_PHASES, Phase
from pet.protocol.round_machine import RoundMachine
from pet.protocol.round_state import MachineState
from pet.protocol.saved_state import load_machine, save_machine

PROFILE: Final = "pet/1"
#: What a record of a round does not say of the settings that it was begun with.
_NUMBERS: Final = (
    "min_count",
    "max_count",
    "committee_spare",
    "answer_spare",
    "pieces_in_flight",
    "evidence_rounds",
)
#: Phases that a record can be of: those that wait, and the work after the last of them, if a store failed in the middle of it.
_RESTORED: Final = frozenset({Phase.IDLE, *PET1_PHASES.accepted_tags, Phase.UNMASK})
_PHASES: Final = ("sum", "update", "check", "sum2")


Pet1Machine: TypeAlias = RoundMachine[Pet1Settings, Pet1Round, Pet1Entry, Pet1Publication]


def save_pet1_state(
    coordinator: Pet1Machine, now_seconds: float, saved_round: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the record of a coordinator at some moment.

    Args:
        coordinator: what to save.
        now_seconds: the time now.
        saved_round: what stands for `save_pet1_round`, which its owner keeps elsewhere; None puts it into the record.
    """
    saved: Mapping[str, Any] | None = None
    if coordinator.state.phase is not Phase.IDLE:  # where there is no round, or it is over
        saved = save_pet1_round(coordinator) if saved_round is None else saved_round
    return {"profile": PROFILE} | save_machine(coordinator.state, now_seconds) | {"round": saved}


def save_pet1_round(coordinator: Pet1Machine) -> dict[str, Any]:
    """Return what stays the same as long as a round collects messages, which there is."""
    current, settings = coordinator.state.round, coordinator.settings
    assert current is not None, "the caller has looked"
    return {
        "secret_key": current.keys.secret_key.hex(),
        "record": current.record.to_bytes().hex(),
        "enrolment": current.served_enrolment.hex(),
        "next_model_digest": current.record.model_digest.hex(),
        "settings": {name: getattr(settings, name) for name in _NUMBERS}
        | {name: [getattr(settings, name).min_seconds, getattr(settings, name).max_seconds] for name in _PHASES},
    }


def load_pet1_state(
    record: Mapping[str, Any],
    entries: Iterable[Buffer],
    leaf_store: LeafStore,
    *,
    now_seconds: float,
    chunk_store: ChunkStore | None = None,
) -> tuple[Pet1Settings | None, MachineState[Pet1Round]]:
    """Read a record, and build its round up from its entries.

    Args:
        record: of `save_pet1_state`.
        entries: of `encode_entry`, those of the record's round, in order.
        leaf_store: where leaves are.
        now_seconds: the time now.
        chunk_store: where the pieces of unfinished Sum2 messages lie; in memory if None. There are none yet: their owner puts
            back what it has kept, and senders send all others again.

    Returns:
        The settings of its round, and the state, both for a `Pet1Coordinator`, whose `next_settings` are those that count now.
        Without a round there are no settings.

    Raises:
        StateError: something is missing, or contradicts the rest.
    """
    with StateError.reading("saved coordinator"):
        if record["profile"] != PROFILE:
            raise StateError(f"expected a round of {PROFILE}, got one of {record['profile']!r}")
        state: MachineState[Pet1Round] = load_machine(record, now_seconds)
        saved = record["round"]
        if (saved is None) != (state.phase is Phase.IDLE) or state.phase not in _RESTORED:
            raise StateError(f"expected a phase that can be gone on with, and a round in it, got {state.phase.value}")
        if saved is None:
            return None, state
        settings, current = _load_round(saved, state, chunk_store)
        restore_entries(current, entries, state.phase, leaf_store)
        held = {
            Phase.SUM: current.sums,
            Phase.UPDATE: current.updates,
            Phase.CHECK: current.checks,
            Phase.SUM2: current.answers,
        }
        state.round, state.counters.accepted = current, len(held.get(state.phase, ()))
        return settings, state


def _load_round(
    saved: Mapping[str, Any], state: MachineState[Pet1Round], chunk_store: ChunkStore | None
) -> tuple[Pet1Settings, Pet1Round]:
    """Return the settings of a round, and the round, in which nobody has taken part."""
    record, served = RoundRecord.from_bytes(bytes.fromhex(saved["record"])), bytes.fromhex(saved["enrolment"])
    keys = EncryptionKeyPair.from_secret_key(bytes.fromhex(saved["secret_key"]))
    current = Pet1Round.begin(keys, record, served, chunk_store)
    current.next_model_digest = bytes.fromhex(saved["next_model_digest"])
    found = record.coordinator_key, record.seed, record.number, record.enrolment_digest, len(current.next_model_digest)
    if found != (keys.public_key, state.seed, state.round_id, current.enrolment.digest, DIGEST_BYTES):
        raise StateError("the record of the round is of another one")
    options = saved["settings"]
    times = {name: PhaseTimes(min_seconds=options[name][0], max_seconds=options[name][1]) for name in _PHASES}
    numbers: dict[str, Any] = {name: options[name] for name in _NUMBERS}
    settings = Pet1Settings(
        config=record.config,
        model_length=record.model_length,
        served_enrolment=served,
        min_updates=record.min_updates,
        update_share=record.update_share,
        model_digest=record.model_digest,
        **numbers | times,
    )
    return settings, current
