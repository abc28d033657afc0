"""The three decisions that another profile of the protocol would make differently, each one function.

Who may take part (anybody), which task a participant has in a round (its signature of the round's seed says so), which mask
counts (the one most submitted). A `Strategies` object is given to a coordinator, a `TaskChoice` to a participant; nothing else
in pet/protocol decides these. This file keeps no state.

Where the participants of a round are known beforehand, `TaskAllowList` and `take_assigned_task` take the place of chance.

Source: docs/spec/pet.md 1.7, 9.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeGuard

from pet.crypto import SIGNATURE_BYTES, SUM_TASK, UPDATE_TASK, is_eligible, verify_task
from pet.crypto_batches import Claim, task_claim, verify_groups
from pet.errors import ConfigError, RemoteProtocolError
from pet.mask_object import Mask
from pet.messages import Payload, RoundParameters, Tag, UpdatePayload
from pet.protocol.votes import MaskVotes, choose_by_plurality


def admit_anybody(participant_public_key: bytes) -> None:
    """Let everybody take part.

    A strategy that does not would raise RemoteProtocolError with a reason of its own.
    """


@dataclass(frozen=True, slots=True)
class ParticipantAllowList:
    """Let those on a list take part, and nobody else; for `Strategies.admit`.

    Attributes:
        keys: their public keys.
    """

    keys: frozenset[bytes]

    def __call__(self, participant_public_key: bytes) -> None:
        """Check one participant, whose signature is valid.

        Raises:
            RemoteProtocolError: "not_admitted".
        """
        if participant_public_key not in self.keys:
            raise RemoteProtocolError("not_admitted", "expected a participant on the list of those who may, got another one")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskClaim:
    """The task signatures that a payload begins with (spec 4.2 to 4.4): all that says which task its sender has.

    Attributes:
        tag: the kind of message.
        sum_signature: 64 bytes.
        update_signature: 64 bytes; empty but in an update.
    """

    tag: Tag
    sum_signature: bytes
    update_signature: bytes = b""

    @staticmethod
    def size_bytes(tag: Tag) -> int:
        """Return how many bytes the signatures have."""
        return (2 if tag is Tag.UPDATE else 1) * SIGNATURE_BYTES

    @classmethod
    def of(cls, tag: Tag, head: bytes) -> TaskClaim:
        """Read the first bytes of a payload."""
        return cls(tag=tag, sum_signature=head[:SIGNATURE_BYTES], update_signature=head[SIGNATURE_BYTES:])


def check_task_by_signature(participant_public_key: bytes, payload: Payload | TaskClaim, parameters: RoundParameters) -> None:
    """Check that a participant has the task it claims, from the task signatures in its payload (spec 9.2).

    The sum task goes first: who is selected for it cannot be an update participant.

    Raises:
        RemoteProtocolError: "not_sum_eligible", "not_update_eligible"; "invalid_sum_signature" in an update (xaynet lets that
            pass, which would free a participant from its sum task).
    """
    (valid,) = verify_groups([task_claims(participant_public_key, payload, parameters)])
    require_task(payload, parameters, valid)


def task_claims(participant_public_key: bytes, payload: Payload | TaskClaim, parameters: RoundParameters) -> list[Claim]:
    """Return the signatures that a task rests on: the one of the sum task, then that of an update who may make one."""
    claims = [task_claim(payload.sum_signature, participant_public_key, parameters.seed, SUM_TASK)]
    if _is_update(payload) and not is_eligible(payload.sum_signature, parameters.sum_probability):
        claims.append(task_claim(payload.update_signature, participant_public_key, parameters.seed, UPDATE_TASK))
    return claims


def require_task(payload: Payload | TaskClaim, parameters: RoundParameters, valid: int) -> None:
    """Check that a participant has the task it claims, as `check_task_by_signature`.

    Args:
        payload: what it claims.
        parameters: of the round.
        valid: how many of the first of its `task_claims` are.

    Raises:
        RemoteProtocolError: as `check_task_by_signature`.
    """
    if not _is_update(payload):
        if not (valid and is_eligible(payload.sum_signature, parameters.sum_probability)):
            raise RemoteProtocolError("not_sum_eligible", "expected a sum participant of this round, got another participant")
        return
    if not valid:
        raise RemoteProtocolError("invalid_sum_signature", "expected a valid sum signature in an update, got an invalid one")
    # Who is a sum participant has no second claim.
    if valid < 2 or not is_eligible(payload.update_signature, parameters.update_probability):
        raise RemoteProtocolError(
            "not_update_eligible", "expected an update participant of this round, got another participant"
        )


def _is_update(payload: Payload | TaskClaim) -> TypeGuard[UpdatePayload | TaskClaim]:
    return payload.tag is Tag.UPDATE


@dataclass(frozen=True, slots=True)
class TaskAllowList:
    """Check that a participant is on the list of those who have the task it claims; for `Strategies.check_task`.

    Attributes:
        sum_keys: public keys of those who may be sum participants.
        update_keys: public keys of those who may be update participants. A key on both lists could unmask itself out of the
            sum, so one that is makes no sense.

    Raises:
        ConfigError: a key is on both lists.
    """

    sum_keys: frozenset[bytes]
    update_keys: frozenset[bytes]

    def __post_init__(self) -> None:
        if both := self.sum_keys & self.update_keys:
            raise ConfigError(f"allow list: expected each key for one task, got {len(both)} for two")

    def __call__(self, participant_public_key: bytes, payload: Payload | TaskClaim, parameters: RoundParameters) -> None:
        """Check one payload; its task signatures must be those of the round, though they decide nothing.

        Raises:
            RemoteProtocolError: "not_sum_eligible", "not_update_eligible".
        """
        if _is_update(payload):
            keys, task, reason, signature = self.update_keys, UPDATE_TASK, "not_update_eligible", payload.update_signature
        else:
            keys, task, reason, signature = self.sum_keys, SUM_TASK, "not_sum_eligible", payload.sum_signature
        if participant_public_key not in keys or not verify_task(signature, participant_public_key, parameters.seed, task):
            raise RemoteProtocolError(reason, "expected a participant that this round was announced with, got another one")


#: How a participant finds out its task: takes its sum signature, its update signature and the round's parameters; returns
#: SUM_TASK, UPDATE_TASK, or None for neither.
TaskChoice: TypeAlias = Callable[[bytes, bytes, RoundParameters], bytes | None]


def choose_task_by_signature(sum_signature: bytes, update_signature: bytes, parameters: RoundParameters) -> bytes | None:
    """Find out the task of a round by chance; the sum task wins (spec 1.7)."""
    if is_eligible(sum_signature, parameters.sum_probability):
        return SUM_TASK
    return UPDATE_TASK if is_eligible(update_signature, parameters.update_probability) else None


def take_assigned_task(task: bytes) -> TaskChoice:
    """Return a choice that is always the same: for a key that was made for one task."""

    def choose(_sum_signature: bytes, _update_signature: bytes, _parameters: RoundParameters) -> bytes | None:
        return task

    return choose


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategies:
    """How a coordinator decides what the protocol leaves to its profile; the defaults are PET's.

    Attributes:
        admit: takes a public key; raises RemoteProtocolError for a participant that may not take part at all.
        check_task: takes a public key, a whole payload and the round's parameters; raises RemoteProtocolError.
        choose_mask: takes the votes; raises UnmaskError where there is no choice.
    """

    admit: Callable[[bytes], None] = admit_anybody
    check_task: Callable[[bytes, Any, RoundParameters], None] = check_task_by_signature
    choose_mask: Callable[[MaskVotes], Mask] = choose_by_plurality

    @property
    def checks_signatures_alone(self) -> bool:
        """Whether `check_task` takes a `TaskClaim` as well: pet's own do, others are given whole payloads."""
        return self.check_task is check_task_by_signature or isinstance(self.check_task, TaskAllowList)


#: PET's own.
DEFAULT_STRATEGIES: Final = Strategies()
