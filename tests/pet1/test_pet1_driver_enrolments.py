"""What a coordinator that lies about enrolments and profiles gets from drivers of participants and members: nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from participant_driver import wait_until
from pet1_drivers import FLOATS, Attack, DirectTransport, DrivenRound, reason, tick_all
from pet1_parties import NOW, LooseCoordinator, with_more

from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, UnknownProfileError
from pet.participant import BackOff, Participant, TickParticipant, spawn_participant
from pet.transports.pet1 import Pet1Document

NOBODY = SigningKeyPair.from_seed(bytes([77]) * 32)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DrivenRound]:
    with closing(DrivenRound(tmp_path)) as made:
        yield made


def test_a_weaker_plan_than_asked_for_is_refused_before_anything_is_sent(world: DrivenRound) -> None:
    with pytest.raises(ConfigError, match="expected passive 3"):
        world.participant(0, least_passive=3)
    with pytest.raises(ConfigError, match="sums of 4 or more"):
        world.member(0, least_updates=4)
    with pytest.raises(ConfigError, match="whole number of 0 or more"):
        world.participant(0, least_active=-1)


@pytest.mark.parametrize("source", ["authority", "authority's text", "digest"])
def test_what_comes_from_the_coordinator_cannot_vouch_for_itself(world: DrivenRound, source: str) -> None:
    """Another enrolment in the place of the one that is pinned, or signed by another authority."""
    authority = world.parties.authority.public_key
    trusted: Any = {"authority": authority, "authority's text": authority.hex(), "digest": world.parties.enrolment.digest}
    invented = with_more(world.parties.enrolment, members=tuple(world.parties.new_key().public_key for _ in range(5)))
    attack = Attack(world)
    coordinator = LooseCoordinator(world.parties, enrolment=invented, config=FLOATS, model_length=5)
    attack.lie(Pet1Document.ROUND, coordinator.record.to_bytes())
    attack.lie(Pet1Document.ENROLMENT, invented.sign(NOBODY))
    participant, member = (
        attack.participant(enrolment=trusted[source]),
        attack.member(enrolment=trusted[source]),
    )
    tick_all([participant, member])
    assert (reason(participant), reason(member)) == ("unknown_enrolment", "unknown_enrolment")
    assert not participant.should_set_model
    assert attack.way.sent == []
    # What it refuses, it does not ask for again in this round; and it goes on saying why.
    asked = len(attack.way.asked)
    for _ in range(3):
        tick_all([participant, member])
    assert set(attack.way.asked[asked:]) == {Pet1Document.ROUND}
    assert reason(participant) == "unknown_enrolment"
    # The next round is an honest one.
    attack.way.lies.clear()
    tick_all([participant, member])
    assert participant.status.last_error is None
    assert "any 3 of" in participant.status.text


def test_a_weak_plan_of_the_authoritys_is_refused_in_the_round(world: DrivenRound) -> None:
    participant = world.participant(0, enrolment=world.parties.authority.public_key, least_passive=3)
    tick_all([participant])
    assert reason(participant) == "weak_plan"
    assert not participant.should_set_model


def test_an_enrolment_that_was_replaced_does_not_come_back(world: DrivenRound) -> None:
    attack = Attack(world)
    authority = world.parties.authority.public_key
    participant, member = attack.participant(enrolment=authority), attack.member(enrolment=authority)
    newer = LooseCoordinator(world.parties, 2, with_more(world.parties.enrolment), config=FLOATS, model_length=5)
    attack.lie(Pet1Document.ROUND, newer.record.to_bytes())
    attack.lie(Pet1Document.ENROLMENT, newer.served)
    tick_all([participant, member])
    assert reason(participant) is None
    state = participant.save()
    attack.way.lies.clear()
    participant = TickParticipant.restore(state, attack.way, enrolment=authority)
    tick_all([participant, member])
    assert (reason(participant), reason(member)) == ("enrolment_rolled_back", "enrolment_rolled_back")


def test_an_enrolment_that_has_expired_is_refused(tmp_path: Path) -> None:
    with closing(DrivenRound(tmp_path)) as world:
        attack = Attack(world)
        old = LooseCoordinator(world.parties, 2, replace(world.parties.enrolment, expires=NOW), config=FLOATS, model_length=5)
        attack.lie(Pet1Document.ROUND, old.record.to_bytes())
        attack.lie(Pet1Document.ENROLMENT, old.served)
        participant = attack.participant(enrolment=world.parties.authority.public_key)
        tick_all([participant])
        assert reason(participant) == "enrolment_expired"


def test_a_key_that_is_not_enrolled_is_refused_at_the_start(world: DrivenRound) -> None:
    with pytest.raises(ConfigError, match="a member's key"):
        world.member(0, signing_key=NOBODY)
    with pytest.raises(ConfigError, match="an enrolled participant"):
        TickParticipant(world.transport, signing_key=NOBODY, enrolment=world.parties.enrolment)
    with pytest.raises(ConfigError, match="the signing key"):
        TickParticipant(world.transport, enrolment=world.parties.enrolment)
    # With an authority it may be enrolled later: until then it is idle.
    participant = TickParticipant(world.transport, signing_key=NOBODY, enrolment=world.parties.authority.public_key)
    tick_all([participant])
    assert not participant.has_task
    assert participant.status.last_error is None


def test_who_can_invent_members_is_named(world: DrivenRound) -> None:
    """The coordinator's key is the authority's: it may enrol whom it likes (E4)."""
    authority = world.parties.authority.public_key
    participant = world.participant(0, enrolment=authority, coordinator_key=authority)
    tick_all([participant])
    assert "it can invent members" in participant.status.text


class Idle(Participant):
    def train_round(self, training_input: Any) -> Any:
        raise AssertionError("nothing is trained")


def test_a_coordinator_of_xaynets_profile_is_not_obeyed(world: DrivenRound) -> None:
    """It offers less than the enrolment: the thread ends, and nothing of that profile was asked for."""
    way = DirectTransport(world.engine)
    way.error = UnknownProfileError("GET /pet/v1/round: expected a coordinator that speaks pet/1, got status 404")
    options: dict[str, Any] = {"signing_key": world.parties.participant_keys[0], "enrolment": world.parties.enrolment}
    thread = spawn_participant(way, Idle, back_off=BackOff(initial_seconds=0.01, max_seconds=0.01), **options)
    wait_until(lambda: not thread.is_alive())
    assert isinstance(thread.error, UnknownProfileError)
    thread.stop()
    member = world.member(0, coordinator=way)
    with pytest.raises(UnknownProfileError):
        member.run()
    with pytest.raises(ConfigError, match=r"speaks pet/1, got OnlyXaynet"):
        TickParticipant(OnlyXaynet(), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"speaks pet/1, got OnlyXaynet"):
        world.member(1, coordinator=OnlyXaynet())


class OnlyXaynet:
    """A transport without the calls of pet/1."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("source", ["pinned", "authority"])
def test_an_enrolment_that_is_known_is_not_fetched_again(world: DrivenRound, source: str) -> None:
    known: Any = {"pinned": world.parties.enrolment, "authority": world.parties.authority.public_key}
    participant, member = world.participant(0, enrolment=known[source]), world.member(0, enrolment=known[source])
    for _ in range(3):
        tick_all([participant, member])
        assert (reason(participant), reason(member)) == (None, None)
        world.engine.pass_phase(100)
    assert world.transport.asked.count(Pet1Document.ENROLMENT) == (0 if source == "pinned" else 2)


def test_secrets_of_a_round_are_erased_when_another_one_is_announced(world: DrivenRound) -> None:
    """Also where the next one has no place for the member, or is refused (M9)."""
    file = world.folder / "member-0.state"

    def has_secrets() -> bool:
        return bool(json.loads(file.read_bytes())["peer"]["round"])

    authority = world.parties.authority.public_key
    attack = Attack(world)
    tick_all([attack.member(enrolment=authority)])
    assert has_secrets()
    world.close_member(0)
    member = attack.member(enrolment=authority)
    tick_all([member])  # started again in the same round
    assert has_secrets()
    others = tuple(world.parties.new_key().public_key for _ in range(5))
    without = with_more(world.parties.enrolment, members=others)
    later = LooseCoordinator(world.parties, world.engine.machine.round_id + 1, without, config=FLOATS, model_length=5)
    attack.lie(Pet1Document.ROUND, later.record.to_bytes())
    attack.lie(Pet1Document.ENROLMENT, later.served)
    tick_all([member])
    assert not has_secrets()
    assert not member.status.is_member
