"""One PET round of a federation over NATS: the leader's coordinator, and a peer's two participants.

The coordinator is that of pet/protocol with the tasks of the manifest in place of chance; it lives for one round. A peer
believes nothing that the leader did not sign: round parameters come with the manifest, the published sum dictionary has to be
the manifest's, and a sum participant adds up masks only if the seeds of all announced updates are there, and of nobody else. So
a leader cannot have seeds encrypted for keys of its own, nor ask for the mask of a few.

Source: docs/spec/federation.md 1.7, 1.9; docs/spec/pet.md 5.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from pet.buffers import Buffer
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.crypto import SUM_TASK, UPDATE_TASK, SigningKeyPair
from pet.errors import RemoteProtocolError, RoundError, TransportError
from pet.federation.peer.enrolment import Manifest, RoundKeys
from pet.federation.statistics.statistics import STATISTICS_MASK_CONFIG
from pet.global_model import GlobalModel
from pet.messages import RoundParameters, Tag, decode_seed_dictionary, decode_sum_dictionary
from pet.participant import AsyncTickParticipant
from pet.protocol.events import Event, MessageAccepted, ModelPublished, RoundFailed, RoundReopened
from pet.protocol.participant_events import MessageDelivered, MessageLate, TaskAbandoned
from pet.protocol.round_settings import RoundSettings
from pet.protocol.strategies import Strategies, take_assigned_task
from pet.protocol.windows import PhaseWindow
from pet.transports.base import AsyncTransport
from pet.transports.nats import AsyncNatsTransport, NatsConnection, NatsServer, NatsSettings, Subjects, connect

#: Between two looks of a participant at what the coordinator has published.
_POLL_SECONDS: Final = 0.1
#: Probabilities that PET wants to see; who has which task is in the manifest.
_PROBABILITY: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """What a round came to."""

    means: NDArray[np.float64]
    scalar_sum: Fraction


class RoundLeader:
    """The coordinator of one round: `async with RoundLeader(...) as leader`, tell the peers, `await leader.result()`.

    Args:
        nats: how to reach the broker; the round has a connection of its own.
        subjects: of the federation.
        manifest: who takes part.
        model_length: numbers in each vector.
        phase_seconds: how long each phase waits for those who were announced.
    """

    def __init__(
        self, nats: NatsSettings, subjects: Subjects, manifest: Manifest, model_length: int, phase_seconds: float
    ) -> None:
        self._nats: Final = nats
        self._subjects: Final = subjects
        self._manifest: Final = manifest
        self._stack: Final = AsyncExitStack()
        self._outcome: asyncio.Future[GlobalModel | str] = asyncio.get_running_loop().create_future()
        sums, updates = len(manifest.sum_peers), len(manifest.enrolments)

        def window(least: int, most: int) -> PhaseWindow:
            return PhaseWindow(min_count=least, max_count=most, min_seconds=0, max_seconds=phase_seconds)

        self._settings: Final = RoundSettings(
            sum_probability=_PROBABILITY,
            update_probability=_PROBABILITY,
            mask_config=STATISTICS_MASK_CONFIG,
            model_length=model_length,
            sum=window(sums, sums),
            update=window(updates, updates),
            sum2=window(1, sums),
        )
        self._engine: CoordinatorEngine | None = None
        self._accepted: Final[set[bytes]] = set()

    async def __aenter__(self) -> Self:
        """Begin the round.

        Raises:
            TransportError: the broker cannot be used.
        """
        engine = CoordinatorEngine(self._settings, strategies=Strategies(check_task=self._manifest.tasks))
        engine.subscribe(self._note_from_any_thread(asyncio.get_running_loop()))
        self._engine = engine
        try:
            connection = await self._stack.enter_async_context(await connect(self._nats, self._manifest.leader))
            service = await self._stack.enter_async_context(CoordinatorService(engine, workers=1))
            # The leader publishes the model itself, signed and encrypted as the federation wants it.
            server = NatsServer(service, connection, self._subjects, creates_streams=False, publishes_model=False)
            await self._stack.enter_async_context(server)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def parameters(self) -> bytes:
        """The encoded round parameters, to be announced with the manifest."""
        assert self._engine is not None, "the round has begun"
        parameters = self._engine.parameters()
        assert parameters is not None, "a service that was started has begun its first round"
        return parameters

    async def result(self) -> RoundResult:
        """Wait for the end of the round.

        Raises:
            RoundError: it failed; says why.
        """
        outcome = await self._outcome
        if isinstance(outcome, str):
            raise RoundError(f"round {self._manifest.round_id}: {outcome}", self._silent_peers())
        means = await asyncio.to_thread(outcome.to_array)
        return RoundResult(means=means.astype(np.float64, copy=False), scalar_sum=outcome.scalar_sum)

    @property
    def has_updates(self) -> bool:
        """Whether the sum phase is over, so that masked vectors may have left their peers."""
        return self._manifest.tasks.sum_keys <= self._accepted

    def _silent_peers(self) -> set[str]:
        """Return who did not send what the phase that failed waited for."""
        sum_keys = self._manifest.tasks.sum_keys
        if not sum_keys <= self._accepted:
            return {one.peer for one in self._manifest.enrolments if one.sum_key in sum_keys - self._accepted}
        return {one.peer for one in self._manifest.enrolments if one.update_key not in self._accepted}

    def _note_from_any_thread(self, loop: asyncio.AbstractEventLoop) -> Callable[[Event], None]:
        def settle(outcome: GlobalModel | str) -> None:
            if not self._outcome.done():
                self._outcome.set_result(outcome)

        def note(event: Event) -> None:
            if isinstance(event, MessageAccepted):
                self._accepted.add(event.participant_public_key)
            elif isinstance(event, ModelPublished):
                loop.call_soon_threadsafe(settle, event.model)
            elif isinstance(event, RoundFailed):
                loop.call_soon_threadsafe(settle, f"{event.reason}: {event.description}")
            elif isinstance(event, RoundReopened):
                # Another seed draws nobody else here: the tasks are those of the manifest, which names one round.
                loop.call_soon_threadsafe(settle, f"timeout: {event.description}")

        return note


class CheckedTransport:
    """A transport that believes only what fits the manifest; for the participants of one peer in one round.

    Args:
        inner: the way to the coordinator.
        manifest: verified.
        parameters: as the leader signed them.
        before_send: called before the first message leaves; what it raises keeps the message here.
    """

    def __init__(
        self,
        inner: AsyncTransport,
        manifest: Manifest,
        parameters: bytes,
        before_send: Callable[[], None] = lambda: None,
    ) -> None:
        self._inner: Final = inner
        self._manifest: Final = manifest
        self._parameters: Final = parameters
        self._before_send: Callable[[], None] | None = before_send

    async def get_parameters(self) -> bytes:
        """Return the round parameters that the leader signed."""
        return self._parameters

    async def get_sums(self) -> bytes | None:
        """Return the sum dictionary once it is the manifest's.

        Raises:
            TransportError: it is another one.
        """
        answer = await self._inner.get_sums()
        if answer is not None and _decoded(decode_sum_dictionary, answer) != self._manifest.sum_dictionary:
            raise TransportError("sum dictionary: expected the keys of the manifest, got others")
        return answer

    async def get_seeds(self, public_key: bytes) -> bytes | None:
        """Return the seed dictionary once it has the seeds of all announced updates.

        Raises:
            TransportError: it has others, or not all.
        """
        answer = await self._inner.get_seeds(public_key)
        if answer is not None and set(_decoded(decode_seed_dictionary, answer)) != self._manifest.tasks.update_keys:
            raise TransportError("seed dictionary: expected the seeds of all updates in the manifest, got others")
        return answer

    async def get_model(self, max_bytes: int | None = None) -> tuple[str, bytes] | None:  # noqa: ARG002 - the interface's
        """Return None: the leader announces results itself."""
        return None

    async def send_message(self, body: Buffer) -> None:
        """Deliver one sealed message."""
        if self._before_send is not None:
            self._before_send()
            self._before_send = None
        await self._inner.send_message(body)

    async def aclose(self) -> None:
        """Close the way to the coordinator."""
        await self._inner.aclose()


def _decoded(decode: Callable[[bytes], dict[bytes, bytes]], data: bytes) -> dict[bytes, bytes]:
    try:
        return decode(data)
    except RemoteProtocolError as error:
        raise TransportError(f"coordinator: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPart:
    """What a peer does in one round.

    Attributes:
        manifest: verified.
        parameters: as the leader signed them.
        keys: of this peer for this round.
        peer: its uuid.
        vector: its contribution.
        scalar: the weight of it.
        before_update: called when the masked vector is about to leave; what it raises keeps it here.
    """

    manifest: Manifest
    parameters: bytes
    keys: RoundKeys
    peer: str
    vector: NDArray[np.float64]
    scalar: Fraction
    before_update: Callable[[], None]

    def check(self) -> None:
        """Check that the parameters are for such a vector.

        Raises:
            RemoteProtocolError: they are not.
        """
        parameters = RoundParameters.from_bytes(self.parameters)
        if parameters.model_length != len(self.vector) or parameters.mask_config != STATISTICS_MASK_CONFIG:
            raise RemoteProtocolError("bad_parameters", "round parameters: expected those of this federation, got others")

    async def run(self, connection: NatsConnection, subjects: Subjects) -> None:
        """Contribute, and play the sum role if it was drawn; returns when everything was delivered."""
        inner = AsyncNatsTransport(connection, subjects, peer=self.peer)
        # An update participant has one message to send, its update.
        update = CheckedTransport(inner, self.manifest, self.parameters, self.before_update)
        transport = CheckedTransport(inner, self.manifest, self.parameters)
        async with asyncio.TaskGroup() as roles:
            roles.create_task(self._play(update, self.keys.update, UPDATE_TASK, Tag.UPDATE))
            if self.peer in self.manifest.sum_peers and self.keys.sum is not None:
                roles.create_task(self._play(transport, self.keys.sum, SUM_TASK, Tag.SUM2))

    async def _play(self, transport: AsyncTransport, key: SigningKeyPair, task: bytes, last: Tag) -> None:
        """Tick until the last message of a role was delivered."""
        participant = AsyncTickParticipant(
            transport,
            signing_key=key,
            scalar=self.scalar,
            choose_task=take_assigned_task(task),
            ephemeral_seed=self.keys.ephemeral_seed if task == SUM_TASK else None,
            max_model_length=len(self.vector),
        )
        while True:
            events = await participant.tick()
            if participant.should_set_model:
                participant.set_model(self.vector)
            if any(isinstance(event, MessageDelivered) and event.tag is last for event in events):
                return
            if abandoned := [event for event in events if isinstance(event, TaskAbandoned)]:
                raise RoundError(f"round {self.manifest.round_id}: {abandoned[0].description}")
            if any(isinstance(event, MessageLate) for event in events):
                raise RoundError(f"round {self.manifest.round_id}: a message of this peer came too late")
            if not participant.made_progress:
                await asyncio.sleep(_POLL_SECONDS)


async def end_task(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait for its end; what it raised no longer matters."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
