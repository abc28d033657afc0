"""Every reason for which a coordinator refuses a message, and that nothing changes then."""

from dataclasses import replace

import pytest
from coordinator_driver import Session, small_settings, snapshot
from coordinator_messages import BAD, GOOD, Builder, chunk_of, contradicting_chunk, sum_by, update_by

from pet.aggregation import Aggregation
from pet.errors import RemoteProtocolError
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.messages import CHUNK_OVERHEAD_BYTES, Chunk, Message, Refused, Tag, UpdatePayload, split_message
from pet.protocol import MessageRefused, Phase, Strategies
from pet.protocol.strategies import ParticipantAllowList, TaskAllowList
from pet.protocol.xaynet import XaynetRules

START = {Tag.SUM: Session.to_sum, Tag.UPDATE: Session.to_update, Tag.SUM2: Session.to_sum2}


def refuse(session: Session, message: Message) -> str:
    """Send a message that must be refused, and check that nothing but a counter has changed."""
    before, counted = snapshot(session.coordinator.state), session.coordinator.status(session.now)
    with pytest.raises(RemoteProtocolError) as caught:
        session.send(message)
    reason = caught.value.reason
    assert snapshot(session.coordinator.state) == before
    expected = {**counted.rejected, reason: counted.rejected.get(reason, 0) + 1}
    assert session.coordinator.status(session.now) == replace(counted, rejected=expected)
    assert session.collect() == [
        MessageRefused(round_id=session.coordinator.round_id, phase=session.coordinator.phase, reason=reason)
    ]
    return reason


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_is_refused_by_reason_and_changes_nothing(name: str) -> None:
    tag, builder, reason = BAD[name]
    session = START[tag](Session())
    assert refuse(session, builder(session, 0)) == reason
    # The one it hurt least is its sender: the right message is still welcome.
    session.send(GOOD[tag](session, 0))
    assert session.coordinator.status(session.now).accepted == 1


@pytest.mark.parametrize("tag", Tag)
@pytest.mark.parametrize("start", Tag)
def test_a_message_of_another_phase_is_unexpected(start: Tag, tag: Tag) -> None:
    session = START[start](Session())
    if tag is not start:
        assert refuse(session, GOOD[tag](session, 0)) == "unexpected_message"


@pytest.mark.parametrize(
    ("tag", "reason"),
    [(Tag.SUM, "already_registered"), (Tag.UPDATE, "update_already_submitted"), (Tag.SUM2, "mask_already_submitted")],
)
def test_a_second_message_of_a_participant_is_refused_and_the_first_one_stays(tag: Tag, reason: str) -> None:
    session = START[tag](Session())
    message = GOOD[tag](session, 0)
    session.send(message)
    assert refuse(session, message) == reason


def test_a_second_sum_message_cannot_change_the_key() -> None:
    session = Session().to_sum()
    session.send(sum_by(session, 0))
    other = session.round.sum(session.round.keys("sum", 1)[0], ephemeral_public_key=b"\x09" + bytes(31))
    assert refuse(session, other) == "already_registered"


def test_a_masked_model_is_judged_before_its_dictionary() -> None:
    session = Session().to_update()
    message = BAD["update of another length"][1](session, 0)
    message = replace(message, payload=replace(message.payload, local_seed_dictionary={}))
    assert refuse(session, message) == "model_mismatch"


def test_a_dictionary_is_judged_before_the_elements_of_the_model() -> None:
    session = Session().to_update()
    message = BAD["update with an invalid element"][1](session, 0)
    message = replace(message, payload=replace(message.payload, local_seed_dictionary={}))
    assert refuse(session, message) == "seed_dictionary_length"


def test_more_models_than_the_config_can_add_up_are_refused() -> None:
    config = MaskConfig.parse("power2-f32-b0-m3")
    session = Session(small_settings(mask_config=MaskConfigPair.of(config))).to_update()
    current = session.coordinator.state.round
    assert current is not None
    full = Aggregation(config, 3)
    full.count = 1000
    current.aggregation = full
    assert refuse(session, update_by(session, 0)) == "too_many_models"


def test_who_may_take_part_is_a_strategy() -> None:
    def admit(public_key: bytes) -> None:
        if public_key in banned:
            raise RemoteProtocolError("not_admitted", "expected a participant that is on the list")

    banned: set[bytes] = set()
    session = Session(strategies=Strategies(admit=admit)).to_sum()
    banned.add(session.round.keys("sum", 1)[0].public_key)
    assert refuse(session, sum_by(session, 0)) == "not_admitted"
    session.send(sum_by(session, 1))


# ---- chunks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", Tag)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_message_in_chunks_is_taken_once_it_is_whole(tag: Tag, reverse: bool) -> None:
    session = START[tag](Session())
    chunks = list(split_message(GOOD[tag](session, 0), 210, message_id=1))
    assert len(chunks) > 2
    *first, last = reversed(chunks) if reverse else chunks
    for chunk in first:
        assert session.send(chunk) == []
        assert session.coordinator.status(session.now).accepted == 0
    assert [event.tag for event in session.send(last)] == [tag]
    assert session.coordinator.status(session.now).accepted == 1
    assert refuse(session, GOOD[tag](session, 0)) in {
        "already_registered",
        "update_already_submitted",
        "mask_already_submitted",
    }


def test_a_chunk_that_contradicts_others_is_refused() -> None:
    session = Session().to_update()
    session.send(chunk_of(update_by, -1)(session, 0))
    assert refuse(session, contradicting_chunk(update_by)(session, 0)) == "chunk_conflict"


def test_chunks_beyond_the_limit_are_refused() -> None:
    session = Session(small_settings(max_chunk_bytes=CHUNK_OVERHEAD_BYTES + 100)).to_update()
    session.send(chunk_of(update_by, 0)(session, 0))
    assert refuse(session, chunk_of(update_by, 0)(session, 1)) == "chunk_limit"


def test_unfinished_messages_beyond_the_limit_are_refused() -> None:
    session = Session(small_settings(max_chunked_messages=1)).to_update()
    session.send(chunk_of(update_by, 0)(session, 0))
    assert refuse(session, chunk_of(update_by, 0)(session, 1)) == "chunk_limit"


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        (BAD["update for a stranger"][1], "unknown_sum_participant"),
        (BAD["update with an invalid element"][1], "invalid_object"),
    ],
)
def test_chunks_that_make_up_a_refused_message_go_with_it(builder: Builder, reason: str) -> None:
    session = Session().to_update()
    before = snapshot(session.coordinator.state)
    *first, last = split_message(builder(session, 0), 260, message_id=1)
    for chunk in first:
        session.send(chunk)
    with pytest.raises(RemoteProtocolError) as caught:
        session.send(last)
    assert caught.value.reason == reason
    # The chunks are gone, and all the rest is as before the first of them.
    assert snapshot(session.coordinator.state) == before


def test_chunks_that_make_up_no_payload_are_dropped() -> None:
    session = Session().to_update()
    before = snapshot(session.coordinator.state)
    nonsense = Chunk(chunk_id=0, message_id=1, is_last=True, data=b"nonsense")
    message = replace(update_by(session, 0), payload=nonsense, tag=Tag.UPDATE)
    assert refuse(session, message) == "malformed_update"
    assert snapshot(session.coordinator.state) == before


def test_who_is_not_admitted_cannot_have_a_chunk_kept() -> None:
    """Nor can who votes without having been a sum participant."""
    stranger = Session().to_update().round.keys("update", 2)[1].public_key

    def admit(key: bytes) -> None:
        if key == stranger:
            raise RemoteProtocolError("not_admitted", "expected somebody else")

    session = Session(strategies=Strategies(admit=admit)).to_update()
    assert refuse(session, chunk_of(update_by, 0)(session, 1)) == "not_admitted"
    session.send(chunk_of(update_by, 0)(session, 0))
    session = Session().to_sum2()
    update_key = session.round.keys("update", 1)[0].public_key
    vote = replace(chunk_of(GOOD[Tag.SUM2], 0)(session, 0), participant_public_key=update_key)
    assert refuse(session, vote) == "unknown_sum_participant"


NO_TASK = [name for name, (_, _, reason) in BAD.items() if reason.endswith(("eligible", "sum_signature"))]


@pytest.mark.parametrize("chunk_bytes", [10, 64, 80])
@pytest.mark.parametrize("name", NO_TASK)
def test_who_has_not_the_task_cannot_have_a_message_kept(name: str, chunk_bytes: int) -> None:
    tag, builder, reason = BAD[name]
    session = START[tag](Session())
    before = snapshot(session.coordinator.state)
    chunks = list(split_message(builder(session, 0), 136 + 48 + 8 + chunk_bytes, message_id=1))
    needed = -(-(128 if tag is Tag.UPDATE else 64) // chunk_bytes)
    assert len(chunks) > needed
    for chunk in chunks[: needed - 1]:
        session.send(chunk)
    with pytest.raises(RemoteProtocolError) as caught:
        session.send(chunks[needed - 1])
    assert caught.value.reason == reason
    assert snapshot(session.coordinator.state) == before


def test_a_task_check_of_another_profile_is_given_whole_payloads() -> None:
    seen = []
    session = Session(strategies=Strategies(check_task=lambda _key, payload, _round: seen.append(type(payload)))).to_update()
    seen.clear()
    for chunk in split_message(update_by(session, 0), 330, message_id=1):
        session.send(chunk)
    assert seen == [UpdatePayload]


def test_a_chunk_of_another_phase_is_unexpected() -> None:
    session = Session().to_sum2()
    assert refuse(session, chunk_of(update_by, 0)(session, 0)) == "unexpected_message"


def test_refusals_are_counted_by_phase() -> None:
    session = Session().to_sum()
    refuse(session, BAD["sum without the task"][1](session, 0))
    refuse(session, BAD["sum without the task"][1](session, 1))
    refuse(session, BAD["sum of another round"][1](session, 0))
    assert session.coordinator.status(session.now).rejected == {"not_sum_eligible": 2, "wrong_coordinator_key": 1}
    session.to_update()
    assert session.coordinator.status(session.now).rejected == {}
    assert session.coordinator.phase is Phase.UPDATE


def test_a_sender_that_was_checked_beforehand_is_not_checked_again() -> None:
    calls: list[bytes] = []
    session = Session(strategies=Strategies(admit=calls.append)).to_sum()
    message = GOOD[Tag.SUM](session, 0)
    (checked,) = session.coordinator.check_senders([message])
    session.coordinator.take(message, checked)
    assert calls == [message.participant_public_key]
    assert session.coordinator.status(session.now).accepted == 1


def test_a_sender_that_was_refused_beforehand_is_refused_and_counted_when_its_turn_comes() -> None:
    session = Session().to_update()
    message = BAD["update by a sum participant"][1](session, 0)
    (checked,) = session.coordinator.check_senders([message])
    assert session.coordinator.status(session.now).rejected == {}
    with pytest.raises(RemoteProtocolError) as caught:
        session.coordinator.take(message, checked)
    assert caught.value.reason == "not_update_eligible"
    assert session.coordinator.status(session.now).rejected == {"not_update_eligible": 1}


def test_what_was_found_out_for_another_round_says_nothing() -> None:
    session, other = Session().to_sum(), Session().to_sum()
    message = GOOD[Tag.SUM](session, 0)
    (checked,) = other.coordinator.check_senders([message])
    assert checked is not None
    refused = replace(checked, refused=Refused("not_sum_eligible", ""))
    session.coordinator.take(message, refused)
    assert session.coordinator.status(session.now).accepted == 1


def test_the_sender_of_a_chunk_is_known_when_its_message_is_whole() -> None:
    session = Session().to_sum()
    message = GOOD[Tag.SUM](session, 0)
    (first, *_) = split_message(message, 194, 1)
    assert session.coordinator.check_senders([first]) == [None]


@pytest.mark.parametrize(
    "strategies",
    [
        Strategies(),
        Strategies(admit=ParticipantAllowList(frozenset())),
        Strategies(check_task=TaskAllowList(sum_keys=frozenset(), update_keys=frozenset())),
    ],
    ids=["by signature", "nobody may take part", "by list"],
)
def test_senders_that_are_checked_together_are_judged_as_each_alone(strategies: Strategies) -> None:
    session, rules = Session().to_update(), XaynetRules(strategies)
    bad = [builder(session, 0) for tag, builder, _ in BAD.values() if tag is Tag.UPDATE]
    messages = [GOOD[Tag.UPDATE](session, 0), *bad, GOOD[Tag.UPDATE](session, 1), sum_by(session, 0)]
    current = session.coordinator.state.round
    assert current is not None
    together = rules.check_senders(current, messages)
    assert together == [rules.check_senders(current, [message])[0] for message in messages]
    for message, refused in zip(messages, together, strict=True):
        if refused is None:
            rules.check_sender(current, message, message.payload)
        else:
            with pytest.raises(RemoteProtocolError) as caught:
                rules.check_sender(current, message, message.payload)
            assert (caught.value.reason, str(caught.value)) == (refused.reason, refused.description)


def test_of_messages_in_chunks_nothing_is_found_out_beforehand() -> None:
    session = Session().to_update()
    good, bad = GOOD[Tag.UPDATE](session, 0), BAD["update by a sum participant"][1](session, 0)
    chunk = next(iter(split_message(GOOD[Tag.UPDATE](session, 1), 194, 1)))
    first, second, third = session.coordinator.check_senders([chunk, bad, good])
    assert first is None
    assert second is not None
    assert second.refused is not None
    assert third is not None
    assert third.refused is None
    assert Session().coordinator.check_senders([good]) == [None]
