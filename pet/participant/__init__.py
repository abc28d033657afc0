"""Participants with I/O and time around the state machine of pet/protocol/participant.py.

`spawn_participant` with a class of your own, `AsyncParticipant` for asyncio, `TickParticipant` for your own loop. An HTTP
client is loaded only when a participant is made with a URL.
"""

from pet.participant.async_sdk import AsyncParticipant
from pet.participant.back_off import BackOff
from pet.participant.core import LocalModelConfig, Task
from pet.participant.participant import AsyncTickParticipant, TickParticipant
from pet.participant.sdk import Participant, ParticipantThread, spawn_participant

__all__ = [
    "AsyncParticipant",
    "AsyncTickParticipant",
    "BackOff",
    "LocalModelConfig",
    "Participant",
    "ParticipantThread",
    "Task",
    "TickParticipant",
    "spawn_participant",
]
