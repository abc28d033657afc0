"""Peers and leaders of rounds of pet/1 without a broker: real machines, a real coordinator, and transports in this process."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet.crypto import SigningKeyPair
from pet.federation.peer.peer_steps import AnnouncedRound, PeerSteps
from pet.federation.peer.playing import LedRound, RoundTotal, play
from pet.field_config import FieldConfig
from pet.participant.enrolments import EnrolmentTrust
from pet.pet1.federation import FederationPolicy, enrol_federation
from pet.protocol.pet1_federation_peer import Pet1Peer
from pet.protocol.pet1_participant import RoundTerms
from pet.transports.in_process import InProcessTransport
from pet.transports.pet1_calls import AsyncPet1Calls

LENGTH = 5


class AsyncInProcessTransport(AsyncPet1Calls):
    """`InProcessTransport` for asyncio; counts what is sent, and stops where a test says."""

    def __init__(self, endpoint: Any) -> None:
        self._inner = InProcessTransport(endpoint)

    async def carry_out(self, request: Any, *, verifier: Any = None) -> Any:
        return await asyncio.to_thread(self._inner.carry_out, request, verifier=verifier)

    async def aclose(self) -> None:
        self._inner.close()


@dataclass
class PeerInProcess:
    """A peer: its key, what it keeps, and its machine."""

    key: SigningKeyPair
    policy: FederationPolicy
    disk: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = Pet1Peer(
            signing_key=self.key,
            policy=self.policy,
            entropy=os.urandom,
            store=self.disk.__setitem__,
            terms=RoundTerms(values=None),
            saved=dict(self.disk),
            threads=1,
        )

    def join(self, announced: AnnouncedRound, values: NDArray[Any]) -> PeerSteps:
        now = int(time.time())
        message = self.machine.join(announced.record, announced.enrolment, announced.calls, now)
        return PeerSteps(
            self.machine,
            announced,
            message,
            values,
            1,
            signing_key=self.key,
            trust=EnrolmentTrust(policy=self.policy),
            entropy=os.urandom,
            lock=self.lock,
        )


@dataclass
class FederationInProcess:
    """An admin's key and some peers."""

    admin: SigningKeyPair
    peers: list[PeerInProcess]
    config: FieldConfig
    phase_seconds: float = 30

    @classmethod
    def of(cls, count: int, **options: Any) -> FederationInProcess:
        admin = SigningKeyPair.generate()
        keys = [SigningKeyPair.generate() for _ in range(count)]
        policy = FederationPolicy(admin=admin.public_key, confirmed=frozenset(key.public_key for key in keys))
        peers = [PeerInProcess(key, policy) for key in sorted(keys, key=lambda key: key.public_key)]
        return cls(admin, peers, FieldConfig.parse(f"pet-1/z64,int,models={count}"), **options)

    async def lead(
        self,
        number: int,
        values: Sequence[NDArray[Any]],
        *,
        versions: Sequence[int] | None = None,
        gone: Iterable[PeerInProcess] = (),
    ) -> tuple[RoundTotal, AnnouncedRound]:
        """Call all peers, and lead the round; those that are gone answer the call and then do nothing."""
        called = [
            peer.machine.call(number, version) for peer, version in zip(self.peers, versions or [number] * 99, strict=False)
        ]
        enrolment = enrol_federation(number, int(time.time()) + 60, [peer.key.public_key for peer in self.peers])
        signed = enrolment.sign(self.admin)
        services: list[Any] = []

        def serve(service: Any) -> Any:
            services.append(service)
            return nullcontext()

        async with LedRound(signed, self.config, len(values[0]), self.phase_seconds, serve) as leader:
            announced = AnnouncedRound(record=leader.record, enrolment=signed, calls=b"".join(called))
            transport = AsyncInProcessTransport(services[0].engine)
            async with asyncio.TaskGroup() as group:
                for peer, own in zip(self.peers, values, strict=True):
                    if peer not in gone:
                        steps = peer.join(announced, own)
                        group.create_task(play(steps, transport, lambda: None, peer.notes.append))
                return await leader.result(), announced


def numbers(seed: int) -> NDArray[np.uint64]:
    """Return what a peer sums: integers that three of are below the order."""
    return np.random.default_rng(seed).integers(0, 2**62, LENGTH, dtype=np.uint64)
