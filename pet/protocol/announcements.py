"""What a round has to tell, made from its state: the events that carry dictionaries, and all of them again after a restart.

Only looks at the state, and copies nothing: what is announced is final. When something is announced is for
pet/protocol/round_machine.py.
"""

from __future__ import annotations

from types import MappingProxyType

from pet.protocol.events import (
    ParametersPublished,
    Publication,
    SeedDictionaryPublished,
    SumDictionaryPublished,
)
from pet.protocol.phases import Phase
from pet.protocol.round_state import RoundState


def publish_sum_dictionary(round_id: int, current: RoundState) -> Publication:
    """Return the event that ends the Sum phase."""
    return SumDictionaryPublished(
        round_id=round_id,
        sum_dictionary=MappingProxyType(current.sum_dictionary),
        signed_sums=MappingProxyType(current.signed_sums),
    )


def publish_seed_dictionary(round_id: int, current: RoundState) -> Publication:
    """Return the event that ends the Update phase."""
    return SeedDictionaryPublished(round_id=round_id, seed_dictionary=MappingProxyType(current.seed_dictionary))


def announcements_of(round_id: int, current: RoundState, phase: Phase) -> list[Publication]:
    """Return what was published of a round that is in some phase, oldest first."""
    announced: list[Publication] = [ParametersPublished(round_id=round_id, parameters=current.parameters)]
    if phase in (Phase.UPDATE, Phase.SUM2):
        announced.append(publish_sum_dictionary(round_id, current))
    if phase is Phase.SUM2:
        announced.append(publish_seed_dictionary(round_id, current))
    return announced
