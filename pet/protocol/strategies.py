"""The three decisions that another profile of the protocol would make differently, each one function.

Who may take part (anybody), which task a participant has in a round (its signature of the round's seed says so), which mask
counts (the one most submitted). A `Strategies` object is given to a coordinator; nothing else in pet/protocol decides these.
This file keeps no state.

Source: spec/PET.md 1.7, 9.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pet.crypto import SUM_TASK, UPDATE_TASK, is_eligible, verify_task
from pet.errors import RemoteProtocolError
from pet.mask_object import Mask
from pet.messages import Payload, RoundParameters, UpdatePayload
from pet.protocol.votes import MaskVotes, choose_by_plurality


def admit_anybody(participant_public_key: bytes) -> None:
    """Let everybody take part.

    A strategy that does not would raise RemoteProtocolError with a reason of its own.
    """


def check_task_by_signature(participant_public_key: bytes, payload: Payload, parameters: RoundParameters) -> None:
    """Check that a participant has the task it claims, from the task signatures in its payload (spec 9.2).

    The sum task goes first: who is selected for it cannot be an update participant.

    Raises:
        RemoteProtocolError: "not_sum_eligible", "not_update_eligible"; "invalid_sum_signature" in an update (xaynet lets that
            pass, which would free a participant from its sum task).
    """
    has_sum_signature = verify_task(payload.sum_signature, participant_public_key, parameters.seed, SUM_TASK)
    is_sum_participant = has_sum_signature and is_eligible(payload.sum_signature, parameters.sum_probability)
    if not isinstance(payload, UpdatePayload):
        if not is_sum_participant:
            raise RemoteProtocolError("not_sum_eligible", "expected a sum participant of this round, got another participant")
        return
    if not has_sum_signature:
        raise RemoteProtocolError("invalid_sum_signature", "expected a valid sum signature in an update, got an invalid one")
    has_update_task = (
        not is_sum_participant
        and verify_task(payload.update_signature, participant_public_key, parameters.seed, UPDATE_TASK)
        and is_eligible(payload.update_signature, parameters.update_probability)
    )
    if not has_update_task:
        raise RemoteProtocolError(
            "not_update_eligible", "expected an update participant of this round, got another participant"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategies:
    """How a coordinator decides what the protocol leaves to its profile; the defaults are PET's.

    Attributes:
        admit: takes a public key; raises RemoteProtocolError for a participant that may not take part at all.
        check_task: takes a public key, a whole payload and the round's parameters; raises RemoteProtocolError.
        choose_mask: takes the votes; raises UnmaskError where there is no choice.
    """

    admit: Callable[[bytes], None] = admit_anybody
    check_task: Callable[[bytes, Payload, RoundParameters], None] = check_task_by_signature
    choose_mask: Callable[[MaskVotes], Mask] = choose_by_plurality
