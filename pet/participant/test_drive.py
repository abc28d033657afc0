"""Dummy participants against any PET coordinator: the engine of `pet test-drive`.

All participants share one transport and a few threads, and take turns: a sweep lets each of them tick until it has nothing more
to do, then the fleet sleeps. Their models are constant. Nothing is printed here, and nothing of the protocol is known beyond
what participants report.

Source: docs/spec/pet.md 8.5.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, ModelError, RemoteProtocolError, TransportError
from pet.masking import Scalar
from pet.messages import Tag
from pet.participant.committee_member import CommitteeMember
from pet.participant.dummy_models import make_dummy_model
from pet.participant.enrolments import EnrolmentSource
from pet.participant.flags import OnClip
from pet.participant.fleet_progress import FleetProgress
from pet.participant.status import clipping_hint, refusal_text
from pet.participant.ticks import TickParticipant
from pet.pet1.messages import Pet1Tag
from pet.protocol.participant_events import (
    Event,
    MessageDelivered,
    MessageLate,
    MessageSplit,
    ModelMasked,
    NewRound,
    SumSelected,
    TaskAbandoned,
    UpdateSelected,
)
from pet.threads import resolve_threads
from pet.transports.base import Transport

_logger: Final = logging.getLogger(__name__)

#: Ticks mostly wait for the network; masking releases the GIL. More threads than this only queue up at the coordinator.
_MAX_THREADS: Final = 16
#: A coordinator that shows a new round at each look must not keep a participant busy for ever; a task takes ten ticks or so,
#: and one that sends chunks goes on in the next sweep.
_MAX_TICKS_PER_SWEEP: Final = 1000
#: How long requests may go on after `stop`.
_GRACE_SECONDS: Final = 0.5
#: Different reasons that are remembered, so that each is reported once.
_MAX_REFUSALS: Final = 64
_ABANDONED: Final = object()

#: What happened to a participant, each with the digest of its round.
_History = list[tuple[bytes, Event]]


class DummyFleet:
    """Many participants that train nothing."""

    def __init__(
        self,
        transport: Transport,
        participant_count: int,
        *,
        model_length: int | None = None,
        weight: float | None = None,
        scalar: Scalar = 1,
        period_seconds: float = 1.0,
        max_message_size: int | None = None,
        threads: int = 1,
        on_clip: OnClip = "warn",
        max_model_length: int | None = None,
        waits_for_repair: bool = False,
        enrolment: EnrolmentSource | None = None,
        signing_keys: Sequence[SigningKeyPair] = (),
        members: Sequence[CommitteeMember] = (),
    ) -> None:
        """Make the participants; nothing is sent before `run`.

        Args:
            transport: way to the coordinator, shared by all; it stays open.
            participant_count: how many participants, 1 or more.
            model_length: length of the models; None takes what the coordinator announces.
            weight: every weight of every model; integer types take its whole part. None makes models that are the same for all
                participants and others in each round, so that the global model of a round differs from an earlier one.
            scalar: weight of each model in the mean.
            period_seconds: from the beginning of one sweep to that of the next, 0 or more.
            max_message_size: as in `TickParticipant`.
            threads: how many each may use for its masks. The participants are many, so it is one unless their models are large.
            on_clip: as in `TickParticipant`; the fleet warns once a round for all.
            max_model_length: as in `TickParticipant`.
            waits_for_repair: as in `BackOff`.
            enrolment: for rounds of pet/1, as in `TickParticipant`.
            signing_keys: of the participants then, one each; otherwise they are fresh ones.
            members: of committees, which take their turns after the participants; they stay open.

        Raises:
            ConfigError: an argument is out of range, or a key is not enrolled.
            ModelError: the scalar cannot be used.
        """
        if participant_count < 1:
            raise ConfigError(f"participant count: expected 1 or more, got {participant_count}")
        if not 0 <= period_seconds < threading.TIMEOUT_MAX:
            raise ConfigError(f"period: expected 0 seconds or more, got {period_seconds}")
        self._transport = transport
        self._model_length = model_length
        self._weight = weight
        self._period_seconds = period_seconds
        self._stop_requested = threading.Event()
        #: None for each thread that has nothing more to do, and _ABANDONED when they are not waited for.
        self._finished: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._members = members
        self._participants = [
            TickParticipant(
                transport,
                enrolment=enrolment,
                signing_key=key,
                scalar=scalar,
                max_message_size=max_message_size,
                threads=resolve_threads(threads),
                on_clip=on_clip,
                max_model_length=max_model_length,
            )
            for key in (signing_keys or itertools.repeat(None, participant_count))
        ]
        for participant in self._participants:
            participant.lower_warnings(logging.DEBUG)
        self._waits_for_repair = waits_for_repair
        self._warns_of_clipping = on_clip == "warn"
        self._scalar = scalar
        self._clipped_round: bytes | None = None
        #: Digest of the global model that was seen last; None before anything was seen, b"" if there was none.
        self._seen_model: bytes | None = None
        #: What was refused, each reason once for all participants and rounds.
        self._refusals: set[str] = set()
        self._progress = FleetProgress()
        # Digest of the parameters of each open round, in order of appearance, and whether a mask of ours was delivered.
        self._rounds: dict[bytes, bool] = {}

    def run(self, rounds: int | None = None, on_progress: Callable[[FleetProgress], None] | None = None) -> FleetProgress:
        """Take part until stopped, or until `rounds` of them have finished. Outlives restarts of the coordinator.

        Args:
            rounds: how many finished rounds are enough; None means no number is.
            on_progress: called after each sweep.

        Raises:
            ModelError: the coordinator announces another model length than was asked for, or a mask config whose bound the
                scalar, or with `on_clip="raise"` a weight, is beyond.
            PetError: what answers is no coordinator, or does not let us in; see `BackOff.waits_for_repair`.
        """
        try:
            while not self._stop_requested.is_set():
                started = time.monotonic()
                self._sweep()
                if on_progress is not None:
                    on_progress(self._progress)
                if rounds is not None and self._progress.rounds_finished >= rounds:
                    break
                asked_seconds = max(participant.retry_after_seconds for participant in self._participants)
                period_seconds = max(self._period_seconds, asked_seconds)
                self._stop_requested.wait(max(0.0, started + period_seconds - time.monotonic()))
        finally:
            self._stop_requested.set()  # also after Ctrl-C
        return self._progress

    def stop(self) -> None:
        """Make `run` return after the ticks under way, requests given up after half a second; may be called from any thread."""
        self._stop_requested.set()
        timer = threading.Timer(_GRACE_SECONDS, self._end_requests)
        timer.daemon = True
        timer.start()

    def _end_requests(self) -> None:
        """End requests under way, and stop waiting for what goes on: a large model being masked."""
        end_requests = getattr(self._transport, "end_requests", None)
        if end_requests is not None:
            end_requests()
            time.sleep(_GRACE_SECONDS / 2)
            self._finished.put(_ABANDONED)

    def _take_turns(self) -> list[_History] | None:
        """Let the participants take their turns in a few threads; None if `stop` came and they did not end.

        They are daemons, which a pool cannot have: one that hangs in the operating system must not hold the end of the program.
        """
        waiting = deque(enumerate(self._participants))
        histories: dict[int, _History] = {}
        errors: list[Exception] = []

        def work() -> None:
            with contextlib.suppress(IndexError):  # of an empty deque
                while not errors:
                    index, participant = waiting.popleft()
                    try:
                        histories[index] = self._take_turn(participant)
                    except Exception as error:
                        errors.append(error)
            self._finished.put(None)

        threads = min(_MAX_THREADS, len(self._participants))
        for number in range(threads):
            threading.Thread(target=work, name=f"pet-test-drive-{number}", daemon=True).start()
        for _ in range(threads):
            if self._finished.get() is _ABANDONED:
                return None
        if errors:
            raise errors[0]
        return [history for _, history in sorted(histories.items())]

    def _sweep(self) -> None:
        """Let every participant tick until it makes no more progress, then count what happened."""
        histories = self._take_turns()
        if histories is None:
            return
        errors = [str(participant.last_error) for participant in self._participants if participant.last_error is not None]
        self._progress = replace(self._progress, sweeps=self._progress.sweeps + 1, last_error=errors[0] if errors else None)
        for history in histories:
            for round_digest, event in history:
                self._count(round_digest, event)
        for member in self._members:
            self._take_members_turn(member)
        if not self._waits_for_repair:
            for participant in self._participants:
                participant.raise_permanent_error()
        self._judge_rounds()

    def _take_turn(self, participant: TickParticipant) -> _History:
        """Tick one participant; returns what happened, each with the digest of its round."""
        history: _History = []
        for _ in range(_MAX_TICKS_PER_SWEEP):
            if self._stop_requested.is_set():
                break
            events = participant.tick()
            if participant.round is not None:
                digest = participant.round.digest
                history.extend((digest, event) for event in events)
            if participant.should_set_model:
                participant.set_model(self._dummy_model(participant))
            elif not participant.made_progress:
                break
        return history

    def _take_members_turn(self, member: CommitteeMember) -> None:
        for _ in range(_MAX_TICKS_PER_SWEEP):
            if self._stop_requested.is_set():
                return
            member.tick()
            if not member.made_progress:
                return

    def _dummy_model(self, participant: TickParticipant) -> NDArray[Any]:
        config, followed = participant.local_model_config, participant.round
        assert followed is not None, "a model is wanted only in a round"
        if self._model_length is not None and self._model_length != config.length:
            raise ModelError(
                f"model length: expected {self._model_length} as asked for, got {config.length} from the coordinator"
            )
        if self._weight is not None:
            return np.full(config.length, config.dtype.type(self._weight))
        return make_dummy_model(followed, config.dtype)

    def _count(self, round_digest: bytes, event: Event) -> None:
        progress = self._progress
        match event:
            case NewRound():
                self._rounds.setdefault(round_digest, False)
            case SumSelected():
                self._progress = replace(progress, sum_tasks=progress.sum_tasks + 1)
            case UpdateSelected():
                self._progress = replace(progress, update_tasks=progress.update_tasks + 1)
            case MessageDelivered():
                self._progress = replace(progress, messages_delivered=progress.messages_delivered + 1)
                if event.tag in (Tag.SUM2, Pet1Tag.UPDATE) and round_digest in self._rounds:
                    self._rounds[round_digest] = True
            case MessageLate():
                self._progress = replace(progress, messages_late=progress.messages_late + 1)
            case ModelMasked() if event.clipped_count and self._warns_of_clipping and round_digest != self._clipped_round:
                self._clipped_round = round_digest
                self._warn_of_clipping(event.clipped_count)
            case TaskAbandoned() | MessageSplit() if (text := refusal_text(event)) not in self._refusals:
                if len(self._refusals) < _MAX_REFUSALS:
                    self._refusals.add(text)
                self._warn(text)
            case _:
                pass

    def _warn_of_clipping(self, clipped_count: int) -> None:
        followed = self._participants[0].round
        if followed is not None:
            self._warn(clipping_hint(clipped_count, followed, float(self._scalar)))

    def _warn(self, text: str) -> None:
        _logger.warning("%s", text)
        self._progress = replace(self._progress, last_warning=text, warning_count=self._progress.warning_count + 1)

    def _judge_rounds(self) -> None:
        """Decide how the rounds ended that no participant is in now.

        The protocol does not tell participants; a mask of ours that arrived, and a global model that was not there before, are
        the best sign there is. Of several rounds that ended since the last sweep at most one is known to have made it.
        """
        current = {participant.round.digest for participant in self._participants if participant.round is not None}
        ended = [digest for digest in self._rounds if digest not in current]
        had_seen = self._seen_model is not None or self._weight is not None
        if not ended and (had_seen or not current or self._stop_requested.is_set()):
            return
        has_new_model = self._look_at_model() and had_seen
        for round_digest in reversed(ended):
            if self._rounds.pop(round_digest) and has_new_model:
                has_new_model = self._weight is not None  # models of one weight are all alike: any will do
                self._progress = replace(self._progress, rounds_finished=self._progress.rounds_finished + 1)
            else:
                self._progress = replace(self._progress, rounds_given_up=self._progress.rounds_given_up + 1)

    def _look_at_model(self) -> bool:
        """Fetch the global model; returns whether there is one that counts: with a fixed weight any, else a new one."""
        try:
            model = self._participants[0].global_model()
        except TransportError:
            return False
        except RemoteProtocolError:
            model = None  # of an earlier configuration
        digest = b"" if model is None else hashlib.sha256(model.tobytes()).digest()
        before, self._seen_model = self._seen_model, digest
        return digest != b"" and (self._weight is not None or digest != before)
