"""What the tests of participants share: a scripted coordinator for single steps, and a real engine with a clock that is set."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from pet.coordinator.engine import CoordinatorEngine
from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import MessageTooLargeError, TransportError, TransportRefusedError
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.messages import RoundParameters
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import Event, GetParameters, GetSeeds, GetSums, Request, SendMessage
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports.in_process import InProcessTransport

F32 = MaskConfig.parse("prime-f32-b0-m3")
I64 = MaskConfig.parse("integer-i64-b6-m6")
COORDINATOR_KEYS = EncryptionKeyPair.from_seed(bytes([5]) * 32)
PROBABILITIES = {"sum": (1.0, 1.0), "update": (-1.0, 1.0), "none": (-1.0, -1.0)}


def counting_entropy(start: int = 1) -> Callable[[int], bytes]:
    numbers = itertools.count(start)
    return lambda size: next(numbers).to_bytes(8, "little")[:size].ljust(size, b"e")


def signing_key(number: int) -> SigningKeyPair:
    return SigningKeyPair.from_seed(number.to_bytes(32, "big"))


def make_machine(number: int = 1, **options: Any) -> ParticipantMachine:
    return ParticipantMachine(signing_key=signing_key(number), entropy=counting_entropy(1000 * number), **options)


def exchange_option(machine: ParticipantMachine, **option: Any) -> None:
    """Give a machine another scalar or source of entropy in the middle of a round."""
    machine._round._options = dataclasses.replace(machine._round._options, **option)


def round_parameters(task: str, seed: int = 7, length: int = 4, config: MaskConfig = F32) -> RoundParameters:
    """Parameters of a round in which every participant has the given task."""
    sum_probability, update_probability = PROBABILITIES[task]
    return RoundParameters(
        coordinator_public_key=COORDINATOR_KEYS.public_key,
        sum_probability=sum_probability,
        update_probability=update_probability,
        seed=bytes([seed]) * 32,
        mask_config=MaskConfigPair.of(config),
        model_length=length,
    )


@dataclass
class Script:
    """A coordinator with scripted answers; an answer that is an exception is a request that fails."""

    parameters: RoundParameters | bytes | TransportError | None
    sums: bytes | TransportError | None = None
    seeds: bytes | TransportError | None = None
    receipt: TransportError | None = None
    received: list[bytes] = field(default_factory=list)

    def answer(self, request: Request) -> bytes | None:
        match request:
            case GetParameters():
                answer = self.parameters.to_bytes() if isinstance(self.parameters, RoundParameters) else self.parameters
            case GetSums():
                answer = self.sums
            case GetSeeds():
                answer = self.seeds
            case SendMessage():
                self.received.append(bytes(request.body))
                answer = self.receipt
        if isinstance(answer, TransportError):
            raise answer
        return answer


def step(machine: ParticipantMachine, script: Script) -> list[Request]:
    """Let a machine do one step; returns what it asked for."""
    requests = []
    while (request := machine.next_request()) is not None:
        requests.append(request)
        try:
            answer = script.answer(request)
        except TransportRefusedError as error:
            machine.receive_refusal(str(error), is_too_large=isinstance(error, MessageTooLargeError))
        except TransportError:
            machine.receive_failure()
        else:
            machine.receive(answer)
    return requests


def steps(machine: ParticipantMachine, script: Script, count: int) -> list[list[Request]]:
    return [step(machine, script) for _ in range(count)]


def take_events(machine: ParticipantMachine) -> list[Event]:
    return list(iter(machine.next_event, None))


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_seconds = 100.0

    def __call__(self) -> float:
        return self.now_seconds


def quick_settings(config: MaskConfig = F32, length: int = 4, **changes: Any) -> RoundSettings:
    options: dict[str, Any] = {
        "sum_probability": 0.4,
        "update_probability": 1.0,
        "sum": PhaseWindow(min_count=1, max_count=100, min_seconds=1, max_seconds=60),
        "update": PhaseWindow(min_count=3, max_count=100, min_seconds=1, max_seconds=60),
        "sum2": PhaseWindow(min_count=1, max_count=100, min_seconds=1, max_seconds=60),
    }
    return RoundSettings.of(config, length, **{**options, **changes})


class World:
    """A real coordinator engine in this process, whose clock is moved by `pass_phase`."""

    def __init__(self, settings: RoundSettings | None = None, start: int = 1) -> None:
        self.clock = SetClock()
        self.settings = settings or quick_settings()
        self.engine = CoordinatorEngine(self.settings, clock=self.clock, entropy=counting_entropy(start))
        self.engine.tick()
        self.transport = InProcessTransport(self.engine)

    @property
    def phase(self) -> Phase:
        return Phase(self.engine.status()["phase"])

    def pass_phase(self) -> None:
        self.clock.now_seconds += 1.5
        self.engine.tick()

    def carry_out(self, request: Request) -> bytes | None:
        match request:
            case GetParameters():
                return self.transport.get_parameters()
            case GetSums():
                return self.transport.get_sums()
            case GetSeeds():
                return self.transport.get_seeds(request.public_key)
            case SendMessage():
                return self.transport.send_message(request.body)

    def step(self, machine: ParticipantMachine) -> list[Request]:
        requests = []
        while (request := machine.next_request()) is not None:
            requests.append(request)
            machine.receive(self.carry_out(request))
        return requests

    def step_all(self, machines: Iterable[ParticipantMachine]) -> None:
        """Let every machine go on until it makes no more progress."""
        for machine in machines:
            self.step(machine)
            while machine.made_progress:
                self.step(machine)


class LiveCoordinator:
    """A real engine on the real clock, ticked by a thread of its own; `restart` replaces it by one that knows nothing."""

    def __init__(self, settings: RoundSettings | None = None) -> None:
        self.settings = settings or live_settings()
        self.is_away = False
        self.restart()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._tick)

    def restart(self) -> None:
        self.engine = CoordinatorEngine(self.settings)
        self.engine.tick()

    def _tick(self) -> None:
        while not self._is_stopping.wait(0.01):
            self.engine.tick()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping.set()
        self._thread.join()


class LiveTransport:
    """The way to a live coordinator, which may be away, and another one when it is back."""

    def __init__(self, coordinator: LiveCoordinator) -> None:
        self._coordinator = coordinator
        self.is_closed = False

    def __getattr__(self, name: str) -> Any:
        if self._coordinator.is_away:
            raise TransportError("the coordinator is away")
        return getattr(InProcessTransport(self._coordinator.engine), name)

    def close(self) -> None:
        self.is_closed = True


class AsyncLiveTransport:
    """The same for asyncio."""

    def __init__(self, coordinator: LiveCoordinator) -> None:
        self._transport = LiveTransport(coordinator)

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            return getattr(self._transport, name)(*arguments)

        return call

    async def aclose(self) -> None:
        self._transport.close()


def live_settings(config: MaskConfig = F32, length: int = 4, **changes: Any) -> RoundSettings:
    window = {"max_count": 100, "min_seconds": 0.1, "max_seconds": 3}
    return quick_settings(
        config,
        length,
        sum=PhaseWindow(min_count=1, **window),
        update=PhaseWindow(min_count=3, **window),
        sum2=PhaseWindow(min_count=1, **window),
        **changes,
    )


def wait_until(condition: Callable[[], bool], timeout_seconds: float = 30) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.01)


def weights(number: int, length: int = 4, config: MaskConfig = F32) -> np.ndarray:
    values = np.random.default_rng(number).uniform(-1, 1, length)
    dtype = config.data_type.dtype
    return (values * 1000 if dtype.kind == "i" else values).astype(dtype)
