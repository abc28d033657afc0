"""How long a federation takes to synchronise over NATS on one machine: from the admin's request until all have the aggregate.

Starts a nats-server and all peers in this process, each with its own store, connection and rows, as tests/federation does.
Before each sync every peer learns more rows, as nothing happens without news. The first sync of a federation is not counted: it
pays for what is compiled, imported and connected once. All peers share one process and its lock; on machines of their own they
are faster by that.

    python benchmarks/federation_sync.py [--peers 3 10] [--columns 3] [--repeats 5]
    python benchmarks/federation_sync.py --peers 3 --columns 2000 --repeats 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

TESTS: Final = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "federation")]

from nats_broker import running_broker  # noqa: E402 - found in the folder above
from peer_driver import Federation, federation, pulse  # noqa: E402

from pet.federation.statistics.feature import Feature  # noqa: E402
from pet.federation.statistics.schema import Schema  # noqa: E402

#: Long enough that no phase ends because this machine is slow; what is measured ends by itself.
PHASE_SECONDS: Final = 300.0
LIMIT_SECONDS: Final = 600.0


def learn(started: Federation, schema: Schema, random: np.random.Generator) -> None:
    for node in started.nodes:
        node.peer.local_project.learn(random.normal(size=(schema.least_rows, len(schema))))


async def synchronise(started: Federation) -> tuple[float, float]:
    """Return the seconds of one sync, and the CPU seconds of all peers."""
    before = [node.rounds() for node in started.nodes]
    begin, cpu = time.perf_counter(), time.process_time()
    started.admin.peer._syncs.pulse.beat_now()
    while not all(node.rounds() > count for node, count in zip(started.nodes, before, strict=True)):
        if time.perf_counter() - begin > LIMIT_SECONDS:
            raise TimeoutError("\n".join(node.log() for node in started.nodes))
        await asyncio.sleep(0.005)
    return time.perf_counter() - begin, time.process_time() - cpu


async def measure(url: str, folder: Path, peers: int, columns: int, repeats: int) -> dict[str, Any]:
    schema = Schema(tuple(Feature(name=f"x{place:04}") for place in range(columns)))
    random = np.random.default_rng(peers)
    async with federation(url, folder, peers, phase_seconds=PHASE_SECONDS, schema=schema.to_json()) as started:
        learn(started, schema, random)
        await pulse(started)
        first, _ = await synchronise(started)
        measured = []
        for _ in range(repeats):
            learn(started, schema, random)
            measured.append(await synchronise(started))
        rows = (repeats + 1) * peers * schema.least_rows
        assert all(node.log() == "" and node.peer.federated_project.row_count == rows for node in started.nodes)
    seconds, cpu = (sorted(round(each, 3) for each in column) for column in zip(*measured, strict=True))
    return {
        "peers": peers,
        "columns": columns,
        "numbers": schema.layout.length,
        "median_seconds": statistics.median(seconds),
        "median_cpu_seconds": statistics.median(cpu),
        "seconds": seconds,
        "first_seconds": round(first, 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, nargs="+", default=[3, 10])
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    logging.getLogger("pet.federation").setLevel(logging.ERROR)  # every peer warns that it takes its admin's word
    for peers in options.peers:
        with tempfile.TemporaryDirectory() as name, running_broker(Path(name) / "broker") as broker:
            found = asyncio.run(measure(broker.url, Path(name), peers, options.columns, options.repeats))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
