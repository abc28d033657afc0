"""Attacks of an admin that a single round is enough for: schemas that differ, an accomplice, results of its own, waiting times.

Those over several rounds are in test_member_attacks.py. Each is played against unmodified peers.
"""

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from malicious import MaliciousAdmin, MaliciousMember
from nats_broker import run
from peer_driver import SCHEMA, entries_of, federation, pulse, some_rows, synchronise, until

from pet.federation.peer import round_peer
from pet.federation.peer.rounds import Rounds
from pet.federation.peer.row_guard import RowGuard
from pet.federation.records import LogKind
from pet.federation.statistics.feature import Kind
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics


def learn(started, *counts):
    for number, (node, count) in enumerate(zip(started.nodes, counts, strict=True)):
        node.peer.local_project.learn(some_rows(count, number))


def test_peers_that_were_shown_different_schemas_do_not_come_together(broker, tmp_path):
    """No invitation names the schema. With another scale the others' numbers are next to nothing, and the sum is one peer's."""
    wide = Schema(tuple(replace(one, scale=1e12) if one.kind is Kind.CONTINUOUS else one for one in SCHEMA.features))
    assert (wide.layout, wide.least_rows) == (SCHEMA.layout, SCHEMA.least_rows), "neither length nor minimum show it"

    async def work():
        async with federation(broker.url, tmp_path, 3, schema=wide.to_json()) as started:
            admin = MaliciousAdmin(started)
            with admin.answering_joins_with(schema=SCHEMA.to_json()):
                victim = await started.join()
            assert victim.peer.record.terms.schema == SCHEMA.to_json(), "its user sees this one"
            learn(started, 40, 40, 40, 40)
            places = wide.layout.sums
            others = sum(
                np.abs(node.peer.local_project.snapshot().values[places][wide.continuous]) for node in started.nodes[:3]
            )
            assert (others < 1e-6).all()
            await pulse(started)
            announcement = admin.announcement([await admin.call(node, 1) for node in started.nodes[1:]], 1)
            for node in started.nodes[1:]:
                assert "expected statistics of one schema, got several" in await admin.announce(announcement, node)
                assert not node.peer.is_in_round
            # An honest leader goes on without the one that differs, and says so.
            await synchronise(started, nodes=started.nodes[:3])
            assert (
                f"Sync without {victim.peer.record.keys.identity('peer3').name} (its statistics are of another schema)"
                in started.admin.log()
            )

    run(work())


@dataclass
class Work:
    """What a peer calls while it answers: names of pet's functions, in their order."""

    calls: list[str] = field(default_factory=list)

    @contextmanager
    def recorded(self):
        def note(frame, event, _):
            if event == "call" and "/pet/" in frame.f_code.co_filename:
                self.calls.append(frame.f_code.co_qualname)

        sys.setprofile(note)
        try:
            yield
        finally:
            sys.setprofile(None)


def test_what_a_refusal_waits_for_does_not_depend_on_rows(broker, tmp_path, monkeypatch):
    """Time is an answer too: with none, one or seven rows a peer does the same work, in the same order, before it answers."""
    answered = []

    def recording(name):
        answer = getattr(Rounds, name)

        async def answer_recorded(rounds, message):
            work = Work()
            answered.append((rounds._context.uuid, name, work.calls))
            with work.recorded():
                return await answer(rounds, message)

        monkeypatch.setattr(Rounds, name, answer_recorded)

    recording("answer_call")
    recording("answer_go")

    def work_of(peer, name):
        return [calls for uuid, what, calls in answered if (uuid, what) == (peer.uuid, name)]

    async def work():
        async with federation(broker.url, tmp_path, 5, confirm=None) as started:
            await pulse(started)
            admin, poor, shared = MaliciousAdmin(started), started.nodes[1:4], started.nodes[4]
            for peer, count in zip(poor, (0, 1, 7), strict=True):
                if count:
                    peer.peer.local_project.learn(some_rows(count, count))
                assert "expected some to share" in await admin.refusal_of(peer, 1)
            refusals = [work_of(peer, "answer_call")[0] for peer in poor]
            assert "RowGuard.offered" in refusals[0]
            assert refusals[0] == refusals[1] == refusals[2]
            # One whose rows others have seen: nothing new, one row held back, six held back; and nobody there is confirmed.
            shared.peer.local_project.learn(some_rows(20, 9))
            shared.peer.local_project.note_shared(shared.peer.local_project.offered())
            for number, more in enumerate((0, 0, 1, 6), 1):
                if more:
                    shared.peer.local_project.learn(some_rows(more, 30 + more))
                answers = [await admin.call(shared, number), *(await admin.forged_answers(number, 2))]
                assert "refused" not in await admin.announce(admin.announcement(answers, number), shared)
            for name in ("answer_call", "answer_go"):
                _, first, *rest = work_of(shared, name)  # with the very first one what a schema keeps is computed
                assert rest == [first, first]

    run(work())


def test_an_admin_with_a_confirmed_accomplice_reads_one_peer_and_of_more_the_sum(broker, tmp_path):
    """What is stated: of n peers c that collude learn the sum of the other n - c, so of three peers one's numbers.

    With two honest peers and more there is nothing that they could choose: neither a number nor a role is drawn.
    """

    async def work():
        async with federation(broker.url, tmp_path, 5, phase_seconds=20) as started:
            learn(started, 50, 60, 70, 80, 90)
            await pulse(started)
            admin, accomplice = MaliciousAdmin(started), MaliciousMember(started.nodes[4])
            for left_out in (2, 1):
                others = frozenset(node.uuid for node in started.nodes[2 : 2 + left_out])
                for node in started.nodes:
                    node.peer.local_project.learn(some_rows(20, 20 + left_out))
                assert await admin.withhold_round(without=others) == ""
                known = admin.own_statistics() + accomplice.node.peer.local_project.snapshot()
                read = admin.withheld[-1] - known
                honest = [node for node in started.nodes[1:4] if node.uuid not in others]
                expected = sum((node.peer.local_project.snapshot() for node in honest), start=Statistics(SCHEMA))
                assert (read.rows, len(honest)) == (expected.rows, 3 - left_out)
                np.testing.assert_allclose(read.values, expected.values, atol=1e-6)

    run(work())


def test_an_admin_publishes_another_result_and_nobody_notices(broker, tmp_path):
    """What is stated: it signs results. Peers hold them to what rows can have, and nothing proves that they are the sum."""

    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 50, 60, 70)
            await pulse(started)
            await synchronise(started)
            admin, peer = MaliciousAdmin(started), started.nodes[1]
            invented = Statistics.of(some_rows(180, 99), SCHEMA)
            invented.masked_peers = 3
            await admin.publish_as_result(invented, 2)
            await until(lambda: peer.peer._context.counters.aggregate_round == 2)
            taken = peer.peer.federated_project.snapshot()
            np.testing.assert_array_equal(taken.values, invented.values)
            assert "round 2 with 3 peers" in peer.log(LogKind.SYNC)
            # What no rows could have is refused, and so is an older one.
            errors = peer.peer.statistics.receive_errors
            await admin.publish_as_result(invented - Statistics.of(some_rows(200, 98), SCHEMA), 3)
            await until(lambda: peer.peer.statistics.receive_errors > errors)
            assert peer.peer._context.counters.aggregate_round == 2
            assert "impossible_statistics" in peer.log() or "statistics: expected" in peer.log()

    run(work())


def test_a_result_that_was_only_claimed_lets_no_set_pass(broker, tmp_path):
    """A sum that follows from known ones would tell nothing new, so the admin claims that the one it is after exists."""

    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 50, 60, 70)
            await pulse(started)
            await synchronise(started)
            admin, bob = MaliciousAdmin(started), started.nodes[1]
            bob.peer.local_project.learn(some_rows(20, 9))
            claimed = Statistics.of(some_rows(200, 99), SCHEMA)
            claimed.masked_peers = 3
            await admin.publish_as_result(claimed, 2)
            await until(lambda: all(node.peer._context.counters.aggregate_round == 2 for node in started.nodes))
            assert "peers to change together" in await admin.withhold_round()
            assert admin.withheld == []

    run(work())


def test_results_with_numbers_that_cannot_be_stored_or_without_end_are_refused(broker, tmp_path, monkeypatch):
    """Peers that the admin invents sign any number: a peer that took it could not be started again."""
    monkeypatch.setattr(round_peer, "MAX_OPEN_ROUNDS", 4)

    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 50, 60, 70)
            await pulse(started)
            await synchronise(started)
            admin, peer = MaliciousAdmin(started), started.nodes[1]
            claimed = Statistics.of(some_rows(180, 99), SCHEMA)
            claimed.masked_peers = 3
            for errors, (number, version) in enumerate(((2**63, 1), (2**64 - 1, 1), (9, 2**63)), 1):
                await admin.claim_result(claimed, number, version)
                await until(lambda errors=errors: peer.peer.statistics.receive_errors == errors)
            await until(lambda: peer.log().count("expected numbers below 2^63") == 3)
            for number in range(10, 13):
                await admin.claim_result(claimed, number, 1)
                await until(lambda number=number: peer.peer._context.counters.aggregate_round == number)
            await admin.claim_result(claimed, 13, 1)
            await until(lambda: "expected at most 4 rounds" in peer.log())
            again = await started.restart(peer)
            assert (again.peer._context.counters.aggregate_round, len(entries_of(again))) == (12, 4)

    run(work())


def test_a_leader_that_shows_one_peer_another_list_gets_no_sum(broker, tmp_path):
    """Each peer signs for the list that it was shown, so there is no committee, no certificate and no answer of all."""

    async def work():
        async with federation(broker.url, tmp_path, 5, phase_seconds=1) as started:
            learn(started, 50, 60, 70, 80, 90)
            await pulse(started)
            admin, misled, hidden = MaliciousAdmin(started), started.nodes[1], started.nodes[2]
            with admin.showing_without(misled, hidden):
                assert "too_few_members" in await admin.withhold_round()
            assert admin.withheld == []
            assert all(not entries_of(node) for node in started.nodes), "nobody has sent an update"
            assert await admin.withhold_round() == ""
            assert [total.rows for total in admin.withheld] == [350]

    run(work())


def test_a_peer_that_was_removed_and_joins_again_does_not_show_what_changed_meanwhile(broker, tmp_path):
    """An admin may remove and invite it as often as it likes: what left it before is remembered beyond its membership."""

    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 50, 60, 70)
            await pulse(started)
            await synchronise(started)
            victim, member = started.nodes[1], MaliciousMember(started.nodes[2])
            member.look()
            await started.admin.peer.remove_peer(victim.uuid)
            await victim.peer.close()
            victim.store.remove(victim.peer.record.customer_id, victim.peer.record.project_id)
            again = await started.join(store=victim.store, project_id="again")
            local, least = again.peer.local_project, SCHEMA.least_rows
            assert local.offered() is None, "it has learned nothing yet, and its former rows are its user's alone"
            local.learn(some_rows(60, 1))
            assert (local.held_back.rows, local.held_back.least) == (0, least)
            local.learn(some_rows(1, 9))
            assert (local.held_back.rows, local.held_back.least) == (1, least)
            await again.peer.start_pulse()
            await synchronise(started, nodes=[started.admin, member.node, again])
            member.look()
            assert member.difference().rows == 0
            local.learn(some_rows(least - 1, 10))
            assert local.held_back is None
            started.admin.peer.local_project.learn(some_rows(least, 11))  # nobody's change is merged alone
            await synchronise(started, nodes=[started.admin, member.node, again])
            member.look()
            assert member.difference().rows == 2 * least

    run(work())


def test_what_left_a_peer_says_nothing_in_another_federation_or_under_another_schema(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 50, 60, 70)
            await pulse(started)
            await synchronise(started)
            victim = started.nodes[1]
            await started.admin.peer.remove_peer(victim.uuid)
            await victim.peer.close()
            own, wide = (
                victim.peer.record,
                Schema(tuple(replace(one, scale=1e12) if one.kind is Kind.CONTINUOUS else one for one in SCHEMA.features)),
            )
            victim.store.remove(own.customer_id, own.project_id)
            other = replace(own, terms=replace(own.terms, federation_id="0123456789abcdef"))
            kept = victim.store.add(other, persist=True)
            assert kept.load_state("shared_counts") is None
            victim.store.remove(own.customer_id, own.project_id)
            storage = victim.store.add(own, persist=True)
            guard = RowGuard(storage, lambda schema: schema.least_rows)
            statistics = Statistics.of(some_rows(61, 1), wide)
            assert guard.held_back(statistics, guard.first_version + 1).rows == 1
            assert guard.offered(statistics, guard.first_version + 1) is None

    run(work())
