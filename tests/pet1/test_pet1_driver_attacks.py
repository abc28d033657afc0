"""What a coordinator or a peer of the network can do to the drivers of participants and members, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pet1_drivers import Attack, DrivenRound, reason, tick_all, tick_until, train, weights
from pet1_parties import NOW, spoil_box

from pet.crypto import SigningKeyPair, seal
from pet.errors import RemoteProtocolError, TransportError
from pet.pet1.answers import UpdateAccepted, UpdateOpen
from pet.pet1.checks import build_check
from pet.pet1.committee import Committee
from pet.pet1.header_batch import HeaderBatch
from pet.pet1.inclusion import Inclusion
from pet.pet1.leaves import LEAF_BYTES
from pet.pet1.manifest import UpdateManifest
from pet.pet1.round_record import RoundRecord
from pet.protocol.participant_events import TaskAbandoned
from pet.protocol.phases import Phase
from pet.transports.pet1 import Pet1Document

NOBODY = SigningKeyPair.from_seed(bytes([77]) * 32)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DrivenRound]:
    with closing(DrivenRound(tmp_path)) as made:
        yield made


# ---- records, models and committees


def test_rounds_that_were_shown_before_are_not_joined_again(world: DrivenRound) -> None:
    attack = Attack(world)
    participant, others = attack.participant(), world.all_members(range(1, 5))
    member = attack.member()
    tick_all([*others, member, participant])
    first = world.read(Pet1Document.ROUND), world.read(Pet1Document.COMMITTEE)
    participant.set_model(weights(0))
    tick_all([participant, member])
    world.engine.pass_phase(100)
    tick_all([*others, member, participant])
    assert participant.should_set_model
    assert member.status.number == world.engine.machine.round_id
    # The first round again: it has sent an update there, and has announced a point.
    attack.lie(Pet1Document.ROUND, first[0])
    attack.lie(Pet1Document.COMMITTEE, first[1])
    sent = len(attack.way.sent)
    events = tick_all([participant, member])
    assert [event.reason for event in events if isinstance(event, TaskAbandoned)] == ["already_signed"]
    assert reason(member) == "wrong_round"
    assert len(attack.way.sent) == sent


def test_a_vector_that_nobody_has_room_for_is_refused(world: DrivenRound) -> None:
    attack = Attack(world)
    huge = replace(RoundRecord.from_bytes(world.read(Pet1Document.ROUND)), model_length=2**32 - 3)
    attack.lie(Pet1Document.ROUND, huge.to_bytes())
    participant, member = attack.participant(), attack.member()
    tick_all([participant, member])
    assert (reason(participant), reason(member)) == ("unacceptable_terms", "unacceptable_terms")
    short = attack.participant(1, max_model_length=2**20)
    tick_all([short])
    assert reason(short) == "model_too_long"


def test_nobody_trains_from_another_model_than_the_records(world: DrivenRound) -> None:
    attack = Attack(world)
    honest = [world.participant(number) for number in (1, 2)]
    victim, members = attack.participant(), world.all_members()
    tick_all([*members, victim, *honest])
    train([victim, *honest])
    tick_all([*members, victim, *honest])
    assert len(world.engine.totals) == 1
    tick_all([*members, victim])
    attack.lie(Pet1Document.MODEL, lambda data: bytes(len(data or b"")))
    with pytest.raises(RemoteProtocolError, match="the one that the round record names"):
        victim.global_model()
    attack.lie(Pet1Document.MODEL, b"short")
    with pytest.raises(RemoteProtocolError, match="expected 20 bytes"):
        victim.global_model()
    attack.lie(Pet1Document.MODEL, lambda data: bytes(len(data or b"")))
    victim.set_model(weights(9))  # without having fetched it: the driver does
    sent = len(attack.way.sent)
    tick_all([victim])
    assert reason(victim) == "wrong_model"
    assert len(attack.way.sent) == sent
    attack.way.lies.clear()
    tick_all([victim])
    assert victim.status.models_sent == 2


def test_a_committee_of_the_attackers_keys_is_refused(world: DrivenRound) -> None:
    """Its own keys in the committee, and a committee without the member's message: nothing is masked, nothing is signed."""
    attack = Attack(world)
    participant, others = attack.participant(), world.all_members(range(1, 5))
    member = attack.member()
    tick_all([*others, member, participant])
    committee = world.committee()
    own = bytearray(committee.to_bytes())
    own[-1] ^= 1  # another point in the last member's message
    attack.lie(Pet1Document.COMMITTEE, bytes(own))
    participant.set_model(weights(0))
    tick_all([participant])
    assert reason(participant) in ("invalid_signature", "invalid_point")
    assert attack.way.sent[1:] == []  # the member's Sum is all
    late = world.participant(1)
    tick_all([late])
    assert late.should_set_model

    # A member that is shown a committee without its own message does nothing more in the round.
    attack.world.close_member(0)
    again = attack.member()
    attack.lie(Pet1Document.COMMITTEE, replace(committee, sums=(None, *committee.sums[1:])).to_bytes())
    tick_all([again])
    assert reason(again) == "wrong_committee"
    attack.way.lies.clear()
    tick_all([again])
    assert reason(again) == "wrong_committee"
    assert again.status.phase == "committee"
    assert attack.way.sent[1:] == []


# ---- lists, headers, certificates


def test_a_member_that_is_shown_another_list_certifies_nothing_else(tmp_path: Path) -> None:
    """Split manifests: the round goes by the list of the quorum, and the member with the other one stays silent."""
    with closing(DrivenRound(tmp_path, 4)) as world:
        attack = Attack(world)
        participants = [world.participant(number) for number in range(4)]
        members, victim = world.all_members(range(1, 5)), attack.member()
        tick_all([*members, victim, *participants])
        train(participants)
        attack.lie(Pet1Document.MANIFEST, UpdateManifest.of(world.committee(), world.headers()[:3]).to_bytes())
        tick_all([victim])
        assert victim.status.phase == "certificate"
        attack.way.lies.clear()
        tick_all([victim])
        assert world.engine.refused == {"wrong_root": 1}
        tick_all(members)
        assert world.phase is Phase.CHECK  # the fifth may still come
        world.engine.pass_phase()
        tick_all([*members, victim])
        assert victim.status.answered == 0
        world.engine.pass_phase()
        (total,) = world.engine.totals
        assert total.update_count == 4


def test_a_second_header_of_one_participant_is_not_taken(world: DrivenRound) -> None:
    attack = Attack(world)
    participants = [world.participant(number) for number in range(3)]
    members, victim = world.all_members(range(1, 5)), attack.member()
    tick_all([*members, victim, *participants])
    train(participants)
    true = world.engine.headers(0).headers
    header = world.headers()[0]
    key = next(key for key in world.parties.participant_keys if key.public_key == header.participant)
    second = spoil_box(header, key, 2).data
    attack.way.get_headers = lambda after: HeaderBatch((true[0], second, *true[1:])[after:], 4)  # type: ignore[method-assign]
    tick_all([victim])
    assert reason(victim) == "malformed_headers"  # more than there are participants
    attack.way.get_headers = lambda after: HeaderBatch((true[0], second, true[1])[after:], 3)  # type: ignore[method-assign]
    tick_until(victim, lambda: reason(victim) == "update_already_submitted")
    del attack.way.get_headers  # type: ignore[method-assign]
    world.close_member(0)
    again = attack.member()
    tick_all([again, *members])
    tick_all([again, *members])
    assert again.status.answered == 1


def test_a_complaint_about_a_good_box_changes_nothing(world: DrivenRound) -> None:
    participants, members = [world.participant(number) for number in range(3)], world.all_members(range(1, 5))
    liar = world.parties.member(0)
    record, enrolment = world.read(Pet1Document.ROUND), world.read(Pet1Document.ENROLMENT)
    signed = liar.join(record, enrolment, NOW)
    opened = RoundRecord.from_bytes(record)
    assert signed is not None
    world.transport.send_message(seal(signed, opened.coordinator_key))
    tick_all([*members, *participants])
    train(participants)
    listed = UpdateManifest.of(world.committee(), world.headers())
    forged = {key: bytes(96) for key in listed.headers}
    check = build_check(world.parties.member_keys[0], opened, listed.root, forged)
    world.transport.send_message(seal(check, opened.coordinator_key))
    tick_all([*members, *participants])
    world.engine.pass_phase()
    tick_all(participants)
    assert world.engine.totals[0].update_count == 3
    assert [participant.status.last_inclusion for participant in participants] == [Inclusion.AGREED.value] * 3


# ---- updates


def test_an_update_that_was_accepted_and_left_out_is_noticed(world: DrivenRound) -> None:
    """A coordinator that says yes and takes nothing; not the same as being proven bad."""
    with closing(DrivenRound(world.folder / "four", 4, min_updates=3)) as four:
        attack = Attack(four)
        victim, participants = attack.participant(3), [four.participant(number) for number in range(3)]
        members = four.all_members()
        tick_all([*members, victim, *participants])
        attack.way.open_update = lambda _: UpdateAccepted().encode()  # type: ignore[method-assign]
        train([victim, *participants])
        four.engine.pass_phase(61)
        tick_all([*members, victim, *participants])
        assert four.engine.totals[0].update_count == 3
        assert victim.status.last_inclusion == Inclusion.NOT_LISTED.value
        assert participants[0].status.last_inclusion == Inclusion.AGREED.value


def test_a_coordinator_that_forgets_leaves_makes_nobody_hurry(world: DrivenRound) -> None:
    """One that asks for the same again and again gets it at the pace of the back-off, not as fast as the network is."""
    attack = Attack(world)
    members, victim = world.all_members(), attack.participant()
    tick_all([*members, victim])
    attack.way.open_update = lambda _: UpdateOpen(8, (False,)).encode()  # type: ignore[method-assign]
    attack.way.send_piece = lambda _: UpdateOpen(8, (False,)).encode()  # type: ignore[method-assign]
    victim.set_model(weights(0))
    tick_all([victim])  # which ends: no step makes progress any longer
    assert victim.status.phase == "sending_update"
    attack.way.open_update = lambda _: b"\x09"  # type: ignore[method-assign]
    attack.way.send_piece = lambda _: b""  # type: ignore[method-assign]
    tick_all([victim])
    assert reason(victim) == "malformed_answer"
    del attack.way.open_update, attack.way.send_piece  # type: ignore[method-assign]
    tick_until(victim, lambda: victim.status.models_sent == 1)


def test_an_update_that_is_refused_ends_the_task_with_the_reason(world: DrivenRound) -> None:
    attack = Attack(world)
    members, victim = world.all_members(), attack.participant()
    tick_all([*members, victim])
    attack.way.open_update = lambda _: b"\x02too_many_updates"  # type: ignore[method-assign]
    victim.set_model(weights(0))
    events = tick_all([victim])
    assert [event.reason for event in events if isinstance(event, TaskAbandoned)] == ["too_many_updates"]
    assert "too_many_updates" in victim.status.text


def test_pieces_that_are_changed_or_lost_on_the_way_are_sent_again(tmp_path: Path) -> None:
    """A flipped bit, a piece for a coordinator that was restarted, an answer that never comes: the same update, once."""
    length = 2 * LEAF_BYTES // 4
    with closing(DrivenRound(tmp_path, model_length=length)) as world:
        attack = Attack(world)
        others, members, victim = [world.participant(number) for number in (1, 2)], world.all_members(), attack.participant()
        tick_all([*members, victim, *others])
        deliver, steps = attack.way.send_piece, list[str]()

        def interfere(piece: Any) -> bytes:
            data = bytearray(b"".join(map(bytes, piece)))
            step = ("flipped", "unknown", "lost", "")[min(len(steps), 3)]
            steps.append(step)
            if step == "flipped":
                data[-1] ^= 1
            if step == "unknown":
                data[:32] = bytes(32)
            answer = deliver([bytes(data)])
            if step == "lost":
                raise TransportError("the connection was cut")
            return answer

        attack.way.send_piece = interfere  # type: ignore[method-assign]
        victim.set_model(weights(0, length))
        tick_until(victim, lambda: victim.status.models_sent == 1)
        assert {"wrong_leaf", "unknown_upload"} <= set(world.engine.refused)
        assert len(set(attack.way.sent)) == 1  # one header, sealed once
        for number, other in enumerate(others, 1):
            other.set_model(weights(number, length))
        tick_all([*others, *members, victim])
        tick_all([*members, victim])
        assert world.engine.totals[0].update_count == 3
        assert victim.status.last_inclusion == Inclusion.AGREED.value


def test_a_member_that_is_shown_another_committee_signs_no_list(world: DrivenRound) -> None:
    """Committee equivocation: a valid one with a slot less; headers and lists of the true one mean nothing in it."""
    attack = Attack(world)
    participants = [world.participant(number) for number in range(3)]
    members, victim = world.all_members(range(1, 5)), attack.member()
    tick_all([*members, victim])
    other = Committee.of(world.committee().record, world.parties.enrolment, (*world.committee().sums[:4], None))
    attack.lie(Pet1Document.COMMITTEE, other.to_bytes())
    world.close_member(0)
    victim = attack.member()
    tick_all([victim, *participants])
    train(participants)
    tick_until(victim, lambda: reason(victim) in ("malformed_share_header", "wrong_committee"))
    sent = list(attack.way.sent)
    tick_all([victim])
    assert attack.way.sent == sent
    assert victim.status.phase == "headers"
