"""A round that nobody joins is opened anew and has not failed; joining it alone does not hold it open (docs/protocol.md)."""

from dataclasses import replace

from coordinator_driver import SUM_WINDOW, UPDATE_WINDOW, Session, events_of, parameters_of, small_settings

from pet.messages import split_message
from pet.protocol import ModelPublished, ParametersPublished, Phase, PhaseEntered, RoundFailed, RoundReopened


def test_a_round_that_nobody_joined_is_opened_anew_and_has_not_failed() -> None:
    session = Session().to_sum()
    old = parameters_of(session.coordinator)
    drawn = session.round.keys("sum", 20)
    waiting = session.coordinator.status(session.now + 59).waiting
    assert waiting is not None
    assert (waiting.missing, waiting.seconds, waiting.reopens_at_time_out) == (1, 59.0, True)
    assert session.wait(59.9) == []
    events = session.wait(0.1)
    new = parameters_of(session.coordinator)
    assert events == [
        RoundReopened(round_id=1, description="phase sum: expected 1 messages within 60 seconds, nobody joined"),
        PhaseEntered(round_id=2, phase=Phase.IDLE),
        PhaseEntered(round_id=2, phase=Phase.SUM),
        ParametersPublished(round_id=2, parameters=new),
    ]
    assert new.coordinator_public_key != old.coordinator_public_key
    assert new.seed != old.seed
    assert session.round.keys("sum", 20) != drawn, "the new seed draws the tasks again"
    status = session.coordinator.status(session.now)
    assert (status.round_id, status.rounds_failed, status.rounds_completed, status.rounds_reopened) == (2, 0, 0, 1)
    assert status.seconds_left == 60.0
    # Nothing of it is left behind: the round that took its place ends with a model.
    session.to_sum2()
    assert len(events_of(ModelPublished, session.send_masks())) == 1


def test_refused_messages_and_chunks_join_nobody() -> None:
    session = Session().to_sum()
    key = session.round.keys("sum", 1)[0]
    session.coordinator.refuse("decryption")
    session.send(next(split_message(session.round.sum(key), 210, 1)))
    assert len(events_of(RoundReopened, session.wait(60))) == 1
    assert session.coordinator.status(session.now).rounds_failed == 0


def test_too_few_sum_participants_fail_the_round_and_the_description_says_so() -> None:
    session = Session(small_settings(sum=replace(SUM_WINDOW, min_count=2)))
    session.joined_by_one()
    failed = events_of(RoundFailed, session.wait(60))
    assert [event.description for event in failed] == [
        "phase sum: expected 2 messages within 60 seconds, got 1: too few sum participants joined"
    ]
    status = session.coordinator.status(session.now)
    assert (status.rounds_failed, status.rounds_reopened) == (1, 0)


def test_nobody_can_hold_a_round_open_by_joining_it_alone() -> None:
    session = Session().to_sum()
    for _ in range(3):
        round_id, opened = session.coordinator.round_id, session.now
        key = session.round.keys("sum", 1)[0]
        session.send(session.round.sum(key))
        while session.coordinator.round_id == round_id:
            deadline = session.coordinator.next_deadline_seconds()
            assert deadline is not None
            session.wait(deadline - session.now)
        assert session.now - opened <= SUM_WINDOW.min_seconds + UPDATE_WINDOW.max_seconds
    assert session.coordinator.status(session.now).rounds_failed == 3


def test_reopening_goes_on_at_the_pace_of_the_time_out_however_often_time_is_looked_at() -> None:
    session = Session().to_sum()
    for _ in range(1200):
        session.wait(0.5)
    status = session.coordinator.status(session.now)
    assert (status.round_id, status.rounds_reopened) == (11, 10)
    # Nobody catches up on rounds that went by unseen.
    assert len(events_of(RoundReopened, session.wait(1e6))) == 1
