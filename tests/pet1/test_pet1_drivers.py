"""Whole rounds of pet/1 by the drivers of participants and members, step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pet1_drivers import DrivenRound, mean, tick_all, weights

from pet.participant import Task
from pet.pet1.inclusion import Inclusion
from pet.protocol.phases import Phase


def test_rounds_from_the_first_question_to_the_model(tmp_path: Path) -> None:
    world = DrivenRound(tmp_path)
    members = [world.member(slot) for slot in range(5)]
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
    for member in members:
        member.close()
