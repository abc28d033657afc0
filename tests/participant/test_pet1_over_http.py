"""Whole rounds of pet/1 over HTTP: participants of every kind, members in threads and as processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
from asgi_server import serving, wait_until
from numpy.typing import NDArray
from pet1_drivers import DrivenRound, tick_all
from pet1_served import QUICK, ServedRounds, served_rounds

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.errors import UnknownProfileError
from pet.participant import AsyncParticipant, Participant, ParticipantThread, TickParticipant, spawn_participant
from pet.pet1.messages import Pet1Tag
from pet.protocol.pet1_publications import pack_model


def weights(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).uniform(-1, 1, 5).astype(np.float32)


class Trainer(Participant):
    """Other weights in each round."""

    def __init__(self, number: int) -> None:
        self.number = number

    def train_round(self, training_input: Any) -> Any:
        self.number += 10
        return weights(self.number)


def spawn(rounds: ServedRounds, number: int, **options: Any) -> ParticipantThread:
    key = rounds.parties.participant_keys[number]
    chosen: dict[str, Any] = {"enrolment": rounds.enrolment, "back_off": QUICK, "threads": 1}
    return spawn_participant(rounds.url, Trainer, (number,), signing_key=key, **chosen | options)


def in_process(folder: Path, models: Sequence[NDArray[np.float32]]) -> bytes:
    """Return the model of a round without a network."""
    with contextlib.closing(DrivenRound(folder)) as world:
        peers = [*world.all_members(), *(world.participant(number) for number in range(3))]
        tick_all(peers)
        for participant, model in zip(peers[5:], models, strict=True):
            participant.set_model(model)
        tick_all(peers)
        tick_all(peers)
        return pack_model(world.engine.totals[0].model, world.settings.config)


def test_a_round_of_every_kind_of_participant_is_the_same_as_in_process(tmp_path: Path) -> None:
    with served_rounds(tmp_path) as rounds, rounds.members():
        keys = rounds.parties.participant_keys
        thread = spawn(rounds, 0)
        ticks = TickParticipant(rounds.url, signing_key=keys[2], enrolment=rounds.parties.enrolment, threads=1)

        async def take_part() -> NDArray[Any] | None:
            options: dict[str, Any] = {"enrolment": rounds.parties.authority.public_key, "back_off": QUICK, "threads": 1}
            async with AsyncParticipant(rounds.url, signing_key=keys[1], **options) as participant:
                models = participant.global_models()
                assert await anext(models) is None
                participant.set_local_model(weights(1))
                while rounds.rounds_completed == 0:
                    await asyncio.to_thread(ticks.tick)
                    if ticks.should_set_model:
                        ticks.set_model(weights(2))
                    await asyncio.sleep(0.01)
                return await anext(models)

        model = asyncio.run(asyncio.wait_for(take_part(), 60))
        ticks.close()
        thread.stop()
        assert thread.error is None
    assert model is not None
    folder = tmp_path / "twin"
    folder.mkdir()
    assert model.tobytes() == in_process(folder, [weights(10), weights(1), weights(2)])


def test_a_coordinator_of_xaynets_profile_ends_participant_and_member(tmp_path: Path) -> None:
    with served_rounds(tmp_path) as rounds, serving(create_app(Settings())) as url:
        rounds.url = url
        thread = spawn(rounds, 0)
        wait_until(lambda: not thread.is_alive(), 30)
        assert isinstance(thread.error, UnknownProfileError)
        thread.stop()
        with pytest.raises(UnknownProfileError, match="speaks pet/1"), rounds.members([0]) as (member,):
            wait_until(lambda: isinstance(member.status.last_error, UnknownProfileError), 30)


def member_words(rounds: ServedRounds, slot: int) -> list[str]:
    state = rounds.folder / f"member-{slot}.state"
    words = ["member", "-u", rounds.url, "-k", rounds.key_file(slot), "-e", rounds.enrolment, "-s", state, "--threads", "1"]
    return [str(word) for word in (*words, *([] if state.exists() else ["--new"]))]


@contextlib.contextmanager
def spawned(rounds: ServedRounds) -> Iterator[None]:
    threads = [spawn(rounds, number) for number in range(3)]
    try:
        yield
    finally:
        for thread in threads:
            thread.stop()
    assert [thread.error for thread in threads] == [None] * 3


def test_the_command_takes_part_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with served_rounds(tmp_path) as rounds, rounds.members(range(1, 5)), spawned(rounds):
        with fork_server.start(fork_server.PET, *member_words(rounds, 0)) as process:
            wait_until(lambda: rounds.rounds_completed >= 1, 60)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        key = rounds.parties.member_keys[0].public_key.hex()
        assert f"member {key} of {rounds.url}" in output
        assert "Stopped. Rounds answered: " in output
        assert "any 3 of" in errors
        assert "sent SUM2" in errors
        with fork_server.start(fork_server.PET, *member_words(rounds, 0), "--new") as process:
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "start it without --new" in errors


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed as Unix does it")
def test_a_member_that_is_killed_at_any_instant_never_signs_twice(tmp_path: Path) -> None:
    """Kills at random instants; rounds wait for the member, and go on once it is there again."""
    chance = random.Random(7)
    with served_rounds(tmp_path) as rounds, rounds.members(range(1, 5)), spawned(rounds):
        for _ in range(4):
            with fork_server.start(fork_server.PET, *member_words(rounds, 0)) as process:
                begun = messages_of(rounds, 0)
                wait_until(lambda: messages_of(rounds, 0) > begun or process.poll() is not None, 60)  # noqa: B023
                wait_until(reached(rounds, chance.randrange(8)), 60)
                assert process.poll() is None, process.communicate()
                process.kill()
        with fork_server.start(fork_server.PET, *member_words(rounds, 0)) as process:
            before = rounds.rounds_completed
            wait_until(lambda: rounds.rounds_completed > before, 60)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        for (_, _, tag), messages in rounds.engine.signed.items():
            assert tag in set(Pet1Tag)
            assert len(messages) == 1


def messages_of(rounds: ServedRounds, slot: int) -> int:
    """Return how many different messages a member has sent."""
    key = rounds.parties.member_keys[slot].public_key
    return sum(len(messages) for (_, sender, _), messages in list(rounds.engine.signed.items()) if sender == key)


def reached(rounds: ServedRounds, more: int) -> Callable[[], bool]:
    """Return a condition that holds once members have sent some messages more, or wait for the one that is killed."""
    begun = len(rounds.engine.signed)
    left = [200]

    def holds() -> bool:
        left[0] -= 1
        return len(rounds.engine.signed) >= begun + more or left[0] == 0

    return holds
