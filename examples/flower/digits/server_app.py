"""The ServerApp: a mean of the nodes' models. What pet changed is marked."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits.task import TEST, accuracy, initial_model
from pet.flower import SecureAggregation

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds, and write what came of it."""
    nodes = context.run_config["nodes"]
    strategy = FedAvg(min_train_nodes=nodes, min_available_nodes=nodes, min_evaluate_nodes=nodes)
    strategy = SecureAggregation(strategy, max_weight=900)  # before: without this line
    arrays = ArrayRecord({name: Array(np.asarray(value)) for name, value in initial_model().items()})
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=context.run_config["rounds"])
    model = {name: array.numpy() for name, array in result.arrays.items()}
    found = {
        "accuracy": accuracy(model, TEST),
        "nodes' accuracies": [dict(each)["accuracy"] for each in result.evaluate_metrics_clientapp.values()],
        "metrics": [dict(each) for each in result.train_metrics_clientapp.values()],
    }
    print(f"accuracy on digits that nobody trained with: {found['accuracy']:.3f}")
    if context.run_config["result"]:
        Path(context.run_config["result"]).write_text(json.dumps(found), encoding="utf-8")
