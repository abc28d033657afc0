"""One peer of a federation as a program: a line in is a command, and a line out its answer (tests/federation_killer.py)."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from peer_driver import Federation, FixedClock, some_rows

from pet.federation.records import Confirm, LogKind
from pet.federation.server.store import FederationStore


async def serve(folder: Path, phase_seconds: float) -> None:
    """Be the peer whose store is in a folder, until there are no more commands."""
    store = FederationStore(folder)
    ((record, storage),) = store.peers()
    started = Federation("", folder, phase_seconds, Confirm.ADMIN)
    peer = await started.runtime(FixedClock()).restore(record, storage)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *arguments = json.loads(line)
        answer: Any = None
        if command == "ready":
            while not (peer.is_running and peer.record.is_pulsing and not peer._syncs._tasks):
                await asyncio.sleep(0.02)
        elif command == "learn":
            peer.local_project.learn(some_rows(*arguments))
            answer = peer.local_project.version
        elif command == "lead":
            answer = (await peer._syncs.leadership.lead()).kind.value
        elif command == "result":
            while (counters := peer._context.counters).aggregate_round < arguments[0]:
                await asyncio.sleep(0.02)
            values = peer.federated_project.snapshot().values.tolist()
            answer = [counters.aggregate_round, counters.aggregate_contributors, values]
        elif command == "log":
            answer = "\n".join(storage.log_lines(LogKind.ERROR))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
