"""The defects of xaynet that a state machine can have (docs/spec/pet.md 13), one test each for how ours behaves."""

import itertools
from dataclasses import replace

import pytest
from coordinator_driver import Session, events_of, small_settings
from coordinator_messages import BAD, LOW_ORDER_KEYS, chunk_of, sum2_by, sum_by, update_by

from pet.errors import RemoteProtocolError
from pet.messages import CHUNK_OVERHEAD_BYTES, Tag, split_message
from pet.protocol import (
    Event,
    ModelPublished,
    ParametersPublished,
    Phase,
    PhaseEntered,
    RoundFailed,
    SeedDictionaryPublished,
    SumDictionaryPublished,
)


def test_a_zero_scalar_sum_fails_the_round_instead_of_crashing() -> None:
    session = Session().to_sum2(scalar=0)
    events = session.send_masks()
    assert [event.reason for event in events_of(RoundFailed, events)] == ["zero_scalar_sum"]
    assert events_of(ModelPublished, events) == []
    assert session.coordinator.phase is Phase.SUM
    assert session.coordinator.round_id == 2


def test_an_invalid_sum_signature_in_an_update_does_not_free_a_sum_participant_from_its_task() -> None:
    session = Session().to_update()
    # Eligible for both tasks: xaynet takes its update once the sum signature is broken.
    parameters = session.round.parameters
    everybody = replace(parameters, update_probability=1.0)
    current = session.coordinator.state.round
    assert current is not None
    current.parameters = everybody
    message = BAD["update by a sum participant"][1](session, 0)
    for signature, reason in ((message.payload.sum_signature, "not_update_eligible"), (bytes(64), "invalid_sum_signature")):
        with pytest.raises(RemoteProtocolError) as caught:
            session.send(replace(message, payload=replace(message.payload, sum_signature=signature)))
        assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["sum2 of another config", "sum2 of another length", "sum2 with an invalid element"])
def test_an_invalid_sum2_mask_is_refused_on_receipt_and_cannot_win(name: str) -> None:
    session = Session().to_sum2()
    liar_message = BAD[name][1](session, 1)
    with pytest.raises(RemoteProtocolError):
        session.send(liar_message)
    session.send(sum2_by(session, 0))
    assert len(events_of(ModelPublished, session.wait(6))) == 1


@pytest.mark.parametrize("phase", [Phase.SUM, Phase.UPDATE, Phase.SUM2])
def test_chunks_are_dropped_at_the_end_of_their_phase(phase: Phase) -> None:
    session = Session()
    start, builder = {
        Phase.SUM: (session.to_sum, sum_by),
        Phase.UPDATE: (session.to_update, update_by),
        Phase.SUM2: (session.to_sum2, sum2_by),
    }[phase]
    start()
    session.send(chunk_of(builder, 0, 210)(session, 0))
    current = session.coordinator.state.round
    assert current is not None
    assert current.chunks.size_bytes > 0
    session.wait(100)
    assert current.chunks.size_bytes == 0
    assert session.coordinator.state.round is not current


def test_chunks_of_one_phase_are_dropped_when_the_next_one_of_the_round_begins() -> None:
    session = Session().to_sum()
    session.send(chunk_of(sum_by, 0, 210)(session, 1))
    session.send(sum_by(session, 0))
    session.wait(5)
    current = session.coordinator.state.round
    assert current is not None
    assert session.coordinator.phase is Phase.UPDATE
    assert len(current.chunks) == 0


def test_chunked_messages_are_bounded_by_participant() -> None:
    limit = 40_000
    session = Session(small_settings(max_participant_chunk_bytes=limit)).to_update()
    first_chunks = (next(split_message(update_by(session, 0), 400, message_id)) for message_id in range(2**16))
    chunk = next(first_chunks)
    session.send(chunk)
    fitting = limit // (len(chunk.payload.data) + CHUNK_OVERHEAD_BYTES)
    for chunk in itertools.islice(first_chunks, fitting - 1):
        session.send(chunk)
    with pytest.raises(RemoteProtocolError) as caught:
        session.send(next(first_chunks))
    assert caught.value.reason == "chunk_limit"
    assert session.coordinator.status(session.now).rejected == {"chunk_limit": 1}
    # Others are not hurt by it.
    session.send(update_by(session, 1))


@pytest.mark.parametrize("key", LOW_ORDER_KEYS)
def test_a_low_order_ephemeral_key_is_refused(key: bytes) -> None:
    session = Session().to_sum()
    participant = session.round.keys("sum", 1)[0]
    with pytest.raises(RemoteProtocolError) as caught:
        session.send(session.round.sum(participant, ephemeral_public_key=key))
    assert caught.value.reason == "low_order_key"


def test_a_phase_is_announced_before_what_its_participants_need_is_published() -> None:
    session = Session().to_sum2()
    invitations = {
        ParametersPublished: Phase.SUM,
        SumDictionaryPublished: Phase.UPDATE,
        SeedDictionaryPublished: Phase.SUM2,
    }
    seen: list[Event] = []
    for event in session.events:
        if type(event) in invitations:
            assert seen[-1] == PhaseEntered(round_id=1, phase=invitations[type(event)])
        seen.append(event)
    assert {type(event) for event in seen} >= invitations.keys()


def test_an_answer_in_the_moment_of_publication_is_taken() -> None:
    session = Session().to_sum()
    session.send(sum_by(session, 0))
    session.coordinator.advance_time(session.now + 5)
    while not isinstance(event := session.coordinator.next_event(), SumDictionaryPublished):
        assert event is not None
    assert session.coordinator.accepted_tag is Tag.UPDATE
    session.sum_dictionary = dict(event.sum_dictionary)
    session.now += 5
    session.send(update_by(session, 0))
    assert session.coordinator.status(session.now).accepted == 1


def test_there_are_no_parameters_to_serve_before_the_first_idle_is_done() -> None:
    session = Session()
    assert session.coordinator.parameters is None
    session.wait()
    assert session.coordinator.parameters is not None
