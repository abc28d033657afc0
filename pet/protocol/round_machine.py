"""The coordinator's side of any variant of the protocol: messages and time in, events out. No I/O, clock, threads, randomness.

The owner of a machine tells it the time (`advance_time`), hands it opened messages (`receive`) and takes its events
(`next_event`) after each of these calls. All times are seconds on one clock of the owner's choice that does not go backwards.
Calls must not overlap. Everything it remembers is in `state`; with the settings, the same entropy and the same calls, a round
runs again exactly as it did (pet/protocol/replay.py).

What differs between variants is in their `Profile`: which phase follows which, what a message does to a round, what is
published. Message bytes, sockets, storage and logs are none of this file's business.

Source: docs/spec/pet.md 1.3, 1.8, 6.3, 9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic

from pet.crypto import EncryptionKeyPair
from pet.errors import RemoteProtocolError
from pet.messages import Chunk, ChunkStore, Message, MessageTag
from pet.protocol import events
from pet.protocol.events import MachineEvent
from pet.protocol.message_checks import DISCARDED, SenderCheck, require_round
from pet.protocol.phases import Phase, Trigger
from pet.protocol.profile import EntryT, EventT, Profile, RoundFailure, RoundStart, RoundT, SettingsT
from pet.protocol.round_state import MachineState, PhaseCounters, Status
from pet.protocol.windows import WindowState

#: The seed of round 0, which never runs (spec 1.5).
ZERO_SEED: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the work of a phase came to: why it ends, and what to tell once the next phase was announced."""

    trigger: Trigger
    announcements: tuple[Any, ...] = ()


class RoundMachine(Generic[SettingsT, RoundT, EntryT, EventT]):
    """A coordinator of some variant of the protocol that runs one round after the other.

    It begins in IDLE, before its first round; the first `advance_time` takes it into the first phase that collects messages.

    Args:
        profile: the variant of the protocol.
        settings: how rounds are run. `next_settings` can be replaced at any time: they count from the next round on.
        now_seconds: the time now.
        entropy: returns as many random bytes as it is asked for; `os.urandom` outside of tests.
        round_id: number of the last round there was; the first one here has the next.
        seed: round seed of that round.
        chunk_store: where the pieces of unfinished messages lie; in memory if not given.
        state: where another coordinator was, to go on from; it is not copied, and takes the place of `round_id` and `seed`.
    """

    def __init__(
        self,
        profile: Profile[SettingsT, RoundT, EntryT, EventT],
        settings: SettingsT,
        *,
        now_seconds: float,
        entropy: Callable[[int], bytes],
        round_id: int = 0,
        seed: bytes = ZERO_SEED,
        chunk_store: ChunkStore | None = None,
        state: MachineState[RoundT] | None = None,
    ) -> None:
        self.settings = settings
        self.next_settings = settings
        self.state: MachineState[RoundT] = state or MachineState(Phase.IDLE, now_seconds, round_id, seed)
        self.profile: Final = profile
        self._entropy: Final = entropy
        self._chunk_store: Final = chunk_store
        self._events: deque[MachineEvent | EventT] = deque()
        self._windows = profile.rules.windows(settings, self.state.round)
        #: The last time there was: chunks are taken then.
        self._now_seconds = self.state.phase_started_seconds

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
    def encryption_keys(self) -> EncryptionKeyPair | None:
        """The keys that open messages of the current round; None before the first."""
        return None if self.state.round is None else self.state.round.keys

    @property
    def accepted_tag(self) -> MessageTag | None:
        """The one kind of message that is taken now; None if none is."""
        return self.profile.phases.accepted_tags.get(self.state.phase)

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
        tag = self.accepted_tag
        collecting = None if tag is None else (tag, self._windows[self.state.phase])
        return Status.of(self.state, now_seconds, collecting, self._reopens_at_time_out())

    def announce_again(self) -> None:
        """Emit what the owner of a fresh coordinator would have heard of the round that a state is in: for a restart."""
        state = self.state
        if state.round is not None and state.phase is not Phase.SHUTDOWN:
            self._emit(events.PhaseEntered(round_id=state.round_id, phase=state.phase))
            self._events.extend(self.profile.rules.announce(state.round_id, state.round, state.phase))

    def next_event(self) -> MachineEvent | EventT | None:
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
            self._enter(self.profile.phases.next_phase(self.state.phase, outcome.trigger), now_seconds)
            self._events.extend(outcome.announcements)

    def receive(self, message: Message, now_seconds: float) -> EntryT | None:
        """Take a message that was opened and whose signature was verified, after letting the deadlines up to now pass.

        The work of adding it happens in this call. A refused message fails alone: it is counted, and nothing else is changed.
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

    def check_senders(self, messages: Sequence[Message]) -> list[SenderCheck | None]:
        """Find out whether senders may send their messages, which takes longer than most of the rest; changes nothing.

        Unlike all other calls, this may overlap with them, in any thread.

        Returns:
            For each message what `take` need not find out again; None where the whole message has to be known, or there is no
            round.
        """
        current = self.state.round
        if current is None:
            return [None] * len(messages)
        whole = [message for message in messages if not message.is_multipart]
        refusals = iter(self.profile.rules.check_senders(current, whole))
        return [None if message.is_multipart else SenderCheck(current, next(refusals)) for message in messages]

    def take(self, message: Message, checked: SenderCheck | None = None) -> EntryT | None:
        """Take a message as `receive` does, but let no time pass, for an owner that has more to do in between.

        Args:
            message: what to take.
            checked: what `check_senders` said of it, if it was asked. In another round by now, it is not used.
        """
        try:
            return self._take(message, checked)
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
        self._enter(self.profile.phases.next_phase(self.state.phase, Trigger.SHUT_DOWN), self.state.phase_started_seconds)
        self._events.extend(self.profile.rules.withdraw(self.state.round_id, self.state.round))

    # ---- messages -----------------------------------------------------------------------------------------------------

    def _take(self, message: Message, checked: SenderCheck | None) -> EntryT | None:
        """Take a message into the round: all checks in the order of docs/protocol.md, then the change.

        Raises:
            RemoteProtocolError: the message is refused, the round is as before.
        """
        current = require_round(self.state, message, self.accepted_tag, self._windows.get(self.state.phase))
        payload = self._reassemble(current, message)
        if payload is None:
            return None
        if checked is None or checked.current is not current:
            self.profile.rules.check_sender(current, message, payload)
        elif checked.refused is not None:
            raise RemoteProtocolError(checked.refused.reason, checked.refused.description)
        entry = self.profile.rules.take(current, message, payload)
        if entry is None:
            return None
        self.state.counters.accepted += 1
        self._emit(
            events.MessageAccepted(
                round_id=self.state.round_id, tag=message.tag, participant_public_key=message.participant_public_key
            )
        )
        return entry

    def _reassemble(self, current: RoundT, message: Message) -> object:
        """Return the whole payload; None if the message is a chunk and others are missing.

        Raises:
            RemoteProtocolError: a chunk that cannot be stored, or chunks that make up no payload; these are dropped.
        """
        if not isinstance(message.payload, Chunk):
            return message.payload
        public_key, tag, rules = message.participant_public_key, message.tag, self.profile.rules
        # What is in the round already needs no room: the last chunk may come again if its answer was lost. Nor does what
        # would be refused when it is whole.
        rules.admit(current, public_key, tag)
        head = rules.head_check(current, public_key, tag)
        whole = current.chunks.add(public_key, tag, message.payload, self._now_seconds, head)
        return None if whole is None else self.profile.codec.decoders[message.tag](whole)

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
        """Open a round with the settings that count from now on."""
        state, rules = self.state, self.profile.rules
        self.settings = self.next_settings
        start = RoundStart(
            round_id=state.round_id,
            previous=state.round,
            previous_seed=state.seed,
            entropy=self._entropy,
            chunk_store=self._chunk_store,
        )
        state.round, state.seed, published = rules.begin(self.settings, start)
        self._windows = rules.windows(self.settings, state.round)
        return _Outcome(Trigger.PARAMETERS_DRAWN, tuple(published))

    def _reopens_at_time_out(self) -> bool:
        """Return whether a time-out now would open the round anew rather than let it fail: nobody has joined it."""
        return self.profile.phases.reopens(self.state.phase) and self.state.counters.accepted == 0

    def _check_window(self, now_seconds: float) -> _Outcome | None:
        """End a phase that collects messages, if it is time (spec 6.3)."""
        state, rules = self.state, self.profile.rules
        assert state.round is not None, "messages are collected in a round only"
        window = self._windows[state.phase]
        window_state = window.state(state.phase_started_seconds, now_seconds, state.counters.accepted)
        if window_state is WindowState.OPEN:
            return None
        for reason in rules.unfinished(state.round, state.phase):
            self.refuse(reason)
        if window_state is WindowState.COMPLETE:
            published = rules.end_phase(state.round_id, state.round, state.phase)
            if isinstance(published, RoundFailure):
                return self._fail(published)
            return _Outcome(Trigger.ENOUGH_MESSAGES, tuple(published))
        expected = f"phase {state.phase.value}: expected {window.min_count} messages within {window.max_seconds:g} seconds"
        if self._reopens_at_time_out():
            return self._reopen(f"{expected}, nobody joined")
        reason, hint = rules.time_out(state.phase)
        return self._fail(RoundFailure(reason, f"{expected}, got {state.counters.accepted}{hint}"))

    def _unmask(self) -> _Outcome:
        """Make the result of the round; without one, the round fails."""
        state = self.state
        assert state.round is not None, "there is something to unmask in a round only"
        result = self.profile.rules.finish(state.round_id, state.round)
        if isinstance(result, RoundFailure):
            return self._fail(result)
        state.rounds_completed += 1
        # Not an invitation to send anything, so it need not wait for the next phase; and the next round comes after it.
        self._emit(result)
        return _Outcome(Trigger.MODEL_UNMASKED)

    def _reopen(self, description: str) -> _Outcome:
        """Let the next round take the place of one that nobody joined: its new seed draws the tasks again."""
        self.state.rounds_reopened += 1
        self._emit(events.RoundReopened(round_id=self.state.round_id, description=description))
        return _Outcome(Trigger.NOBODY_JOINED)

    def _fail(self, failure: RoundFailure) -> _Outcome:
        """Give the round up (spec 1.8)."""
        state = self.state
        state.rounds_failed += 1
        failed = events.RoundFailed(round_id=state.round_id, reason=failure.reason, description=failure.description)
        return _Outcome(Trigger.ROUND_FAILED, (failed, *self.profile.rules.withdraw(state.round_id, state.round)))

    def _emit(self, event: MachineEvent | EventT) -> None:
        self._events.append(event)
