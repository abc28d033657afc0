"""What a round has to tell, made from its state: the events that carry dictionaries, and all of them again after a restart.

Only looks at the state, and copies nothing: what is announced is final. When something is announced is for
pet/protocol/coordinator.py.
"""

from __future__ import annotations

from types import MappingProxyType

from pet.protocol.events import (
    Event,
    ParametersPublished,
    PhaseEntered,
    SeedDictionaryPublished,
    SumDictionaryPublished,
)
from pet.protocol.phases import Phase
from pet.protocol.round_state import CoordinatorState, RoundState


def publish_sum_dictionary(round_id: int, current: RoundState) -> Event:
    """Return the event that ends the Sum phase."""
    return SumDictionaryPublished(
        round_id=round_id,
        sum_dictionary=MappingProxyType(current.sum_dictionary),
        signed_sums=MappingProxyType(current.signed_sums),
    )


def publish_seed_dictionary(round_id: int, current: RoundState) -> Event:
    """Return the event that ends the Update phase."""
    seeds = {public_key: MappingProxyType(entries) for public_key, entries in current.seed_dictionary.items()}
    return SeedDictionaryPublished(round_id=round_id, seed_dictionary=MappingProxyType(seeds))


def announcements_of(state: CoordinatorState) -> list[Event]:
    """Return what the owner of a coordinator would have heard of the round that a state is in, oldest first."""
    round_id, current = state.round_id, state.round
    if current is None or state.phase is Phase.SHUTDOWN:
        return []
    announced: list[Event] = [
        PhaseEntered(round_id=round_id, phase=state.phase),
        ParametersPublished(round_id=round_id, parameters=current.parameters),
    ]
    if state.phase in (Phase.UPDATE, Phase.SUM2):
        announced.append(publish_sum_dictionary(round_id, current))
    if state.phase is Phase.SUM2:
        announced.append(publish_seed_dictionary(round_id, current))
    return announced
