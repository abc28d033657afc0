"""What a participant says of itself: a status that can be read at any time, and warnings that come once and not every second.

Nothing here does I/O but logging.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pet.errors import BackPressureError, PetError, RemoteProtocolError, TransportError
from pet.protocol.participant_events import FollowedRound, MessageSplit, TaskAbandoned

_logger: Final = logging.getLogger(__name__)

#: When a problem that lasts is logged for the second time; each further wait is twice as long, up to the second number.
_FIRST_REMINDER_SECONDS: Final = 60.0
_MAX_REMINDER_SECONDS: Final = 3600.0
#: A coordinator that is only busy is no news before it has been so for this long.
_BUSY_SECONDS: Final = 10.0
#: How long a coordinator may be replaced by another one, with a proxy in front that answers meanwhile.
_REPLACEMENT_SECONDS: Final = 60.0
#: Reasons for which an answer to /params is of something else than a PET coordinator.
_FOREIGN_ANSWERS: Final = frozenset({"malformed_parameters", "trailing_bytes"})
#: At most this number of different reasons is logged while a problem lasts; two that alternate are no news each time.
_MAX_REASONS: Final = 8


class Task(enum.Enum):
    """What the participant does in the current round."""

    NONE = "none"
    SUM = "sum"
    UPDATE = "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantStatus:
    """How a participant is doing; `str(status)`, or `status.text`, is a sentence for people.

    Attributes:
        phase: state of the participant in the round, as docs/protocol.md names them: "awaiting", "update", "sending_update"...
        task: what it does in the round.
        round: a name of the round, the same for all its participants: 16 hexadecimal digits of the digest of its parameters
            (PET does not tell participants the number), or under pet/1 of its record. None before the first contact.
        is_connected: whether the coordinator gave usable answers at last; False before the first.
        last_error: why it did not; None while it does.
        error_since: Unix time at which that began; None without an error.
        last_refusal: why a task was abandoned, or a message sent in chunks, last; None once a message was delivered since.
        models_sent: masked models that were delivered, as far as a participant can know (`MessageDelivered`).
        messages_late: messages that came too late for their round or phase (`MessageLate`).
        last_clipped_count: weights of the last masked model that were clamped to the bound; None before the first model.
        rounds: rounds in which the participant had a task.
        protection: who must collude to read this participant's updates; None under xaynet's profile, or while it is not known.
        last_inclusion: whether its last update of which that is known is in the sum that was certified, for people; None
            before the first, and under xaynet's profile, where nobody can know.
        ended_by: the exception that ended the participant; None while it runs, or if it was stopped.
    """

    phase: str
    task: Task
    round: str | None
    is_connected: bool
    last_error: PetError | None
    error_since: float | None
    last_refusal: str | None
    models_sent: int
    messages_late: int
    last_clipped_count: int | None
    rounds: int
    protection: str | None = None
    last_inclusion: str | None = None
    ended_by: BaseException | None = None

    @property
    def text(self) -> str:
        """The status in one sentence."""
        if self.ended_by is not None:
            return f"ended by {type(self.ended_by).__name__}: {self.ended_by}"
        parts = [
            self._connection(),
            f"round {self.round}: task {self.task.value}, {self.phase}" if self.round else "no round yet",
        ]
        if self.last_refusal is not None:
            parts.append(f"refused: {self.last_refusal}")
        parts.append(f"models sent: {self.models_sent} in {self.rounds} rounds with a task")
        if self.messages_late:
            parts.append(f"messages that came too late: {self.messages_late}")
        if self.last_clipped_count:
            parts.append(f"{self.last_clipped_count} weights of the last one were clamped")
        if self.last_inclusion is not None:
            parts.append(f"the last update: {self.last_inclusion}")
        if self.protection is not None:
            parts.append(self.protection)
        return "; ".join(parts)

    def __str__(self) -> str:
        return self.text

    def _connection(self) -> str:
        if self.last_error is not None and self.error_since is not None:
            return f"no usable answer since {_shown_time(self.error_since)}: {self.last_error}"
        return "connected" if self.is_connected else "not connected yet"


class Contact:
    """Follows whether something works: logs that it does not once, then now and then, and once that it does again.

    Args:
        what: what should work, for people.
        clock: returns seconds that never go back.
        wall_clock: returns Unix time.

    Attributes:
        error: why it does not work; None while it does.
        since: Unix time at which that began.
        was_made: whether it has ever worked.
        level: of the log lines.
    """

    def __init__(
        self, what: str, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._what: Final = what
        self._clock: Final = clock
        self._wall_clock: Final = wall_clock
        self.error: PetError | None = None
        self.since: float | None = None
        self.was_made = False
        self.level = logging.WARNING
        self._began_seconds = 0.0
        self._next_log_seconds = 0.0
        self._reminder_seconds = _FIRST_REMINDER_SECONDS
        self._reasons: set[str] = set()

    @property
    def lasts_seconds(self) -> float:
        """For how long it has not worked; 0 while it does."""
        return 0.0 if self.error is None else self._clock() - self._began_seconds

    def raise_permanent_error(self) -> None:
        """Raise the error if it will not go away by itself: the URL, a certificate or the protocol is wrong.

        After it worked once, such an error must have lasted for a minute: a proxy says the same while a coordinator is
        replaced.

        Raises:
            PetError: the error.
        """
        if self.error is None or _is_temporary(self.error):
            return
        if not self.was_made or self.lasts_seconds >= _REPLACEMENT_SECONDS:
            raise self.error

    def note(self, error: PetError | None) -> None:
        """Take note of how an attempt ended: why it failed, or None."""
        if error is None:
            self._note_success()
            return
        now = self._clock()
        if self.error is None:
            self.since, self._began_seconds, self._next_log_seconds = self._wall_clock(), now, now
            self._reminder_seconds = _FIRST_REMINDER_SECONDS
        self.error = error
        if isinstance(error, BackPressureError) and now - self._began_seconds < _BUSY_SECONDS:
            return
        is_news = str(error) not in self._reasons and len(self._reasons) < _MAX_REASONS
        if is_news or now >= self._next_log_seconds:
            self._log(error, now)

    def _log(self, error: PetError, now: float) -> None:
        if not self._reasons:
            _logger.log(self.level, "%s: %s; trying again", self._what, error)
        else:
            since = _shown_time(self.since) if self.since is not None else "before"
            _logger.log(self.level, "%s: still without success since %s: %s", self._what, since, error)
            self._reminder_seconds = min(self._reminder_seconds * 2, _MAX_REMINDER_SECONDS)
        if len(self._reasons) < _MAX_REASONS:
            self._reasons.add(str(error))
        self._next_log_seconds = now + self._reminder_seconds

    def _note_success(self) -> None:
        self.was_made = True
        if self._reasons:
            _logger.log(self.level, "%s: works again after %.0f s", self._what, self._clock() - self._began_seconds)
        self.error = self.since = None
        self._reasons.clear()


def _shown_time(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _is_temporary(error: PetError) -> bool:
    if isinstance(error, RemoteProtocolError):
        return error.reason not in _FOREIGN_ANSWERS
    return not isinstance(error, TransportError) or error.is_temporary


def refusal_text(event: TaskAbandoned | MessageSplit) -> str:
    """Return a sentence on what was given up, or is sent otherwise."""
    if isinstance(event, TaskAbandoned):
        return f"task abandoned: {event.description}"
    return f"message refused, sending it in chunks of {event.max_message_size} bytes: {event.description}"


def clipping_hint(clipped_count: int, followed: FollowedRound, scalar: float) -> str:
    """Return a sentence on weights that were clamped, and on what to do about it."""
    config = followed.config
    limit = f"{float(config.largest_value):g}, the bound of {config}"
    return (
        f"{clipped_count} of {followed.model_length} weights were clipped, so the global model is not the mean:"
        f" scalar * weight must stay within {limit}, and the scalar is {scalar:g}. Divide the scalars of all participants by"
        " the same number, which leaves their mean as it is, or choose a mask config with a larger bound (pet config advise)"
    )
