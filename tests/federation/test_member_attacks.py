"""Attacks of an admin and of members on the numbers of one peer, each played against unmodified peers."""

import numpy as np
import pytest
from malicious import MaliciousAdmin, MaliciousBroker, MaliciousMember
from nats_broker import run
from peer_driver import entries_of, federation, pulse, some_rows, synchronise, until

from pet.errors import DowngradeError
from pet.federation.records import Mode
from pet.federation.runtime import HeldBack
from pet.federation.server.federation_info import federation_info, warnings_of
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema
from pet.secret import Secret
from pet.transports.nats import NatsSettings, Subjects, connect


def learn(started, *counts):
    for number, (node, count) in enumerate(zip(started.nodes, counts, strict=True)):
        if count:
            node.peer.local_project.learn(some_rows(count, number))


def one_row(age):
    return {"age": np.array([age]), "ill": np.array([1.0]), "weight": np.array([97.5])}


def test_a_contract_is_no_way_to_ask_for_a_peers_numbers(broker, tmp_path):
    """The admin changes the contract and looks who enrols: the answers are the same, whatever the contract and the rows say."""

    async def work():
        async with federation(broker.url, tmp_path, 3) as started:
            learn(started, 30, 90, 7)
            await pulse(started)
            admin, rich, poor = MaliciousAdmin(started), *started.nodes[1:]
            contract = rich.peer.record.terms.contract
            for number, line in enumerate(("MEAN(age) > 0", "MEAN(age) > 99", "COUNT(age) > 50", "COUNT(age) > 5"), 1):
                for peer in (rich, poor):
                    await admin.change_contract(line, peer)
                assert await admin.call(rich, number) is not None
                assert await admin.call(poor, number) is None
            for peer in (rich, poor):
                assert peer.peer.record.terms.contract == contract, "nobody agreed to a change"
                assert peer.peer.proposed_contract is not None
                assert peer.peer.statistics.send_contract_errors == 0
                assert peer.log() == ""

    run(work())


def test_a_refusal_says_nothing_of_the_rows_that_are_held_back(broker, tmp_path):
    """Errors are answers too: none, one, and seven rows get the same one, and a change of any few rows shows nothing."""

    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            learn(started, 30, 0, 1, 7)
            await pulse(started)
            admin = MaliciousAdmin(started)
            refusals = {(await admin.refusal_of(peer, 1)).replace(peer.uuid, "") for peer in started.nodes[1:]}
            assert len(refusals) == 1
            assert not any(character.isdigit() for character in refusals.pop())
            peer = started.nodes[3]
            peer.peer.local_project.learn(some_rows(20, 9))
            shown = {}
            for number, more in enumerate((0, 1, 6), 1):
                if more:
                    peer.peer.local_project.note_shared(peer.peer.local_project.offered())
                    peer.peer.local_project.learn(some_rows(more, 20 + more))
                answer = await admin.call(peer, number)
                shown[more] = answer.contribution
            assert shown[1] == shown[6]
            assert (shown[1].version, shown[1].rows, shown[1].changed_rows) == (shown[0].version, shown[0].rows, 0)

    run(work())


def test_a_member_does_not_single_out_another_ones_row(broker, tmp_path):
    """It adds rows of its own until a sum may be made again, and asks for one after the other has learned a single row."""

    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 200, 150, 40)
            await pulse(started)
            await synchronise(started)
            alice, mallory = started.nodes[1], MaliciousMember(started.nodes[2])
            mallory.look()
            alice.peer.local_project.learn(one_row(61.25))
            mallory.node.peer.local_project.learn(some_rows(8, 4))
            await mallory.node.peer.request_full_sync()
            await until(lambda: "expected 2 or more peers to change together" in mallory.node.log())
            # Another peer that changes too makes the sum possible. Alice's row is not in it.
            started.admin.peer.local_project.learn(some_rows(30, 5))
            await synchronise(started)
            mallory.look()
            assert mallory.difference().rows == 30
            assert alice.peer.local_project.held_back == HeldBack(rows=1, least=8)
            alice.peer.local_project.learn(some_rows(7, 6))
            started.admin.peer.local_project.learn(some_rows(8, 7))
            await synchronise(started)
            mallory.look()
            assert mallory.difference().rows == 16, "never fewer than eight of anybody"

    run(work())


def test_in_compatibility_mode_that_attack_works_and_the_peer_is_warned(broker, tmp_path):
    """There the rule of minimum rows is for all peers together, as its clients expect."""

    async def work():
        options = {"mode": Mode.COMPAT, "secret_key": Secret("MDEyMzQ1Njc4OWFiY2RlZg==")}
        async with federation(broker.url, tmp_path, **options) as started:
            learn(started, 200, 150, 40)
            await pulse(started)
            await synchronise(started)
            alice, mallory = started.nodes[1], MaliciousMember(started.nodes[2])
            mallory.look()
            alice.peer.local_project.learn(one_row(61.25))
            mallory.node.peer.local_project.learn(some_rows(7, 4))
            await synchronise(started)
            mallory.look()
            found = mallory.difference()
            assert found.rows == 1
            (warning,) = warnings_of(alice.peer.record)
            assert "can work these out" in warning
            assert federation_info(alice.peer)["fed_warnings"] == [warning]

    run(work())


def test_two_members_that_collude_learn_the_change_of_the_third_and_not_one_row(broker, tmp_path):
    """What is stated: of three peers, two know the third's change. Its own rule sees to it that this is eight rows or more."""

    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 200, 150, 40)
            await pulse(started)
            await synchronise(started)
            alice = started.nodes[1]
            colluding = [MaliciousMember(started.admin), MaliciousMember(started.nodes[2])]
            for member in colluding:
                member.look()
                member.claims_news()
            alice.peer.local_project.learn(one_row(61.25))
            await synchronise(started)
            for member in colluding:
                member.look()
            first, second = colluding[0].seen[-2:]
            np.testing.assert_allclose((second[0] - first[0]).values, 0, atol=1e-6)
            alice.peer.local_project.learn(some_rows(7, 6))
            for member in colluding:
                member.claims_news()
            await synchronise(started)
            colluding[0].look()
            assert (colluding[0].seen[-1][0] - second[0]).rows == 8, "they know the sum of the eight"

    run(work())


#: What peers say to a set that would show one of them: of a round that they have answered, and saw no result of, and otherwise.
SAME_SET, TOO_FEW = "expected that of round 1, or new statistics of this peer", "expected 2 or more peers to change together"


#: And to one that has too few of the peers of an earlier one.
AGAIN = "expected {} of {} peers of an earlier round"


def test_an_admin_that_withholds_aggregates_subtracts_nobody(broker, tmp_path):
    """What a peer has answered counts, no matter whether it was shown the sum."""

    async def work():
        async with federation(broker.url, tmp_path, 3, phase_seconds=20) as started:
            learn(started, 50, 60, 70)
            await pulse(started)
            admin, bob = MaliciousAdmin(started), started.nodes[1]
            assert await admin.withhold_round() == ""
            dave = await started.join()
            dave.peer.local_project.learn(some_rows(9, 77))
            await dave.peer.start_pulse()
            assert SAME_SET in await admin.withhold_round()
            # Leaving peers out is the same attack the other way round; and so is a change of bob alone.
            bob.peer.local_project.learn(some_rows(20, 5))
            without = frozenset({dave.uuid})
            assert TOO_FEW in await admin.withhold_round(without=without) or "all to take part" in bob.log()
            assert [total.rows for total in admin.withheld] == [180]
            assert all("refused" in peer.log() for peer in (bob, started.nodes[2]))
            # After a restart they still know.
            again = await started.restart(started.nodes[2])
            await until(lambda: again.peer.is_running)
            assert await admin.withhold_round(without=without) != ""
            assert len(admin.withheld) == 1
            # The very same sum tells nothing new, and two changes hide each other.
            again.peer.local_project.learn(some_rows(20, 6))
            assert await admin.withhold_round(without=without) == ""
            assert [total.rows for total in admin.withheld] == [180, 220]

    run(work())


def test_sums_of_three_sets_are_refused_that_come_to_one_peer(broker, tmp_path):
    """ABC, CDE and ABCDE: each two of them differ by several peers, and ABC + CDE - ABCDE is C."""

    async def work():
        async with federation(broker.url, tmp_path, 5, phase_seconds=20) as started:
            learn(started, 50, 60, 70, 80, 90)
            await pulse(started)
            admin, (a, b, c, d, e) = MaliciousAdmin(started), started.nodes
            await admin.publish_round(a, b, c)
            assert AGAIN.format(3, 3) in await admin.withhold_round(without=admin.all_but(c, d, e))
            c.peer.local_project.learn(some_rows(20, 9))  # now C is another one than in the first sum
            await admin.publish_round(c, d, e)
            assert "expected 3 or more peers to change together" in await admin.withhold_round()
            # So it is where the second sum is known to its own peers alone.
            for node in (c, d, e):
                node.peer.local_project.learn(some_rows(20, 10))
            assert await admin.withhold_round(without=admin.all_but(c, d, e)) == ""
            assert SAME_SET.replace("round 1", "round 5") in await admin.withhold_round()
            assert [total.rows for total in admin.withheld] == [110 + 100 + 110]

    run(work())


def test_two_hidden_sums_of_sets_without_a_common_peer_show_nobody(broker, tmp_path):
    """All, less some, less most of the others, is one peer: and nobody would have been in both of the hidden rounds."""

    async def work():
        async with federation(broker.url, tmp_path, 7, phase_seconds=20) as started:
            learn(started, *range(50, 57))
            await pulse(started)
            admin, nodes = MaliciousAdmin(started), started.nodes
            await admin.publish_round(*nodes)
            known = [entries_of(node) for node in nodes]
            for some in (nodes[1:4], nodes[4:]):
                assert AGAIN.format(5, 7) in await admin.withhold_round(without=admin.all_but(*some))
                assert all("Round refused" in node.log() for node in some)
            assert admin.withheld == []
            assert [entries_of(node) for node in nodes[1:]] == known[1:], "nobody has sent an update"

    run(work())


def test_a_peer_that_left_and_joined_again_hides_nobody_else(broker, tmp_path):
    """A peer that goes and comes back under a new name is another peer: its going is a change of one."""

    async def work():
        async with federation(broker.url, tmp_path, 4, phase_seconds=20) as started:
            learn(started, 50, 60, 70, 80)
            await pulse(started)
            admin = MaliciousAdmin(started)
            assert await admin.withhold_round() == ""
            await started.nodes[3].peer.leave()
            assert SAME_SET in await admin.withhold_round()
            assert len(admin.withheld) == 1

    run(work())


def test_terms_weaker_than_the_invitations_are_refused(broker, tmp_path):
    """SMPC, encryption and the minimum of rows do not go away with the answer to a join, nor with a later message."""

    async def work():
        async with federation(broker.url, tmp_path, 2) as started:
            admin, peer = MaliciousAdmin(started), started.nodes[1]
            smaller = Schema((Feature(name="age", centre=50, scale=20),)).to_json()
            for changes, problem in (
                ({"smpc": False}, "expected SMPC"),
                ({"encrypts": False}, "expected encryption"),
                ({"smpc": None, "encrypts": None}, "expected SMPC"),
                ({"smpc": "false"}, "expected SMPC"),
                ({"schema": smaller}, "minimum of at least 8 rows"),
                ({"schema": None}, "minimum of at least 8 rows"),
            ):
                with admin.answering_joins_with(**changes), pytest.raises(DowngradeError, match=problem):
                    await started.join()
            before = peer.peer.record
            for changes in ({"smpc": False}, {"encrypts": False}, {"schema": smaller}, {"schema": None}):
                assert "as was agreed" in await admin.push_terms(peer, **changes)
            assert peer.peer.record == before
            assert peer.log().count("Terms of the admin refused") == 4
            assert await admin.push_terms(peer) == ""

    run(work())


def test_an_admin_gains_nothing_by_the_number_of_a_round(broker, tmp_path):
    """Nothing is drawn from it. A number that was called is never answered again, and one that is skipped is only skipped."""

    async def work():
        async with federation(broker.url, tmp_path, phase_seconds=20) as started:
            learn(started, 50, 60, 70)
            await pulse(started)
            await synchronise(started)
            await until(lambda: not any(peer.peer.is_in_round for peer in started.nodes))
            admin, peer = MaliciousAdmin(started), started.nodes[1]
            answers = [await admin.call(node, 900) for node in started.nodes[1:]]
            assert None not in answers
            assert await admin.call(peer, 900) is None
            assert await admin.call(peer, 899) is None
            # The next round has a number above, once those who were called say so.
            for node in started.nodes[1:]:
                node.peer.local_project.learn(some_rows(20, 9))
            await synchronise(started)
            assert peer.peer._context.counters.aggregate_round == 901

    run(work())


def test_a_broker_that_repeats_a_round_gets_no_second_vector(broker, tmp_path):
    """It keeps every call and announcement, and sends them again once a peer has new rows."""

    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 50, 60, 70)
            await pulse(started)
            subjects = Subjects(started.admin.peer.record.terms.federation_id)
            async with await connect(NatsSettings(hosts=(broker.url,)), "operator") as connection:
                operator = MaliciousBroker(connection)
                await operator.listen(subjects.prefix + "ctl.*")
                await synchronise(started)
                bob = started.nodes[1]
                await until(lambda: not bob.peer.is_in_round)
                bob.peer.local_project.learn(some_rows(20, 9))
                before = bob.storage.load_state("pet1.ledger")
                heard = [data for subject, data in operator.heard if subject.endswith(bob.uuid)]
                assert len(heard) >= 2, "a call and an announcement"
                for data in heard:
                    await operator.replay(subjects.control(bob.uuid), data)
                assert not bob.peer.is_in_round
                assert bob.storage.load_state("pet1.ledger") == before
                assert bob.log().count("expected a new one, got one again") == len(heard)

    run(work())
