"""The phases of a round and every move between them, in one table.

How to think about the coordinator: it is always in exactly one phase, and only two things happen to it, a message arrives or
time passes. Most of the time nothing follows but a counter that goes up. Now and then one of the few *triggers* below fires,
and then `TRANSITIONS` alone says where the coordinator goes.

1. **A trigger moves the whole round; a message does not.** A message is accepted, or refused with the state as before. That a
   message was the last one needed is a trigger (`ENOUGH_MESSAGES`), noticed after the message was accepted.
2. **A round fails as a whole or not at all.** No message can take a round to `FAILURE`; only time, or masks that give no model
   (`ROUND_FAILED`). A round that nobody has joined when its time is over did not fail: it is opened anew (`NOBODY_JOINED`).
3. **Three phases rest, three are passed through.** `SUM`, `UPDATE` and `SUM2` wait for messages. `IDLE`, `UNMASK` and
   `FAILURE` are work that is done at once: the coordinator is never found in them between two calls, except in `IDLE` before
   its first round. They are still announced, one by one.
4. **`SHUTDOWN` is the end.** It can be reached from everywhere and left for nowhere.

A pair that is missing from the table cannot happen; asking for it is an error of the caller. The diagram in docs/protocol.md is
drawn from this table. This file parses nothing and knows neither messages' content nor time.

The table is that of PET as xaynet speaks it. Other variants have tables of their own, with the same phases or fewer.

Source: docs/spec/pet.md 1.3.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pet.errors import LocalProtocolError
from pet.messages import MessageTag, Tag
from pet.pet1.messages import Pet1Tag


class Phase(enum.Enum):
    """Where a coordinator is; the value is the name shown in `GET /status`."""

    value: str

    IDLE = "idle"  # new keys, new round seed, new parameters
    SUM = "sum"  # collects the ephemeral keys of sum participants
    UPDATE = "update"  # collects and adds masked models, and the encrypted mask seeds
    CHECK = "check"  # members sign the list of all updates; only in pet/1
    SUM2 = "sum2"  # collects the mask sums of the sum participants
    UNMASK = "unmask"  # chooses a mask and takes it off the total
    FAILURE = "failure"  # this round gives no model
    SHUTDOWN = "shutdown"  # nothing is accepted from here on


class Trigger(enum.Enum):
    """Why a coordinator leaves a phase."""

    value: str

    PARAMETERS_DRAWN = "parameters drawn"  # keys and seed of the round exist
    ENOUGH_MESSAGES = "enough messages"  # the window's minimum time and minimum count are both reached
    NOBODY_JOINED = "nobody joined"  # the Sum phase's maximum time is over without a single message
    MODEL_UNMASKED = "model unmasked"  # the global model exists
    ROUND_FAILED = "round failed"  # the window's maximum time is over, or the masks give no model
    FAILURE_RECORDED = "failure recorded"  # nothing is left to do for the failed round
    SHUT_DOWN = "shut down"  # the owner wants no more rounds


TRANSITIONS: Final[Mapping[tuple[Phase, Trigger], Phase]] = MappingProxyType(
    {
        (Phase.IDLE, Trigger.PARAMETERS_DRAWN): Phase.SUM,
        (Phase.SUM, Trigger.ENOUGH_MESSAGES): Phase.UPDATE,
        (Phase.SUM, Trigger.NOBODY_JOINED): Phase.IDLE,
        (Phase.SUM, Trigger.ROUND_FAILED): Phase.FAILURE,
        (Phase.UPDATE, Trigger.ENOUGH_MESSAGES): Phase.SUM2,
        (Phase.UPDATE, Trigger.ROUND_FAILED): Phase.FAILURE,
        (Phase.SUM2, Trigger.ENOUGH_MESSAGES): Phase.UNMASK,
        (Phase.SUM2, Trigger.ROUND_FAILED): Phase.FAILURE,
        (Phase.UNMASK, Trigger.MODEL_UNMASKED): Phase.IDLE,
        (Phase.UNMASK, Trigger.ROUND_FAILED): Phase.FAILURE,
        (Phase.FAILURE, Trigger.FAILURE_RECORDED): Phase.IDLE,
        (Phase.IDLE, Trigger.SHUT_DOWN): Phase.SHUTDOWN,
        (Phase.SUM, Trigger.SHUT_DOWN): Phase.SHUTDOWN,
        (Phase.UPDATE, Trigger.SHUT_DOWN): Phase.SHUTDOWN,
        (Phase.SUM2, Trigger.SHUT_DOWN): Phase.SHUTDOWN,
        (Phase.UNMASK, Trigger.SHUT_DOWN): Phase.SHUTDOWN,
        (Phase.FAILURE, Trigger.SHUT_DOWN): Phase.SHUTDOWN,
    }
)

#: The one kind of message that a phase takes; a phase that is absent takes none.
ACCEPTED_TAG: Final[Mapping[Phase, Tag]] = MappingProxyType(
    {Phase.SUM: Tag.SUM, Phase.UPDATE: Tag.UPDATE, Phase.SUM2: Tag.SUM2}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTable:
    """Which phases a variant of the protocol has, and what moves it between them.

    In every variant Idle, Unmask and Failure are passed through, and Shutdown is the end; which phases collect messages, and in
    which order, is the variant's own.

    Attributes:
        transitions: where a trigger leads from a phase.
        accepted_tags: the kind of message that each collecting phase takes; all other phases take none.
    """

    transitions: Mapping[tuple[Phase, Trigger], Phase]
    accepted_tags: Mapping[Phase, MessageTag]

    def next_phase(self, phase: Phase, trigger: Trigger) -> Phase:
        """Look up where a trigger leads.

        Raises:
            LocalProtocolError: the trigger cannot happen in this phase.
        """
        try:
            return self.transitions[phase, trigger]
        except KeyError:
            known = ", ".join(known.value for start, known in self.transitions if start is phase) or "nothing"
            raise LocalProtocolError(f"phase {phase.value}: expected {known}, got {trigger.value!r}") from None

    @property
    def phases(self) -> frozenset[Phase]:
        """Every phase of the variant."""
        return frozenset({start for start, _ in self.transitions} | set(self.transitions.values()))

    def reopens(self, phase: Phase) -> bool:
        """Return whether a round that nobody has joined in this phase is opened anew at its time-out, and does not fail."""
        return (phase, Trigger.NOBODY_JOINED) in self.transitions


XAYNET_PHASES: Final = PhaseTable(transitions=TRANSITIONS, accepted_tags=ACCEPTED_TAG)

#: The phases of pet/1 that collect messages, in order (docs/spec/profile.md 12).
_PET1_COLLECTING: Final = (Phase.SUM, Phase.UPDATE, Phase.CHECK, Phase.SUM2)
_PET1_ROUND: Final = (*_PET1_COLLECTING, Phase.UNMASK)

PET1_PHASES: Final = PhaseTable(
    transitions=MappingProxyType(
        {
            (Phase.IDLE, Trigger.PARAMETERS_DRAWN): Phase.SUM,
            **{(start, Trigger.ENOUGH_MESSAGES): end for start, end in zip(_PET1_COLLECTING, _PET1_ROUND[1:], strict=True)},
            **{(phase, Trigger.ROUND_FAILED): Phase.FAILURE for phase in _PET1_ROUND},
            (Phase.UNMASK, Trigger.MODEL_UNMASKED): Phase.IDLE,
            (Phase.FAILURE, Trigger.FAILURE_RECORDED): Phase.IDLE,
            **{(phase, Trigger.SHUT_DOWN): Phase.SHUTDOWN for phase in (Phase.IDLE, *_PET1_ROUND, Phase.FAILURE)},
        }
    ),
    accepted_tags=MappingProxyType(
        {
            Phase.SUM: Pet1Tag.SUM,
            Phase.UPDATE: Pet1Tag.UPDATE,
            Phase.CHECK: Pet1Tag.CHECK,
            Phase.SUM2: Pet1Tag.SUM2,
        }
    ),
)
