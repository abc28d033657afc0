"""The protocol without I/O: state machines of the coordinator and of a participant.

They take messages and the time, and give events; whoever owns them does the rest. Reading order: phases, events, coordinator.
"""

from pet.protocol.coordinator import Coordinator
from pet.protocol.events import (
    DictionariesWithdrawn,
    Event,
    MessageAccepted,
    MessageDiscarded,
    MessageRefused,
    ModelPublished,
    ParametersPublished,
    PhaseEntered,
    RoundFailed,
    SeedDictionaryPublished,
    SumDictionaryPublished,
)
from pet.protocol.phases import ACCEPTED_TAG, TRANSITIONS, Phase, Trigger
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import Status
from pet.protocol.strategies import Strategies
from pet.protocol.windows import PhaseWindow

__all__ = [
    "ACCEPTED_TAG",
    "TRANSITIONS",
    "Coordinator",
    "DictionariesWithdrawn",
    "Event",
    "MessageAccepted",
    "MessageDiscarded",
    "MessageRefused",
    "ModelPublished",
    "ParametersPublished",
    "Phase",
    "PhaseEntered",
    "PhaseWindow",
    "RoundFailed",
    "RoundSettings",
    "SeedDictionaryPublished",
    "Status",
    "Strategies",
    "SumDictionaryPublished",
    "Trigger",
]
