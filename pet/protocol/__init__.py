"""The protocol without I/O: state machines of the coordinator and of a participant.

They take messages and the time, and give events; their owner does the rest. Reading order: phases, events, coordinator;
participant_state, participant_events, participant. What a participant tells its owner has names in `participant_events`, which
is a module of its own because both sides have events.
"""

from pet.protocol import participant_events
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
    RoundReopened,
    SeedDictionaryPublished,
    SumDictionaryPublished,
)
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import GetParameters, GetSeeds, GetSums, Request, SendMessage
from pet.protocol.participant_state import PARTICIPANT_TRANSITIONS, ParticipantState, ParticipantTrigger
from pet.protocol.phases import ACCEPTED_TAG, TRANSITIONS, Phase, Trigger
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import Status, Waiting
from pet.protocol.strategies import Strategies
from pet.protocol.windows import PhaseWindow

__all__ = [
    "ACCEPTED_TAG",
    "PARTICIPANT_TRANSITIONS",
    "TRANSITIONS",
    "Coordinator",
    "DictionariesWithdrawn",
    "Event",
    "GetParameters",
    "GetSeeds",
    "GetSums",
    "MessageAccepted",
    "MessageDiscarded",
    "MessageRefused",
    "ModelPublished",
    "ParametersPublished",
    "ParticipantMachine",
    "ParticipantState",
    "ParticipantTrigger",
    "Phase",
    "PhaseEntered",
    "PhaseWindow",
    "Request",
    "RoundFailed",
    "RoundReopened",
    "RoundSettings",
    "SeedDictionaryPublished",
    "SendMessage",
    "Status",
    "Strategies",
    "SumDictionaryPublished",
    "Trigger",
    "Waiting",
    "participant_events",
]
