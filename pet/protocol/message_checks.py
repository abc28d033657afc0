"""What a coordinator's machine looks at before a message reaches its round, in any variant of the protocol.

Source: docs/spec/pet.md 1.3, 6.3, 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pet.errors import RemoteProtocolError
from pet.messages import Message, MessageTag, Refused
from pet.protocol.phases import Phase
from pet.protocol.profile import CollectingWindow, RoundT
from pet.protocol.round_state import MachineState

#: The reason of a message beyond the maximum count: counted apart from refusals.
DISCARDED: Final = "discarded"


@dataclass(frozen=True, slots=True)
class SenderCheck:
    """What `RoundMachine.check_senders` found out about a message beforehand.

    Attributes:
        current: the round that it was found out for; it says nothing about others.
        refused: why the sender may not say this; None if it may.
    """

    current: object
    refused: Refused | None


def require_round(
    state: MachineState[RoundT], message: Message, expected: MessageTag | None, window: CollectingWindow | None
) -> RoundT:
    """Return the round that a message may belong to, from what its header says.

    Args:
        state: of the coordinator.
        message: what came.
        expected: the one kind of message that is taken now; None if none is.
        window: of the current phase; None where it takes no messages.

    Raises:
        RemoteProtocolError: "shut_down", "unexpected_message", "wrong_coordinator_key", "discarded".
    """
    current, phase = state.round, state.phase
    if phase is Phase.SHUTDOWN or current is None:
        raise RemoteProtocolError("shut_down", "expected no message after the end, got one")
    if window is None or message.tag is not expected:
        raise RemoteProtocolError(
            "unexpected_message",
            f"phase {phase.value}: expected {expected.name if expected else 'no message'}, got {message.tag.name}",
        )
    # The message may have been opened with the keys of a round that ended meanwhile.
    if message.coordinator_public_key != current.keys.public_key:
        raise RemoteProtocolError("wrong_coordinator_key", "expected the coordinator's key of this round, got another one")
    if window.is_full(state.counters.accepted):
        raise RemoteProtocolError(DISCARDED, f"phase {phase.value}: expected no message beyond its most, got one")
    return current
