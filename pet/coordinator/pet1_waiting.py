"""What a phase of pet/1 waits for, in figures and in words: which members of the committee, or how many updates.

Slots are named by their number: who has which is in the enrolment, which everybody can read. This file knows no route.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from pet.coordinator.waiting import Sightings, duration
from pet.messages import MessageTag
from pet.pet1.messages import Pet1Tag
from pet.protocol.pet1_coordinator import SlotStatus
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.round_state import Status, Waiting

#: Whether a member has sent a kind of message; after Sum, those are expected who have announced themselves.
_SENT: Final[dict[MessageTag, Callable[[SlotStatus], bool]]] = {
    Pet1Tag.SUM: lambda slot: slot.announced,
    Pet1Tag.CHECK: lambda slot: slot.checked,
    Pet1Tag.SUM2: lambda slot: slot.answered,
}


def slots_waiting_record(
    status: Status, settings: Pet1Settings, slots: Sequence[SlotStatus], sightings: Sightings, now_seconds: float
) -> dict[str, Any] | None:
    """Return what `GET /status` shows under "waiting", ready for JSON; None in a phase that takes no messages.

    Args:
        status: the status now.
        settings: of the round.
        slots: of the committee.
        sightings: of its participants, on the clock of `now_seconds`.
        now_seconds: the time now.
    """
    waiting = status.waiting
    if waiting is None:
        return None
    seen = sightings.seen_seconds(waiting.kind)
    left: list[int] = []
    if waiting.kind in _SENT:
        has_sent, is_sum = _SENT[waiting.kind], waiting.kind is Pet1Tag.SUM
        left = [number for number, slot in enumerate(slots) if (is_sum or slot.announced) and not has_sent(slot)]
    record = waiting.to_json_dict()
    record["last_seen_seconds"] = None if seen is None else max(0.0, now_seconds - seen)
    record["seeds_asked_seconds"] = None
    record["slots"] = left
    record["text"] = _sentence(waiting, left, record["last_seen_seconds"])
    record["advice"] = _advice(waiting, settings, status.seconds_left or 0.0)
    return record


def _sentence(waiting: Waiting, left: Sequence[int], seen_seconds: float | None) -> str:
    """Return what is missing and for how long."""
    kind = waiting.kind.name.lower()
    if not waiting.missing:
        verb = "is" if waiting.present == 1 else "are"
        there = f"{waiting.present} {kind} message{'' if waiting.present == 1 else 's'} {verb} there, enough"
        return (
            f"{there}; {_slots(left)} may still come" if left else f"{there}; the phase goes on until its minimum time is over"
        )
    plural = "" if waiting.missing == 1 else "s"
    text = f"waiting for {waiting.missing} {kind} message{plural} of {waiting.needed}, for {duration(waiting.seconds)}"
    if left:
        text += f"; {_slots(left)} {'has' if len(left) == 1 else 'have'} sent none"
    if seen_seconds is not None:
        return f"{text}; the last one came {duration(seen_seconds)} ago"
    return text + ("; the others came before the coordinator was restarted" if waiting.present else "; none has come yet")


def _advice(waiting: Waiting, settings: Pet1Settings, seconds_left: float) -> str:
    """Return what helps, and what happens otherwise."""
    if not waiting.missing:
        return ""
    end = f"the round fails at its time-out, in {duration(math.ceil(seconds_left))}, and the next one begins"
    if waiting.kind is Pet1Tag.UPDATE:
        share = settings.update_share / (2**32 - 1)
        drawn = "" if share == 1 else f", of whom {100 * share:.3g}% are selected in each round"
        return f"Start more participants that the enrolment lists{drawn}. Otherwise {end}."
    if waiting.kind is Pet1Tag.SUM:
        return f"Start the members of these slots (pet member). Otherwise {end}."
    return f"Only members of this round can send it: start them again with their saved state. Otherwise {end}."


def _slots(numbers: Sequence[int]) -> str:
    return f"slot{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"
