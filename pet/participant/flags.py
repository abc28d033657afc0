"""What a participant tells its application: the flags and numbers that the events of the machine set, its status, its warnings.

Nothing here does I/O but logging, and nothing asks the coordinator. Source: docs/spec/pet.md 8.2.
"""

from __future__ import annotations

import logging
from typing import Final, Literal, TypeAlias, assert_never

from pet.errors import BackPressureError, PetError, RemoteProtocolError
from pet.messages import RoundParameters, Tag
from pet.participant.pet1_machine import Pet1Machine
from pet.participant.status import Contact, ParticipantStatus, Task, clipping_hint, refusal_text
from pet.pet1.inclusion import Inclusion
from pet.pet1.messages import Pet1Tag
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import (
    AnswerRefused,
    EnrolmentUsed,
    Event,
    FollowedRound,
    MessageDelivered,
    MessageLate,
    MessageSplit,
    ModelDropped,
    ModelMasked,
    ModelWanted,
    NewRound,
    NotSelected,
    SumSelected,
    TaskAbandoned,
    UpdateJudged,
    UpdateSelected,
)
from pet.protocol.participant_state import ParticipantState

_logger: Final = logging.getLogger(__name__)

#: A participant of either profile.
Machine: TypeAlias = ParticipantMachine | Pet1Machine

_ROUND_NAME_DIGITS: Final = 16

#: That many late messages in a row are no chance.
_LATE_MESSAGES: Final = 3

#: What happens to scaled weights beyond the bound of the mask config: clamped with one warning a round, clamped and counted in
#: `status.last_clipped_count`, or refused with a ModelError.
OnClip = Literal["warn", "count", "raise"]


class ParticipantFlags:
    """Follows a machine by its events.

    Attributes:
        new_global_model: there may be a new global model: set by every new round, cleared when one was fetched (or found not
            to exist), kept if that failed.
        should_set_model: the machine waits for a model; cleared by `set_model` and by a new round.
        task: what this participant does in the round.
        last_error: why the last tick got no usable answer from the coordinator; None if it did.
    """

    def __init__(self, machine: Machine, on_clip: OnClip) -> None:
        self._machine = machine
        self._on_clip = on_clip
        self.new_global_model = False
        self.should_set_model = False
        self.task = Task.NONE
        self.last_error: PetError | None = None
        self._name = f"participant {machine.public_key.hex()[:8]}"
        self._contact = Contact(f"{self._name}: coordinator")
        self._model_contact = Contact(f"{self._name}: global model")
        self._warning_level = logging.WARNING
        self._last_refusal: str | None = None
        self._models_sent = self._rounds = 0
        self._messages_late = self._late_in_a_row = 0
        self._last_clipped_count: int | None = None
        self._protection: str | None = None
        self._last_inclusion: Inclusion | None = None

    def lower_warnings(self, level: int) -> None:
        """Log warnings at another level from now on: an owner of many participants warns for all of them."""
        self._warning_level = self._contact.level = self._model_contact.level = level

    @property
    def status(self) -> ParticipantStatus:
        """How the participant is doing; may be read from any thread."""
        followed = self._machine.round
        troubled = self._contact if self._contact.error is not None else self._model_contact
        return ParticipantStatus(
            phase=self._machine.state.value,
            task=self.task,
            round=followed.digest.hex()[:_ROUND_NAME_DIGITS] if followed is not None else None,
            is_connected=self._contact.was_made and self._contact.error is None,
            last_error=troubled.error,
            error_since=troubled.since,
            last_refusal=self._last_refusal,
            models_sent=self._models_sent,
            messages_late=self._messages_late,
            last_clipped_count=self._last_clipped_count,
            rounds=self._rounds,
            protection=self._protection,
            last_inclusion=None if self._last_inclusion is None else self._last_inclusion.value,
        )

    def raise_permanent_error(self) -> None:
        """Raise the error of the last tick if it will not go away by itself; see `Contact.raise_permanent_error`."""
        self._contact.raise_permanent_error()

    @property
    def retry_after_seconds(self) -> float:
        """How long the coordinator asked to wait before the next tick; 0 if it did not."""
        error = self.last_error
        return (error.retry_after_seconds or 0.0) if isinstance(error, BackPressureError) else 0.0

    @property
    def made_progress(self) -> bool:
        """Whether the last tick changed anything; True before the first."""
        return self._machine.made_progress

    @property
    def has_task(self) -> bool:
        """Whether the round still wants something of this participant: a message, or an answer to one."""
        return self._machine.state is not ParticipantState.AWAITING

    @property
    def public_key(self) -> bytes:
        """The participant's signing key, 32 bytes."""
        return self._machine.public_key

    @property
    def parameters(self) -> RoundParameters | None:
        """The parameters of the round; None before the first contact, and under pet/1."""
        return self._machine.parameters

    @property
    def round(self) -> FollowedRound | None:
        """The round under either profile; None before the first contact."""
        return self._machine.round

    def _finish_tick(self) -> list[Event]:
        """Take what happened in a tick, and note whether the coordinator answered."""
        events = self._take_events()
        # A message that was refused is news of its own: an event said so.
        was_refused = any(isinstance(event, (MessageSplit, TaskAbandoned)) for event in events)
        self._contact.note(None if was_refused else self.last_error)
        return events

    def _take_events(self) -> list[Event]:
        events = []
        while (event := self._machine.next_event()) is not None:
            self._note(event)
            events.append(event)
        return events

    def _note(self, event: Event) -> None:
        match event:
            case NewRound():
                self.new_global_model = True
                self.should_set_model = False
                self.task = Task.NONE
            case SumSelected():
                self.task = Task.SUM
                self._rounds += 1
            case UpdateSelected():
                self.task = Task.UPDATE
                self._rounds += 1
            case ModelWanted():
                self.should_set_model = True
            case NotSelected():
                self.task = Task.NONE
            case TaskAbandoned():
                self._warn_of_refusal(event)
                self.task = Task.NONE
                self.should_set_model = False
            case MessageSplit():
                self._warn_of_refusal(event)
            case MessageDelivered():
                self._models_sent += event.tag in (Tag.UPDATE, Pet1Tag.UPDATE)
                self._last_refusal = None
                self._late_in_a_row = 0
            case MessageLate():
                self._note_lateness()
            case ModelMasked():
                self._note_clipping(event.clipped_count)
            case ModelDropped():
                _logger.log(self._warning_level, "%s: model dropped: %s", self._name, event.description)
            case AnswerRefused():
                self.last_error = RemoteProtocolError(event.reason, f"answer refused: {event.description}")
            case EnrolmentUsed():
                self._protection = event.description
                _logger.info("%s: %s", self._name, event.description)
            case UpdateJudged():
                self._note_inclusion(event.inclusion)
            case _:
                assert_never(event)

    def _warn_of_refusal(self, event: TaskAbandoned | MessageSplit) -> None:
        """Warn of what the coordinator, or the way to it, does not take; once, though it may be so in every round."""
        text = refusal_text(event)
        level = logging.DEBUG if text == self._last_refusal else self._warning_level
        self._last_refusal = text
        _logger.log(level, "%s: %s", self._name, text)

    def _note_lateness(self) -> None:
        """Warn once of messages that come too late again and again; one may, whenever a phase had enough others."""
        self._messages_late += 1
        self._late_in_a_row += 1
        if self._late_in_a_row == _LATE_MESSAGES:
            text = (
                "messages came too late for their phases: the way to the coordinator, or training, takes longer than they last"
            )
            _logger.log(self._warning_level, "%s: the last %d %s", self._name, _LATE_MESSAGES, text)

    def _note_inclusion(self, inclusion: Inclusion) -> None:
        """Warn once of an update that is not in the sum, though the coordinator accepted it."""
        before, self._last_inclusion = self._last_inclusion, inclusion
        is_news = inclusion not in (Inclusion.AGREED, before)
        _logger.log(self._warning_level if is_news else logging.DEBUG, "%s: last update: %s", self._name, inclusion.value)

    def _note_clipping(self, clipped_count: int) -> None:
        self._last_clipped_count = clipped_count
        followed = self._machine.round
        if clipped_count and self._on_clip == "warn" and followed is not None:
            text = clipping_hint(clipped_count, followed, float(self._machine.scalar))
            _logger.log(self._warning_level, "%s: %s", self._name, text)
