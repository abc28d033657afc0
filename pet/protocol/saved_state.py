"""The state of a coordinator as a small record: everything but what its entries hold.

A saved coordinator is this record and the entries of its round (pet/protocol/entries.py), whose large parts can be a saved
total instead. The time that a phase has lasted is saved, not when it began: a coordinator that was down gets the rest of its
phase.

The record is ready for JSON and contains the **secret key** of the round in clear. This file knows no storage.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from pet.crypto import EncryptionKeyPair
from pet.errors import StateError
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.messages import RoundParameters
from pet.protocol.entries import Entry
from pet.protocol.events import Publication
from pet.protocol.phases import Phase
from pet.protocol.profile import RoundT
from pet.protocol.round_machine import RoundMachine
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import CoordinatorState, MachineState, PhaseCounters, RoundState
from pet.protocol.windows import PhaseWindow

XaynetMachine: TypeAlias = RoundMachine[RoundSettings, RoundState, Entry, Publication]

#: Records of other profiles say theirs.
XAYNET: Final = "xaynet"
_WINDOWS: Final = ("sum", "update", "sum2")
_WINDOW_FIELDS: Final = ("min_count", "max_count", "min_seconds", "max_seconds")
_NUMBER_FIELDS: Final = (
    "sum_probability",
    "update_probability",
    "model_length",
    "max_chunk_bytes",
    "max_participant_chunk_bytes",
    "max_chunked_messages",
    "chunk_patience_seconds",
)


def save_state(coordinator: XaynetMachine, now_seconds: float, saved_round: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the record of a coordinator at some moment.

    Args:
        coordinator: what to save.
        now_seconds: the time now.
        saved_round: what `save_round` returned of it, earlier in the same round; None means that it is to be asked.
    """
    return save_machine(coordinator.state, now_seconds) | {
        "round": save_round(coordinator) if saved_round is None else saved_round
    }


def save_machine(state: MachineState[RoundT], now_seconds: float) -> dict[str, Any]:
    """Return what a record says of a coordinator of any profile: all but its round."""
    return {
        "phase": state.phase.value,
        "elapsed_seconds": max(0.0, now_seconds - state.phase_started_seconds),
        "round_id": state.round_id,
        "seed": state.seed.hex(),
        "accepted": state.counters.accepted,
        "rejected": dict(state.counters.rejected),
        "discarded": state.counters.discarded,
        "rounds_completed": state.rounds_completed,
        "rounds_failed": state.rounds_failed,
        "rounds_reopened": state.rounds_reopened,
    }


def save_round(coordinator: XaynetMachine) -> dict[str, Any] | None:
    """Return what stays the same as long as a round lasts; None between rounds."""
    # In Idle the last round is over; its keys are of no further use.
    current = None if coordinator.state.phase is Phase.IDLE else coordinator.state.round
    if current is None:
        return None
    return {
        "secret_key": current.keys.secret_key.hex(),
        "parameters": current.parameters.to_bytes().hex(),
        "settings": _save_settings(coordinator.settings),
    }


def load_state(record: Mapping[str, Any], now_seconds: float) -> tuple[RoundSettings | None, CoordinatorState]:
    """Read a record.

    Returns:
        The settings of its round, and the state, whose round nobody has taken part in: that comes with the entries. Without a
        round there are no settings either.

    Raises:
        StateError: something is missing, or contradicts the rest.
    """
    with StateError.reading("saved coordinator"):
        return _load_state(record, now_seconds)


def load_machine(record: Mapping[str, Any], now_seconds: float) -> MachineState[Any]:
    """Read what `save_machine` wrote; its caller turns what damage makes this raise into a StateError."""
    rejected = {str(reason): _count(record["rejected"], reason) for reason in record["rejected"]}
    counters = PhaseCounters(
        accepted=_count(record, "accepted"), rejected=Counter(rejected), discarded=_count(record, "discarded")
    )
    elapsed_seconds = float(record["elapsed_seconds"])
    _expect(math.isfinite(elapsed_seconds) and elapsed_seconds >= 0, "expected a phase that began, got another time")
    return MachineState(
        phase=Phase(record["phase"]),
        phase_started_seconds=now_seconds - elapsed_seconds,
        round_id=_count(record, "round_id"),
        seed=bytes.fromhex(record["seed"]),
        counters=counters,
        rounds_completed=_count(record, "rounds_completed"),
        rounds_failed=_count(record, "rounds_failed"),
        # Records of earlier versions lack it: there such rounds counted as failed.
        rounds_reopened=_count(record, "rounds_reopened", 0),
    )


def _load_state(record: Mapping[str, Any], now_seconds: float) -> tuple[RoundSettings | None, CoordinatorState]:
    profile = record.get("profile", XAYNET)
    _expect(profile == XAYNET, f"expected a round of {XAYNET}'s profile, got one of {profile!r}")
    state: CoordinatorState = load_machine(record, now_seconds)
    saved = record["round"]
    _expect(state.phase is not Phase.SHUTDOWN, "expected a phase to go on in, got the end")
    _expect(
        (saved is None) == (state.phase is Phase.IDLE), f"expected a round in every phase but idle, got {state.phase.value}"
    )
    if saved is None:
        return None, state
    settings = _load_settings(saved["settings"])
    parameters = RoundParameters.from_bytes(bytes.fromhex(saved["parameters"]))
    keys = EncryptionKeyPair.from_secret_key(bytes.fromhex(saved["secret_key"]))
    _expect(parameters.coordinator_public_key == keys.public_key, "the key is not that of the round")
    _expect(parameters.seed == state.seed, "the seed is not that of the round")
    of_settings = (settings.mask_config, settings.model_length, settings.sum_probability, settings.update_probability)
    of_round = (
        parameters.mask_config,
        parameters.model_length,
        parameters.sum_probability,
        parameters.update_probability,
    )
    _expect(of_settings == of_round, "the settings are not those of the round")
    state.round = RoundState.begin(settings, keys, parameters)
    return settings, state


def _count(record: Mapping[str, Any], name: str, default: int | None = None) -> int:
    number = record[name] if default is None else record.get(name, default)
    _expect(type(number) is int and 0 <= number < 2**63, f"{name}: expected a number from 0 on")
    return int(number)


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise StateError(otherwise)


def _save_settings(settings: RoundSettings) -> dict[str, Any]:
    pair = settings.mask_config
    record: dict[str, Any] = {name: getattr(settings, name) for name in _NUMBER_FIELDS}
    for name in _WINDOWS:
        record[name] = {field: getattr(getattr(settings, name), field) for field in _WINDOW_FIELDS}
    return record | {"vect": str(pair.vect), "unit": str(pair.unit)}


def _load_settings(record: Mapping[str, Any]) -> RoundSettings:
    windows: dict[str, Any] = {
        name: PhaseWindow(**{field: record[name][field] for field in _WINDOW_FIELDS}) for name in _WINDOWS
    }
    pair = MaskConfigPair(vect=MaskConfig.parse(record["vect"]), unit=MaskConfig.parse(record["unit"]))
    numbers = {name: record[name] for name in _NUMBER_FIELDS}
    return RoundSettings(mask_config=pair, **numbers, **windows)
