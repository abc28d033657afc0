"""The plain exchange over a real nats-server: wholes, changes, gaps, rules, exploration."""

import numpy as np
import pytest
from nats_broker import run
from peer_driver import SCHEMA, federation, pooled, pulse, some_rows, until

from pet.errors import FederationStateError, FederationValueError, PeerRefusedError
from pet.federation.records import FailureAction, LogKind
from pet.federation.runtime import HeldBack
from pet.federation.statistics.statistics import Statistics

PLAIN = {"uses_smpc": False}


async def tick(started, nodes=None):
    """Let a tick come at some peers."""
    for node in nodes or started.nodes:
        node.peer._syncs.pulse.beat_now()


def has(node, *parts):
    expected = Statistics.of(pooled(*parts), SCHEMA)
    try:
        merged = node.peer.federated_project.snapshot()
    except FederationStateError:
        return False
    return merged.rows == expected.rows and np.allclose(merged.values, expected.values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("encrypts", [True, False])
def test_every_peer_merges_what_the_others_show(broker, tmp_path, encrypts):
    async def work():
        async with federation(broker.url, tmp_path, **PLAIN, encrypts=encrypts) as started:
            parts = [some_rows(count, count) for count in (40, 300, 10)]
            for node, part in zip(started.nodes, parts, strict=True):
                node.peer.local_project.learn(part)
            await pulse(started)
            await tick(started)
            await until(lambda: all(has(node, *parts) for node in started.nodes))
            more, sent = some_rows(20, 7), started.nodes[0].log(LogKind.SYNC).count("Sync sent, change")
            started.nodes[1].peer.local_project.learn(more)
            await tick(started)
            await until(lambda: all(has(node, *parts, more) for node in started.nodes))
            assert "Sync sent, change" in started.nodes[1].log(LogKind.SYNC)
            assert started.nodes[0].log(LogKind.SYNC).count("Sync sent, change") == sent, "nothing new, nothing sent"
            started.nodes[1].peer.local_project.forget(parts[1])
            await tick(started)
            await until(lambda: all(has(node, parts[0], more, parts[2]) for node in started.nodes))
            assert [node.log() for node in started.nodes] == [""] * 3

    run(work())


def test_what_is_sent_is_encrypted_where_the_admin_chose_so(broker, tmp_path):
    async def work(encrypts, expected):
        async with federation(broker.url, tmp_path / str(encrypts), 2, **PLAIN, encrypts=encrypts) as started:
            part = some_rows(40, 1)
            started.admin.peer.local_project.learn(part)
            await pulse(started)
            await tick(started)
            await until(lambda: "Sync sent" in started.admin.log(LogKind.SYNC))
            blob = await started.admin.peer._link.broadcasts._get(
                started.admin.peer._link.subjects.broadcast_stream,
                started.admin.peer._link.subjects.sync(started.admin.uuid, 1) + ".0",
            )
            assert (Statistics.of(part, SCHEMA).to_bytes() in blob) is expected

    run(work(True, False))
    run(work(False, True))


def test_too_few_rows_stay_at_home(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, **PLAIN) as started:
            poor, rich = started.nodes[1], started.nodes[2]
            poor.peer.local_project.learn(some_rows(7, 1))
            rich.peer.local_project.learn(some_rows(30, 2))
            await pulse(started)
            await tick(started)
            await until(lambda: has(started.admin, some_rows(30, 2)))
            await until(lambda: "held back: 7 rows of 8" in poor.log())
            rich.peer.local_project.learn(some_rows(7, 3))
            await tick(started)
            await until(lambda: "held back: 7 rows of 8" in rich.log())
            await until(lambda: rich.peer.local_project.held_back == HeldBack(rows=7, least=8))
            rich.peer.local_project.learn(some_rows(1, 4))
            poor.peer.local_project.learn(some_rows(1, 5))
            await tick(started)
            everything = [some_rows(30, 2), some_rows(7, 3), some_rows(1, 4), some_rows(7, 1), some_rows(1, 5)]
            await until(lambda: has(started.admin, *everything))

    run(work())


def test_a_peer_that_missed_a_change_asks_for_the_whole(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, **PLAIN) as started:
            parts = [some_rows(40, 1), some_rows(20, 2), some_rows(30, 3)]
            sender, away = started.nodes[1], started.nodes[2]
            sender.peer.local_project.learn(parts[0])
            await pulse(started)
            await tick(started)
            await until(lambda: has(away, parts[0]))
            await away.peer.stop_pulse()
            sender.peer.local_project.learn(parts[1])
            await tick(started, [sender])
            await until(lambda: has(started.admin, *parts[:2]))
            for node in started.nodes:
                node.clock.offset_seconds = 61  # everybody answers one request a minute
            await away.peer.start_pulse()
            await until(lambda: has(away, *parts[:2]))
            # One that died gets everything when it is back.
            await away.peer.close()
            sender.peer.local_project.learn(parts[2])
            await tick(started, [sender])
            await until(lambda: has(started.admin, *parts))
            for node in started.nodes:
                node.clock.offset_seconds = 122
            back = await started.restart(away)
            await until(lambda: has(back, *parts))
            with pytest.raises(PeerRefusedError, match="one request a minute"):
                await back.peer._link.ask(
                    back.peer._link.subjects.want(sender.uuid), back.peer._context.members[sender.uuid], "want", {}
                )

    run(work())


def test_contracts_hold_on_both_sides(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 1, **PLAIN) as started:
            admin = started.admin
            careless = await started.join(send_failure_action=FailureAction.ALLOW, accepts_contracts=True)
            careful = await started.join(accepts_contracts=True)
            await admin.peer.set_contract(["COUNT(age) >= 35"])
            await until(lambda: all(node.peer.record.terms.contract.counter for node in started.nodes))
            careless.peer.local_project.learn(some_rows(30, 1))
            careful.peer.local_project.learn(some_rows(20, 2))
            await pulse(started)
            await tick(started)
            await until(lambda: admin.peer.statistics.receive_contract_errors.get(careless.uuid, 0) >= 1)
            assert careful.peer.statistics.send_contract_errors >= 1
            assert "Contract validation failed: COUNT(age) >= 35" in careful.log()
            assert "Sync sent" not in careful.log(LogKind.SYNC)
            assert not has(admin, some_rows(30, 1)), "what breaks the contract is not merged"
            careless.peer.local_project.learn(some_rows(20, 3))
            await tick(started)
            await until(lambda: has(admin, some_rows(30, 1), some_rows(20, 3)))

    run(work())


def test_exploration_is_for_those_who_are_allowed(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, **PLAIN) as started:
            rows = some_rows(50, 1)
            shown = started.nodes[1]
            shown.peer.local_project.learn(rows)
            ask = started.nodes[2].peer.explore
            with pytest.raises(PeerRefusedError, match="does not allow"):
                await ask(shown.uuid, "univariate", {"feature": "age"})
            await shown.peer.allow_explore(True)
            few = started.nodes[0]
            few.peer.local_project.learn(some_rows(7, 2))
            await few.peer.allow_explore(True)
            with pytest.raises(PeerRefusedError, match="expected rows that may be shown, got none"):
                await ask(few.uuid, "univariate", {"feature": "age"})
            found = (await ask(shown.uuid, "univariate", {"feature": "age"}))["univariate"]
            assert found["count"] == 50
            assert found["mean"] == pytest.approx(rows["age"].mean())
            shown.peer.local_project.learn(some_rows(3, 3))
            again = (await ask(shown.uuid, "univariate", {"feature": "age"}))["univariate"]
            assert again == found, "three more rows do not show"
            found = await ask(shown.uuid, "correlation", {"first": "age", "second": "weight"})
            assert found["correlation"] == pytest.approx(np.corrcoef(rows["age"], rows["weight"])[0, 1])
            for function, arguments in (("rows", {}), ("univariate", {"first": "age"}), ("univariate", {"feature": "nobody"})):
                with pytest.raises(PeerRefusedError):
                    await ask(shown.uuid, function, arguments)
            with pytest.raises(FederationValueError):
                await ask("0" * 32, "univariate", {"feature": "age"})

    run(work())


def test_a_removed_peers_rows_go_with_it_and_a_request_brings_everything(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, **PLAIN) as started:
            parts = [some_rows(count, count) for count in (40, 30, 20)]
            for node, part in zip(started.nodes, parts, strict=True):
                node.peer.local_project.learn(part)
            await pulse(started)
            await tick(started)
            await until(lambda: all(has(node, *parts) for node in started.nodes))
            await started.admin.peer.remove_peer(started.nodes[2].uuid)
            await until(lambda: all(has(node, *parts[:2]) for node in started.nodes[:2]))
            for node in started.nodes:
                node.clock.offset_seconds = 61
            before = started.nodes[1].log(LogKind.SYNC).count("Sync sent, whole")
            await started.admin.peer.request_full_sync()
            await until(lambda: started.nodes[1].log(LogKind.SYNC).count("Sync sent, whole") > before)

    run(work())
