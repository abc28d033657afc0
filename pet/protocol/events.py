"""What a coordinator tells its owner: one frozen record per thing that happened.

The owner (a service, a test, somebody's training loop) takes them with `Coordinator.next_event()` and acts: it publishes,
stores, logs, counts. An event is complete in itself; nobody has to look into the coordinator to use it. This file knows neither
when events are made nor how they are used.

Order that the owner can rely on: `PhaseEntered` comes before whatever is published at the start of that phase, so a participant
that sees a dictionary can already answer it (docs/spec/pet.md 1.3, 13).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, final

from pet.global_model import GlobalModel
from pet.messages import EncodedSeeds, MessageTag, RoundParameters
from pet.protocol.phases import Phase


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEntered:
    """The coordinator is in a new phase; messages are judged by this phase from now on."""

    round_id: int
    phase: Phase


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ParametersPublished:
    """A round began: `/params` changes to these. Participants take any change as a new round."""

    round_id: int
    parameters: RoundParameters


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SumDictionaryPublished:
    """The Sum phase ended: `/sums` becomes this.

    Attributes:
        round_id: which round.
        sum_dictionary: ephemeral public key by public key of each sum participant; read-only and final.
        signed_sums: each sum participant's Sum message as it came, signature first, where the messages carried their
            bytes; with them a participant can notice keys that the coordinator made up.
    """

    round_id: int
    sum_dictionary: Mapping[bytes, bytes] = field(repr=False)
    signed_sums: Mapping[bytes, bytes] = field(repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SeedDictionaryPublished:
    """The Update phase ended: `/seeds` becomes this.

    Attributes:
        round_id: which round.
        seed_dictionary: by sum participant, the encrypted mask seed by update participant; read-only and final.
    """

    round_id: int
    seed_dictionary: Mapping[bytes, EncodedSeeds] = field(repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DictionariesWithdrawn:
    """The dictionaries of this round are no longer needed: `/sums` and `/seeds` become empty."""

    round_id: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPublished:
    """The round has a result: `/model` becomes this, and stays until the next one."""

    round_id: int
    model: GlobalModel


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFailed:
    """The round ended without a model; the last one stays, the next round begins at once.

    Attributes:
        round_id: which round.
        reason: one of FAILURE_REASONS.
        description: a sentence for people, without secrets.
    """

    round_id: int
    reason: str
    description: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReopened:
    """Nobody joined the round until its time-out; the next one, with other keys and another seed, takes its place at once.

    No failure: nothing was lost, and the new seed draws the tasks again.

    Attributes:
        round_id: the round that ended; the next one has the next number.
        description: a sentence for people.
    """

    round_id: int
    description: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAccepted:
    """A whole message (reassembled, if it came in chunks) was taken into the round."""

    round_id: int
    tag: MessageTag
    participant_public_key: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRefused:
    """A message was refused; nothing but the counter of this reason changed.

    Attributes:
        round_id: the round it was refused in.
        phase: the phase it was refused in.
        reason: a short stable identifier; docs/protocol.md lists them.
    """

    round_id: int
    phase: Phase
    reason: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDiscarded:
    """A message of the right kind came when the phase had its maximum count already; nobody looked at it."""

    round_id: int
    phase: Phase


#: What happens in the rounds of every variant of the protocol.
MachineEvent: TypeAlias = PhaseEntered | RoundFailed | RoundReopened | MessageAccepted | MessageRefused | MessageDiscarded

#: What is published in rounds of xaynet's profile.
Publication: TypeAlias = (
    ParametersPublished | SumDictionaryPublished | SeedDictionaryPublished | DictionariesWithdrawn | ModelPublished
)

Event: TypeAlias = MachineEvent | Publication
