"""Entries: a round is the sum of them, and their bytes are read strictly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coordinator_driver import Session, snapshot
from coordinator_messages import GOOD

from pet.errors import AggregationError, StateError
from pet.protocol.entries import (
    Entry,
    Sum2Entry,
    SumEntry,
    UpdateEntry,
    apply_entry,
    decode_entry,
    encode_entry,
    with_large_part,
)
from pet.protocol.phases import ACCEPTED_TAG, Phase
from pet.protocol.round_state import RoundState
from pet.protocol.votes import choose_by_plurality


def entries_of_a_round() -> tuple[Session, list[Entry]]:
    """Run a round up to its last vote, and return what its messages left."""
    session, entries = Session().to_sum(), []
    for phase, count, seconds in ((Phase.SUM, 2, 5.0), (Phase.UPDATE, 3, 10.0), (Phase.SUM2, 2, 0.0)):
        for number in range(count):
            entry = session.coordinator.receive(GOOD[ACCEPTED_TAG[phase]](session, number), session.now)
            assert entry is not None
            entries.append(entry)
        session.wait(seconds)
    return session, entries


def empty_round(session: Session) -> RoundState:
    current = session.coordinator.state.round
    assert current is not None
    return RoundState.begin(session.settings, current.keys, current.parameters)


def large_part(entry: Entry) -> Any:
    return {UpdateEntry: "masked_model", Sum2Entry: "mask"}.get(type(entry))


def test_the_entries_of_a_round_make_it_again() -> None:
    session, entries = entries_of_a_round()
    again = empty_round(session)
    for entry in entries:
        decoded = decode_entry(encode_entry(entry))
        name = large_part(entry)
        if name is not None:
            decoded = with_large_part(decoded, getattr(entry, name).to_bytes())
        assert decoded == entry
        apply_entry(again, decoded)
    current = session.coordinator.state.round
    assert snapshot(again) == snapshot(current)


def test_models_in_the_total_and_masks_that_lost_are_not_needed_again() -> None:
    session, entries = entries_of_a_round()
    current, again = session.coordinator.state.round, empty_round(session)
    assert current is not None
    for entry in entries:
        decoded = decode_entry(encode_entry(entry))
        if entry is entries[-2]:
            decoded = with_large_part(decoded, entry.mask.to_bytes())
        apply_entry(again, decoded)
    assert again.update_participants == current.update_participants
    assert again.aggregation.count == 0
    assert choose_by_plurality(again.votes) == choose_by_plurality(current.votes)


def test_sum_messages_are_kept_as_they_came() -> None:
    entry = SumEntry(participant_public_key=b"p" * 32, ephemeral_public_key=b"e" * 32, signed_bytes=b"signed")
    again = decode_entry(encode_entry(entry))
    assert again == entry
    session = Session().to_sum()
    current = empty_round(session)
    apply_entry(current, again)
    apply_entry(current, SumEntry(participant_public_key=b"q" * 32, ephemeral_public_key=b"f" * 32))
    assert current.signed_sums == {b"p" * 32: b"signed"}
    assert current.sum_dictionary.keys() == {b"p" * 32, b"q" * 32}


def test_an_entry_that_cannot_be_added_changes_nothing() -> None:
    session, entries = entries_of_a_round()
    (update, *_) = (entry for entry in entries if isinstance(entry, UpdateEntry))
    assert update.masked_model is not None
    update.masked_model.vect[0] = np.uint8(255)
    current = empty_round(session)
    before = snapshot(current)
    with pytest.raises(AggregationError):
        apply_entry(current, update)
    assert snapshot(current) == before


def test_bytes_that_are_no_entry_are_refused() -> None:
    _, entries = entries_of_a_round()
    for data in (b"", bytes(33), bytes(40), b"\x04" + bytes(64), b"\x01" + bytes(63), b"\x03" + bytes(65), b"\x03" + bytes(63)):
        with pytest.raises(StateError, match="entry: expected"):
            decode_entry(data)
    (update, *_) = (encode_entry(entry) for entry in entries if isinstance(entry, UpdateEntry))
    with pytest.raises(StateError, match="bytes of encrypted seeds"):
        decode_entry(update + b"x")
    with pytest.raises(StateError, match="cannot be read"):
        decode_entry(update[:-1])


def test_large_parts_that_do_not_belong_there_are_refused() -> None:
    _, entries = entries_of_a_round()
    update, first = entries[2], entries[-1]
    assert isinstance(update, UpdateEntry)
    assert isinstance(first, Sum2Entry)
    assert update.masked_model is not None
    with pytest.raises(StateError, match="cannot be read"):
        with_large_part(update, b"")
    with pytest.raises(StateError, match="expected the mask voted for"):
        with_large_part(first, update.masked_model.to_bytes())
    with pytest.raises(StateError, match="expected no large part"):
        with_large_part(entries[0], b"")
