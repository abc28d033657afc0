"""A peer whose state was restored from a backup: it does not know what it has sent, and others do."""

import shutil

from malicious import MaliciousAdmin
from nats_broker import run
from peer_driver import entries_of, federation, pulse, some_rows, synchronise, until

from pet.federation.server.store import FederationStore


async def put_back(started, node, backup):
    """Start a peer again from a copy of its state folder."""
    await node.peer.close()
    node.store.close()
    shutil.rmtree(node.folder)
    shutil.copytree(backup, node.folder)
    node.store = FederationStore(node.folder, node.clock.now_seconds)  # as `restart` closes one
    return await started.restart(node)


async def saved(started, node, folder):
    """Return a copy of a peer's state folder, taken while it does not run, and the peer again."""
    await node.peer.close()
    node.store.close()
    shutil.copytree(node.folder, folder)
    node.store = FederationStore(node.folder, node.clock.now_seconds)
    return await started.restart(node)


def test_a_restored_peer_that_sees_what_it_was_in_takes_no_further_part(broker, tmp_path):
    """It would say that it has not answered rounds that it has: the others go on without it, and its log says why."""

    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            for number, node in enumerate(started.nodes):
                node.peer.local_project.learn(some_rows(40 + number, number))
            await pulse(started)
            await synchronise(started)
            restored = await saved(started, started.nodes[3], tmp_path / "backup")
            for number, node in enumerate(started.nodes):
                node.peer.local_project.learn(some_rows(20, 10 + number))
            await until(lambda: restored.peer.is_running)
            await synchronise(started)
            restored = await put_back(started, restored, tmp_path / "backup")
            await until(lambda: "knows of none after round 1" in restored.log())
            # It may see results; the entry comes before what is taken over.
            await until(lambda: restored.peer.federated_project.row_count == 246)
            restored.peer.local_project.learn(some_rows(30, 77))
            admin = MaliciousAdmin(started)
            for number in (2, 3, 9):
                assert await admin.call(restored, number) is None
            assert "restored from a backup" in await admin.refusal_of(restored, 10)
            for node in started.nodes[:3]:
                node.peer.local_project.learn(some_rows(20, 20))
            await synchronise(started, nodes=started.nodes[:3])
            assert started.admin.peer.federated_project.row_count == 40 + 41 + 42 + 6 * 20
            again = await started.restart(restored)
            assert await admin.call(again, 20) is None
            entries = entries_of(again).items()
            assert not any(entry.answered for number, entry in entries if number > 1), "no second answer to anything"

    run(work())


def test_a_restored_peer_that_is_shown_nothing_is_refused_by_the_others(broker, tmp_path):
    """An admin that hides the result gets a second answer from it, of older statistics, which nobody takes."""

    async def work():
        async with federation(broker.url, tmp_path, 4, phase_seconds=20) as started:
            for number, node in enumerate(started.nodes):
                node.peer.local_project.learn(some_rows(40 + number, number))
            await pulse(started)
            await synchronise(started)
            restored = await saved(started, started.nodes[3], tmp_path / "backup")
            for number, node in enumerate(started.nodes):
                node.peer.local_project.learn(some_rows(20, 10 + number))
            await until(lambda: restored.peer.is_running)
            admin = MaliciousAdmin(started)
            assert await admin.withhold_round() == ""
            before = [entries_of(node) for node in started.nodes[:3]]
            await put_back(started, restored, tmp_path / "backup")
            await until(lambda: started.nodes[3].peer.is_running)
            for node in started.nodes[:3]:
                node.peer.local_project.learn(some_rows(20, 20))
            assert "version of peer peer3" in await admin.withhold_round()
            assert [total.rows for total in admin.withheld] == [246]
            assert [entries_of(node) for node in started.nodes[1:3]] == before[1:], "nobody has sent an update"

    run(work())
