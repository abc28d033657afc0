"""The app of examples/flower with any mods, or none."""

from __future__ import annotations

from typing import Any

import numpy as np
from digits.client_app import evaluate, train
from digits.task import initial_model
from flwr.app import Array, ArrayRecord
from flwr.clientapp import ClientApp


def initial_arrays() -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in initial_model().items()})


def make_app(mods: list[Any]) -> ClientApp:
    app = ClientApp(mods=mods)
    app.train()(train)
    app.evaluate()(evaluate)
    return app
