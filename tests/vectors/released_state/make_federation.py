"""Write the stored state of a federation server with three peers that merged their statistics, with the released version.

Run it with the pet of commit b4d43c2 and the folder tests/ of that commit on the path (README.md beside this file says how);
its arguments are the folder to write into and one to work in. It needs nats-server. Keys are drawn at random: a second run
writes another state, with the same statistics.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from federation_rest_server import KEY, OTHER_KEY, Clock, federation_server
from nats_broker import running_broker

from pet.errors import FederationRefusedError
from pet.federation import Client
from pet.federation.nats_runtime import NatsFederationRuntime
from pet.federation.schema import Feature, Schema

#: When it was written, for signatures and for how long invitations are good.
NOW_SECONDS = 1_780_000_000.0
SCHEMA = Schema((Feature(name="x", centre=0, scale=4), Feature(name="y", centre=0, scale=4))).to_json()
#: Seed and number of the rows of each project.
PARTS = {"admin": (1, 30), "one": (2, 40), "two": (3, 50)}


def rows(seed: int, count: int) -> dict[str, np.ndarray]:
    """Return the rows of one peer."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 1, count)
    return {"x": x, "y": 2 * x + random.normal(0, 0.5, count)}


def rows_merged(client: Client, project: str) -> float:
    """Return the number of rows in a project's merged statistics; 0 before there are any."""
    try:
        return client.univariate(project, "x")["count"]
    except FederationRefusedError:
        return 0


def merge(clients: dict[str, Client]) -> None:
    """Let every peer learn its rows, and wait until all have the statistics of all."""
    for project, client in clients.items():
        client.learn(project, rows(*PARTS[project]))
        client.start_pulse(project)
    clients["two"].sync_now("two")
    total = sum(count for _, count in PARTS.values())
    deadline = time.monotonic() + 60
    while not all(rows_merged(client, project) == total for project, client in clients.items()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def main(target: Path, work: Path) -> None:
    """Write the state and what it holds."""
    clock = Clock(NOW_SECONDS)
    with (
        running_broker(work / "broker") as broker,
        federation_server(work / "state", runtime=NatsFederationRuntime(), clock=clock) as url,
        Client(url, "c1", KEY, clock=clock) as admin,
        Client(url, "c2", OTHER_KEY, clock=clock) as peer,
    ):
        admin.create("admin", "f", nats_hosts=broker.url, fed_schema=SCHEMA)
        for project in ("one", "two"):
            peer.join(project, *admin.invite("admin"))
        clients = {"admin": admin, "one": peer, "two": peer}
        merge(clients)
        admin.set_contract("admin", ["COUNT(x) > 5"])
        invitation, password = admin.invite("admin", lifespan_hours=24)
        expected = {
            "now_seconds": NOW_SECONDS,
            "invitation": invitation,
            "password": password.reveal(),
            "univariate": admin.univariate("admin", "x"),
            "correlation": admin.correlation("admin", "x", "y"),
            "peers": sorted(admin.info("admin")["peersInfo"]),
            "contract": admin.info("admin")["contract"],
            "parts": PARTS,
        }
    shutil.copytree(work / "state", target / "federation")
    (target / "federation.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
