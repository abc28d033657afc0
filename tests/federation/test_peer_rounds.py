"""Rounds of pet/1 in a federation, without a broker: sums, rounds in a row, and what vanishing peers cost."""

import tempfile

import numpy as np
import pytest
from nats_broker import run
from pet1_parties import spoil_box
from rounds_in_process import LENGTH, FederationInProcess, numbers

from pet import shares
from pet.federation.peer import playing
from pet.pet1.ledger import RoundLedger
from pet.pet1.share_header import ShareHeader
from pet.protocol.pet1_federation_peer import LEDGER
from pet.protocol.pet1_rules import Pet1Rules


def test_three_peers_sum_exactly_in_several_rounds():
    async def work():
        federation = FederationInProcess.of(3)
        for number in range(7, 10):
            values = [numbers(10 * number + place) for place in range(3)]
            result, announced = await federation.lead(number, values)
            totals = result.model.to_array()
            assert [int(total) for total in totals] == [sum(int(one[place]) for one in values) for place in range(LENGTH)]
            assert result.wrong == ()
            for peer in federation.peers:
                peer.machine.note_result(announced.enrolment, announced.calls)
                entry = RoundLedger.decode(peer.disk[LEDGER]).entries[number]
                assert (entry.answered, entry.published) == (True, True)
                assert peer.notes == []

    run(work())


@pytest.mark.parametrize("count", [4, pytest.param(33, marks=pytest.mark.long)])
def test_other_numbers_of_peers_have_sums_too(count):
    async def work():
        federation = FederationInProcess.of(count)
        values = [np.full(LENGTH, place, dtype=np.uint64) for place in range(count)]
        result, _ = await federation.lead(1, values)
        assert set(result.model.to_array().tolist()) == {sum(range(count))}

    run(work())


def test_a_peer_that_is_gone_is_named_and_the_same_statistics_go_into_the_next_round():
    async def work():
        federation = FederationInProcess.of(4, phase_seconds=1)
        values, gone = [numbers(place) for place in range(4)], federation.peers[3]
        with pytest.raises(BaseExceptionGroup) as caught:
            await federation.lead(1, values, versions=[1] * 4, gone=[gone])
        error = failure_of(caught)
        assert str(error) == "too_few_members: did not begin"
        assert error.without == {gone.key.public_key.hex()}
        federation.peers.remove(gone)
        result, _ = await federation.lead(2, values[:3], versions=[1] * 3)
        assert int(result.model.to_array()[0]) == sum(int(one[0]) for one in values[:3])

    run(work())


def test_large_vectors_lie_in_files_that_go_with_the_round(monkeypatch, tmp_path):
    async def work():
        federation, lying = FederationInProcess.of(3), []
        values = [numbers(place) for place in range(3)]
        add_up = Pet1Rules._add_up

        def add_up_and_look(rules, *arguments):
            lying.extend(tmp_path.rglob("*.leaves"))
            return add_up(rules, *arguments)

        monkeypatch.setattr(Pet1Rules, "_add_up", add_up_and_look)
        monkeypatch.setattr(playing, "MAX_BYTES_IN_MEMORY", 0)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        result, _ = await federation.lead(1, values)
        assert int(result.model.to_array()[0]) == sum(int(one[0]) for one in values)
        assert len(lying) == 3
        assert list(tmp_path.iterdir()) == []

    run(work())


def failure_of(caught):
    """The error of a round that failed, which a group of tasks has wrapped."""
    (error,) = caught.value.exceptions
    return error


def test_a_peer_that_sends_a_bad_box_is_proved_to_have_done_so(monkeypatch):
    async def work():
        federation = FederationInProcess.of(4)
        values, liar = [numbers(place) for place in range(4)], federation.peers[2]
        build = ShareHeader.build

        def build_badly(key, *arguments):
            header = build(key, *arguments)
            return spoil_box(header, key, 0) if key is liar.key else header

        with monkeypatch.context() as patch:
            patch.setattr(ShareHeader, "build", build_badly)
            with pytest.raises(BaseExceptionGroup) as caught:
                await federation.lead(1, values, versions=[1] * 4)
        error = failure_of(caught)
        assert str(error) == "too_few_updates: sent boxes that do not open"
        assert error.without == {liar.key.public_key.hex()}
        federation.peers.remove(liar)
        del values[2]
        result, _ = await federation.lead(2, values, versions=[1] * 3)
        assert int(result.model.to_array()[0]) == sum(int(one[0]) for one in values)

    run(work())


def test_after_a_wrong_share_the_same_peers_come_together_again_and_no_others(monkeypatch):
    """Nobody is named, and all have answered: the leader may know the sum."""

    async def work():
        federation = FederationInProcess.of(4)
        values, liar = [numbers(place) for place in range(4)], federation.peers[2]
        derive = shares.derive_share

        def derive_badly(plan, slot, masks, *arguments, **options):
            return derive(
                plan, slot, {part: seeds[:-1] for part, seeds in masks.items()} if slot == 2 else masks, *arguments, **options
            )

        with monkeypatch.context() as patch:
            patch.setattr(shares, "derive_share", derive_badly)
            with pytest.raises(BaseExceptionGroup) as caught:
                await federation.lead(1, values, versions=[1] * 4)
        error = failure_of(caught)
        assert (str(error), error.without) == ("wrong_share", set())
        federation.peers.remove(liar)
        with pytest.raises(BaseExceptionGroup) as caught:
            await federation.lead(2, values[:2] + values[3:], versions=[1] * 3)
        assert failure_of(caught).reason == "answered_before"
        federation.peers.insert(2, liar)
        result, _ = await federation.lead(3, values, versions=[1] * 4)
        assert int(result.model.to_array()[0]) == sum(int(one[0]) for one in values)

    run(work())
