"""Federations with rounds under masks, over a real nats-server: the results, and when there is none."""

import numpy as np
import pytest
from nats_broker import run
from peer_driver import SCHEMA, federation, pooled, pulse, some_rows, synchronise, until
from test_round_integers import exact, rounded, steps

from pet.errors import (
    FederationStateError,
    FederationValueError,
    NotAdministratorError,
    TooSoonError,
)
from pet.federation.formats.csv_table import CsvTable
from pet.federation.peer.link import Turns
from pet.federation.peer.outcome import OutcomeKind
from pet.federation.records import FailureAction, LogKind, ProjectKind
from pet.federation.runtime import HeldBack
from pet.federation.statistics.analysis import covariance, linear_regression
from pet.federation.statistics.statistics import Statistics


def learn(started, counts):
    parts = [some_rows(count, seed) for seed, count in enumerate(counts)]
    for node, part in zip(started.nodes, parts, strict=True):
        if len(part["age"]):
            node.peer.local_project.learn(part)
    return parts


def require_pooled(started, parts):
    expected = Statistics.of(pooled(*parts), SCHEMA)
    # In Python's integers: of every peer's own numbers, rounded once.
    own = [rounded(node.peer.local_project.snapshot()) for node in started.nodes]
    totals = [sum(each) * step for each, step in zip(zip(*own, strict=True), steps(SCHEMA), strict=True)]
    for node in started.nodes:
        merged = node.peer.federated_project.snapshot()
        assert merged.rows == expected.rows
        assert merged == started.admin.peer.federated_project.snapshot(), "to the last bit, at who led as at who was sent it"
        assert merged.masked_peers == len(started.nodes)
        assert exact(merged) == totals
        np.testing.assert_allclose(merged.values, expected.values, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(covariance(merged), covariance(expected), rtol=1e-9)
        fit, pooled_fit = (linear_regression(one, "weight") for one in (merged, expected))
        np.testing.assert_allclose(fit.coefficients, pooled_fit.coefficients, rtol=1e-9)
        np.testing.assert_allclose(fit.standard_errors, pooled_fit.standard_errors, rtol=1e-9)


@pytest.mark.parametrize("counts", [(40, 300, 8), pytest.param((9, 8, 20, 100, 13, 11, 40, 10, 8, 60), marks=pytest.mark.long)])
def test_all_peers_have_the_pooled_statistics(broker, tmp_path, counts):
    async def work():
        async with federation(broker.url, tmp_path, len(counts)) as started:
            parts = learn(started, counts)
            await pulse(started)
            await synchronise(started)
            require_pooled(started, parts)
            assert [node.log() for node in started.nodes] == [""] * len(counts)
            assert [node.peer.statistics.send_count for node in started.nodes] == [1] * len(counts)

    run(work())


def test_a_second_round_has_what_two_peers_learned_since_and_forgot(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path) as started:
            parts = learn(started, (40, 50, 60))
            await pulse(started)
            await synchronise(started)
            more = some_rows(20, 9)
            started.nodes[1].peer.local_project.learn(more)
            started.nodes[2].peer.local_project.forget(parts[2])
            started.nodes[2].peer.local_project.learn(some_rows(10, 10))
            await synchronise(started)
            require_pooled(started, [parts[0], parts[1], more, some_rows(10, 10)])

    run(work())


def test_rounds_that_would_give_somebody_away_are_refused(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            admin, bob, carol, dave = started.nodes
            learn(started, (20, 0, 30, 7))
            await pulse(started)

            async def refused(problem):
                before = [node.log().count(problem) for node in started.nodes]
                await admin.peer._syncs.leadership.lead()
                assert [node.log().count(problem) for node in started.nodes] == [count + 1 for count in before], "all know why"

            await refused("contributing peers: expected at least 3, got 2")
            assert dave.peer.local_project.held_back == HeldBack(rows=7, least=8)
            bob.peer.local_project.learn(some_rows(10, 5))
            await synchronise(started)
            assert admin.peer.federated_project.row_count == 60
            bob.peer.local_project.learn(some_rows(30, 7))
            await refused("expected 2 or more peers to change together")
            # One row more at another is no change that anybody may see, so the sum would still be bob's alone.
            carol.peer.local_project.learn(some_rows(1, 8))
            await refused("expected 2 or more peers to change together")
            assert carol.peer.local_project.held_back == HeldBack(rows=1, least=8)
            carol.peer.local_project.learn(some_rows(7, 9))
            await synchronise(started)
            assert admin.peer.federated_project.row_count == 98
            lines = admin.log()
            assert (await admin.peer._syncs.leadership.lead()).kind is OutcomeKind.NOTHING_NEW
            assert "Nothing new" not in dave.log(LogKind.SYNC), "a tick without news is nobody's business"
            await admin.peer._syncs.leadership.lead(is_manual=True)
            assert "Nothing new to merge" in dave.log(LogKind.SYNC)
            assert admin.log() == lines

    run(work())


def test_a_peer_below_the_minimum_contributes_once_its_own_user_lowers_it(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, (40, 30, 4))
            await pulse(started)
            poor = started.nodes[2]
            assert (await started.admin.peer._syncs.leadership.lead()).text.endswith("expected at least 3, got 2")
            await poor.peer.set_least_rows(4)
            poor = await started.restart(poor)
            await until(lambda: poor.peer.is_running)
            await synchronise(started)
            assert started.admin.peer.federated_project.row_count == 74

    run(work())


def test_a_contract_is_not_evaluated_on_what_a_peer_contributes(broker, tmp_path):
    """Taking part or not would show what it says of the rows of that peer alone."""

    async def work():
        async with federation(broker.url, tmp_path, 1) as started:
            for _ in range(2):
                await started.join(accepts_contracts=True)
            learn(started, (40, 30, 10))
            with pytest.raises(NotAdministratorError):
                await started.nodes[1].peer.set_contract(["COUNT(age) >= 20"])
            with pytest.raises(FederationValueError, match="nobody"):
                await started.admin.peer.set_contract(["COUNT(nobody) >= 20"])
            await started.admin.peer.set_contract(["COUNT(age) >= 20"])
            poor = started.nodes[2]
            await until(lambda: poor.peer.record.terms.contract.counter == 1)
            await pulse(started)
            await synchronise(started)
            assert [node.log() for node in started.nodes] == [""] * 3
            assert poor.peer.statistics.send_contract_errors == 0
            assert started.admin.peer.federated_project.row_count == 80

    run(work())


def test_what_a_peer_does_with_an_aggregate_against_the_contract_is_its_own_choice(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 1) as started:
            strict = await started.join(accepts_contracts=True)
            lax = await started.join(receive_failure_action=FailureAction.ALLOW, accepts_contracts=True)
            learn(started, (40, 30, 30))
            await started.admin.peer.set_contract(["COUNT(age) < 50"])
            await until(lambda: all(node.peer.record.terms.contract.counter for node in started.nodes))
            await pulse(started)
            await synchronise(started, nodes=[lax])
            assert lax.peer.federated_project.row_count == 100
            await until(lambda: strict.peer.statistics.receive_count == 1)
            with pytest.raises(FederationStateError, match="finished round"):
                assert strict.peer.federated_project
            for node in (strict, lax):
                assert node.peer.statistics.receive_contract_errors == {started.admin.uuid: 1}

    run(work())


def test_ticks_come_by_the_schedule(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, (40, 50, 60))
            with pytest.raises(NotAdministratorError):
                await started.nodes[1].peer.new_schedule("m1")
            with pytest.raises(FederationValueError, match="schedule"):
                await started.admin.peer.new_schedule("s1")
            await started.admin.peer.new_schedule("m1")
            await until(lambda: all(node.peer.record.terms.schedule.text == "m1" for node in started.nodes))
            # A second before the next minute, by everybody's clock.
            for node in started.nodes:
                node.clock.offset_seconds = 59 - started.admin.clock.now_seconds() % 60
            await pulse(started)
            await until(lambda: all(node.rounds() == 1 for node in started.nodes))

    run(work())


def test_models_are_averaged_by_weight(broker, tmp_path):
    async def work():
        options = {"kind": ProjectKind.MODEL, "schema": '{"length":5,"bound":10,"max_weight":3}'}
        async with federation(broker.url, tmp_path, **options) as started:
            with pytest.raises(FederationStateError, match="statistics"):
                assert started.admin.peer.federated_project
            with pytest.raises(FederationStateError, match="none yet"):
                started.admin.peer.global_model()
            await pulse(started)
            for number, bad in (
                (1, np.zeros(4)),
                (1, np.full(5, np.nan)),
                (1, np.full(5, 2e4)),
                (0, np.zeros(5)),
                (2e6, np.zeros(5)),
            ):
                with pytest.raises(FederationValueError):
                    await started.admin.peer.set_model(bad, number)
            for number in (1, 2):
                models = [np.arange(5.0) * number + place for place in range(3)]
                for weight, (node, model) in enumerate(zip(started.nodes, models, strict=True), 1):
                    await node.peer.set_model(model, weight)
                await synchronise(started)
                for node in started.nodes:
                    average, rounds = node.peer.global_model()
                    assert rounds == number
                    np.testing.assert_allclose(average, np.average(models, axis=0, weights=[1, 2, 3]), atol=2e-6)

    run(work())


def test_the_schema_may_come_from_the_admins_first_rows(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, schema=None) as started:
            with pytest.raises(FederationStateError, match="none yet"):
                started.nodes[1].peer.local_project.learn(some_rows(5, 1))
            started.admin.peer.local_project.learn(some_rows(500, 1))
            await until(lambda: all(node.peer.record.terms.schema for node in started.nodes))
            for node in started.nodes[1:]:
                node.peer.local_project.learn(some_rows(50, 2))
            await pulse(started)
            await synchronise(started)
            assert started.nodes[2].peer.federated_project.row_count == 600

    run(work())


def test_what_a_round_costs_no_peer_sees(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, (40, 50, 60))
            await pulse(started)
            await synchronise(started)
            for node in started.nodes:
                with pytest.raises(FederationStateError, match="SMPC"):
                    await node.peer.explore(started.nodes[1].uuid, "univariate", {"feature": "age"})
                assert node.storage.load_state("sent") is None
            assert "with 3 peers" in started.nodes[2].log(LogKind.SYNC)
            assert started.nodes[2].log(LogKind.SYNC).count("A single update can be read by any 2 of ") == 1

    run(work())


def test_any_peer_may_ask_for_a_round_once_a_minute(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, (40, 50, 60))
            eager = started.nodes[2]
            with pytest.raises(FederationStateError, match="pulses"):
                await eager.peer.request_full_sync()
            await pulse(started)
            await pulse(started)  # changes nothing
            await eager.peer.request_full_sync()
            await until(lambda: all(node.rounds() == 1 for node in started.nodes))
            with pytest.raises(TooSoonError, match="one request a minute") as refused:
                await eager.peer.request_full_sync()
            assert 0 < refused.value.retry_seconds <= 60
            eager.peer._manual_syncs = Turns(eager.clock.now_seconds, "sync")  # a peer that keeps no count of its own
            with pytest.raises(TooSoonError, match="one request a minute"):
                await eager.peer.request_full_sync()
            await eager.peer.stop_pulse()
            await eager.peer.stop_pulse()
            assert not eager.peer.record.is_pulsing

    run(work())


def test_models_and_averages_survive_a_restart(broker, tmp_path):
    async def work():
        options = {"kind": ProjectKind.MODEL, "schema": '{"length":3}'}
        async with federation(broker.url, tmp_path, **options) as started:
            await pulse(started)
            models = [np.array([1.0, 2, number]) for number in range(3)]
            for node, model in zip(started.nodes, models, strict=True):
                await node.peer.set_model(model, 1)
            again = await started.restart(started.nodes[2])
            await until(lambda: again.peer.is_running)
            await synchronise(started)
            again = await started.restart(again)
            average, rounds = again.peer.global_model()
            assert rounds == 1
            np.testing.assert_allclose(average, [1, 2, 1])
            with pytest.raises(FederationValueError, match="statistics"):
                await started.admin.peer.set_contract(["COUNT(a) > 1"])

    run(work())


def test_rows_may_come_as_csv_and_go_again(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 1) as started:
            local = started.admin.peer.local_project
            assert local.learn(CsvTable(b"weight,age,ill,note\n70,50,1,x\n80,60,0,y")) == 2
            assert local.row_count == 2
            assert list(local.features) == ["age", "ill", "weight"]
            assert local.univariate("age")["mean"] == pytest.approx(55)
            assert np.isnan(local.univariate("ill")["median"])
            assert local.covariance("age", "weight") == pytest.approx(25)
            with pytest.raises(FederationValueError, match="line 3, column 3, feature ill"):
                local.learn(CsvTable(b"weight,age,ill\n70,50,1\n70,50,2"))
            assert local.forget({"age": [50.0, 60.0], "ill": [1.0, 0.0], "weight": [70.0, 80.0]}) == 2
            assert local.row_count == 0

    run(work())
