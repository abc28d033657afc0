"""Whether a message that was sent came in time: where a coordinator shows it, and what its answer means.

A coordinator answers every message alike, those it drops included (docs/spec/pet.md 9.3). What it publishes at the end of a
phase says more: whose Sum messages count stands in the sum dictionary, whose updates count in the seed dictionary of every sum
participant. So the sender looks once, right after the last part of its message. Nothing published means that the phase was
still open, as far as a participant can see; a message that is missing from what is published came too late, or was refused.

Pure values; nothing here knows a state, and no answer changes what the participant does next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pet.messages import RoundParameters, Tag
from pet.protocol.participant_checks import read_seed_holders, read_sums
from pet.protocol.participant_events import GetSeeds, GetSums


@dataclass(frozen=True, slots=True, kw_only=True)
class SentSum:
    """A Sum message that was sent.

    Attributes:
        public_key: the sender's signing key.
        ephemeral_public_key: what it announced; another one under the same signing key is of another message.
    """

    tag: ClassVar[Tag] = Tag.SUM
    public_key: bytes
    ephemeral_public_key: bytes

    def question(self) -> GetSums:
        """Return what to ask the coordinator for."""
        return GetSums()

    def is_missing(self, answer: bytes, parameters: RoundParameters) -> bool:  # noqa: ARG002 - the same call for both kinds
        """Return whether the sum dictionary lacks the message.

        Raises:
            RemoteProtocolError: it is no sum dictionary.
        """
        return read_sums(answer).get(self.public_key) != self.ephemeral_public_key


@dataclass(frozen=True, slots=True, kw_only=True)
class SentUpdate:
    """An Update message that was sent.

    Attributes:
        public_key: the sender's signing key.
        sum_participant: the signing key of one whose seed dictionary has a seed from each update that counts; None if no such
            key is known any longer, after a restart.
    """

    tag: ClassVar[Tag] = Tag.UPDATE
    public_key: bytes
    sum_participant: bytes | None

    def question(self) -> GetSeeds | None:
        """Return what to ask the coordinator for; None if nothing would help."""
        return GetSeeds(public_key=self.sum_participant) if self.sum_participant is not None else None

    def is_missing(self, answer: bytes, parameters: RoundParameters) -> bool:
        """Return whether the seed dictionary lacks the message.

        Raises:
            RemoteProtocolError: it is no seed dictionary of the round.
        """
        return self.public_key not in read_seed_holders(answer, parameters)


#: A message of which the participant does not know yet whether it came in time.
SentMessage = SentSum | SentUpdate
