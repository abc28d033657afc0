"""The record of a coordinator: what it says survives JSON, and nothing that contradicts itself is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from coordinator_driver import Session, counting_entropy, snapshot

from pet.errors import StateError
from pet.protocol.coordinator import Coordinator
from pet.protocol.events import Event, ParametersPublished, PhaseEntered, SeedDictionaryPublished, SumDictionaryPublished
from pet.protocol.phases import Phase
from pet.protocol.saved_state import load_state, save_state


def saved(session: Session) -> Any:
    return json.loads(json.dumps(save_state(session.coordinator, session.now)))


def test_a_fresh_coordinator() -> None:
    session = Session(round_id=4)
    settings, state = load_state(saved(session), 7.0)
    assert settings is None
    assert (state.phase, state.round_id, state.round, state.phase_started_seconds) == (Phase.IDLE, 4, None, 7.0)


@pytest.mark.parametrize("start", ["to_sum", "to_update", "to_sum2"])
def test_everything_but_the_entries(start: str) -> None:
    session = Session().to_sum()
    session.wait(60)
    getattr(session, start)()
    session.coordinator.refuse("decryption")
    session.coordinator.refuse("discarded")
    session.wait(1.5)
    settings, state = load_state(saved(session), 50.0)
    assert settings == session.settings
    original = session.coordinator.state
    assert state.phase_started_seconds == 48.5
    assert state.counters == original.counters
    assert state.round is not None
    assert original.round is not None
    assert (state.round.keys, state.round.parameters) == (original.round.keys, original.round.parameters)
    for name in ("phase", "round_id", "seed", "rounds_completed", "rounds_failed", "rounds_reopened"):
        assert getattr(state, name) == getattr(original, name)
    assert snapshot(state.round.votes) == snapshot(type(original.round.votes)())


def test_a_record_of_an_earlier_version_counts_no_reopened_rounds() -> None:
    record = saved(Session().to_update())
    del record["rounds_reopened"]
    assert load_state(record, 0.0)[1].rounds_reopened == 0


def announced(session: Session) -> list[Event]:
    restored = Coordinator.from_state(session.settings, session.coordinator.state, entropy=counting_entropy())
    restored.announce_again()
    return list(iter(restored.next_event, None))


def test_a_restart_is_told_what_a_fresh_owner_would_have_heard() -> None:
    assert announced(Session()) == []
    session = Session()
    heard: list[type[Any]] = [PhaseEntered, ParametersPublished]
    for start, more in (("to_sum", []), ("to_update", [SumDictionaryPublished]), ("to_sum2", [SeedDictionaryPublished])):
        session = Session()
        getattr(session, start)()
        heard += more
        events = announced(session)
        assert [type(event) for event in events] == heard
        assert all(event in session.events for event in events)
    session.coordinator.shut_down()
    assert announced(session) == []


def test_settings_of_the_next_round_wait_for_it() -> None:
    session = Session().to_sum2()
    other = Session().settings
    changed = type(other).of(other.mask_config, 9)
    session.coordinator.next_settings = changed
    session.send_masks()
    assert session.coordinator.settings is changed
    assert session.coordinator.parameters is not None
    assert session.coordinator.parameters.model_length == 9
    assert session.coordinator.next_deadline_seconds() == session.now + changed.sum.max_seconds


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for name in path[:-1]:
            record = record[name]
        record[path[-1]] = value

    return change


CONTRADICTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda record: record.clear(),
    "no round": put("round", value=None),
    "a round in idle": put("phase", value="idle"),
    "the end": put("phase", value="shutdown"),
    "an unknown phase": put("phase", value="pause"),
    "no number": put("accepted", value="many"),
    "another key": put("round", "secret_key", value="11" * 32),
    "half a key": put("round", "secret_key", value="11" * 16),
    "another seed": put("seed", value="11" * 32),
    "another model length": put("round", "settings", "model_length", value=5),
    "another mask config": put("round", "settings", "vect", value="prime-f32-b0-m3"),
    "no mask config": put("round", "settings", "unit", value="prime"),
    "other probabilities": put("round", "settings", "sum_probability", value=0.25),
    "a window that is none": put("round", "settings", "sum", "min_count", value=99),
    "half of the parameters": put("round", "parameters", value="00" * 68),
    "no hexadecimal": put("seed", value="xx"),
}


@pytest.mark.parametrize("change", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    record = saved(Session().to_update())
    change(record)
    with pytest.raises(StateError, match="saved coordinator"):
        load_state(record, 0.0)
