# %% [markdown]
# # A coordinator with participants that train
#
# Twelve participants have some pictures of handwritten digits each, and learn to read them together: in each round a
# participant takes the last global model, trains it on its own pictures, and sends it masked. The coordinator learns the mean.
# scikit-learn does the training.
#
# It needs `pip install '.[http]' scikit-learn`. On the command line, `pet coordinator` is the coordinator; here it runs in a
# thread, so that one page has both sides.

# %%
import contextlib
import socket
import threading
import time

import numpy as np
import uvicorn
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.participant.ticks import TickParticipant
from pet.transports.http import HttpTransport

digits = load_digits()
pixels, labels = digits.data / 16, digits.target
order = np.random.default_rng(0).permutation(len(labels))
test, rest = order[:400], order[400:]
parts = np.array_split(rest[:600], 12)
CLASSES, PIXELS = 10, 64
LENGTH = CLASSES * (PIXELS + 1)

# %% [markdown]
# **The coordinator's settings**: how long the model is, who is drawn how often, how long phases wait. Every participant draws
# by itself whether it trains in a round, adds up masks, or rests; the coordinator can verify it.

# %%
window = {"count": {"min": 1, "max": 20}, "time": {"min": 0.5, "max": 10}}
settings = Settings(
    pet={
        "sum": {"prob": 0.4, **window},
        "update": {"prob": 0.95, "count": {"min": 3, "max": 20}, "time": {"min": 2, "max": 10}},
        "sum2": window,
    },
    mask={"group_type": "Prime", "data_type": "F32", "bound_type": "B0", "model_type": "M6"},
    model={"length": LENGTH},
)


@contextlib.contextmanager
def running_coordinator():
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


# %% [markdown]
# **Training** is the participant's own affair: pet sees a vector of weights. Weights times scalar must stay within the bound of
# the mask config, 1 here; with a scalar of 1/12 for each participant that is 12.


# %%
def train(global_model, mine):
    classifier = SGDClassifier(loss="log_loss", alpha=1e-3, random_state=0)
    classifier.partial_fit(pixels[mine], labels[mine], classes=np.arange(CLASSES))
    if global_model is not None:
        classifier.coef_ = global_model[: CLASSES * PIXELS].reshape(CLASSES, PIXELS).astype(np.float64)
        classifier.intercept_ = global_model[CLASSES * PIXELS :].astype(np.float64)
        for _ in range(3):
            classifier.partial_fit(pixels[mine], labels[mine])
    weights = np.concatenate([classifier.coef_.ravel(), classifier.intercept_])
    return np.clip(weights, -12, 12).astype(np.float32)


def accuracy(model):
    scores = pixels[test] @ model[: CLASSES * PIXELS].reshape(CLASSES, PIXELS).T + model[CLASSES * PIXELS :]
    return float(np.mean(scores.argmax(axis=1) == labels[test]))


alone = [accuracy(train(None, mine)) for mine in parts]
print(f"alone: {min(alone):.0%} to {max(alone):.0%} of the test pictures read")

# %% [markdown]
# **Three rounds.** `TickParticipant` does one step of the protocol for each call, so that twelve of them share this loop;
# `Participant` and `AsyncParticipant` bring a loop of their own.

# %%
reached = []
with running_coordinator() as url, contextlib.closing(HttpTransport(url)) as transport:
    participants = [TickParticipant(transport, scalar=1 / 12, threads=1) for _ in parts]
    deadline = time.monotonic() + 120
    model, last = None, None
    while len(reached) < 3:
        assert time.monotonic() < deadline, "no three rounds in two minutes"
        for participant, mine in zip(participants, parts, strict=True):
            participant.tick()
            if participant.should_set_model:
                participant.set_model(train(model, mine))
        model = participants[0].global_model()
        if model is not None and (last is None or not np.array_equal(model, last)):
            last = model
            reached.append(accuracy(model))
            print(f"round {len(reached)}: {reached[-1]:.0%}")
        time.sleep(0.02)

# %% [markdown]
# Together they read more than each of them alone, and nobody's model was seen by anybody else.

# %%
assert reached[-1] > np.mean(alone)
