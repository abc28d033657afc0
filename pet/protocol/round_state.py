"""The state of a coordinator as a value: what has to be kept between two calls, and nothing else.

It can be copied and saved, and a coordinator goes on from a copy exactly as from the original. These records only hold; what is
allowed to change them is in pet/protocol/round_machine.py and pet/protocol/intake.py. `RoundState` is xaynet's; a round of
another variant of the protocol holds something else, in the same `MachineState`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, TypeAlias

from pet.aggregation import Aggregation
from pet.crypto import EncryptionKeyPair
from pet.messages import ChunkCollector, ChunkStore, EncodedSeeds, MessageTag, RoundParameters
from pet.protocol.phases import Phase
from pet.protocol.profile import CollectingWindow, RoundT
from pet.protocol.round_settings import RoundSettings
from pet.protocol.votes import MaskVotes


@dataclass(slots=True)
class RoundState:
    """One round: its keys, and what participants have brought to it so far.

    Attributes:
        keys: the coordinator's key pair of this round; hidden in repr by its type.
        parameters: as published to participants.
        aggregation: the sum of the masked models.
        chunks: pieces of unfinished messages of the current phase.
        sum_dictionary: ephemeral public key by sum participant.
        signed_sums: each Sum message as it came (signature first), by sum participant, where its bytes are known: with them
            participants can notice keys that the coordinator made up.
        seed_dictionary: by sum participant, the encrypted mask seed by update participant.
        update_participants: whose update is in the sum.
        votes: the masks that sum participants submitted.
    """

    keys: EncryptionKeyPair
    parameters: RoundParameters
    aggregation: Aggregation
    chunks: ChunkCollector
    sum_dictionary: dict[bytes, bytes] = field(default_factory=dict)
    signed_sums: dict[bytes, bytes] = field(default_factory=dict)
    seed_dictionary: dict[bytes, EncodedSeeds] = field(default_factory=dict)
    update_participants: set[bytes] = field(default_factory=set)
    votes: MaskVotes = field(default_factory=MaskVotes)

    @classmethod
    def begin(
        cls,
        settings: RoundSettings,
        keys: EncryptionKeyPair,
        parameters: RoundParameters,
        chunk_store: ChunkStore | None = None,
    ) -> Self:
        """Return a round that nobody has taken part in yet."""
        return cls(
            keys=keys,
            parameters=parameters,
            aggregation=Aggregation(settings.mask_config, settings.model_length),
            chunks=ChunkCollector(settings.chunk_limits, chunk_store),
        )


@dataclass(slots=True)
class PhaseCounters:
    """The outcomes of the messages of the current phase.

    Attributes:
        accepted: taken into the round; only these count for the phase's window.
        rejected: refused, by reason.
        discarded: beyond the maximum count, not looked at.
    """

    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    discarded: int = 0


@dataclass(slots=True)
class MachineState(Generic[RoundT]):
    """A whole coordinator.

    Attributes:
        phase: where it is.
        phase_started_seconds: when the phase began, on the owner's clock.
        round_id: number of the current round; of the last one before the first Idle.
        seed: round seed of the current round, from which the next one's is derived.
        round: the current round; None before the first.
        counters: of the current phase.
        rounds_completed: rounds that gave a model.
        rounds_failed: rounds that did not.
        rounds_reopened: rounds that nobody joined, and that the next one took the place of; they did not fail.
    """

    phase: Phase
    phase_started_seconds: float
    round_id: int
    seed: bytes
    round: RoundT | None = None
    counters: PhaseCounters = field(default_factory=PhaseCounters)
    rounds_completed: int = 0
    rounds_failed: int = 0
    rounds_reopened: int = 0


#: The state of a coordinator of xaynet's profile.
CoordinatorState: TypeAlias = MachineState[RoundState]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a phase that collects messages waits for.

    Attributes:
        kind: the kind of message it takes.
        needed: how many accepted messages it needs.
        present: how many it has.
        seconds: how long the phase has lasted.
        reopens_at_time_out: what a time-out would do now: open the round anew, or let it fail.
    """

    kind: MessageTag
    needed: int
    present: int
    seconds: float
    reopens_at_time_out: bool

    @property
    def missing(self) -> int:
        """How many messages have yet to come; 0 once there are enough, and only the minimum time is not over."""
        return max(0, self.needed - self.present)

    def to_json_dict(self) -> dict[str, Any]:
        """Return the record under its public names, ready for JSON."""
        return {
            "kind": self.kind.name.lower(),
            "needed": self.needed,
            "present": self.present,
            "missing": self.missing,
            "seconds": self.seconds,
            "at_time_out": "reopen" if self.reopens_at_time_out else "failure",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What anybody may know about a coordinator at some moment: the record of `GET /status`.

    Attributes:
        round_id: number of the current round.
        phase: the current phase.
        accepted: messages of this phase that were taken.
        rejected: messages of this phase that were refused, by reason.
        discarded: messages of this phase that came after its maximum count.
        seconds_left: until the phase times out; None in a phase that takes no messages.
        rounds_completed: rounds that gave a model, since the coordinator was created.
        rounds_failed: rounds that did not.
        rounds_reopened: rounds that nobody joined, and that the next one took the place of.
        waiting: what the phase waits for; None in a phase that takes no messages.
    """

    round_id: int
    phase: Phase
    accepted: int
    rejected: dict[str, int]
    discarded: int
    seconds_left: float | None
    rounds_completed: int
    rounds_failed: int
    rounds_reopened: int
    waiting: Waiting | None

    @classmethod
    def of(
        cls,
        state: MachineState[RoundT],
        now_seconds: float,
        collecting: tuple[MessageTag, CollectingWindow] | None,
        reopens_at_time_out: bool,
    ) -> Self:
        """Read it off a state.

        Args:
            state: of a coordinator.
            now_seconds: the time now.
            collecting: what the current phase takes and until when; None if it takes no messages.
            reopens_at_time_out: whether a time-out now would open the round anew.
        """
        seconds_left = waiting = None
        if collecting is not None:
            kind, window = collecting
            seconds_left = max(0.0, state.phase_started_seconds + window.max_seconds - now_seconds)
            waiting = Waiting(
                kind=kind,
                needed=window.min_count,
                present=state.counters.accepted,
                seconds=max(0.0, now_seconds - state.phase_started_seconds),
                reopens_at_time_out=reopens_at_time_out,
            )
        return cls(
            round_id=state.round_id,
            phase=state.phase,
            accepted=state.counters.accepted,
            rejected=dict(state.counters.rejected),
            discarded=state.counters.discarded,
            seconds_left=seconds_left,
            rounds_completed=state.rounds_completed,
            rounds_failed=state.rounds_failed,
            rounds_reopened=state.rounds_reopened,
            waiting=waiting,
        )

    def later(self, seconds: float) -> Self:
        """Return what the status is if nothing but so much time has passed since it was read."""
        return replace(
            self,
            seconds_left=None if self.seconds_left is None else max(0.0, self.seconds_left - seconds),
            waiting=None if self.waiting is None else replace(self.waiting, seconds=self.waiting.seconds + seconds),
        )

    def to_json_dict(self) -> dict[str, Any]:
        """Return the record under its public names, ready for JSON."""
        return {
            "round": self.round_id,
            "phase": self.phase.value,
            "accepted": self.accepted,
            "rejected": dict(self.rejected),
            "discarded": self.discarded,
            "seconds_left": self.seconds_left,
            "rounds_completed": self.rounds_completed,
            "rounds_failed": self.rounds_failed,
            "rounds_reopened": self.rounds_reopened,
            "waiting": None if self.waiting is None else self.waiting.to_json_dict(),
        }
