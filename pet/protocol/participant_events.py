"""What a participant asks of the wire (requests), and what it tells the application (events).

Plain values: nothing here knows how a request is carried out, or what the application does about an event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np

from pet.buffers import Buffer
from pet.mask_config import MaskConfig
from pet.messages import MessageTag, RoundParameters
from pet.pet1.inclusion import Inclusion
from pet.pet1.round_record import RoundRecord


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetParameters:
    """Fetch the round parameters; answer with their bytes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetSums:
    """Fetch the sum dictionary; answer with its bytes, or None while there is none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetSeeds:
    """Fetch the seed dictionary of one sum participant; answer with its bytes, or None while there is none."""

    public_key: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SendMessage:
    """Deliver a sealed message; answer with None once it arrived. The body must not be changed."""

    body: Buffer = field(repr=False)


Request = GetParameters | GetSums | GetSeeds | SendMessage


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedRound:
    """The round that a participant follows, in the words of every profile.

    Attributes:
        digest: names it: of its parameters, or of its record.
        config: how weights are masked.
        model_length: number of weights.
    """

    digest: bytes
    config: MaskConfig
    model_length: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NewRound:
    """The round parameters changed: everything of the round before is given up. A new global model may be there.

    Attributes:
        parameters: of the new round; under pet/1 its record.
    """

    parameters: RoundParameters | RoundRecord


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SumSelected:
    """This participant is a sum participant of the round."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSelected:
    """This participant is an update participant of the round."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWanted:
    """No model is held: nothing goes on before `set_model` is called with `length` weights of type `dtype`."""

    dtype: np.dtype[np.generic]
    length: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NotSelected:
    """This participant has no task in the round."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMasked:
    """The model was taken and masked. `clipped_count` weights lay beyond the bound of the mask config."""

    clipped_count: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDropped:
    """The held model does not fit the parameters of the new round and is gone."""

    description: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDelivered:
    """A whole message, chunks and all, reached the coordinator, and nothing says that it came too late.

    A Sum or Update message: the round was the same after the last part, and the message was in the dictionary of its phase if
    that was published already. A Sum2 message: its last part was taken. Whether the coordinator accepted it cannot be known.
    An Update message of pet/1: the coordinator says that all of it is there, and durable.
    """

    tag: MessageTag


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLate:
    """A message came too late: its round was over, or its phase, before the whole of it had reached the coordinator.

    Known from other round parameters, or from a dictionary without the message. A coordinator that refused the message, or
    completed the round within the moment between the last part and the question, looks the same.
    """

    tag: MessageTag


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSplit:
    """A message was refused for its size; it goes out once more, in chunks, as will those of later rounds.

    Attributes:
        max_message_size: largest sealed message from now on, in bytes.
        description: why, a sentence for people.
    """

    max_message_size: int
    description: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRefused:
    """An answer of the coordinator could not be used; the state is as before and the request will be made again.

    Attributes:
        request: name of the request: "parameters", "sums" or "seeds"; under pet/1 the name of a document, or "update".
        reason: the reason of the `RemoteProtocolError`.
        description: its text.
    """

    request: str
    reason: str
    description: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAbandoned:
    """The task of the round cannot be finished; the participant waits for the next round without a message.

    Attributes:
        reason: "unusable_seed", "too_many_seeds", "message_too_large", "message_refused" or "already_signed"; under pet/1
            also what the coordinator refused the update with.
        description: a sentence for people.
    """

    reason: str
    description: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentUsed:
    """Rounds of pet/1 go by this enrolment from now on.

    Attributes:
        description: who must collude to read a single update, for people.
    """

    description: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateJudged:
    """The members of a round of pet/1 have signed what is in its sum.

    Attributes:
        inclusion: whether this participant's update is.
    """

    inclusion: Inclusion


Event = (
    NewRound
    | SumSelected
    | UpdateSelected
    | ModelWanted
    | NotSelected
    | ModelMasked
    | ModelDropped
    | MessageDelivered
    | MessageLate
    | MessageSplit
    | AnswerRefused
    | TaskAbandoned
    | EnrolmentUsed
    | UpdateJudged
)
