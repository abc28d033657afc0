"""What the tests of the coordinator share: small rounds with real masks, messages of every kind, and snapshots to compare."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from pet.crypto import SUM_TASK, UPDATE_TASK, EncryptionKeyPair, SigningKeyPair, is_eligible, open_sealed, seal, sign_task
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_object import Mask, MaskSeed, sum_masks
from pet.masking import mask_model
from pet.messages import Message, Payload, RoundParameters, Sum2Payload, SumPayload, UpdatePayload
from pet.protocol.coordinator import Coordinator
from pet.protocol.events import Event, PhaseEntered, SeedDictionaryPublished, SumDictionaryPublished
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow

CONFIG = MaskConfig.parse("power2-f32-b0-m6")
LENGTH = 3
SUM_WINDOW = PhaseWindow(min_count=1, max_count=3, min_seconds=5, max_seconds=60)
UPDATE_WINDOW = PhaseWindow(min_count=3, max_count=5, min_seconds=10, max_seconds=70)
SUM2_WINDOW = PhaseWindow(min_count=1, max_count=3, min_seconds=6, max_seconds=80)


def small_settings(**changes: Any) -> RoundSettings:
    settings = RoundSettings(
        sum_probability=0.5,
        update_probability=0.9,
        mask_config=MaskConfigPair.of(CONFIG),
        model_length=LENGTH,
        sum=SUM_WINDOW,
        update=UPDATE_WINDOW,
        sum2=SUM2_WINDOW,
    )
    return replace(settings, **changes)


def counting_entropy(start: int = 1) -> Callable[[int], bytes]:
    numbers = itertools.count(start)
    return lambda size: next(numbers).to_bytes(size, "little")


def numbered_key(number: int) -> SigningKeyPair:
    return SigningKeyPair.from_seed(number.to_bytes(32, "big"))


def ephemeral_keys(key: SigningKeyPair) -> EncryptionKeyPair:
    return EncryptionKeyPair.from_seed(key.public_key)


def take_events(coordinator: Coordinator) -> list[Event]:
    return list(iter(coordinator.next_event, None))


def parameters_of(coordinator: Coordinator) -> RoundParameters:
    assert coordinator.parameters is not None
    return coordinator.parameters


def candidates(parameters: RoundParameters, task: str, numbers: Iterator[int] | None = None) -> Iterator[SigningKeyPair]:
    """Yield the numbered keys that have a task ("sum", "update" or "none") in a round."""
    for number in numbers or itertools.count():
        key = numbered_key(number)
        is_sum = is_eligible(sign_task(key, parameters.seed, SUM_TASK), parameters.sum_probability)
        is_update = is_eligible(sign_task(key, parameters.seed, UPDATE_TASK), parameters.update_probability)
        if task == ("sum" if is_sum else "update" if is_update else "none"):
            yield key


@dataclass
class Round:
    """The participants of one round of a coordinator, and messages of theirs."""

    parameters: RoundParameters

    def keys(self, task: str, count: int) -> list[SigningKeyPair]:
        return list(itertools.islice(candidates(self.parameters, task), count))

    def message(self, key: SigningKeyPair, payload: Payload) -> Message:
        return Message(
            participant_public_key=key.public_key,
            coordinator_public_key=self.parameters.coordinator_public_key,
            payload=payload,
            tag=payload.tag,
        )

    def sum_signature(self, key: SigningKeyPair) -> bytes:
        return sign_task(key, self.parameters.seed, SUM_TASK)

    def sum(self, key: SigningKeyPair, **changes: Any) -> Message:
        payload = SumPayload(sum_signature=self.sum_signature(key), ephemeral_public_key=ephemeral_keys(key).public_key)
        return self.message(key, replace(payload, **changes))

    def update(
        self,
        key: SigningKeyPair,
        sum_dictionary: dict[bytes, bytes],
        weights: list[float] | None = None,
        scalar: Fraction | int = 1,
        config: MaskConfig | MaskConfigPair | None = None,
        **changes: Any,
    ) -> Message:
        seed, masked_model = mask_model(
            np.array([0.5, -0.25, 1.0] if weights is None else weights, dtype=np.float32),
            self.parameters.mask_config if config is None else config,
            scalar,
            MaskSeed(key.public_key),
        )
        payload = UpdatePayload(
            sum_signature=self.sum_signature(key),
            update_signature=sign_task(key, self.parameters.seed, UPDATE_TASK),
            masked_model=masked_model,
            local_seed_dictionary={
                public_key: seal(seed.to_bytes(), ephemeral) for public_key, ephemeral in sum_dictionary.items()
            },
        )
        return self.message(key, replace(payload, **changes))

    def sum2(self, key: SigningKeyPair, seeds: dict[bytes, bytes], **changes: Any) -> Message:
        opened = [MaskSeed(open_sealed(seed, ephemeral_keys(key))) for seed in seeds.values()]
        mask = sum_masks(opened, self.parameters.mask_config, self.parameters.model_length)
        return self.sum2_with(key, mask, **changes)

    def sum2_with(self, key: SigningKeyPair, mask: Mask, **changes: Any) -> Message:
        payload = Sum2Payload(sum_signature=self.sum_signature(key), mask=mask)
        return self.message(key, replace(payload, **changes))


class Session:
    """A coordinator with a clock, driven from phase to phase."""

    def __init__(self, settings: RoundSettings | None = None, **arguments: Any) -> None:
        self.settings = settings or small_settings()
        self.now = 1000.0
        arguments = {"entropy": counting_entropy(), **arguments}
        self.coordinator = Coordinator(self.settings, now_seconds=self.now, **arguments)
        self.events: list[Event] = []
        self.sum_dictionary: dict[bytes, bytes] = {}
        self.seed_dictionary: dict[bytes, dict[bytes, bytes]] = {}

    @property
    def round(self) -> Round:
        return Round(parameters_of(self.coordinator))

    def wait(self, seconds: float = 0.0) -> list[Event]:
        self.now += seconds
        self.coordinator.advance_time(self.now)
        return self.collect()

    def send(self, message: Message) -> list[Event]:
        self.coordinator.receive(message, self.now)
        return self.collect()

    def collect(self) -> list[Event]:
        new = take_events(self.coordinator)
        for event in new:
            if isinstance(event, SumDictionaryPublished):
                self.sum_dictionary = dict(event.sum_dictionary)
            if isinstance(event, SeedDictionaryPublished):
                self.seed_dictionary = {key: dict(seeds) for key, seeds in event.seed_dictionary.items()}
        self.events += new
        return new

    def phases(self) -> list[Phase]:
        return [event.phase for event in self.events if isinstance(event, PhaseEntered)]

    def to_sum(self) -> Session:
        self.wait()
        return self

    def joined_by_one(self) -> Session:
        self.to_sum()
        key = self.round.keys("sum", 1)[0]
        self.send(self.round.sum(key))
        return self

    def to_update(self, count: int = 2) -> Session:
        self.to_sum()
        for key in self.round.keys("sum", count):
            self.send(self.round.sum(key))
        self.wait(self.settings.sum.min_seconds)
        assert self.coordinator.phase is Phase.UPDATE
        return self

    def to_sum2(self, sums: int = 2, updates: int = 3, **changes: Any) -> Session:
        self.to_update(sums)
        for key in self.round.keys("update", updates):
            self.send(self.round.update(key, self.sum_dictionary, **changes))
        self.wait(self.settings.update.min_seconds)
        assert self.coordinator.phase is Phase.SUM2
        return self

    def send_masks(self, count: int = 2) -> list[Event]:
        """Send correct masks and let the Sum2 phase end."""
        for key in self.round.keys("sum", count):
            self.send(self.round.sum2(key, self.seed_dictionary[key.public_key]))
        return self.wait(self.settings.sum2.min_seconds)


def events_of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def with_element(masked: Any, value: int) -> Any:
    """Return a mask object like another one, its first element replaced."""
    vect = masked.vect.copy()
    vect[0] = np.frombuffer(value.to_bytes(vect.shape[1], "little"), dtype=np.uint8)
    return type(masked)(masked.config, vect, masked.unit)


def largest_element(config: MaskConfig) -> int:
    return int(256**config.element_bytes - 1)


def snapshot(value: Any) -> Any:
    """Return everything that a state holds, as plain values that can be compared.

    Left out are refusals counted, and the number of seeds behind a mask, which is known only where it was made.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.name not in {"rejected", "discarded"}]
        return {name: snapshot(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return set(value)
    if isinstance(value, (list, tuple)):
        return [snapshot(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    attributes = {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots if hasattr(value, name)}}
    if attributes and type(value).__module__.startswith("pet."):
        return {name: snapshot(item) for name, item in attributes.items() if name != "seed_count"}
    return value
