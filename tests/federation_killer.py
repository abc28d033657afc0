"""Kill peers of a federation at random instants, the one that leads among them, and see whether sums stay what they are.

    PYTHONPATH=tests/federation python tests/federation_killer.py --kills 100

Each peer is a process with a store of its own, over a real nats-server; SIGKILL ends one while a round is under way, and it is
started again from what it has stored. After each kill there is an aggregate, and it is the sum of the very rows that it names,
or every peer that runs has the reason in its log; and the next round that nobody disturbs has the rows of all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from fork_server import PROGRAM, start
from nats_broker import running_broker
from peer_driver import SCHEMA, Federation, pooled, some_rows

from pet.federation.records import Confirm
from pet.federation.statistics.statistics import Statistics

PEER = Path(__file__).resolve().parent / "federation" / "peer_process.py"
#: Longer than a round of these peers takes, and short, as each kill before a Check costs as much.
PHASE_SECONDS = 3.0
#: Longer than a round takes, so that kills come in every part of it, and some after it.
_LONGEST_WAIT = 0.8
_DEADLINE_SECONDS = 120.0


class PeerProcess:
    """One peer's process.

    Attributes:
        parts: what it has learned, oldest first.
        versions: how many of the parts each version of its statistics has.
    """

    def __init__(self, folder: Path, uuid: str) -> None:
        self.folder, self.uuid = folder, uuid
        self.parts: list[dict[str, np.ndarray]] = []
        self.versions: dict[int, int] = {}
        self.start()

    def start(self) -> None:
        reading, self._commands = os.pipe()
        self._process = start(PROGRAM, PEER, self.folder, PHASE_SECONDS, stdin=reading)
        os.close(reading)

    def tell(self, *command: Any) -> None:
        os.write(self._commands, (json.dumps(command) + "\n").encode())

    def answer(self) -> Any:
        line = self._process.stdout.readline()
        assert line, f"a peer ended by itself: {self._process.stderr.read()}"
        return json.loads(line)

    def ask(self, *command: Any) -> Any:
        self.tell(*command)
        return self.answer()

    def learn(self, count: int, seed: int) -> None:
        self.parts.append(some_rows(count, seed))
        self.versions[self.ask("learn", count, seed)] = len(self.parts)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()
        os.close(self._commands)


async def _prepare(url: str, folder: Path, count: int) -> list[str]:
    """Make a federation whose peers pulse, and stop all of them; returns their uuids."""
    started = Federation(url, folder, PHASE_SECONDS, Confirm.ADMIN)
    try:
        await started.create()
        for _ in range(count - 1):
            await started.join()
        for node in started.nodes:
            await node.peer.start_pulse()
        return [node.uuid for node in started.nodes]
    finally:
        await started.close()


class Killer:
    """Some peers, the first of which leads.

    Attributes:
        kills: how many there were.
        happened: what came of the rounds that were disturbed.
    """

    def __init__(self, url: str, folder: Path, seed: int, count: int = 4) -> None:
        self._draw = random.Random(seed)
        uuids = asyncio.run(_prepare(url, folder, count))
        self.peers = [PeerProcess(folder / ("admin" if not n else f"peer{n}"), uuid) for n, uuid in enumerate(uuids)]
        for peer in self.peers:
            peer.ask("ready")
        self._seed = self._last = self.kills = 0
        self.happened: Counter[str] = Counter()

    def run(self, kills: int) -> Counter[str]:
        """Kill as often; returns what came of it."""
        while self.kills < kills:
            self._learn()
            # Of two peers that are left there is no sum.
            victims = self._draw.sample(self.peers, self._draw.choice((1, 1, 2)))
            admin, rest = self.peers[0], [peer for peer in self.peers if peer not in victims]
            logs = {peer.uuid: peer.ask("log") for peer in rest}
            admin.tell("lead")
            for victim in victims:
                time.sleep(self._draw.uniform(0, _LONGEST_WAIT))
                victim.kill()
                self.kills += 1
            outcome = "the leader was killed" if admin in victims else admin.answer()
            self.happened[outcome] += 1
            if outcome == "merged":
                self._require_sums(rest)
            elif admin not in victims:
                self._require_reasons(rest, logs)
            for victim in victims:
                victim.start()
                victim.ask("ready")
        self._learn()
        assert self.peers[0].ask("lead") == "merged", self.peers[0].ask("log")
        contributors = self._require_sums(self.peers)
        assert contributors == {peer.uuid: max(peer.versions) for peer in self.peers}, "the last round has all rows of all"
        return self.happened

    def close(self) -> None:
        for peer in self.peers:
            peer.kill()

    def _learn(self) -> None:
        for peer in self.peers:
            self._seed += 1
            peer.learn(10 + self._seed % 7, self._seed)

    def _require_sums(self, peers: list[PeerProcess]) -> dict[str, int]:
        """Require that peers have one aggregate, of the rows that it names."""
        number, contributors, values = self.peers[0].ask("result", self._last + 1)
        self._last = number
        parts = []
        for peer in self.peers:
            if peer.uuid in contributors:
                parts += peer.parts[: peer.versions[contributors[peer.uuid]]]
        assert len(contributors) >= 3
        expected = Statistics.of(pooled(*parts), SCHEMA).values
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9)
        for peer in peers[1:]:
            assert peer.ask("result", number)[2] == values, "to the last bit"
        return contributors

    def _require_reasons(self, peers: list[PeerProcess], before: dict[str, str]) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        for peer in peers:
            while not any(text in peer.ask("log")[len(before[peer.uuid]) :] for text in ("Sync failed", "Sync refused")):
                assert time.monotonic() < deadline, "the reason is in every peer's log"
                time.sleep(0.05)


def kill_peers(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill peers as often; returns what came of it."""
    with running_broker(folder / "broker") as broker:
        killer = Killer(broker.url, folder / "peers", seed)
        try:
            return killer.run(kills)
        finally:
            killer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(dict(kill_peers(Path(folder), arguments.kills, seed)))


if __name__ == "__main__":
    main()
