"""Whole rounds of pet/1 by the drivers of participants and members, step by step."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from participant_driver import wait_until
from pet1_drivers import FLOATS, AsyncDirectTransport, DrivenRound, mean, tick_all, tick_until, weights

import pet
from pet.errors import ModelError, StateError, TransportError
from pet.participant import AsyncParticipant, BackOff, Participant, Task, TickParticipant, spawn_participant
from pet.pet1.inclusion import Inclusion
from pet.pet1.leaves import LEAF_BYTES
from pet.pet1.messages import Pet1Tag
from pet.protocol.participant_events import NewRound, TaskAbandoned
from pet.protocol.pet1_publications import pack_model
from pet.protocol.phases import Phase
from pet.transports.pet1 import Pet1Document


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DrivenRound]:
    with closing(DrivenRound(tmp_path)) as made:
        yield made


def test_rounds_from_the_first_question_to_the_model(world: DrivenRound) -> None:
    members = world.all_members()
    participants = [world.participant(number) for number in range(3)]
    assert participants[0].local_model_config.length == 0
    tick_all([*members, *participants])
    assert world.phase is Phase.UPDATE
    assert all(participant.should_set_model and participant.task is Task.UPDATE for participant in participants)
    assert "any 3 of" in participants[0].status.text
    models = [weights(number) for number in range(3)]
    for participant, model in zip(participants, models, strict=True):
        assert participant.global_model() is None
        participant.set_model(model)
    tick_all([*participants, *members])
    tick_all([*participants, *members])
    (total,) = world.engine.totals
    np.testing.assert_allclose(total.model.to_array(), mean(models), atol=1e-6)
    assert [participant.status.last_inclusion for participant in participants] == [Inclusion.AGREED.value] * 3
    assert [member.status.answered for member in members] == [1] * 5

    # The second round starts from the model of the first one.
    tick_all([*participants, *members])
    assert all(participant.should_set_model for participant in participants)
    for participant, model in zip(participants, models, strict=True):
        np.testing.assert_array_equal(participant.global_model(), total.model.to_array())
        participant.set_model(-model)
    tick_all([*participants, *members])
    tick_all([*participants, *members])
    np.testing.assert_allclose(world.engine.totals[1].model.to_array(), -mean(models), atol=1e-6)


def play_round(world: DrivenRound, participants: Sequence[Any], members: Sequence[Any], models: Sequence[Any]) -> Any:
    """Play a round in which nobody vanishes; returns its total."""
    tick_all([*members, *participants])
    for participant, model in zip(participants, models, strict=True):
        participant.set_model(model)
    tick_all([*participants, *members])
    tick_all([*participants, *members])
    return world.engine.totals[-1]


def test_integers_are_summed_exactly(tmp_path: Path) -> None:
    config = pet.MaskConfig.parse("pet-1/z64,int,models=15")
    with closing(DrivenRound(tmp_path, config=config)) as world:
        participants = [world.participant(number, scalar=number + 1) for number in range(3)]
        models = [np.arange(5, dtype=np.uint64) * 10**12 + number for number in range(3)]
        play_round(world, participants, world.all_members(), models)
        # No record names them: who asks gets the totals of the last round.
        np.testing.assert_array_equal(participants[0].global_model(), np.sum(models, axis=0))
        # What a coordinator has left over from rounds of another kind is no total of this one.
        world.transport.lies[Pet1Document.MODEL] = lambda _: b"weights"
        assert participants[0].global_model() is None


def test_a_member_that_is_killed_before_and_after_each_message_signs_nothing_twice(world: DrivenRound) -> None:
    participants, others = [world.participant(number) for number in range(3)], world.all_members(range(1, 5))
    signed, lost = list[bytes](), set[int]()

    def lose_once(body: bytes) -> None:
        """Note what the member sends; the first time it is killed before that leaves."""
        message = world.opened(body)
        signed.append(message)
        if message[132] not in lost:
            lost.add(message[132])
            raise TransportError("killed")

    def turns(peers: Sequence[Any]) -> None:
        for _ in range(4):
            member, count = world.member(0), len(signed)
            world.transport.on_message = lose_once
            while len(signed) == count and member.tick() is not None and member.made_progress:
                pass
            world.transport.on_message = None
            world.close_member(0)
            tick_all(peers)

    turns([*others, *participants])
    models = [weights(number) for number in range(3)]
    for participant, model in zip(participants, models, strict=True):
        participant.set_model(model)
    turns([*participants, *others])
    turns([*participants, *others])
    np.testing.assert_allclose(world.engine.totals[0].model.to_array(), mean(models), atol=1e-6)
    for tag in (Pet1Tag.SUM, Pet1Tag.CHECK, Pet1Tag.SUM2):
        first_round = [message for message in signed if message[132] == tag and message[96:128] == signed[0][96:128]]
        assert len(first_round) >= 2
        assert len(set(first_round)) == 1


def test_answers_go_out_in_chunks_where_the_way_takes_no_large_ones(tmp_path: Path) -> None:
    with closing(DrivenRound(tmp_path, model_length=500)) as world:
        members = world.all_members(max_message_size=700)
        participants = [world.participant(number) for number in range(3)]
        models = [weights(number, 500) for number in range(3)]
        total = play_round(world, participants, members, models)
        np.testing.assert_allclose(total.model.to_array(), mean(models), atol=1e-6)
        assert Counter(map(len, world.transport.sent))[700] == 5 * ((32 + 4 * 501) // (700 - 48 - 136 - 8))


def test_an_answer_that_is_too_large_for_the_way_is_split(tmp_path: Path) -> None:
    with closing(DrivenRound(tmp_path, model_length=4000)) as world:
        members = world.all_members()
        participants = [world.participant(number) for number in range(3)]
        world.transport.max_message_bytes = 10_000
        models = [weights(number, 4000) for number in range(3)]
        total = play_round(world, participants, members, models)
        np.testing.assert_allclose(total.model.to_array(), mean(models), atol=1e-6)


def test_updates_are_resumed_where_they_were_cut(tmp_path: Path) -> None:
    """A way that loses every other piece, and takes no piece of more than one leaf."""
    length = 3 * LEAF_BYTES // 4
    with closing(DrivenRound(tmp_path, model_length=length)) as world:
        members, participants = world.all_members(), [world.participant(number) for number in range(3)]
        world.transport.max_piece_bytes = LEAF_BYTES + 1000
        pieces = list[int]()

        def lose(piece: bytes) -> None:
            pieces.append(len(piece))
            if len(pieces) % 2:
                raise TransportError("the connection was cut")

        world.transport.on_piece = lose
        tick_all([*members, *participants])
        models = [weights(number, length) for number in range(3)]
        for participant, model in zip(participants, models, strict=True):
            participant.set_model(model)
        while world.phase is Phase.UPDATE:
            tick_all(participants)
        leaves = Counter(world.engine.taken)
        assert len(leaves) == 4
        assert set(leaves.values()) == {3}  # each leaf of each update once
        assert all(participant.status.models_sent == 1 for participant in participants)


def test_a_participant_that_was_restarted_makes_no_second_update(world: DrivenRound) -> None:
    members = world.all_members()
    first = world.participant(0)
    tick_all([*members, first])
    first.set_model(weights(0))
    tick_until(first, lambda: first.status.phase == "sending_update")
    assert world.transport.sent[5:] == []  # nothing left before the owner could save
    state = first.save()
    assert b"do not restore this from a backup" in state
    again = TickParticipant.restore(state, world.transport, enrolment=world.parties.enrolment, threads=1)
    events = tick_all([again])
    assert [event.reason for event in events if isinstance(event, TaskAbandoned)] == ["already_signed"]
    assert not again.should_set_model
    with pytest.raises(StateError, match="expected enrolment="):
        TickParticipant.restore(state, world.transport)
    with pytest.raises(StateError, match=r"one of pet/1"):
        TickParticipant.restore(TickParticipant(world.transport).save(), world.transport, enrolment=world.parties.enrolment)
    for damaged in (state[:-1], state.replace(b'"format": 1', b'"format": 9'), b'{"warning": 1}'):
        with pytest.raises(StateError):
            TickParticipant.restore(damaged, world.transport, enrolment=world.parties.enrolment)


def test_the_weights_of_the_round_before_are_refused(world: DrivenRound) -> None:
    members, participants = world.all_members(), [world.participant(number) for number in range(3)]
    models = [weights(number) for number in range(3)]
    play_round(world, participants, members, models)
    tick_all([*members, *participants])
    participants[0].set_model(models[0])
    with pytest.raises(ModelError, match="train again"):
        tick_all([participants[0]])
    participants[0].tick()
    assert participants[0].should_set_model
    participants[0].set_model(-models[0])
    tick_all([participants[0]])
    assert participants[0].status.models_sent == 2


class Trainer(Participant):
    def __init__(self, number: int) -> None:
        self.number, self.seen = number, list[Any]()

    def train_round(self, training_input: Any) -> Any:
        return weights(self.number) if training_input is None else training_input


def test_threads_and_tasks_take_part_like_ticks(world: DrivenRound) -> None:
    """One round of a thread, a task and ticks, and the same weights by ticks alone: the models are the same, bit for bit."""
    quick = BackOff(initial_seconds=0.01, max_seconds=0.05, jitter=0)
    members, ticks = world.all_members(), world.participant(2)
    options: dict[str, Any] = {"enrolment": world.parties.enrolment, "threads": 1, "back_off": quick}
    keys = world.parties.participant_keys
    thread = spawn_participant(world.transport, Trainer, (0,), signing_key=keys[0], **options)

    async def take_part() -> None:
        async with AsyncParticipant(AsyncDirectTransport(world.transport), signing_key=keys[1], **options) as participant:
            models = participant.global_models()
            assert await anext(models) is None
            participant.set_local_model(weights(1))
            while len(world.engine.totals) < 1:
                tick_all(members)
                ticks.tick()
                if ticks.should_set_model:
                    ticks.set_model(weights(2))
                await asyncio.sleep(0.01)
            np.testing.assert_array_equal(await anext(models), world.engine.totals[0].model.to_array())
            assert "any 3 of" in participant.status.text

    asyncio.run(asyncio.wait_for(take_part(), 60))
    # The thread trains nothing: the model of the round is what it returns, once more in the third round at the latest.
    state = thread.stop()
    assert b"do not restore" in state
    twin = DrivenRound(world.folder / "twin")
    with closing(twin):
        participants = [twin.participant(number) for number in range(3)]
        total = play_round(twin, participants, twin.all_members(), [weights(number) for number in range(3)])
    assert pack_model(total.model, FLOATS) == pack_model(world.engine.totals[0].model, FLOATS)


def test_a_thread_ends_with_the_weights_of_the_round_before(world: DrivenRound) -> None:
    quick = BackOff(initial_seconds=0.01, max_seconds=0.05, jitter=0)

    class Lazy(Trainer):
        def train_round(self, training_input: Any) -> Any:
            return weights(self.number)

    options: dict[str, Any] = {"enrolment": world.parties.enrolment, "threads": 1, "back_off": quick}
    keys = world.parties.participant_keys
    threads = [spawn_participant(world.transport, Lazy, (number,), signing_key=keys[number], **options) for number in range(3)]
    members = world.all_members()

    def is_over() -> bool:
        tick_all(members)
        return all(not thread.is_alive() for thread in threads)

    wait_until(is_over)
    assert len(world.engine.totals) == 1
    for thread in threads:
        assert "train again" in str(thread.error)
        thread.stop()


def test_where_a_round_fails_the_next_one_is_taken_part_in(world: DrivenRound) -> None:
    members, participants = world.all_members(), [world.participant(number) for number in range(3)]
    tick_all([*members, *participants])
    participants[0].set_model(weights(0))
    tick_all(participants)
    world.engine.pass_phase(100)  # too few updates
    events = tick_all([*members, *participants])
    assert any(isinstance(event, NewRound) for event in events)
    assert world.phase is Phase.UPDATE
    for number, participant in enumerate(participants):
        participant.set_model(weights(number + 10))
    tick_all([*participants, *members])
    assert len(world.engine.totals) == 1


def test_members_that_vanish_after_check_are_borne(world: DrivenRound) -> None:
    members, participants = world.all_members(), [world.participant(number) for number in range(3)]
    tick_all([*members, *participants])
    for number, participant in enumerate(participants):
        participant.set_model(weights(number))
    tick_all(participants)
    while world.phase is Phase.CHECK:
        for member in members:
            member.tick()
    tick_all(members[:3])
    world.engine.pass_phase(61)
    assert world.engine.totals[0].unchecked_groups == (0,)


def test_an_update_that_cannot_be_noted_is_not_sent(world: DrivenRound, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the update is made: the thread ends, and not a byte of it has left (U7)."""

    def write(path: Path, parts: list[bytes]) -> None:
        if b'"last_number": null' not in b"".join(parts):
            raise OSError(28, "No space left on device")
        path.write_bytes(b"".join(parts))

    members = world.all_members()
    tick_all(members)
    monkeypatch.setattr("pet.participant.state_file.replace_file", write)
    thread = spawn_participant(
        world.transport,
        Trainer,
        (0,),
        signing_key=world.parties.participant_keys[0],
        enrolment=world.parties.enrolment,
        state_file=world.folder / "participant.state",
        back_off=BackOff(initial_seconds=0.01, max_seconds=0.05, jitter=0),
    )
    wait_until(lambda: not thread.is_alive())
    assert "No space left" in str(thread.error)
    assert len(world.transport.sent) == len(members)  # their Sum messages
