"""Results that some peers see and others do not, because an admin hides them or a message is lost."""

import pytest
from malicious import MaliciousAdmin
from nats_broker import run
from peer_driver import federation, pulse, some_rows, synchronise, until


def learn(nodes, seed):
    for number, node in enumerate(nodes):
        node.peer.local_project.learn(some_rows(30 + number, seed + number))


async def show(admin, *seeing):
    """Publish the result of a round of some peers to them alone: the others are deaf meanwhile."""
    others = [node for node in admin.started.nodes if node not in (admin.node, *seeing)]
    for node in others:
        node.peer._syncs.aggregates._take = ignore
    try:
        assert await admin._leadership._attempt(admin.all_but(admin.node, *seeing))
        number = admin._context.counters.aggregate_round
        await until(lambda: all(node.peer._context.counters.aggregate_round == number for node in seeing))
        await until(lambda: not any(node.peer.is_in_round for node in admin.started.nodes))
    finally:
        for node in others:
            del node.peer._syncs.aggregates._take


async def ignore(_message):
    pass


@pytest.mark.long
def test_an_admin_that_shows_results_to_some_peers_only_gets_no_third_sum(broker, tmp_path):
    """{a, b, c, d} and {e, f, g}, each shown to its own, less {b, ..., g} would be a; the admin's part it knows itself."""

    async def work():
        async with federation(broker.url, tmp_path, 8, phase_seconds=20) as started:
            learn(started.nodes, 0)
            await pulse(started)
            admin, (_, a, b, c, d, e, f, g) = MaliciousAdmin(started), started.nodes
            await show(admin, a, b, c, d)
            admin.forget_rounds()
            await show(admin, e, f, g)
            leadership = admin._leadership

            async def all_of(answers):
                return answers

            leadership._without_unaware = all_of  # it lists whom it likes
            refused = await admin.withhold_round(without=admin.all_but(admin.node, b, c, d, e, f, g))
            assert "that all know its set" in refused
            assert admin.withheld == []
            # The first result came to e, f and g with the second, which b, c and d have not seen.
            await until(lambda: all("that all know its set" in node.log() for node in (e, f, g)))

    run(work())


@pytest.mark.long
def test_a_peer_that_missed_a_result_gets_it_before_the_next_round(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 5) as started:
            learn(started.nodes, 0)
            await pulse(started)
            admin, late = MaliciousAdmin(started), started.nodes[4]
            await show(admin, *started.nodes[1:4])
            learn(started.nodes[:3], 20)  # the others come again as they were
            assert late.peer._context.counters.aggregate_round == 0
            await synchronise(started)
            assert set(admin._context.counters.aggregate_contributors) == {node.uuid for node in started.nodes}

    run(work())


@pytest.mark.long
def test_peers_that_are_away_restart_leave_and_join_stop_nobody(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 5) as started:
            learn(started.nodes, 0)
            await pulse(started)
            await synchronise(started)
            away = started.nodes[4]
            await away.peer.close()
            for seed in (20, 40):
                learn(started.nodes[:3], seed)
                await synchronise(started, nodes=started.nodes[:4])
            again = await started.restart(away)
            await until(lambda: again.peer._context.counters.aggregate_round == 3)
            joined = await started.join()
            joined.peer.local_project.learn(some_rows(30, 60))
            await joined.peer.start_pulse()
            await until(lambda: joined.peer._context.counters.aggregate_round == 3)
            learn(started.nodes[:3], 80)
            await synchronise(started)
            await started.admin.peer.remove_peer(started.nodes[2].uuid)
            await until(lambda: all(len(node.peer.record.peers) == 5 for node in (started.admin, again, joined)))
            learn(started.nodes[:2], 100)
            await synchronise(started, nodes=[node for node in started.nodes if node is not started.nodes[2]])
            assert len(started.admin.peer._context.counters.aggregate_contributors) == 5

    run(work())
