"""The ClientApp: trains on the node's own rows. What pet changed is marked."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits.task import LABELS, PIXELS, accuracy, fit, rows_of
from pet.flower import pet_mod

app = ClientApp(mods=[pet_mod])  # before: ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return the model after an epoch on the node's rows."""
    model = {name: array.numpy().copy() for name, array in message.content["arrays"].items()}
    index, count = context.node_config["partition-id"], context.node_config["num-partitions"]
    rows = rows_of(index, count)
    loss = fit(model, PIXELS[rows], LABELS[rows], seed=100 * index + message.content["config"]["server-round"])
    arrays = ArrayRecord({name: Array(np.asarray(value)) for name, value in model.items()})
    metrics = MetricRecord({"num-examples": len(rows), "train_loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Return how well the model does on the node's rows."""
    model = {name: array.numpy() for name, array in message.content["arrays"].items()}
    rows = rows_of(context.node_config["partition-id"], context.node_config["num-partitions"])
    metrics = MetricRecord({"num-examples": len(rows), "accuracy": accuracy(model, rows)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
