"""The coordinator's side of the protocol: messages and time in, events out. No I/O, no clock, no threads, no randomness.

The owner of a `Coordinator` tells it the time (`advance_time`), hands it opened messages (`receive`) and takes its events
(`next_event`) after each of these calls. All times are seconds on one clock of the owner's choice that does not go backwards.
Calls must not overlap. Everything it remembers is in `state`; with the settings, the same entropy and the same calls, a round
runs again exactly as it did (pet/protocol/replay.py).

Which phase follows which is in pet/protocol/phases.py, what a message does to a round in pet/protocol/intake.py. Message bytes,
sockets, storage and logs are none of this file's business.

Source: docs/spec/pet.md 1.3, 1.8, 6.3, 9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pet.crypto import EncryptionKeyPair, derive_round_seed
from pet.errors import RemoteProtocolError, UnmaskError
from pet.messages import PET_PROFILE, Chunk, ChunkStore, Message, Payload, Profile, RoundParameters, Tag
from pet.protocol import events
from pet.protocol.announcements import announcements_of, publish_seed_dictionary, publish_sum_dictionary
from pet.protocol.entries import Entry
from pet.protocol.events import Event
from pet.protocol.intake import require_first, take_payload
from pet.protocol.phases import ACCEPTED_TAG, Phase, Trigger, next_phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import CoordinatorState, PhaseCounters, RoundState, Status
from pet.protocol.strategies import DEFAULT_STRATEGIES, Strategies
from pet.protocol.windows import PhaseWindow, WindowState

__all__ = ["Coordinator", "PhaseWindow", "RoundSettings", "Status"]

#: The seed of round 0, which never runs (spec 1.5).
ZERO_SEED: Final = bytes(32)

#: The reason of a message beyond the maximum count: counted apart from refusals.
DISCARDED: Final = "discarded"

#: Why a round can fail. "unmasking" stands for everything else that UnmaskError can say; the description has it.
FAILURE_REASONS: Final = ("timeout", "no_mask", "ambiguous_masks", "zero_scalar_sum", "unmasking")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the work of a phase came to: why it ends, and what to tell once the next phase was announced."""

    trigger: Trigger
    announcements: tuple[Event, ...] = ()


class Coordinator:
    """A coordinator that runs one round after the other.

    It begins in IDLE, before its first round; the first `advance_time` takes it into SUM.

    Args:
        settings: how rounds are run. `next_settings` can be replaced at any time: they count from the next round on.
        now_seconds: the time now.
        entropy: returns as many random bytes as it is asked for; `os.urandom` outside of tests. The keys of each round grow
            from 32 of them.
        round_id: number of the last round there was; the first one here has the next.
        seed: round seed of that round.
        strategies: who takes part, with which task, and which mask counts.
        profile: the variant of the protocol.
        chunk_store: where the pieces of unfinished messages lie; in memory if not given.
    """

    def __init__(
        self,
        settings: RoundSettings,
        *,
        now_seconds: float,
        entropy: Callable[[int], bytes],
        round_id: int = 0,
        seed: bytes = ZERO_SEED,
        strategies: Strategies = DEFAULT_STRATEGIES,
        profile: Profile = PET_PROFILE,
        chunk_store: ChunkStore | None = None,
    ) -> None:
        self.settings = settings
        self.next_settings = settings
        self.state = CoordinatorState(Phase.IDLE, now_seconds, round_id, seed)
        self._entropy: Final = entropy
        self._strategies: Final = strategies
        self._profile: Final = profile
        self._chunk_store: Final = chunk_store
        self._events: deque[Event] = deque()
        self._windows = _windows_of(settings)
        #: The last time there was: chunks are taken then.
        self._now_seconds = now_seconds

    @classmethod
    def from_state(
        cls,
        settings: RoundSettings,
        state: CoordinatorState,
        *,
        entropy: Callable[[int], bytes],
        strategies: Strategies = DEFAULT_STRATEGIES,
        profile: Profile = PET_PROFILE,
        chunk_store: ChunkStore | None = None,
    ) -> Coordinator:
        """Go on from a state that another coordinator was in; the state is not copied.

        Args:
            settings: those of the round in the state.
            state: where the other coordinator was.
            entropy: as for the class.
            strategies: as for the class.
            profile: as for the class.
            chunk_store: as for the class; for the rounds that follow.
        """
        coordinator = cls(
            settings,
            now_seconds=state.phase_started_seconds,
            entropy=entropy,
            strategies=strategies,
            profile=profile,
            chunk_store=chunk_store,
        )
        coordinator.state = state
        return coordinator

    # ---- what can be asked --------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Where the coordinator is."""
        return self.state.phase

    @property
    def round_id(self) -> int:
        """Number of the current round, from 1; before the first, the number given at construction."""
        return self.state.round_id

    @property
    def parameters(self) -> RoundParameters | None:
        """What participants need to know of the current round; None before the first."""
        return None if self.state.round is None else self.state.round.parameters

    @property
    def encryption_keys(self) -> EncryptionKeyPair | None:
        """The keys that open messages of the current round; None before the first."""
        return None if self.state.round is None else self.state.round.keys

    @property
    def accepted_tag(self) -> Tag | None:
        """The one kind of message that is taken now; None if none is."""
        return ACCEPTED_TAG.get(self.state.phase)

    def next_deadline_seconds(self) -> float | None:
        """Return when `advance_time` should be called next if no message comes before; None after `shut_down`.

        A message can bring the time forward: ask again after each.
        """
        window = self._windows.get(self.state.phase)
        if window is not None:
            return window.deadline_seconds(self.state.phase_started_seconds, self.state.counters.accepted)
        # The other phases are passed through. If memory ran out on the way, their work is still to be done.
        return None if self.state.phase is Phase.SHUTDOWN else self.state.phase_started_seconds

    def status(self, now_seconds: float) -> Status:
        """Return what anybody may know now."""
        return Status.of(self.state, self._windows.get(self.state.phase), now_seconds)

    def announce_again(self) -> None:
        """Emit what the owner of a fresh coordinator would have heard of the round that a state is in: for a restart."""
        self._events.extend(announcements_of(self.state))

    def next_event(self) -> Event | None:
        """Take the oldest event that nobody took yet; None if there is none."""
        return self._events.popleft() if self._events else None

    # ---- what can happen ----------------------------------------------------------------------------------------------

    def advance_time(self, now_seconds: float) -> None:
        """Let the deadlines up to now pass; several phases can end in one call.

        A phase that follows begins now, not at the deadline of the one before: participants cannot have known of it earlier.
        """
        self._now_seconds = now_seconds
        if self.state.round is None and self.state.phase is Phase.IDLE:
            self._enter(Phase.IDLE, now_seconds)
        while (outcome := self._work(now_seconds)) is not None:
            self._enter(next_phase(self.state.phase, outcome.trigger), now_seconds)
            self._events.extend(outcome.announcements)

    def receive(self, message: Message, now_seconds: float) -> Entry | None:
        """Take a message that was opened and whose signature was verified, after letting the deadlines up to now pass.

        Adding a masked model happens in this call. A refused message fails alone: it is counted, and nothing else is changed.
        (If the last chunk of a message completes something that is refused, all its chunks go.)

        Returns:
            What the message left in its round, which the deadlines may have ended meanwhile; None for a chunk while others
            of its message are missing.

        Raises:
            RemoteProtocolError: the message is refused; docs/protocol.md lists the reasons. Already counted.
        """
        self.advance_time(now_seconds)
        entry = self.take(message)
        self.advance_time(now_seconds)
        return entry

    def take(self, message: Message) -> Entry | None:
        """Take a message as `receive` does, but let no time pass, for an owner that has more to do in between."""
        try:
            return self._take(message)
        except RemoteProtocolError as error:
            self.refuse(error.reason)
            raise

    def refuse(self, reason: str) -> None:
        """Count a message that was refused for `reason`, here or before it came here (it did not open, for example)."""
        state = self.state
        if reason == DISCARDED:
            state.counters.discarded += 1
            self._emit(events.MessageDiscarded(round_id=state.round_id, phase=state.phase))
            return
        state.counters.rejected[reason] += 1
        self._emit(events.MessageRefused(round_id=state.round_id, phase=state.phase, reason=reason))

    def shut_down(self) -> None:
        """Accept nothing from now on. The round in progress is lost; calling it twice does no harm."""
        if self.state.phase is Phase.SHUTDOWN:
            return
        self._enter(next_phase(self.state.phase, Trigger.SHUT_DOWN), self.state.phase_started_seconds)
        self._emit(events.DictionariesWithdrawn(round_id=self.state.round_id))

    # ---- messages -----------------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> Entry | None:
        """Take a message into the round: all checks in the order of docs/protocol.md, then the change.

        Raises:
            RemoteProtocolError: the message is refused, the round is as before.
        """
        current = self._round_for(message)
        payload = self._reassemble(current, message)
        if payload is None:
            return None
        public_key = message.participant_public_key
        self._strategies.admit(public_key)
        self._strategies.check_task(public_key, payload, current.parameters)
        entry = take_payload(current, message, payload)
        self.state.counters.accepted += 1
        self._emit(events.MessageAccepted(round_id=self.state.round_id, tag=message.tag, participant_public_key=public_key))
        return entry

    def _round_for(self, message: Message) -> RoundState:
        """Return the round that a message may belong to, from what its header says.

        Raises:
            RemoteProtocolError: "shut_down", "unexpected_message", "wrong_coordinator_key", "discarded".
        """
        current, phase = self.state.round, self.state.phase
        if phase is Phase.SHUTDOWN or current is None:
            raise RemoteProtocolError("shut_down", "expected no message after the end, got one")
        expected = ACCEPTED_TAG.get(phase)
        if message.tag is not expected:
            raise RemoteProtocolError(
                "unexpected_message",
                f"phase {phase.value}: expected {expected.name if expected else 'no message'}, got {message.tag.name}",
            )
        # The message may have been opened with the keys of a round that ended meanwhile.
        if message.coordinator_public_key != current.keys.public_key:
            raise RemoteProtocolError("wrong_coordinator_key", "expected the coordinator's key of this round, got another one")
        if self._windows[phase].is_full(self.state.counters.accepted):
            raise RemoteProtocolError(
                DISCARDED, f"phase {phase.value}: expected at most {self._windows[phase].max_count} messages"
            )
        return current

    def _reassemble(self, current: RoundState, message: Message) -> Payload | None:
        """Return the whole payload; None if the message is a chunk and others are missing.

        Raises:
            RemoteProtocolError: a chunk that cannot be stored, or chunks that make up no payload; these are dropped.
        """
        if not isinstance(message.payload, Chunk):
            return message.payload
        # What is in the round already needs no room: the last chunk may come again if its answer was lost.
        require_first(current, message.participant_public_key, message.tag)
        whole = current.chunks.add(message.participant_public_key, message.tag, message.payload, self._now_seconds)
        return None if whole is None else self._profile.payload_decoders[message.tag](whole)

    # ---- phases -------------------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase, now_seconds: float) -> None:
        state = self.state
        if phase is Phase.IDLE:
            state.round_id += 1
        if state.round is not None:
            # Spec 13: a chunk that waits for the rest of its message must not outlive the phase that wanted it.
            state.round.chunks.clear()
        state.phase = phase
        state.phase_started_seconds = now_seconds
        state.counters = PhaseCounters()
        self._emit(events.PhaseEntered(round_id=state.round_id, phase=phase))

    def _work(self, now_seconds: float) -> _Outcome | None:
        """Do what is to be done in the current phase; None if it has to wait for messages or time."""
        phase = self.state.phase
        if phase in self._windows:
            return self._check_window(now_seconds)
        if phase is Phase.IDLE:
            return self._begin_round()
        if phase is Phase.UNMASK:
            return self._unmask()
        return _Outcome(Trigger.FAILURE_RECORDED) if phase is Phase.FAILURE else None

    def _begin_round(self) -> _Outcome:
        """Draw the keys of a round and derive its seed (spec 1.5)."""
        settings, state = self.next_settings, self.state
        self.settings, self._windows = settings, _windows_of(settings)
        keys = EncryptionKeyPair.from_seed(self._entropy(32))
        state.seed = derive_round_seed(keys, state.seed, settings.sum_probability, settings.update_probability)
        parameters = RoundParameters(
            coordinator_public_key=keys.public_key,
            sum_probability=settings.sum_probability,
            update_probability=settings.update_probability,
            seed=state.seed,
            mask_config=settings.mask_config,
            model_length=settings.model_length,
        )
        state.round = RoundState.begin(settings, keys, parameters, self._chunk_store)
        published = events.ParametersPublished(round_id=state.round_id, parameters=parameters)
        return _Outcome(Trigger.PARAMETERS_DRAWN, (published,))

    def _check_window(self, now_seconds: float) -> _Outcome | None:
        """End a phase that collects messages, if it is time (spec 6.3)."""
        state = self.state
        window = self._windows[state.phase]
        window_state = window.state(state.phase_started_seconds, now_seconds, state.counters.accepted)
        if window_state is WindowState.OPEN:
            return None
        if window_state is WindowState.COMPLETE:
            return _Outcome(Trigger.ENOUGH_MESSAGES, (self._publish_collected(),))
        expected = f"phase {state.phase.value}: expected {window.min_count} messages within {window.max_seconds:g} seconds"
        if state.reopens_at_time_out:
            return self._reopen(f"{expected}, nobody joined")
        hint = ": too few sum participants joined" if state.phase is Phase.SUM else ""
        return self._fail("timeout", f"{expected}, got {state.counters.accepted}{hint}")

    def _publish_collected(self) -> Event:
        """Return what the phase that ends has for the participants of the next one."""
        state = self.state
        assert state.round is not None, "messages are collected in a round only"
        if state.phase is Phase.SUM:
            return publish_sum_dictionary(state.round_id, state.round)
        if state.phase is Phase.UPDATE:
            return publish_seed_dictionary(state.round_id, state.round)
        return events.DictionariesWithdrawn(round_id=state.round_id)

    def _unmask(self) -> _Outcome:
        """Choose a mask and take it off the sum; without a mask, or without a mean, the round fails."""
        state = self.state
        assert state.round is not None, "there is something to unmask in a round only"
        try:
            mask = self._strategies.choose_mask(state.round.votes)
            model = state.round.aggregation.unmask(mask)
            # A model that nobody could read would take the place of one that everybody can.
            model.validate()
        except UnmaskError as error:
            reason = error.reason if error.reason in FAILURE_REASONS else "unmasking"
            return self._fail(reason, f"{error.reason}: {error}")
        state.rounds_completed += 1
        # Not an invitation to send anything, so it need not wait for the next phase; and the next round comes after it.
        self._emit(events.ModelPublished(round_id=state.round_id, model=model))
        return _Outcome(Trigger.MODEL_UNMASKED)

    def _reopen(self, description: str) -> _Outcome:
        """Let the next round take the place of one that nobody joined: its new seed draws the tasks again."""
        self.state.rounds_reopened += 1
        self._emit(events.RoundReopened(round_id=self.state.round_id, description=description))
        return _Outcome(Trigger.NOBODY_JOINED)

    def _fail(self, reason: str, description: str) -> _Outcome:
        """Give the round up (spec 1.8)."""
        state = self.state
        state.rounds_failed += 1
        return _Outcome(
            Trigger.ROUND_FAILED,
            (
                events.RoundFailed(round_id=state.round_id, reason=reason, description=description),
                events.DictionariesWithdrawn(round_id=state.round_id),
            ),
        )

    def _emit(self, event: Event) -> None:
        self._events.append(event)


def _windows_of(settings: RoundSettings) -> dict[Phase, PhaseWindow]:
    return {Phase.SUM: settings.sum, Phase.UPDATE: settings.update, Phase.SUM2: settings.sum2}
