"""Participants with I/O and time around the state machine of pet/protocol/participant.py.

`spawn_participant` with a class of your own, `AsyncParticipant` for asyncio, `TickParticipant` for your own loop;
`CommitteeMember` for members of committees of pet/1. An HTTP client is loaded only when one of them is made with a URL.
"""

from pet.participant.back_off import BackOff
from pet.participant.committee_member import CommitteeMember, MemberStatus
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
    "CommitteeMember",
    "LocalModelConfig",
    "MemberStatus",
    "OnClip",
    "Participant",
    "ParticipantStatus",
    "ParticipantThread",
    "Task",
    "TickParticipant",
    "spawn_participant",
]
