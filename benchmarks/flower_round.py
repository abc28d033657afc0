"""A whole round of Flower in one process: plain FedAvg, pet, and Flower's own SecAgg+, in turns, in CPU seconds and bytes.

    python benchmarks/flower_round.py --lengths 1e5 1e6 --passes 7

It needs the extra `flower`. Ten clients train for no time at all; all messages are serialised both ways, as over a network,
and every library has one thread. SecAgg+ has three shares, of which two reconstruct. pet runs with a committee of four, of
whom two read, which is as strong as that; and with its default of five, of whom three read. A pass is a round of each, one
after the other, so that other work on the machine slows all of them down alike; ratios are taken within a pass.

Printed by length: median CPU seconds of a round, clients and server together, and the ratio to SecAgg+ (least, median,
largest); the error of the mean; what one client sends with its update, as a member with its share (Sum2), and in plain
FedAvg.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "PET_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "flower"))

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp.strategy import FedAvg, Strategy
from local_grid import LocalGrid

from pet.flower import SecureAggregation, pet_mod
from pet.plan import Plan

CLIENT_COUNT = 10
MAX_WEIGHT = 200
EXAMPLES = [100 + 10 * index for index in range(CLIENT_COUNT)]
NODE_CONFIGS = [{"partition-id": index, "num-partitions": CLIENT_COUNT} for index in range(CLIENT_COUNT)]
TWO_OF_FOUR = Plan(groups=1, members=4, threshold=2, quorum=3)
#: CPU seconds of a round, what came of a model of zeros, and the grid with all answers.
Found = tuple[float, np.ndarray[Any, Any], LocalGrid]


def wrapped(plan: Plan | None) -> SecureAggregation:
    return SecureAggregation(FedAvg(), max_weight=MAX_WEIGHT, plan=plan)


def make_deltas(length: int) -> list[np.ndarray[Any, Any]]:
    return [np.random.default_rng(index).uniform(-0.1, 0.1, length).astype(np.float32) for index in range(CLIENT_COUNT)]


def message_rounds(length: int, strategy: Strategy, mods: list[Any]) -> Iterator[Found]:
    """Yield rounds of a strategy of the Message API."""
    deltas, app = make_deltas(length), ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        trained = message.content["arrays"]["w"].numpy() + deltas[index]
        metrics = MetricRecord({"num-examples": EXAMPLES[index], "loss": 1.0})
        return Message(RecordDict({"arrays": ArrayRecord({"w": Array(trained)}), "metrics": metrics}), reply_to=message)

    grid, number = LocalGrid(app, NODE_CONFIGS), 0
    while True:
        arrays, number = ArrayRecord({"w": Array(np.zeros(length, np.float32))}), number + 1
        grid.answers.clear()
        start = time.process_time()
        replies = grid.send_and_receive(strategy.configure_train(number, arrays, ConfigRecord(), grid))
        new, _ = strategy.aggregate_train(number, replies)
        seconds = time.process_time() - start
        assert new is not None, "a round without a mean"
        yield seconds, new["w"].numpy(), grid


def secagg_rounds(length: int) -> Iterator[Found]:
    """Yield rounds of Flower's SecAgg+, as its documentation sets it up."""
    deltas = make_deltas(length)

    class Client(NumPyClient):
        def __init__(self, index: int) -> None:
            self.index = index

        def fit(self, parameters: Any, config: Any) -> Any:  # noqa: ARG002 - Flower's signature
            return [parameters[0] + deltas[self.index]], EXAMPLES[self.index], {"loss": 1.0}

    def make_client(context: Context) -> Any:
        return Client(int(context.node_config["partition-id"])).to_client()

    workflow, seconds = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2, max_weight=MAX_WEIGHT), []

    def timed(grid: Any, context: Context) -> None:
        start = time.process_time()
        workflow(grid, context)
        seconds.append(time.process_time() - start)

    while True:
        grid = LocalGrid(ClientApp(client_fn=make_client, mods=[secaggplus_mod]), NODE_CONFIGS)
        strategy = LegacyFedAvg(
            fraction_evaluate=0.0,
            min_available_clients=CLIENT_COUNT,
            initial_parameters=ndarrays_to_parameters([np.zeros(length, np.float32)]),
        )
        empty = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
        context = LegacyContext(empty, config=ServerConfig(num_rounds=1), strategy=strategy)
        DefaultWorkflow(fit_workflow=timed)(grid, context)
        (arrays,) = context.state.array_records.values()
        yield seconds[-1], arrays.to_numpy_ndarrays()[0], grid


def exact_mean(length: int) -> np.ndarray[Any, Any]:
    total = sum(count * delta.astype(np.float64) for count, delta in zip(EXAMPLES, make_deltas(length), strict=True))
    return np.asarray(total) / sum(EXAMPLES)


def largest(grid: LocalGrid, stage: str) -> int:
    """Return the bytes of the largest answer of a stage, 0 if there was none."""
    return max((size for _, at, size, _ in grid.answers if at == stage), default=0)


def measure(length: int, passes: int) -> dict[str, Any]:
    """Return what the module says, for one length."""
    kinds: dict[str, Callable[[], Iterator[Found]]] = {
        "plain": lambda: message_rounds(length, FedAvg(), []),
        "pet, 2 of 4": lambda: message_rounds(length, wrapped(TWO_OF_FOUR), [pet_mod]),
        "pet, 3 of 5": lambda: message_rounds(length, wrapped(None), [pet_mod]),
        "secagg": lambda: secagg_rounds(length),
    }
    rounds, exact = {name: make() for name, make in kinds.items()}, exact_mean(length)
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    errors: dict[str, float] = {}
    bytes_sent: dict[tuple[str, str], int] = {}
    for number in range(passes + 1):
        for name, each in rounds.items():
            spent, mean, grid = next(each)
            if number:  # the first one warms up
                seconds[name].append(spent)
            errors[name] = float(np.abs(mean - exact).max())
            for stage in ("train", "update", "sum2") if name != "secagg" else ():
                bytes_sent[name, stage] = largest(grid, stage)
    plain = bytes_sent["plain", "train"]
    found: dict[str, Any] = {"length": length, "plain_bytes": plain, "seconds": {}, "by_secagg": {}, "error": errors}
    for name, spent in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(spent, seconds["secagg"], strict=True)]
        found["seconds"][name] = round(statistics.median(spent), 4)
        found["by_secagg"][name] = [round(each, 3) for each in (min(ratios), statistics.median(ratios), max(ratios))]
        if name.startswith("pet"):
            sent = {stage: bytes_sent[name, stage] for stage in ("update", "sum2")}
            found[name] = {**sent, "update_by_plain": round(sent["update"] / plain, 4)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=float, nargs="+", default=[1e5, 1e6], help="weights of the model")
    parser.add_argument("--passes", type=int, default=7, help="rounds of each that are measured")
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    for length in options.lengths:
        print(json.dumps(measure(int(length), options.passes)), flush=True)


if __name__ == "__main__":
    main()
