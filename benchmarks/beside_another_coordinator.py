"""How many messages a second coordinators take, and what CPU one costs them: side by side, the same rounds at each in turn.

    python benchmarks/beside_another_coordinator.py \\
        "old=/path/to/old/.venv/bin/pet coordinator -c {settings}" "new=.venv/bin/pet coordinator -c {settings}" \\
        "rust=/path/to/xaynet/target/release/coordinator -c {redis_settings}" --length 1000 --connections 8 64

Each argument is a name and the command of a coordinator that speaks PET. It is started once, with a settings file of its own,
whose path takes the place of {settings} (pet then keeps its rounds in SQLite) or {redis_settings} (the same, with a
redis-server of its own that syncs each change to the disk). The original, xaynet in Rust, knows only the second; it is made by
`cargo build --release --bin coordinator` in the folder rust/ of a checkout of https://github.com/xaynetwork/xaynet.

All coordinators run all the time, and wait while another one works. Rounds go in turns, a b, b a, ...: whatever else the
machine does meets all of them. All messages of a kind (--kind) are prepared beforehand, then sent over --connections by one
thread that waits for each answer. A line is the median over the rounds of: messages a second; CPU of the coordinator for a
message, and of its redis-server; time and CPU from the last mask to the new model; then the peak of its memory. Below it are
the medians of the ratios to the first coordinator, round by round, with quartiles. The global model of each round is compared
with what it has to be: an update that was lost, or counted twice, shows there.

CPU and memory are read from /proc, so this runs on Linux. The rate limit of pet is lifted through its environment.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import statistics
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
from prepared_requests import Sender, draw_keys, mask_request, sum_request, update_request
from running_coordinators import Coordinator, started

from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.messages import decode_seed_dictionary, decode_sum_dictionary
from pet.model_formats import decode_bincode

#: How many sum participants send a mask, and how many updates there are in rounds that measure Sum messages.
FEW = 3


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many messages of each kind a round has."""

    sums: int
    updates: int
    masks: int

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Counts:
        """Return them for what is measured."""
        if arguments.kind == "sum":
            return cls(sums=arguments.messages, updates=FEW, masks=FEW)
        return cls(sums=FEW, updates=arguments.messages, masks=FEW)


@dataclasses.dataclass
class Result:
    """What a round came to."""

    seconds: float
    cpu: float
    redis_cpu: float
    model_seconds: float
    model_cpu: float


def run_round(coordinator: Coordinator, arguments: argparse.Namespace) -> Result:
    """Run a whole round, and measure one kind of its messages."""
    counts, parameters, measured = Counts.of(arguments), coordinator.next_round(), {}
    sum_keys = draw_keys(parameters, counts.sums, is_sum=True)
    ephemerals = {key.public_key: EncryptionKeyPair.generate() for key in sum_keys}

    def send(kind: str, requests: list[bytes], path: str, is_wanted: Any) -> bytes:
        start_seconds, start_cpu = time.perf_counter(), coordinator.cpu()
        Sender(coordinator.port, requests, arguments.connections).run()
        body = coordinator.wait_for(path, is_wanted)
        cpu = coordinator.cpu()
        measured[kind] = time.perf_counter() - start_seconds, cpu[0] - start_cpu[0], cpu[1] - start_cpu[1]
        return body

    requests = [sum_request(parameters, key, ephemerals[key.public_key]) for key in sum_keys]
    body = send("sum", requests, "/sums", lambda body: len(decode_sum_dictionary(body)) == counts.sums)
    sums = decode_sum_dictionary(body)
    assert sums == {key: pair.public_key for key, pair in ephemerals.items()}, "the sum dictionary is not that of this round"
    update_keys, mean = draw_keys(parameters, counts.updates, is_sum=False), 0.0
    requests = []
    for index, key in enumerate(update_keys):
        share = (index % 7 + 1) / 8
        mean += share / counts.updates
        requests.append(update_request(parameters, key, weights_of(arguments.length) * np.float32(share), sums))
    path = seeds_path(sum_keys[0])
    send("update", requests, path, lambda body: len(decode_seed_dictionary(body)) == counts.updates)
    del requests
    masks = []
    for key in sum_keys[: counts.masks]:
        boxes = decode_seed_dictionary(coordinator.wait_for(seeds_path(key)))
        masks.append(mask_request(parameters, key, ephemerals[key.public_key], boxes))
    send("model", masks, "/params", lambda body: body != coordinator.last_parameters)
    model = decode_bincode(coordinator.wait_for("/model"), np.dtype("f4"))
    error = float(np.abs(model - weights_of(arguments.length).astype(np.float64) * mean).max())
    if error > 1e-6:
        raise SystemExit(f"{coordinator.name}: the global model is wrong by {error:.3g}: updates were lost, or came twice")
    return Result(*measured[arguments.kind], *measured["model"][:2])


def weights_of(length: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the weights that all updates are multiples of."""
    return np.linspace(-1, 1, length, dtype=np.float32)


def seeds_path(key: SigningKeyPair) -> str:
    """Return where the seeds for a sum participant are."""
    return "/seeds?pk=" + urllib.parse.quote(base64.b64encode(key.public_key), safe="")


def show(coordinators: list[Coordinator], results: dict[str, list[Result]], count: int) -> None:
    """Print the medians, and the ratios to the first coordinator."""
    first = results[coordinators[0].name]
    for coordinator in coordinators:
        rows = results[coordinator.name]
        rate = statistics.median(count / row.seconds for row in rows)
        cpu, redis_cpu = (statistics.median(1e3 * value / count for value in values) for values in by_field(rows))
        model = statistics.median(row.model_seconds for row in rows), statistics.median(row.model_cpu for row in rows)
        print(
            f"{coordinator.name:14} {rate:9.1f} messages/s  CPU a message {cpu:8.3f} ms"
            + (f" + Redis {redis_cpu:6.3f} ms" if coordinator.redis_pid is not None else "")
            + f"  last mask to model {model[0]:6.3f} s, CPU {model[1]:6.3f} s  peak {coordinator.peak_megabytes():5.0f} MB"
        )
        if rows is not first:
            faster = [old.seconds / new.seconds for old, new in zip(first, rows, strict=True)]
            cheaper = [new.cpu / old.cpu for old, new in zip(first, rows, strict=True)]
            print(f"{'':14} beside {coordinators[0].name}: {spread(faster)} times the messages/s, {spread(cheaper)} of the CPU")


def by_field(rows: list[Result]) -> tuple[list[float], list[float]]:
    """Return the CPU seconds of coordinators and of redis-servers."""
    return [row.cpu for row in rows], [row.redis_cpu for row in rows]


def spread(ratios: list[float]) -> str:
    """Write a median with its quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("coordinators", nargs="+", metavar="NAME=COMMAND")
    parser.add_argument("--kind", choices=("update", "sum"), default="update", help="what is measured")
    parser.add_argument("--messages", type=int, default=2000, help="of that kind in a round")
    parser.add_argument("--length", type=int, default=1000, help="weights of the model")
    parser.add_argument("--connections", type=int, nargs="+", default=[8])
    parser.add_argument("--rounds", type=int, default=7, help="that are measured; one more comes before them")
    parser.add_argument("--redis-options", default="--appendonly yes --appendfsync always", metavar="OPTIONS")
    return parser.parse_args()


def main() -> None:
    """Measure and report, for one number of connections after the other."""
    arguments = parse()
    commands, numbers = arguments.coordinators, arguments.connections
    settings = dataclasses.asdict(Counts.of(arguments)) | {"length": arguments.length}
    with (
        tempfile.TemporaryDirectory() as folder,
        started(commands, settings, arguments.redis_options, Path(folder)) as coordinators,
    ):
        arguments.connections = numbers[0]
        for coordinator in coordinators:
            run_round(coordinator, arguments)  # so that everything was loaded once
        for connections in numbers:
            arguments.connections = connections
            results: dict[str, list[Result]] = {coordinator.name: [] for coordinator in coordinators}
            for number in range(arguments.rounds):
                for coordinator in coordinators if number % 2 == 0 else reversed(coordinators):
                    results[coordinator.name].append(run_round(coordinator, arguments))
            kind = f"{arguments.messages} {arguments.kind} messages"
            print(f"\n{kind}, {arguments.length} weights, {connections} connections, {arguments.rounds} rounds")
            show(coordinators, results, arguments.messages)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
