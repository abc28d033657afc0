"""The engine of xaynet's profile: what it publishes of its rounds (pet/coordinator/round_engine.py has all the rest).

Parameters, dictionaries and model are immutable values that were captured when the protocol announced them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Unpack

from pet.coordinator.open_rounds import RoundOptions, open_rounds
from pet.coordinator.round_engine import ModelDescription, RoundEngine
from pet.coordinator.waiting import waiting_record
from pet.messages import MIN_BODY_BYTES, EncodedSeeds, encode_sum_dictionary, update_payload_bytes
from pet.protocol.entries import Entry
from pet.protocol.events import (
    DictionariesWithdrawn,
    Event,
    ModelPublished,
    ParametersPublished,
    Publication,
    SeedDictionaryPublished,
    SumDictionaryPublished,
)
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import RoundState, Status
from pet.protocol.windows import PhaseWindow

#: The header of a chunk is added when somebody sends a whole payload as one chunk; the rest is for senders that pad.
_SPARE_BYTES: Final = 4096


class CoordinatorEngine(RoundEngine[RoundSettings, RoundState, Entry, Publication]):
    """A coordinator that any thread may call; implements `pet.transports.base.Endpoint`.

    Args:
        settings: what the rounds are like.
        clock: returns seconds that never go back.
        options: where rounds and models are kept, and what else they are made with: see `RoundOptions`. An engine goes on with
            the rounds that another one left in a storage.

    Raises:
        StateError: what is stored is damaged, or not of a coordinator of this version.
        StorageError: a store cannot be reached.
    """

    def __init__(
        self, settings: RoundSettings, *, clock: Callable[[], float] = time.monotonic, **options: Unpack[RoundOptions]
    ) -> None:
        self._prepared_round_id = 0
        self._sums: bytes | None = None
        self._seeds: Mapping[bytes, EncodedSeeds] | None = None
        #: Sizes of the sum dictionaries of this round and the last one: a late update may still answer the last one.
        self._sum_dictionary_sizes = (0, 0)
        super().__init__(settings, open_rounds(settings, now_seconds=clock(), **options), clock)
        self._sightings.expect_masks(self._protocol.state)

    def max_body_bytes_ever(self) -> int:
        """Return what `max_body_bytes` is at most, with as many sum participants as the settings allow."""
        return MIN_BODY_BYTES + self.settings.max_payload_bytes + _SPARE_BYTES

    def describe(self) -> ModelDescription:
        """Return what the models of the next round are like."""
        return ModelDescription(self.settings.model_length, str(self.settings.mask_config.vect))

    def phase_window(self, phase: Phase) -> PhaseWindow | None:
        """Return how many messages a phase takes and for how long; None for a phase that takes none."""
        settings = self.settings
        return {Phase.SUM: settings.sum, Phase.UPDATE: settings.update, Phase.SUM2: settings.sum2}.get(phase)

    def sums(self) -> bytes | None:
        """Return the encoded sum dictionary while it is published."""
        return self._sums

    def seeds(self, public_key: bytes) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant while it is published: the same object every time."""
        seeds = self._seeds
        if seeds is None or public_key not in seeds:
            return None
        self._sightings.note_request(public_key, self._clock())
        return seeds[public_key].to_bytes()

    def _waiting(self, status: Status, settings: RoundSettings, now_seconds: float) -> dict[str, Any] | None:
        return waiting_record(status, settings, self._sightings, now_seconds)

    def _prepare_round(self) -> None:
        """At the beginning of a round, while nobody waits for anything, get the memory of its total."""
        current = self._protocol.state.round
        if current is not None and self._protocol.phase is Phase.SUM and self._prepared_round_id != self._protocol.round_id:
            self._prepared_round_id = self._protocol.round_id
            current.aggregation.prepare()

    def _largest_body_bytes(self) -> int:
        entries = max(self._sum_dictionary_sizes)
        payload_bytes = max(
            update_payload_bytes(settings.mask_config, settings.model_length, entries)
            for settings in (self._protocol.settings, self.settings)
        )
        return MIN_BODY_BYTES + payload_bytes + _SPARE_BYTES

    def _is_result(self, event: Event) -> bool:
        return isinstance(event, ModelPublished)

    def _update_snapshots(self, event: Event) -> None:
        super()._update_snapshots(event)
        match event:
            case ParametersPublished():
                self._sightings.begin_round()
                self._sum_dictionary_sizes = (0, self._sum_dictionary_sizes[0])
                self._max_body_bytes = self._largest_body_bytes()
                self._parameters = event.parameters.to_bytes()
            case SumDictionaryPublished():
                self._sum_dictionary_sizes = (len(event.sum_dictionary), self._sum_dictionary_sizes[1])
                self._max_body_bytes = self._largest_body_bytes()
                self._sums = encode_sum_dictionary(event.sum_dictionary)
            case SeedDictionaryPublished():
                self._sightings.expect_masks(self._protocol.state)
                self._seeds = event.seed_dictionary
            case DictionariesWithdrawn():
                self._sums = self._seeds = None
            case ModelPublished():
                self._model = self._rounds.model
            case _:
                pass  # counters and phases are in the status
