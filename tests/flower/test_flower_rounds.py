"""Rounds of Flower with masks equal rounds without, with nodes that drop out, for every strategy that takes a weighted mean."""

import numpy as np
import pytest

pytest.importorskip("flwr", reason="without Flower (.ci/run runs these tests in an environment that has it)")

from digits_app import initial_arrays, make_app
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi
from local_grid import LocalGrid

from pet.flower import PetMod, SecureAggregation, pet_mod
from pet.plan import Plan

COUNT = 10
START = {name: array.numpy() for name, array in initial_arrays().items()}


def node_configs(count=COUNT):
    return [{"partition-id": index, "num-partitions": count} for index in range(count)]


def run(strategy, mods, is_lost=lambda _node, _stage: False, rounds=3, count=COUNT, arrays=None):
    """Return the arrays after each round, the metrics of training, and the grid."""
    grid = LocalGrid(make_app(mods), node_configs(count), is_lost)
    arrays, history, metrics = arrays or initial_arrays(), [], []
    for number in range(1, rounds + 1):
        replies = grid.send_and_receive(strategy.configure_train(number, arrays, ConfigRecord(), grid))
        new, found = strategy.aggregate_train(number, replies)
        arrays = new or arrays
        history.append({name: array.numpy() for name, array in arrays.items()})
        metrics.append(None if found is None else dict(found))
    return history, metrics, grid


def lost_updates(*nodes):
    """Return which nodes are lost while they train, in plain rounds and in masked ones alike."""
    return lambda node, stage: stage in ("train", "update") and node - 1000 in nodes


STRATEGIES = {
    "FedAvg": FedAvg,
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedAvgM": lambda: FedAvgM(server_momentum=0.9),
    "FedAdam": lambda: FedAdam(eta=0.01),
    "FedYogi": lambda: FedYogi(eta=0.01),
    "FedAdagrad": lambda: FedAdagrad(eta=0.01),
}


def largest_difference(one, other):
    """Return the largest difference of a float in any round."""
    return max(
        float(np.abs(left[name].astype(np.float64) - right[name]).max())
        for left, right in zip(one, other, strict=True)
        for name in START
        if name != "steps"
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_masked_rounds_equal_plain_ones(name):
    is_lost = lost_updates(3, 8)
    plain, plain_metrics, _ = run(STRATEGIES[name](), [], is_lost)
    masked, metrics, _ = run(SecureAggregation(STRATEGIES[name](), max_weight=300), [pet_mod], is_lost)
    assert largest_difference(plain, masked) < 1e-6
    for one, other in zip(plain_metrics, metrics, strict=True):
        assert one.keys() == other.keys()
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)


def test_z64_gives_the_digits_of_float64():
    """Eight bytes a weight, for models that have that many digits."""
    exact = {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in START.items()}
    arrays, is_lost = ArrayRecord({name: Array(value) for name, value in exact.items()}), lost_updates(3, 8)
    plain, _, _ = run(FedAvg(), [], is_lost, arrays=arrays)
    masked, metrics, _ = run(SecureAggregation(FedAvg(), max_weight=300, field="z64"), [pet_mod], is_lost, arrays=arrays)
    assert metrics[0] is not None
    assert masked[-1]["w1"].dtype == np.float64
    assert 0 < largest_difference(plain, masked) < 1e-12


def test_a_float32_model_may_take_z64_too():
    plain, _, _ = run(FedAvg(), [], rounds=1)
    masked, _, _ = run(SecureAggregation(FedAvg(), max_weight=300, field="Z64"), [pet_mod], rounds=1)
    assert masked[-1]["w1"].dtype == np.float32
    assert largest_difference(plain, masked) < 1e-7


def test_integers_come_back_in_their_dtype():
    masked, metrics, _ = run(SecureAggregation(FedAvg(), max_weight=300), [pet_mod])
    plain, plain_metrics, _ = run(FedAvg(), [])
    assert masked[-1]["steps"].dtype == np.int64
    assert abs(int(masked[-1]["steps"]) - float(plain[-1]["steps"])) <= 1.5  # rounded in each of three rounds
    assert [each["train_loss"] for each in metrics] == pytest.approx([each["train_loss"] for each in plain_metrics], abs=1e-5)


def test_updates_are_hidden_and_hardly_larger_than_plain_ones():
    _, _, plain = run(FedAvg(), [], rounds=1)
    _, _, masked = run(SecureAggregation(FedAvg(), max_weight=300), [pet_mod], rounds=1)
    sizes = {node: size for node, stage, size, _ in plain.answers if stage == "train"}
    updates = [(node, size, answer) for node, stage, size, answer in masked.answers if stage == "update"]
    assert len(updates) == COUNT
    for node, size, answer in updates:
        assert size < sizes[node] + 3000  # the sealed part, and 16 metrics
        assert set(answer.content) == {"pet", "pet-bytes"}
        assert set(answer.content["pet"]) == {"layout", "metrics", "arrays-key", "metrics-key"}


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize(("stage", "most"), [("sum", 1), ("check", 1), ("sum2", 2)])
def test_members_may_be_lost_as_far_as_the_plan_says(stage, most, lost):
    gone = set()

    def is_lost(node, at):
        if at == stage and len(gone) < lost:
            gone.add(node)
        return at == stage and node in gone

    history, metrics, _ = run(SecureAggregation(FedAvg(), max_weight=300), [pet_mod], is_lost, rounds=1)
    if lost <= most:
        plain, _, _ = run(FedAvg(), [], rounds=1)
        assert largest_difference(history, plain) < 1e-6
    else:
        assert metrics == [None]
        assert largest_difference(history, [START]) == 0


def test_too_few_updates_are_no_sum():
    history, metrics, grid = run(SecureAggregation(FedAvg(), max_weight=300), [pet_mod], lost_updates(*range(8)), rounds=2)
    assert metrics == [None, None]
    assert "sum2" not in grid.stages()
    assert largest_difference(history, [START, START]) == 0


def test_a_smaller_committee():
    """Two of four read: as strong as three shares of SecAgg+, of which two reconstruct."""
    plan = Plan(groups=1, members=4, threshold=2, quorum=3)
    strategy = SecureAggregation(FedAvg(), max_weight=300, plan=plan)
    _, metrics, grid = run(strategy, [pet_mod], lambda node, stage: node == 1000 and stage != "identify", rounds=1)
    assert metrics[0] is not None
    assert len({node for node, stage, _, answer in grid.answers if stage == "sum2" and not answer.has_error()}) in (3, 4)
    few = SecureAggregation(FedAvg(), max_weight=300, plan=plan)
    assert run(few, [pet_mod], rounds=1, count=3)[1] == [None]


def test_a_member_goes_on_from_its_stored_state_in_any_process():
    """Every message comes to a mod of its own, as where every message is a process."""
    mods = iter([PetMod() for _ in range(100)])
    app = make_app([lambda message, context, call_next: next(mods)(message, context, call_next)])
    strategy = SecureAggregation(FedAvg(), max_weight=900)
    grid = LocalGrid(app, node_configs(4))
    replies = grid.send_and_receive(strategy.configure_train(1, initial_arrays(), ConfigRecord(), grid))
    assert strategy.aggregate_train(1, replies)[0] is not None
    assert grid.stages().count("sum2") == 4


def test_a_node_that_comes_later_takes_part_from_then_on():
    strategy = SecureAggregation(FedAvg(), max_weight=1000)
    grid = LocalGrid(make_app([pet_mod]), node_configs(5))
    late = grid.contexts.pop(1004)
    for number, updates in ((1, 4), (2, 9)):
        replies = grid.send_and_receive(strategy.configure_train(number, initial_arrays(), ConfigRecord(), grid))
        assert strategy.aggregate_train(number, replies)[0] is not None
        assert grid.stages().count("update") == updates
        grid.contexts[1004] = late


def test_evaluation_is_untouched():
    strategy = SecureAggregation(FedAvg(), max_weight=300)
    grid = LocalGrid(make_app([pet_mod]), node_configs(4))
    replies = grid.send_and_receive(strategy.configure_evaluate(1, initial_arrays(), ConfigRecord(), grid))
    assert 0 <= strategy.aggregate_evaluate(1, replies)["accuracy"] <= 1
