"""What a phase waits for, in figures and in words: who was last seen, what is missing, and what helps.

Two kinds of evidence are kept apart. A message that was accepted is signed, so its sender was there at that time. A request for
seeds names a public key that the sum dictionary shows to everybody: it may come from a sum participant or from anybody else, so
it never counts as having seen a participant, and the words say "asked for" only. Neither decides anything about the round.

No keys are shown. This file knows phases and counts, but no route and no storage.
"""

from __future__ import annotations

import math
import threading
from typing import Any, Final

from pet.messages import MessageTag, Tag
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import CoordinatorState, Status, Waiting

#: Longer times are shown in minutes.
_MAX_SECONDS_SHOWN: Final = 120
#: Longer ones are shown in hours.
_MAX_MINUTES_SHOWN: Final = 120


class Sightings:
    """When participants of the phase were last seen, and when missing seeds were last asked for; any thread may call it.

    What it holds is bounded by the number of sum participants of one round. It begins empty after a restart.
    """

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        #: When the last message of this phase was accepted.
        self._last_accepted: float | None = None
        #: When the Sum message of each sum participant of the round was accepted.
        self._sums: dict[bytes, float] = {}
        #: Sum participants whose mask is missing, and when their seeds were last asked for.
        #: None while the seeds are not published, or no longer.
        self._missing: dict[bytes, float | None] | None = None
        #: The latest of both times over `_missing`: anybody may ask for them, and only accepted masks change them much.
        self._latest: tuple[float | None, float | None] | None = None

    def begin_round(self) -> None:
        """Forget everything about the last round."""
        with self._lock:
            self._last_accepted = None
            self._sums.clear()
            self._missing = self._latest = None

    def begin_phase(self) -> None:
        """Note that no message of the phase was accepted yet."""
        with self._lock:
            self._last_accepted = None

    def expect_masks(self, state: CoordinatorState) -> None:
        """Note whose masks are still to come, if a coordinator is in Sum2; after a restart some have come already."""
        current = state.round if state.phase is Phase.SUM2 else None
        with self._lock:
            self._latest = None
            if current is None:
                self._missing = None
            else:
                self._missing = {key: None for key in current.sum_dictionary if key not in current.votes.voters}

    def note_accepted(self, tag: MessageTag, public_key: bytes, now_seconds: float) -> None:
        """Note that a message was accepted, and with it the signature of its sender."""
        with self._lock:
            self._last_accepted = now_seconds
            if tag is Tag.SUM:
                self._sums[public_key] = now_seconds
            elif tag is Tag.SUM2 and self._missing is not None:
                self._missing.pop(public_key, None)
                self._latest = None

    def note_request(self, public_key: bytes, now_seconds: float) -> None:
        """Note that somebody asked for the seeds of a key; keys whose mask is not missing are ignored."""
        with self._lock:
            if self._missing is not None and public_key in self._missing:
                self._missing[public_key] = now_seconds
                if self._latest is not None:
                    self._latest = self._latest[0], now_seconds

    def missing_masks(self) -> int | None:
        """Return how many sum participants have sent no mask yet; None while the seeds are not published."""
        with self._lock:
            return None if self._missing is None else len(self._missing)

    def seen_seconds(self, kind: MessageTag) -> float | None:
        """Return when a participant that the phase is about was last seen; None if none was, or not since the start.

        In Sum and Update it is the sender of the last accepted message, in Sum2 a sum participant whose mask is missing.
        """
        with self._lock:
            if kind is not Tag.SUM2:
                return self._last_accepted
            return self._latest_of_missing()[0]

    def asked_seconds(self) -> float | None:
        """Return when seeds of a sum participant whose mask is missing were last asked for; None if never."""
        with self._lock:
            return self._latest_of_missing()[1]

    def _latest_of_missing(self) -> tuple[float | None, float | None]:
        if self._latest is None:
            missing = self._missing or {}
            seen = max((self._sums[key] for key in missing if key in self._sums), default=None)
            self._latest = seen, max((asked for asked in missing.values() if asked is not None), default=None)
        return self._latest


def waiting_record(status: Status, settings: RoundSettings, sightings: Sightings, now_seconds: float) -> dict[str, Any] | None:
    """Return what `GET /status` shows under "waiting", ready for JSON; None in a phase that takes no messages.

    Args:
        status: the status now.
        settings: of the round.
        sightings: of its participants, on the clock of `now_seconds`.
        now_seconds: the time now.
    """
    waiting = status.waiting
    if waiting is None:
        return None
    seen, asked = sightings.seen_seconds(waiting.kind), None
    if waiting.kind is Tag.SUM2:
        asked = sightings.asked_seconds()
    record = waiting.to_json_dict()
    record["last_seen_seconds"] = None if seen is None else max(0.0, now_seconds - seen)
    record["seeds_asked_seconds"] = None if asked is None else max(0.0, now_seconds - asked)
    left = sightings.missing_masks()
    record["text"] = _sentence(waiting, left, record)
    if waiting.kind is Tag.SUM2:
        record["advice"] = _advice_for_masks(waiting, left, status.seconds_left or 0.0)
    else:
        record["advice"] = _advice_for_tasks(waiting, settings, status.seconds_left or 0.0)
    return record


def duration(seconds: float) -> str:
    """Write a duration for people: "43 s", "12 min", "2.5 h"."""
    if seconds < _MAX_SECONDS_SHOWN:
        return f"{seconds:.0f} s"
    if seconds < 60 * _MAX_MINUTES_SHOWN:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _sentence(waiting: Waiting, left: int | None, record: dict[str, Any]) -> str:
    """Return what is missing and for how long; `left` sum participants have sent no mask yet."""
    kind, missing = waiting.kind.name.lower(), waiting.missing
    if not missing:
        verb = "is" if waiting.present == 1 else "are"
        there = f"{_count(waiting.present, f'{kind} message')} {verb} there"
        return f"{there}, enough; the phase goes on until its minimum time is over"
    text = f"waiting for {_count(missing, f'{kind} message')} of {waiting.needed}, for {duration(waiting.seconds)}"
    seen, asked = record["last_seen_seconds"], record["seeds_asked_seconds"]
    if waiting.kind is not Tag.SUM2 or left is None:
        if seen is not None:
            return f"{text}; the last one came {duration(seen)} ago"
        return text + ("; the others came before the coordinator was restarted" if waiting.present else "; none has come yet")
    if not left:
        return f"{text}; every sum participant of this round has sent one"
    who = "the sum participant was" if left == 1 else f"{left} sum participants have sent none and were"
    was_seen = "not seen since the coordinator was started" if seen is None else f"last seen {duration(seen)} ago"
    seeds = "its seeds" if left == 1 else "their seeds"
    was_asked = f"nobody has asked for {seeds}" if asked is None else f"{seeds} were last asked for {duration(asked)} ago"
    return f"{text}; {who} {was_seen}; {was_asked}"


def _advice_for_masks(waiting: Waiting, left: int | None, seconds_left: float) -> str:
    """Return what helps in Sum2, where `left` participants can still send what is missing, and what happens otherwise."""
    if not waiting.missing:
        return ""
    end = f"the round fails at its time-out, in {duration(math.ceil(seconds_left))}, and the next one begins"
    if left is not None and left < waiting.missing:
        return (
            f"{end[0].upper()}{end[1:]}: fewer sum participants joined than sum2 messages are needed."
            " pet.sum.count.min should not be below pet.sum2.count.min."
        )
    return (
        "Only sum participants of this round can send it: start them again with their saved state. If they are gone for good,"
        f" {end}; a coordinator that is started with --fresh begins anew at once."
    )


def _advice_for_tasks(waiting: Waiting, settings: RoundSettings, seconds_left: float) -> str:
    """Return what helps in Sum and Update, where everybody who is drawn can send what is missing."""
    if not waiting.missing:
        return ""
    probability = settings.sum_probability
    if waiting.kind is Tag.UPDATE:
        probability = (1 - settings.sum_probability) * settings.update_probability
    end = "the round fails at its time-out"
    if waiting.reopens_at_time_out:
        end = "the round is opened anew at its time-out"
    messages = "one such message needs" if waiting.needed == 1 else f"{waiting.needed} such messages need"
    participants, left = math.ceil(waiting.needed / probability), duration(math.ceil(seconds_left))
    return (
        f"Start more participants: on average {100 * probability:.3g}% of them are drawn for this, so {messages}"
        f" about {participants} participants. Otherwise {end}, in {left}, and everybody is drawn again."
    )


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
