"""Participants with I/O and time around the state machine of pet/protocol/participant.py.

`spawn_participant` with a class of your own, `AsyncParticipant` for asyncio, `TickParticipant` for your own loop. An HTTP
client is loaded only when a participant is made with a URL.
"""

from pet.participant.back_off import BackOff
from pet.participant.core import LocalModelConfig
from pet.participant.flags import OnClip
from pet.participant.status import ParticipantStatus, Task
from pet.participant.task import AsyncParticipant
from pet.participant.thread import Participant, ParticipantThread, spawn_participant
from pet.participant.ticks import AsyncTickParticipant, TickParticipant

__all__ = [
    "AsyncParticipant",
    "AsyncTickParticipant",
    "BackOff",
    "LocalModelConfig",
    "OnClip",
    "Participant",
    "ParticipantStatus",
    "ParticipantThread",
    "Task",
    "TickParticipant",
    "spawn_participant",
]
