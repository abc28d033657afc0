"""Peers of a federation in this process, each with a store of its own, against a real nats-server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pet.federation.formats.encoding import encode_base64
from pet.federation.peer.clock import SystemClock
from pet.federation.peer.nats_runtime import NatsFederationRuntime
from pet.federation.peer.peer import NatsPeer
from pet.federation.records import Confirm, FederationRecord, FederationTerms, LogKind, PeerKeys, ScheduleRecord
from pet.federation.server.store import FederationStore, PeerStorage
from pet.federation.statistics.feature import Feature, Kind
from pet.federation.statistics.schema import Schema
from pet.pet1.ledger import RoundLedger
from pet.secret import Secret
from pet.transports.nats import NatsSettings, generate_federation_id

SCHEMA = Schema(
    (
        Feature(name="age", centre=50, scale=20),
        Feature(name="ill", kind=Kind.BINARY),
        Feature(name="weight", centre=70, scale=15, edges=(50.0, 70.0, 90.0)),
    )
)
LIFESPAN_SECONDS = 7200


def some_rows(count: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    age = random.normal(50, 12, count)
    return {
        "age": age,
        "ill": (random.random(count) < 0.3).astype(float),
        "weight": 60 + 0.3 * age + random.normal(0, 5, count),
    }


def pooled(*parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


async def until(condition: Callable[[], Any], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


class FixedClock(SystemClock):
    """A clock whose error can be changed."""

    offset_seconds = 0.0

    def now_seconds(self) -> float:
        return super().now_seconds() + self.offset_seconds


@dataclass
class Node:
    """A peer with its store and its clock."""

    peer: NatsPeer
    store: FederationStore
    storage: PeerStorage
    clock: FixedClock
    folder: Path | None

    @property
    def uuid(self) -> str:
        return self.peer.record.keys.uuid

    def log(self, kind: LogKind = LogKind.ERROR) -> str:
        return "\n".join(self.storage.log_lines(kind))

    def rounds(self) -> int:
        return self.log(LogKind.SYNC).count("Sync completed")


@dataclass
class Federation:
    """Starts peers, and closes all of them at the end."""

    url: str
    folder: Path
    phase_seconds: float = 5.0
    confirm: Confirm | None = Confirm.ADMIN
    broker_options: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, Any] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    least_changed: int | None = None

    def runtime(self, clock: FixedClock) -> NatsFederationRuntime:
        return NatsFederationRuntime(
            clock, phase_seconds=self.phase_seconds, confirm=self.confirm, least_changed=self.least_changed
        )

    @property
    def admin(self) -> Node:
        return self.nodes[0]

    def access(self) -> NatsSettings:
        return NatsSettings(hosts=(self.url,), request_timeout_seconds=5, **self.broker_options)

    async def create(self) -> Node:
        keys = PeerKeys.generate()
        terms = FederationTerms(
            federation_id=generate_federation_id(),
            name="tests",
            secret_key=Secret(encode_base64(os.urandom(16))),
            admin=keys.identity("admin"),
            schedule=ScheduleRecord(text="d1"),
            schema=SCHEMA.to_json(),
        )
        record = FederationRecord(
            customer_id="c1",
            project_id="admin",
            terms=replace(terms, **self.terms),
            keys=keys,
            nats=self.access(),
            is_admin=True,
            peers=(keys.identity("admin"),),
        )
        return await self._add(record, None)

    def invite(self, lifespan_seconds: float = LIFESPAN_SECONDS) -> Secret:
        token = os.urandom(32).hex()
        self.admin.storage.issue_token(token, os.urandom(16), self.admin.clock.now_seconds() + lifespan_seconds)
        return Secret(token)

    async def join(self, token: Secret | None = None, *, store: FederationStore | None = None, **changes: Any) -> Node:
        keys = PeerKeys.generate()
        record = FederationRecord(
            customer_id="c1",
            project_id=f"peer{len(self.nodes)}",
            terms=self.admin.peer.record.terms,
            keys=keys,
            nats=self.access(),
            is_admin=False,
            peers=(),
        )
        return await self._add(replace(record, **changes), token or self.invite(), store)

    async def restart(self, node: Node) -> Node:
        """End a peer and start it again from its store, as after the death of its process."""
        await node.peer.close()
        node.store.close()
        store = FederationStore(node.folder, node.clock.now_seconds)
        ((record, storage),) = store.peers()
        peer = await self.runtime(node.clock).restore(record, storage)
        again = Node(peer, store, storage, node.clock, node.folder)
        self.nodes[self.nodes.index(node)] = again
        return again

    async def close(self) -> None:
        for node in self.nodes:
            await node.peer.close()
            node.store.close()

    async def _add(self, record: FederationRecord, token: Secret | None, store: FederationStore | None = None) -> Node:
        clock, folder = FixedClock(), self.folder / record.project_id
        store = store or FederationStore(folder, clock.now_seconds)
        storage = store.add(record, persist=True)
        try:
            runtime = self.runtime(clock)
            peer = await (runtime.create(record, storage) if token is None else runtime.join(record, token, storage))
        except BaseException:
            store.close()
            raise
        storage.confirm()
        node = Node(peer, store, storage, clock, folder)
        self.nodes.append(node)
        return node


@asynccontextmanager
async def federation(url: str, folder: Path, peers: int = 3, **options: Any) -> AsyncIterator[Federation]:
    """A federation of `count` peers, none of them pulsing yet; who needs no confirmed members takes the admin's word."""
    phase_seconds, confirm = options.pop("phase_seconds", 5.0), options.pop("confirm", Confirm.ADMIN)
    broker_options = options.pop("broker_options", {})
    started = Federation(url, folder, phase_seconds, confirm, broker_options, terms=options)
    try:
        await started.create()
        for _ in range(peers - 1):
            await started.join()
        yield started
    finally:
        await started.close()


def entries_of(node: Node) -> dict[int, Any]:
    """The rounds in a peer's ledger, by number."""
    state = node.storage.load_state("pet1.ledger")
    return {} if state is None else RoundLedger.decode(state).entries


async def pulse(started: Federation) -> None:
    """Let all peers pulse; returns when each has caught up, so that none asks for what the test does next."""
    for node in started.nodes:
        await node.peer.start_pulse()
    await until(lambda: not any(node.peer._syncs._tasks for node in started.nodes))


async def synchronise(started: Federation, *, nodes: list[Node] | None = None) -> None:
    """One round at the admin's request; waits until everybody has its aggregate."""
    waiting = started.nodes if nodes is None else nodes
    before = {node.uuid: node.rounds() for node in waiting}
    started.admin.peer._syncs.pulse.beat_now()  # what a request does, as often as a test likes
    try:
        await until(lambda: all(node.rounds() > before[node.uuid] for node in waiting))
    except AssertionError as error:
        logs = "\n".join(f"{node.peer.record.project_id} {node.uuid}:\n{node.log()}" for node in started.nodes)
        raise AssertionError(f"{error}:\n{logs}") from None
